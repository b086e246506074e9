//! Targets that are held: whole under their marker, from one sync to the next.

use diskdelta::storage::Access;
use diskdelta::storage::fault::{Call, Fault, FaultDisk, OpKind};
use diskdelta::sync::{Marker, Safety, SyncOptions, held_image, hold, release, sync};
use diskdelta::{Advice, ErrorKind, Result as Done};

use crate::case::{Case, Job, TARGET, source, work};
use crate::cases::{self, MIB, PAGE, bytes};
use crate::medium::{advice, leave_marked, nth, unreadable};

/// Leaves the target held after two passes, with `content`. It was to be released, and the crash
/// came before the last write of that.
pub fn prepare(case: &Case, content: &[u8], disk: &FaultDisk) {
    let pass = case.clone().doing(Job::Sync);
    pass.sync_from(&passing(content), disk).unwrap();
    pass.sync_from(content, disk).unwrap();
    let is_last = |call: &Call<'_>| {
        let is_page = call.range.start == 0 && call.range.end > 0;
        call.kind == OpKind::Write && call.path.ends_with("t") && is_page
    };
    disk.fail(Fault::nth(1).on(is_last).and_all_later());
    release(&case.target(disk), &work()).unwrap_err();
    disk.heal();
    disk.make_durable();
}

/// What the pass before the last one left: in a container blocks that `content` does not need.
fn passing(content: &[u8]) -> Vec<u8> {
    let mut passing = content.to_vec();
    let last = passing.len() / PAGE - 1;
    for page in [0, 5, last] {
        passing[page * PAGE..(page + 1) * PAGE].copy_from_slice(&bytes(PAGE, 0x61));
    }
    passing
}

/// What its holder reads there; `None` where there is no marker.
pub fn content(case: &Case, disk: &FaultDisk) -> Done<Option<Vec<u8>>> {
    let Some(image) = held_image(&case.target(disk), &work())? else {
        return Ok(None);
    };
    let mut bytes = vec![0; image.disk_len() as usize];
    image.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

/// A held target is refused by all that do not hold it, whether it is whole or not.
pub fn refused(case: &Case, disk: &FaultDisk) -> Result<(), String> {
    let plain = SyncOptions::default()
        .with_safety(Safety::InPlace)
        .with_allow_shrink(true);
    match sync(&source(&case.new), &case.target(disk), &plain, &work()) {
        Err(error) if error.kind() == ErrorKind::Incomplete => Ok(()),
        other => Err(format!("a held target was not refused: {other:?}")),
    }
}

/// Once a hold was acknowledged the marker is there, all of it.
pub fn guarded(disk: &FaultDisk) -> Result<(), String> {
    let Some(marker) = marker(disk) else {
        return Err("a held target without a marker".to_owned());
    };
    let row = disk.contents(TARGET).unwrap();
    let tail = marker.target_len.saturating_sub(MIB as u64) / 512 * 512;
    let is_all_marker = [0..MIB as u64, tail..marker.target_len]
        .into_iter()
        .map(|range| range.start.min(row.len())..range.end.min(row.len()))
        .all(|range| {
            row.slice(range).chunks(512).all(|sector| {
                let len = sector.len().min(MARKER.len());
                sector[..len] == MARKER[..len]
            })
        });
    match is_all_marker {
        true => Ok(()),
        false => Err("a held target that is not all marked".to_owned()),
    }
}

/// Nothing is left of a hold.
pub fn ended(disk: &FaultDisk) -> Result<(), String> {
    let left = [disk.names("/img"), disk.names("/logs")].concat();
    match left
        .iter()
        .any(|name| name.to_string_lossy().contains("log"))
        || marker(disk).is_some()
    {
        true => Err(format!("let go, but there is something left: {left:?}")),
        false => Ok(()),
    }
}

/// The marker that the target carries.
pub fn marker(disk: &FaultDisk) -> Option<Marker> {
    Marker::find(&disk.open(TARGET, Access::Read).unwrap()).unwrap()
}

pub fn let_go(case: &Case, disk: &FaultDisk) -> Result<(), String> {
    match release(&case.target(disk), &work()) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("letting it go: {error}")),
    }
}

/// Holds the target anew, shows that it is, and lets it go.
pub fn held_again(case: &Case, disk: &FaultDisk) -> Result<(), String> {
    hold(&case.target(disk), &work()).map_err(|error| format!("holding: {error}"))?;
    guarded(disk)?;
    refused(case, disk)?;
    let_go(case, disk)
}

const MARKER: &[u8] = b"\0diskdelta mark1";

#[test]
fn only_a_sync_in_place_holds_its_target() {
    let case = cases::held_after_a_sync_under_the_marker_only();
    let disk = case.disk();
    let atomic = case.options.clone().with_safety(Safety::Atomic);
    let target = case.target(&disk);
    let error = sync(&source(&case.new), &target, &atomic, &work()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(disk.contents(TARGET).unwrap().to_vec() == *case.old.as_ref().unwrap());
    assert_eq!(disk.names("/img"), ["t"]);
}

#[test]
fn a_target_too_short_for_a_marker_is_not_held_and_stays_as_it_was() {
    for (len, expected) in [(PAGE - 1, Err(ErrorKind::InvalidInput)), (PAGE, Ok(()))] {
        for job in [Job::Hold, Job::Sync] {
            let old = bytes(len, 1);
            let case = Case::raw("short", &old, &bytes(len, 2))
                .holding()
                .doing(job);
            let disk = case.disk();
            let done = case.work_on(&disk).map_err(|error| error.kind());
            assert_eq!(done, expected, "{job:?}");
            if done.is_err() {
                assert!(disk.contents(TARGET).unwrap().to_vec() == old);
                assert_eq!(disk.names("/img"), ["t"]);
            }
        }
    }
}

#[test]
fn what_a_sync_without_a_hold_left_half_done_is_not_taken_over_by_one() {
    let case = cases::in_place_under_the_marker_only();
    let disk = leave_marked(&case);
    let error = hold(&case.target(&disk), &work()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incomplete);
    case.work_on(&disk).unwrap();
    assert!(disk.contents(TARGET).unwrap().to_vec() == case.new);
}

#[test]
fn what_a_sync_left_half_done_stays_held_and_incomplete_when_it_is_held_again() {
    let case = cases::resuming_a_held_device_again();
    let disk = case.disk();
    hold(&case.target(&disk), &work()).unwrap();
    guarded(&disk).unwrap();
    let error = content(&case, &disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incomplete);
    case.work_on(&disk).unwrap();
    assert!(content(&case, &disk).unwrap() == Some(case.new));
}

#[test]
fn a_sync_that_fails_before_its_first_change_leaves_a_held_target_whole() {
    let case = cases::syncing_a_held_one();
    let disk = case.disk();
    let old = case.old.clone().unwrap();
    let source = unreadable(&old, &(3..4));
    let error = sync(&source, &case.target(&disk), &case.options, &work()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreadable);
    assert!(advice(&error).contains("as it was, and held"), "{error}");
    assert!(content(&case, &disk).unwrap() == Some(old));
}

#[test]
fn an_error_on_a_held_target_says_how_to_ask_whether_it_is_whole() {
    let case = cases::releasing_under_the_marker_only();
    for job in [Job::Hold, Job::Release] {
        let disk = case.disk();
        disk.fail(nth(1, OpKind::Write, TARGET));
        let error = case.clone().doing(job).work_on(&disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let way = Advice::FindState;
        assert!(error.advice().contains(&way), "{job:?}: {error}");
    }
}

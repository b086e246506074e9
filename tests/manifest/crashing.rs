//! A target manifest through a sync of its disk, cut by power at every moment.

use std::sync::Arc;

use diskdelta::manifest::{self, TargetManifest};
use diskdelta::storage::fault::{CrashState, FaultDisk, SyncCall, Violation};
use diskdelta::storage::{Access, Directory, FileRef, Storage};
use diskdelta::{BlockSize, Limits, Result};

use crate::samples::{BLOCK, manifest_of, pattern, raw, work};

const KEPT: &str = "/state/kept";
const TARGET: &str = "/disks/target";
const CHANGED: std::ops::Range<usize> = 4 * BLOCK..5 * BLOCK;

fn old_disk() -> Vec<u8> {
    pattern(9 * BLOCK, 1)
}

fn new_disk() -> Vec<u8> {
    let mut disk = old_disk();
    disk[CHANGED].copy_from_slice(&pattern(BLOCK, 90));
    disk
}

fn file_ref(disk: &FaultDisk) -> FileRef {
    FileRef::new(Arc::new(disk.directory("/state")), "kept")
}

fn start() -> FaultDisk {
    let disk = FaultDisk::new();
    disk.put(TARGET, old_disk());
    manifest::save(&file_ref(&disk), |storage| {
        manifest::build_to(&raw(old_disk()), BlockSize::MIN, &work(), storage)
    })
    .unwrap();
    disk.make_durable();
    disk
}

/// What a sync does with a target manifest.
fn sync(disk: &FaultDisk) -> Result<()> {
    let storage = disk.open(KEPT, Access::Write)?;
    let mut kept = TargetManifest::open(Arc::new(storage), &Limits::default())?;
    kept.record_intent(Some(CHANGED.start as u64..CHANGED.end as u64))?;
    let (_, prepared) = manifest::prepare(&file_ref(disk), |storage| {
        manifest::build_to(&raw(new_disk()), BlockSize::MIN, &work(), storage)
    })?;
    disk.note("prepared");
    let target = disk.open(TARGET, Access::Write)?;
    target.write_all_at(&new_disk()[CHANGED], CHANGED.start as u64)?;
    target.sync()?;
    prepared.commit()?;
    disk.note("kept");
    Ok(())
}

/// Ends what a crash cut: nothing prepared means that it is in place.
fn commit_left(disk: &FaultDisk) -> Result<()> {
    let directory = disk.directory("/state");
    let names = directory.names()?;
    if let Some(prepared) = names
        .iter()
        .find(|name| name.to_string_lossy().ends_with(".new"))
    {
        directory.rename(prepared, "kept".as_ref())?;
    }
    directory.sync()
}

/// A target manifest may stand for less than it could, but never for what is not there.
fn check(state: &CrashState) -> Result<(), String> {
    let disk = state.disk();
    let storage = disk.open(KEPT, Access::Write).map_err(|e| e.to_string())?;
    let kept = TargetManifest::open(Arc::new(storage), &Limits::default());
    let mut kept = kept.map_err(|e| e.to_string())?;
    let target = disk.contents(TARGET).ok_or("the target is gone")?.to_vec();
    for (block, bytes) in target.chunks(BLOCK).enumerate() {
        let start = (block * BLOCK) as u64;
        let stands = !kept.has_intent(start..start + bytes.len() as u64);
        let hash = kept.manifest().hash(block as u64);
        if stands
            && hash.map_err(|e| e.to_string())?
                != Some(diskdelta::Hash::from_bytes(blake3::hash(bytes).into()))
        {
            return Err(format!("block {block} is not what the manifest says"));
        }
    }
    let new_root = manifest_of(new_disk()).root();
    if state.noted("kept") && (kept.manifest().root() != new_root || !kept.intents().is_empty()) {
        return Err("the new manifest is not in place".into());
    }
    if state.noted("prepared") {
        // Recovery knows from the sync's own state that the target is new, and ends the job.
        let target = disk
            .open(TARGET, Access::Write)
            .map_err(|e| e.to_string())?;
        let changed = &new_disk()[CHANGED];
        target
            .write_all_at(changed, CHANGED.start as u64)
            .and_then(|()| target.sync())
            .and_then(|()| commit_left(disk))
            .and_then(|()| disk.open(KEPT, Access::Read))
            .and_then(|storage| TargetManifest::open(Arc::new(storage), &Limits::default()))
            .map_err(|e| e.to_string())
            .map(|recovered| kept = recovered)?;
        if kept.manifest().root() != new_root || !kept.intents().is_empty() {
            return Err("recovery found no prepared manifest".into());
        }
    }
    Ok(())
}

fn crash(dropped: Option<SyncCall>) -> Result<(), Violation> {
    let disk = start();
    if let Some(dropped) = dropped {
        disk.drop_syncs(move |call| *call == dropped);
    }
    sync(&disk).unwrap();
    let coverage = disk.crashes().check(check)?;
    assert!(coverage.states > 20);
    Ok(())
}

#[test]
fn a_target_manifest_never_stands_for_what_a_crash_left() {
    crash(None).unwrap();
}

#[test]
fn every_sync_of_a_target_manifest_is_needed() {
    let before = start().log().syncs().len();
    let disk = start();
    sync(&disk).unwrap();
    let syncs = disk.log().syncs().split_off(before);
    // The intent, the prepared file and its directory, the target, the directory after the rename.
    assert_eq!(syncs.len(), 5);
    for call in syncs {
        let found = crash(Some(call.clone()));
        assert!(found.is_err(), "nothing noticed that {call} was dropped");
    }
}

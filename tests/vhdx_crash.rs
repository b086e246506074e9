//! VHDX images after a power cut: plain writes, other lengths, replays, and prepared changes done
//! again.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::ops::Range;
use std::sync::Arc;

use diskdelta::image::vhdx::{NewDisk, Vhdx, VhdxMut, create};
use diskdelta::image::{Change, Image, ImageMut, ImageOptions, ParentGate, ParentRequest, Patch};
use diskdelta::storage::fault::{Coverage, CrashState, FaultDisk, SyncCall, Violation};
use diskdelta::storage::{Access, MemoryStorage, Storage};
use diskdelta::{Extent, Result};

const PATH: &str = "/d/disk.vhdx";
const PARENT: &str = "/d/parent.vhdx";
const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
/// Two blocks, and a short one.
const LEN: u64 = 2 * MIB + 8192;

/// One call, with what it leaves: every sector gets a fill of its own kind, 0 is zeros.
#[derive(Debug, Clone)]
enum Step {
    Write(Range<u64>, u8),
    Sync,
}

/// Blocks taken, filled in part, given back, taken again, with syncs between.
fn steps() -> Vec<Step> {
    vec![
        Step::Write(0..MIB, 1),
        Step::Write(MIB + 4096..MIB + 8192, 2),
        Step::Sync,
        Step::Write(2 * MIB..LEN, 3),
        Step::Write(0..MIB, 0),
        Step::Write(MIB + 8192..MIB + 9216, 4),
        Step::Sync,
        Step::Write(512..1024, 5),
        Step::Write(2 * MIB..LEN, 0),
        Step::Write(MIB..2 * MIB, 0),
        Step::Sync,
        Step::Write(MIB + 512..MIB + 1024, 7),
        Step::Sync,
    ]
}

fn run(steps: &[Step], disk: &FaultDisk) -> Result<()> {
    let image = open_mut(disk)?;
    for (number, step) in steps.iter().enumerate() {
        disk.note(format!("begin {number}"));
        match step {
            Step::Write(range, 0) => image.write_zeroes_at(range.clone())?,
            Step::Write(range, fill) => {
                let bytes = vec![*fill; (range.end - range.start) as usize];
                image.write_all_at(&bytes, range.start)?;
            }
            Step::Sync => image.sync()?,
        }
        disk.note(format!("done {number}"));
    }
    Ok(())
}

/// What each sector may hold: what it held at the last sync that was done, and what was written,
/// or begun to be written, since.
fn allowed(steps: &[Step], before: u8, state: &CrashState) -> Vec<Vec<u8>> {
    let mut allowed = vec![vec![before]; (LEN / SECTOR) as usize];
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Write(range, fill) if state.noted(&format!("begin {number}")) => {
                let sectors = range.start / SECTOR..range.end / SECTOR;
                for sector in sectors {
                    allowed[sector as usize].push(*fill);
                }
            }
            Step::Sync if state.noted(&format!("done {number}")) => {
                for fills in &mut allowed {
                    fills.drain(..fills.len() - 1);
                }
            }
            _ => {}
        }
    }
    allowed
}

fn check(steps: &[Step], before: u8, state: &CrashState) -> Result<(), String> {
    let image = open(state.disk()).map_err(|error| error.to_string())?;
    let found = read(&image);
    drop(image);
    let allowed = allowed(steps, before, state);
    let sectors = found.chunks(SECTOR as usize).zip(&allowed);
    for (index, (sector, fills)) in sectors.enumerate() {
        // A write in place that was cut may leave anything in the sectors that it touched; where
        // the parent's bytes were until then, it is not in place.
        let in_place = fills.len() > 1 && (before == 0 || fills[0] != before);
        let fill = sector[0];
        let whole = sector.iter().all(|byte| *byte == fill) && fills.contains(&fill);
        if !whole && !in_place {
            return Err(format!("sector {index} holds {fill}, not {fills:?}"));
        }
    }
    // Replayed into the file it is the same disk, and goes on from there.
    let image = open_mut(state.disk()).map_err(|error| error.to_string())?;
    let mut meant = found;
    if read(&image) != meant {
        return Err("replayed into the file it is another disk".to_owned());
    }
    image.write_all_at(&[0xEE; 100], MIB).unwrap();
    meant[MIB as usize..MIB as usize + 100].fill(0xEE);
    image.sync().unwrap();
    match open(state.disk()) {
        Ok(image) if read(&image) == meant => Ok(()),
        Ok(_) => Err("writing on made another disk".to_owned()),
        Err(error) => Err(format!("after writing on: {error}")),
    }
}

fn crash(disk: &FaultDisk, before: u8) -> Result<Coverage, Violation> {
    let steps = steps();
    run(&steps, disk).unwrap();
    let crashes = disk
        .crashes()
        .with_limit(states())
        .with_samples(states() / 2);
    crashes.check(|state| check(&steps, before, state))
}

#[test]
fn a_dynamic_image_is_old_or_new_at_every_moment() {
    let disk = new_disk(&NewDisk::dynamic(LEN).with_block_bytes(MIB));
    eprintln!("dynamic: {:?}", crash(&disk, 0).unwrap());
}

#[test]
fn a_fixed_image_is_old_or_new_at_every_moment() {
    let disk = new_disk(&NewDisk::fixed(LEN).with_block_bytes(MIB));
    eprintln!("fixed: {:?}", crash(&disk, 0).unwrap());
}

#[test]
fn a_differencing_image_is_old_or_new_at_every_moment() {
    eprintln!("differencing: {:?}", crash(&child_disk(), 9).unwrap());
}

#[test]
fn every_sync_of_a_commit_is_needed() {
    let steps = [Step::Write(4096..8192, 1), Step::Sync];
    let disk = || new_disk(&NewDisk::dynamic(LEN).with_block_bytes(MIB));
    let sound = disk();
    run(&steps, &sound).unwrap();
    let syncs = sound.log().syncs();
    // The new name of the contents; then payload with log entry, header, tables, header.
    assert_eq!(syncs.len(), 5);
    for sync in syncs {
        let found = without(&disk(), sync.clone(), &steps);
        assert!(found.is_err(), "nothing noticed that {sync} was dropped");
    }
}

fn without(disk: &FaultDisk, dropped: SyncCall, steps: &[Step]) -> Result<Coverage, Violation> {
    disk.drop_syncs(move |call| *call == dropped);
    run(steps, disk).unwrap();
    disk.crashes()
        .with_limit(2000)
        .check(|state| check(steps, 0, state))
}

#[test]
fn a_replay_that_is_cut_is_done_again() {
    // A crash after the commit, before the tables: the log is not empty.
    let disk = new_disk(&NewDisk::dynamic(LEN).with_block_bytes(MIB));
    let steps = steps();
    run(&steps[..3], &disk).unwrap();
    let mut count = 0;
    for state in disk.crashes().with_limit(40).with_samples(20).states() {
        let disk = state.disk();
        let before = open(disk)
            .map(|image| (is_dirty(&image), read(&image)))
            .unwrap();
        let (true, meant) = before else { continue };
        count += 1;
        drop(open_mut(disk).unwrap());
        let crashes = disk.crashes().with_seed(2).with_limit(30).with_samples(15);
        let checked = crashes.check(|again| match open(again.disk()) {
            Ok(image) if read(&image) == meant => Ok(()),
            Ok(_) => Err("another disk".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        checked.unwrap();
    }
    assert!(count > 0, "no crash left a log that is not empty");
}

fn is_dirty(image: &Vhdx) -> bool {
    let info = image.info();
    info.facts
        .iter()
        .any(|(key, value)| *key == "log" && value != "empty")
}

#[test]
fn a_length_changes_as_a_whole() {
    for layout in [
        NewDisk::dynamic(LEN).with_block_bytes(MIB),
        NewDisk::fixed(LEN),
    ] {
        let disk = new_disk(&layout);
        let image = open_mut(&disk).unwrap();
        image.write_all_at(&vec![6; LEN as usize], 0).unwrap();
        image.sync().unwrap();
        disk.make_durable();
        let lens = [LEN, MIB + 512, 4 * MIB];
        for len in &lens[1..] {
            image.set_disk_len(*len).unwrap();
            image.sync().unwrap();
            disk.note(len.to_string());
        }
        let crashes = disk
            .crashes()
            .with_limit(states())
            .with_samples(states() / 2);
        let checked = crashes.check(|state| {
            let found = open(state.disk()).map_err(|error| error.to_string())?;
            let done = lens.iter().rposition(|len| state.noted(&len.to_string()));
            let at = lens.iter().position(|len| *len == found.disk_len());
            if at.is_none_or(|at| at < done.unwrap_or(0)) {
                return Err(format!("a disk of {} bytes", found.disk_len()));
            }
            let left = if at == Some(0) { LEN } else { MIB + 512 };
            let bytes = read(&found);
            let (kept, new) = bytes.split_at(left as usize);
            if kept.iter().any(|byte| *byte != 6) || new.iter().any(|byte| *byte != 0) {
                return Err("bytes that were cut off came back, or others are gone".to_owned());
            }
            Ok(())
        });
        eprintln!("lengths: {:?}", checked.unwrap());
    }
}

#[test]
fn a_prepared_change_done_again_ends_in_the_same_disk_after_any_crash() {
    for disk in [
        new_disk(&NewDisk::dynamic(LEN).with_block_bytes(MIB)),
        child_disk(),
    ] {
        let image = open_mut(&disk).unwrap();
        image.write_all_at(&[1; 4096], 100).unwrap();
        image.sync().unwrap();
        drop(image);
        disk.make_durable();
        let mut meant = read(&open(&disk).unwrap());
        // Into a block that is there and new ones, not along sectors.
        let ranges = [
            200..700,
            MIB as usize + 5..MIB as usize + 9000,
            2 * MIB as usize..LEN as usize - 77,
        ];
        let mut data = Vec::new();
        for range in ranges {
            let bytes: Vec<u8> = range.clone().map(|at| (at % 251) as u8 | 1).collect();
            meant[range.clone()].copy_from_slice(&bytes);
            data.push((range.start as u64, bytes));
        }
        let extents: Vec<Extent> = data
            .iter()
            .map(|(at, bytes)| Extent::data(*at..at + bytes.len() as u64))
            .collect();
        let change = Change {
            disk_len: LEN,
            extents: &extents,
        };
        let image = open_mut(&disk).unwrap();
        let storage = disk.open(PATH, Access::Write).unwrap();
        let patches = image.prepare(&change).unwrap();
        apply(&storage, &patches, false).unwrap();
        write(&image, &data).unwrap();
        storage.sync().unwrap();
        apply(&storage, &patches, true).unwrap();
        storage.sync().unwrap();
        assert!(read(&open(&disk).unwrap()) == meant);

        let crash = |patches: &[Patch]| {
            disk.crashes()
                .with_limit(100)
                .with_samples(50)
                .check(|state| {
                    let disk = state.disk();
                    recover(disk, patches, &data).map_err(|error| error.to_string())?;
                    match open(disk) {
                        Ok(image) if read(&image) == meant => Ok(()),
                        Ok(_) => Err("the disk holds something else".to_owned()),
                        Err(error) => Err(error.to_string()),
                    }
                })
        };
        eprintln!("prepared: {:?}", crash(&patches).unwrap());
        // No kind of patch is there for nothing. Over a parent only what was written is looked at
        // in a new block, so that zeros around it are mere tidiness.
        let needed: &[&str] = match disk.contents(PARENT) {
            None => &["SetLen", "Zero", "Write"],
            Some(_) => &["SetLen", "Write"],
        };
        for left_out in needed {
            let mut fewer = patches.clone();
            fewer.retain(|patch| !format!("{patch:?}").starts_with(*left_out));
            assert!(fewer.len() < patches.len());
            assert!(crash(&fewer).is_err(), "nothing noticed: no {left_out}");
        }
    }
}

/// Tables and headers from the patches, then the data, as the first time.
fn recover(disk: &FaultDisk, patches: &[Patch], data: &[(u64, Vec<u8>)]) -> Result<()> {
    let storage = disk.open(PATH, Access::Write)?;
    apply(&storage, patches, false)?;
    apply(&storage, patches, true)?;
    let image = open_mut(disk)?;
    write(&image, data)?;
    image.sync()
}

fn write(image: &dyn ImageMut, data: &[(u64, Vec<u8>)]) -> Result<()> {
    data.iter()
        .try_for_each(|(at, bytes)| image.write_all_at(bytes, *at))
}

fn apply(storage: &dyn Storage, patches: &[Patch], headers: bool) -> Result<()> {
    patches.iter().try_for_each(|patch| match patch {
        Patch::Write {
            offset,
            bytes,
            last,
        } if *last == headers => storage.write_all_at(bytes, *offset),
        Patch::SetLen(len) if !headers => storage.set_len(*len),
        Patch::Zero(range) if !headers => storage.punch_hole(range.clone()),
        _ => Ok(()),
    })
}

fn new_disk(layout: &NewDisk) -> FaultDisk {
    let disk = FaultDisk::new();
    disk.put(PATH, new_file(layout).to_vec());
    disk
}

/// A differencing image over a parent that is full of nines.
fn child_disk() -> FaultDisk {
    let parent = new_file(&NewDisk::dynamic(LEN).with_block_bytes(MIB));
    let options = ImageOptions::default();
    let image = Vhdx::open_mut(parent.clone(), &options).unwrap();
    image.write_all_at(&vec![9; LEN as usize], 0).unwrap();
    image.sync().unwrap();
    let image = Vhdx::open(parent.clone(), &options).unwrap();
    let disk = new_disk(&NewDisk::child_of(&image, "parent.vhdx").with_block_bytes(MIB));
    disk.put(PARENT, parent.to_vec());
    disk
}

fn new_file(layout: &NewDisk) -> Arc<MemoryStorage> {
    let storage = Arc::new(MemoryStorage::new("new", Vec::new()));
    create(&*storage, layout).unwrap();
    storage
}

/// Offers the parent that lies on the same disk.
struct SameDisk(FaultDisk);

impl std::fmt::Debug for SameDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the same disk")
    }
}

impl ParentGate for SameDisk {
    fn candidates(&self, _request: &ParentRequest<'_>) -> Result<Vec<Arc<dyn Storage>>> {
        Ok(vec![Arc::new(self.0.open(PARENT, Access::Read)?)])
    }
}

fn options(disk: &FaultDisk) -> ImageOptions {
    ImageOptions::default().with_gate(Arc::new(SameDisk(disk.clone())))
}

fn open(disk: &FaultDisk) -> Result<Vhdx> {
    Vhdx::open(Arc::new(disk.open(PATH, Access::Read)?), &options(disk))
}

fn open_mut(disk: &FaultDisk) -> Result<VhdxMut> {
    Vhdx::open_mut(Arc::new(disk.open(PATH, Access::Write)?), &options(disk))
}

fn read(image: &dyn Image) -> Vec<u8> {
    let mut bytes = vec![0; image.disk_len() as usize];
    image.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn states() -> u64 {
    std::env::var("DISKDELTA_CRASH_STATES").map_or(40, |text| text.parse().unwrap())
}

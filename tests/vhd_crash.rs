//! VHD images after a power cut: plain writes, other lengths, and prepared changes done again.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::sync::Arc;

use diskdelta::image::{
    self, Change, CreateFormat, CreateOptions, Format, Image, ImageMut, ImageOptions, Patch,
};
use diskdelta::storage::fault::{Coverage, CrashState, FaultDisk, SyncCall, Violation};
use diskdelta::storage::{Access, MemoryStorage, Storage};
use diskdelta::{Error, Extent, Result};

const PATH: &str = "/d/disk.vhd";
const BLOCK: usize = 4096;
const LEN: usize = 24 * BLOCK;
/// Inside block 1.
const CUT: usize = BLOCK + 1024;

/// Work on an image, and what must hold after a crash at any moment of it.
#[derive(Clone, Copy)]
struct Scenario {
    /// Whether the footer's copy at the head is whole to begin with.
    head_good: bool,
    /// Whether block 1 holds something to begin with.
    filled: bool,
    work: fn(&FaultDisk) -> Result<()>,
    check: fn(&CrashState) -> Result<(), String>,
}

const PLAIN: Scenario = Scenario {
    head_good: true,
    filled: false,
    work: write_plainly,
    check: check_plain,
};

const LENGTHS: Scenario = Scenario {
    filled: true,
    work: change_lengths,
    check: check_lengths,
    ..PLAIN
};

#[test]
fn plain_writes_leave_a_footer_and_whole_blocks_at_every_moment() {
    for head_good in [true, false] {
        let scenario = Scenario { head_good, ..PLAIN };
        eprintln!("plain writes: {:?}", scenario.crash(None).unwrap());
    }
}

#[test]
fn every_sync_of_plain_writes_is_needed() {
    assert_eq!(PLAIN.syncs_needed(), 4);
    // One more, after the head is mended.
    let damaged = Scenario {
        head_good: false,
        ..PLAIN
    };
    assert_eq!(damaged.syncs_needed(), 5);
}

#[test]
fn a_length_changes_as_a_whole_or_leaves_footers_that_disagree() {
    eprintln!("lengths: {:?}", LENGTHS.crash(None).unwrap());
}

#[test]
fn every_sync_of_a_length_change_is_needed() {
    assert_eq!(LENGTHS.syncs_needed(), 5);
}

#[test]
fn a_prepared_change_done_again_ends_in_the_same_disk_after_any_crash() {
    let disk = new_disk(true, false);
    write_plainly(&disk).unwrap();
    disk.make_durable();
    let mut meant = read(&*open(&disk).unwrap()).unwrap();
    // Into blocks that are there and new ones, with the end of one block and the disk's growth.
    let new_len = LEN + 2 * BLOCK - 512;
    meant.resize(new_len, 0);
    let ranges = [
        100..3 * BLOCK / 2,
        9 * BLOCK + 5..10 * BLOCK + 700,
        LEN - 9..LEN + 600,
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
        disk_len: new_len as u64,
        extents: &extents,
    };
    let storage = Arc::new(disk.open(PATH, Access::Write).unwrap());
    let image = open_mut(storage.clone()).unwrap();
    let patches = image.prepare(&change).unwrap();
    apply(&*storage, &patches, false).unwrap();
    write(&*image, &data).unwrap();
    storage.sync().unwrap();
    apply(&*storage, &patches, true).unwrap();
    storage.sync().unwrap();
    assert!(read(&*open(&disk).unwrap()).unwrap() == meant);

    let crash = |patches: &[Patch]| {
        disk.crashes().with_limit(500).check(|state| {
            let disk = state.disk();
            recover(disk, patches, &data).map_err(|error| error.to_string())?;
            match open(disk).and_then(|image| read(&*image)) {
                Ok(bytes) if bytes == meant => Ok(()),
                Ok(_) => Err("the disk holds something else".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
    };
    eprintln!("prepared: {:?}", crash(&patches).unwrap());
    // No kind of patch is there for nothing.
    for left_out in ["SetLen", "Zero", "Write"] {
        let mut fewer = patches.clone();
        fewer.retain(|patch| !format!("{patch:?}").starts_with(left_out));
        assert!(fewer.len() < patches.len());
        assert!(crash(&fewer).is_err(), "nothing noticed: no {left_out}");
    }
}

/// Tables and footers from the patches, then the data, as the first time.
fn recover(disk: &FaultDisk, patches: &[Patch], data: &[(u64, Vec<u8>)]) -> Result<()> {
    let storage = Arc::new(disk.open(PATH, Access::Write)?);
    apply(&*storage, patches, false)?;
    apply(&*storage, patches, true)?;
    write(&*open_mut(storage.clone())?, data)?;
    storage.sync()
}

fn write(image: &dyn ImageMut, data: &[(u64, Vec<u8>)]) -> Result<()> {
    data.iter()
        .try_for_each(|(at, bytes)| image.write_all_at(bytes, *at))
}

fn apply(storage: &dyn Storage, patches: &[Patch], footers: bool) -> Result<()> {
    patches.iter().try_for_each(|patch| match patch {
        Patch::Write {
            offset,
            bytes,
            last,
        } if *last == footers => storage.write_all_at(bytes, *offset),
        Patch::SetLen(len) if !footers => storage.set_len(*len),
        Patch::Zero(range) if !footers => storage.punch_hole(range.clone()),
        _ => Ok(()),
    })
}

/// Blocks whose every sector looks like the footer of another VHD, synced in two steps.
fn write_plainly(disk: &FaultDisk) -> Result<()> {
    let image = open_mut(Arc::new(disk.open(PATH, Access::Write)?))?;
    image.write_all_at(&forged(), BLOCK as u64)?;
    image.write_all_at(&forged(), 4 * BLOCK as u64)?;
    image.sync()?;
    disk.note("first");
    image.write_all_at(&forged(), 9 * BLOCK as u64)?;
    image.sync()?;
    disk.note("second");
    Ok(())
}

fn check_plain(state: &CrashState) -> Result<(), String> {
    let image = match open(state.disk()) {
        Ok(image) => image,
        // A torn sector of the table is what the format cannot survive.
        Err(error) if error.field() == Some("table entry") => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let bytes = read(&*image).map_err(|error| error.to_string())?;
    for (index, block) in bytes.chunks(BLOCK).enumerate() {
        let done = match index {
            1 | 4 => state.noted("first"),
            9 => state.noted("second"),
            _ => false,
        };
        let written = matches!(index, 1 | 4 | 9) && block == forged();
        let untouched = !done && block.iter().all(|byte| *byte == 0);
        if !written && !untouched {
            return Err(format!("block {index} is neither as before nor as written"));
        }
    }
    Ok(())
}

/// Cuts the disk inside a block that holds something, and makes it longer again.
fn change_lengths(disk: &FaultDisk) -> Result<()> {
    let image = open_mut(Arc::new(disk.open(PATH, Access::Write)?))?;
    image.set_disk_len(CUT as u64)?;
    disk.note("cut");
    image.set_disk_len(LEN as u64)?;
    disk.note("grown");
    Ok(())
}

fn check_lengths(state: &CrashState) -> Result<(), String> {
    let (cut, grown) = (state.noted("cut"), state.noted("grown"));
    let mut image = open(state.disk());
    let disagree = image
        .as_ref()
        .is_err_and(|error| error.field() == Some("current size"));
    if disagree {
        let lenient = ImageOptions::default().with_lenient(true);
        image = open_as(state.disk(), &lenient);
    }
    let bytes = image
        .and_then(|image| read(&*image))
        .map_err(|e| e.to_string())?;
    // Which of the three lengths this is shows in what is left of the block.
    let left = if cut || bytes.len() == CUT {
        CUT
    } else {
        2 * BLOCK
    };
    let mut meant = vec![0; bytes.len()];
    meant[BLOCK..left].copy_from_slice(&forged()[..left - BLOCK]);
    if bytes != meant {
        return Err("bytes that were cut off came back, or others are gone".to_owned());
    }
    // The end of the file changes first, so a disagreement there is about the length to come.
    match (cut, grown) {
        (_, true) if disagree || bytes.len() != LEN => Err("growing is not durable".to_owned()),
        (true, false) if disagree && bytes.len() != LEN => Err("cutting is not durable".to_owned()),
        _ => Ok(()),
    }
}

impl Scenario {
    /// Holds the check against every state that a crash may leave.
    fn crash(self, dropped: Option<SyncCall>) -> Result<Coverage, Violation> {
        let disk = new_disk(self.head_good, self.filled);
        disk.drop_syncs(move |sync| Some(sync) == dropped.as_ref());
        (self.work)(&disk).unwrap();
        disk.crashes().with_limit(500).check(self.check)
    }

    /// How many syncs the work makes; each must be missed when it is dropped.
    fn syncs_needed(self) -> usize {
        let disk = new_disk(self.head_good, self.filled);
        (self.work)(&disk).unwrap();
        let syncs = disk.log().syncs();
        for sync in &syncs {
            let found = self.crash(Some(sync.clone()));
            assert!(found.is_err(), "nothing noticed that {sync} was dropped");
        }
        syncs.len()
    }
}

fn new_disk(head_good: bool, filled: bool) -> FaultDisk {
    let storage = MemoryStorage::new(PATH, Vec::new());
    // Room in the table for two more blocks than the disk has.
    let longest = (LEN + 2 * BLOCK) as u64;
    let options = CreateOptions::new(CreateFormat::VhdDynamic, longest).with_block_size(4096);
    image::create(&storage, &options).unwrap();
    let storage = Arc::new(storage);
    let image = open_mut(storage.clone()).unwrap();
    image.set_disk_len(LEN as u64).unwrap();
    if filled {
        image.write_all_at(&forged(), BLOCK as u64).unwrap();
        image.sync().unwrap();
    }
    let mut bytes = storage.to_vec();
    if !head_good {
        bytes[..512].fill(0x11);
    }
    let disk = FaultDisk::new();
    disk.put(PATH, bytes);
    disk
}

/// A block of footers of a fixed VHD.
fn forged() -> Vec<u8> {
    thread_local! {
        static FOOTER: Vec<u8> = {
            let storage = MemoryStorage::new("x", Vec::new());
            let options = CreateOptions::new(CreateFormat::VhdFixed, 0);
            image::create(&storage, &options).unwrap();
            storage.to_vec()
        };
    }
    FOOTER.with(|footer| footer.repeat(BLOCK / 512))
}

fn open(disk: &FaultDisk) -> Result<Arc<dyn Image>> {
    open_as(disk, &ImageOptions::default())
}

fn open_as(disk: &FaultDisk, options: &ImageOptions) -> Result<Arc<dyn Image>> {
    let storage = Arc::new(disk.open(PATH, Access::Read)?);
    image::open_storage(storage, Format::Vhd, options)
}

fn open_mut(storage: Arc<dyn Storage>) -> Result<Arc<dyn ImageMut>, Error> {
    image::open_storage_mut(storage, Format::Vhd, &ImageOptions::default())
}

fn read(image: &dyn Image) -> Result<Vec<u8>> {
    let mut bytes = vec![0; image.disk_len() as usize];
    image.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

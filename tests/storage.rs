//! The storage contract, sentence by sentence, for every implementation; and what files, devices
//! and directories of the host promise beyond it.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod directories;
mod host;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use diskdelta::storage::{
    Access, Allocation, Directory, HostDirectory, MemoryDirectory, MemoryStorage, Privacy,
    SourceOptions, SourceStamp, Storage, TargetOptions, devices_named, identity, open_source,
    open_target,
};
use diskdelta::testing::storage_contract;
use diskdelta::{ErrorKind, Result};
use host::{LoopDevice, Mount, has_loop_devices, has_program, left_out, run};

// ---- the contract ----

#[test]
fn memory_keeps_the_contract() {
    storage_contract(|bytes| (Box::new(()), Arc::new(MemoryStorage::new("memory", bytes))));
}

#[test]
fn files_keep_the_contract() {
    for (direct, allocation) in VARIANTS {
        storage_contract(|bytes| {
            let directory = tempfile::tempdir().unwrap();
            let storage = file_target(directory.path(), bytes, direct, allocation);
            (Box::new(directory), storage)
        });
    }
}

#[test]
fn files_in_memory_keep_the_contract() {
    if !Path::new("/dev/shm").is_dir() {
        return left_out("there is no /dev/shm");
    }
    for allocation in [Allocation::Keep, Allocation::Full] {
        storage_contract(|bytes| {
            let directory = tempfile::tempdir_in("/dev/shm").unwrap();
            let storage = file_target(directory.path(), bytes, true, allocation);
            (Box::new(directory), storage)
        });
    }
}

#[test]
fn files_of_a_directory_keep_the_contract() {
    storage_contract(|bytes| {
        let directory = tempfile::tempdir().unwrap();
        let opened = HostDirectory::open(directory.path()).unwrap();
        let storage = opened.create_new("disk".as_ref()).unwrap();
        storage.write_all_at(&bytes, 0).unwrap();
        (Box::new(directory), storage)
    });
}

#[test]
fn block_devices_keep_the_contract() {
    if !has_loop_devices() {
        return;
    }
    for (direct, allocation) in VARIANTS {
        storage_contract(|bytes| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("disk");
            fs::write(&path, bytes).unwrap();
            let device = LoopDevice::attach(&path);
            let options = TargetOptions::default()
                .with_direct(direct)
                .with_allocation(allocation);
            let storage = open_target(device.path(), &options).unwrap().storage;
            (Box::new((device, directory)), storage)
        });
    }
}

#[cfg(feature = "testing")]
#[test]
fn the_failing_disk_of_the_tests_keeps_the_contract() {
    use diskdelta::storage::fault::FaultDisk;
    storage_contract(|bytes| {
        let disk = FaultDisk::new();
        disk.put("/d/disk", bytes);
        let storage = disk.directory("/d").open("disk".as_ref(), Access::Write);
        (Box::new(()), storage.unwrap())
    });
    storage_contract(|bytes| {
        let disk = FaultDisk::new();
        disk.put_device("/dev/disk", bytes);
        let storage = disk.open("/dev/disk", Access::Write);
        (Box::new(()), Arc::new(storage.unwrap()))
    });
}

/// Direct reads, and what becomes of the space of zeros.
const VARIANTS: [(bool, Allocation); 4] = [
    (false, Allocation::Keep),
    (true, Allocation::Keep),
    (false, Allocation::Sparse),
    (true, Allocation::Full),
];

fn read(storage: &dyn Storage, range: &Range<u64>) -> Result<Vec<u8>> {
    let mut buf = vec![0xee; (range.end - range.start) as usize];
    storage.read_exact_at(&mut buf, range.start)?;
    Ok(buf)
}

fn file_target(
    directory: &Path,
    bytes: Vec<u8>,
    direct: bool,
    allocation: Allocation,
) -> Arc<dyn Storage> {
    let path = directory.join("disk");
    fs::write(&path, bytes).unwrap();
    let options = TargetOptions::default()
        .with_direct(direct)
        .with_allocation(allocation);
    open_target(&path, &options).unwrap().storage
}

// ---- allocation ----

#[test]
fn a_thick_file_stays_thick_and_a_sparse_one_gets_more_holes() {
    let directory = tempfile::tempdir().unwrap();
    let thick = directory.path().join("thick");
    fs::write(&thick, vec![1; 1 << 20]).unwrap();
    let sparse = directory.path().join("sparse");
    fs::write(&sparse, vec![1; 1 << 20]).unwrap();
    File::options()
        .write(true)
        .open(&sparse)
        .unwrap()
        .set_len(2 << 20)
        .unwrap();
    for (path, allocation, before, after) in [
        (&thick, Allocation::Keep, 1 << 20, 1 << 20),
        (&sparse, Allocation::Keep, 1 << 20, 512 << 10),
        (&sparse, Allocation::Full, 512 << 10, 1 << 20),
        (&thick, Allocation::Sparse, 1 << 20, 512 << 10),
    ] {
        assert_eq!(allocated(path), before);
        let options = TargetOptions::default().with_allocation(allocation);
        let storage = open_target(path, &options).unwrap().storage;
        storage.punch_hole(0..512 << 10).unwrap();
        storage.sync().unwrap();
        assert_eq!(allocated(path), after, "{allocation:?} {}", path.display());
    }
}

#[test]
fn a_thick_file_that_grows_is_thick_where_it_grew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    for (allocation, after) in [(Allocation::Keep, 3 << 20), (Allocation::Sparse, 1 << 20)] {
        let options = TargetOptions::default().with_allocation(allocation);
        let storage = open_target(&path, &options).unwrap().storage;
        storage.set_len(3 << 20).unwrap();
        assert_eq!(allocated(&path), after, "{allocation:?}");
        storage.set_len(1 << 20).unwrap();
        storage.sync().unwrap();
    }
}

#[test]
fn a_new_file_that_is_to_be_thick_takes_its_space_at_its_first_sync() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let opened = HostDirectory::open(directory.path())
        .unwrap()
        .with_allocation(Allocation::Full);
    let storage = opened.create_new("disk".as_ref()).unwrap();
    storage.set_len(2 << 20).unwrap();
    assert_eq!(allocated(&path), 0);
    storage.write_all_at(&[1; 4096], 1 << 20).unwrap();
    storage.sync().unwrap();
    assert_eq!(allocated(&path), 2 << 20);
    // Now it is as thick as any other.
    storage.set_len(3 << 20).unwrap();
    assert_eq!(allocated(&path), 3 << 20);
}

#[test]
fn a_thick_file_that_keeps_its_length_takes_no_more_space() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    let storage = open_target(&path, &TargetOptions::default())
        .unwrap()
        .storage;
    for len in [1 << 20, 512 << 10] {
        storage.set_len(len).unwrap();
        assert_eq!(storage.len().unwrap(), len);
        assert_eq!(allocated(&path), len);
    }
}

#[test]
fn a_thick_file_that_cannot_grow_keeps_its_length() {
    if !has_loop_devices() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let point = directory.path().join("small");
    let _mount = Mount::new(&["-t", "tmpfs", "-o", "size=1M", "none"], &point);
    let path = point.join("disk");
    fs::write(&path, vec![1; 256 << 10]).unwrap();
    let storage = open_target(&path, &TargetOptions::default())
        .unwrap()
        .storage;
    let error = storage.set_len(4 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(storage.len().unwrap(), 256 << 10);
}

#[test]
fn a_device_tells_its_sectors_and_a_file_has_none() {
    if !has_loop_devices() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    fs::write(&path, vec![1; 1 << 20]).unwrap();
    let sector_bytes = |path: &Path| {
        let opened = open_source(path, &SourceOptions::default()).unwrap();
        opened.storage.sector_bytes()
    };
    assert_eq!(sector_bytes(&path), None);
    for (size, bytes) in [("512", 512), ("4096", 4096)] {
        let device = LoopDevice::attach_with(&path, &["--sector-size", size]);
        assert_eq!(sector_bytes(device.path()), Some(bytes));
    }
}

#[test]
fn a_loop_device_over_a_thick_file_keeps_it_thick_and_one_over_a_sparse_file_gives_space_back() {
    if !has_loop_devices() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    for (len, allocation, after) in [
        (1 << 20, Allocation::Keep, 1 << 20),
        (1 << 20, Allocation::Sparse, 512 << 10),
        (2 << 20, Allocation::Keep, 512 << 10),
    ] {
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(len)
            .unwrap();
        let device = LoopDevice::attach(&path);
        let options = TargetOptions::default().with_allocation(allocation);
        let storage = open_target(device.path(), &options).unwrap().storage;
        storage.punch_hole(0..512 << 10).unwrap();
        storage.sync().unwrap();
        assert_eq!(allocated(&path), after, "{allocation:?}");
    }
}

#[test]
fn space_that_cannot_be_reserved_is_found_before_anything_is_written() {
    if !has_loop_devices() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let point = directory.path().join("small");
    let _mount = Mount::new(&["-t", "tmpfs", "-o", "size=1M", "none"], &point);
    let path = point.join("disk");
    File::create(&path).unwrap().set_len(8 << 20).unwrap();
    let storage = open_target(&path, &TargetOptions::default())
        .unwrap()
        .storage;
    storage.reserve(0..256 << 10).unwrap();
    let error = storage.reserve(0..4 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(storage.len().unwrap(), 8 << 20);
}

fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

// ---- what is refused, what is poisoned, what is noticed ----

#[test]
fn what_is_no_disk_is_refused_without_being_touched() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    run("mkfifo", &[pipe.to_str().unwrap()]);
    let strange = [
        "/dev/null",
        "/proc/self/status",
        "/sys/kernel/uevent_seqnum",
    ];
    let mut paths: Vec<PathBuf> = strange.iter().map(PathBuf::from).collect();
    paths.extend([pipe, directory.path().to_owned()]);
    for path in paths {
        let outcomes = [
            open_source(&path, &SourceOptions::default()).map(drop),
            open_target(&path, &TargetOptions::default()).map(drop),
        ];
        for outcome in outcomes {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.path().is_some());
        }
    }
    let missing = open_target(directory.path().join("none"), &TargetOptions::default());
    assert_eq!(missing.map(drop).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn an_ordinary_target_has_nothing_to_warn_of() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let opened = open_target(file.path(), &TargetOptions::default()).unwrap();
    assert_eq!(opened.warnings, Vec::<String>::new());
}

#[test]
fn a_target_is_what_its_links_lead_to_and_has_one_name_if_asked() {
    let directory = tempfile::tempdir().unwrap();
    let home = fs::canonicalize(directory.path()).unwrap();
    let [path, link, hard] = ["disk", "link", "hard"].map(|name| home.join(name));
    fs::write(&path, "x").unwrap();
    symlink("disk", &link).unwrap();
    let options = TargetOptions::default().with_single_link(true);
    let opened = open_target(&link, &options).unwrap();
    assert_eq!(opened.host.path(), path);
    assert_eq!(opened.host.link_count(), 1);
    drop(opened);
    fs::hard_link(&path, &hard).unwrap();
    let error = open_target(&link, &options).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let opened = open_target(&link, &TargetOptions::default()).unwrap();
    assert_eq!(opened.host.link_count(), 2);
}

#[test]
fn a_device_that_cannot_store_fails_the_sync_and_then_everything() {
    if !has_loop_devices() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let point = directory.path().join("small");
    let _mount = Mount::new(&["-t", "tmpfs", "-o", "size=1M", "none"], &point);
    let path = point.join("disk");
    File::create(&path).unwrap().set_len(8 << 20).unwrap();
    let device = LoopDevice::attach(&path);
    let storage = open_target(device.path(), &TargetOptions::default())
        .unwrap()
        .storage;
    storage.write_all_at(&vec![1; 4 << 20], 0).unwrap();
    let error = storage.sync().unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace),
        "{error}"
    );
    let after = [
        storage.sync(),
        storage.len().map(drop),
        storage.read_exact_at(&mut [0], 0),
        storage.write_all_at(&[0], 0),
        storage.set_len(8 << 20),
        storage.punch_hole(0..1),
        storage.next_data(0).map(drop),
        storage.stamp().map(drop),
    ];
    for outcome in after {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Poisoned);
    }
}

#[test]
fn a_range_that_cannot_be_read_is_an_error_that_names_its_place() {
    if !has_loop_devices() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    fs::write(&path, vec![1; 8 << 20]).unwrap();
    let device = LoopDevice::attach(&path);
    let name = device.path().to_str().unwrap();
    let direct = Command::new("losetup")
        .args(["--direct-io=on", name])
        .status();
    if !direct.unwrap().success() {
        return left_out("the temporary directory has no direct reads");
    }
    // Behind the end of its file the device fails.
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(4 << 20)
        .unwrap();
    for direct in [false, true] {
        let options = SourceOptions::default().with_direct(direct);
        let source = open_source(device.path(), &options).unwrap().storage;
        for range in [3 << 20..5 << 20, (4 << 20) - 8192..(4 << 20) + 8192] {
            let error = read(&*source, &range).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert_eq!(error.offset(), Some(4 << 20), "{range:x?}");
        }
        read(&*source, &(0..4 << 20)).unwrap();
    }
}

#[test]
fn a_change_of_the_source_by_somebody_else_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    fs::write(&path, vec![1; 8192]).unwrap();
    notices_a_change(&path, &path);
    if has_loop_devices() {
        let device = LoopDevice::attach(&path);
        notices_a_change(device.path(), device.path());
    }
    let memory = MemoryStorage::new("memory", vec![1]);
    assert_eq!(SourceStamp::take(&memory).unwrap(), None);
}

fn notices_a_change(path: &Path, written: &Path) {
    let source = open_source(path, &SourceOptions::default())
        .unwrap()
        .storage;
    let stamp = SourceStamp::take(&*source).unwrap().unwrap();
    read(&*source, &(0..8192)).unwrap();
    stamp.check(&*source).unwrap();
    // The clock of older file systems ticks every few milliseconds.
    std::thread::sleep(Duration::from_millis(20));
    let writer = File::options().write(true).open(written).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&writer, b"x", 5).unwrap();
    let error = stamp.check(&*source).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceChanged);
}

#[test]
fn a_lasting_name_leads_to_its_device_and_to_no_other() {
    if !has_loop_devices() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let [path, other] = ["disk", "other"].map(|name| directory.path().join(name));
    for path in [&path, &other] {
        File::create(path).unwrap().set_len(1 << 20).unwrap();
    }
    let device = LoopDevice::attach(&path);
    let beside = run("losetup", &["--find", "--show", other.to_str().unwrap()]);
    let named = || {
        let name = identity(device.path()).unwrap();
        devices_named(name.as_str())
    };
    let found = named();
    // A deleted file has given up its name, which is nobody's now.
    fs::remove_file(&path).unwrap();
    let found_without = named();
    run("losetup", &["-d", &beside]);
    assert_eq!(found, [device.path()]);
    assert!(found_without.is_empty(), "{found_without:?}");
}

#[test]
fn a_loop_device_is_known_again_under_another_number() {
    if !has_loop_devices() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let [path, other] = ["disk 1", "disk 2"].map(|name| directory.path().join(name));
    for path in [&path, &other] {
        File::create(path).unwrap().set_len(1 << 20).unwrap();
    }
    let first = identity(LoopDevice::attach(&path).path()).unwrap();
    let second = {
        let arguments = ["--find", "--show", other.to_str().unwrap()];
        let taken = run("losetup", &arguments);
        let again = LoopDevice::attach(&path);
        assert_ne!(identity(&taken).unwrap(), first);
        run("losetup", &["-d", &taken]);
        identity(again.path()).unwrap()
    };
    assert_eq!(first, second);
    assert!(first.is_stable());
    assert!(!first.as_str().contains(['/', ' ']), "{first}");
    assert_eq!(identity(&path).unwrap_err().kind(), ErrorKind::InvalidInput);
}

// ---- the page cache ----

#[test]
fn what_was_not_cached_is_not_cached_after_reading_and_what_was_stays() {
    if !has_program("fincore") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    if HostDirectory::open(directory.path())
        .unwrap()
        .is_volatile()
        .unwrap()
    {
        return left_out("the temporary directory is in memory");
    }
    let path = directory.path().join("disk");
    let len = 16u64 << 20;
    fs::write(&path, vec![1; len as usize]).unwrap();
    for step in [1 << 20, 16 << 10] {
        let source = open_source(&path, &SourceOptions::default())
            .unwrap()
            .storage;
        File::open(&path).unwrap().sync_all().unwrap();
        source.drop_cache(0..len);
        assert_eq!(cached(&path), 0);
        fs::File::open(&path)
            .and_then(|file| read_half(&file, len))
            .unwrap();
        let before = cached(&path);
        assert!(before >= len / 2);
        for at in (0..len).step_by(step) {
            read(&*source, &(at..at + step as u64)).unwrap();
        }
        drop(source);
        // A page or two that were being read when they should have been dropped may stay, and some
        // that the system could not hand out at once were taken for pages that are not there.
        let after = cached(&path);
        assert!(
            after.abs_diff(before) <= 64 << 10,
            "{step}: {before} before, {after} after"
        );
    }
}

/// Brings the first half into the cache, and nothing by readahead.
fn read_half(file: &File, len: u64) -> std::io::Result<()> {
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Random)?;
    let mut half = vec![0; (len / 2) as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut half, 0)
}

fn cached(path: &Path) -> u64 {
    let output = run(
        "fincore",
        &["-b", "-n", "-o", "RES", path.to_str().unwrap()],
    );
    output.parse().unwrap()
}

// ---- directories ----

#[test]
fn a_directory_takes_plain_names_and_follows_no_link() {
    let directory = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    symlink(&victim, directory.path().join("link")).unwrap();
    symlink(
        outside.path().join("missing"),
        directory.path().join("dangling"),
    )
    .unwrap();
    let opened = HostDirectory::open(directory.path()).unwrap();
    for name in ["link", "dangling"] {
        let name = OsStr::new(name);
        assert!(opened.open(name, Access::Write).is_err());
        assert!(opened.open(name, Access::Read).is_err());
        let error = opened.create_new(name).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(!outside.path().join("missing").exists());
    for name in ["", ".", "..", "a/b", "/etc/passwd", "../victim"] {
        let name = OsStr::new(name);
        for outcome in [
            opened.open(name, Access::Read).map(drop),
            opened.create_new(name).map(drop),
            opened.remove(name),
            opened.rename(name, "x".as_ref()),
            opened.rename("link".as_ref(), name),
        ] {
            assert_eq!(
                outcome.unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{name:?}"
            );
        }
    }
}

#[test]
fn a_file_is_no_directory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = HostDirectory::open(file.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn what_is_open_is_not_handed_to_other_programs() {
    let directory = tempfile::tempdir().unwrap();
    let opened = HostDirectory::open(directory.path()).unwrap();
    let _file = opened.create_new("disk".as_ref()).unwrap();
    let theirs = run("ls", &["-l", "/proc/self/fd"]);
    let place = directory.path().to_str().unwrap();
    assert!(!theirs.contains(place), "{theirs}");
}

#[test]
fn a_directory_creates_renames_lists_and_removes_also_after_it_was_moved() {
    let parent = tempfile::tempdir().unwrap();
    let [path, moved] = ["directory", "moved"].map(|name| parent.path().join(name));
    fs::create_dir(&path).unwrap();
    let directory = HostDirectory::open(&path).unwrap();
    fs::rename(&path, &moved).unwrap();
    let [one, two] = ["one", "two"].map(OsStr::new);
    directory
        .create_new(one)
        .unwrap()
        .write_all_at(b"1", 0)
        .unwrap();
    assert_eq!(
        directory.create_new(one).map(drop).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let id = directory.file_id(one).unwrap().unwrap();
    directory.create_new(two).unwrap();
    directory.rename(one, two).unwrap();
    directory.sync().unwrap();
    assert_eq!(directory.file_id(two).unwrap(), Some(id));
    assert_eq!(directory.file_id(one).unwrap(), None);
    assert_eq!(directory.names().unwrap(), ["two"]);
    assert_eq!(fs::read(moved.join("two")).unwrap(), b"1");
    directory.remove(two).unwrap();
    assert_eq!(
        directory.remove(two).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        directory
            .open(two, Access::Read)
            .map(drop)
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    assert!(directory.names().unwrap().is_empty());
    assert!(directory.free_bytes().unwrap().unwrap() > 0);
    assert_eq!(
        HostDirectory::open(&path).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    if Path::new("/dev/shm").is_dir() {
        assert!(
            HostDirectory::open("/dev/shm")
                .unwrap()
                .is_volatile()
                .unwrap()
        );
    }
}

#[test]
fn a_directory_says_how_much_room_it_has_and_one_in_memory_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    let said = HostDirectory::open(directory.path()).unwrap().free_bytes();
    let said = said.unwrap().unwrap();
    let told: u64 = run("stat", &["-f", "-c", "%a", place]).parse().unwrap();
    let unit: u64 = run("stat", &["-f", "-c", "%S", place]).parse().unwrap();
    // Others write meanwhile.
    assert!(said.abs_diff(told * unit) < told * unit / 10, "{said}");
    let memory = MemoryDirectory::new();
    assert_eq!(memory.free_bytes().unwrap(), None);
    assert!(!memory.is_volatile().unwrap());
}

#[test]
fn redo_logs_are_private_and_results_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let opened = HostDirectory::open(directory.path()).unwrap();
    opened.create_new("redo_log".as_ref()).unwrap();
    opened.create("result".as_ref(), Privacy::USUAL).unwrap();
    let by_default = directory.path().join("by default");
    File::create(&by_default).unwrap();
    let mode = |name: &str| fs::metadata(directory.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!(mode("redo_log"), 0o600);
    assert_eq!(mode("result"), mode("by default"));
}

#[test]
fn a_replacement_takes_over_owner_mode_access_list_and_attributes() {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    let directory = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| directory.path().join(name));
    fs::write(&old, "old").unwrap();
    let set = setxattr(&old, "user.disk", b"root", XattrFlags::empty());
    let list = setxattr(
        &old,
        "system.posix_acl_access",
        &access_list(),
        XattrFlags::empty(),
    );
    if set.is_err() || list.is_err() {
        return left_out("the temporary directory has no extended attributes or access lists");
    }
    // The file's own list goes along, one inherited from the directory does not.
    let inherited = setxattr(
        directory.path(),
        "system.posix_acl_default",
        &access_list(),
        XattrFlags::empty(),
    );
    inherited.unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&old, Some(1234), Some(4321)).unwrap();
    }
    let plain = directory.path().join("plain");
    fs::write(&plain, "plain").unwrap();
    rustix::fs::removexattr(&plain, "system.posix_acl_access").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o2640)).unwrap();

    let opened = HostDirectory::open(directory.path()).unwrap();
    for from in ["old", "plain"] {
        let to = opened.create_new("new".as_ref()).unwrap();
        opened
            .copy_attributes(from.as_ref(), "new".as_ref())
            .unwrap();
        to.sync().unwrap();
        let [theirs, ours] = [&directory.path().join(from), &new].map(|p| fs::metadata(p).unwrap());
        assert_eq!(
            (theirs.mode(), theirs.uid(), theirs.gid()),
            (ours.mode(), ours.uid(), ours.gid())
        );
        for name in ["user.disk", "system.posix_acl_access"] {
            let value = |path: &Path| {
                let mut buf = vec![0; 256];
                let len = getxattr(path, name, &mut buf[..]).ok()?;
                buf.truncate(len);
                Some(buf)
            };
            assert_eq!(
                value(&directory.path().join(from)),
                value(&new),
                "{from}: {name}"
            );
            assert_eq!(value(&new).is_some(), from == "old");
        }
        opened.remove("new".as_ref()).unwrap();
    }
}

/// Owner rw, user 1000 r, group r, mask r, others nothing; as the kernel keeps it.
fn access_list() -> Vec<u8> {
    let mut list = 2u32.to_le_bytes().to_vec();
    let nobody = u32::MAX;
    let entries = [
        (1, 6, nobody),
        (2, 4, 1000),
        (4, 4, nobody),
        (16, 4, nobody),
        (32, 0, nobody),
    ];
    for (tag, permission, id) in entries {
        list.extend(u16::to_le_bytes(tag));
        list.extend(u16::to_le_bytes(permission));
        list.extend(u32::to_le_bytes(id));
    }
    list
}

#[test]
fn a_directory_is_made_with_those_above_it_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let (above, path) = (home.path().join("a"), home.path().join("a/b"));
    for _ in 0..2 {
        HostDirectory::make(&path).unwrap();
    }
    for made in [above, path] {
        let mode = std::fs::metadata(made).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    HostDirectory::make(&file.join("below")).unwrap_err();
}

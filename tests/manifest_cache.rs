//! When a manifest that was kept of a source is trusted, and when not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use diskdelta::delta::{Base, Delta, DeltaOptions, create};
use diskdelta::image::{self, CreateFormat, CreateOptions, FileGate, Format, ImageOptions, Raw};
use diskdelta::manifest::{self, TargetManifest};
use diskdelta::storage::{FileRef, MemoryStorage, SourceOptions};
use diskdelta::sync::{CachedSource, HostSource, ManifestCache, export_delta};
use diskdelta::{BlockSize, ErrorKind, Limits, Work};

struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    /// A directory with a disk that was written long enough ago.
    fn new() -> Fixture {
        let fixture = Fixture {
            directory: tempfile::tempdir().unwrap(),
        };
        fixture.write("disk.raw", 1);
        wait_for_clock();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, seed: u8) {
        let bytes: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8 ^ seed).collect();
        fs::write(self.path(name), bytes).unwrap();
    }

    fn cache(&self) -> ManifestCache {
        ManifestCache::open(self.path("cache")).unwrap()
    }

    fn look_up(&self, name: &str) -> CachedSource {
        look_up(&self.cache(), &self.path(name))
    }

    /// Reads the disk, and has it kept.
    fn keep(&self, name: &str) -> diskdelta::Hash {
        let (manifest, was_kept) = self.look_up(name).manifest_or_read(None, &work()).unwrap();
        assert!(!was_kept);
        manifest.root()
    }

    fn open_to_write(&self, name: &str) -> File {
        File::options().write(true).open(self.path(name)).unwrap()
    }

    fn kept_files(&self) -> usize {
        fs::read_dir(self.path("cache")).unwrap().count()
    }

    fn refuses(&self, name: &str, why: &str) {
        let cached = self.look_up(name);
        assert!(cached.manifest().is_none(), "{why}");
        assert_eq!(cached.reason(), Some(why));
    }
}

fn look_up(cache: &ManifestCache, path: &Path) -> CachedSource {
    cache.look_up(&open(path), BlockSize::default()).unwrap()
}

fn open(path: &Path) -> HostSource {
    HostSource::open(path, &ImageOptions::default(), &SourceOptions::default()).unwrap()
}

fn work() -> Work {
    Work::with_threads(2).unwrap()
}

/// Until a write shows in the times of what was written last.
fn wait_for_clock() {
    std::thread::sleep(Duration::from_millis(3100));
}

const LEN: usize = 300_000;
/// Fields in the header of a manifest; see docs/reference/formats.md.
const VERSION_AT: usize = 8;
const CHECKSUM_AT: usize = 252;
const NONE: &str = "none is kept, or it is damaged";
const WRITTEN: &str = "it was written to since";

#[test]
fn a_disk_that_nobody_wrote_to_is_not_read_again() {
    let fixture = Fixture::new();
    fixture.refuses("disk.raw", NONE);
    let root = fixture.keep("disk.raw");
    let cached = fixture.look_up("disk.raw");
    assert_eq!(cached.manifest().unwrap().root(), root);
    assert_eq!(cached.reason(), None);
    let (again, was_kept) = cached.manifest_or_read(None, &work()).unwrap();
    assert!(was_kept && again.root() == root);
    let directory = fs::metadata(fixture.path("cache")).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::mode(&directory) & 0o777,
        0o700
    );
}

#[test]
fn a_write_even_of_the_same_bytes_and_one_whose_time_was_set_back_is_seen() {
    let fixture = Fixture::new();
    let root = fixture.keep("disk.raw");
    let file = fixture.open_to_write("disk.raw");
    let before = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"x", 1000).unwrap();
    fixture.refuses("disk.raw", WRITTEN);
    file.set_modified(before).unwrap();
    fixture.refuses("disk.raw", WRITTEN);
    wait_for_clock();
    assert_ne!(fixture.keep("disk.raw"), root);
    assert!(fixture.look_up("disk.raw").manifest().is_some());
}

#[test]
fn what_was_written_a_moment_ago_may_be_written_again_unseen_and_is_not_kept() {
    let fixture = Fixture::new();
    fixture.write("fresh.raw", 2);
    fixture.keep("fresh.raw");
    fixture.refuses("fresh.raw", NONE);
    assert_eq!(fixture.kept_files(), 0);
    // Neither is one whose clock is ahead of ours.
    let file = fixture.open_to_write("disk.raw");
    let ahead = std::time::SystemTime::now() + Duration::from_secs(3600);
    file.set_modified(ahead).unwrap();
    wait_for_clock();
    fixture.keep("disk.raw");
    fixture.refuses("disk.raw", NONE);
}

#[test]
fn another_file_of_the_same_name_and_bytes_is_another_disk() {
    let fixture = Fixture::new();
    fixture.keep("disk.raw");
    fs::copy(fixture.path("disk.raw"), fixture.path("copy.raw")).unwrap();
    fixture.refuses("copy.raw", NONE);
    fs::rename(fixture.path("copy.raw"), fixture.path("disk.raw")).unwrap();
    fixture.refuses("disk.raw", NONE);
}

#[test]
fn a_disk_of_another_length_or_read_as_another_format_is_another_disk() {
    let fixture = Fixture::new();
    fixture.keep("disk.raw");
    let file = fixture.open_to_write("disk.raw");
    file.set_len(LEN as u64 + 4096).unwrap();
    fixture.refuses("disk.raw", "another disk was kept");
    file.set_len(LEN as u64).unwrap();
    fixture.refuses("disk.raw", WRITTEN);
    let small = fixture
        .cache()
        .look_up(&open(&fixture.path("disk.raw")), BlockSize::MIN);
    let small = small.unwrap();
    assert_eq!(small.reason(), Some(NONE), "other blocks");
    assert_eq!(small.block_size(), BlockSize::MIN);
    // Nor are they taken over under the name of the right ones.
    wait_for_clock();
    small.manifest_or_read(None, &work()).unwrap();
    let is_small = |path: &PathBuf| fs::metadata(path).unwrap().len() > 2000;
    let entries = fs::read_dir(fixture.path("cache")).unwrap();
    let kept: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    let (small, large): (Vec<_>, Vec<_>) = kept.into_iter().partition(is_small);
    assert_eq!((small.len(), large.len()), (1, 1));
    fs::copy(&small[0], &large[0]).unwrap();
    let (read, _) = fixture
        .look_up("disk.raw")
        .manifest_or_read(Some(&[]), &work())
        .unwrap();
    assert_eq!(read.block_size(), BlockSize::default());
}

#[test]
fn damage_to_what_is_kept_is_seen_and_foreign_files_are_not_replaced() {
    let fixture = Fixture::new();
    fixture.keep("disk.raw");
    let kept = fs::read_dir(fixture.path("cache"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let whole = fs::read(&kept).unwrap();
    // The header; the state that was noted at the end.
    for at in [20, whole.len() - 10] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&kept, damaged).unwrap();
        assert!(
            fixture.look_up("disk.raw").manifest().is_none(),
            "byte {at}"
        );
    }
    fs::write(&kept, &whole[..whole.len() / 2]).unwrap();
    fixture.refuses("disk.raw", NONE);
    fs::write(&kept, "a letter that somebody put there").unwrap();
    fixture.refuses("disk.raw", NONE);
    let error = fixture.look_up("disk.raw").manifest_or_read(None, &work());
    let error = error.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_manifest_that_does_not_say_when_it_was_made_or_that_is_marked_is_not_believed() {
    let fixture = Fixture::new();
    let root = fixture.keep("disk.raw");
    let mut entries = fs::read_dir(fixture.path("cache")).unwrap();
    let kept = entries.next().unwrap().unwrap().path();
    let whole = fs::read(&kept).unwrap();
    // One that was made of the same disk, as any tool makes them.
    let image = open(&fixture.path("disk.raw"));
    let file_ref = FileRef::host(&kept).unwrap();
    manifest::save(&file_ref, |file| {
        manifest::build_to(&**image.image(), BlockSize::default(), &work(), file)
    })
    .unwrap();
    let made = TargetManifest::open_path(&kept, &Limits::default()).unwrap();
    assert!(made.manifest().root() == root && !made.is_noted());
    fixture.refuses("disk.raw", WRITTEN);
    fs::write(&kept, whole).unwrap();
    assert!(fixture.look_up("disk.raw").manifest().is_some());
    let mut marked = TargetManifest::open_path(&kept, &Limits::default()).unwrap();
    marked.record_intent(std::iter::once(0..5)).unwrap();
    fixture.refuses("disk.raw", WRITTEN);
}

#[test]
fn what_a_later_version_has_kept_is_an_error_and_not_replaced() {
    let fixture = Fixture::new();
    fixture.keep("disk.raw");
    let mut entries = fs::read_dir(fixture.path("cache")).unwrap();
    let kept = entries.next().unwrap().unwrap().path();
    let mut later = fs::read(&kept).unwrap();
    later[VERSION_AT] += 1;
    let checksum = crc32fast::hash(&later[..CHECKSUM_AT]);
    later[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&kept, &later).unwrap();
    let source = open(&fixture.path("disk.raw"));
    let error = fixture.cache().look_up(&source, BlockSize::default());
    assert_eq!(error.err().unwrap().kind(), ErrorKind::Unsupported);
    assert!(fs::read(&kept).unwrap() == later);
}

#[test]
fn a_disk_longer_than_is_allowed_by_default_is_kept_too() {
    let limits = Limits::default();
    let len = limits.disk_bytes + 4096;
    // Other file systems end before that.
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("LEFT OUT: there is no /dev/shm");
        return;
    };
    let path = directory.path().join("long.raw");
    let file = File::create(&path).unwrap();
    if file.set_len(len).is_err() {
        eprintln!("LEFT OUT: no file may be so long here");
        return;
    }
    file.write_all_at(&[1; 4096], len - 4096).unwrap();
    wait_for_clock();
    let fixture = Fixture::new();
    let image = ImageOptions::default().with_limits(limits.with_disk_bytes(u64::MAX));
    let look_up = || {
        let source = HostSource::open(&path, &image, &SourceOptions::default()).unwrap();
        fixture.cache().look_up(&source, BlockSize::MAX).unwrap()
    };
    let (read, was_kept) = look_up().manifest_or_read(None, &work()).unwrap();
    assert!(!was_kept && read.disk_len() == len);
    let (again, was_kept) = look_up().manifest_or_read(None, &work()).unwrap();
    assert!(was_kept && again.root() == read.root());
}

#[test]
fn a_source_that_changes_while_it_is_read_is_not_kept() {
    let fixture = Fixture::new();
    let cached = fixture.look_up("disk.raw");
    let recording = cached.record().unwrap().unwrap();
    let writer = recording.writer(LEN as u64).unwrap();
    writer.finish().unwrap();
    let file = fixture.open_to_write("disk.raw");
    file.write_all_at(b"x", 1000).unwrap();
    assert!(!recording.finish(cached.storage()).unwrap());
    fixture.refuses("disk.raw", NONE);
    assert_eq!(fixture.kept_files(), 0);
    wait_for_clock();
    drop(fixture.look_up("disk.raw").record().unwrap().unwrap());
    assert_eq!(
        fixture.kept_files(),
        0,
        "one that was given up leaves nothing"
    );
}

#[test]
fn a_change_map_that_covers_the_time_since_saves_reading_the_rest() {
    let fixture = Fixture::new();
    fixture.keep("disk.raw");
    let file = fixture.open_to_write("disk.raw");
    file.write_all_at(&[7; 5000], 100_000).unwrap();
    wait_for_clock();
    let cached = fixture.look_up("disk.raw");
    assert_eq!(cached.reason(), Some(WRITTEN));
    let (updated, _) = cached
        .manifest_or_read(Some(&[100_000..104_000, 104_000..105_000]), &work())
        .unwrap();
    let image = open(&fixture.path("disk.raw"));
    let read = manifest::build(&**image.image(), BlockSize::default(), &work()).unwrap();
    assert_eq!(updated.root(), read.root());
    assert_eq!(
        fixture.look_up("disk.raw").manifest().unwrap().root(),
        read.root()
    );
    // The rest is taken from what was kept, whatever the disk holds: the map is trusted.
    file.write_all_at(&[8; 10], 290_000).unwrap();
    let (wrong, _) = fixture
        .look_up("disk.raw")
        .manifest_or_read(Some(&[0..5, 5..10]), &work())
        .unwrap();
    assert_eq!(wrong.root(), read.root());
}

#[test]
fn an_image_that_may_lie_in_other_files_too_is_always_read() {
    let fixture = Fixture::new();
    let limits = Limits::default();
    let gated = ImageOptions::default().with_gate(Arc::new(FileGate::new()));
    let open = |name: &str| {
        HostSource::open(fixture.path(name), &gated, &SourceOptions::default()).unwrap()
    };
    let look_up = |name: &str| {
        let found = fixture.cache().look_up(&open(name), BlockSize::default());
        found.unwrap()
    };
    let parent = MemoryStorage::new("parent", Vec::new());
    image::create(
        &parent,
        &CreateOptions::new(CreateFormat::VhdDynamic, 8 << 20),
    )
    .unwrap();
    fs::write(fixture.path("parent.vhd"), parent.to_vec()).unwrap();
    let new = Arc::new(MemoryStorage::new("new", vec![3; 8 << 20]));
    let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
    create(
        Base::Image(&**open("parent.vhd").image()),
        &Raw::open(new).unwrap(),
        file.clone(),
        &DeltaOptions::default(),
        &work(),
    )
    .unwrap();
    let delta = Delta::from_storage(file, &limits).unwrap();
    let child = fixture.path("child.vhd");
    export_delta(&delta, &open("parent.vhd"), child, &gated, &work()).unwrap();
    let elsewhere = Some("it may lie in other files too");
    let mut cases = vec![("parent.vhd", None), ("child.vhd", elsewhere)];
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(fixture.path("other.qcow2"))
        .arg("8M")
        .status();
    match cfg!(feature = "imago") && made.is_ok_and(|status| status.success()) {
        true => cases.push(("other.qcow2", elsewhere)),
        false => eprintln!("LEFT OUT: a qcow2 needs qemu-img and the feature imago"),
    }
    wait_for_clock();
    for (name, why) in cases {
        let read = look_up(name).manifest_or_read(None, &work()).unwrap();
        assert!(!read.1, "{name}");
        assert_eq!(look_up(name).reason(), why, "{name}");
        assert_eq!(look_up(name).manifest().is_some(), why.is_none(), "{name}");
    }
    assert_eq!(fixture.kept_files(), 1, "the child's is not even written");
    let as_raw = HostSource::open(
        fixture.path("parent.vhd"),
        &ImageOptions::default().with_format(Format::Raw),
        &SourceOptions::default(),
    );
    let as_raw = fixture
        .cache()
        .look_up(&as_raw.unwrap(), BlockSize::default());
    assert_eq!(as_raw.unwrap().reason(), Some(NONE), "another format");
}

#[test]
fn a_source_that_others_may_write_is_always_read() {
    let fixture = Fixture::new();
    let live = SourceOptions::default().with_allow_writers(true);
    let path = fixture.path("disk.raw");
    let source = HostSource::open(path, &ImageOptions::default(), &live).unwrap();
    let cached = fixture
        .cache()
        .look_up(&source, BlockSize::default())
        .unwrap();
    assert_eq!(cached.reason(), Some("the system tells too little of it"));
    assert!(cached.record().unwrap().is_none());
    assert!(!cached.manifest_or_read(None, &work()).unwrap().1);
    assert_eq!(fixture.kept_files(), 0);
}

#[test]
fn a_device_is_trusted_until_something_is_written_to_it() {
    let fixture = Fixture::new();
    let attached = Command::new("losetup")
        .args(["--find", "--show"])
        .arg(fixture.path("disk.raw"))
        .output();
    let attached = attached.ok().filter(|it| it.status.success());
    let Some(attached) = attached else {
        eprintln!("LEFT OUT: there are no loop devices");
        assert!(std::env::var_os("DISKDELTA_REQUIRE_ORACLES").is_none());
        return;
    };
    let device = PathBuf::from(String::from_utf8(attached.stdout).unwrap().trim());
    let cache = fixture.cache();
    let done = std::panic::catch_unwind(|| {
        let (_, was_kept) = look_up(&cache, &device)
            .manifest_or_read(None, &work())
            .unwrap();
        assert!(!was_kept);
        assert!(look_up(&cache, &device).manifest().is_some());
        let file = File::options().write(true).open(&device).unwrap();
        file.write_all_at(&[1; 4096], 8192).unwrap();
        drop(file);
        assert_eq!(look_up(&cache, &device).reason(), Some(WRITTEN));
    });
    let detached = Command::new("losetup")
        .arg("--detach")
        .arg(&device)
        .status();
    assert!(detached.unwrap().success());
    done.unwrap();
}

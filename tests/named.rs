//! Images and targets that are named by a path of this host.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod host;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use diskdelta::delta::{self, Base, Delta, DeltaOptions};
use diskdelta::image::{self, CreateFormat, CreateOptions, Format, ImageOptions};
use diskdelta::storage::{Access, FileRef, FileStorage, MemoryStorage, Privacy, SourceOptions};
use diskdelta::sync::{
    BaseCheck, HostSide, HostSource, HostTarget, HostTargetOptions, Mode, Recovered, Safety,
    Source, SyncOptions, Target, Verify, apply_delta, sync, undo,
};
use diskdelta::{Advice, BlockSize, ErrorKind, ExtentKind, Limits, Work, manifest};
use host::{LoopDevice, has_loop_devices};

const LEN: usize = 200_000;

struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn disk(&self, name: &str) -> PathBuf {
        let bytes: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    fn names(&self) -> usize {
        fs::read_dir(self.directory.path()).unwrap().count()
    }
}

fn target(path: &Path) -> HostTarget {
    HostTarget::open(path, &HostTargetOptions::default()).unwrap()
}

fn side(path: &Path) -> HostSide {
    HostSide::open(path, &ImageOptions::default(), &SourceOptions::default()).unwrap()
}

fn work() -> Work {
    Work::with_threads(1).unwrap()
}

#[test]
fn what_is_left_of_a_sync_onto_a_missing_target_can_be_given_up_and_nothing_cannot() {
    let fixture = Fixture::new();
    let missing = target(&fixture.path("t.raw"));
    for done in [missing.discard(&work()), missing.recover(&work())] {
        assert_eq!(done.unwrap_err().kind(), ErrorKind::NotFound);
    }
    fs::write(fixture.path(".t.raw.diskdelta-new"), [1; 5000]).unwrap();
    assert_eq!(missing.recover(&work()).unwrap(), Recovered::Old);
    assert_eq!(fixture.names(), 1, "it is kept");
    assert_eq!(missing.discard(&work()).unwrap(), Recovered::Old);
    assert_eq!(fixture.names(), 0);
    // There is nothing to give up beside a target that is there, and no harm in it.
    let there = target(&fixture.disk("t.raw"));
    assert_eq!(there.discard(&work()).unwrap(), Recovered::Old);
    assert_eq!(there.recover(&work()).unwrap(), Recovered::Nothing);
}

#[test]
fn a_named_target_is_held_shown_to_its_holder_and_released() {
    let fixture = Fixture::new();
    let path = fixture.disk("t.raw");
    let disk = fs::read(&path).unwrap();
    let held = target(&path);
    assert!(held.held_image(&work()).unwrap().is_none());
    held.hold(&work()).unwrap();
    assert!(fs::read(&path).unwrap() != disk);
    let image = held.held_image(&work()).unwrap().unwrap();
    let mut shown = vec![0; LEN];
    image.read_exact_at(&mut shown, 0).unwrap();
    assert!(shown == disk);
    assert_eq!(held.recover(&work()).unwrap(), Recovered::Held);
    assert_eq!(held.release(&work()).unwrap(), Recovered::New);
    assert!(held.held_image(&work()).unwrap().is_none());
    assert!(fs::read(&path).unwrap() == disk);
    assert_eq!(held.release(&work()).unwrap(), Recovered::Nothing);
    assert_eq!(fixture.names(), 1);
}

#[test]
fn a_file_that_ends_as_a_container_is_not_raw_by_default_and_a_device_is() {
    let fixture = Fixture::new();
    let vhd = MemoryStorage::new("vhd", Vec::new());
    let create = CreateOptions::new(CreateFormat::VhdFixed, 1 << 20);
    image::create(&vhd, &create).unwrap();
    let path = fixture.path("s.raw");
    fs::write(&path, vhd.to_vec()).unwrap();
    let open =
        |path: &Path| HostSource::open(path, &ImageOptions::default(), &SourceOptions::default());
    let error = open(&path).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    if has_loop_devices() {
        // A guest may have written that there.
        let device = LoopDevice::attach(&path);
        open(device.path()).unwrap();
    }
}

#[test]
fn a_device_without_a_lasting_name_is_warned_of_and_a_file_needs_none() {
    let fixture = Fixture::new();
    let disk = fixture.disk("t.raw");
    assert!(target(&disk).warnings().is_empty());
    assert!(target(&fixture.path("missing.raw")).warnings().is_empty());
    if !has_loop_devices() {
        return;
    }
    File::options()
        .write(true)
        .open(&disk)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let loop_device = LoopDevice::attach(&disk);
    let options = HostTargetOptions::default().with_log_dir(Some(fixture.path("logs")));
    let open = || HostTarget::open(loop_device.path(), &options).unwrap();
    assert!(open().warnings().is_empty(), "it is named after its file");
    fs::remove_file(&disk).unwrap();
    let device = open();
    let [warning] = device.warnings() else {
        panic!("{:?}", device.warnings());
    };
    assert!(warning.contains("no lasting name"), "{warning}");
}

#[test]
fn a_copy_has_holes_where_the_file_that_it_replaces_had_some() {
    let fixture = Fixture::new();
    let len = 8u64 << 20;
    let source = fixture.path("new.raw");
    let file = File::create(&source).unwrap();
    file.set_len(len).unwrap();
    file.write_all_at(&[3; 8192], 1 << 20).unwrap();
    let options = SyncOptions::default().with_mode(Mode::Full);
    let allocated = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
    let (sparse, thick) = (fixture.path("sparse.raw"), fixture.path("thick.raw"));
    File::create(&sparse).unwrap().set_len(len).unwrap();
    fs::write(&thick, vec![7; 8 << 20]).unwrap();
    for path in [&sparse, &thick] {
        let new = HostSource::open(&source, &ImageOptions::default(), &SourceOptions::default());
        let new = new.unwrap().source();
        let report = sync(&new, target(path).target(), &options, &work()).unwrap();
        assert_eq!(report.mode, Mode::Full);
        assert!(fs::read(path).unwrap() == fs::read(&source).unwrap());
    }
    assert!(allocated(&sparse) < 1 << 20, "{}", allocated(&sparse));
    assert!(allocated(&thick) >= len, "{}", allocated(&thick));
}

#[test]
fn a_target_that_was_replaced_by_a_copy_is_the_new_file_from_then_on() {
    let fixture = Fixture::new();
    let from = |byte| {
        let storage = Arc::new(MemoryStorage::new("new", vec![byte; LEN]));
        Source::new(Arc::new(image::Raw::open(storage).unwrap()))
    };
    let path = fixture.disk("t.raw");
    let there = target(&path);
    for (mode, byte) in [(Mode::Full, 1), (Mode::Delta, 2), (Mode::Full, 3)] {
        let options = SyncOptions::default().with_mode(mode);
        sync(&from(byte), there.target(), &options, &work()).unwrap();
        assert!(fs::read(&path).unwrap() == [byte; LEN], "{mode:?}");
    }
}

#[test]
fn a_missing_target_takes_its_format_from_the_name_given_or_from_the_one_that_leads_to() {
    let fixture = Fixture::new();
    symlink("real.vhd", fixture.path("disk")).unwrap();
    symlink("plain", fixture.path("disk.vhdx")).unwrap();
    for (name, format) in [
        ("a", Format::Raw),
        ("a.vhd", Format::Vhd),
        ("disk", Format::Vhd),
        ("disk.vhdx", Format::Vhdx),
    ] {
        let target = target(&fixture.path(name));
        assert_eq!(target.target().format(), format, "{name}");
    }
}

#[test]
fn a_name_that_cannot_be_looked_up_is_not_taken_for_a_missing_target() {
    let fixture = Fixture::new();
    let path = fixture.path(&"x".repeat(300));
    let error = HostTarget::open(path, &HostTargetOptions::default());
    assert_eq!(error.err().unwrap().kind(), ErrorKind::Io);
}

#[test]
fn a_name_of_a_format_that_is_only_read_may_be_given_to_another() {
    let fixture = Fixture::new();
    let path = fixture.path("disk.qcow2");
    let options = HostTargetOptions::default();
    let refused = HostTarget::open(&path, &options).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let created = options.clone().with_create(Some(CreateFormat::VhdDynamic));
    let created = HostTarget::open(&path, &created).unwrap();
    assert_eq!(created.target().format(), Format::Vhd);
    let chosen = options.with_image(ImageOptions::default().with_format(Format::Raw));
    let chosen = HostTarget::open(&path, &chosen).unwrap();
    assert_eq!(chosen.target().format(), Format::Raw);
}

#[test]
fn a_side_that_is_written_to_meanwhile_is_found_out() {
    let fixture = Fixture::new();
    let (one, other) = (fixture.disk("one.raw"), fixture.disk("other.raw"));
    for written in [&one, &other] {
        let (new, old) = (side(&one), side(&other));
        assert!(new.diff(&old, &work()).unwrap().is_identical());
        let file = File::options().write(true).open(written).unwrap();
        file.set_len(LEN as u64 + 1).unwrap();
        let error = new.diff(&old, &work()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SourceChanged);
        file.set_len(LEN as u64).unwrap();
    }
}

#[test]
fn sides_of_different_length_are_not_identical_whatever_they_are() {
    let fixture = Fixture::new();
    let new = fixture.disk("new.raw");
    let mut bytes = fs::read(&new).unwrap();
    bytes.resize(LEN + 4096, 0);
    fs::write(fixture.path("longer.raw"), &bytes).unwrap();
    bytes[8192..12_288].fill(0);
    for page in [0, 4, 5] {
        bytes[page * 4096] ^= 1;
    }
    fs::write(fixture.path("other.raw"), &bytes).unwrap();
    let kept = fixture.path("new.manifest");
    let storage = Arc::new(MemoryStorage::new("new", fs::read(&new).unwrap()));
    let image = image::Raw::open(storage).unwrap();
    let file_ref = FileRef::host(&kept).unwrap();
    manifest::save(&file_ref, |file| {
        manifest::build_to(&image, BlockSize::MIN, &work(), file)
    })
    .unwrap();
    for name in ["new.raw", "new.manifest"] {
        let short = side(&fixture.path(name));
        assert_eq!(short.disk_len(), LEN as u64, "{name}");
        short.check().unwrap();
        let found = short
            .diff(&side(&fixture.path("longer.raw")), &work())
            .unwrap();
        assert!(!found.same_len && !found.is_identical(), "{name}");
        assert!(
            found
                .extents
                .iter()
                .all(|it| it.offset >= LEN as u64 / 4096 * 4096)
        );
        let found = side(&fixture.path("other.raw"))
            .diff(&short, &work())
            .unwrap();
        let first = |kind| found.extents.iter().find(|it| it.kind == kind).unwrap();
        assert_eq!(first(ExtentKind::Data).offset, 0, "{name}");
        assert_eq!(first(ExtentKind::Zero).offset, 8192, "{name}");
        let len = |kind| {
            let of_kind = found.extents.iter().filter(|it| it.kind == kind);
            of_kind.map(|it| it.len).sum::<u64>()
        };
        let (data, zeros) = (len(ExtentKind::Data), len(ExtentKind::Zero));
        // By its manifest the last block of the short one differs too, being short.
        assert!(data >= 3 * 4096, "{name}: {found:?}");
        assert!((4096..data).contains(&zeros), "{name}: {found:?}");
        assert_eq!(found.zeroed_bytes(), zeros, "{name}");
        assert_eq!(found.changed_bytes(), data + zeros, "{name}");
    }
    let read = HostSide::open_manifest(&kept, &Limits::default()).unwrap();
    assert!(read.warnings().is_empty());
}

#[test]
fn a_manifest_is_read_as_a_raw_disk_only_where_that_is_said() {
    let fixture = Fixture::new();
    let image = image::Raw::open(Arc::new(MemoryStorage::new("new", vec![3; LEN]))).unwrap();
    let file_ref = FileRef::host(fixture.path("kept.img")).unwrap();
    manifest::save(&file_ref, |file| {
        manifest::build_to(&image, BlockSize::MIN, &work(), file)
    })
    .unwrap();
    let open = |options: &ImageOptions| {
        HostSide::open(fixture.path("kept.img"), options, &SourceOptions::default())
    };
    let error = open(&ImageOptions::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let raw = open(&ImageOptions::default().with_format(Format::Raw)).unwrap();
    assert!(matches!(raw, HostSide::Image(..)));
    // Beside it nothing is mistaken for one.
    assert!(matches!(
        side(&fixture.disk("disk.img")),
        HostSide::Image(..)
    ));
}

#[test]
fn a_target_that_is_gone_carries_no_marker_and_one_that_cannot_be_read_may() {
    let fixture = Fixture::new();
    let path = fixture.disk("t.raw");
    let there = target(&path);
    assert!(there.marker().unwrap().is_none());
    fs::remove_file(&path).unwrap();
    assert!(there.marker().unwrap().is_none());
    fs::create_dir(&path).unwrap();
    let error = there.marker().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_danger_in_an_image_is_told_of_its_side() {
    let fixture = Fixture::new();
    let storage = MemoryStorage::new("new", Vec::new());
    let create = CreateOptions::new(CreateFormat::VhdxDynamic, 1 << 20);
    image::create(&storage, &create).unwrap();
    let path = fixture.path("disk.vhdx");
    fs::write(&path, storage.to_vec()).unwrap();
    assert!(side(&path).warnings().is_empty());
    let file = File::options().write(true).open(&path).unwrap();
    // One of the two headers.
    file.write_all_at(&[1; 512], 64 << 10).unwrap();
    drop(file);
    let warnings = side(&path).warnings();
    let named = |text: &String| text.contains("disk.vhdx") && text.contains("header");
    assert!(warnings.iter().any(named), "{warnings:?}");
}

/// What is done to a target that is open; its way ahead or back is `way`.
type Deed = fn(&HostTarget, &Path, &Path) -> diskdelta::Result<()>;

fn synced(target: &HostTarget, new: &Path, mode: Mode, safety: Safety) -> diskdelta::Result<()> {
    let source = HostSource::open(new, &ImageOptions::default(), &SourceOptions::default())?;
    let options = SyncOptions::default().with_mode(mode).with_safety(safety);
    sync(&source.source(), target.target(), &options, &work()).map(drop)
}

#[test]
fn a_target_whose_name_was_removed_or_given_away_is_never_done() {
    let deeds: [(&str, Deed); 9] = [
        ("delta", |it, new, _| {
            synced(it, new, Mode::Delta, Safety::Atomic)
        }),
        ("in place", |it, new, _| {
            synced(it, new, Mode::Delta, Safety::InPlace)
        }),
        ("in place, all", |it, new, _| {
            synced(it, new, Mode::Full, Safety::InPlace)
        }),
        ("full", |it, new, _| {
            synced(it, new, Mode::Full, Safety::Atomic)
        }),
        ("undo", |it, _, way| {
            undo(&FileRef::host(way)?, it.target(), &work()).map(drop)
        }),
        ("apply", |it, _, way| {
            let delta = FileRef::host(way)?.open(Access::Read)?;
            let delta = Delta::from_storage(delta, &Limits::default())?;
            let check = BaseCheck::Touched;
            apply_delta(&delta, it.target(), check, Verify::Written, &work()).map(drop)
        }),
        ("recover", |it, _, _| it.recover(&work()).map(drop)),
        ("hold", |it, _, _| it.hold(&work())),
        ("release", |it, _, _| it.release(&work()).map(drop)),
    ];
    let changes: [fn(&Path, &Path); 4] = [
        |name, _| fs::remove_file(name).unwrap(),
        |name, other| fs::rename(other, name).unwrap(),
        |name, other| {
            fs::remove_file(name).unwrap();
            symlink(other, name).unwrap();
        },
        |name, _| {
            fs::remove_file(name).unwrap();
            fs::create_dir(name).unwrap();
        },
    ];
    for by_link in [false, true] {
        for (deed, run) in deeds {
            for change in changes {
                let fixture = Fixture::new();
                let (new, old, other) = (
                    fixture.disk("n.raw"),
                    fixture.disk("t.raw"),
                    fixture.disk("o.raw"),
                );
                fs::write(&old, vec![3; LEN]).unwrap();
                fs::write(&other, vec![9; LEN]).unwrap();
                let way = fixture.path("way.back");
                let options = SyncOptions::default()
                    .with_mode(Mode::Delta)
                    .with_undo(Some(FileRef::host(&way).unwrap()));
                let source = side_image(&new);
                sync(&source.source(), target(&old).target(), &options, &work()).unwrap();
                let onward = fixture.path("onward.delta");
                let (base, next) = (source.image(), side_image(&other));
                let made = FileRef::host(&onward).unwrap();
                made.create_whole(Privacy::PRIVATE, |storage| {
                    let (base, options) = (Base::Image(&**base), DeltaOptions::default());
                    delta::create(base, &**next.image(), storage, &options, &work())
                })
                .unwrap();
                drop(next);
                let way = if deed == "apply" { onward } else { way };
                if !matches!(deed, "undo" | "apply") {
                    fs::write(&old, vec![3; LEN]).unwrap();
                }
                let name = if by_link {
                    fixture.path("link")
                } else {
                    old.clone()
                };
                if by_link {
                    symlink("t.raw", &name).unwrap();
                }
                let opened = target(&name);
                change(&name, &other);
                let error = run(&opened, &new, &way).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TargetChanged, "{deed}: {error}");
                assert!(error.path() == Some(&name), "{deed}: {error}");
                let left = [&other, &name].map(|path| fs::read(path).ok());
                let is_kept = left.iter().flatten().any(|bytes| *bytes == vec![9; LEN]);
                assert!(is_kept, "{deed}: the file that took the name is as it was");
            }
        }
    }
}

#[test]
fn a_new_target_is_what_its_name_says_too() {
    let fixture = Fixture::new();
    let new = fixture.disk("n.raw");
    fs::create_dir_all(fixture.path("real")).unwrap();
    fs::create_dir_all(fixture.path("else")).unwrap();
    symlink("real", fixture.path("directory")).unwrap();
    let opened = target(&fixture.path("directory/t.raw"));
    fs::remove_file(fixture.path("directory")).unwrap();
    symlink("else", fixture.path("directory")).unwrap();
    let error = synced(&opened, &new, Mode::Auto, Safety::Atomic).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TargetChanged, "{error}");
}

#[test]
fn a_source_is_no_target_though_the_caller_named_no_sources() {
    let fixture = Fixture::new();
    let path = fixture.disk("a.raw");
    let live = SourceOptions::default().with_allow_writers(true);
    let source = HostSource::open(&path, &ImageOptions::default(), &live).unwrap();
    // As an embedder may do it: the same file, through handles without locks.
    let again = Arc::new(FileStorage::open_write(&path).unwrap());
    let redo_log = FileRef::host(fixture.path("redo_log")).unwrap();
    let same = Target::device(again, Format::Raw, redo_log.clone());
    let refused = |target: &Target| {
        let options = SyncOptions::default().with_mode(Mode::Delta);
        sync(&source.source(), target, &options, &work()).unwrap_err()
    };
    let error = refused(&same);
    assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
    fs::hard_link(&path, fixture.path("b.raw")).unwrap();
    let linked = Target::file(FileRef::host(fixture.path("b.raw")).unwrap(), Format::Raw);
    assert_eq!(refused(&linked).kind(), ErrorKind::InUse);
}

#[test]
fn only_a_copy_that_would_part_hard_links_is_refused() {
    for (mode, safety, parts) in [
        (Mode::Delta, Safety::Atomic, false),
        (Mode::Full, Safety::InPlace, false),
        (Mode::Full, Safety::Atomic, true),
    ] {
        for len in [LEN, 600] {
            let fixture = Fixture::new();
            let (new, old) = (fixture.disk("n.raw"), fixture.disk("t.raw"));
            let bytes = fs::read(&new).unwrap()[..len].to_vec();
            fs::write(&new, &bytes).unwrap();
            fs::write(&old, vec![3; len]).unwrap();
            fs::hard_link(&old, fixture.path("other.raw")).unwrap();
            // One that is too short for a marker can only be replaced.
            let is_refused = parts || len == 600;
            let done = synced(&target(&old), &new, mode, safety);
            assert_eq!(done.is_err(), is_refused, "{mode:?} {safety:?} {len}");
            if let Err(error) = done {
                assert!(error.to_string().contains("2 names"), "{error}");
                assert!(error.advice().contains(&Advice::DeltaMode), "{error}");
            }
            let other = fs::read(fixture.path("other.raw")).unwrap();
            assert!(other == if is_refused { vec![3; len] } else { bytes });
        }
    }
}

fn side_image(path: &Path) -> HostSource {
    HostSource::open(path, &ImageOptions::default(), &SourceOptions::default()).unwrap()
}

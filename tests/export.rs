//! Deltas as differencing images: every reader sees the delta's result in the child, and nothing
//! is made over another base.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod readers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use diskdelta::delta::{
    Base, Delta, DeltaOptions, DeltaWriter, ExportBase, Frame, Header, JobId, Old, Purpose, create,
    export,
};
use diskdelta::image::{
    self, CreateFormat, CreateOptions, FileGate, Format, Image, ImageOptions, ParentGate,
    ParentRequest, Raw,
};
use diskdelta::storage::fault::{CrashState, FaultDisk, SyncCall, Violation};
use diskdelta::storage::{
    Access, FileRef, FileStorage, HostFile, MemoryStorage, Privacy, SourceOptions, Storage,
};
use diskdelta::sync::{HostSource, HostTarget, HostTargetOptions, export_delta};
use diskdelta::{BlockSize, ErrorKind, Limits, Result, Work, manifest};
use proptest::prelude::*;

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
/// Not whole blocks, nor whole pages.
const LEN: usize = 9 * MIB + 3 * 512;

const FORMATS: [CreateFormat; 4] = [
    CreateFormat::VhdFixed,
    CreateFormat::VhdDynamic,
    CreateFormat::VhdxFixed,
    CreateFormat::VhdxDynamic,
];

/// A directory with images and deltas.
struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Fixture {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An image that holds `contents`.
    fn image(&self, name: &str, format: CreateFormat, contents: &[u8]) -> PathBuf {
        let storage = FileStorage::create_new(self.path(name)).unwrap();
        fill(Arc::new(storage), format, contents);
        self.path(name)
    }

    /// The delta between two disks.
    fn delta(&self, old: &[u8], new: &[u8]) -> Delta {
        let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
        let options = DeltaOptions::default().with_block_size(BlockSize::MIN);
        let base = raw(old);
        create(
            Base::Image(&base),
            &raw(new),
            file.clone(),
            &options,
            &work(),
        )
        .unwrap();
        Delta::from_storage(file, &Limits::default()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn work() -> Work {
    Work::with_threads(2).unwrap()
}

fn raw(bytes: &[u8]) -> Raw {
    Raw::open(Arc::new(MemoryStorage::new("raw", bytes.to_vec()))).unwrap()
}

fn fill(storage: Arc<dyn Storage>, format: CreateFormat, contents: &[u8]) {
    let options = CreateOptions::new(format, contents.len() as u64);
    image::create(&*storage, &options).unwrap();
    let image =
        image::open_storage_mut(storage, format.format(), &ImageOptions::default()).unwrap();
    for (index, piece) in contents.chunks(MIB).enumerate() {
        if piece.iter().any(|byte| *byte != 0) {
            image.write_all_at(piece, (index * MIB) as u64).unwrap();
        }
    }
    image.sync().unwrap();
}

fn contents(image: &dyn Image) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(image.disk_len()).unwrap()];
    image.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn read(path: &Path) -> Vec<u8> {
    let options = ImageOptions::default().with_gate(Arc::new(FileGate::new()));
    contents(&*image::open(path, &options).unwrap())
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| ((at + seed * 91) % 251 + 1) as u8)
        .collect()
}

fn old_disk() -> Vec<u8> {
    let mut disk = vec![0; LEN];
    disk[..3 * MIB].copy_from_slice(&pattern(1, 3 * MIB));
    disk[5 * MIB..6 * MIB].copy_from_slice(&pattern(2, MIB));
    disk[LEN - 700..].copy_from_slice(&pattern(3, 700));
    disk
}

/// Pages and whole blocks changed, zeroed, and new.
fn new_disk() -> Vec<u8> {
    let mut disk = old_disk();
    for (seed, at) in [0, PAGE * 9, 2 * MIB - PAGE, 2 * MIB]
        .into_iter()
        .enumerate()
    {
        disk[at..at + PAGE].copy_from_slice(&pattern(10 + seed, PAGE));
    }
    disk[MIB..MIB + 5 * PAGE].fill(0);
    disk[5 * MIB..6 * MIB].fill(0);
    disk[7 * MIB..7 * MIB + 100].fill(9);
    disk[LEN - 10..].fill(8);
    disk
}

fn extension(format: CreateFormat) -> &'static str {
    format.format().name()
}

fn exported(delta: &Delta, base: &Path, to: &Path) -> Result<()> {
    let options = ImageOptions::default().with_gate(Arc::new(FileGate::new()));
    let base = HostSource::open(base, &options, &SourceOptions::default())?;
    export_delta(delta, &base, to, &options, &work())
}

#[test]
fn a_parent_of_the_source_is_no_target() {
    let fixture = Fixture::new();
    let parent = fixture.image("base.vhd", CreateFormat::VhdDynamic, &old_disk());
    let child = fixture.path("child.vhd");
    exported(&fixture.delta(&old_disk(), &new_disk()), &parent, &child).unwrap();
    let gated = ImageOptions::default().with_gate(Arc::new(FileGate::new()));
    let source = HostSource::open(&child, &gated, &SourceOptions::default()).unwrap();
    let files = source.files();
    assert_eq!(files.len(), 2);
    assert!(files[1].is_same(&HostFile::at(&parent).unwrap()));
    drop(source);
    let options = HostTargetOptions::default().with_sources(files);
    let error = HostTarget::open(&parent, &options).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InUse);
    let other = fixture.image("other.vhd", CreateFormat::VhdDynamic, &old_disk());
    HostTarget::open(other, &options).unwrap();
}

#[test]
fn every_reader_sees_the_result_of_the_delta_in_the_child() {
    for format in FORMATS {
        let fixture = Fixture::new();
        let ext = extension(format);
        let base = fixture.image(&format!("base.{ext}"), format, &old_disk());
        let before = fs::read(&base).unwrap();
        let child = fixture.path(&format!("child.{ext}"));
        exported(&fixture.delta(&old_disk(), &new_disk()), &base, &child).unwrap();
        assert!(fs::read(&base).unwrap() == before, "the base is only read");
        assert_eq!(
            fixture.names(),
            [format!("base.{ext}"), format!("child.{ext}")]
        );
        assert!(read(&child) == new_disk(), "{format:?}");
        assert!(readers::wxtla(&child).unwrap() == new_disk(), "{format:?}");
        if let Some(seen) = readers::libvhdi(&[&child, &base]) {
            assert!(seen == new_disk(), "{format:?}");
        }
        let options = ImageOptions::default().with_gate(Arc::new(FileGate::new()));
        let info = image::open(&child, &options).unwrap().info();
        assert_eq!(info.layout.name(), "differencing");

        // And a child is a base like any other.
        let grandchild = fixture.path(&format!("grandchild.{ext}"));
        let mut newest = new_disk();
        newest[4 * MIB..4 * MIB + 3].fill(7);
        newest[..PAGE].fill(0);
        exported(&fixture.delta(&new_disk(), &newest), &child, &grandchild).unwrap();
        assert!(read(&grandchild) == newest, "{format:?}");
        assert!(readers::wxtla(&grandchild).unwrap() == newest, "{format:?}");
        if let Some(seen) = readers::libvhdi(&[&grandchild, &child, &base]) {
            assert!(seen == newest, "{format:?}");
        }
    }
}

#[test]
fn a_child_of_an_empty_vhd_is_good_to_qemu_which_looks_at_no_parent() {
    let fixture = Fixture::new();
    let base = fixture.image("base.vhd", CreateFormat::VhdDynamic, &vec![0; LEN]);
    let child = fixture.path("child.vhd");
    exported(&fixture.delta(&vec![0; LEN], &new_disk()), &base, &child).unwrap();
    let out = fixture.path("out.raw");
    let output = Command::new("qemu-img")
        .args(["convert", "-f", "vpc", "-O", "raw"])
        .args([&child, &out])
        .output();
    let Ok(output) = output else {
        let required = std::env::var("DISKDELTA_REQUIRE_ORACLES");
        assert!(required.as_deref() != Ok("1"), "qemu-img is not here");
        eprintln!("LEFT OUT: qemu-img is not installed");
        return;
    };
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read(out).unwrap() == new_disk());
}

#[test]
fn a_delta_is_exported_over_its_own_base_only() {
    for format in [CreateFormat::VhdDynamic, CreateFormat::VhdxDynamic] {
        let fixture = Fixture::new();
        let ext = extension(format);
        let delta = fixture.delta(&old_disk(), &new_disk());
        let mut other = old_disk();
        other[4 * MIB] ^= 1;
        // One byte that the delta does not touch, the result, and another length.
        for (index, disk) in [other, new_disk(), old_disk()[..LEN - 512].to_vec()]
            .iter()
            .enumerate()
        {
            let base = fixture.image(&format!("{index}.{ext}"), format, disk);
            let before = fixture.names();
            let error = exported(&delta, &base, &fixture.path(&format!("c.{ext}"))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BaseMismatch, "{error}");
            assert_eq!(fixture.names(), before, "nothing is left");
        }
    }
}

#[test]
fn what_cannot_be_a_child_is_refused_and_leaves_nothing() {
    let fixture = Fixture::new();
    let delta = fixture.delta(&old_disk(), &new_disk());
    let vhdx = fixture.image("base.vhdx", CreateFormat::VhdxDynamic, &old_disk());
    fs::write(fixture.path("base.raw"), old_disk()).unwrap();
    let before = fixture.names();
    let kind = |delta: &Delta, base: &Path, to: &str| {
        let error = exported(delta, base, &fixture.path(to)).unwrap_err();
        assert_eq!(fixture.names(), before, "{error}");
        error.kind()
    };
    let raw = fixture.path("base.raw");
    assert_eq!(kind(&delta, &raw, "c.vhdx"), ErrorKind::Unsupported);
    assert_eq!(kind(&delta, &vhdx, "c.vhd"), ErrorKind::InvalidInput);
    assert_eq!(kind(&delta, &vhdx, "c.img"), ErrorKind::InvalidInput);
    assert_eq!(kind(&delta, &vhdx, "base.vhdx"), ErrorKind::AlreadyExists);
    let longer = fixture.delta(&old_disk(), &[new_disk(), vec![1; 512]].concat());
    assert_eq!(kind(&longer, &vhdx, "c.vhdx"), ErrorKind::Unsupported);
    // One flipped byte of a payload.
    let mut bytes = vec![0; delta.storage().len().unwrap() as usize];
    delta.storage().read_exact_at(&mut bytes, 0).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    let damaged = Arc::new(MemoryStorage::new("damaged", bytes));
    let damaged = Delta::from_storage(damaged, &Limits::default()).unwrap();
    assert_eq!(kind(&damaged, &vhdx, "c.vhdx"), ErrorKind::Malformed);
}

#[test]
fn a_child_in_another_directory_names_the_way_to_its_parent() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("sub")).unwrap();
    for (ext, format) in [
        ("vhd", CreateFormat::VhdDynamic),
        ("vhdx", CreateFormat::VhdxDynamic),
    ] {
        let base = fixture.image(&format!("bäse.{ext}"), format, &old_disk());
        let child = fixture.path(&format!("sub/child.{ext}"));
        exported(&fixture.delta(&old_disk(), &new_disk()), &base, &child).unwrap();
        // No hint leads out of the child's directory: the caller names the parent.
        let alone = ImageOptions::default().with_gate(Arc::new(FileGate::new()));
        let error = image::open(&child, &alone).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Parent);
        assert!(
            error.to_string().contains(&format!(r"`..\bäse.{ext}`")),
            "{error}"
        );
        let named = alone.with_gate(Arc::new(FileGate::new().with_parent(&base)));
        assert!(contents(&*image::open(&child, &named).unwrap()) == new_disk());
    }
}

/// Offers one file.
#[derive(Clone)]
struct Only(Arc<dyn Storage>);

impl std::fmt::Debug for Only {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.path().display())
    }
}

impl ParentGate for Only {
    fn candidates(&self, _request: &ParentRequest<'_>) -> Result<Vec<Arc<dyn Storage>>> {
        Ok(vec![self.0.clone()])
    }
}

/// A disk of 3 MiB in which `changes` are made: what of it a delta of such frames is.
fn with_frames(old: &[u8], changes: &[(usize, usize, u8)]) -> (Delta, Vec<u8>) {
    let mut new = old.to_vec();
    let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
    let header = Header {
        purpose: Purpose::Portable,
        job: JobId::random().unwrap(),
        base_len: old.len() as u64,
        result_len: old.len() as u64,
        block_size: BlockSize::MIN,
    };
    let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
    for (start, end, byte) in changes {
        new[*start..*end].fill(*byte);
        let (at, bytes) = (*start as u64, &new[*start..*end]);
        let frame = match byte {
            0 => Frame::zero(at, bytes.len() as u64, Old::Unknown),
            _ => Frame::data(at, bytes, Old::Unknown, None),
        };
        writer.push(&frame).unwrap();
    }
    let root = |disk: &[u8]| {
        let root = manifest::root_of(&raw(disk), BlockSize::MIN, &work()).unwrap();
        Some(root)
    };
    writer.finish(root(old), root(&new)).unwrap();
    (Delta::from_storage(file, &Limits::default()).unwrap(), new)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_of_any_length_anywhere_keep_what_lies_around_them(
        cuts in prop::collection::btree_set(0usize..3 * MIB, 2..14),
        near in prop::collection::btree_set(0usize..1200, 0..8),
        kinds in prop::collection::vec(0u8..4, 24),
        format in 0usize..4,
    ) {
        let mut old = pattern(5, 3 * MIB);
        old[MIB..MIB + 9000].fill(0);
        // Some bounds lie in one sector.
        let mut cuts: Vec<usize> = cuts.into_iter().chain(near).collect();
        cuts.sort_unstable();
        cuts.dedup();
        let changes: Vec<(usize, usize, u8)> = cuts
            .windows(2)
            .zip(&kinds)
            .filter(|(_, kind)| **kind > 0)
            .map(|(pair, kind)| (pair[0], pair[1], kind - 1))
            .collect();
        let (delta, new) = with_frames(&old, &changes);
        let base: Arc<dyn Storage> = Arc::new(MemoryStorage::new("base", Vec::new()));
        fill(base.clone(), FORMATS[format], &old);
        let child: Arc<dyn Storage> = Arc::new(MemoryStorage::new("child", Vec::new()));
        let over = ExportBase::new(base.clone(), FORMATS[format].format(), r".\base");
        export(&delta, &over, child.clone(), &work()).unwrap();
        let options = ImageOptions::default().with_gate(Arc::new(Only(base)));
        let child = image::open_storage(child, FORMATS[format].format(), &options).unwrap();
        prop_assert!(contents(&*child) == new);
    }
}

const DIRECTORY: &str = "/disks";

fn crash(format: CreateFormat, dropped: Option<&SyncCall>) -> std::result::Result<u64, Violation> {
    let (disk, base, delta, new) = before_the_crash(format);
    if let Some(dropped) = dropped.cloned() {
        disk.drop_syncs(move |call| *call == dropped);
    }
    make_child(&disk, format, &base, &delta).unwrap();
    let check = |state: &CrashState| whole_or_absent(state, format, &base, &new);
    Ok(disk.crashes().with_limit(3000).check(check)?.states)
}

fn before_the_crash(format: CreateFormat) -> (FaultDisk, Arc<dyn Storage>, Delta, Vec<u8>) {
    let old = pattern(5, 64 << 10);
    let base: Arc<dyn Storage> = Arc::new(MemoryStorage::new("base", Vec::new()));
    fill(base.clone(), format, &old);
    let (delta, new) = with_frames(&old, &[(100, 9000, 7), (20_000, 30_000, 0)]);
    let disk = FaultDisk::new();
    disk.put(format!("{DIRECTORY}/other"), vec![1; 10]);
    disk.make_durable();
    (disk, base, delta, new)
}

fn make_child(
    disk: &FaultDisk,
    format: CreateFormat,
    base: &Arc<dyn Storage>,
    delta: &Delta,
) -> Result<()> {
    let over = ExportBase::new(base.clone(), format.format(), r".\base");
    let file_ref = FileRef::new(Arc::new(disk.directory(DIRECTORY)), "child");
    file_ref.create_whole(Privacy::PRIVATE, |child| {
        export(delta, &over, child, &Work::with_threads(1)?)
    })?;
    disk.note("made");
    Ok(())
}

fn whole_or_absent(
    state: &CrashState,
    format: CreateFormat,
    base: &Arc<dyn Storage>,
    new: &[u8],
) -> std::result::Result<(), String> {
    let child = format!("{DIRECTORY}/child");
    let Ok(storage) = state.disk().open(child, Access::Read) else {
        return match state.noted("made") {
            true => Err("the child is gone".into()),
            false => Ok(()),
        };
    };
    let options = ImageOptions::default().with_gate(Arc::new(Only(base.clone())));
    let image = image::open_storage(Arc::new(storage), format.format(), &options);
    let image = image.map_err(|e| e.to_string())?;
    match contents(&*image) == new {
        true => Ok(()),
        false => Err("the child is not whole".into()),
    }
}

#[test]
fn after_a_crash_a_child_is_whole_or_not_there() {
    for format in [CreateFormat::VhdDynamic, CreateFormat::VhdxDynamic] {
        assert!(crash(format, None).unwrap() > 20);
    }
}

#[test]
fn the_syncs_of_a_child_and_of_its_name_are_needed() {
    for format in [CreateFormat::VhdDynamic, CreateFormat::VhdxDynamic] {
        let (disk, base, delta, _) = before_the_crash(format);
        let before = disk.log().syncs().len();
        make_child(&disk, format, &base, &delta).unwrap();
        let syncs = disk.log().syncs().split_off(before);
        let last = syncs.last().unwrap();
        assert!(crash(format, Some(last)).is_err(), "{last} was not missed");
        // All syncs of the file itself dropped at once.
        let (disk, base, delta, new) = before_the_crash(format);
        let last = last.clone();
        disk.drop_syncs(move |call| *call != last);
        make_child(&disk, format, &base, &delta).unwrap();
        let check = |state: &CrashState| whole_or_absent(state, format, &base, &new);
        assert!(disk.crashes().with_limit(3000).check(check).is_err());
    }
}

#[test]
fn only_vhd_and_vhdx_have_children() {
    let base: Arc<dyn Storage> = Arc::new(MemoryStorage::new("base", vec![5; 8192]));
    let (delta, _) = with_frames(&[5; 8192], &[(0, 10, 1)]);
    let child = Arc::new(MemoryStorage::new("child", Vec::new()));
    let over = ExportBase::new(base, Format::Raw, "base");
    let error = export(&delta, &over, child.clone(), &work()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(child.to_vec().is_empty());
}

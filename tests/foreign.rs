//! qcow2 and VMDK as sources: what qemu-img makes is read as qemu-img reads it, and no file is
//! opened that the caller's gate does not offer.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use diskdelta::image::{self, FileGate, Format, Image, ImageOptions};
use diskdelta::storage::{FileStorage, MemoryStorage, SourceOptions};
use diskdelta::sync::{HostSource, ManifestCache};
use diskdelta::{BlockSize, Error, ErrorKind, ExtentKind, Layout, Limits, Result};
use proptest::prelude::*;

const MIB: usize = 1 << 20;
const LEN: usize = 7 * MIB + 512;

/// A directory in which qemu-img makes images.
struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    /// `None`, loudly, where there is no qemu-img.
    fn new() -> Option<Self> {
        if Command::new("qemu-img").arg("--version").output().is_err() {
            let required = std::env::var("DISKDELTA_REQUIRE_ORACLES");
            assert!(required.as_deref() != Ok("1"), "qemu-img is not here");
            eprintln!("LEFT OUT: qemu-img is not installed");
            return None;
        }
        let fixture = Fixture {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::write(fixture.path("disk.raw"), disk()).unwrap();
        Some(fixture)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a program in the directory, which must succeed.
    fn run(&self, program: &str, words: &str) {
        let output = Command::new(program)
            .current_dir(self.directory.path())
            .args(words.split_whitespace())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {words}: {said}");
    }

    fn qemu_img(&self, words: &str) {
        self.run("qemu-img", words);
    }

    fn qemu_io(&self, format: &str, name: &str, command: &str) {
        let output = Command::new("qemu-io")
            .current_dir(self.directory.path())
            .args(["-f", format, "-c", command, name])
            .output()
            .unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }

    /// What qemu-img sees in an image.
    fn seen_by_qemu(&self, name: &str) -> Vec<u8> {
        let format = Path::new(name).extension().unwrap().to_str().unwrap();
        self.qemu_img(&format!("convert -f {format} -O raw {name} seen.raw"));
        fs::read(self.path("seen.raw")).unwrap()
    }

    fn open(&self, name: &str) -> Result<Arc<dyn Image>> {
        image::open(self.path(name), &gate())
    }

    /// Reads an image as qemu-img does, whole and in pieces.
    fn agrees(&self, name: &str) -> Arc<dyn Image> {
        let image = self.open(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let seen = self.seen_by_qemu(name);
        let found = contents(&*image).unwrap();
        assert!(found == seen, "{name}");
        let mut pieces = vec![0; found.len()];
        for (index, piece) in pieces.chunks_mut(70_001).enumerate() {
            image.read_exact_at(piece, (index * 70_001) as u64).unwrap();
        }
        assert!(pieces == found, "{name} in pieces");
        check_extents(&*image, &found);
        image
    }
}

fn gate() -> ImageOptions {
    ImageOptions::default().with_gate(Arc::new(FileGate::new()))
}

/// Data that shrinks and data that does not, zeros between, an odd end.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; LEN];
    for (at, byte) in disk[..MIB].iter_mut().enumerate() {
        *byte = (at % 251) as u8;
    }
    blake3::Hasher::new()
        .finalize_xof()
        .fill(&mut disk[3 * MIB..4 * MIB]);
    disk[5 * MIB + 100..5 * MIB + 300].fill(7);
    disk[LEN - 100..].fill(9);
    disk
}

fn contents(image: &dyn Image) -> Result<Vec<u8>> {
    let mut bytes = vec![0xee; usize::try_from(image.disk_len()).unwrap()];
    image.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn check_extents(image: &dyn Image, contents: &[u8]) {
    let mut at = 0;
    while let Some(extent) = image.next_extent(at).unwrap() {
        assert!(extent.offset == at && extent.len > 0);
        let bytes = &contents[at as usize..extent.end() as usize];
        let zeros = bytes.iter().all(|byte| *byte == 0);
        assert!(extent.kind == ExtentKind::Data || zeros, "zeros at {at:#x}");
        at = extent.end();
    }
    assert_eq!(at, image.disk_len());
    assert!(image.read_exact_at(&mut [0], at).is_err());
}

fn refusal<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("this must be refused"),
        Err(error) => error,
    }
}

#[test]
fn qcow2_images_of_all_cluster_sizes_read_as_qemu_reads_them() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    for options in ["", "-c"] {
        for format in [
            "compat=0.10",
            "cluster_size=512",
            "cluster_size=2M",
            "lazy_refcounts=on",
        ] {
            fixture.qemu_img(&format!(
                "convert {options} -f raw -O qcow2 -o {format} disk.raw d.qcow2"
            ));
            let image = fixture.agrees("d.qcow2");
            assert!(contents(&*image).unwrap() == disk());
            assert_eq!(image.info().format, Format::Qcow2);
            assert!(image.allocated_bytes().unwrap() < LEN as u64 + (8 << 20));
        }
    }
}

#[test]
fn clusters_of_zeros_and_those_given_back_read_as_zeros() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    fixture.qemu_img("convert -f raw -O qcow2 disk.raw d.qcow2");
    fixture.qemu_io("qcow2", "d.qcow2", "write -z 64k 128k");
    fixture.qemu_io("qcow2", "d.qcow2", "discard 3M 256k");
    fixture.qemu_io("qcow2", "d.qcow2", "write -P 5 6M 4k");
    fixture.agrees("d.qcow2");
}

#[test]
fn chains_of_backing_files_of_all_formats_read_as_qemu_reads_them() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    for (format, name) in [
        ("raw", "base.raw"),
        ("qcow2", "base.qcow2"),
        ("vpc", "base.vhd"),
        ("vhdx", "base.vhdx"),
        ("vmdk", "base.vmdk"),
    ] {
        let options = match format {
            "vpc" => "-o force_size",
            _ => "",
        };
        fixture.qemu_img(&format!(
            "convert -f raw -O {format} {options} disk.raw {name}"
        ));
        fixture.qemu_img(&format!(
            "create -q -f qcow2 -b {name} -F {format} mid.qcow2"
        ));
        fixture.qemu_io("qcow2", "mid.qcow2", "write -P 3 1000k 300k");
        fixture.qemu_io("qcow2", "mid.qcow2", "write -z 3M 64k");
        // The upper one is longer than what it stands on.
        fixture.qemu_img("create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 9M");
        fixture.qemu_io("qcow2", "top.qcow2", "write -P 4 8500k 10k");
        fixture.qemu_io("qcow2", "top.qcow2", "write -P 4 10k 1k");
        let image = fixture.agrees("top.qcow2");
        let parents = image.info().parents;
        assert_eq!(parents.len(), 2, "{format}: {parents:?}");
        fs::remove_file(fixture.path("mid.qcow2")).unwrap();
        fs::remove_file(fixture.path("top.qcow2")).unwrap();
    }
}

#[test]
fn backing_files_come_through_the_gate_only() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret.raw");
    fs::write(&secret, [5; 4096]).unwrap();
    let secret = secret.to_str().unwrap();
    fixture.qemu_img(&format!("create -q -f qcow2 -b {secret} -F raw c.qcow2"));
    let error = refusal(fixture.open("c.qcow2"));
    assert_eq!(error.kind(), ErrorKind::Parent, "{error}");
    assert!(error.to_string().contains("secret.raw"), "{error}");
    // Nor is anything opened without a gate, also beside the child.
    fixture.qemu_img("create -q -f qcow2 -b disk.raw -F raw d.qcow2");
    let error = refusal(image::open(
        fixture.path("d.qcow2"),
        &ImageOptions::default(),
    ));
    assert_eq!(error.kind(), ErrorKind::Parent);
    // The caller may name it.
    let named = FileGate::new().with_parent(secret);
    let options = ImageOptions::default().with_gate(Arc::new(named));
    let image = image::open(fixture.path("c.qcow2"), &options).unwrap();
    assert!(contents(&*image).unwrap() == [5; 4096]);
    // Of another name it is not what the image means.
    fs::rename(secret, outside.path().join("other.raw")).unwrap();
    let other = FileGate::new().with_parent(outside.path().join("other.raw"));
    let options = ImageOptions::default().with_gate(Arc::new(other));
    let error = refusal(image::open(fixture.path("c.qcow2"), &options));
    assert!(error.to_string().contains("has another name"), "{error}");
}

#[test]
fn a_backing_file_without_a_stated_format_is_never_probed() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    // A raw disk whose guest wrote the head of a qcow2 into it.
    fixture.qemu_img("create -q -f qcow2 guest.raw 1M");
    fixture.qemu_img("create -q -f qcow2 -u -b guest.raw -F raw c.qcow2 1M");
    // The header extension that states the format gets a type that nobody knows.
    let mut bytes = fs::read(fixture.path("c.qcow2")).unwrap();
    let states = bytes
        .windows(4)
        .position(|it| it == [0xE2, 0x79, 0x2A, 0xCA]);
    bytes[states.unwrap()] ^= 0xff;
    fs::write(fixture.path("c.qcow2"), bytes).unwrap();
    let error = refusal(fixture.open("c.qcow2"));
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn chains_end_at_the_limit_and_where_they_come_back() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    fixture.qemu_img("create -q -f qcow2 -u -b a.qcow2 -F qcow2 b.qcow2 1M");
    fixture.qemu_img("create -q -f qcow2 -u -b b.qcow2 -F qcow2 a.qcow2 1M");
    assert_eq!(
        refusal(fixture.open("a.qcow2")).kind(),
        ErrorKind::Malformed
    );
    fixture.qemu_img("create -q -f qcow2 0.qcow2 1M");
    for index in 1..5 {
        let below = index - 1;
        fixture.qemu_img(&format!(
            "create -q -f qcow2 -b {below}.qcow2 -F qcow2 {index}.qcow2"
        ));
    }
    let limited = |count| gate().with_limits(Limits::default().with_chain_count(count));
    image::open(fixture.path("4.qcow2"), &limited(4)).unwrap();
    let error = refusal(image::open(fixture.path("4.qcow2"), &limited(3)));
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn vmdk_images_read_as_qemu_reads_them() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    for subformat in [
        "monolithicSparse",
        "streamOptimized",
        "monolithicFlat",
        "twoGbMaxExtentFlat",
        "twoGbMaxExtentSparse",
    ] {
        fixture.qemu_img(&format!(
            "convert -f raw -O vmdk -o subformat={subformat} disk.raw d.vmdk"
        ));
        let image = fixture.agrees("d.vmdk");
        assert!(contents(&*image).unwrap() == disk(), "{subformat}");
        let info = image.info();
        assert_eq!(info.format, Format::Vmdk);
        assert!(info.layout == Layout::Flat || info.layout.name() == subformat);
        if !subformat.contains("Flat") {
            assert!(image.allocated_bytes().unwrap() < 3 * MIB as u64);
        }
        for name in ["d.vmdk", "d-flat.vmdk", "d-f001.vmdk", "d-s001.vmdk"] {
            let _ = fs::remove_file(fixture.path(name));
        }
    }
}

#[test]
fn the_files_of_a_vmdk_come_through_the_gate_only() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    fixture.qemu_img("convert -f raw -O vmdk -o subformat=monolithicFlat disk.raw d.vmdk");
    let error = refusal(image::open(
        fixture.path("d.vmdk"),
        &ImageOptions::default(),
    ));
    assert_eq!(error.kind(), ErrorKind::Parent, "{error}");
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("x.raw"), vec![1; LEN]).unwrap();
    let text = fs::read_to_string(fixture.path("d.vmdk")).unwrap();
    let x = outside.path().join("x.raw");
    let text = text.replace("d-flat.vmdk", x.to_str().unwrap());
    fs::write(fixture.path("d.vmdk"), text).unwrap();
    assert_eq!(refusal(fixture.open("d.vmdk")).kind(), ErrorKind::Parent);
    // A flat file that is too short is not filled up with zeros.
    fixture.qemu_img("convert -f raw -O vmdk -o subformat=monolithicFlat disk.raw e.vmdk");
    let flat = fs::File::options()
        .write(true)
        .open(fixture.path("e-flat.vmdk"));
    flat.unwrap().set_len(MIB as u64).unwrap();
    let error = refusal(contents(&*fixture.open("e.vmdk").unwrap()));
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
}

#[test]
fn what_a_vmdk_cannot_be_read_without_is_refused() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    fixture.qemu_img("convert -f raw -O vmdk disk.raw base.vmdk");
    fixture.qemu_img("create -q -f vmdk -b base.vmdk -F vmdk child.vmdk");
    let error = refusal(fixture.open("child.vmdk"));
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    // An extent shorter than its descriptor says, and one that is not there.
    fixture.qemu_img("convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse disk.raw s.vmdk");
    let text = fs::read_to_string(fixture.path("s.vmdk")).unwrap();
    let longer = text.replace("RW ", "RW 9");
    fs::write(fixture.path("s.vmdk"), longer).unwrap();
    let error = refusal(fixture.open("s.vmdk"));
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    assert_eq!(error.field(), Some("capacity"), "{error}");
    fs::write(fixture.path("s.vmdk"), text).unwrap();
    fs::remove_file(fixture.path("s-s001.vmdk")).unwrap();
    let error = refusal(fixture.open("s.vmdk"));
    assert_eq!(error.kind(), ErrorKind::Parent, "{error}");
}

#[test]
fn what_a_qcow2_cannot_be_read_without_is_refused() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    fixture.qemu_img(
        "create -q --object secret,id=s,data=x -f qcow2 \
         -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 e.qcow2 1M",
    );
    let error = refusal(fixture.open("e.qcow2"));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("encrypted"), "{error}");
    fixture.qemu_img("create -q -f qcow v1.qcow2 1M");
    let error = refusal(fixture.open("v1.qcow2"));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("version 1 of qcow"), "{error}");
    fixture.qemu_img("create -q -f qcow2 -o data_file=out.raw x.qcow2 1M");
    fixture.qemu_img("create -q -f qcow2 -o extended_l2=on,cluster_size=128k y.qcow2 1M");
    fixture.qemu_img("create -q -f qcow2 -o compression_type=zstd z.qcow2 1M");
    for (name, part) in [
        ("x.qcow2", "external data file"),
        ("y.qcow2", "extended L2"),
        ("z.qcow2", "zstd"),
    ] {
        let error = refusal(fixture.open(name));
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
        let text = error.to_string();
        assert!(
            text.contains(part) && text.contains("qemu-img convert"),
            "{text}"
        );
    }
    let limits = Limits::default().with_disk_bytes(MIB as u64);
    fixture.qemu_img("create -q -f qcow2 l.qcow2 2M");
    let error = refusal(image::open(
        fixture.path("l.qcow2"),
        &gate().with_limits(limits),
    ));
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn a_file_that_was_cut_short_is_never_read_as_zeros() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let seen = disk();
    for (made, name) in [
        ("qcow2 -o cluster_size=4k", "t.qcow2"),
        ("vmdk -o subformat=monolithicSparse", "t.vmdk"),
        ("vmdk -o subformat=streamOptimized", "t.vmdk"),
    ] {
        fixture.qemu_img(&format!("convert -f raw -O {made} disk.raw {name}"));
        let whole = fs::read(fixture.path(name)).unwrap();
        for part in 1..40 {
            let len = whole.len() / 40 * part;
            fs::write(fixture.path(name), &whole[..len]).unwrap();
            let read = fixture.open(name).and_then(|image| contents(&*image));
            let right = read.map_or(true, |bytes| bytes == seen);
            // The last cluster may lack what nobody wrote.
            assert!(right, "{made} cut to {len}");
        }
    }
}

#[test]
fn no_target_manifest_stands_for_an_image_that_may_lie_in_other_files_too() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    fixture.qemu_img("convert -f raw -O qcow2 disk.raw d.qcow2");
    let source = HostSource::open(fixture.path("d.qcow2"), &gate(), &SourceOptions::default());
    let cache = ManifestCache::open(fixture.path("cache")).unwrap();
    let cached = cache.look_up(&source.unwrap(), BlockSize::default());
    let cached = cached.unwrap();
    assert_eq!(cached.reason(), Some("it may lie in other files too"));
    assert!(cached.record().unwrap().is_none());
}

#[test]
fn foreign_formats_are_only_read() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    fixture.qemu_img("convert -f raw -O qcow2 disk.raw d.qcow2");
    let before = fs::read(fixture.path("d.qcow2")).unwrap();
    let storage = Arc::new(FileStorage::open_write(fixture.path("d.qcow2")).unwrap());
    for format in [Format::Qcow2, Format::Vmdk] {
        let error = refusal(image::open_storage_mut(storage.clone(), format, &gate()));
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    fixture.agrees("d.qcow2");
    assert!(fs::read(fixture.path("d.qcow2")).unwrap() == before);
    // What lies in memory has no path that could be opened a second time.
    let memory = Arc::new(MemoryStorage::new("memory", before));
    let error = refusal(image::open_storage(memory, Format::Qcow2, &gate()));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn spoiled_files_are_errors_or_disks_and_never_more(
        kind in 0usize..4,
        flips in prop::collection::vec((0usize..3 << 16, any::<u8>()), 1..6),
        head in prop::collection::vec((0usize..600, any::<u8>()), 0..3),
        cut in prop::option::of(0usize..1 << 20),
    ) {
        let Some(fixture) = Fixture::new() else { return Ok(()) };
        let small = &disk()[..MIB + 512];
        fs::write(fixture.path("disk.raw"), small).unwrap();
        let (made, name) = [
            ("qcow2", "f.qcow2"),
            ("qcow2 -c", "f.qcow2"),
            ("vmdk", "f.vmdk"),
            ("vmdk -o subformat=streamOptimized", "f.vmdk"),
        ][kind];
        fixture.qemu_img(&format!("convert -f raw -O {made} disk.raw {name}"));
        let mut bytes = fs::read(fixture.path(name)).unwrap();
        for (at, byte) in flips.into_iter().chain(head) {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.max(1));
        }
        fs::write(fixture.path(name), &bytes).unwrap();
        let limits = Limits::default().with_disk_bytes(64 << 20);
        let options = gate().with_limits(limits);
        if let Ok(image) = image::open(fixture.path(name), &options) {
            let mut at = 0;
            while let Ok(Some(extent)) = image.next_extent(at) {
                prop_assert!(extent.offset == at && extent.len > 0);
                at = extent.end();
            }
            prop_assert!(at <= image.disk_len());
            let _ = contents(&*image);
        }
    }
}

/// A sparse VMDK of one grain of 64 KiB that holds data, written byte by byte.
struct SparseFile {
    capacity: u64,
    descriptor: u64,
    text: String,
}

impl SparseFile {
    fn new() -> Self {
        SparseFile {
            capacity: 128 * 16,
            descriptor: 1,
            text: "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
                   createType=\"monolithicSparse\"\nRW 2048 SPARSE \"d.vmdk\"\n"
                .to_owned(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = vec![0; 256 * 512];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"KDMV");
        put(4, &1u32.to_le_bytes());
        put(8, &3u32.to_le_bytes());
        put(12, &self.capacity.to_le_bytes());
        put(20, &128u64.to_le_bytes());
        put(28, &self.descriptor.to_le_bytes());
        put(36, &20u64.to_le_bytes());
        put(44, &512u32.to_le_bytes());
        put(56, &21u64.to_le_bytes());
        put(64, &128u64.to_le_bytes());
        put(73, b"\n \r\n");
        put(512, self.text.as_bytes());
        // A directory of one table, whose first grain lies at sector 128.
        put(21 * 512, &22u32.to_le_bytes());
        put(22 * 512, &128u32.to_le_bytes());
        put(128 * 512, &[7; 128 * 512]);
        file
    }

    fn open(&self, name: &str) -> diskdelta::Result<Arc<dyn Image>> {
        let storage = Arc::new(MemoryStorage::new(name, self.bytes()));
        image::open_storage(storage, Format::Vmdk, &ImageOptions::default())
    }
}

#[test]
fn a_part_of_a_vmdk_is_not_taken_for_a_disk() {
    let image = SparseFile::new().open("d.vmdk").unwrap();
    assert_eq!(image.disk_len(), 1 << 20);
    let mut bytes = vec![1; 1 << 20];
    image.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..64 << 10].iter().all(|byte| *byte == 7));
    assert!(bytes[64 << 10..].iter().all(|byte| *byte == 0));

    let extent = SparseFile {
        descriptor: 0,
        ..SparseFile::new()
    };
    for (name, described_by) in [
        ("/vm/web-s001.vmdk", "web.vmdk"),
        ("/vm/web-000002-s003.vmdk", "web-000002.vmdk"),
        ("/vm/web-000001-delta.vmdk", "web-000001.vmdk"),
        ("/vm/other.vmdk", "short text"),
    ] {
        let error = refusal(extent.open(name));
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(described_by), "{error}");
    }
    let empty = SparseFile {
        text: String::new(),
        ..SparseFile::new()
    };
    assert_eq!(refusal(empty.open("d.vmdk")).kind(), ErrorKind::Unsupported);
    for more in [
        "RW 4192256 SPARSE \"d-s002.vmdk\"\n",
        "parentFileNameHint=\"base.vmdk\"\n",
        "ParentCID = 9d2c5680\n",
    ] {
        let mut part = SparseFile::new();
        part.text += more;
        let error = refusal(part.open("d.vmdk"));
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{more}: {error}");
    }
    let outside = SparseFile {
        descriptor: 1 << 40,
        ..SparseFile::new()
    };
    assert_eq!(refusal(outside.open("d.vmdk")).kind(), ErrorKind::Malformed);
}

/// Extents of all kinds in one disk, with the keys that VMware writes and one that it may write
/// some day.
#[test]
fn a_disk_of_many_extents_is_read_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let sparse = SparseFile {
        descriptor: 0,
        ..SparseFile::new()
    };
    fs::write(at("d-s002.vmdk"), sparse.bytes()).unwrap();
    fs::write(at("d f001.bin"), [vec![1; 512], vec![2; 1024]].concat()).unwrap();
    let text = "# Disk DescriptorFile\nversion=3\nencoding=\"windows-1252\"\nCID=1234abcd\n\
                parentCID=FFFFFFFF\nisNativeSnapshot=\"no\"\nsome.day = \"x\"\n\
                createType=\"custom\"\n\n# Extent description\n\
                RW 2 FLAT \"d f001.bin\" 1\nRW 129 SPARSE \"d-s002.vmdk\"\nRW 3 ZERO\n\
                RDONLY 1 FLAT \"d f001.bin\" 0\n\nddb.adapterType = \"lsilogic\"\n";
    fs::write(at("d.vmdk"), text).unwrap();
    let gated = ImageOptions::default().with_gate(Arc::new(FileGate::new()));
    let image = image::open(at("d.vmdk"), &gated).unwrap();
    let seen = contents(&*image).unwrap();
    let wanted = [
        vec![2; 1024],
        vec![7; 128 * 512],
        vec![0; 512 + 3 * 512],
        vec![1; 512],
    ]
    .concat();
    assert!(seen == wanted);
    check_extents(&*image, &seen);
    for (offset, len) in [
        (0, 1),
        (1023, 2),
        (1000, 66_000),
        (seen.len() as u64 - 513, 513),
    ] {
        let mut part = vec![9; len];
        image.read_exact_at(&mut part, offset).unwrap();
        assert!(
            part == seen[offset as usize..offset as usize + len],
            "{offset} {len}"
        );
    }
    let mut beyond = [0; 2];
    image
        .read_exact_at(&mut beyond, seen.len() as u64 - 1)
        .unwrap_err();
    assert_eq!(image.files().unwrap().len(), 4);

    // Limits hold for all extents together.
    let two = text.replace(
        "RW 3 ZERO",
        "RW 129 SPARSE \"d-s002.vmdk\"\nRW 129 SPARSE \"d-s002.vmdk\"",
    );
    fs::write(at("d.vmdk"), two).unwrap();
    let tight = gated
        .clone()
        .with_limits(Limits::default().with_table_bytes(8));
    let error = refusal(image::open(at("d.vmdk"), &tight));
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
    let many = format!("{}{}", text, "RW 1 ZERO\n".repeat(1100));
    fs::write(at("d.vmdk"), many).unwrap();
    let error = refusal(image::open(at("d.vmdk"), &gated));
    assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error}");
}

#[test]
fn what_is_given_as_a_descriptor_and_is_none_names_the_file_to_give() {
    let open = |name: &str, bytes: &[u8]| {
        let storage = Arc::new(MemoryStorage::new(name, bytes.to_vec()));
        let error = refusal(image::open_storage(
            storage,
            Format::Vmdk,
            &ImageOptions::default(),
        ));
        error.to_string()
    };
    let se_sparse = [&b"\xbe\xba\xfe\xca\0\0\0\0"[..], &[0; 4096]].concat();
    let said = open("/vm/web-000001-sesparse.vmdk", &se_sparse);
    assert!(
        said.contains("seSparse") && said.contains("web-000001.vmdk"),
        "{said}"
    );
    let flat = vec![0xfa; 3 << 20];
    let said = open("/vm/web-flat.vmdk", &flat);
    assert!(said.contains("name that file, web.vmdk"), "{said}");
    let said = open("/vm/web.vmdk", &flat);
    assert!(said.contains("short text"), "{said}");
    let long = [&b"# Disk DescriptorFile\n"[..], &flat].concat();
    assert!(open("/vm/web.vmdk", &long).contains("1 MiB"));
    assert!(open("/vm/web.vmdk", b"# D").contains("short text"));
}

#[test]
fn a_vmdk_of_no_bytes_is_refused() {
    let nothing = SparseFile {
        capacity: 0,
        ..SparseFile::new()
    };
    let error = refusal(nothing.open("d.vmdk"));
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert_eq!(error.field(), Some("capacity"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.vmdk");
    for extents in ["", "RW 0 FLAT \"d-flat.vmdk\" 0\n", "RW 0 ZERO\n"] {
        fs::write(directory.path().join("d-flat.vmdk"), "").unwrap();
        let text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n\
             createType=\"monolithicFlat\"\n\n# Extent description\n{extents}"
        );
        fs::write(&path, text).unwrap();
        let gated = ImageOptions::default().with_gate(Arc::new(FileGate::new()));
        refusal(image::open(&path, &gated));
    }
}

//! Differencing files: which bytes come from whom, and which parents are taken.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use diskdelta::image::vhd::format::{DiskKind, DynamicHeader, Footer, Locator, NOWHERE};
use diskdelta::image::{self, CreateFormat, FileGate, Format, Image, ImageOptions};
use diskdelta::storage::MemoryStorage;
use diskdelta::{Error, ErrorKind, ExtentKind, Result};

use crate::support::{contents, dynamic_with, new_image, open_mut, pattern, refusal};

const BLOCK: usize = 4096;
const LEN: usize = 5 * BLOCK - 512;

/// What a child file is made of.
struct Child {
    id: u8,
    parent: u8,
    len: usize,
    name: &'static str,
    locators: Vec<([u8; 4], Vec<u8>)>,
    /// Block index, bitmap's first byte, payload.
    blocks: Vec<(usize, u8, Vec<u8>)>,
}

impl Child {
    fn new(id: u8, parent: u8) -> Self {
        Child {
            id,
            parent,
            len: LEN,
            name: "parent.vhd",
            locators: Vec::new(),
            blocks: vec![
                (1, 0xff, pattern(BLOCK, id)),
                (3, 0b0101_1001, pattern(BLOCK, id)),
            ],
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let footer = with_id(footer(self.len, DiskKind::Differencing, 512), self.id).encode();
        let mut header = header(self.len);
        header.parent_id = [self.parent; 16];
        for (at, unit) in self.name.encode_utf16().enumerate() {
            header.parent_name[2 * at..2 * at + 2].copy_from_slice(&unit.to_be_bytes());
        }
        let mut bytes = vec![0; 2048];
        for (slot, (platform, payload)) in header.locators.iter_mut().zip(&self.locators) {
            *slot = Locator {
                platform: *platform,
                space: 512,
                len: payload.len() as u32,
                reserved: 0,
                offset: bytes.len() as u64,
            };
            bytes.extend(payload);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes[1536..2048].fill(0xff);
        for (index, bits, payload) in &self.blocks {
            let sector = (bytes.len() / 512) as u32;
            bytes[1536 + 4 * index..][..4].copy_from_slice(&sector.to_be_bytes());
            let mut bitmap = vec![0; 512];
            bitmap[0] = *bits;
            bytes.extend(bitmap);
            bytes.extend(payload);
        }
        bytes[..512].copy_from_slice(&footer);
        bytes[512..1536].copy_from_slice(&header.encode());
        bytes.extend(footer);
        bytes
    }

    /// The disk's bytes over the parent's.
    fn over(&self, parent: &[u8]) -> Vec<u8> {
        let mut disk = parent.to_vec();
        for (index, bits, payload) in &self.blocks {
            for sector in 0..BLOCK / 512 {
                let at = index * BLOCK + sector * 512;
                if bits & (0x80 >> sector) != 0 && at < disk.len() {
                    disk[at..at + 512].copy_from_slice(&payload[sector * 512..][..512]);
                }
            }
        }
        disk
    }
}

fn header(len: usize) -> DynamicHeader {
    let bytes = dynamic_with(len as u64, &[]);
    DynamicHeader::decode(bytes[512..1536].try_into().unwrap(), 512, false).unwrap()
}

fn footer(len: usize, kind: DiskKind, data_offset: u64) -> Footer {
    let bytes = dynamic_with(len as u64, &[]);
    let mut footer = Footer::decode(bytes[..512].try_into().unwrap(), 0, false).unwrap();
    footer.kind = kind;
    footer.data_offset = data_offset;
    footer
}

fn with_id(mut footer: Footer, id: u8) -> Footer {
    footer.unique_id = [id; 16];
    footer
}

/// A fixed parent with the given id and contents.
fn fixed_parent(id: u8, contents: &[u8]) -> Vec<u8> {
    let footer = with_id(footer(contents.len(), DiskKind::Fixed, NOWHERE), id);
    [contents, &footer.encode()[..]].concat()
}

fn open(path: &Path) -> Result<Arc<dyn Image>> {
    let options = ImageOptions::default().with_gate(Arc::new(FileGate::new()));
    image::open(path, &options)
}

fn kind(result: Result<Arc<dyn Image>>) -> (ErrorKind, Error) {
    let error = refusal(result);
    (error.kind(), error)
}

#[test]
fn a_chain_reads_each_sector_from_the_youngest_image_that_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let base = pattern(LEN, 100);
    fs::write(file("parent.vhd"), fixed_parent(1, &base)).unwrap();
    let mut middle = Child::new(2, 1);
    middle.blocks.push((4, 0xff, pattern(BLOCK, 9)));
    fs::write(file("middle.avhd"), middle.bytes()).unwrap();
    let mut young = Child::new(3, 2);
    young.name = r"D:\vms\middle.avhd";
    young.blocks = vec![(3, 0b1000_0001, pattern(BLOCK, 50)), (0, 0, vec![0; BLOCK])];
    fs::write(file("young.vhd"), young.bytes()).unwrap();

    let meant = middle.over(&base);
    assert!(contents(&*open(&file("middle.avhd")).unwrap()).unwrap() == meant);
    let image = open(&file("young.vhd")).unwrap();
    assert!(contents(&*image).unwrap() == young.over(&meant));
    let info = image.info();
    assert_eq!(info.layout.name(), "differencing");
    assert_eq!(info.parents.len(), 2);
    assert_eq!(image.allocated_bytes().unwrap(), 2 * BLOCK as u64);
}

/// XenServer grows a leaf after its snapshot: libvhd reads zeros beyond the parent's end.
#[test]
fn a_child_that_was_grown_has_zeros_beyond_its_parent() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let short = 2 * BLOCK + 512;
    let base = pattern(short, 100);
    // Over a fixed parent, and over a dynamic one whose last block is longer than its disk.
    fs::write(file("parent.vhd"), fixed_parent(1, &base)).unwrap();
    let mut middle = Child::new(2, 1);
    middle.len = short;
    middle.blocks = vec![(2, 0xff, pattern(BLOCK, 9))];
    fs::write(file("middle.avhd"), middle.bytes()).unwrap();
    let mut over_fixed = Child::new(3, 1);
    over_fixed.blocks = vec![(2, 0b0100_0001, pattern(BLOCK, 50))];
    let mut over_dynamic = Child::new(4, 2);
    over_dynamic.name = "middle.avhd";
    over_dynamic.blocks = vec![(4, 0b0100_0000, pattern(BLOCK, 51))];
    for (child, parent) in [
        (over_fixed, base.clone()),
        (over_dynamic, middle.over(&base)),
    ] {
        fs::write(file("child.vhd"), child.bytes()).unwrap();
        let image = open(&file("child.vhd")).unwrap();
        let mut grown = parent;
        grown.resize(LEN, 0);
        let wanted = child.over(&grown);
        assert!(contents(&*image).unwrap() == wanted);
        assert!(
            image
                .info()
                .warnings
                .iter()
                .any(|it| it.contains("the parent has"))
        );
        let mut at = 0;
        while let Some(extent) = image.next_extent(at).unwrap() {
            let range = extent.offset as usize..extent.end() as usize;
            let zeros = wanted[range].iter().all(|byte| *byte == 0);
            assert!(extent.kind == ExtentKind::Data || zeros, "{extent:?}");
            at = extent.end();
        }
        assert_eq!(at, LEN as u64);
    }
    // The other way round something would be lost.
    let mut shrunk = Child::new(5, 1);
    shrunk.len = short - 512;
    shrunk.blocks.clear();
    fs::write(file("child.vhd"), shrunk.bytes()).unwrap();
    assert_eq!(kind(open(&file("child.vhd"))).0, ErrorKind::Parent);
}

#[test]
fn what_neither_child_nor_dynamic_parent_holds_is_one_zero_extent() {
    let directory = tempfile::tempdir().unwrap();
    let storage = new_image(CreateFormat::VhdDynamic, 1 << 30, None);
    let id = storage.to_vec()[68..84].to_vec();
    fs::write(directory.path().join("parent.vhd"), storage.to_vec()).unwrap();
    let mut child = Child::new(2, 0);
    child.blocks.clear();
    child.len = 1 << 30;
    let mut bytes = child.bytes();
    // Blocks of 2 MiB, as the parent's table has room for; the table here is one sector.
    let mut header = header(LEN);
    header.block_bytes = 16 << 20;
    header.max_table_entries = 64;
    header.parent_id.copy_from_slice(&id);
    header.parent_name[1] = b'p';
    header.locators[0] = Locator {
        platform: *b"W2ru",
        space: 512,
        len: 20,
        reserved: 0,
        offset: 2048,
    };
    bytes[512..1536].copy_from_slice(&header.encode());
    let tail = bytes.split_off(2048);
    bytes.extend("parent.vhd".encode_utf16().flat_map(u16::to_le_bytes));
    bytes.resize(2560, 0);
    bytes.extend(tail);
    fs::write(directory.path().join("child.vhd"), bytes).unwrap();
    let image = open(&directory.path().join("child.vhd")).unwrap();
    let extent = image.next_extent(0).unwrap().unwrap();
    assert_eq!(extent, diskdelta::Extent::zero(0..1 << 30));
}

#[test]
fn a_parent_must_have_the_id_and_the_length_that_the_child_states() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    fs::write(file("child.vhd"), Child::new(2, 1).bytes()).unwrap();
    let child = file("child.vhd");

    let (found, error) = kind(open(&child));
    assert_eq!(found, ErrorKind::Parent);
    assert!(error.to_string().contains("01010101"), "{error}");

    fs::write(file("parent.vhd"), fixed_parent(7, &[0; LEN])).unwrap();
    let (found, error) = kind(open(&child));
    assert_eq!(found, ErrorKind::Parent);
    assert!(error.to_string().contains("has id 07070707"), "{error}");

    fs::write(file("parent.vhd"), b"no disk at all").unwrap();
    let (found, error) = kind(open(&child));
    assert_eq!(found, ErrorKind::Parent);
    assert!(error.to_string().contains("is no VHD"), "{error}");

    fs::write(file("parent.vhd"), fixed_parent(1, &[0; LEN + 512])).unwrap();
    let (found, error) = kind(open(&child));
    assert_eq!(found, ErrorKind::Parent);
    assert_eq!(error.field(), Some("current size"), "{error}");

    // The right one may lie elsewhere if the caller says so, and is found among others.
    let away = tempfile::tempdir().unwrap();
    fs::write(away.path().join("x"), fixed_parent(1, &[3; LEN])).unwrap();
    let gate = FileGate::new()
        .with_parent(file("parent.vhd"))
        .with_parent(away.path().join("x"));
    fs::write(file("parent.vhd"), fixed_parent(7, &[0; LEN])).unwrap();
    let options = ImageOptions::default().with_gate(Arc::new(gate));
    let image = image::open(&child, &options).unwrap();
    assert!(contents(&*image).unwrap() == Child::new(2, 1).over(&[3; LEN]));
}

#[test]
fn chains_that_come_back_to_themselves_end() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    fs::write(
        file("own.vhd"),
        Child {
            name: "own.vhd",
            ..Child::new(2, 2)
        }
        .bytes(),
    )
    .unwrap();
    fs::write(
        file("a.vhd"),
        Child {
            name: "b.vhd",
            ..Child::new(2, 3)
        }
        .bytes(),
    )
    .unwrap();
    fs::write(
        file("b.vhd"),
        Child {
            name: "a.vhd",
            ..Child::new(3, 2)
        }
        .bytes(),
    )
    .unwrap();
    // A file is not offered as its own parent; one under another name is found out.
    assert_eq!(kind(open(&file("own.vhd"))).0, ErrorKind::Parent);
    assert_eq!(kind(open(&file("a.vhd"))).0, ErrorKind::Malformed);
    fs::copy(file("own.vhd"), file("copy.vhd")).unwrap();
    let gate = FileGate::new().with_parent(file("copy.vhd"));
    let options = ImageOptions::default().with_gate(Arc::new(gate));
    assert_eq!(
        kind(image::open(file("own.vhd"), &options)).0,
        ErrorKind::Malformed
    );
}

#[test]
fn a_chain_may_be_as_long_as_the_limit_and_no_longer() {
    let directory = tempfile::tempdir().unwrap();
    let file = |id: u8| directory.path().join(format!("{id}.vhd"));
    let path: fn(u8) -> Vec<u8> = |id| {
        let path = format!(r".\{id}.vhd");
        path.encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    fs::write(file(0), fixed_parent(0, &pattern(LEN, 0))).unwrap();
    for id in 1..=6 {
        let mut child = Child::new(id, id - 1);
        child.locators = vec![(*b"W2ru", path(id - 1))];
        fs::write(file(id), child.bytes()).unwrap();
    }
    let options = |count| {
        let limits = diskdelta::Limits::default().with_chain_count(count);
        ImageOptions::default()
            .with_gate(Arc::new(FileGate::new()))
            .with_limits(limits)
    };
    image::open(file(6), &options(6)).unwrap();
    let error = refusal(image::open(file(6), &options(5)));
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn the_tables_of_a_chain_are_held_to_one_limit() {
    let directory = tempfile::tempdir().unwrap();
    let file = |id: u8| directory.path().join(format!("{id}.vhd"));
    fs::write(file(0), fixed_parent(0, &pattern(LEN, 0))).unwrap();
    for id in 1..=6 {
        let mut child = Child::new(id, id - 1);
        let name: Vec<u16> = format!(r".\{}.vhd", id - 1).encode_utf16().collect();
        let path = name.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        child.locators = vec![(*b"W2ru", path)];
        fs::write(file(id), child.bytes()).unwrap();
    }
    let opened = |id, table_bytes| {
        let limits = diskdelta::Limits::default().with_table_bytes(table_bytes);
        let options = ImageOptions::default()
            .with_gate(Arc::new(FileGate::new()))
            .with_limits(limits);
        image::open(file(id), &options)
    };
    let one = (0..100).find(|bytes| opened(1, *bytes).is_ok()).unwrap();
    assert!(one > 0);
    opened(6, 6 * one).unwrap();
    let error = refusal(opened(6, 6 * one - 1));
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn the_cost_of_extents_does_not_multiply_along_a_chain() {
    let directory = tempfile::tempdir().unwrap();
    let file = |id: u8| directory.path().join(format!("{id}.vhd"));
    fs::write(file(0), fixed_parent(0, &pattern(LEN, 0))).unwrap();
    for id in 1..=40 {
        let mut child = Child::new(id, id - 1);
        // Blocks that are there and hold nothing, so that each image asks the next about each.
        child.blocks = (0..5).map(|index| (index, 0, vec![0; BLOCK])).collect();
        let name: Vec<u16> = format!(r".\{}.vhd", id - 1).encode_utf16().collect();
        let path = name.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        child.locators = vec![(*b"W2ru", path)];
        fs::write(file(id), child.bytes()).unwrap();
    }
    let image = open(&file(40)).unwrap();
    assert!(contents(&*image).unwrap() == pattern(LEN, 0));
}

#[test]
fn locators_full_of_nonsense_are_no_more_than_useless() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let base = pattern(LEN, 1);
    fs::write(file("parent.vhd"), fixed_parent(1, &base)).unwrap();
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut child = Child::new(2, 1);
    child.name = "";
    child.locators = vec![
        (*b"Wi2r", b"parent.vhd".to_vec()),
        (*b"W2ru", vec![0x00, 0xd8, 0x41]),
        (*b"W2ku", utf16(r"\\?\GLOBALROOT\Device\parent.vhd")),
        (*b"W2ru", utf16(r"..\..\..\etc\passwd")),
        (*b"MacX", b"file:///etc/\xff\xfe".to_vec()),
        (*b"????", b"x".to_vec()),
    ];
    let mut bytes = child.bytes();
    fs::write(file("child.vhd"), &bytes).unwrap();
    let image = open(&file("child.vhd")).unwrap();
    assert!(contents(&*image).unwrap() == child.over(&base));

    // Places outside the file and lengths beyond all bounds.
    for (len, offset) in [(u32::MAX, 0), (100, u64::MAX - 10), (16, 1 << 50)] {
        let mut header = DynamicHeader::decode(bytes[512..1536].try_into().unwrap(), 0, false);
        let header = header.as_mut().unwrap();
        header.locators[5].len = len;
        header.locators[5].offset = offset;
        bytes[512..1536].copy_from_slice(&header.encode());
        fs::write(file("child.vhd"), &bytes).unwrap();
        let image = open(&file("child.vhd")).unwrap();
        assert!(contents(&*image).unwrap() == child.over(&base));
    }
    // A path that lies in a block is a file that contradicts itself.
    let mut header = DynamicHeader::decode(bytes[512..1536].try_into().unwrap(), 0, false).unwrap();
    header.locators[5].len = 600;
    header.locators[5].offset = bytes.len() as u64 - 2000;
    bytes[512..1536].copy_from_slice(&header.encode());
    fs::write(file("child.vhd"), &bytes).unwrap();
    assert_eq!(kind(open(&file("child.vhd"))).0, ErrorKind::Malformed);
}

#[test]
fn a_differencing_file_is_not_written() {
    let storage = Arc::new(MemoryStorage::new("child.vhd", Child::new(2, 1).bytes()));
    assert_eq!(refusal(open_mut(&storage)).kind(), ErrorKind::Unsupported);
    let read = image::open_storage(storage, Format::Vhd, &ImageOptions::default());
    assert_eq!(refusal(read).kind(), ErrorKind::Parent);
}

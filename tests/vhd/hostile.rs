//! Files that lie: each is refused with the field named, or read the one safe way.

use std::sync::Arc;

use diskdelta::image::{self, CreateFormat, ImageOptions, SizePolicy};
use diskdelta::storage::MemoryStorage;
use diskdelta::{ErrorKind, Limits};
use proptest::prelude::*;

use crate::support::{
    Forge, contents, dynamic_with, lenient, new_image, open_bytes, open_mut, open_with, pattern,
    refusal, seal,
};

const LEN: u64 = 10 * 4096;
/// The data offset of a fixed disk.
const NOWHERE: u64 = u64::MAX;

/// Ten blocks of 4 KiB; the second, fifth and sixth hold something.
fn dynamic() -> Forge {
    let (a, b) = (pattern(4096, 1), pattern(5000, 2));
    Forge(dynamic_with(LEN, &[(4096, &a), (4 * 4096, &b)]))
}

fn fixed(len: u64, bytes: &[u8]) -> Forge {
    let storage = new_image(CreateFormat::VhdFixed, len, None);
    open_mut(&storage).unwrap().write_all_at(bytes, 0).unwrap();
    Forge(storage.to_vec())
}

/// The table's entry of a block.
fn entry(forge: &Forge, index: usize) -> u32 {
    let at = 1536 + 4 * index;
    u32::from_be_bytes(forge.0[at..at + 4].try_into().unwrap())
}

fn refused(forge: &Forge, field: &str) {
    let error = refusal(forge.open());
    assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    assert_eq!(error.field(), Some(field), "{error}");
    assert!(
        error.path().is_some() && error.offset().is_some(),
        "{error}"
    );
}

fn warns(forge: &Forge, options: &ImageOptions, warning: &str, meant: &[u8]) {
    let image = open_with(forge.0.clone(), options).unwrap();
    let warnings = image.info().warnings;
    assert!(
        warnings.iter().any(|it| it.contains(warning)),
        "{warnings:?}"
    );
    assert!(contents(&*image).unwrap() == meant);
}

fn meant(forge: &Forge) -> Vec<u8> {
    contents(&*forge.open().unwrap()).unwrap()
}

#[test]
fn a_damaged_copy_at_the_head_is_passed_over_and_mended_by_the_next_write() {
    let good = dynamic();
    for bytes in [&b"Conectix"[..], &[0; 512], &[0xff; 512]] {
        let damaged = good.clone().put(0, bytes);
        let strict = ImageOptions::default();
        warns(&damaged, &strict, "copy at the head", &meant(&good));
        let storage = Arc::new(MemoryStorage::new("x", damaged.0));
        let image = open_mut(&storage).unwrap();
        image.write_all_at(&[1], 0).unwrap();
        image.sync().unwrap();
        assert_eq!(storage.to_vec()[..512], good.0[..512]);
    }
}

#[test]
fn a_dynamic_file_without_its_footer_is_read_by_the_copy_at_its_head() {
    let good = dynamic();
    let meant = meant(&good);
    let end = good.tail();
    let mut cut = good.clone();
    cut.0.truncate(end);
    let mut odd = good.clone();
    odd.0.extend([7; 1000]);
    for forge in [cut, odd, good.clone().put(end, &[0; 512])] {
        let strict = ImageOptions::default();
        warns(&forge, &strict, "no footer at the end", &meant);
        // Writing gives it a footer at the end again.
        let storage = Arc::new(MemoryStorage::new("x", forge.0));
        let image = open_mut(&storage).unwrap();
        image.write_all_at(&[9; 10], 0).unwrap();
        image.sync().unwrap();
        drop(image);
        let bytes = storage.to_vec();
        assert_eq!(bytes[bytes.len() - 512..], bytes[..512]);
        let mut meant = meant.clone();
        meant[..10].fill(9);
        let image = open_bytes(bytes).unwrap();
        assert!(image.info().warnings.is_empty());
        assert!(contents(&*image).unwrap() == meant);
    }
}

#[test]
fn a_footer_and_a_copy_that_disagree_are_refused_unless_read_leniently() {
    let good = dynamic();
    let rows: [(usize, &[u8], &str); 4] = [
        (48, &(LEN - 512).to_be_bytes(), "current size"),
        (60, &2u32.to_be_bytes(), "disk type"),
        (68, &[9; 16], "unique id"),
        (16, &513u64.to_be_bytes(), "data offset"),
    ];
    for (at, bytes, field) in rows {
        let head = good.clone().put(at, bytes).seal();
        refused(&head, field);
        warns(&head, &lenient(), field, &meant(&good));
        refusal(open_mut(&Arc::new(MemoryStorage::new("x", head.0))));
    }
    // What no reading depends on may differ.
    let stamp = good.clone().put(24, &[0; 4]).seal();
    assert!(meant(&stamp) == meant(&good));
}

#[test]
fn the_guests_bytes_at_the_head_of_a_fixed_disk_are_never_a_header() {
    let forged = dynamic();
    let disk = fixed(64 * 512, &forged.0[..16 * 512]);
    let image = disk.open().unwrap();
    assert_eq!(image.info().layout.name(), "fixed");
    assert!(contents(&*image).unwrap()[..16 * 512] == forged.0[..16 * 512]);
    // Neither when the real footer is damaged: then nothing is read at all.
    let tail = disk.tail();
    refused(&disk.clone().put(tail + 200, &[1]), "checksum");
    let read = disk.clone().put(tail + 200, &[1]).open_leniently().unwrap();
    assert_eq!(read.info().layout.name(), "fixed");
    // Nor may a last block that ends like a fixed disk's footer turn a dynamic file into one.
    let mut grown = dynamic();
    grown.0.truncate(grown.tail());
    grown.0.extend(&fixed(4096, &[]).0[4096..]);
    refused(&grown, "disk type");
}

#[test]
fn a_fixed_footer_over_the_layout_of_a_dynamic_file_is_refused() {
    let good = dynamic();
    let tail = good.tail();
    let fixed_kind = 2u32.to_be_bytes();
    let fits = (tail as u64).to_be_bytes();
    let anywhere = NOWHERE.to_be_bytes();
    // Footer and copy, with the length that they had or that of the file; and a copy that still
    // says dynamic, or points where the footer does not.
    let both = good.clone().footers(60, &fixed_kind);
    let longer = both.clone().footers(48, &fits);
    let tail_only = good.clone().put(tail + 60, &fixed_kind).seal();
    let tail_fits = tail_only.clone().put(tail + 48, &fits).seal();
    let head_points = tail_fits.clone().put(tail + 16, &anywhere).seal();
    let both_point = longer.clone().put(tail + 16, &anywhere).seal();
    let no_head = longer.clone().put(0, &[0; 512]);
    for forge in [
        both,
        longer,
        tail_only,
        tail_fits,
        head_points,
        both_point,
        no_head,
    ] {
        refused(&forge, "disk type");
    }
    // The other way round there is no header where one has to be.
    let disk = fixed(64 * 512, &[7; 512]);
    let end = disk.tail();
    for kind in [3u32, 4] {
        for at in [NOWHERE, 512, 0] {
            let forge = disk.clone().put(end + 60, &kind.to_be_bytes());
            let forge = forge.put(end + 16, &at.to_be_bytes());
            let mut bytes = forge.0;
            seal(&mut bytes[end..], 64);
            assert_eq!(refusal(Forge(bytes).open()).kind(), ErrorKind::Malformed);
        }
    }
}

#[test]
fn a_fixed_disk_of_no_bytes_in_a_file_that_holds_some_is_refused() {
    let disk = fixed(64 * 512, &[7; 512]);
    let end = disk.tail();
    let mut bytes = disk.put(end + 48, &[0; 8]).0;
    seal(&mut bytes[end..], 64);
    refused(&Forge(bytes), "current size");
    let empty = fixed(0, &[]);
    assert_eq!(empty.open().unwrap().disk_len(), 0);
}

#[test]
fn fixed_disks_may_be_longer_than_a_table_could_say() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("long.vhd");
    let long: u64 = 3 << 40;
    let file = diskdelta::storage::FileStorage::create_new(&path).unwrap();
    let file: Arc<dyn diskdelta::storage::Storage> = Arc::new(file);
    let options = image::CreateOptions::new(CreateFormat::VhdFixed, long);
    image::create(&*file, &options).unwrap();
    let image = image::open_storage_mut(file.clone(), image::Format::Vhd, &ImageOptions::default());
    let image = image.unwrap();
    assert_eq!(image.disk_len(), long);
    assert!(image.info().warnings.iter().any(|it| it.contains("QEMU")));
    let last = long - 4096;
    image.write_all_at(&[7; 4096], last).unwrap();
    let mut bytes = [0; 4096];
    image.read_exact_at(&mut bytes, last).unwrap();
    assert_eq!(bytes, [7; 4096]);
    image.set_disk_len(long + (1 << 30)).unwrap();
    image.set_disk_len(1 << 30).unwrap();
    // What neither kind can be.
    for (kind, len) in [
        (CreateFormat::VhdFixed, (64 << 40) + 512),
        (CreateFormat::VhdDynamic, (2040 << 30) + 512),
    ] {
        let storage = MemoryStorage::new("x", Vec::new());
        let error = refusal(image::create(
            &storage,
            &image::CreateOptions::new(kind, len),
        ));
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn a_head_that_says_fixed_does_not_stand_in_for_a_footer() {
    let good = dynamic();
    let tail = good.tail();
    let head_only = good.put(tail, &[0; 512]).put(60, &2u32.to_be_bytes());
    let mut bytes = head_only.0;
    seal(&mut bytes[..512], 64);
    refused(&Forge(bytes), "cookie");
}

#[test]
fn a_differencing_file_without_its_parent_is_an_error_not_half_a_disk() {
    let child = dynamic().footers(60, &4u32.to_be_bytes());
    assert_eq!(refusal(child.open()).kind(), ErrorKind::Parent);
    let storage = Arc::new(MemoryStorage::new("x", child.0));
    let error = refusal(open_mut(&storage));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!error.advice().is_empty());
}

#[test]
fn blocks_that_share_bytes_with_anything_are_refused() {
    let good = dynamic();
    let (first, second) = (entry(&good, 1), entry(&good, 4));
    let end = (good.0.len() / 512) as u32;
    let bad = [
        first,
        first + 1,
        first + 8,
        second - 1,
        0,
        1,
        2,
        3,
        end - 1,
        end - 9,
        end,
        0x7fff_ffff,
        0xffff_fffe,
    ];
    for sector in bad {
        refused(&good.clone().entry(0, sector), "table entry");
    }
}

#[test]
fn a_table_is_read_as_far_as_the_disk_goes_and_must_reach_that_far() {
    let good = dynamic();
    let huge = good.clone().header(28, &0x1fff_ffffu32.to_be_bytes());
    assert!(meant(&huge) == meant(&good));
    refused(
        &good.clone().header(28, &9u32.to_be_bytes()),
        "max table entries",
    );
    // Growing such a disk stops at what is really there.
    let storage = Arc::new(MemoryStorage::new("x", huge.0));
    let image = open_mut(&storage).unwrap();
    let error = refusal(image.set_disk_len(1 << 30));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!error.advice().is_empty());
    assert_eq!(image.disk_len(), LEN);

    let limits = Limits::default().with_table_bytes(36);
    let error = refusal(open_with(
        good.0.clone(),
        &ImageOptions::default().with_limits(limits),
    ));
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    let limits = Limits::default().with_disk_bytes(LEN - 1);
    let error = refusal(open_with(
        good.0,
        &ImageOptions::default().with_limits(limits),
    ));
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn a_table_of_tiny_blocks_is_refused_before_memory_is_taken_for_it() {
    let forge = dynamic()
        .header(32, &512u32.to_be_bytes())
        .header(28, &u32::MAX.to_be_bytes())
        .footers(48, &(2040u64 << 30).to_be_bytes());
    refused(&forge, "table offset");
    // A file that is long enough costs nobody anything: all holes.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse.vhd");
    std::fs::write(&path, &forge.0[..1536]).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(20 << 30).unwrap();
    let error = refusal(image::open(&path, &ImageOptions::default()));
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert_eq!(error.field(), Some("block size"));
}

#[test]
fn block_sizes_that_are_no_power_of_two_or_out_of_range_are_refused() {
    for size in [0, 1, 256, 3 << 20, 4096 + 512, 512 << 20, 1 << 31, u32::MAX] {
        let forge = dynamic().header(32, &size.to_be_bytes());
        refused(&forge, "block size");
    }
}

#[test]
fn disk_lengths_beyond_the_format_are_refused() {
    for len in [1 << 63, u64::MAX, LEN + 1, (2040 << 30) + 512] {
        refused(&dynamic().footers(48, &len.to_be_bytes()), "current size");
    }
    // As long as the format allows, but longer than the table.
    let longest = dynamic().footers(48, &(2040u64 << 30).to_be_bytes());
    refused(&longest, "max table entries");
}

#[test]
fn structures_outside_the_file_or_in_each_other_are_refused() {
    let good = dynamic();
    let len = good.0.len() as u64;
    for at in [
        0,
        511,
        len - 512,
        len - 1023,
        len,
        1 << 63,
        u64::MAX - 100,
        u64::MAX,
    ] {
        let forge = good.clone().footers(16, &at.to_be_bytes());
        refused(&forge, "data offset");
    }
    for at in [1537, len - 512, len, u64::MAX - 511, u64::MAX] {
        let forge = good.clone().header(16, &at.to_be_bytes());
        refused(&forge, "table offset");
    }
    for at in [0u64, 512, 1024] {
        let error = refusal(good.clone().header(16, &at.to_be_bytes()).open());
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.to_string().contains("overlap"), "{error}");
    }
    let elsewhere = good.clone().footers(16, &1536u64.to_be_bytes());
    refused(&elsewhere, "header cookie");
}

#[test]
fn bytes_that_the_bitmap_hides_are_an_error_or_zeros_as_the_caller_says() {
    let good = dynamic();
    let bitmap = entry(&good, 1) as usize * 512;
    // The block's third sector was never written, says the bitmap.
    let forge = good.clone().put(bitmap, &[0b1101_1111]);
    let image = forge.open().unwrap();
    let mut buf = [0; 512];
    image.read_exact_at(&mut buf, 4096 + 512).unwrap();
    let error = refusal(image.read_exact_at(&mut buf, 4096 + 1000));
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert_eq!(error.field(), Some("sector bitmap"));
    assert_eq!(error.offset(), Some(bitmap as u64 + 512 + 1024));
    let mut zeroed = meant(&good);
    zeroed[4096 + 1024..4096 + 1536].fill(0);
    assert!(contents(&*forge.open_leniently().unwrap()).unwrap() == zeroed);

    // Nobody writes into such a block: whatever it meant would change.
    let storage = Arc::new(MemoryStorage::new("x", forge.0.clone()));
    let image = open_mut(&storage).unwrap();
    refusal(image.write_all_at(&[1], 4096));
    assert_eq!(storage.to_vec(), forge.0);
}

#[test]
fn cleared_bits_over_zeros_are_set_before_the_block_is_written() {
    let good = dynamic();
    let bitmap = entry(&good, 1) as usize * 512;
    let mut forge = good.clone().put(bitmap, &[0b1101_1111]);
    forge.0[bitmap + 512 + 1024..bitmap + 512 + 1536].fill(0);
    let mut meant = meant(&forge);
    let storage = Arc::new(MemoryStorage::new("x", forge.0));
    let image = open_mut(&storage).unwrap();
    image.write_all_at(&[1, 2, 3], 4096 + 1100).unwrap();
    meant[4096 + 1100..4096 + 1103].copy_from_slice(&[1, 2, 3]);
    assert_eq!(storage.to_vec()[bitmap], 0xff);
    assert!(contents(&*image).unwrap() == meant);
}

#[test]
fn a_footer_of_511_bytes_is_a_footer() {
    let mut disk = fixed(4096, &[5; 4096]);
    disk.0.pop();
    warns(&disk, &ImageOptions::default(), "511", &[5; 4096]);
    let whole = dynamic();
    let mut short = whole.clone();
    short.0.pop();
    let strict = ImageOptions::default();
    warns(&short, &strict, "511", &meant(&whole));
    // Writing leaves a whole one.
    for forge in [disk, short] {
        let mut meant = meant(&forge);
        let storage = Arc::new(MemoryStorage::new("x", forge.0));
        let image = open_mut(&storage).unwrap();
        image.write_all_at(&[6; 4], 100).unwrap();
        image.set_disk_len(2048).unwrap();
        image.sync().unwrap();
        meant[100..104].fill(6);
        let image = open_bytes(storage.to_vec()).unwrap();
        assert!(image.info().warnings.is_empty());
        assert!(contents(&*image).unwrap() == meant[..2048]);
    }
}

#[test]
fn a_fixed_disk_fills_its_file() {
    let disk = fixed(4096, &[5; 4096]);
    let mut cut = disk.clone();
    cut.0.drain(..512);
    refused(&cut, "current size");
    let mut longer = disk.clone();
    longer.0.splice(4096..4096, [0; 512]);
    let strict = ImageOptions::default();
    warns(
        &longer,
        &strict,
        "between the disk and the footer",
        &[5; 4096],
    );
}

#[test]
fn the_size_policy_chooses_between_bytes_and_geometry() {
    // 120/4/17, as Windows writes for 4 MiB, is 8160 of 8192 sectors.
    let (bytes, chs) = (4 << 20, 8160 * 512);
    let windows = fixed(bytes, &[1]);
    let tail = windows.tail();
    let seal_tail = |mut forge: Forge| {
        seal(&mut forge.0[tail..], 64);
        forge
    };
    let virtual_pc = seal_tail(windows.clone().put(tail + 28, b"vpc "));
    let saturated = seal_tail(virtual_pc.clone().put(tail + 56, &[0xff, 0xff, 16, 255]));
    let rows = [
        (&windows, SizePolicy::CurrentSize, bytes),
        (&windows, SizePolicy::QemuCompat, bytes),
        (&windows, SizePolicy::Chs, chs),
        (&virtual_pc, SizePolicy::CurrentSize, bytes),
        (&virtual_pc, SizePolicy::QemuCompat, chs),
        (&virtual_pc, SizePolicy::Chs, chs),
        (&saturated, SizePolicy::QemuCompat, bytes),
        (&saturated, SizePolicy::Chs, bytes),
    ];
    for (forge, policy, len) in rows {
        let options = ImageOptions::default().with_size_policy(policy);
        let image = open_with(forge.0.clone(), &options).unwrap();
        assert_eq!(image.disk_len(), len, "{policy:?}");
    }
    let info = virtual_pc.open().unwrap().info();
    assert!(info.warnings[0].contains(&chs.to_string()));
}

#[test]
fn wrong_checksums_are_refused_unless_read_leniently() {
    let good = dynamic();
    let tail = good.tail();
    let both = good.clone().put(200, &[1]).put(tail + 200, &[1]);
    refused(&both, "checksum");
    warns(&both, &lenient(), "checksum", &meant(&good));
    let header = good.clone().put(512 + 900, &[1]);
    refused(&header, "checksum");
    assert!(contents(&*header.open_leniently().unwrap()).unwrap() == meant(&good));
    let head_only = both.clone().put(tail, &[0; 512]);
    refused(&head_only, "checksum");
    warns(&head_only, &lenient(), "checksum", &meant(&good));
}

#[test]
fn other_versions_and_kinds_and_what_must_not_be_written_are_told_apart() {
    let kind = |forge: Forge| refusal(forge.open()).kind();
    let version = 0x0002_0000u32.to_be_bytes();
    assert_eq!(
        kind(dynamic().footers(12, &version)),
        ErrorKind::Unsupported
    );
    assert_eq!(kind(dynamic().header(24, &version)), ErrorKind::Unsupported);
    for code in [0u32, 1, 5, 6, u32::MAX] {
        assert_eq!(
            kind(dynamic().footers(60, &code.to_be_bytes())),
            ErrorKind::Malformed
        );
    }
    let blktap = dynamic().footers(28, b"tap\0\0\0\0\x01");
    assert_eq!(kind(blktap), ErrorKind::Unsupported);
    let suspended = dynamic().footers(84, &[1]);
    suspended.open().unwrap();
    let storage = MemoryStorage::new("x", suspended.0);
    let error = refusal(open_mut(&Arc::new(storage)));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn files_too_short_for_anything_are_refused() {
    for len in [0, 1, 510, 511, 512, 513, 1024, 5000] {
        let error = refusal(open_bytes(vec![0; len]));
        assert_eq!(error.kind(), ErrorKind::Malformed, "{len}");
        assert_eq!(error.field(), Some("cookie"));
    }
    let good = dynamic();
    for len in [512, 1000, 1535, 1536, 1540, 2048, 4096] {
        refusal(open_bytes(good.0[..len].to_vec()));
    }
}

#[test]
fn disks_of_no_bytes_and_of_one_sector_are_disks() {
    for format in [CreateFormat::VhdFixed, CreateFormat::VhdDynamic] {
        for len in [0, 512] {
            let storage = new_image(format, len, None);
            let image = open_bytes(storage.to_vec()).unwrap();
            assert_eq!(contents(&*image).unwrap(), vec![0; len as usize]);
        }
    }
}

fn mutations() -> impl Strategy<Value = Vec<(usize, u8)>> {
    // Headers, table and the tail are where it hurts; payload only makes other contents.
    let place = prop_oneof![
        4 => 0usize..1600,
        2 => (0usize..600).prop_map(|back| usize::MAX - back),
        1 => 1600usize..40_000,
    ];
    proptest::collection::vec((place, any::<u8>()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_change_of_bytes_gives_an_error_or_a_consistent_disk(
        changes in mutations(),
        sealed in any::<bool>(),
        be_lenient in any::<bool>(),
    ) {
        let mut forge = dynamic();
        let len = forge.0.len();
        for (at, byte) in changes {
            let at = if at > len { len - 1 - (usize::MAX - at) % len } else { at % len };
            forge.0[at] = byte;
        }
        if sealed {
            forge = forge.seal();
        }
        let options = ImageOptions::default()
            .with_limits(Limits::default().with_disk_bytes(1 << 24))
            .with_lenient(be_lenient);
        if let Ok(image) = open_with(forge.0, &options) {
            // Errors on the way are fine, panics and disagreements are not.
            let _ = contents(&*image);
        }
    }
}

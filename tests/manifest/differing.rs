use std::ops::Range;
use std::sync::{Arc, Mutex};

use diskdelta::diff;
use diskdelta::manifest::{self, ManifestWriter, TargetManifest};
use diskdelta::storage::MemoryStorage;
use diskdelta::{BlockSize, ErrorKind, Extent, ExtentKind, Limits};
use proptest::prelude::*;

use crate::samples::{BLOCK, Cut, disk_pair, manifest_of, pattern, raw, work};

fn extents(old: &[u8], new: &[u8]) -> Vec<Extent> {
    let old = manifest_of(old.to_vec());
    let new = manifest_of(new.to_vec());
    let diff = diff::manifests(&old, &new).unwrap();
    diff.map(|extent| extent.unwrap()).collect()
}

/// What differs, block by block, by comparing bytes.
fn naive(old: &[u8], new: &[u8], in_doubt: &[Range<u64>]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for (block, bytes) in new.chunks(BLOCK).enumerate() {
        let offset = (block * BLOCK) as u64;
        let range = offset..offset + bytes.len() as u64;
        let zero = bytes.iter().all(|byte| *byte == 0);
        let before = old.chunks(BLOCK).nth(block).unwrap_or_default();
        let same = before == bytes || (zero && before.iter().all(|byte| *byte == 0));
        let touched = |intent: &Range<u64>| intent.start < range.end && range.start < intent.end;
        if same && !in_doubt.iter().any(touched) {
            continue;
        }
        let extent = match zero {
            true => Extent::zero(range),
            false => Extent::data(range),
        };
        match extents.last_mut() {
            Some(last) if last.kind == extent.kind && last.end() == extent.offset => {
                last.len += extent.len;
            }
            _ => extents.push(extent),
        }
    }
    extents
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_diff_of_manifests_is_that_of_the_bytes((old, new) in disk_pair()) {
        prop_assert_eq!(extents(&old, &new), naive(&old, &new, &[]));
        prop_assert_eq!(extents(&new, &old), naive(&new, &old, &[]));
    }

    #[test]
    fn ranges_in_doubt_count_as_different(
        (old, new) in disk_pair(),
        intents in prop::collection::vec((0..6_000_000u64, 1..100_000u64), 0..5),
    ) {
        let intents: Vec<_> = intents.into_iter().map(|(at, len)| at..at + len).collect();
        let storage = Arc::new(MemoryStorage::default());
        let image = raw(old.clone());
        manifest::build_to(&image, BlockSize::MIN, &work(), storage.clone()).unwrap();
        let mut kept = TargetManifest::open(storage, &Limits::default()).unwrap();
        kept.record_intent(intents.clone()).unwrap();
        let fresh = manifest_of(new.clone());
        let diff = diff::target_manifest(&kept, &fresh).unwrap();
        let found: Vec<_> = diff.map(|extent| extent.unwrap()).collect();
        prop_assert_eq!(found, naive(&old, &new, &intents));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn one_pass_over_an_image_finds_its_manifest_and_what_differs(
        (old, new) in disk_pair(),
        intents in prop::collection::vec((0..6_000_000u64, 1..100_000u64), 0..5),
        step in prop::sample::select(vec![4096u64, 10_000, 1 << 20]),
        holes: bool,
    ) {
        let intents: Vec<_> = intents.into_iter().map(|(at, len)| at..at + len).collect();
        let storage = Arc::new(MemoryStorage::default());
        let image = raw(old.clone());
        manifest::build_to(&image, BlockSize::MIN, &work(), storage.clone()).unwrap();
        let mut kept = TargetManifest::open(storage, &Limits::default()).unwrap();
        kept.record_intent(intents.clone()).unwrap();

        let image = Cut { disk: new.clone(), step, holes };
        let mut writer = ManifestWriter::root_only(new.len() as u64, BlockSize::MIN);
        let found = Mutex::new(Vec::new());
        diff::against_manifest(&image, &kept, &work(), &mut writer, &|difference| {
            let from = usize::try_from(difference.offset).unwrap();
            let len = usize::try_from(difference.new.len()).unwrap();
            let range = difference.offset..difference.offset + difference.new.len();
            found.lock().unwrap().push(match difference.new.bytes() {
                Some(bytes) => {
                    assert_eq!(bytes, &new[from..from + len]);
                    Extent::data(range)
                }
                None => Extent::zero(range),
            });
            Ok(())
        })
        .unwrap();
        prop_assert_eq!(writer.finish().unwrap(), manifest_of(new.clone()).root());
        let mut found = found.into_inner().unwrap();
        found.sort_by_key(|extent| extent.offset);
        let mut merged: Vec<Extent> = Vec::new();
        for extent in found {
            match merged.last_mut() {
                Some(last) if last.kind == extent.kind && last.end() == extent.offset => {
                    last.len += extent.len;
                }
                _ => merged.push(extent),
            }
        }
        prop_assert_eq!(merged, naive(&old, &new, &intents));
    }
}

#[test]
fn equal_disks_do_not_differ() {
    let disk = pattern(700 * BLOCK + 1, 1);
    assert_eq!(extents(&disk, &disk), []);
    assert_eq!(extents(&[], &[]), []);
    assert_eq!(extents(&vec![0; BLOCK], &[]), []);
}

#[test]
fn a_block_that_became_zero_is_told_apart() {
    let old = pattern(3 * BLOCK, 1);
    let mut new = old.clone();
    new[BLOCK..2 * BLOCK].fill(0);
    new[2 * BLOCK] ^= 1;
    let block = BLOCK as u64;
    assert_eq!(
        extents(&old, &new),
        [
            Extent::zero(block..2 * block),
            Extent::data(2 * block..3 * block)
        ]
    );
}

#[test]
fn a_grown_disk_differs_where_its_tail_holds_data_and_a_cut_one_does_not() {
    let old = pattern(2 * BLOCK, 1);
    let mut new = old.clone();
    new.extend(vec![0; 600 * BLOCK]);
    new.extend(pattern(10, 1));
    let at = 602 * BLOCK as u64;
    assert_eq!(extents(&old, &new), [Extent::data(at..at + 10)]);
    assert_eq!(extents(&new, &old), []);
}

#[test]
fn manifests_of_different_block_sizes_are_refused() {
    let small = manifest_of(pattern(9000, 1));
    let large = manifest::build(&raw(pattern(9000, 1)), BlockSize::default(), &work()).unwrap();
    let error = diff::manifests(&small, &large).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.field(), Some("block_size"));
}

#[test]
fn huge_manifests_compare_where_they_differ() {
    let size = BlockSize::default();
    let disk_len = 64u64 << 40;
    let build = |changed: Option<u64>| {
        let storage = Arc::new(MemoryStorage::default());
        let mut writer = ManifestWriter::create(storage.clone(), disk_len, size).unwrap();
        for run in 0..1000u64 {
            for block in run * 1_000_000..run * 1_000_000 + 16 {
                let seed = u64::from(changed == Some(block));
                let bytes = [block, seed].map(u64::to_le_bytes).concat();
                writer
                    .push(
                        block,
                        &diskdelta::Hash::from_bytes(blake3::hash(&bytes).into()),
                    )
                    .unwrap();
            }
        }
        writer.finish().unwrap();
        manifest::Manifest::from_storage(storage, &Limits::default()).unwrap()
    };
    let old = build(None);
    let new = build(Some(500_000_007));
    let diff: Vec<_> = diff::manifests(&old, &new)
        .unwrap()
        .map(|extent| extent.unwrap())
        .collect();
    let offset = 500_000_007 * size.bytes();
    assert_eq!(diff, [Extent::data(offset..offset + size.bytes())]);
    assert_eq!(diff[0].kind, ExtentKind::Data);
}

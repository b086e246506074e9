//! Manifest files that somebody has bent, with the header's checksum made right again.

use std::sync::Arc;

use diskdelta::diff;
use diskdelta::manifest::{self, Manifest};
use diskdelta::storage::MemoryStorage;
use diskdelta::{BlockSize, ErrorKind, Limits, Result};

use crate::samples::{BLOCK, pattern, raw, work};

const HEADER: usize = 256;
const CHECKSUM: usize = 252;

/// A manifest of two levels: 3 groups, some blocks zero.
fn good() -> Vec<u8> {
    let mut disk = pattern(600 * BLOCK + 5, 1);
    disk[7 * BLOCK..250 * BLOCK].fill(0);
    let storage = Arc::new(MemoryStorage::default());
    manifest::build_to(&raw(disk), BlockSize::MIN, &work(), storage.clone()).unwrap();
    storage.to_vec()
}

fn open(mut bytes: Vec<u8>) -> Result<Manifest> {
    if bytes.len() >= HEADER {
        let checksum = crc32fast::hash(&bytes[..CHECKSUM]);
        bytes[CHECKSUM..HEADER].copy_from_slice(&checksum.to_le_bytes());
    }
    Manifest::from_storage(
        Arc::new(MemoryStorage::new("bent", bytes)),
        &Limits::default(),
    )
}

/// All that a caller may ask; errors are fine, panics are not.
fn use_it(manifest: &Manifest, whole: &Manifest) -> Result<()> {
    for block in [0, 6, 7, 255, 256, 600, 601, u64::MAX] {
        let _ = manifest.hash(block);
    }
    if let Ok(diff) = diff::manifests(whole, manifest) {
        let _ = diff.last();
    }
    if let Ok(diff) = diff::manifests(manifest, whole) {
        let _ = diff.last();
    }
    manifest.verify()
}

#[test]
fn a_header_field_with_another_value_is_an_error() {
    let good = good();
    let whole = open(good.clone()).unwrap();
    for at in 0..CHECKSUM {
        for value in [0, 1, 0x7f, 0x80, 0xff, good[at] ^ 1, good[at] ^ 0x40] {
            if value == good[at] {
                continue;
            }
            let mut bent = good.clone();
            bent[at] = value;
            let outcome = open(bent).and_then(|manifest| {
                use_it(&manifest, &whole)?;
                Ok(manifest)
            });
            let error = outcome.map(|m| m.root() == whole.root()).unwrap_err();
            assert!(
                matches!(
                    error.kind(),
                    ErrorKind::Malformed | ErrorKind::Unsupported | ErrorKind::LimitExceeded
                ),
                "{at:#x}: {error}"
            );
            assert!(error.path().is_some(), "{at:#x}: {error}");
        }
    }
}

#[test]
fn numbers_at_their_extremes_are_errors() {
    let good = good();
    let whole = open(good.clone()).unwrap();
    for (at, len) in [(8, 2), (10, 2), (12, 4), (16, 8), (56, 8), (64, 8), (72, 8)] {
        for fill in [0x00, 0xff, 0x80, 0x7f] {
            let mut bent = good.clone();
            bent[at..at + len].fill(fill);
            let error = open(bent).and_then(|manifest| use_it(&manifest, &whole));
            assert!(error.is_err(), "{at:#x} filled with {fill:#x}");
        }
    }
}

#[test]
fn damage_to_the_header_is_reported_by_its_checksum() {
    let good = good();
    for at in 8..HEADER {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        let storage = Arc::new(MemoryStorage::new("bent", bytes));
        let error = Manifest::from_storage(storage, &Limits::default()).map(|_| ());
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert_eq!(error.field(), Some("checksum"));
    }
}

#[test]
fn any_damage_to_the_body_is_found_before_it_is_trusted() {
    let good = good();
    let whole = open(good.clone()).unwrap();
    let hashes = |manifest: &Manifest| -> Result<Vec<_>> {
        let mut all = Vec::new();
        for group in manifest.groups(0..u64::MAX) {
            all.extend(group?.entries());
        }
        Ok(all)
    };
    let expected = hashes(&whole).unwrap();
    for at in (HEADER..good.len())
        .step_by(41)
        .chain(good.len() - 220..good.len())
    {
        let mut bent = good.clone();
        bent[at] ^= 1;
        let manifest = open(bent).unwrap();
        let error = use_it(&manifest, &whole).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.offset().is_some() && error.path().is_some());
        assert!(hashes(&manifest).is_err());
        for (block, hash) in expected.iter().step_by(50) {
            if let Ok(found) = manifest.hash(*block) {
                assert_eq!(found, Some(*hash));
            }
        }
    }
}

#[test]
fn a_file_cut_short_anywhere_is_malformed() {
    let good = good();
    for len in (0..good.len())
        .step_by(13)
        .chain([255, 256, good.len() - 1])
    {
        let error = open(good[..len].to_vec()).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{len}");
    }
}

#[test]
fn a_disk_longer_than_the_limit_is_refused() {
    let storage = Arc::new(MemoryStorage::new("m", good()));
    let limits = Limits::default().with_disk_bytes(600 * BLOCK as u64);
    let error = Manifest::from_storage(storage, &limits)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn a_row_that_serves_several_nodes_is_found() {
    let storage = Arc::new(MemoryStorage::default());
    let disk = raw(vec![7; 3 * 256 * BLOCK]);
    manifest::build_to(&disk, BlockSize::MIN, &work(), storage.clone()).unwrap();
    let bytes = storage.to_vec();
    let whole = open(bytes.clone()).unwrap();
    // Three groups that are the same in every byte, and the top; then one group and the top.
    let (row, top) = (256 * 32, 3 * (32 + 32 + 8));
    assert_eq!(bytes.len(), HEADER + 3 * row + top);
    let mut shared = bytes[..HEADER + row].to_vec();
    shared.extend(&bytes[HEADER + 3 * row..]);
    for child in 0..3 {
        let at = HEADER + row + 3 * 64 + child * 8;
        shared[at..at + 8].copy_from_slice(&(HEADER as u64).to_le_bytes());
    }
    let (body_end, top_at) = (shared.len() as u64, (HEADER + row) as u64);
    shared[56..64].copy_from_slice(&body_end.to_le_bytes());
    shared[72..80].copy_from_slice(&top_at.to_le_bytes());
    let manifest = open(shared).unwrap();
    assert_eq!(manifest.root(), whole.root());
    let error = use_it(&manifest, &whole).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("several nodes"), "{error}");
}

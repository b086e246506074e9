//! Disks far longer than what they hold.

use std::sync::Arc;

use diskdelta::image::vhdx::{NewDisk, create};
use diskdelta::image::{Image, ImageMut};
use diskdelta::storage::{FileStorage, Storage};
use diskdelta::units::ExtentKind;

use super::support::*;

#[test]
fn a_disk_of_64_tib_costs_what_it_holds() {
    for block in [MIB, 32 * MIB] {
        let directory = tempfile::tempdir().unwrap();
        let storage = Arc::new(FileStorage::create_new(directory.path().join("l.vhdx")).unwrap());
        create(
            &*storage,
            &NewDisk::dynamic(64 << 40).with_block_bytes(block),
        )
        .unwrap();
        let image = open_mut_over(storage.clone(), None).unwrap();
        let places: Vec<u64> = (0..40)
            .map(|index| index * (1600 << 30) + (index << 20))
            .collect();
        for (seed, at) in places.iter().enumerate() {
            image
                .write_all_at(&pattern(seed as u64, 1 << 20), *at)
                .unwrap();
        }
        image.sync().unwrap();
        drop(image);
        assert!(storage.len().unwrap() < 4 << 30);
        let image = open_over(storage.clone(), None).unwrap();
        let mut at = 0;
        let mut found = Vec::new();
        let mut count = 0;
        while let Some(extent) = image.next_extent(at).unwrap() {
            if extent.kind == ExtentKind::Data {
                found.push((extent.offset, extent.len));
            }
            at = extent.end();
            count += 1;
        }
        assert_eq!(at, 64 << 40);
        assert_eq!(
            found,
            places.iter().map(|at| (*at, MIB)).collect::<Vec<_>>()
        );
        assert!(count < 200, "{count} extents for 40 pieces");
        let mut bytes = vec![0; 1 << 20];
        for (seed, at) in places.iter().enumerate() {
            image.read_exact_at(&mut bytes, *at).unwrap();
            assert!(bytes == pattern(seed as u64, 1 << 20));
        }
    }
}

#[test]
fn neighbouring_blocks_are_one_extent() {
    let storage = new_image(&NewDisk::dynamic(64 * MIB).with_block_bytes(MIB));
    let image = open_mut_over(storage, None).unwrap();
    // Written from the end, so that no block lies behind its neighbour.
    for block in (10..30).rev() {
        image.write_all_at(&vec![1; 1 << 20], block * MIB).unwrap();
    }
    let extents = |from: u64| image.next_extent(from).unwrap().unwrap();
    assert_eq!(extents(0).end(), 10 * MIB);
    assert_eq!(extents(10 * MIB + 5).range(), 10 * MIB + 5..30 * MIB);
    assert_eq!(extents(30 * MIB).range(), 30 * MIB..64 * MIB);
}

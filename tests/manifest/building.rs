use std::iter::once;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use diskdelta::manifest::{
    self, HashPass, HashedRun, Manifest, ManifestUpdater, ManifestWriter, Sink, Visit,
};
use diskdelta::storage::{FileStorage, MemoryStorage, Mmap, Storage};
use diskdelta::{BlockSize, CancelToken, ErrorKind, Limits, Progress, Result, Work};
use proptest::prelude::*;

use crate::reference;
use crate::samples::{BLOCK, Cut, Huge, disk_pair, manifest_of, pattern, raw, sparse_disk, work};

#[test]
fn the_root_is_as_the_format_text_says_at_every_boundary() {
    let edge = 256 * BLOCK;
    let lens = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1];
    let more = [edge - 1, edge, edge + 1, 2 * edge + BLOCK, 700 * BLOCK - 5];
    for len in lens.into_iter().chain(more) {
        for disk in [pattern(len, 1), vec![0; len]] {
            let expected = reference::root(&disk, BLOCK);
            let manifest = manifest_of(disk.clone());
            assert_eq!(manifest.root().as_bytes(), &expected, "{len}");
            manifest.verify().unwrap();
            let root = manifest::root_of(&raw(disk), BlockSize::MIN, &work()).unwrap();
            assert_eq!(root, manifest.root());
        }
    }
}

#[test]
fn the_root_of_a_fixed_disk_never_changes() {
    let mut disk = pattern(300 * BLOCK + 100, 1);
    disk[5 * BLOCK..290 * BLOCK].fill(0);
    assert_eq!(
        manifest_of(disk).root().to_string(),
        "8e2b01ed553fe556341722675c6b143aba83b2ec0edd7108a8ef71a5129c94c2"
    );
}

#[test]
fn the_root_binds_length_and_block_size() {
    let short = manifest_of(vec![0; BLOCK]).root();
    assert_ne!(short, manifest_of(vec![0; BLOCK + 1]).root());
    let size = BlockSize::new(8192).unwrap();
    let other = manifest::build(&raw(vec![0; BLOCK]), size, &work()).unwrap();
    assert_ne!(short, other.root());
}

#[test]
fn a_block_hash_is_the_plain_hash_of_its_bytes() {
    let disk = pattern(600 * BLOCK + 17, 3);
    let manifest = manifest_of(disk.clone());
    for block in [0, 255, 256, 599, 600] {
        let from = block * BLOCK;
        let bytes = &disk[from..disk.len().min(from + BLOCK)];
        let hash = manifest.hash(block as u64).unwrap();
        assert_eq!(
            hash,
            Some(diskdelta::Hash::from_bytes(blake3::hash(bytes).into()))
        );
    }
    assert_eq!(manifest.hash(601).unwrap(), None);
    assert_eq!(manifest.hash(u64::MAX).unwrap(), None);
}

#[test]
fn every_block_size_gives_the_root_of_the_definition() {
    let mut disk = pattern(40 << 20, 2);
    disk[3 << 20..30 << 20].fill(0);
    disk.truncate((40 << 20) - 12345);
    for bits in [12, 16, 20, 24] {
        let size = BlockSize::new(1 << bits).unwrap();
        let image = Cut {
            disk: disk.clone(),
            step: 4096,
            holes: true,
        };
        let root = manifest::root_of(&image, size, &work()).unwrap();
        assert_eq!(root.as_bytes(), &reference::root(&disk, 1 << bits));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_root_does_not_depend_on_how_an_image_gives_its_extents(
        disk in sparse_disk(),
        step in prop::sample::select(vec![512u64, 4096, 5000, 65536, 1 << 20]),
        holes: bool,
        threads in 1..4usize,
    ) {
        let expected = reference::root(&disk, BLOCK);
        let image = Cut { disk, step, holes };
        let work = Work::with_threads(threads).unwrap();
        let manifest = manifest::build(&image, BlockSize::MIN, &work).unwrap();
        prop_assert_eq!(*manifest.root().as_bytes(), expected);
        let blocks = manifest.groups(0..u64::MAX).map(|group| group.unwrap().entries().count());
        prop_assert_eq!(blocks.sum::<usize>() as u64, manifest.data_blocks());
    }

    #[test]
    fn a_file_mapped_and_the_same_bytes_in_memory_read_the_same(disk in sparse_disk()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifest");
        let storage = Arc::new(FileStorage::create_new(&path).unwrap());
        let image = raw(disk);
        let written =
            manifest::build_to(&image, BlockSize::MIN, &work(), storage.clone()).unwrap();
        let map = Arc::new(Mmap::open(&path).unwrap());
        let mapped = Manifest::from_storage(map, &Limits::default()).unwrap();
        let read = Manifest::open_with(&path, &Limits::default()).unwrap();
        prop_assert_eq!(read.root(), mapped.root());
        read.verify().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let memory = Arc::new(MemoryStorage::new("copy", bytes));
        let memory = Manifest::from_storage(memory, &Limits::default()).unwrap();
        prop_assert_eq!(written.root(), mapped.root());
        mapped.verify().unwrap();
        let mapped = mapped.groups(3..900).map(|group| group.unwrap());
        let mut memory = memory.groups(3..900).map(|group| group.unwrap());
        for group in mapped {
            let other = memory.next().unwrap();
            prop_assert_eq!(group.blocks(), other.blocks());
            prop_assert!(group.entries().eq(other.entries()));
        }
        prop_assert!(memory.next().is_none());
    }

    #[test]
    fn an_update_of_what_changed_equals_a_new_build((old, new) in disk_pair()) {
        let before = manifest_of(old.clone());
        let shared = old.len().min(new.len());
        let changed: Vec<Range<u64>> = (0..shared)
            .filter(|at| old[*at] != new[*at])
            .map(|at| at as u64..at as u64 + 1)
            .collect();
        let storage = Arc::new(MemoryStorage::default());
        let image = raw(new.clone());
        let after = manifest::update_to(&before, &image, changed, &work(), storage).unwrap();
        prop_assert_eq!(after.root(), manifest_of(new).root());
        after.verify().unwrap();
    }

    #[test]
    fn a_visitor_sees_every_block_once_with_its_bytes(
        disk in sparse_disk(),
        step in prop::sample::select(vec![4096u64, 10_000, 1 << 20]),
    ) {
        let image = Cut { disk, step, holes: true };
        let seen = Seen(Mutex::new(Vec::new()));
        let work = work();
        HashPass::new(&image, BlockSize::MIN, &work).run(&seen, &mut ()).unwrap();
        let mut seen = seen.0.into_inner().unwrap();
        seen.sort_by_key(|(block, _)| *block);
        let bytes: Vec<u8> = seen.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        let blocks: Vec<u64> = seen.iter().map(|(block, _)| *block).collect();
        let count = BlockSize::MIN.count(image.disk.len() as u64);
        prop_assert!(blocks.into_iter().eq(0..count));
        prop_assert!(bytes.into_iter().take(image.disk.len()).eq(image.disk.iter().copied()));
    }
}

struct Seen(Mutex<Vec<(u64, Vec<u8>)>>);

impl Visit for Seen {
    fn data(&self, run: &HashedRun<'_>) -> Result<()> {
        for (block, bytes, hash) in run.blocks() {
            let zero = bytes.iter().all(|byte| *byte == 0);
            assert_eq!(
                hash,
                (!zero).then(|| diskdelta::Hash::from_bytes(blake3::hash(bytes).into()))
            );
            self.0.lock().unwrap().push((block, bytes.to_vec()));
        }
        Ok(())
    }

    fn zeros(&self, blocks: Range<u64>) -> Result<()> {
        let zeros = blocks.map(|block| (block, vec![0; BLOCK]));
        self.0.lock().unwrap().extend(zeros);
        Ok(())
    }
}

#[test]
fn a_huge_sparse_disk_costs_what_its_data_costs() {
    let image = Huge {
        disk_len: 64 << 40,
        data: vec![
            (1 << 40)..(1 << 40) + 10,
            (5 << 40) + 4095..(5 << 40) + (1 << 20),
            (64 << 40) - 1..64 << 40,
        ],
        ..Huge::default()
    };
    let manifest = manifest::build(&image, BlockSize::default(), &work()).unwrap();
    assert_eq!(manifest.data_blocks(), 18);
    assert!(image.read_bytes.load(Ordering::SeqCst) <= 1 << 20);
    assert!(image.extents_asked.load(Ordering::SeqCst) < 50);
    manifest.verify().unwrap();
    let groups = manifest.groups(0..u64::MAX).map(|group| group.unwrap());
    let blocks: Vec<u64> = groups.flat_map(|g| g.blocks().take(1)).collect();
    assert_eq!(blocks, [1 << 24, 5 << 24, (64 << 24) - 256]);
    assert!(manifest.hash((64 << 24) - 1).unwrap().is_some());
}

#[test]
fn holes_inside_a_large_block_are_not_read() {
    let image = Huge {
        disk_len: 64 << 20,
        data: vec![0..4096, (9 << 20)..(9 << 20) + 4096, (40 << 20)..(41 << 20)],
        ..Huge::default()
    };
    let root = manifest::root_of(&image, BlockSize::MAX, &work()).unwrap();
    assert_eq!(
        image.read_bytes.load(Ordering::SeqCst),
        2 * 4096 + (1 << 20)
    );
    let mut disk = vec![0; 64 << 20];
    for range in &image.data {
        for at in range.clone() {
            disk[at as usize] = u8::try_from(at % 251).unwrap() + 1;
        }
    }
    assert_eq!(root.as_bytes(), &reference::root(&disk, 16 << 20));
}

#[test]
fn an_unreadable_byte_stops_the_build_and_is_named() {
    let image = Huge {
        disk_len: 1 << 30,
        data: Vec::from_iter(Some((100 << 20)..(102 << 20))),
        unreadable: Some((101 << 20) + 5000),
        ..Huge::default()
    };
    let error = manifest::root_of(&image, BlockSize::default(), &work()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreadable);
    assert_eq!(error.offset(), Some((101 << 20) + 4096));
}

#[test]
fn a_cancelled_build_stops() {
    let cancel = CancelToken::new();
    cancel.cancel();
    let work = work().with_cancel(cancel);
    let error = manifest::build(&raw(pattern(BLOCK, 1)), BlockSize::MIN, &work).map(|_| ());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn progress_ends_at_the_length_of_the_disk() {
    #[derive(Default)]
    struct Sum(Mutex<(Option<u64>, u64)>);
    impl Progress for Sum {
        fn begin(&self, _phase: diskdelta::Phase, total_bytes: Option<u64>) {
            self.0.lock().unwrap().0 = total_bytes;
        }
        fn advance(&self, bytes: u64) {
            self.0.lock().unwrap().1 += bytes;
        }
    }
    let sum = Arc::new(Sum::default());
    let mut disk = pattern(9 << 20, 1);
    disk.extend(vec![0; 12345]);
    let len = disk.len() as u64;
    let image = Cut {
        disk,
        step: 4096,
        holes: true,
    };
    let work = work().with_progress(sum.clone());
    manifest::root_of(&image, BlockSize::MIN, &work).unwrap();
    assert_eq!(*sum.0.lock().unwrap(), (Some(len), len));
}

#[test]
fn an_error_from_a_visitor_or_a_sink_comes_out_and_a_panic_hangs_nobody() {
    struct Failing;
    impl Visit for Failing {
        fn data(&self, _run: &HashedRun<'_>) -> Result<()> {
            Err(diskdelta::Error::new(ErrorKind::NoSpace, "full"))
        }
        fn zeros(&self, _blocks: Range<u64>) -> Result<()> {
            panic!("on purpose");
        }
    }
    impl Sink for Failing {
        fn data(&mut self, _first: u64, _hashes: &[Option<diskdelta::Hash>]) -> Result<()> {
            Err(diskdelta::Error::new(ErrorKind::NoSpace, "full"))
        }
        fn zeros(&mut self, _blocks: Range<u64>) -> Result<()> {
            Ok(())
        }
    }
    let work = work();
    let image = raw(pattern(20 << 20, 1));
    let pass = || HashPass::new(&image, BlockSize::MIN, &work);
    let error = pass().run(&Failing, &mut ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    let error = pass().run(&(), &mut Failing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    let image = Cut {
        disk: vec![0; 20 << 20],
        step: 4096,
        holes: true,
    };
    let pass = HashPass::new(&image, BlockSize::MIN, &work);
    let result =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pass.run(&Failing, &mut ())));
    assert!(result.is_err());
}

#[test]
fn a_writer_refuses_blocks_out_of_order_and_beyond_the_end() {
    let hash = diskdelta::Hash::from_bytes(blake3::hash(b"x").into());
    let mut writer = ManifestWriter::root_only(10 * BLOCK as u64, BlockSize::MIN);
    writer.push(5, &hash).unwrap();
    for wrong in [5, 0, 10, u64::MAX] {
        let error = writer.push(wrong, &hash).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    assert!(writer.zeros(3..7).is_err());
    writer.zeros(6..10).unwrap();
    let size = BlockSize::default();
    let other = ManifestWriter::root_only(10, size);
    let old = manifest_of(vec![1]);
    assert!(ManifestUpdater::new(&old, other).is_err());
}

#[test]
fn an_update_reads_only_what_is_said_to_have_changed() {
    let mut image = Huge {
        disk_len: 1 << 40,
        data: vec![0..1 << 20, (1 << 39)..(1 << 39) + (1 << 20)],
        ..Huge::default()
    };
    let size = BlockSize::default();
    let before = manifest::build(&image, size, &work()).unwrap();
    image
        .data
        .push((1 << 39) + (5 << 20)..(1 << 39) + (6 << 20));
    image.read_bytes = 0.into();
    let changed = Some((1 << 39) + (5 << 20)..(1 << 39) + (6 << 20));
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let after = manifest::update_to(&before, &image, changed, &work(), storage).unwrap();
    assert_eq!(image.read_bytes.load(Ordering::SeqCst), 1 << 20);
    let whole = manifest::build(&image, size, &work()).unwrap();
    assert_eq!(after.root(), whole.root());
    assert_eq!(after.data_blocks(), 48);
}

#[test]
fn an_update_of_a_disk_that_grew_by_whole_blocks_is_the_manifest_of_the_longer_disk() {
    let size = BlockSize::default();
    let mut image = Huge {
        disk_len: 40 * size.bytes(),
        data: once(0..40 * size.bytes()).collect(),
        ..Huge::default()
    };
    let before = manifest::build(&image, size, &work()).unwrap();
    image.disk_len += 2 * size.bytes();
    image.data = once(0..image.disk_len).collect();
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
    let after = manifest::update_to(&before, &image, [], &work(), storage).unwrap();
    let whole = manifest::build(&image, size, &work()).unwrap();
    assert_eq!(after.root(), whole.root());
}

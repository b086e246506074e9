//! Delta files: made, carried, applied, merged; never half applied, never onto the wrong base.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::ops::Range;
use std::sync::Arc;

use diskdelta::delta::{
    Base, Delta, DeltaOptions, DeltaWriter, Frame, Header, JobId, Old, Purpose, create,
    create_link, merge,
};
use diskdelta::image::{Format, Raw};
use diskdelta::storage::{
    Directory, FileRef, HostDirectory, MemoryDirectory, MemoryStorage, Storage,
};
use diskdelta::sync::{BaseCheck, Outcome, Target, Verify, apply_delta};
use diskdelta::{BlockSize, ErrorKind, Limits, Result, Work, manifest};
use proptest::prelude::*;

const PAGE: usize = 4096;

fn image(bytes: &[u8]) -> Raw {
    Raw::open(Arc::new(MemoryStorage::new("image", bytes.to_vec()))).unwrap()
}

fn work() -> Work {
    Work::with_threads(2).unwrap()
}

fn options() -> DeltaOptions {
    DeltaOptions::default().with_block_size(BlockSize::MIN)
}

fn delta(old: &[u8], new: &[u8]) -> Arc<MemoryStorage> {
    delta_with(old, new, &options())
}

fn delta_with(old: &[u8], new: &[u8], options: &DeltaOptions) -> Arc<MemoryStorage> {
    let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
    create(
        Base::Image(&image(old)),
        &image(new),
        file.clone(),
        options,
        &work(),
    )
    .unwrap();
    file
}

fn opened(bytes: Vec<u8>) -> Result<Delta> {
    Delta::from_storage(
        Arc::new(MemoryStorage::new("delta", bytes)),
        &Limits::default(),
    )
}

/// Applies the delta to a target that holds `old`; what it holds afterwards, and what was said.
fn applied(bytes: Vec<u8>, old: &[u8], check: BaseCheck) -> (Vec<u8>, Result<Outcome>) {
    let directory = MemoryDirectory::new();
    directory.insert("t", old.to_vec());
    let shared: Arc<dyn Directory> = Arc::new(directory.clone());
    let target = Target::file(FileRef::new(shared, "t"), Format::Raw);
    let said = opened(bytes)
        .and_then(|delta| apply_delta(&delta, &target, check, Verify::Written, &work()))
        .map(|report| report.outcome);
    assert_eq!(directory.names().unwrap(), vec!["t"], "{said:?}");
    (directory.bytes("t").unwrap(), said)
}

fn disk(pages: &[u8], cut: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..)
        .zip(pages)
        .flat_map(|(index, kind)| match kind {
            0 => vec![0; PAGE],
            kind => (0..PAGE)
                .map(|at| ((at + index) % 251) as u8 ^ kind)
                .collect(),
        })
        .collect();
    bytes.truncate(bytes.len() - cut);
    bytes
}

fn any_disk() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(0u8..4, 2..40), 0..PAGE).prop_map(|(pages, cut)| disk(&pages, cut))
}

fn changed_pages(old: &[u8], new: &[u8]) -> Vec<Range<u64>> {
    let page = |bytes: &[u8], at: usize| {
        bytes
            .get(at..(at + PAGE).min(bytes.len()))
            .map(<[u8]>::to_vec)
    };
    let differs = |at: &usize| page(old, *at) != page(new, *at);
    let pages = (0..new.len()).step_by(PAGE).filter(differs);
    pages
        .map(|at| at as u64..(at + PAGE).min(new.len()) as u64)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn applying_a_delta_gives_the_source(
        old in any_disk(), new in any_disk(), block in prop::sample::select(&[4u64, 16, 64]),
    ) {
        let options = options().with_block_size(BlockSize::new(block << 10).unwrap());
        let bytes = delta_with(&old, &new, &options).to_vec();
        let (now, said) = applied(bytes.clone(), &old, BaseCheck::Whole);
        said.unwrap();
        prop_assert!(now == new);
        let (again, said) = applied(bytes, &new, BaseCheck::Whole);
        prop_assert_eq!(said.unwrap(), Outcome::Identical);
        prop_assert!(again == new);
    }

    /// What a map leaves out counts as unchanged, whatever is there.
    #[test]
    fn a_link_leads_to_the_source_and_hands_on_what_it_holds(
        old in any_disk(), new in any_disk(), mapped in any::<bool>(),
    ) {
        let base = manifest::build(&image(&old), BlockSize::MIN, &work()).unwrap();
        let map = mapped.then(|| changed_pages(&old, &new));
        let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
        let next = Arc::new(MemoryStorage::new("manifest", Vec::new()));
        let source = image(&new);
        let (trailer, next) =
            create_link(&base, &source, map, file.clone(), next, &options(), &work()).unwrap();
        let root = manifest::root_of(&source, BlockSize::MIN, &work()).unwrap();
        prop_assert_eq!(next.root(), root);
        prop_assert_eq!(trailer.result_root, Some(root));
        let (now, said) = applied(file.to_vec(), &old, BaseCheck::Whole);
        said.unwrap();
        prop_assert!(now == new);
    }

    #[test]
    fn a_manifest_is_base_enough(old in any_disk(), new in any_disk()) {
        let base = manifest::build(&image(&old), BlockSize::MIN, &work()).unwrap();
        let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
        create(Base::Manifest(&base), &image(&new), file.clone(), &options(), &work()).unwrap();
        let (now, said) = applied(file.to_vec(), &old, BaseCheck::Whole);
        said.unwrap();
        prop_assert!(now == new);
    }

    #[test]
    fn a_merged_chain_does_what_its_links_do(disks in prop::collection::vec(any_disk(), 2..6)) {
        let links: Vec<Delta> = disks
            .windows(2)
            .map(|pair| opened(delta(&pair[0], &pair[1]).to_vec()).unwrap())
            .collect();
        let file = Arc::new(MemoryStorage::new("merged", Vec::new()));
        merge(&links, file.clone(), &Limits::default(), None, &work()).unwrap();
        let (now, said) = applied(file.to_vec(), &disks[0], BaseCheck::Whole);
        said.unwrap();
        prop_assert!(&now == disks.last().unwrap());
    }

    #[test]
    fn another_base_is_refused_and_left_alone(
        old in any_disk(), new in any_disk(), other in any_disk(),
    ) {
        if old == new || other == old || other == new {
            return Ok(());
        }
        let (now, said) = applied(delta(&old, &new).to_vec(), &other, BaseCheck::Whole);
        prop_assert_eq!(said.unwrap_err().kind(), ErrorKind::BaseMismatch);
        prop_assert!(now == other);
    }

    #[test]
    fn a_flipped_bit_changes_nothing(place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (old, new) = (disk(&[1, 2, 3, 0, 1, 2], 5), disk(&[1, 3, 3, 1, 0, 2], 5));
        let mut bytes = delta(&old, &new).to_vec();
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        for check in [BaseCheck::Whole, BaseCheck::Touched] {
            let (now, said) = applied(bytes.clone(), &old, check);
            prop_assert!(said.is_err(), "byte {at}");
            prop_assert!(now == old, "byte {at}");
        }
    }
}

#[test]
fn a_delta_cut_anywhere_changes_nothing() {
    let (old, new) = (disk(&[1, 2, 3], 0), disk(&[3, 2, 1], 0));
    let bytes = delta(&old, &new).to_vec();
    for len in (0..bytes.len()).step_by(37).chain([bytes.len() - 1]) {
        let (now, said) = applied(bytes[..len].to_vec(), &old, BaseCheck::Whole);
        assert_eq!(said.unwrap_err().kind(), ErrorKind::Malformed, "{len}");
        assert!(now == old);
    }
}

#[test]
fn deltas_that_do_not_follow_each_other_do_not_merge() {
    let disks = [
        disk(&[1, 2, 3], 0),
        disk(&[3, 2, 1], 0),
        disk(&[2, 2, 2], 0),
    ];
    let first = opened(delta(&disks[0], &disks[1]).to_vec()).unwrap();
    let stranger = opened(delta(&disks[0], &disks[2]).to_vec()).unwrap();
    let file: Arc<dyn Storage> = Arc::new(MemoryStorage::new("merged", Vec::new()));
    let error = merge(&[first, stranger], file, &Limits::default(), None, &work()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BaseMismatch);
}

#[test]
fn a_delta_made_from_a_manifest_tells_of_old_bytes_where_both_blocks_are_equally_long() {
    // The last block of the old disk is short, and whole in the new one.
    let (old, new) = (disk(&[1, 2, 3], 100), disk(&[2, 2, 1, 1], 0));
    let base = manifest::build(&image(&old), BlockSize::MIN, &work()).unwrap();
    let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
    let base = Base::Manifest(&base);
    create(base, &image(&new), file.clone(), &options(), &work()).unwrap();
    let olds = std::sync::Mutex::new(Vec::new());
    let delta = opened(file.to_vec()).unwrap();
    delta
        .for_each(&work(), &|frame| {
            olds.lock()
                .unwrap()
                .push((frame.offset() / PAGE as u64, frame.header().old));
            Ok(())
        })
        .unwrap();
    let mut olds = olds.into_inner().unwrap();
    olds.sort_by_key(|it| it.0);
    let first = Old::Hash(diskdelta::Hash::from_bytes(
        blake3::hash(&old[..PAGE]).into(),
    ));
    assert_eq!(olds, [(0, first), (2, Old::Unknown), (3, Old::Zeros)]);
}

#[test]
fn a_merged_frame_tells_of_old_bytes_only_where_they_are_the_bases() {
    let disks = [
        disk(&[1, 2, 3], 0),
        disk(&[1, 3, 3], 0),
        disk(&[1, 2, 2], 0),
    ];
    let links = [0, 1].map(|at| opened(delta(&disks[at], &disks[at + 1]).to_vec()).unwrap());
    let olds = |links: &[Delta]| {
        let file = Arc::new(MemoryStorage::new("merged", Vec::new()));
        merge(links, file.clone(), &Limits::default(), None, &work()).unwrap();
        let olds = std::sync::Mutex::new(Vec::new());
        let merged = opened(file.to_vec()).unwrap();
        merged
            .for_each(&work(), &|frame| {
                olds.lock().unwrap().push(frame.header().old);
                Ok(())
            })
            .unwrap();
        olds.into_inner().unwrap()
    };
    let page = Old::Hash(diskdelta::Hash::from_bytes(
        blake3::hash(&disks[0][PAGE..2 * PAGE]).into(),
    ));
    assert_eq!(olds(&links[..1]), [page]);
    assert!(olds(&links).iter().all(|old| *old == Old::Unknown));
}

#[test]
fn a_delta_stays_bound_to_its_base_where_only_the_rest_differs() {
    let (old, new) = (disk(&[1, 2, 3, 1], 0), disk(&[1, 3, 3, 1], 0));
    let other = disk(&[1, 2, 3, 2], 0);
    let bytes = delta(&old, &new).to_vec();
    let (now, said) = applied(bytes.clone(), &other, BaseCheck::Whole);
    assert_eq!(said.unwrap_err().kind(), ErrorKind::BaseMismatch);
    assert!(now == other);
    let (now, said) = applied(bytes, &other, BaseCheck::Touched);
    assert_eq!(said.unwrap(), Outcome::Synced);
    assert!(now == disk(&[1, 3, 3, 2], 0));
}

#[test]
fn what_was_written_where_a_delta_changes_something_is_not_overwritten() {
    let (old, other) = (disk(&[1, 2, 3, 1], 0), disk(&[1, 1, 3, 1], 0));
    for new in [disk(&[1, 3, 3, 1], 0), disk(&[1, 0, 3, 1], 0)] {
        let bytes = delta(&old, &new).to_vec();
        let merged = Arc::new(MemoryStorage::new("merged", Vec::new()));
        let links = [opened(bytes.clone()).unwrap()];
        merge(&links, merged.clone(), &Limits::default(), None, &work()).unwrap();
        for (bytes, check) in [
            (bytes.clone(), BaseCheck::Touched),
            (bytes, BaseCheck::Whole),
            (merged.to_vec(), BaseCheck::Touched),
        ] {
            let (now, said) = applied(bytes, &other, check);
            assert_eq!(
                said.unwrap_err().kind(),
                ErrorKind::BaseMismatch,
                "{check:?}"
            );
            assert!(now == other);
        }
    }
}

#[test]
fn payloads_are_packed_where_that_saves_an_eighth_and_only_there() {
    let mut noise = vec![0; 3 * PAGE];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    // A third of it packs to nothing, a twentieth does not matter.
    let (mut much, mut little) = (noise.clone(), noise.clone());
    much[..PAGE].fill(7);
    little[..PAGE / 20].fill(7);
    let block = BlockSize::new(16 << 10).unwrap();
    let len = |new: &[u8], level| {
        let options = options().with_block_size(block).with_level(level);
        let base = manifest::build(&image(&vec![0; new.len()]), block, &work()).unwrap();
        let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
        create(
            Base::Manifest(&base),
            &image(new),
            file.clone(),
            &options,
            &work(),
        )
        .unwrap();
        file.to_vec().len()
    };
    let saved = |new: &[u8]| len(new, None) - len(new, Some(3));
    assert!(saved(&much) > PAGE * 9 / 10, "{}", saved(&much));
    assert_eq!(saved(&little), 0);
}

#[test]
fn a_delta_that_lies_about_its_result_changes_nothing() {
    let (old, new) = (disk(&[1, 2, 3, 0, 1], 0), disk(&[1, 3, 3, 2, 0], 0));
    let root = |bytes: &[u8]| {
        let root = manifest::root_of(&image(bytes), BlockSize::MIN, &work()).unwrap();
        Some(root)
    };
    let crafted = |result_root| {
        let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
        let header = Header {
            purpose: Purpose::Portable,
            job: JobId::random().unwrap(),
            base_len: old.len() as u64,
            result_len: new.len() as u64,
            block_size: BlockSize::MIN,
        };
        let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
        for at in [PAGE, 3 * PAGE] {
            let frame = Frame::data(at as u64, &new[at..at + PAGE], Old::Unknown, None);
            writer.push(&frame).unwrap();
        }
        let zeros = Frame::zero(4 * PAGE as u64, PAGE as u64, Old::Unknown);
        writer.push(&zeros).unwrap();
        writer.finish(root(&old), result_root).unwrap();
        file.to_vec()
    };
    let (now, said) = applied(
        crafted(root(&disk(&[1, 3, 3, 2, 2], 0))),
        &old,
        BaseCheck::Whole,
    );
    let error = said.unwrap_err();
    assert_eq!(
        (error.kind(), error.field()),
        (ErrorKind::Malformed, Some("result_root"))
    );
    assert!(now == old);
    let (now, said) = applied(crafted(root(&new)), &old, BaseCheck::Whole);
    assert_eq!(said.unwrap(), Outcome::Synced);
    assert!(now == new);
}

#[test]
fn a_delta_fits_a_disk_with_holes_wherever_its_frames_begin_and_end() {
    let old = disk(&[0, 1, 0, 1], 0);
    for pages in [1..2, 0..2, 0..1, 2..3, 2..4, 1..3, 0..4] {
        let range = pages.start * PAGE..pages.end * PAGE;
        let mut new = old.clone();
        new[range.clone()].copy_from_slice(&disk(&[2, 3, 2, 3], 0)[range.clone()]);
        let root = |bytes: &[u8]| {
            let root = manifest::root_of(&image(bytes), BlockSize::MIN, &work()).unwrap();
            Some(root)
        };
        let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
        let header = Header {
            purpose: Purpose::Portable,
            job: JobId([1; 16]),
            base_len: old.len() as u64,
            result_len: new.len() as u64,
            block_size: BlockSize::MIN,
        };
        let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
        let frame = Frame::data(range.start as u64, &new[range], Old::Unknown, None);
        writer.push(&frame).unwrap();
        writer.finish(root(&old), root(&new)).unwrap();

        let home = tempfile::tempdir().unwrap();
        let directory: Arc<dyn Directory> = Arc::new(HostDirectory::open(home.path()).unwrap());
        let base = directory.create_new("t".as_ref()).unwrap();
        base.set_len(old.len() as u64).unwrap();
        for page in [1, 3] {
            let range = page * PAGE..(page + 1) * PAGE;
            base.write_all_at(&old[range.clone()], range.start as u64)
                .unwrap();
        }
        drop(base);
        let target = Target::file(FileRef::new(directory, "t"), Format::Raw);
        let delta = Delta::from_storage(file, &Limits::default()).unwrap();
        let check = BaseCheck::Whole;
        apply_delta(&delta, &target, check, Verify::Written, &work()).unwrap();
        assert!(
            std::fs::read(home.path().join("t")).unwrap() == new,
            "{pages:?}"
        );
    }
}

#[test]
fn no_number_of_scattered_frames_is_too_many() {
    let kinds: Vec<u8> = (0..400).map(|page| page as u8 % 3).collect();
    let step = |kinds: &[u8], by: usize| -> Vec<u8> {
        let pages = kinds.iter().enumerate();
        pages
            .map(|(page, kind)| if page % by == 0 { kind ^ 7 } else { *kind })
            .collect()
    };
    let (once, twice) = (step(&kinds, 2), step(&step(&kinds, 2), 3));
    let disks = [disk(&kinds, 0), disk(&once, 0), disk(&twice, 0)];
    // Room for a few ranges, or for half of them.
    for table_bytes in [64, 64 * 100] {
        let limits = Limits::default().with_table_bytes(table_bytes);
        let open = |bytes: Vec<u8>| {
            let file = Arc::new(MemoryStorage::new("delta", bytes));
            Delta::from_storage(file, &limits).unwrap()
        };
        let deltas = [
            open(delta(&disks[0], &disks[1]).to_vec()),
            open(delta(&disks[1], &disks[2]).to_vec()),
        ];
        let merged = Arc::new(MemoryStorage::default());
        merge(&deltas, merged.clone(), &limits, None, &work()).unwrap();
        let apply = |delta: &Delta, old: &[u8]| {
            let directory = MemoryDirectory::new();
            directory.insert("t", old.to_vec());
            let target = Target::file(FileRef::new(Arc::new(directory.clone()), "t"), Format::Raw);
            let check = BaseCheck::Whole;
            apply_delta(delta, &target, check, Verify::Written, &work()).unwrap();
            directory.bytes("t").unwrap()
        };
        assert!(apply(&deltas[0], &disks[0]) == disks[1]);
        assert!(apply(&open(merged.to_vec()), &disks[0]) == disks[2]);
    }
}

#[test]
fn a_frame_of_exactly_the_allowed_length_is_taken_and_no_longer_one() {
    let (old, new) = (disk(&[1, 2, 3], 0), disk(&[1, 3, 3], 0));
    // A packed frame is short as it is stored; what it becomes is held against the limit too.
    for level in [None, Some(3)] {
        let bytes = delta_with(&old, &new, &options().with_level(level)).to_vec();
        let walk = |limit: usize| {
            let limits = Limits::default().with_frame_bytes(u32::try_from(limit).unwrap());
            let file = Arc::new(MemoryStorage::new("delta", bytes.clone()));
            Delta::from_storage(file, &limits)?.for_each(&work(), &|frame| {
                assert_eq!(frame.header().len, PAGE as u64);
                Ok(())
            })
        };
        walk(PAGE).unwrap();
        assert_eq!(walk(PAGE - 1).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}

#[test]
fn a_frame_is_held_to_the_limit_whatever_is_known_of_the_old_bytes() {
    for old in [
        Old::Unknown,
        Old::Zeros,
        Old::Hash(diskdelta::Hash::from_bytes([1; 32])),
    ] {
        let delta = |limit: u32| {
            let limits = Limits::default().with_frame_bytes(limit);
            let file = one_frame(&[5; PAGE], old);
            Delta::from_storage(file, &limits)?.for_each(&work(), &|_| Ok(()))
        };
        delta(4096).unwrap();
        let error = delta(4095).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{old:?}");
    }
}

#[test]
fn a_frame_longer_than_what_is_read_at_a_time_is_found_whole() {
    let bytes: Vec<u8> = (0..9 << 20).map(|at: u32| (at % 251) as u8).collect();
    for len in [(4 << 20) - 160, (4 << 20) - 159, 9 << 20] {
        let file = one_frame(&bytes[..len], Old::Unknown);
        let found = std::sync::Mutex::new(Vec::new());
        let note = |frame: &diskdelta::delta::VerifiedFrame<'_>| {
            assert!(frame.bytes() == &bytes[..len]);
            found.lock().unwrap().push(frame.offset());
            Ok(())
        };
        let limits = Limits::default();
        let whole = Delta::from_storage(file.clone(), &limits).unwrap();
        whole.for_each(&work(), &note).unwrap();
        let file: Arc<dyn Storage> = file;
        diskdelta::delta::for_each_intact(&file, &limits, &work(), &|frame| match frame
            .header()
            .kind
        {
            diskdelta::delta::FrameKind::Data => note(frame),
            _ => Ok(()),
        })
        .unwrap();
        assert_eq!(found.into_inner().unwrap(), [0, 0], "{len}");
    }
}

/// A delta of one data frame at the disk's begin.
fn one_frame(bytes: &[u8], old: Old) -> Arc<MemoryStorage> {
    let header = Header {
        purpose: Purpose::Portable,
        job: JobId([1; 16]),
        base_len: bytes.len() as u64,
        result_len: bytes.len() as u64,
        block_size: BlockSize::MIN,
    };
    let file = Arc::new(MemoryStorage::new("delta", Vec::new()));
    let mut writer = DeltaWriter::create(file.clone(), header).unwrap();
    writer.push(&Frame::data(0, bytes, old, None)).unwrap();
    writer.finish(None, None).unwrap();
    file
}

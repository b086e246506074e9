//! Comparing two images finds exactly the pages that differ, reads no more than it must, and
//! bears failing disks, cancels and visitors that write.
#![allow(clippy::unwrap_used, reason = "a panic is how this fails")]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use diskdelta::diff::{CompareOptions, CompareReport, Content, Difference, compare, images};
use diskdelta::image::{Image, ImageInfo, ImageMut, Raw};
use diskdelta::manifest;
use diskdelta::storage::{MemoryStorage, Storage};
use diskdelta::sync::sample;
use diskdelta::{
    BlockSize, CancelToken, Error, ErrorKind, Extent, ExtentKind, Phase, Progress, Result, Work,
};
use proptest::prelude::*;

const PAGE: u64 = 4096;

/// A file of many short extents, that counts how often it is asked where they are.
struct Fragmented {
    bytes: MemoryStorage,
    extents: u64,
    asked: AtomicU64,
}

impl Fragmented {
    /// Each extent is two pages of data and two of a hole.
    fn image(extents: u64) -> (Raw, Arc<Fragmented>) {
        let bytes = (0..extents * 4 * PAGE).map(|at| u8::from(at / PAGE % 4 < 2));
        let storage = Arc::new(Fragmented {
            bytes: MemoryStorage::new("fragmented", bytes.collect()),
            extents,
            asked: AtomicU64::new(0),
        });
        (Raw::open(storage.clone()).unwrap(), storage)
    }

    fn asked(&self) -> u64 {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

impl Storage for Fragmented {
    fn path(&self) -> &std::path::Path {
        self.bytes.path()
    }

    fn len(&self) -> Result<u64> {
        self.bytes.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.bytes.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.bytes.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.bytes.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.bytes.punch_hole(range)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let extent = offset / (4 * PAGE);
        let data = extent * 4 * PAGE..extent * 4 * PAGE + 2 * PAGE;
        Ok(match offset < data.end {
            true => Some(offset..data.end),
            false if extent + 1 < self.extents => Some(data.start + 4 * PAGE..data.end + 4 * PAGE),
            false => None,
        })
    }
}

#[test]
fn a_fragmented_file_is_asked_for_its_extents_a_few_times_each() {
    let extents = 4096;
    let ((source, one), (target, other)) = (Fragmented::image(extents), Fragmented::image(extents));
    let work = Work::with_threads(2).unwrap();
    sample(&source, &target, BlockSize::default(), &work).unwrap();
    assert!(one.asked() <= 2 * 256);
    compare(&source, &target, &CompareOptions::default(), &work, &|_| {
        unreachable!("they are equal")
    })
    .unwrap();
    for asked in [one.asked(), other.asked()] {
        assert!(asked <= 3 * extents, "{asked}");
    }
    manifest::build(&source, BlockSize::MIN, &work).unwrap();
    let asked = one.asked();
    assert!(asked <= 3 * extents, "{asked}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn exactly_the_pages_that_differ_are_found(
        source in pieces(),
        target in pieces(),
        options in options(),
        threads in 1usize..4,
    ) {
        let (source, target) = (Disk::pieced(&source), Disk::pieced(&target));
        let options = inside(options, source.disk_len());
        let seen = Seen::of(&source, &target, &options, threads);
        check_against_bytes(&source, &target, &options, &seen);
        check_reads(&source, &target);
    }

    #[test]
    fn a_visitor_that_writes_the_target_makes_it_equal(
        source in pieces(),
        target in pieces(),
        threads in 1usize..4,
    ) {
        let (source, target) = (Disk::pieced(&source), Disk::pieced(&target));
        let work = Work::with_threads(threads).unwrap();
        let options = CompareOptions::default();
        let report = compare(&source, &target, &options, &work, &|difference| {
            target.write(difference);
            Ok(())
        });
        check_reads(&source, &target);
        let len = source.content().len();
        let mut now = target.content();
        now.resize(len.max(now.len()), 0);
        prop_assert!(now[..len] == source.content());
        prop_assert!(report.unwrap().changed_bytes <= len as u64);

        let again = Disk::dense(now);
        prop_assert_eq!(images(&source, &again, &options, &work).unwrap(), []);
    }

    #[test]
    fn the_extents_that_differ_are_told_as_long_as_they_are(
        source in pieces(),
        target in pieces(),
    ) {
        let (source, target) = (Disk::pieced(&source), Disk::pieced(&target));
        let work = Work::with_threads(2).unwrap();
        let found = images(&source, &target, &CompareOptions::default(), &work).unwrap();
        let mut expected: Vec<Extent> = Vec::new();
        for (range, kind) in differing_pages(&source, &target, None) {
            match expected.last_mut() {
                Some(last) if last.end() == range.start && last.kind == kind => {
                    last.len += range.end - range.start;
                }
                _ => {
                    let len = range.end - range.start;
                    expected.push(Extent { offset: range.start, len, kind });
                }
            }
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn pages_that_cannot_be_read_are_listed_and_the_others_compared(
        source in pieces(),
        target in pieces(),
        failing in prop::collection::vec((0u64..1_000_000, 1u64..20_000), 0..4),
    ) {
        let failing = failing.into_iter().map(|(start, len)| start..start + len);
        let source = Disk::pieced(&source).failing(failing);
        let target = Disk::pieced(&target);
        let options = CompareOptions::default().with_skip_unreadable(true);
        let seen = Seen::of(&source, &target, &options, 2);
        check_against_bytes(&source, &target, &options, &seen);
    }
}

#[test]
fn short_disks_and_odd_ends_are_compared_to_the_last_byte() {
    const LENS: [usize; 8] = [0, 1, 4095, 4096, 4097, 524_287, 524_288, 524_289];
    for source_len in LENS {
        for target_len in LENS {
            for (source_mask, target_mask) in [(0, 0), (0, 9)] {
                let source = Disk::pieced(&[data(source_len, source_mask)]);
                let target = Disk::pieced(&[data(target_len, target_mask)]);
                let options = CompareOptions::default();
                let seen = Seen::of(&source, &target, &options, 2);
                check_against_bytes(&source, &target, &options, &seen);
                check_reads(&source, &target);
            }
        }
    }
}

#[test]
fn one_changed_byte_shows_its_page_only() {
    let old = vec![5; 3 << 20];
    for at in [0, 4095, 4096, 524_287, 524_288, (3 << 20) - 1] {
        let mut new = old.clone();
        new[at] ^= 1;
        let work = Work::with_threads(2).unwrap();
        let (source, target) = (Disk::dense(new), Disk::dense(old.clone()));
        let found = images(&source, &target, &CompareOptions::default(), &work).unwrap();
        let start = at as u64 / PAGE * PAGE;
        assert_eq!(found, [Extent::data(start..start + PAGE)]);
    }
}

#[test]
fn stretches_that_both_images_know_to_be_zeros_are_not_read() {
    let zeros = Piece {
        len: 64 << 20,
        fill: Fill::Hole,
    };
    let source = Disk::pieced(&[data(8192, 1), zeros.clone(), data(8192, 1)]);
    let target = Disk::pieced(&[
        zeros,
        Piece {
            len: 16_384,
            fill: Fill::Hole,
        },
    ]);
    let seen = Seen::of(&source, &target, &CompareOptions::default(), 2);
    assert_eq!(seen.report.compared_bytes, 16_384);
    assert_eq!(target.reads(), []);
    check_against_bytes(&source, &target, &CompareOptions::default(), &seen);
}

#[test]
fn an_unreadable_source_ends_the_work_and_says_where() {
    let source = Disk::dense(vec![1; 1 << 20]).failing(Some(700_000..700_001));
    let target = Disk::dense(vec![1; 1 << 20]);
    let work = Work::with_threads(2).unwrap();
    let error = compare(&source, &target, &CompareOptions::default(), &work, &|_| {
        Ok(())
    });
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreadable);
    assert_eq!(error.offset(), Some(700_000));
    assert_eq!(error.path().unwrap(), "bad.img");
}

#[test]
fn skipped_pages_are_listed_once_merged_and_no_wider_than_they_are() {
    let source = Disk::dense(vec![1; 1_000_000]).failing([
        5000..5001,
        8191..8193,
        524_280..524_290,
        999_999..1_000_000,
    ]);
    let target = Disk::dense(vec![2; 1_000_000]);
    let options = CompareOptions::default().with_skip_unreadable(true);
    let seen = Seen::of(&source, &target, &options, 2);
    assert_eq!(
        seen.report.unreadable,
        [4096..12_288, 520_192..528_384, 999_424..1_000_000]
    );
    assert_eq!(seen.report.changed_bytes, 1_000_000 - 8192 - 8192 - 576);
    check_against_bytes(&source, &target, &options, &seen);
}

#[test]
fn an_unreadable_target_is_an_error_whatever_is_skipped() {
    let source = Disk::dense(vec![1; 1 << 20]);
    let target = Disk::dense(vec![1; 1 << 20]).failing(Some(5000..5001));
    let work = Work::with_threads(2).unwrap();
    let options = CompareOptions::default().with_skip_unreadable(true);
    let error = compare(&source, &target, &options, &work, &|_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn a_damaged_source_is_not_taken_for_an_unreadable_one() {
    let source = Disk::dense(vec![1; 1 << 20])
        .failing(Some(5000..5001))
        .failing_with(ErrorKind::Malformed);
    let target = Disk::dense(vec![1; 1 << 20]);
    let work = Work::with_threads(2).unwrap();
    let options = CompareOptions::default().with_skip_unreadable(true);
    let error = compare(&source, &target, &options, &work, &|_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
}

#[test]
fn a_cancel_stops_within_a_unit_of_each_thread() {
    let (source, target) = (
        Disk::dense(vec![1; 32 << 20]),
        Disk::dense(vec![2; 32 << 20]),
    );
    let cancel = CancelToken::new();
    let work = Work::with_threads(2).unwrap().with_cancel(cancel.clone());
    let visited = AtomicU64::new(0);
    let error = compare(
        &source,
        &target,
        &CompareOptions::default(),
        &work,
        &|difference| {
            visited.fetch_add(difference.new.len(), Ordering::SeqCst);
            cancel.cancel();
            Ok(())
        },
    );
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(visited.into_inner() <= 4 << 20);
}

#[test]
fn what_the_visitor_fails_with_ends_the_work() {
    let (source, target) = (
        Disk::dense(vec![1; 32 << 20]),
        Disk::dense(vec![2; 32 << 20]),
    );
    let work = Work::with_threads(2).unwrap();
    let calls = AtomicU64::new(0);
    let error = compare(&source, &target, &CompareOptions::default(), &work, &|_| {
        calls.fetch_add(1, Ordering::SeqCst);
        Err(Error::new(ErrorKind::NoSpace, "full"))
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(calls.into_inner() <= 2);
}

#[test]
fn work_that_runs_on_a_thread_of_its_own_pool_ends() {
    let work = Work::with_threads(1).unwrap();
    let (source, target) = (Disk::dense(vec![1; 1 << 20]), Disk::dense(vec![2; 1 << 20]));
    let found = work
        .pool()
        .install(|| images(&source, &target, &CompareOptions::default(), &work));
    assert_eq!(found.unwrap(), [Extent::data(0..1 << 20)]);
}

#[test]
fn a_raw_image_is_mended_while_it_is_compared() {
    let old = vec![3; 3_000_001];
    let mut new = old.clone();
    for at in (0..new.len()).step_by(77_777) {
        new[at] = 4;
    }
    new[1 << 20..(1 << 20) + 50_000].fill(0);
    let storage = Arc::new(MemoryStorage::new("target", old));
    let source = Raw::open(Arc::new(MemoryStorage::new("source", new.clone()))).unwrap();
    let target = Raw::open(storage.clone()).unwrap();
    let work = Work::with_threads(2).unwrap();
    compare(
        &source,
        &target,
        &CompareOptions::default(),
        &work,
        &|difference| match difference.new.bytes() {
            Some(bytes) => target.write_all_at(bytes, difference.offset),
            None => target.write_zeroes_at(difference.range()),
        },
    )
    .unwrap();
    assert!(storage.to_vec() == new);
}

/// A disk in memory whose extents are what the test says, whose reads are counted byte by byte,
/// and some of whose bytes cannot be read.
struct Disk {
    bytes: RwLock<Vec<u8>>,
    extents: Vec<Extent>,
    failing: Vec<Range<u64>>,
    fails_with: ErrorKind,
    reads: Mutex<Vec<Range<u64>>>,
}

impl Disk {
    /// All data.
    fn dense(bytes: Vec<u8>) -> Self {
        let len = bytes.len() as u64;
        let extents = Vec::from_iter((len > 0).then(|| Extent::data(0..len)));
        Disk::with_extents(bytes, extents)
    }

    /// Consecutive pieces from 0 on; equal fills at equal places hold equal bytes.
    fn pieced(pieces: &[Piece]) -> Self {
        let mut bytes = Vec::new();
        let mut extents = Vec::new();
        for piece in pieces {
            let start = bytes.len() as u64;
            let range = start..start + piece.len as u64;
            bytes.extend(range.clone().map(|at| match piece.fill {
                Fill::Hole | Fill::Zeros => 0,
                Fill::Counting(mask) => (at % 251) as u8 ^ mask,
            }));
            extents.push(match piece.fill {
                Fill::Hole => Extent::zero(range),
                _ => Extent::data(range),
            });
        }
        extents.retain(|extent| extent.len > 0);
        Disk::with_extents(bytes, extents)
    }

    fn with_extents(bytes: Vec<u8>, extents: Vec<Extent>) -> Self {
        Disk {
            bytes: RwLock::new(bytes),
            extents,
            failing: Vec::new(),
            fails_with: ErrorKind::Io,
            reads: Mutex::new(Vec::new()),
        }
    }

    fn failing(mut self, failing: impl IntoIterator<Item = Range<u64>>) -> Self {
        self.failing = failing.into_iter().collect();
        self
    }

    fn failing_with(mut self, kind: ErrorKind) -> Self {
        self.fails_with = kind;
        self
    }

    fn content(&self) -> Vec<u8> {
        self.bytes.read().unwrap().clone()
    }

    /// What has been read, in order of place.
    fn reads(&self) -> Vec<Range<u64>> {
        let mut reads = self.reads.lock().unwrap().clone();
        reads.sort_by_key(|range| range.start);
        reads
    }

    fn write(&self, difference: Difference<'_>) {
        let mut bytes = self.bytes.write().unwrap();
        let range = difference.range();
        if bytes.len() < range.end as usize {
            bytes.resize(range.end as usize, 0);
        }
        let there = &mut bytes[range.start as usize..range.end as usize];
        match difference.new {
            Content::Bytes(new) => there.copy_from_slice(new),
            Content::Zeros(_) => there.fill(0),
        }
    }
}

impl Image for Disk {
    fn disk_len(&self) -> u64 {
        self.bytes.read().unwrap().len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let range = offset..offset + buf.len() as u64;
        if let Some(bad) = self.failing.iter().find(|bad| overlap(bad, &range)) {
            return Err(Error::new(self.fails_with, "bad sector")
                .at_path("bad.img")
                .at_offset(bad.start.max(offset)));
        }
        let bytes = self.bytes.read().unwrap();
        let Some(from) = bytes.get(range.start as usize..range.end as usize) else {
            return Err(Error::new(ErrorKind::Io, "read past the end").at_path("short.img"));
        };
        buf.copy_from_slice(from);
        self.reads.lock().unwrap().push(range);
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        let extent = self.extents.iter().find(|extent| extent.end() > offset);
        Ok(extent.map(|extent| Extent {
            offset,
            len: extent.end() - offset,
            kind: extent.kind,
        }))
    }

    fn info(&self) -> ImageInfo {
        // The only way to make one outside of the crate: ask a real image.
        Raw::open(Arc::new(MemoryStorage::default()))
            .unwrap()
            .info()
    }
}

#[derive(Debug, Clone)]
struct Piece {
    len: usize,
    fill: Fill,
}

#[derive(Debug, Clone, Copy)]
enum Fill {
    Hole,
    Zeros,
    Counting(u8),
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

fn data(len: usize, mask: u8) -> Piece {
    Piece {
        len,
        fill: Fill::Counting(mask),
    }
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let len = prop_oneof![
        4 => 0usize..10_000,
        3 => (0usize..6).prop_map(|pages| pages * 4096),
        2 => (0usize..200).prop_map(|sectors| sectors * 512),
        1 => 500_000usize..600_000,
    ];
    let fill = prop_oneof![
        Just(Fill::Hole),
        Just(Fill::Zeros),
        Just(Fill::Counting(0)),
        Just(Fill::Counting(9)),
    ];
    prop::collection::vec(
        (len, fill).prop_map(|(len, fill)| Piece { len, fill }),
        0..12,
    )
}

fn options() -> impl Strategy<Value = CompareOptions> {
    let range = (0u64..1_000_000, 0u64..200_000).prop_map(|(start, len)| start..start + len);
    let map = prop::option::of(prop::collection::vec(range, 0..6));
    (map, 0u64..50_000).prop_map(|(map, max)| {
        CompareOptions::default()
            .with_change_map(map)
            .with_max_difference_bytes(max)
    })
}

/// The options with a change map of a disk of `disk_len` bytes.
fn inside(options: CompareOptions, disk_len: u64) -> CompareOptions {
    let map = options.change_map.clone();
    let cut = |range: Range<u64>| range.start.min(disk_len)..range.end.min(disk_len);
    options.with_change_map(map.map(|map| map.into_iter().map(cut).collect::<Vec<_>>()))
}

/// What one comparison told.
struct Seen {
    /// Offset, new bytes or zeros, old bytes or zeros; in order of place.
    differences: Vec<(u64, Told, Told)>,
    report: CompareReport,
}

#[derive(Debug, Clone, PartialEq)]
enum Told {
    Bytes(Vec<u8>),
    Zeros(u64),
}

impl Seen {
    fn of(source: &Disk, target: &Disk, options: &CompareOptions, threads: usize) -> Seen {
        let progress = Arc::new(Counted::default());
        let work = Work::with_threads(threads)
            .unwrap()
            .with_progress(progress.clone());
        let differences = Mutex::new(Vec::new());
        let report = compare(source, target, options, &work, &|difference| {
            let told = (
                difference.offset,
                told(difference.new),
                told(difference.old),
            );
            differences.lock().unwrap().push(told);
            Ok(())
        });
        assert_eq!(
            progress.total.load(Ordering::SeqCst),
            progress.done.load(Ordering::SeqCst)
        );
        let mut differences = differences.into_inner().unwrap();
        differences.sort_by_key(|difference| difference.0);
        Seen {
            differences,
            report: report.unwrap(),
        }
    }
}

fn told(content: Content<'_>) -> Told {
    match content {
        Content::Bytes(bytes) => Told::Bytes(bytes.to_vec()),
        Content::Zeros(len) => Told::Zeros(len),
    }
}

impl Told {
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Told::Bytes(bytes) => bytes,
            Told::Zeros(len) => vec![0; len as usize],
        }
    }
}

#[derive(Default)]
struct Counted {
    total: AtomicU64,
    done: AtomicU64,
}

impl Progress for Counted {
    fn begin(&self, phase: Phase, total_bytes: Option<u64>) {
        assert_eq!(phase, Phase::Diff);
        self.total.store(total_bytes.unwrap(), Ordering::SeqCst);
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::SeqCst);
    }
}

/// The naive way: every page that a change map touches, byte by byte.
fn differing_pages(
    source: &Disk,
    target: &Disk,
    change_map: Option<&[Range<u64>]>,
) -> Vec<(Range<u64>, ExtentKind)> {
    let new = source.content();
    let mut old = target.content();
    old.resize(new.len().max(old.len()), 0);
    let len = new.len() as u64;
    let pages = (0..len.div_ceil(PAGE)).map(|page| page * PAGE..len.min((page + 1) * PAGE));
    let mapped = |page: &Range<u64>| {
        // All of a page counts, also where the disk ends inside it.
        let page = page.start..page.start + PAGE;
        change_map.is_none_or(|map| map.iter().any(|r| !r.is_empty() && overlap(r, &page)))
    };
    let bytes = |of: &[u8], page: &Range<u64>| of[page.start as usize..page.end as usize].to_vec();
    pages
        .filter(mapped)
        .filter(|page| bytes(&new, page) != bytes(&old, page))
        .map(
            |page| match bytes(&new, &page).iter().all(|byte| *byte == 0) {
                true => (page, ExtentKind::Zero),
                false => (page, ExtentKind::Data),
            },
        )
        .collect()
}

fn check_against_bytes(source: &Disk, target: &Disk, options: &CompareOptions, seen: &Seen) {
    let unreadable = &seen.report.unreadable;
    let expected: Vec<_> = differing_pages(source, target, options.change_map.as_deref())
        .into_iter()
        .filter(|(page, _)| !unreadable.iter().any(|bad| overlap(bad, page)))
        .collect();
    for bad in unreadable {
        assert_eq!(bad.start % PAGE, 0);
        for page in bad.clone().step_by(PAGE as usize) {
            let page = page..(page + PAGE).min(source.disk_len());
            assert!(source.failing.iter().any(|range| overlap(range, &page)));
        }
    }

    let mut found = Vec::new();
    let new_bytes = source.content();
    let mut old_bytes = target.content();
    old_bytes.resize(new_bytes.len().max(old_bytes.len()), 0);
    let (mut changed, mut zeroed) = (0, 0);
    for (offset, new, old) in seen.differences.iter().cloned() {
        let kind = match new {
            Told::Bytes(_) => ExtentKind::Data,
            Told::Zeros(_) => ExtentKind::Zero,
        };
        let (new, old) = (new.into_bytes(), old.into_bytes());
        let end = offset + new.len() as u64;
        assert!(new == new_bytes[offset as usize..end as usize]);
        assert!(old == old_bytes[offset as usize..end as usize]);
        assert!(new.len() as u64 <= options.max_difference_bytes.max(PAGE));
        changed += new.len() as u64;
        zeroed += if kind == ExtentKind::Zero {
            new.len() as u64
        } else {
            0
        };
        for start in (offset..end).step_by(PAGE as usize) {
            found.push((start..end.min(start + PAGE), kind));
        }
    }
    assert_eq!(found, expected);
    assert_eq!(seen.report.changed_bytes, changed);
    assert_eq!(seen.report.zeroed_bytes, zeroed);
    assert_eq!(seen.report.granularity_bytes, PAGE);
}

/// No byte is read twice, and long stretches that an image knows to be zeros not at all.
fn check_reads(source: &Disk, target: &Disk) {
    for disk in [source, target] {
        let reads = disk.reads();
        for pair in reads.windows(2) {
            assert!(pair[0].end <= pair[1].start, "read twice: {pair:?}");
        }
        for zeros in disk.extents.iter().filter(|e| e.kind == ExtentKind::Zero) {
            let pages = zeros.offset.next_multiple_of(PAGE)..zeros.end() / PAGE * PAGE;
            for read in &reads {
                let rest = read.start.max(pages.start)..pages.end;
                let long = !rest.is_empty() && rest.end - rest.start >= 16 << 10;
                assert!(
                    !long || !overlap(read, &rest),
                    "zeros {pages:?} read by {read:?}"
                );
            }
        }
    }
}

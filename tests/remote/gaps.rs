//! Sources that cannot be read everywhere.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use diskdelta::diff::Difference;
use diskdelta::image::{Image, ImageInfo};
use diskdelta::remote::{Message, Windows};
use diskdelta::{Error, ErrorKind, Extent, Result};

use crate::disks::{PAGE, PageDisk, next_random};
use crate::pair::{Plan, Side, run};
use crate::rounds;

const MIB: u64 = 1 << 20;

/// A disk some of whose pages cannot be read.
struct Broken {
    disk: PageDisk,
    pages: BTreeSet<u64>,
}

impl Image for Broken {
    fn disk_len(&self) -> u64 {
        self.disk.disk_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let pages = offset / PAGE..(offset + buf.len() as u64).div_ceil(PAGE);
        match self.pages.range(pages).next() {
            Some(page) => Err(Error::new(ErrorKind::Io, "broken").at_offset(page * PAGE)),
            None => self.disk.read_exact_at(buf, offset),
        }
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        self.disk.next_extent(offset)
    }

    fn info(&self) -> ImageInfo {
        self.disk.info()
    }
}

/// A source with broken pages, all of which hold data, and a target.
fn disks(rng: &mut u64) -> (Broken, PageDisk) {
    let lens = [4097, MIB + 5000, 9 * MIB, 64 * MIB + 9000, 200 * MIB + 123];
    let len = lens[next_random(rng) as usize % lens.len()];
    let (source, target) = (PageDisk::new(len), PageDisk::new(len));
    let count = len.div_ceil(PAGE);
    let mut pages = BTreeSet::new();
    for _ in 0..1 + next_random(rng) % 12 {
        let grids = [1, 16, 256, 2048];
        let grid = grids[next_random(rng) as usize % grids.len()];
        let start = next_random(rng) % count / grid * grid;
        for page in start..(start + 1 + next_random(rng) % 20).min(count) {
            source.put(page, page + 1);
            match next_random(rng) % 3 {
                0 => target.put(page, page + 1),
                1 => target.put(page, page + 77),
                _ => {}
            }
            if next_random(rng).is_multiple_of(3) {
                pages.insert(page);
            }
        }
    }
    let disk = source;
    (Broken { disk, pages }, target)
}

#[test]
fn what_cannot_be_read_is_left_alone_and_told_and_all_else_becomes_the_source() {
    for seed in 0..rounds(1500) {
        let mut rng = seed;
        let (source, target) = disks(&mut rng);
        let before = target.contents();
        let visit = |difference: Difference<'_>| {
            target.take(&difference);
            Ok(())
        };
        let mut plan = Plan::new(seed, source.disk_len());
        plan.skips = true;
        let outcome = run(&source, &target, &visit, &plan);
        let report = outcome
            .target
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let told = report.unreadable.iter().flat_map(|range| {
            assert!(range.start.is_multiple_of(PAGE), "seed {seed}");
            range.start / PAGE..range.end.div_ceil(PAGE)
        });
        assert!(told.eq(source.pages.iter().copied()), "seed {seed}");
        let mut wanted = source.disk.contents();
        for page in &source.pages {
            wanted.remove(page);
            wanted.extend(before.get(page).map(|bytes| (*page, bytes.clone())));
        }
        assert!(target.contents() == wanted, "seed {seed}");
    }
}

#[test]
fn what_cannot_be_read_is_told_as_ranges_of_the_disk_also_behind_windows() {
    let len = 40 * MIB;
    let (disk, target) = (PageDisk::new(len), PageDisk::new(len));
    let pages = BTreeSet::from([700, 701, 5000]);
    for page in 0..len / PAGE {
        disk.put(page, page + 1);
    }
    let source = Broken { disk, pages };
    let ranges = [500 * PAGE..701 * PAGE, 4990 * PAGE..5010 * PAGE];
    let mut plan = Plan::new(1, len);
    plan.windows = Windows::of(&ranges, len).unwrap();
    plan.skips = true;
    let report = run(&source, &target, &|_| Ok(()), &plan).target.unwrap();
    let told = [700 * PAGE..701 * PAGE, 5000 * PAGE..5001 * PAGE];
    assert_eq!(report.unreadable, told);
}

#[test]
fn without_being_asked_to_skip_a_source_that_cannot_be_read_is_an_error() {
    let (source, target) = disks(&mut 3);
    assert!(!source.pages.is_empty());
    let outcome = run(
        &source,
        &target,
        &|_| Ok(()),
        &Plan::new(3, source.disk_len()),
    );
    assert_eq!(outcome.source.unwrap_err().kind(), ErrorKind::Unreadable);
}

#[test]
fn gaps_that_nobody_asked_about_or_that_make_no_sense_are_refused() {
    let (source, target) = disks(&mut 4);
    let len = source.disk_len();
    let wrong = [
        (false, Some(0..PAGE)),
        (true, Some(0..len + PAGE)),
        (true, None),
    ];
    for (skips, gaps) in wrong {
        let told = AtomicU64::new(0);
        let lie = |message: &mut Message| {
            if told.fetch_add(1, Ordering::Relaxed) == 0 {
                *message = Message::Unreadable(gaps.clone().into_iter().collect());
            }
        };
        let mut plan = Plan::new(4, len);
        plan.skips = skips;
        plan.lie = Some((Side::Source, &lie));
        let sound = Broken {
            disk: source.disk.copy(),
            pages: BTreeSet::new(),
        };
        let error = run(&sound, &target, &|_| Ok(()), &plan).target.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
    }
}

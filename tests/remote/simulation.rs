//! Both ends against each other, every order of events drawn by chance; seeds are printed.

use diskdelta::diff::Difference;
use diskdelta::image::Image;
use diskdelta::remote::Windows;
use diskdelta::{BlockSize, Work, manifest};

use crate::disks::{PAGE, PageDisk, next_random};
use crate::pair::{Fault, Plan, run};
use crate::rounds;

const MIB: u64 = 1 << 20;

/// A source, and a target that holds some of it.
fn disks(rng: &mut u64) -> (PageDisk, PageDisk) {
    let lens = [
        0,
        1,
        4095,
        4096,
        65_537,
        MIB + 5000,
        63 * MIB,
        64 * MIB + 9000,
        400 * MIB + 123,
    ];
    let len = lens[next_random(rng) as usize % lens.len()];
    let (source, target) = (PageDisk::new(len), PageDisk::new(len));
    let count = len.div_ceil(PAGE);
    if count == 0 {
        return (source, target);
    }
    for _ in 0..next_random(rng) % 12 {
        // Runs of pages, here and there, often at borders of blocks and batches.
        let grids = [1, 1, 4, 16, 256, 16_384];
        let grid = grids[next_random(rng) as usize % grids.len()];
        let start = next_random(rng) % count / grid * grid;
        for page in start..(start + 1 + next_random(rng) % 20).min(count) {
            let seed = next_random(rng) % 3;
            source.put(page, seed * (page + 1));
            match next_random(rng) % 4 {
                0 => target.put(page, seed * (page + 1)),
                1 => target.put(page, 0),
                2 => target.put(page, page + 77),
                _ => {}
            }
        }
    }
    (source, target)
}

#[test]
fn whatever_the_order_of_events_the_target_becomes_the_source() {
    let mut steps = 0;
    for seed in 0..rounds(1500) {
        let mut rng = seed;
        let (source, target) = disks(&mut rng);
        let in_place = next_random(&mut rng).is_multiple_of(2);
        let result = target.copy();
        let visit = |difference: Difference<'_>| {
            result.take(&difference);
            if in_place {
                target.take(&difference);
            }
            Ok(())
        };
        let plan = Plan::new(seed, source.disk_len());
        let outcome = run(&source, &target, &visit, &plan);
        if let Err(error) = outcome.source {
            panic!("seed {seed}: {error}; the other end: {:?}", outcome.target);
        }
        let report = outcome
            .target
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(result.contents() == source.contents(), "seed {seed}");
        if source.contents() == PageDisk::copy(&target).contents() && !in_place {
            assert_eq!(report.changed_bytes, 0, "seed {seed}");
        }
        steps += outcome.steps;
    }
    eprintln!("{steps} steps");
}

#[test]
fn only_what_differs_is_handed_out_with_what_was_there() {
    for seed in 0..rounds(300) {
        let mut rng = seed;
        let (source, target) = disks(&mut rng);
        let visit = |difference: Difference<'_>| {
            let mut old = vec![0; difference.new.len() as usize];
            target.read_exact_at(&mut old, difference.offset)?;
            assert_eq!(difference.old.len(), difference.new.len());
            assert!(difference.old.bytes().is_none_or(|bytes| bytes == old));
            let zeros = vec![0; old.len()];
            let new = difference.new.bytes().unwrap_or(&zeros);
            let mut pages = new.chunks(PAGE as usize).zip(old.chunks(PAGE as usize));
            assert!(pages.all(|(new, old)| new != old), "seed {seed}");
            Ok(())
        };
        let outcome = run(
            &source,
            &target,
            &visit,
            &Plan::new(seed, source.disk_len()),
        );
        outcome.target.unwrap();
    }
}

#[test]
fn after_any_fault_of_the_line_nothing_wrong_counts_as_done_and_a_new_run_ends_it() {
    let faults = [
        Fault::Cut,
        Fault::Twice,
        Fault::Late,
        Fault::Flip,
        Fault::Lost,
    ];
    let (mut steps, mut failed) = (0, 0);
    for seed in 0..rounds(3000) {
        let mut rng = seed;
        let (source, target) = disks(&mut rng);
        let visit = |difference: Difference<'_>| {
            target.take(&difference);
            Ok(())
        };
        let mut plan = Plan::new(seed, source.disk_len());
        let fault = faults[next_random(&mut rng) as usize % faults.len()];
        plan.fault = Some((next_random(&mut rng) % 12, fault));
        let outcome = run(&source, &target, &visit, &plan);
        steps += outcome.steps;
        match outcome.target {
            Ok(_) => assert!(target.contents() == source.contents(), "seed {seed}"),
            Err(_) => failed += 1,
        }
        plan.fault = None;
        let again = run(&source, &target, &visit, &plan);
        again
            .target
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(target.contents() == source.contents(), "seed {seed}");
        steps += again.steps;
    }
    eprintln!("{steps} steps, {failed} runs broken by a fault");
    assert!(failed > 0);
}

#[test]
fn hashes_too_short_to_tell_are_found_out_by_the_root() {
    let (mut missed, mut right) = (0, 0);
    for seed in 0..rounds(400) {
        let mut rng = seed;
        let len = 64 * MIB;
        let (source, target) = (PageDisk::new(len), PageDisk::new(len));
        for _ in 0..200 {
            let page = next_random(&mut rng) % (len / PAGE);
            source.put(page, page + 1);
            target.put(page, page + 2);
        }
        let visit = |difference: Difference<'_>| {
            target.take(&difference);
            Ok(())
        };
        let mut plan = Plan::new(seed, len);
        plan.hash_len = 1;
        match run(&source, &target, &visit, &plan).target {
            Ok(_) => {
                assert!(target.contents() == source.contents(), "seed {seed}");
                right += 1;
            }
            Err(error) => {
                assert_eq!(
                    error.kind(),
                    diskdelta::ErrorKind::VerifyFailed,
                    "seed {seed}"
                );
                missed += 1;
            }
        }
        plan.hash_len = 16;
        run(&source, &target, &visit, &plan).target.unwrap();
        assert!(target.contents() == source.contents(), "seed {seed}");
    }
    eprintln!("{missed} runs missed something, {right} did not");
    assert!(missed > 0);
}

#[test]
fn the_root_on_the_line_is_that_of_a_manifest() {
    let (source, target) = disks(&mut 5);
    let outcome = run(
        &source,
        &target,
        &|_| Ok(()),
        &Plan::new(5, source.disk_len()),
    );
    let work = Work::with_threads(1).unwrap();
    let root = manifest::root_of(&source, BlockSize::default(), &work).unwrap();
    assert_eq!(outcome.root.unwrap(), *root.as_bytes());
}

#[test]
fn windows_confine_what_is_looked_at() {
    for seed in 0..rounds(500) {
        let mut rng = seed;
        let (source, target) = disks(&mut rng);
        let len = source.disk_len();
        let mut ranges = Vec::new();
        let mut at = 0;
        while at < len && ranges.len() < 40 {
            let start = at + next_random(&mut rng) % 90 * PAGE;
            let end = (start + (1 + next_random(&mut rng) % 90) * PAGE).min(len);
            if start >= end {
                break;
            }
            ranges.push(start..end);
            at = end;
        }
        let result = target.copy();
        let visit = |difference: Difference<'_>| {
            let range = difference.range();
            let inside = |it: &std::ops::Range<u64>| it.start <= range.start && range.end <= it.end;
            assert!(ranges.iter().any(inside), "seed {seed}");
            result.take(&difference);
            Ok(())
        };
        let mut plan = Plan::new(seed, len);
        plan.windows = Windows::of(&ranges, len).unwrap();
        run(&source, &target, &visit, &plan).target.unwrap();
        for range in &ranges {
            let (mut new, mut now) = (vec![0; (range.end - range.start) as usize], Vec::new());
            now.resize(new.len(), 0);
            source.read_exact_at(&mut new, range.start).unwrap();
            result.read_exact_at(&mut now, range.start).unwrap();
            assert!(new == now, "seed {seed}");
        }
    }
}

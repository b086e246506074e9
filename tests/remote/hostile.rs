//! Ends that lie.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use diskdelta::diff::Difference;
use diskdelta::image::Image;
use diskdelta::remote::{Message, NewBlock};
use diskdelta::{BlockSize, ErrorKind, Work, manifest};

use crate::disks::{PAGE, PageDisk, next_random};
use crate::pair::{Plan, Side, run};

const MIB: u64 = 1 << 20;

fn disks(seed: u64) -> (PageDisk, PageDisk) {
    let len = 130 * MIB + 4096 * (seed % 3);
    let (source, target) = (PageDisk::new(len), PageDisk::new(len));
    let mut rng = seed;
    for _ in 0..30 {
        let page = next_random(&mut rng) % (len / PAGE);
        let (new, old) = (next_random(&mut rng) % 3, next_random(&mut rng) % 3);
        source.put(page, new * (page + 1));
        target.put(page, old * (page + 1));
    }
    (source, target)
}

/// Changes one message, here or there, in a way that leaves it readable, if that can be done.
fn change(message: &mut Message, hash_len: usize, rng: &mut u64) {
    let mut frame = message.encode();
    for _ in 0..20 {
        let mut changed = frame.clone();
        if changed.payload.is_empty() {
            return;
        }
        let at = next_random(rng) as usize % changed.payload.len();
        match next_random(rng) % 3 {
            0 => changed.payload[at] ^= 1 << (next_random(rng) % 8),
            1 => changed.payload[at] = next_random(rng) as u8 % 4,
            _ => changed.payload[at] = changed.payload[at].wrapping_add(1),
        }
        if let Ok(lie) = Message::decode(&changed, hash_len) {
            *message = lie;
            return;
        }
    }
    frame.payload.clear();
}

#[test]
fn a_lying_source_never_makes_a_target_that_lacks_the_root_it_told() {
    let work = Work::with_threads(1).unwrap();
    let (mut refused, mut taken) = (0, 0);
    for seed in 0..1500 {
        let (source, target) = disks(seed);
        let visit = |difference: Difference<'_>| {
            target.take(&difference);
            Ok(())
        };
        let (count, rng) = (Cell::new(0), Cell::new(seed));
        let lie = |message: &mut Message| {
            count.set(count.get() + 1);
            if count.get() == 1 + seed % 9 {
                let mut state = rng.get();
                change(message, 5, &mut state);
            }
        };
        let mut plan = Plan::new(seed, source.disk_len());
        plan.lie = Some((Side::Source, &lie));
        let outcome = run(&source, &target, &visit, &plan);
        match outcome.target {
            Ok(_) => {
                let root = manifest::root_of(&target, BlockSize::default(), &work).unwrap();
                assert_eq!(outcome.root, Some(*root.as_bytes()), "seed {seed}");
                taken += 1;
            }
            Err(_) => refused += 1,
        }
    }
    eprintln!("{refused} lies refused, {taken} without effect");
    assert!(refused > 100);
}

#[test]
fn a_lying_target_gets_no_more_than_the_disk_and_ends_nothing_but_itself() {
    let (mut refused, mut taken) = (0, 0);
    for seed in 0..1500 {
        let (source, target) = disks(seed);
        let (count, rng) = (Cell::new(0), Cell::new(seed));
        let lie = |message: &mut Message| {
            count.set(count.get() + 1);
            if count.get() == 1 + seed % 5 {
                let mut state = rng.get();
                change(message, 5, &mut state);
            }
        };
        let mut plan = Plan::new(seed, source.disk_len());
        plan.lie = Some((Side::Target, &lie));
        let outcome = run(&source, &target, &|_| Ok(()), &plan);
        let most = source.contents().len() as u64 * (PAGE + 100) + 16_384;
        assert!(outcome.bytes < most, "seed {seed}: {} bytes", outcome.bytes);
        match outcome.source {
            Ok(()) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    eprintln!("{refused} lies refused, {taken} taken");
    assert!(refused > 50);
}

#[test]
fn data_that_nobody_asked_for_is_refused() {
    let (source, target) = disks(1);
    let emitted = AtomicU64::new(0);
    let visit = |difference: Difference<'_>| {
        // Pages that become zero need no data.
        let bytes = difference.new.bytes();
        emitted.fetch_add(u64::from(bytes.is_some()), Ordering::Relaxed);
        Ok(())
    };
    let lie = |message: &mut Message| {
        if let Message::Data(data) = message {
            data.blocks = vec![NewBlock {
                block: 1000,
                data: 1,
                zeros: 0,
            }];
        }
    };
    let mut plan = Plan::new(1, source.disk_len());
    plan.lie = Some((Side::Source, &lie));
    let error = run(&source, &target, &visit, &plan).target.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("was not asked for"), "{error}");
    assert_eq!(emitted.into_inner(), 0);
}

#[test]
fn data_with_another_hash_is_not_handed_out() {
    let (source, target) = disks(2);
    let emitted = AtomicU64::new(0);
    let visit = |difference: Difference<'_>| {
        // Pages that become zero need no data.
        let bytes = difference.new.bytes();
        emitted.fetch_add(u64::from(bytes.is_some()), Ordering::Relaxed);
        Ok(())
    };
    let lie = |message: &mut Message| {
        if let Message::Data(data) = message {
            data.digest[31] ^= 1;
        }
    };
    let mut plan = Plan::new(2, source.disk_len());
    plan.lie = Some((Side::Source, &lie));
    let error = run(&source, &target, &visit, &plan).target.unwrap_err();
    assert!(
        error.to_string().contains("does not have its hash"),
        "{error}"
    );
    assert_eq!(emitted.into_inner(), 0);
}

#[test]
fn a_source_that_tells_another_root_is_found_out() {
    let (source, target) = disks(3);
    let lie = |message: &mut Message| {
        if let Message::Root(root) = message {
            root[0] ^= 1;
        }
    };
    let mut plan = Plan::new(3, source.disk_len());
    plan.lie = Some((Side::Source, &lie));
    let error = run(&source, &target, &|_| Ok(()), &plan)
        .target
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::VerifyFailed);
}

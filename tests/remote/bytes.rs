//! How much goes over the line.

use std::collections::BTreeMap;

use diskdelta::image::Image;

use crate::disks::{NoiseDisk, PAGE, PageDisk, next_random};
use crate::pair::{Plan, run_dry};

const LEN: u64 = 256 << 20;

fn noise(seeds: BTreeMap<u64, u64>) -> NoiseDisk {
    NoiseDisk { len: LEN, seeds }
}

/// What went over the line besides the pages that changed, in parts of a million of the disk.
fn overhead(changed: impl Iterator<Item = u64>) -> f64 {
    let source = noise(changed.map(|page| (page, page + (1 << 40))).collect());
    let outcome = run_dry(&source, &noise(BTreeMap::new()), &Plan::new(2, LEN));
    let report = outcome.target.unwrap();
    assert_eq!(report.changed_bytes, source.seeds.len() as u64 * PAGE);
    (outcome.bytes as f64 - report.changed_bytes as f64) / LEN as f64 * 1e6
}

#[test]
fn one_percent_scattered_costs_the_pages_and_little_else() {
    let mut rng = 1;
    let pages = LEN / PAGE;
    let scattered = (0..pages / 100).map(|_| next_random(&mut rng) % pages);
    let parts = overhead(scattered);
    eprintln!("scattered: {parts:.0} millionths of the disk");
    assert!(parts <= 250.0, "{parts}");
}

#[test]
fn one_percent_in_clusters_costs_the_pages_and_little_else() {
    let mut rng = 2;
    let pages = LEN / PAGE;
    let clusters = (0..pages / 100 / 32).flat_map(|_| {
        let start = next_random(&mut rng) % (pages - 32);
        start..start + 32
    });
    let parts = overhead(clusters);
    eprintln!("clustered: {parts:.0} millionths of the disk");
    assert!(parts <= 250.0, "{parts}");
}

#[test]
fn an_unchanged_disk_costs_next_to_nothing() {
    let parts = overhead(std::iter::empty());
    eprintln!("unchanged: {parts:.1} millionths of the disk");
    assert!(parts <= 10.0, "{parts}");
}

#[test]
fn holes_cost_nothing_however_long() {
    let len = 15 << 40;
    let (source, target) = (PageDisk::new(len), PageDisk::new(len));
    source.put(len / PAGE - 1, 7);
    target.put(len / PAGE / 2, 7);
    let outcome = run_dry(&source, &target, &Plan::new(1, len));
    assert_eq!(outcome.target.unwrap().changed_bytes, 2 * PAGE);
    assert!(outcome.bytes < PAGE + 300, "{}", outcome.bytes);
    assert_eq!(source.disk_len(), len);
}

#[test]
fn zeros_and_what_compresses_are_sent_small() {
    let (source, target) = (PageDisk::new(LEN), PageDisk::new(LEN));
    for page in 0..4096 {
        target.put(page, page + 1);
        // Zeros that were written, not a hole.
        source.put(page, 0);
    }
    let outcome = run_dry(&source, &target, &Plan::new(2, LEN));
    assert_eq!(outcome.target.unwrap().zeroed_bytes, 4096 * PAGE);
    assert!(outcome.bytes < 2000, "{}", outcome.bytes);

    let text = NoiseDisk {
        len: 4 << 20,
        seeds: (0..1024).map(|page| (page, 7)).collect(),
    };
    let outcome = run_dry(&text, &PageDisk::new(4 << 20), &Plan::new(2, 4 << 20));
    assert_eq!(outcome.target.unwrap().changed_bytes, 4 << 20);
    assert!(outcome.bytes < 200_000, "{}", outcome.bytes);
}

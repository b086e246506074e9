//! Makes a source and an old target, syncs, verifies, and prints the report.
//!
//! Run it with `cargo run --release --example quickstart`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use diskdelta::{Disk, Work};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let source_path = directory.path().join("source.raw");
    let target_path = directory.path().join("target.raw");

    // A disk, and an older copy of it: 300 pages differ.
    make_disk(&target_path, 0)?;
    make_disk(&source_path, 300)?;

    let work = Work::new()?;
    let source = Disk::open(&source_path)?;
    let report = source.sync_to(&target_path).run(&work)?;
    println!(
        "outcome:  {:?}, verified: {:?}",
        report.outcome, report.verified
    );
    println!("mode:     {:?}: {}", report.mode, report.reason);
    println!("disk:     {} bytes", report.disk_bytes);
    println!("compared: {} bytes", report.compared_bytes);
    println!("changed:  {} bytes", report.changed_bytes);
    println!("written:  {} bytes", report.written_bytes);
    println!("elapsed:  {:.3} s", report.elapsed.as_secs_f64());

    // Equal roots mean equal disks.
    let (new, now) = (source.root(&work)?, Disk::open(&target_path)?.root(&work)?);
    println!("source:   root {new}");
    println!("target:   root {now}");
    assert_eq!(new, now);

    let again = source.sync_to(&target_path).run(&work)?;
    println!(
        "again:    {:?}, {} bytes written",
        again.outcome, again.written_bytes
    );
    Ok(())
}

/// A disk of 1 GiB that holds 64 MiB of data, with `changes` of its pages changed.
fn make_disk(path: &Path, changes: u64) -> std::io::Result<()> {
    let disk = File::create(path)?;
    disk.set_len(1 << 30)?;
    for run in 0..64 {
        disk.write_all_at(&bytes_of(run, 1 << 20), run * (16 << 20))?;
    }
    for change in 0..changes {
        let page = change % 64 * 4096 + 40 + change % 211;
        disk.write_all_at(&bytes_of(1000 + change, 4096), page * 4096)?;
    }
    Ok(())
}

/// Bytes that look like data and are the same in every run.
fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

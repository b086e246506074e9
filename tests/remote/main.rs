//! Syncs across hosts: the protocol as plain values, and over real lines.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bytes;
#[cfg(feature = "tls")]
mod certificates;
mod codec;
mod disks;
mod ended;
mod full;
mod gaps;
mod holes;
mod hostile;
mod lines;
mod pair;
mod roots;
#[cfg(feature = "tls")]
mod service;
mod simulation;
#[cfg(feature = "tls")]
mod tls;
mod trees;

/// How many seeds a simulation tries, unless the environment says otherwise.
fn rounds(most: u64) -> u64 {
    let asked = std::env::var("DISKDELTA_REMOTE_ROUNDS").ok();
    asked.map_or(most, |text| text.parse().unwrap())
}

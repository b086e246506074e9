//! Syncs across hosts: the protocol as plain values, and over real lines.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bytes;
mod codec;
mod disks;
mod hostile;
mod lines;
mod pair;
mod simulation;

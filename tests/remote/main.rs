//! Syncs across hosts: the protocol as plain values, and over real lines.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bytes;
#[cfg(feature = "tls")]
mod certificates;
mod codec;
mod disks;
mod hostile;
mod lines;
mod pair;
#[cfg(feature = "tls")]
mod service;
mod simulation;
#[cfg(feature = "tls")]
mod tls;

//! Real processes on real files, file systems and loop devices: killed, interrupted, out of space.
//!
//! `DISKDELTA_KILL_ROUNDS` sets how often the command is killed on every kind of target; with
//! `DISKDELTA_LONG` it is thousands of times. `DISKDELTA_SEED` makes other throws.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod clone;
mod concurrent;
#[allow(dead_code, reason = "shared with the tests of the command")]
#[path = "../cli/fixture.rs"]
mod fixture;
mod guard;
mod held;
#[path = "../host/mod.rs"]
mod host;
mod killed;
mod memory;
mod reboot;
mod repeated;
mod rng;
mod room;
mod signalled;
mod source;
mod space;

//! The fuzz targets: one function each from bytes to how deep they led, which panics where
//! something is wrong. The fuzz binaries call them with what libFuzzer makes up, and the crate's
//! ordinary tests (`tests/fuzz_corpus.rs`, which includes this module) with the committed inputs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here is a finding"
)]

pub mod craft;
pub mod input;
pub mod meter;
pub mod oracle;
pub mod reference;
pub mod seeds;
pub mod store;
pub mod targets;

use std::sync::LazyLock;

use diskdelta::Work;

/// How far an input got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// It was refused with an error, as most inputs must be.
    Refused,
    /// It was taken, and every oracle was asked.
    Taken,
}

/// A target's name and what it does.
pub type Target = (&'static str, fn(&[u8]) -> Depth);

/// All targets.
pub const TARGETS: [Target; 16] = [
    ("vhd_raw", targets::vhd::raw),
    ("vhd_structured", targets::vhd::structured),
    ("vhdx_raw", targets::vhdx::raw),
    ("vhdx_structured", targets::vhdx::structured),
    ("vhdx_log", targets::vhdx::log),
    ("chain", targets::chain::chain),
    ("manifest", targets::manifest::manifest),
    ("delta", targets::delta::delta),
    ("apply", targets::apply::apply),
    ("recover", targets::recover::recover),
    ("remote_frames", targets::remote::frames),
    ("remote_source", targets::remote::source),
    ("remote_target", targets::remote::target),
    ("change_map", targets::change_map::change_map),
    ("nbd_replies", targets::nbd::nbd_replies),
    ("http_headers", targets::http::http_headers),
];

/// Runs the target of that name.
pub fn run(name: &str, data: &[u8]) -> Depth {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = found.expect("a target of that name");
    target(data)
}

/// One thread for everything, so that memory does not depend on the machine.
pub fn work() -> &'static Work {
    static WORK: LazyLock<Work> = LazyLock::new(|| Work::with_threads(1).unwrap());
    &WORK
}

//! VHDX, from outside: images of other software, hostile files, writing.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod craft;
mod hostile;
mod hostile_log;
mod large;
mod oracle;
#[path = "../readers/mod.rs"]
mod readers;
mod samples;
mod sectors;
mod support;
mod verdicts;
mod writing;

//! Failback of VMs under a real QEMU: its controller on a machine without a guest, and whole jobs
//! of the command on a small Linux that writes files all the time.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod control;
#[path = "../failback_cli/fixture.rs"]
mod fixture;
mod guest;
#[path = "../host/mod.rs"]
mod host;
mod jobs;
mod vm;

//! Failback of VMs under a real QEMU: its controller on a machine without a guest.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod control;
mod guest;

//! A client of QEMU: its monitor (QMP), and snapshots of a guest's disks, exported for reading.

mod files;
mod monitor;
pub mod qmp;
pub(crate) mod snapshot;

pub(crate) use files::{QemuFiles, remove};
pub(crate) use monitor::{Monitor, Node, Power};

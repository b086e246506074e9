//! A client of QEMU: its monitor (QMP), and snapshots of a guest's disks, exported for reading.

mod files;
mod monitor;
mod power;
pub mod qmp;
pub(crate) mod snapshot;
mod tracking;
mod vm;
mod vm_directory;

pub(crate) use vm::{Launch, QemuVm};

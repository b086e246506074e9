//! Failback: bring virtual machines home from where they ran since a failover.
//!
//! A pure state [`machine`] decides. The [`executor`] carries out what it decides, through a
//! [`controller`] for the VMs of each site and a [`disk_work`] for their [`disks`] (encrypted ones are a [`replica`]), and writes each
//! step to the [`journal`] before it is taken. What to do is in a [`plan`]; all VMs of a
//! plan are one [`job`].

mod bell;
pub mod controller;
pub mod disk_work;
pub mod disks;
pub mod executor;
pub mod inbox;
pub mod job;
pub mod journal;
#[cfg(feature = "qemu")]
mod line;
pub mod lock;
pub mod machine;
#[cfg(feature = "qemu")]
pub mod nbd;
mod perform;
pub mod plan;
mod program;
#[cfg(feature = "qemu")]
pub mod qmp;
pub mod record;
pub mod replica;
mod small_file;
mod watch;

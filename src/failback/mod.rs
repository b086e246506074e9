//! Failback: bring virtual machines home from where they ran since a failover.
//!
//! A pure state [`machine`] decides. The [`executor`] carries out what it decides, through a
//! controller for the VMs of each site ([`vm`]) and a [`disk_work`] for their [`disks`] (encrypted
//! ones are a replica), and writes each step to the
//! journal before it is taken. What to do is in a [`plan`]; all VMs of a plan
//! are one [`job`].

mod bell;
pub mod directory_mailbox;
pub mod disk_work;
pub mod disks;
mod embedded;
pub mod executor;
pub mod history;
pub mod job;
pub mod lock;
pub mod machine;
pub mod mailbox;
mod perform;
pub mod plan;
pub mod record;
pub mod vm;
mod watch;

pub use embedded::Job;

//! Failback: bring virtual machines home from where they ran since a failover.
//!
//! A pure state [`machine`] decides.

pub mod controller;
pub mod disk_work;
pub mod executor;
pub mod inbox;
pub mod journal;
pub mod lock;
pub mod machine;
mod perform;
pub mod plan;
mod program;
pub mod record;

//! Failback: bring virtual machines home from where they ran since a failover.
//!
//! A pure state [`machine`] decides.

pub mod controller;
pub mod journal;
pub mod lock;
pub mod machine;
pub mod plan;
mod program;
pub mod record;

//! Failback: bring virtual machines home from where they ran since a failover.
//!
//! A pure state [`machine`] decides. The [`executor`] carries out what it decides, through a
//! controller for the VMs of each site ([`vm`]) and a [`disk_work`] for their [`disks`] (encrypted
//! ones are a replica), and writes each step to the
//! journal before it is taken. What to do is in a [`plan`]; all VMs of a plan
//! are one [`job`].
//!
//! # Examples
//! Begins the job of a plan and runs it until an operator is needed:
//! ```no_run
//! use diskdelta::Work;
//! use diskdelta::failback::Job;
//! use diskdelta::failback::plan::Plan;
//!
//! # fn main() -> diskdelta::Result<()> {
//! let work = Work::new()?;
//! let plan = Plan::load("plan.toml")?;
//! let job = Job::begin("/var/lib/my-tool", &plan, "my tool", &work)?;
//! let status = job.run(&mut |event| println!("{event:?}"), &work)?;
//! println!("{}", status.vms[0].phase);
//! # Ok(())
//! # }
//! ```

pub mod directory_mailbox;
pub mod disk_work;
pub mod disks;
mod embedded;
pub mod executor;
pub mod history;
pub mod job;
pub mod machine;
pub mod mailbox;
mod perform;
pub mod plan;
pub mod record;
pub mod vm;

pub use embedded::Job;

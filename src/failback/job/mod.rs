//! A job as a whole: all VMs of a plan, run by one process, watched by others.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use diskdelta::failback::job::{JobDirectory, STATE_DIR};
//!
//! # fn main() -> diskdelta::Result<()> {
//! let status = JobDirectory::open(Path::new(STATE_DIR), "shop")?.status()?;
//! for vm in &status.vms {
//!     println!("{}: {}", vm.vm, vm.phase);
//! }
//! # Ok(())
//! # }
//! ```

mod begin;
mod controllers;
mod directory;
mod hooks;
mod meter;
mod preview;
mod requests;
mod run;
mod running_vm;
mod status;
mod trial;
mod vm_mailbox;

pub use controllers::OwnControllers;
pub use directory::{JobDirectory, STATE_DIR};
pub use meter::Moving;
pub use preview::{Checked, DELETED_AT_COMMIT, Preview, check, check_until, estimate, modes};
pub use run::{Event, JobRunner};
pub use status::{JobStatus, LogLine, RunBy, VmStatus};
pub use trial::ProgramTrial;

//! A job as a whole: all VMs of a plan, run by one process, watched by others.

mod begin;
mod controllers;
mod directory;
mod meter;
mod preview;
mod requests;
mod run;
mod status;
mod vm_mailbox;

pub use controllers::OwnControllers;
pub use directory::{JobDirectory, STATE_DIR};
pub use meter::Moving;
pub use preview::{Checked, Preview, check, check_until, estimate, modes};
pub use run::{Event, JobRunner};
pub use status::{JobStatus, LogLine, RunBy, VmStatus};

//! A job as a whole: all VMs of a plan, carried by one process, watched by others.

mod carry;
mod folder;
mod gestures;
mod meter;
mod post;
mod prospect;
mod status;

pub use carry::{Carrier, Event};
pub use folder::{JobFolder, STATE_DIR};
pub use meter::Moving;
pub use prospect::{Checked, Prospect, check, check_until, estimate};
pub use status::{JobStatus, LogLine, VmStatus};

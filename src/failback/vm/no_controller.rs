//! A VM that the program which runs the job should control, and does not.

use super::{Call, Changes, VmController};
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::{Action, Checkpoint, VmSeen};

/// Refuses everything.
#[derive(Debug)]
pub(in crate::failback) struct NoController;

impl VmController for NoController {
    fn execute(&self, _: &Call<'_>, _: Action) -> Result<VmSeen> {
        Err(refused())
    }

    fn changes_since(&self, _: &Call<'_>, _: Option<Checkpoint>, _: bool) -> Result<Changes> {
        Err(refused())
    }
}

fn refused() -> Error {
    let what = "no controller is given for this VM, whose plan names `kind = \"own\"`";
    Error::new(ErrorKind::Unsupported, what)
        .advise("run the job by the program that controls its VMs")
}

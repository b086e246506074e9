//! Tries an operator's program on a VM that is there for that.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;
use crate::failback::disks::blocked_address;
use crate::failback::machine::Side;
use crate::failback::vm::{CommandController, Facts, try_program};
use crate::image::Format;
use crate::location::Location;

/// An operator's program, and a VM that exists, is off, may run, and may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramTrial {
    /// Program and arguments; it gets the verb as its last one.
    pub program: Vec<String>,
    /// How long it may take for a verb.
    pub time_limit: Duration,
    /// The VM's name.
    pub vm: String,
    /// Networks that it must have.
    pub networks: Vec<String>,
    /// Identity and file of each of its disks.
    pub disks: Vec<(String, PathBuf)>,
}

impl ProgramTrial {
    /// Tries each sentence of the contract between a job and a program. `found` is called with
    /// each, and with why it does not hold.
    pub fn run(&self, found: &mut dyn FnMut(&'static str, Result<()>)) {
        let blocked =
            |path: &PathBuf| blocked_address(&Location::Path(path.clone()), Format::Raw, JOB);
        let shown = |path: &PathBuf| path.display().to_string();
        let disks = |at: &dyn Fn(&PathBuf) -> String| {
            let disks = self
                .disks
                .iter()
                .map(|(identity, path)| (identity.clone(), at(path)));
            disks.collect::<Vec<_>>()
        };
        let facts = Facts {
            job: JOB.to_owned(),
            vm: self.vm.clone(),
            side: Side::Target,
            site: "primary".to_owned(),
            host: "localhost".to_owned(),
            networks: self.networks.clone(),
            disks: disks(&shown),
            blocked_disks: disks(&blocked),
        };
        let program = Some(self.program.clone());
        let controller = CommandController::new(facts, BTreeMap::new(), program, self.time_limit);
        let paths = self.disks.iter().map(|(_, path)| path);
        let renamed = paths.map(|path| (path.clone(), blocked(path).into()));
        try_program(&controller, &renamed.collect::<Vec<_>>(), found);
    }
}

const JOB: &str = "controller-test";

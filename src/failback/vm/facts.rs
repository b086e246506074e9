//! What an operator's program gets of the job.

use serde::Serialize;

use crate::error::Result;
use crate::failback::machine::{Side, Token};
use crate::program::Program;

/// What a program gets of the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The job's name.
    pub job: String,
    /// The VM's name.
    pub vm: String,
    /// Which end of the job this VM is.
    pub side: Side,
    /// `primary` or `recovery`.
    pub site: String,
    /// The site's host.
    pub host: String,
    /// The networks that the VM must have.
    pub networks: Vec<String>,
    /// The disks' identities and addresses at this site.
    pub disks: Vec<(String, String)>,
    /// The same disks where they are while their VM must not boot from them.
    pub blocked_disks: Vec<(String, String)>,
}

impl Facts {
    /// A program that has these facts in its environment.
    ///
    /// # Errors
    /// `InvalidInput` without a program.
    pub(super) fn program(&self, argv: Vec<String>, token: Token) -> Result<Program> {
        Ok(Program::new(argv)?
            .with_env("DISKDELTA_TOKEN", token.to_string())
            .with_env("DISKDELTA_JOB", &self.job)
            .with_env("DISKDELTA_VM", &self.vm)
            .with_env("DISKDELTA_SIDE", self.side.to_string())
            .with_env("DISKDELTA_SITE", &self.site)
            .with_env("DISKDELTA_HOST", &self.host))
    }
}

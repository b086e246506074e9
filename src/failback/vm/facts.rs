//! What an operator's program gets of the job.

use serde::Serialize;

use crate::failback::machine::Side;

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
    /// These facts as the environment of a program.
    pub(super) fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("DISKDELTA_JOB", self.job.clone()),
            ("DISKDELTA_VM", self.vm.clone()),
            ("DISKDELTA_SIDE", self.side.to_string()),
            ("DISKDELTA_SITE", self.site.clone()),
            ("DISKDELTA_HOST", self.host.clone()),
        ]
    }
}

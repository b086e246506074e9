//! What a plan says of VMs under QEMU.

use std::time::Duration;

use toml::Spanned;

use super::Controller;
use super::validate::Check;
use super::values::HostPath;
use crate::error::Result;

impl Check<'_> {
    /// The controller of a site whose VMs run under QEMU.
    pub(super) fn qemu(
        &self,
        key: &str,
        at: usize,
        directory: Option<Spanned<HostPath>>,
        start: Option<Vec<String>>,
        time_limit: Duration,
    ) -> Result<Controller> {
        let Some(directory) = directory else {
            let why = "needs `directory`, in which the VMs' directories lie";
            return Err(self.wrong(key, at, why));
        };
        let (path_at, path) = (directory.span().start, directory.into_inner().0);
        // A socket's path has an end; better here than in the middle of a job.
        if path.as_os_str().len() > DIRECTORY_MAX {
            let why = format!("is longer than {DIRECTORY_MAX} bytes: sockets could not be in it");
            return Err(self.wrong(&format!("{key}.directory"), path_at, why));
        }
        let start = start.filter(|argv| argv.first().is_some_and(|program| !program.is_empty()));
        let Some(start) = start else {
            let why = "needs `start`, the program that starts a VM's QEMU";
            return Err(self.wrong(key, at, why));
        };
        Ok(Controller::Qemu {
            directory: path,
            start,
            time_limit,
        })
    }
}

const DIRECTORY_MAX: usize = 80;

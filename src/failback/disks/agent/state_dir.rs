//! Where an agent keeps what it has to remember of jobs: a directory of its own, in which no client
//! and no other user writes.

use std::ffi::OsStr;
use std::path::Path;

use super::messages::{AgentRequest, wrong};
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::disks::disk_path::DiskPath;
use crate::path_bytes::bytes_of;
use crate::remote::{ServeOptions, lies_within};
use crate::storage::HostDirectory;

/// The agent's directory.
pub(super) struct StateDir(HostDirectory);

impl StateDir {
    /// The directory that `options` name, made if it is missing.
    ///
    /// # Errors
    /// `InvalidInput` for one that lies in the directory that is served, and where none is named;
    /// `Untrusted` for one that others may write to; `NoSpace`, `Io`.
    pub(super) fn open(options: &ServeOptions) -> Result<Self> {
        let refused = |what: &'static str| {
            Error::new(ErrorKind::InvalidInput, what).advise(Advice::StateDirectory)
        };
        let Some(path) = &options.state_dir else {
            return Err(refused("this agent has no state directory"));
        };
        HostDirectory::make(path)?;
        let directory = HostDirectory::open(path)?;
        directory.refuse_foreign()?;
        // Where all of the host is served, the agent's own directory is refused by what it is.
        if let Some(root) = &options.root
            && std::fs::canonicalize(root).is_ok_and(|root| root != Path::new("/"))
            && lies_within(path, root)?
        {
            let what = "the agent's own directory lies in the directory that it serves";
            return Err(refused(what).at_path(path));
        }
        Ok(StateDir(directory))
    }

    /// The directory of a request's VM, made if it is missing. Jobs of one name whose disks lie in
    /// different directories have nothing to do with each other.
    pub(super) fn of_vm(&self, request: &AgentRequest) -> Result<HostDirectory> {
        let disk = request.disks.first().ok_or_else(wrong)?;
        let disk_path = DiskPath::new(&disk.path, disk.format, &request.job)?;
        let hash = blake3::hash(bytes_of(disk_path.directory())).to_hex();
        let names = [&hash[..KEY_LEN], &request.job, &request.vm];
        let mut directory = None::<HostDirectory>;
        for name in names {
            let above = directory.as_ref().unwrap_or(&self.0);
            directory = Some(above.subdirectory(OsStr::new(name))?);
        }
        directory.ok_or_else(wrong)
    }
}

/// 64 bits of a hash, in hexadecimal digits.
const KEY_LEN: usize = 16;

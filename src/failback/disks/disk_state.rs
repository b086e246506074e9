//! What a job keeps of each disk beside its journal: the manifest of what the disk should hold,
//! current from pass to pass.

use std::ffi::OsString;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::failback::machine::Side;
use crate::hash::Hash;
use crate::storage::{Access, Directory, FileRef, HostDirectory};
use crate::sync::KeptManifest;

/// The files that a job keeps of one disk at one side.
pub(super) struct DiskState {
    directory: Arc<dyn Directory>,
    stem: String,
    kept: KeptManifest,
}

impl Deref for DiskState {
    type Target = KeptManifest;

    fn deref(&self) -> &KeptManifest {
        &self.kept
    }
}

impl DiskState {
    /// The disk state of a disk, by its number in the plan, in the job's directory.
    pub(super) fn new(directory: &Path, vm: &str, side: Side, disk: usize) -> Result<Self> {
        let directory: Arc<dyn Directory> = Arc::new(HostDirectory::open(directory)?);
        let stem = format!("{vm}.{side}-{disk}");
        Ok(DiskState {
            kept: KeptManifest {
                file: file(&directory, &stem, "manifest"),
                verified: file(&directory, &stem, "verified"),
            },
            directory,
            stem,
        })
    }

    /// Notes something for good. Durable when it returns.
    pub(super) fn note(&self, what: &str) -> Result<()> {
        let file_ref = file(&self.directory, &self.stem, what);
        if file_ref.open_if_there(Access::Read)?.is_none() {
            file_ref.create_new()?.sync()?;
        }
        self.directory.sync()
    }

    /// Takes a note back. Durable when it returns.
    pub(super) fn unnote(&self, what: &str) -> Result<()> {
        file(&self.directory, &self.stem, what).remove_if_there()?;
        self.directory.sync()
    }

    /// Whether something was noted.
    pub(super) fn is_noted(&self, what: &str) -> Result<bool> {
        Ok(file(&self.directory, &self.stem, what)
            .open_if_there(Access::Read)?
            .is_some())
    }
}

fn file(directory: &Arc<dyn Directory>, stem: &str, kind: &str) -> FileRef {
    FileRef::new(directory.clone(), OsString::from(format!("{stem}.{kind}")))
}

/// The one root of all disks of a VM, in the order of the plan.
pub(super) fn combined(roots: &[(&str, Hash)]) -> Hash {
    let mut hash = blake3::Hasher::new_derive_key("diskdelta failback root of a VM's disks v1");
    for (identity, root) in roots {
        hash.update(&(identity.len() as u64).to_le_bytes());
        hash.update(identity.as_bytes());
        hash.update(root.as_bytes());
    }
    Hash::finish(&hash)
}

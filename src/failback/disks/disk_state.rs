//! What a job keeps of each disk beside its journal: the manifest of what the disk should hold,
//! current from pass to pass.

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::disk_path::{exists, remove};
use crate::diff;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::Side;
use crate::hash::Hash;
use crate::image::Image;
use crate::limits::Limits;
use crate::manifest::{self, HashPass, Manifest, ManifestUpdater, ManifestWriter};
use crate::progress::Work;
use crate::storage::{Access, Directory, FileRef, HostDirectory};
use crate::units::BlockSize;

/// The files that a job keeps of one disk at one side.
pub(super) struct DiskState {
    directory: Arc<dyn Directory>,
    stem: String,
}

impl DiskState {
    /// The disk state of a disk, by its number in the plan, in the job's directory.
    pub(super) fn new(directory: &Path, vm: &str, side: Side, disk: usize) -> Result<Self> {
        Ok(DiskState {
            directory: Arc::new(HostDirectory::open(directory)?),
            stem: format!("{vm}.{side}-{disk}"),
        })
    }

    /// Where the manifest of what the disk should hold lies.
    pub(super) fn file_ref(&self) -> FileRef {
        self.file("manifest")
    }

    /// What the disk should hold; `None` before the first pass is complete.
    ///
    /// # Errors
    /// `Malformed` for a damaged one; `Io`.
    pub(super) fn current(&self) -> Result<Option<Manifest>> {
        self.read(&self.file_ref())
    }

    /// What the disk should hold.
    ///
    /// # Errors
    /// As [`current`](Self::current); `NotFound` before the first pass is complete.
    pub(super) fn known(&self) -> Result<Manifest> {
        let at_path = |error: Error| error.at_path(self.file_ref().path());
        self.current()?.ok_or_else(|| at_path(unknown()))
    }

    /// Reads a disk whole, and takes what it holds for what it should hold.
    pub(super) fn rebuild(
        &self,
        image: &dyn Image,
        work: &Work,
        check: &Check<'_>,
    ) -> Result<Manifest> {
        manifest::build_at(image, BlockSize::default(), work, &self.file_ref(), &|_| {
            check()
        })
    }

    /// Takes a pass into account that changed at most these ranges to what `image` holds.
    pub(super) fn update(
        &self,
        image: &dyn Image,
        changed: &[Range<u64>],
        work: &Work,
        check: &Check<'_>,
    ) -> Result<()> {
        let old = self.known()?;
        manifest::save(&self.file_ref(), |storage| {
            let updated = manifest::update_to(&old, image, changed.to_vec(), work, storage)?;
            check()?;
            Ok(updated)
        })?;
        Ok(())
    }

    /// Forgets what the disk should hold: all of it is to be found out anew.
    pub(super) fn forget(&self) -> Result<()> {
        for file_ref in [self.file_ref(), self.file("verified")] {
            file_ref.remove_if_there()?;
        }
        self.directory.sync()
    }

    /// From here on a verification looks at what changes, not at what was there before.
    pub(super) fn set_verified(&self) -> Result<()> {
        let (from, to) = (self.file_ref().path(), self.file("verified").path());
        if !exists(&from)? {
            return Ok(());
        }
        let new = self.file("verified-new").path();
        remove(&new)?;
        // The manifest is replaced, never written to: a second name for it is a copy.
        fs::hard_link(&from, &new)
            .and_then(|()| fs::rename(&new, &to))
            .map_err(|e| Error::io("link", e).at_path(&from))?;
        // Linked twice already, the rename does nothing and leaves both names.
        remove(&new)?;
        self.directory.sync()
    }

    /// The next verification looks at everything.
    pub(super) fn distrust(&self) -> Result<()> {
        self.file("verified").remove_if_there()?;
        self.directory.sync()
    }

    /// The root of what `image` holds, where it is read only as far as it changed since
    /// [`set_verified`](Self::set_verified); all else is taken from what it should hold.
    pub(super) fn found(&self, image: &dyn Image, work: &Work) -> Result<Hash> {
        let current = self.known()?;
        let before = self.read(&self.file("verified"))?;
        let before = before.filter(|before| before.block_size() == current.block_size());
        let Some(before) = before else {
            image.drop_cache(0..image.disk_len());
            return manifest::root_of(image, current.block_size(), work);
        };
        let mut changed = Vec::new();
        for extent in diff::manifests(&before, &current)? {
            let extent = extent?;
            changed.push(extent.offset..extent.end());
        }
        for range in &changed {
            image.drop_cache(range.clone());
        }
        let writer = ManifestWriter::root_only(image.disk_len(), current.block_size());
        let mut updater = ManifestUpdater::new(&current, writer)?;
        HashPass::new(image, current.block_size(), work)
            .within(changed)
            .run(&(), &mut updater)?;
        updater.into_writer()?.finish()
    }

    /// Notes something for good. Durable when it returns.
    pub(super) fn note(&self, what: &str) -> Result<()> {
        let file_ref = self.file(what);
        if file_ref.open_if_there(Access::Read)?.is_none() {
            file_ref.create_new()?.sync()?;
        }
        self.directory.sync()
    }

    /// Takes a note back. Durable when it returns.
    pub(super) fn unnote(&self, what: &str) -> Result<()> {
        self.file(what).remove_if_there()?;
        self.directory.sync()
    }

    /// Whether something was noted.
    pub(super) fn is_noted(&self, what: &str) -> Result<bool> {
        Ok(self.file(what).open_if_there(Access::Read)?.is_some())
    }

    fn file(&self, kind: &str) -> FileRef {
        FileRef::new(
            self.directory.clone(),
            OsString::from(format!("{}.{kind}", self.stem)),
        )
    }

    fn read(&self, file_ref: &FileRef) -> Result<Option<Manifest>> {
        let Some(storage) = file_ref.open_if_there(Access::Read)? else {
            return Ok(None);
        };
        let limits = Limits::default().with_disk_bytes(u64::MAX);
        Manifest::from_storage(storage, &limits)
            .map(Some)
            .map_err(|e| e.at_path(file_ref.path()))
    }
}

/// No pass onto the disk is complete.
pub(super) fn unknown() -> Error {
    let text = "nothing is known of what the disk should hold";
    Error::new(ErrorKind::NotFound, text)
}

/// Whether the image stayed as it was while it was read.
pub(super) type Check<'a> = dyn Fn() -> Result<()> + 'a;

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

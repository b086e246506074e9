//! The manifest of what a disk should hold, kept current from write to write, and how much of it
//! was read back.

use std::fs;
use std::ops::Range;

use crate::diff;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::Image;
use crate::limits::Limits;
use crate::manifest::{self, HashPass, Manifest, ManifestUpdater, ManifestWriter};
use crate::progress::Work;
use crate::storage::{Access, FileRef};
use crate::units::BlockSize;

/// The files of one disk.
pub(crate) struct KeptManifest {
    /// What the disk should hold.
    pub file: FileRef,
    /// What of that was read back last; next to the other.
    pub verified: FileRef,
}

impl KeptManifest {
    /// What the disk should hold; `None` before the first pass is complete.
    ///
    /// # Errors
    /// `Malformed` for a damaged one; `Io`.
    pub(crate) fn current(&self) -> Result<Option<Manifest>> {
        self.read(&self.file)
    }

    /// What the disk should hold.
    ///
    /// # Errors
    /// As [`current`](Self::current); `NotFound` before the first pass is complete.
    pub(crate) fn known(&self) -> Result<Manifest> {
        let at_path = |error: Error| error.at_path(self.file.path());
        self.current()?.ok_or_else(|| at_path(unknown()))
    }

    /// Reads a disk whole, and takes what it holds for what it should hold.
    pub(crate) fn rebuild(
        &self,
        image: &dyn Image,
        work: &Work,
        check: &Check<'_>,
    ) -> Result<Manifest> {
        manifest::build_at(image, BlockSize::default(), work, &self.file, &|_| check())
    }

    /// Takes a pass into account that changed at most these ranges to what `image` holds.
    pub(crate) fn update(
        &self,
        image: &dyn Image,
        changed: &[Range<u64>],
        work: &Work,
        check: &Check<'_>,
    ) -> Result<()> {
        let old = self.known()?;
        manifest::save(&self.file, |storage| {
            let updated = manifest::update_to(&old, image, changed.to_vec(), work, storage)?;
            check()?;
            Ok(updated)
        })?;
        Ok(())
    }

    /// Forgets what the disk should hold: all of it is to be found out anew.
    pub(crate) fn forget(&self) -> Result<()> {
        for file_ref in [&self.file, &self.verified] {
            file_ref.remove_if_there()?;
        }
        self.file.directory().sync()
    }

    /// From here on a verification looks at what changes, not at what was there before.
    pub(crate) fn set_verified(&self) -> Result<()> {
        let (from, to) = (self.file.path(), self.verified.path());
        let mut name = self.verified.name().to_owned();
        name.push("-new");
        let new = FileRef::new(self.file.directory().clone(), name);
        new.remove_if_there()?;
        // The manifest is replaced, never written to: a second name for it is a copy.
        match fs::hard_link(&from, new.path()) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            linked => linked.and_then(|()| fs::rename(new.path(), &to)),
        }
        .map_err(|e| Error::io("link", e).at_path(&from))?;
        // Linked twice already, the rename does nothing and leaves both names.
        new.remove_if_there()?;
        self.file.directory().sync()
    }

    /// The next verification looks at everything.
    pub(crate) fn distrust(&self) -> Result<()> {
        self.verified.remove_if_there()?;
        self.file.directory().sync()
    }

    /// The root of what `image` holds, where it is read only as far as it changed since
    /// [`set_verified`](Self::set_verified); all else is taken from what it should hold.
    pub(crate) fn found(&self, image: &dyn Image, work: &Work) -> Result<Hash> {
        let current = self.known()?;
        let before = self.read(&self.verified)?;
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
pub(crate) fn unknown() -> Error {
    let text = "nothing is known of what the disk should hold";
    Error::new(ErrorKind::NotFound, text)
}

/// Whether the image stayed as it was while it was read.
pub(crate) type Check<'a> = dyn Fn() -> Result<()> + 'a;

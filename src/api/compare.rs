//! A disk against an older state of it.

use std::path::Path;

use super::base::Base;
use super::delta::DeltaInfo;
use super::disk::Disk;
use crate::delta::{self, Delta, DeltaOptions};
use crate::diff::{self, CompareOptions, Newer};
use crate::error::Result;
use crate::manifest::Manifest;
use crate::progress::Work;
use crate::storage::{FileRef, Privacy};
use crate::sync::Diff;
use crate::units::PAGE_BYTES;

impl Disk {
    /// Where this disk differs from the one that `manifest` describes, in blocks of the manifest.
    ///
    /// # Errors
    /// Those of [`root`](Disk::root).
    pub fn verify(&self, manifest: &Manifest, work: &Work) -> Result<Diff> {
        self.diff_from(manifest, work)
    }

    /// What has changed from `old` to this disk: the extents of this disk that differ, to 4 KiB
    /// between two disks, in blocks of the manifest otherwise. What `old` has beyond this disk's
    /// end is not listed.
    ///
    /// # Errors
    /// Those of [`root`](Disk::root).
    pub fn diff_from<'b>(&self, old: impl Into<Base<'b>>, work: &Work) -> Result<Diff> {
        let new = self.readable()?;
        let (extents, granularity, old_len) = match old.into() {
            Base::Disk(old) => {
                let options = CompareOptions::default();
                let found = diff::images(new, old.readable()?, &options, work)?;
                old.source().check()?;
                (found, PAGE_BYTES, old.len())
            }
            Base::Manifest(old) => {
                let found = diff::with_manifest(new, old, Newer::Image, work)?;
                (found.extents, old.block_size().bytes(), old.disk_len())
            }
        };
        self.source().check()?;
        Ok(Diff::new(extents, granularity, old_len == self.len()))
    }

    /// Writes the delta that leads from `old` to this disk into a new file at `to`. The file is
    /// complete and durable when it is there at all.
    ///
    /// # Errors
    /// Those of [`root`](Disk::root); `AlreadyExists`, `NoSpace`.
    pub fn delta_from<'b>(
        &self,
        old: impl Into<Base<'b>>,
        to: impl AsRef<Path>,
        work: &Work,
    ) -> Result<DeltaInfo> {
        let old = old.into();
        let (base, admitted) = match old {
            Base::Disk(disk) => (
                delta::Base::Image(disk.readable()?),
                disk.source().privacy(),
            ),
            Base::Manifest(manifest) => (delta::Base::Manifest(manifest), Privacy::USUAL),
        };
        let (to, image) = (FileRef::to_write(to)?, self.readable()?);
        let options = DeltaOptions::default();
        to.create_whole(self.source().privacy().and(admitted), |storage| {
            delta::create(base, image, storage, &options, work)?;
            if let Base::Disk(disk) = old {
                disk.source().check()?;
            }
            self.source().check()
        })?;
        Delta::open(to.path()).and_then(|delta| delta.info())
    }
}

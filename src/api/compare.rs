//! A disk against an older state of it.

use std::path::Path;

use super::base::Base;
use super::delta::DeltaInfo;
use super::disk::Disk;
use crate::delta::{self, Delta, DeltaOptions};
use crate::error::Result;
use crate::manifest::Manifest;
use crate::progress::Work;
use crate::storage::FileRef;
use crate::sync::{Diff, changes_from};

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
        let old = old.into();
        let (extents, granularity) = changes_from(old.readable()?, self.readable()?, work)?;
        old.check()?;
        self.source().check()?;
        Ok(Diff::new(extents, granularity, old.len() == self.len()))
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
        let (base, admitted) = (old.readable()?, old.privacy());
        let (to, image) = (FileRef::to_write(to)?, self.readable()?);
        let options = DeltaOptions::default();
        to.create_whole(self.source().privacy().and(admitted), |storage| {
            delta::create(base, image, storage, &options, work)?;
            old.check()?;
            self.source().check()
        })?;
        Delta::open(to.path()).and_then(|delta| delta.info())
    }
}

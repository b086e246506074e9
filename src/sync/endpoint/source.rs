//! What every part of one sync needs: source, target, options, and the rules on lengths.

use std::sync::Arc;

use super::remote_source::SourceBackend;
use super::target::Target;
use crate::diff::{CompareOptions, CompareReport, Difference, compare};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, Raw, Resized};
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::progress::Work;
use crate::storage::{MemoryStorage, Privacy};
use crate::sync::options::{Mode, SyncOptions};
use crate::sync::report::{Outcome, SyncReport};
use crate::sync::scan::find;

/// The sending side of a sync: an image, and how to find out that it changed meanwhile.
#[derive(Clone)]
pub struct Source {
    pub(in crate::sync) image: Arc<dyn Image>,
    /// What is asked in its place, where the image cannot be read here.
    pub(in crate::sync) remote: Option<Arc<dyn SourceBackend>>,
    /// What stands for reading it.
    pub(in crate::sync) manifest: Option<Manifest>,
    /// Who may use what is made of it where nothing was before.
    pub(in crate::sync) privacy: Privacy,
    unchanged: Option<Arc<dyn Fn() -> Result<()> + Send + Sync>>,
}

impl Source {
    /// An image that nobody else writes.
    pub fn new(image: Arc<dyn Image>) -> Self {
        Source {
            image,
            remote: None,
            manifest: None,
            privacy: Privacy::PRIVATE,
            unchanged: None,
        }
    }

    /// Lets those whom `privacy` admits use a target that is created; by default its owner alone.
    #[must_use]
    pub fn with_privacy(mut self, privacy: Privacy) -> Self {
        self.privacy = privacy;
        self
    }

    /// Asks `unchanged` once all has been read; its error (kind `SourceChanged`) stops the sync
    /// before an atomic target is touched.
    #[must_use]
    pub fn with_check(mut self, unchanged: Arc<dyn Fn() -> Result<()> + Send + Sync>) -> Self {
        self.unchanged = Some(unchanged);
        self
    }

    /// Has `manifest`, which is of this image, stand for reading it where the target has a kept
    /// manifest of the same blocks too; then only blocks that differ are read.
    #[must_use]
    pub fn with_manifest(mut self, manifest: Manifest) -> Self {
        self.manifest = Some(manifest);
        self
    }

    /// The same disk with zeros behind it, `len` bytes long.
    pub(in crate::sync) fn padded_to(&self, len: u64) -> Source {
        let mut padded = self.clone();
        if self.disk_len() < len {
            padded.image = Arc::new(Resized::new(self.image.clone(), len));
        }
        padded
    }

    /// Guest-visible length in bytes.
    pub fn disk_len(&self) -> u64 {
        self.image.disk_len()
    }
}

/// One sync under way.
pub(in crate::sync) struct Run<'a> {
    pub source: &'a Source,
    pub target: &'a Target,
    pub options: &'a SyncOptions,
    pub work: &'a Work,
}

impl Run<'_> {
    pub fn limits(&self) -> &Limits {
        &self.target.image_options().limits
    }

    /// # Errors
    /// `SourceChanged`.
    pub fn check_source(&self) -> Result<()> {
        self.source
            .unchanged
            .as_ref()
            .map_or(Ok(()), |unchanged| unchanged())
    }

    /// The error of a read, or the source's change where that is what lies behind it: a source
    /// that was cut cannot be read at its end.
    pub fn or_change(&self, error: Error) -> Error {
        match error.kind() {
            // The end with a remote source has asked itself, and answers nothing more.
            _ if self.source.remote.is_some() => error,
            ErrorKind::Unreadable | ErrorKind::Io => self.check_source().err().unwrap_or(error),
            _ => error,
        }
    }

    /// Compares the source with `old` as [`compare`] does, wherever the source is.
    ///
    /// # Errors
    /// Those of [`compare`].
    pub fn compare(
        &self,
        old: &dyn Image,
        options: &CompareOptions,
        work: &Work,
        visit: &(dyn Fn(Difference<'_>) -> Result<()> + Sync),
    ) -> Result<CompareReport> {
        match &self.source.remote {
            Some(remote) => remote.compare(old, self.source.disk_len(), options, work, visit),
            None => compare(&*self.source.image, old, options, work, visit),
        }
    }

    /// What a sync that has to create its target would write: all that is not zeros. Nothing is
    /// written.
    ///
    /// # Errors
    /// Those of [`find::differences`].
    pub fn would_create(&self) -> Result<SyncReport> {
        let empty = Raw::open(Arc::new(MemoryStorage::default()))?;
        let blank = Resized::new(Arc::new(empty), self.source.disk_len());
        let reason = "the target is not there".to_owned();
        let mut report = self.would_change(&blank, Mode::Full, reason)?;
        report.outcome = Outcome::DryRun;
        report.written_bytes = report.changed_bytes;
        Ok(report)
    }

    /// What a sync would change, and in a delta write. Nothing is written.
    ///
    /// # Errors
    /// Those of [`find::differences`].
    pub fn would_change(&self, old: &dyn Image, mode: Mode, reason: String) -> Result<SyncReport> {
        let disk_len = self.target_len(Some(old.disk_len()))?;
        let mut report = SyncReport::new(mode, self.options.safety, self.source.disk_len());
        report.count(find::differences(
            self,
            old,
            old.disk_len(),
            None,
            &|_, _| Ok(()),
        )?);
        let same = report.changed_bytes == 0 && disk_len == old.disk_len();
        report.outcome = if same {
            Outcome::Identical
        } else {
            Outcome::DryRun
        };
        if mode == Mode::Delta {
            report.written_bytes = report.changed_bytes - report.zeroed_bytes;
        }
        report.reason = reason;
        Ok(report)
    }

    /// The guest-visible length that the target will have, given the one it has.
    ///
    /// # Errors
    /// `InvalidInput` for a target that would shrink, or a device of another length, unless that
    /// is allowed.
    pub fn target_len(&self, now: Option<u64>) -> Result<u64> {
        let wanted = self.source.disk_len();
        let Some(now) = now else { return Ok(wanted) };
        let refuse = |what: String, advice: &'static str| {
            Err(Error::new(ErrorKind::InvalidInput, what)
                .at_path(self.target.path())
                .advise(advice))
        };
        let is_file = self.target.file_ref().is_some();
        match now.cmp(&wanted) {
            std::cmp::Ordering::Equal => Ok(wanted),
            std::cmp::Ordering::Less if is_file => Ok(wanted),
            std::cmp::Ordering::Less => refuse(
                format!("the device holds {now} bytes, the source {wanted}"),
                "make the device at least as large as the source",
            ),
            std::cmp::Ordering::Greater if is_file && self.options.allow_shrink => Ok(wanted),
            std::cmp::Ordering::Greater if is_file => refuse(
                format!("the target would shrink from {now} to {wanted} bytes"),
                "allow it with --allow-shrink if the source is the right one",
            ),
            std::cmp::Ordering::Greater if self.options.allow_larger => Ok(now),
            std::cmp::Ordering::Greater => refuse(
                format!("the device holds {now} bytes, the source only {wanted}"),
                "allow it with --allow-larger; what lies beyond the source stays as it is",
            ),
        }
    }
}

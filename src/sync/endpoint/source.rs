//! What every part of one sync needs: source, target, options, and the rules on lengths.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::target::Target;
use crate::advice::Advice;
use crate::diff::{CompareOptions, CompareReport};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{Format, Image, ImageInfo};
use crate::limits::Limits;
use crate::manifest::{self, Manifest};
use crate::progress::Work;
use crate::storage::{FileRef, HostFile, Privacy, SourceIdentity, Storage};
use crate::sync::options::{Cloning, SyncOptions};
use crate::sync::source::backend::{SourceBackend, Visit};
use crate::sync::source::fetch_log::FetchLog;
use crate::sync::source::history::History;
use crate::sync::source::local::LocalSource;
use crate::sync::source::recalled::Recalled;
use crate::units::BlockSize;

/// The sending side of a sync: a disk on this host, or at the other end of a connection.
#[derive(Clone)]
pub struct Source {
    pub(in crate::sync) backend: Arc<dyn SourceBackend>,
    /// The length that the sync sees it with.
    disk_len: u64,
    /// What stands for reading it.
    pub(in crate::sync) manifest: Option<Manifest>,
    /// What all that is read of it must agree with.
    published: Option<Manifest>,
    /// The signature of that.
    pub(in crate::sync) signature: Option<String>,
    /// Who may use what is made of it where nothing was before.
    pub(in crate::sync) privacy: Privacy,
    /// What changed in it, as its own tracker knows.
    changes: Option<Vec<Range<u64>>>,
    /// The storage that it is read from, where the caller made that.
    storage: Option<Arc<dyn Storage>>,
    /// Which state of it this is, where it never changes.
    identity: Option<SourceIdentity>,
    /// What it knows of its earlier states.
    pub(in crate::sync) history: Option<Arc<dyn History>>,
    /// Set where nothing of it is read twice.
    pub(in crate::sync) recalled: Option<Arc<Recalled>>,
    unchanged: Option<Arc<dyn Fn() -> Result<()> + Send + Sync>>,
    warnings: Vec<String>,
}

opaque!(Source);

impl Source {
    /// An image that nothing else writes.
    pub fn new(image: Arc<dyn Image>) -> Self {
        Source::from_backend(Arc::new(LocalSource(image)))
    }

    /// A disk that `backend` reads.
    pub fn from_backend(backend: Arc<dyn SourceBackend>) -> Self {
        Source {
            disk_len: backend.info().disk_bytes,
            backend,
            manifest: None,
            published: None,
            signature: None,
            changes: None,
            storage: None,
            identity: None,
            history: None,
            recalled: None,
            privacy: Privacy::PRIVATE,
            unchanged: None,
            warnings: Vec::new(),
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

    /// Uses `manifest`, which is of this image, instead of reading it where a target manifest
    /// has the same blocks; then only blocks that differ are read.
    #[must_use]
    pub fn with_manifest(mut self, manifest: Manifest) -> Self {
        self.manifest = Some(manifest);
        self
    }

    /// Names the storage that the image is in: no target may be in the same one.
    #[must_use]
    pub(crate) fn in_storage(mut self, storage: Arc<dyn Storage>) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Whether it is read from this very storage.
    pub(in crate::sync) fn is_in(&self, storage: &Arc<dyn Storage>) -> bool {
        let own = self.storage.as_ref();
        own.is_some_and(|own| std::ptr::addr_eq(Arc::as_ptr(own), Arc::as_ptr(storage)))
    }

    /// Reads only blocks that differ by `manifest`, which was published with this image, and
    /// refuses those that are not as it states. `signature` is its signature, where that was
    /// checked: what it states is recorded with the target manifest, and a target never goes back.
    ///
    /// # Errors
    /// `InvalidInput` for the manifest of a disk of another length; `Unsupported` for a source on
    /// another host.
    pub fn with_published(mut self, manifest: Manifest, signature: Option<String>) -> Result<Self> {
        self.readable()?;
        if manifest.disk_len() != self.disk_len {
            let what = format!(
                "the manifest is of a disk of {} bytes, and the source has {}",
                manifest.disk_len(),
                self.disk_len
            );
            return Err(Error::new(ErrorKind::InvalidInput, what).at_path(manifest.path()));
        }
        (self.published, self.signature) = (Some(manifest), signature);
        Ok(self)
    }

    /// What all that is read of it must agree with.
    pub(in crate::sync) fn published(&self) -> Option<&Manifest> {
        self.published.as_ref()
    }

    /// Whether it is asked which frames of an earlier log are still true of it. Otherwise what is
    /// read twice costs nothing, or all that is read is held against a manifest.
    pub(in crate::sync) fn can_confirm(&self) -> bool {
        self.recalled.is_none() && self.published.is_none()
    }

    /// The blocks of the published manifest, or else `size`.
    pub(in crate::sync) fn block_size_or(&self, size: BlockSize) -> BlockSize {
        self.published.as_ref().map_or(size, Manifest::block_size)
    }

    /// Holds the root of all that was read, in blocks of [`block_size_or`](Source::block_size_or),
    /// against the published manifest.
    ///
    /// # Errors
    /// `SourceChanged`.
    pub(in crate::sync) fn check_root(&self, root: Hash) -> Result<()> {
        match self.published() {
            Some(manifest) if manifest.root() != root => {
                let what = "the source does not hold what its published manifest states";
                Err(Error::new(ErrorKind::SourceChanged, what).at_path(manifest.path()))
            }
            _ => Ok(()),
        }
    }

    /// Replaces the [changes](Source::changes).
    #[must_use]
    pub fn with_changes(mut self, changes: Option<Vec<Range<u64>>>) -> Self {
        self.changes = changes;
        self
    }

    /// Which bytes changed, as the tracker at the source knows that its address names. A sync does
    /// not use it unless it is the change map of its options.
    pub fn changes(&self) -> Option<&[Range<u64>]> {
        self.changes.as_deref()
    }

    /// Says which state of it this is, and what it knows of earlier ones.
    #[must_use]
    pub fn with_history(
        mut self,
        identity: Option<SourceIdentity>,
        history: Arc<dyn History>,
    ) -> Self {
        (self.identity, self.history) = (identity, Some(history));
        self
    }

    /// Which state of it this is, where it differs from that of every other state.
    pub fn identity(&self) -> Option<SourceIdentity> {
        self.identity
    }

    /// Replaces the [warnings](Source::warnings).
    #[must_use]
    pub fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings = warnings;
        self
    }

    /// The same disk with zeros behind it, `len` bytes long.
    pub(in crate::sync) fn padded_to(&self, len: u64) -> Source {
        let mut padded = self.clone();
        padded.disk_len = self.disk_len.max(len);
        padded
    }

    /// The same source, of which nothing is read twice, in this run and later ones, where it has an
    /// identity; hashes of what is read are kept next to `redo_log`. Where they cannot be kept, it
    /// is read as usual.
    pub(in crate::sync) fn recalling(&self, redo_log: &FileRef) -> Source {
        let mut source = self.clone();
        if let (None, Some(identity), Some(image)) = (&self.recalled, self.identity, self.image())
            && let Ok(log) = FetchLog::open(redo_log, &identity)
        {
            let recalled = Arc::new(Recalled::new(image.clone(), log));
            source.backend = Arc::new(LocalSource(recalled.clone()));
            source.recalled = Some(recalled);
        }
        source
    }

    /// Reads what `disk` holds of it by now there, and no more from afar; how many bytes that is.
    ///
    /// # Errors
    /// `Io`, `Malformed`, `Cancelled`.
    pub(in crate::sync) fn recall(&self, disk: Arc<dyn Image>, work: &Work) -> Result<u64> {
        match &self.recalled {
            Some(recalled) => recalled.recall(disk, work),
            None => Ok(0),
        }
    }

    /// Guest-visible length in bytes.
    pub fn disk_len(&self) -> u64 {
        self.disk_len
    }

    /// What the image is.
    pub fn info(&self) -> ImageInfo {
        ImageInfo {
            disk_bytes: self.disk_len,
            ..self.backend.info()
        }
    }

    /// What reads it, to be asked something other than a sync.
    pub fn backend(&self) -> &dyn SourceBackend {
        &*self.backend
    }

    /// Who may use what is made of it where nothing was before.
    pub fn privacy(&self) -> Privacy {
        self.privacy
    }

    /// The image, where it can be read directly.
    pub fn image(&self) -> Option<&Arc<dyn Image>> {
        self.backend.image()
    }

    /// Whether reading it costs so much that nothing should be read twice.
    pub(in crate::sync) fn is_distant(&self) -> bool {
        self.image()
            .is_some_and(|image| image.look_ahead_bytes() > 0)
    }

    /// The image, to be read.
    ///
    /// # Errors
    /// `Unsupported` for a disk on another host.
    pub fn readable(&self) -> Result<&Arc<dyn Image>> {
        self.image().ok_or_else(|| {
            let what = "a disk on another host can be synced and hashed, and not read";
            Error::new(ErrorKind::Unsupported, what)
        })
    }

    /// The files and devices of this host that are read: the image's own, those of its parents, and
    /// the extents that it names.
    ///
    /// # Errors
    /// `Io`.
    pub fn files(&self) -> Result<Vec<HostFile>> {
        self.image().map_or(Ok(Vec::new()), |image| image.files())
    }

    /// The root of the disk, which is read whole, with zeros behind its end up to `disk_len` bytes.
    ///
    /// # Errors
    /// `Unsupported` for blocks that a source on another host does not hash; those of reading it.
    pub fn root(&self, disk_len: u64, block_size: BlockSize, work: &Work) -> Result<Hash> {
        let backend = &self.backend;
        backend.root(disk_len.max(self.disk_len), block_size, work)
    }

    /// Asks something other than a sync of the disk, and ends the work with it.
    ///
    /// # Errors
    /// Those of `ask`; those of the connection.
    #[cfg(feature = "failback")]
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&dyn SourceBackend) -> Result<T>) -> Result<T> {
        match ask(&*self.backend) {
            Ok(answer) => self.backend.finish().map(|_| answer),
            Err(error) => Err(self.backend.fail(error)),
        }
    }

    /// Dangers that are no errors.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether it is what it was when it was opened.
    ///
    /// # Errors
    /// `SourceChanged`, `Io`.
    pub fn check(&self) -> Result<()> {
        match &self.unchanged {
            Some(unchanged) => unchanged(),
            None => self.backend.check(),
        }
    }
}

/// One sync under way.
pub(in crate::sync) struct SyncContext<'a> {
    pub source: &'a Source,
    pub target: &'a Target,
    pub options: &'a SyncOptions,
    pub work: &'a Work,
    /// Whether what writes to the target was begun: before that an error leaves it untouched.
    pub commits: &'a AtomicBool,
}

impl SyncContext<'_> {
    pub(crate) fn limits(&self) -> &Limits {
        &self.target.image_options().limits
    }

    /// Notes in the target manifest that `file` holds which source it was made from. Not durable.
    ///
    /// # Errors
    /// `Malformed`, `Io`, `NoSpace`.
    pub(crate) fn note_source(&self, file: &Arc<dyn Storage>) -> Result<()> {
        let source = self.source;
        let (identity, signature) = (source.identity.as_ref(), source.signature.as_deref());
        manifest::note_source(file, identity, signature, self.limits())
    }

    /// # Errors
    /// `SourceChanged`.
    pub(crate) fn check_source(&self) -> Result<()> {
        self.source.check()
    }

    /// The error of a read, or the source's change where that caused it: a source that was cut
    /// cannot be read at its end.
    pub(crate) fn or_change(&self, error: Error) -> Error {
        self.or_change_behind(error, &[ErrorKind::Unreadable, ErrorKind::Io])
    }

    /// The source's change instead of an error of one of these kinds, where there was one.
    pub(crate) fn or_change_behind(&self, error: Error, kinds: &[ErrorKind]) -> Error {
        match kinds.contains(&error.kind()) && !self.source.backend.reports_changes() {
            true => self.check_source().err().unwrap_or(error),
            false => error,
        }
    }

    /// Compares the source with `old` as [`compare`](crate::diff::compare) does, wherever the
    /// source is.
    ///
    /// # Errors
    /// Those of [`compare`](crate::diff::compare).
    pub(crate) fn compare(
        &self,
        old: &dyn Image,
        options: &CompareOptions,
        work: &Work,
        visit: &Visit<'_>,
    ) -> Result<CompareReport> {
        let disk_len = self.source.disk_len();
        let backend = &self.source.backend;
        backend.compare(old, disk_len, options, work, visit)
    }

    /// The store that a full copy of `disk_len` bytes can be a clone of: the source's, where it
    /// holds what a raw target will hold, and the target's file system may clone it.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn clonable_source(&self, disk_len: u64) -> Result<Option<&dyn Storage>> {
        let wants = self.options.cloning == Cloning::Auto
            && self.target.format() == Format::Raw
            && self.source.published().is_none();
        let flat = self.source.image().and_then(|image| image.flat_storage());
        let (Some(model), Some(file_ref), true) = (flat, self.target.file_ref(), wants) else {
            return Ok(None);
        };
        let directory = file_ref.directory();
        let is_here = match (model.file_id()?, directory.id()?) {
            (Some(model), Some(directory)) => model.device == directory.device,
            _ => false,
        };
        let is_whole = model.len()? == disk_len;
        Ok((is_here && is_whole && directory.can_clone()?).then_some(model))
    }

    /// The guest-visible length that the target will have, given the one it has.
    ///
    /// # Errors
    /// `InvalidInput` for a target that would shrink, or a device of another length, unless that
    /// is allowed.
    pub(crate) fn target_len(&self, now: Option<u64>) -> Result<u64> {
        let wanted = self.source.disk_len();
        let Some(now) = now else { return Ok(wanted) };
        let refuse = |what: String, advice: Advice| {
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
                "make the device at least as large as the source".into(),
            ),
            std::cmp::Ordering::Greater if is_file && self.options.allow_shrink => Ok(wanted),
            std::cmp::Ordering::Greater if is_file => refuse(
                format!("the target would shrink from {now} to {wanted} bytes"),
                Advice::AllowShrink,
            ),
            std::cmp::Ordering::Greater if self.options.allow_larger => Ok(now),
            std::cmp::Ordering::Greater => refuse(
                format!("the device holds {now} bytes, the source only {wanted}"),
                Advice::AllowLarger,
            ),
        }
    }
}

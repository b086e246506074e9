//! What a sync writes to: a file or a device, its format, and where its redo log lies.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::image::Layout;
use crate::image::{
    CreateFormat, CreateOptions, Format, ImageInfo, ImageOptions, RawUse, only_read,
    refuse_container, refuse_container_name,
};
use crate::storage::{Access, FileRef, Storage};

/// The receiving side of a sync.
#[derive(Clone)]
pub struct Target {
    body: Body,
    format: Format,
    image: ImageOptions,
    redo_log: FileRef,
    /// Where a new log is written: an old one may be elsewhere.
    usual_redo_log: FileRef,
    /// The caller answers for what the redo log holds.
    trusts_redo_log: bool,
    /// A target manifest that a job may name, besides those in the directories at hand.
    manifest: Option<PathBuf>,
    create: Option<CreateOptions>,
    align_bytes: u64,
    name: Option<PathBuf>,
    is_raw_by_default: bool,
    /// A copy may take the place of a file that has further names.
    parts_links: bool,
}

opaque!(Target);

#[derive(Clone)]
pub(in crate::sync) enum Body {
    File(FileRef, Held),
    Device(Arc<dyn Storage>),
}

/// The open file, where its opener holds locks on it that must last; clones share it.
#[derive(Clone, Default)]
pub(in crate::sync) struct Held(Arc<Mutex<Option<Arc<dyn Storage>>>>);

impl Target {
    /// A file; its redo log lies beside it.
    pub fn file(file_ref: FileRef, format: Format) -> Self {
        let redo_log = file_ref.hidden_sibling(LOG_SUFFIX);
        Target::new(Body::File(file_ref, Held::default()), format, redo_log)
    }

    /// As [`file`](Target::file), for the file at `file_ref` that is open and locked as `storage`.
    pub(in crate::sync) fn held_file(
        file_ref: FileRef,
        storage: Arc<dyn Storage>,
        format: Format,
    ) -> Self {
        let redo_log = file_ref.hidden_sibling(LOG_SUFFIX);
        let held = Held(Arc::new(Mutex::new(Some(storage))));
        Target::new(Body::File(file_ref, held), format, redo_log)
    }

    /// A device, or any storage that is written where it lies; `redo_log` must be on a medium that
    /// outlives a crash, and be found again for a recovery.
    pub fn device(storage: Arc<dyn Storage>, format: Format, redo_log: FileRef) -> Self {
        Target::new(Body::Device(storage), format, redo_log)
    }

    fn new(body: Body, format: Format, redo_log: FileRef) -> Self {
        Target {
            body,
            format,
            image: ImageOptions::default(),
            usual_redo_log: redo_log.clone(),
            redo_log,
            trusts_redo_log: false,
            manifest: None,
            create: None,
            align_bytes: 1,
            name: None,
            is_raw_by_default: false,
            parts_links: false,
        }
    }

    /// Says whether nothing but the lack of a known name made the target raw.
    #[must_use]
    pub(in crate::sync) fn with_raw_by_default(mut self, is_raw_by_default: bool) -> Self {
        self.is_raw_by_default = is_raw_by_default;
        self
    }

    /// Chooses whether a full copy may take the place of a file that has further names, which keep
    /// the old bytes then.
    #[must_use]
    pub(in crate::sync) fn with_parted_links(mut self, parts_links: bool) -> Self {
        self.parts_links = parts_links;
        self
    }

    /// Whether a full copy may take the place of a file that has further names.
    pub(in crate::sync) fn parts_links(&self) -> bool {
        self.parts_links
    }

    /// Refuses a target that would be written as raw only by default, though by its name or its
    /// contents it is a container; and one of a format that is only read. One that carries a marker
    /// of ours is not to be asked.
    ///
    /// # Errors
    /// `InvalidInput`, naming the option that goes on; `Unsupported`; `Io`.
    pub(in crate::sync) fn refuse_container(&self, storage: &dyn Storage) -> Result<()> {
        if !self.format.is_writable() {
            return Err(only_read(self.format).at_path(self.name()));
        }
        if !self.is_raw_by_default {
            return Ok(());
        }
        if self.file_ref().is_some() {
            refuse_container_name(&self.name(), RawUse::Write)?;
            refuse_container_name(&self.path(), RawUse::Write)?;
        }
        refuse_container(storage, true, RawUse::Write)
    }

    /// Says by which path the caller named the target, links and all; it must lead to the target
    /// to the end.
    #[must_use]
    pub(in crate::sync) fn with_name(mut self, name: PathBuf) -> Self {
        self.name = Some(name);
        self
    }

    /// The path by which the caller named the target.
    pub(in crate::sync) fn name(&self) -> PathBuf {
        self.name.clone().unwrap_or_else(|| self.path())
    }

    /// Opens the image with these options instead of the defaults.
    #[must_use]
    pub fn with_image_options(mut self, image: ImageOptions) -> Self {
        self.image = image;
        self
    }

    /// The same target, with the holes of its file or device read too.
    pub(in crate::sync) fn with_read_holes(&self) -> Self {
        let mut target = self.clone();
        target.image.read_holes = true;
        target
    }

    /// Puts the redo log there instead.
    #[must_use]
    pub fn with_redo_log(mut self, redo_log: FileRef) -> Self {
        self.usual_redo_log = redo_log.clone();
        self.redo_log = redo_log;
        self
    }

    /// Says where the log of an unfinished sync was found.
    pub(in crate::sync) fn with_found_redo_log(mut self, redo_log: FileRef) -> Self {
        self.redo_log = redo_log;
        self
    }

    /// As [`with_found_redo_log`](Target::with_found_redo_log), for a log whose contents the caller
    /// answers for.
    pub(in crate::sync) fn with_trusted_redo_log(mut self, redo_log: FileRef) -> Self {
        self.redo_log = redo_log;
        self.trusts_redo_log = true;
        self
    }

    /// Lets recovery bring the target manifest at `path` up to date where a log names it.
    pub(in crate::sync) fn with_trusted_manifest(mut self, path: PathBuf) -> Self {
        self.manifest = Some(path);
        self
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The path, for messages.
    pub fn path(&self) -> PathBuf {
        match &self.body {
            Body::File(file_ref, _) => file_ref.path(),
            Body::Device(storage) => storage.path().to_owned(),
        }
    }

    /// Where the redo log of a sync onto this target lies while there is one.
    pub fn redo_log(&self) -> &FileRef {
        &self.redo_log
    }

    /// Where a new log is written, wherever the one of an unfinished sync was found.
    pub(in crate::sync) fn usual_redo_log(&self) -> &FileRef {
        &self.usual_redo_log
    }

    /// Creates a missing target as `create` says; by default its extension does.
    #[must_use]
    pub fn with_create(mut self, create: CreateOptions) -> Self {
        self.format = create.format.format();
        self.align_bytes = create.align;
        self.create = Some(create);
        self
    }

    /// Rounds the length of the target up to a multiple of this power of two, zeros behind what
    /// the source holds.
    #[must_use]
    pub fn with_align(mut self, bytes: u64) -> Self {
        self.align_bytes = bytes;
        self
    }

    /// Whether `storage`, the target, is empty and written where it is, so that the image has to be
    /// made in it.
    ///
    /// # Errors
    /// `Io`.
    pub(in crate::sync) fn is_to_be_made(&self, storage: &dyn Storage) -> Result<bool> {
        Ok(self.is_made_in_place() && storage.is_empty()?)
    }

    /// Whether it is a storage in which the image was or will be made.
    pub(in crate::sync) fn is_made_in_place(&self) -> bool {
        self.file_ref().is_none() && self.create.is_some()
    }

    /// The length that a disk of this target takes to hold `len` guest bytes: whole sectors where
    /// the format has them, and aligned.
    ///
    /// # Errors
    /// `InvalidInput` for an alignment that makes no sense.
    pub(in crate::sync) fn rounded_len(&self, len: u64) -> Result<u64> {
        let kind = match self.format {
            Format::Raw | Format::Qcow2 | Format::Vmdk => CreateFormat::Raw,
            Format::Vhd => CreateFormat::VhdFixed,
            Format::Vhdx => CreateFormat::VhdxFixed,
        };
        CreateOptions::new(kind, len)
            .with_align(self.align_bytes)
            .rounded_len()
    }

    /// How a new image of `disk_len` bytes is made in place of `old`, or where there is none to
    /// hold what `source` holds.
    pub(in crate::sync) fn create_options(
        &self,
        source: &ImageInfo,
        old: Option<&ImageInfo>,
        disk_len: u64,
    ) -> CreateOptions {
        let fixed = old.is_some_and(|old| old.layout == Layout::Fixed);
        let like_old = match self.format {
            Format::Raw | Format::Qcow2 | Format::Vmdk => CreateFormat::Raw,
            Format::Vhd if fixed => CreateFormat::VhdFixed,
            Format::Vhd => CreateFormat::VhdDynamic,
            Format::Vhdx if fixed => CreateFormat::VhdxFixed,
            Format::Vhdx => CreateFormat::VhdxDynamic,
        };
        let mut create = match (&self.create, old) {
            (Some(create), None) => create.clone(),
            _ => CreateOptions::new(like_old, disk_len),
        };
        if self.format == Format::Vhdx {
            // Guests count in sectors; blocks are a matter of taste.
            let sectors = old.unwrap_or(source).sector_bytes;
            create.sector_size = create.sector_size.or(sectors);
            create.block_size = create.block_size.or(old.and_then(|old| old.block_bytes));
        }
        create.disk_len = disk_len;
        create
    }

    pub(in crate::sync) fn image_options(&self) -> &ImageOptions {
        &self.image
    }

    /// The file, unless it is a device.
    pub(in crate::sync) fn file_ref(&self) -> Option<&FileRef> {
        match &self.body {
            Body::File(file_ref, _) => Some(file_ref),
            Body::Device(_) => None,
        }
    }

    /// The file at `path`, which the log of an unfinished sync names: in the target's directory or
    /// in the log's. `None` for another one, unless the caller has named it or answers for the log.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub(in crate::sync) fn file_ref_named(&self, path: &Path) -> Result<Option<FileRef>> {
        match self.own_place(path) {
            None if self.trusts_redo_log || self.manifest.as_deref() == Some(path) => {
                FileRef::host(path).map(Some)
            }
            file_ref => Ok(file_ref),
        }
    }

    /// The file at `path`, which the caller names, through the target's own directories where it is
    /// in one of them.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    pub(in crate::sync) fn file_ref_given(&self, path: &Path) -> Result<FileRef> {
        self.own_place(path).map_or_else(|| FileRef::host(path), Ok)
    }

    fn own_place(&self, path: &Path) -> Option<FileRef> {
        let own = self.file_ref().into_iter().chain([&self.redo_log]);
        let directory = own
            .map(FileRef::directory)
            .find(|own| Some(own.path()) == path.parent())?;
        Some(FileRef::new(directory.clone(), path.file_name()?))
    }

    /// Opens the storage for writing, or `None` for a file that is not there.
    pub(in crate::sync) fn open_if_there(&self) -> Result<Option<Arc<dyn Storage>>> {
        match &self.body {
            Body::File(file_ref, held) => match &*held.lock() {
                Some(storage) => Ok(Some(storage.clone())),
                None => file_ref.open_if_there(Access::Write),
            },
            Body::Device(storage) => Ok(Some(storage.clone())),
        }
    }

    /// Opens what lies at the target's place now, for reading.
    pub(in crate::sync) fn open_to_read(&self) -> Result<Arc<dyn Storage>> {
        match &self.body {
            Body::File(file_ref, _) => file_ref.open(Access::Read),
            Body::Device(storage) => Ok(storage.clone()),
        }
    }

    /// Says that another file has taken the target's name.
    pub(in crate::sync) fn was_replaced(&self) {
        if let Body::File(_, held) = &self.body {
            held.lock().take();
        }
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<dyn Storage>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is added to a name to make its redo log's.
pub(in crate::sync) const LOG_SUFFIX: &str = "diskdelta-log";

/// Where a full copy onto the file at `file_ref` grows.
pub(in crate::sync) fn new_file(file_ref: &FileRef) -> FileRef {
    file_ref.hidden_sibling(NEW_SUFFIX)
}

/// What is added to a target's name to make that of its copy.
pub(in crate::sync) const NEW_SUFFIX: &str = "diskdelta-new";

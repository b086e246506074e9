//! A target named by a path of this host: how it is opened, and where its redo log lies.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source::format_of;
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{
    self, CreateFormat, CreateOptions, Format, Image, ImageOptions, RawUse, refuse_container_name,
};
use crate::progress::Work;
use crate::setters::setters;
use crate::storage::{
    AbsentDirectory, Allocation, Directory, FileRef, HostDirectory, HostFile, HostKind,
    TargetOptions, identity, open_target, resolve_to_write,
};
use crate::sync::commit::hold::{held_image, hold, release};
use crate::sync::endpoint::target::{LOG_SUFFIX, Target};
use crate::sync::marker::format::Marker;
use crate::sync::recovery::forget::{Forgotten, forget};
use crate::sync::recovery::found_log::with_log;
use crate::sync::recovery::guarded::GuardedBytes;
use crate::sync::recovery::recover::{Recovered, discard, recover};
use crate::sync::recovery::state::complete_log;

/// Where the redo logs of block devices lie by default.
pub const LOG_DIR: &str = "/var/lib/diskdelta";

/// A file or block device of this host, open and locked, or a file that is to be created.
///
/// The locks last as long as this or its [`Target`] does.
#[derive(Clone)]
pub struct HostTarget {
    target: Target,
    is_new: bool,
    warnings: Vec<String>,
}

opaque!(HostTarget);

/// How a target is opened by its path.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct HostTargetOptions {
    /// How the image is opened; its format, where none is chosen, follows the path's extension.
    pub image: ImageOptions,
    /// What a missing target is created as, instead of what its extension says.
    pub create: Option<CreateFormat>,
    /// The target's length is rounded up to a multiple of this power of two; 0 is 1.
    pub align_bytes: u64,
    /// Where the redo log lies; by default beside a file, and in [`LOG_DIR`] for a device.
    pub log_dir: Option<PathBuf>,
    /// The target manifest, by the path that the sync had, that recovery brings up to date where it
    /// is neither in the target's directory nor in the log's.
    pub target_manifest: Option<PathBuf>,
    /// Another directory, named by the caller, in which the log may be.
    pub(in crate::sync) extra_log_dir: Option<PathBuf>,
    /// How zeros are stored, who must not be the target, and the like.
    pub open: TargetOptions,
    /// Logs and the like that are taken for ours although the system does not show it; the log of
    /// an unfinished sync may be anywhere. The caller answers for what they hold.
    pub trusted: Vec<PathBuf>,
    /// Nothing is created, not even a directory.
    pub dry_run: bool,
    /// A full copy may take the place of a file that has further names (hard links), which keep the
    /// old bytes then. Otherwise such a copy is refused.
    pub parts_links: bool,
}

impl HostTarget {
    /// Opens what is at `path`, with symbolic links of root and of the user of this process
    /// followed, or prepares for creating it.
    ///
    /// The log of an unfinished sync is looked for in the target's directory and in that for logs.
    /// Of the path in the marker only the file name is used, because a guest may have written it.
    /// The directory of a device's log is created.
    ///
    /// # Errors
    /// `InUse` for a target that is in use, or that is one of the sources; `Incomplete` for the
    /// copy of a disk that an unfinished sync left incomplete; `AlreadyExists` for an existing
    /// target and [`create`]; `NotFound` for a missing directory; `Unsupported` for what is neither
    /// file nor device, for a hard-linked file where that matters, and for a redo log in memory;
    /// `Io`.
    ///
    /// [`create`]: HostTargetOptions::create
    pub fn open(path: impl AsRef<Path>, options: &HostTargetOptions) -> Result<Self> {
        Self::open_at(path.as_ref(), options).map_err(|error| error.during_work("open"))
    }

    fn open_at(given: &Path, options: &HostTargetOptions) -> Result<Self> {
        let path = resolve_to_write(given)?;
        match fs::symlink_metadata(&path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                Self::missing(given, path, options)
            }
            Err(cause) => Err(Error::io("inspect", cause).at_path(path)),
            Ok(_) if options.create.is_some() => Err(Error::new(
                ErrorKind::AlreadyExists,
                "the target exists, so it cannot be created",
            )
            .at_path(given)
            .advise(Advice::WithoutCreate)
            .or_advise(Advice::Remove)),
            Ok(_) => Self::existing(given, path, options),
        }
    }

    #[cfg(feature = "http")]
    pub(super) fn of(target: Target, is_new: bool) -> Self {
        HostTarget {
            target,
            is_new,
            warnings: Vec::new(),
        }
    }

    /// The target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Dangers that are no errors.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The marker that the target carries now: what an error has left of it.
    ///
    /// # Errors
    /// `Io`.
    pub fn marker(&self) -> Result<Option<Marker>> {
        match self.target.open_to_read() {
            Ok(storage) => Marker::find(&*storage),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.is_out_of_files() => match self.target.open_if_there()? {
                Some(open) => Marker::find(&*open),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// As [`recover`]; also `NotFound` where there is neither target nor anything left of a sync.
    ///
    /// # Errors
    /// Those of [`recover`].
    pub fn recover(&self, work: &Work) -> Result<Recovered> {
        match recover(&self.target, work)? {
            Recovered::Nothing if self.is_new => Err(self.not_found(work)),
            recovered => Ok(recovered),
        }
    }

    /// As [`discard`]; also `NotFound` where there is neither target nor anything left of a sync.
    ///
    /// # Errors
    /// Those of [`discard`].
    pub fn discard(&self, work: &Work) -> Result<Recovered> {
        if self.is_new && recover(&self.target, work)? == Recovered::Nothing {
            return Err(self.not_found(work));
        }
        discard(&self.target, work)
    }

    /// As [`forget`].
    ///
    /// # Errors
    /// Those of [`forget`].
    pub fn forget(&self, bytes: &GuardedBytes, work: &Work) -> Result<Forgotten> {
        forget(&self.target, bytes, work)
    }

    /// As [`hold`].
    ///
    /// # Errors
    /// Those of [`hold`].
    pub fn hold(&self, work: &Work) -> Result<()> {
        hold(&self.target, work)
    }

    /// As [`release`].
    ///
    /// # Errors
    /// Those of [`release`].
    pub fn release(&self, work: &Work) -> Result<Recovered> {
        release(&self.target, work)
    }

    /// As [`held_image`]; it is kept from others while this lives.
    ///
    /// # Errors
    /// Those of [`held_image`].
    pub fn held_image(&self, work: &Work) -> Result<Option<Arc<dyn Image>>> {
        held_image(&self.target, work)
    }

    fn not_found(&self, work: &Work) -> Error {
        let path = self.target.path();
        let log = self.target.redo_log();
        let shown = log.path();
        let shown = shown.display();
        let refuse = |what: String| Error::new(ErrorKind::NotFound, what).at_path(&path);
        match (log.is_there(), complete_log(&self.target, work)) {
            (Ok(false), _) => {
                let what = "no such target, and no sync onto it is pending";
                refuse(what.to_owned())
            }
            (Ok(true), Ok(None)) => refuse(format!(
                "no such target; the log of a sync that changed nothing is there: {shown}"
            ))
            .advise("sync to it, which takes the log's place, or remove the log"),
            (Ok(true), Ok(Some(_))) => refuse(format!(
                "no such target; the log of an unfinished sync onto it is there: {shown}"
            ))
            .advise("recover the disk that carries its marker, where it is now")
            .or_advise(Advice::TrustLog(log.path()))
            .or_advise("remove the log only where there is no such disk"),
            (Err(error), _) | (_, Err(error)) => error,
        }
    }

    fn missing(given: &Path, path: PathBuf, options: &HostTargetOptions) -> Result<Self> {
        if options.create.is_none() && options.image.format.is_none() {
            for name in [given, &path] {
                let named = Format::from_path(name);
                if !named.is_writable() {
                    return Err(image::only_read(named).at_path(given));
                }
                if named != Format::Raw {
                    break;
                }
                refuse_container_name(name, RawUse::Write).map_err(|it| it.at_path(given))?;
            }
        }
        let by_name = match Format::from_path(given) {
            Format::Raw => CreateFormat::from_path(&path),
            _ => CreateFormat::from_path(given),
        };
        let format = match (options.create, options.image.format) {
            (Some(create), _) => create,
            (None, Some(format)) => CreateFormat::parse(format.name())?,
            (None, None) => by_name,
        };
        let create = CreateOptions::new(format, 0).with_align(options.align_bytes.max(1));
        let file_ref = FileRef::new(
            Arc::new(directory_of(&path)?.with_allocation(options.open.allocation)),
            path.file_name().unwrap_or_default(),
        );
        file_ref.directory().refuse_nodes(file_ref.name())?;
        let mut target = Target::file(file_ref, format.format())
            .with_image_options(options.image.clone())
            .with_name(given.to_owned())
            .with_create(create);
        if let Some(directory) = &options.log_dir {
            target = target.with_redo_log(elsewhere(directory, &path, options.dry_run)?);
        }
        trust(&target, options)?;
        Ok(HostTarget {
            target,
            is_new: true,
            warnings: Vec::new(),
        })
    }

    fn existing(given: &Path, path: PathBuf, options: &HostTargetOptions) -> Result<Self> {
        let opened = open_target(&path, &options.open)?;
        let mut warnings = opened.warnings;
        let format = format_of(given, &opened.host, options.image.format);
        let marker = Marker::find(&*opened.storage)?;
        let target = match opened.host.kind() {
            HostKind::File => {
                let directory =
                    directory_of(&path)?.with_allocation(match options.open.allocation {
                        // A file that takes the place of a thick one is thick.
                        Allocation::Keep if opened.host.is_thick() => Allocation::Full,
                        allocation => allocation,
                    });
                let name = path.file_name().unwrap_or_default();
                let file_ref = FileRef::new(Arc::new(directory), name);
                file_ref.directory().refuse_nodes(file_ref.name())?;
                let target = Target::held_file(file_ref, opened.storage, format);
                match &options.log_dir {
                    Some(directory) => {
                        target.with_redo_log(elsewhere(directory, &path, options.dry_run)?)
                    }
                    None => target,
                }
            }
            HostKind::Device => {
                let log_dir = options.log_dir.as_deref();
                let directory = log_dir.unwrap_or(Path::new(LOG_DIR));
                let directory = log_directory(directory, options.dry_run)?;
                let identity = identity(&path)?;
                if !identity.is_stable() {
                    warnings.push(format!(
                        "{}: the device has no lasting name; if it is renumbered before an \
                         interrupted sync is finished, its redo log is found through its marker \
                         only",
                        path.display()
                    ));
                }
                let redo_log = FileRef::new(directory, format!("{identity}.{LOG_SUFFIX}"));
                Target::device(opened.storage, format, redo_log)
            }
        };
        let mut target = target
            .with_image_options(options.image.clone())
            .with_align(options.align_bytes.max(1))
            .with_name(given.to_owned())
            .with_raw_by_default(options.image.format.is_none() && format == Format::Raw)
            .with_parted_links(options.parts_links);
        let trusted = trust(&target, options)?;
        if let Some(path) = &options.target_manifest {
            target = target.with_trusted_manifest(path.clone());
        }
        target = match marker {
            Some(marker) => {
                let limits = &options.image.limits;
                let directory = options.extra_log_dir.as_deref();
                with_log(target, &marker, &opened.host, trusted, limits, directory)?
            }
            None => target,
        };
        Ok(HostTarget {
            target,
            is_new: false,
            warnings,
        })
    }
}

setters! {
    HostTargetOptions:
    /// Replaces [`HostTargetOptions::image`].
    with_image, image: ImageOptions;
    /// Replaces [`HostTargetOptions::create`].
    with_create, create: Option<CreateFormat>;
    /// Replaces [`HostTargetOptions::align_bytes`].
    with_align_bytes, align_bytes: u64;
    /// Replaces [`HostTargetOptions::log_dir`].
    with_log_dir, log_dir: Option<PathBuf>;
    /// Replaces [`HostTargetOptions::target_manifest`].
    with_target_manifest, target_manifest: Option<PathBuf>;
    /// Replaces [`HostTargetOptions::open`].
    with_open, open: TargetOptions;
    /// Replaces [`HostTargetOptions::trusted`].
    with_trusted, trusted: Vec<PathBuf>;
    /// Replaces [`HostTargetOptions::dry_run`].
    with_dry_run, dry_run: bool;
    /// Replaces [`HostTargetOptions::parts_links`].
    with_parts_links, parts_links: bool;
}

impl HostTargetOptions {
    /// Names what will be read, to be refused as target.
    #[must_use]
    pub fn with_sources(mut self, sources: impl IntoIterator<Item = HostFile>) -> Self {
        self.open.sources.extend(sources);
        self
    }
}

/// Takes the files that the caller answers for as ours, where they lie.
pub(super) fn trust(target: &Target, options: &HostTargetOptions) -> Result<Vec<FileRef>> {
    let trusted = options.trusted.iter().map(|path| {
        let file_ref = target.file_ref_given(&resolve_to_write(path)?)?;
        file_ref.directory().trust(file_ref.name())?;
        Ok(file_ref)
    });
    trusted.collect()
}

fn directory_of(path: &Path) -> Result<HostDirectory> {
    HostDirectory::open_real(path.parent().unwrap_or(Path::new("/")))
}

/// The redo log of a file in a directory of the caller's choice: no two files share one.
pub(super) fn elsewhere(directory: &Path, target: &Path, dry_run: bool) -> Result<FileRef> {
    let digest = blake3::hash(target.as_os_str().as_encoded_bytes()).to_hex();
    let stem: String = target
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .chars()
        .take(STEM_CHARS)
        .collect();
    let digest = digest.get(..DIGEST_CHARS).unwrap_or_default();
    let name = format!("{stem}-{digest}.{LOG_SUFFIX}");
    Ok(FileRef::new(log_directory(directory, dry_run)?, name))
}

/// Opens the directory for redo logs, creating it if it is missing and this is no dry run. What
/// does not outlive a crash is refused, and so is a directory whose files other users may exchange.
fn log_directory(path: &Path, dry_run: bool) -> Result<Arc<dyn Directory>> {
    let other = || Advice::LogDirectory;
    // Not even the directory is made among device nodes.
    let above = path.ancestors().find(|it| it.is_dir());
    HostDirectory::open(above.unwrap_or(Path::new(".")))
        .and_then(|above| above.refuse_nodes(path.file_name().unwrap_or_default()))
        .map_err(|error| error.advise(other()))?;
    if !path.exists() {
        if dry_run {
            return Ok(Arc::new(AbsentDirectory::new(path)));
        }
        HostDirectory::make(path).map_err(|error| error.advise(other()))?;
    }
    // Absolute, because the marker will name it.
    let path = resolve_to_write(path).map_err(|error| error.advise(other()))?;
    let directory = HostDirectory::open_real(&path).map_err(|error| error.advise(other()))?;
    directory.refuse_shared()?;
    if directory.is_volatile()? {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "a redo log here would not outlive a crash: the directory is in memory",
        )
        .at_path(path)
        .advise(other()));
    }
    if let Some(above) = path.parent().filter(|_| !dry_run) {
        // Another process may have made it just now. Who may not do that has not made it.
        let _ = HostDirectory::open(above).and_then(|above| above.sync());
    }
    Ok(Arc::new(directory))
}

/// Names have at most 255 bytes, and a character takes at most 4.
const STEM_CHARS: usize = 40;
const DIGEST_CHARS: usize = 16;

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::*;
    use crate::delta::{DeltaWriter, Frame, FrameKind, Header, JobId, Purpose};
    use crate::limits::Limits;
    use crate::storage::fault::FaultDisk;
    use crate::sync::job::{Job, read_job};
    use crate::units::BlockSize;

    /// A delta file that begins with a job.
    fn with_job(disk: &FaultDisk, name: &str, purpose: Purpose) -> FileRef {
        let file_ref = FileRef::new(Arc::new(disk.directory("/d")), name);
        let header = Header {
            purpose,
            job: JobId([1; 16]),
            base_len: 8192,
            result_len: 8192,
            block_size: BlockSize::MIN,
        };
        let job = Job {
            format: Format::Raw,
            target_len: 8192,
            target: "/d/t".into(),
            target_inode: None,
            manifest: None,
        };
        let mut writer = DeltaWriter::create(file_ref.create_new().unwrap(), header).unwrap();
        let job = job.encode();
        writer.push(&Frame::bytes(FrameKind::Job, 0, &job)).unwrap();
        writer.flush().unwrap();
        file_ref
    }

    #[test]
    fn a_job_is_read_from_a_redo_log_or_sidecar_and_from_no_other_file() {
        let disk = FaultDisk::new();
        let limits = Limits::default();
        for (name, purpose, is_ours) in [
            ("redo_log", Purpose::RedoLog, true),
            ("sidecar", Purpose::Sidecar, true),
            ("undo", Purpose::Undo, false),
            ("portable", Purpose::Portable, false),
        ] {
            let file_ref = with_job(&disk, name, purpose);
            let found = read_job(&file_ref, &limits).unwrap();
            let expected = is_ours.then_some((JobId([1; 16]), purpose));
            assert_eq!(found.map(|(id, purpose, _)| (id, purpose)), expected);
        }
        disk.put("/d/letter", b"something else".to_vec());
        let letter = FileRef::new(Arc::new(disk.directory("/d")), "letter");
        assert!(read_job(&letter, &limits).unwrap().is_none());
        let none = FileRef::new(Arc::new(disk.directory("/d")), "none");
        assert!(read_job(&none, &limits).unwrap().is_none());
    }

    #[test]
    fn a_redo_log_that_cannot_be_read_is_not_taken_for_another_file() {
        let disk = FaultDisk::new();
        let file_ref = with_job(&disk, "redo_log", Purpose::RedoLog);
        disk.make_unreadable("/d/redo_log", 0..8).unwrap();
        let error = read_job(&file_ref, &Limits::default()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}

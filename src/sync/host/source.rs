//! An image to be read, named by a path of this host.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::image::{
    self, Format, Image, ImageOptions, RawUse, refuse_container, refuse_container_name,
};
use crate::storage::{
    HostFile, HostKind, Privacy, SourceOptions, SourceStamp, Storage, open_source,
};
use crate::sync::endpoint::source::Source;
use crate::sync::marker::format::Marker;

/// An image of this host, open for reading.
///
/// Writers that QEMU's locks or ours can keep out are kept out while this or a clone lives, unless
/// it was opened to be read while others write.
///
/// # Examples
/// ```no_run
/// use diskdelta::image::ImageOptions;
/// use diskdelta::storage::SourceOptions;
/// use diskdelta::sync::{HostSource, HostTarget, HostTargetOptions, SyncOptions, sync};
///
/// # fn main() -> diskdelta::Result<()> {
/// let source = HostSource::open("new.vhd", &ImageOptions::default(), &SourceOptions::default())?;
/// let options = HostTargetOptions::default().with_sources(source.files());
/// let target = HostTarget::open("/dev/vg/disk", &options)?;
/// let work = diskdelta::Work::with_threads(0)?;
/// sync(&source.source(), target.target(), &SyncOptions::default(), &work)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HostSource {
    image: Arc<dyn Image>,
    host: HostFile,
    storage: Arc<dyn Storage>,
    files: Vec<HostFile>,
    stamp: Option<SourceStamp>,
    reads_holes: bool,
    warnings: Vec<String>,
}

opaque!(HostSource);

impl HostSource {
    /// Opens the image at `path`; symbolic links are followed.
    ///
    /// Its format is the one in `image`, or else what the extension of `path`, or of what it leads
    /// to, says; a block device is raw.
    ///
    /// # Errors
    /// `NotFound`, `Io`, `Unsupported`, `Malformed`, `LimitExceeded`, `Parent`; `InUse` when
    /// another program writes to it; `Incomplete` for a disk that an unfinished sync left
    /// incomplete, unless the options declare that [its guest wrote the
    /// marker](SourceOptions::marker_is_data); `InvalidInput` for a container that would be read as
    /// raw only by default.
    pub fn open(
        path: impl AsRef<Path>,
        image: &ImageOptions,
        options: &SourceOptions,
    ) -> Result<Self> {
        Self::open_at(path.as_ref(), image, options).map_err(|error| error.during_work("open"))
    }

    fn open_at(path: &Path, image: &ImageOptions, options: &SourceOptions) -> Result<Self> {
        let opened = open_source(path, options)?;
        let storage = opened.storage;
        if !options.marker_is_data {
            Marker::refuse(&*storage)?;
        }
        let format = format_of(path, &opened.host, image.format);
        if image.format.is_none() && format == Format::Raw {
            let is_file = opened.host.kind() == HostKind::File;
            if is_file {
                refuse_container_name(path, RawUse::Read)?;
                refuse_container_name(opened.host.path(), RawUse::Read)?;
            }
            refuse_container(&*storage, is_file, RawUse::Read)?;
        }
        // A source that others may write changes all the time.
        let stamp = match options.allow_writers {
            true => None,
            false => SourceStamp::take(&*storage)?,
        };
        let reads_holes = image.read_holes;
        let image = image::open_storage(storage.clone(), format, image)
            .map_err(|error| error.at_path(path))?;
        Ok(HostSource {
            files: image.files()?,
            image,
            host: opened.host,
            storage,
            stamp,
            reads_holes,
            warnings: opened.warnings,
        })
    }

    /// The image.
    pub fn image(&self) -> &Arc<dyn Image> {
        &self.image
    }

    /// The bytes of the file or device that it lies in.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The file or device that it lies in.
    pub fn host(&self) -> &HostFile {
        &self.host
    }

    /// The image as a sync's source, which is asked at the end whether it changed.
    pub fn source(&self) -> Source {
        let this = self.clone();
        Source::new(self.image.clone())
            // What cannot be looked at any more admits no other user.
            .with_privacy(self.privacy().unwrap_or(Privacy::PRIVATE))
            .with_warnings(self.warnings())
            .with_check(Arc::new(move || this.check()))
    }

    /// Whether the file or device is what it was when it was opened.
    ///
    /// # Errors
    /// `SourceChanged`, `Io`.
    pub fn check(&self) -> Result<()> {
        self.stamp
            .as_ref()
            .map_or(Ok(()), |stamp| stamp.check(&*self.storage))
    }

    /// Whether the holes of its file or device are read too.
    pub(in crate::sync) fn reads_holes(&self) -> bool {
        self.reads_holes
    }

    /// What would show that it is written; `None` where others may write.
    pub(in crate::sync) fn stamp(&self) -> Option<&SourceStamp> {
        self.stamp.as_ref()
    }

    /// The files and devices that are read: the image's own, those of its parents, and the extents
    /// that it names.
    pub fn files(&self) -> Vec<HostFile> {
        self.files.clone()
    }

    /// Who may use all of the files that are read, for files that are made of what they hold.
    ///
    /// # Errors
    /// `Io`.
    pub fn privacy(&self) -> Result<Privacy> {
        let own = self.storage.privacy()?;
        let all = self.files();
        Ok(all.iter().fold(own, |both, file| both.and(file.privacy())))
    }

    /// Dangers that are no errors, of the file and of the image in it.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        let path = self.host.path().display();
        let of_image = self.image.info().warnings;
        warnings.extend(of_image.iter().map(|text| format!("{path}: {text}")));
        warnings
    }
}

/// The format that was chosen, or that a path's extension chooses, or the extension of what the
/// path leads to.
pub(in crate::sync) fn format_of(path: &Path, host: &HostFile, chosen: Option<Format>) -> Format {
    chosen.unwrap_or_else(|| match (host.kind(), Format::from_path(path)) {
        (HostKind::Device, _) => Format::Raw,
        (HostKind::File, Format::Raw) => Format::from_path(host.path()),
        (HostKind::File, format) => format,
    })
}

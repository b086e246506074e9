//! An image to be read at a web server.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Format, Image, ImageOptions, RawUse};
use crate::image::{refuse_container, refuse_container_name};
use crate::location::WebAddress;
use crate::progress::CancelToken;
use crate::storage::{BlobChanges, HttpOptions, SourceIdentity, SourceOptions, Storage};
use crate::storage::{WebStorage, changes_since};
use crate::sync::endpoint::source::Source;
use crate::sync::marker::format::Marker;
use crate::sync::source::history::{ChangedSince, History};

/// An image at a web server or in an object store, open for reading.
#[derive(Clone)]
pub struct WebSource {
    image: Arc<dyn Image>,
    storage: WebStorage,
    http: HttpOptions,
}

opaque!(WebSource);

impl WebSource {
    /// Opens the image at `address`. Its format is the one in `image`, or else what the extension
    /// of the address's path says; a page blob is a VHD, or a VHDX where it begins as one.
    ///
    /// # Errors
    /// Those of [`WebStorage::open`] and of opening the image; `Incomplete` for a disk that an
    /// unfinished sync left incomplete; `InvalidInput` for a container that would be read as raw
    /// only by default.
    pub fn open(
        address: &WebAddress,
        image: &ImageOptions,
        options: &SourceOptions,
        http: &HttpOptions,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let web = WebStorage::open(address, http, cancel)?;
        let storage = web.storage();
        if !options.marker_is_data {
            Marker::refuse(&*storage)?;
        }
        let path = Path::new(address.path());
        let format = match (image.format, &web) {
            (Some(format), _) => format,
            (None, WebStorage::PageBlob(_)) => format_of_blob(&*storage)?,
            (None, WebStorage::Plain(_)) => Format::from_path(path),
        };
        if image.format.is_none() && format == Format::Raw {
            refuse_container_name(path, RawUse::Read)?;
            refuse_container(&*storage, true, RawUse::Read)?;
        }
        let image = image::open_storage(storage, format, image)
            .map_err(|error| error.at_path(address.to_string()))?;
        Ok(WebSource {
            image,
            storage: web,
            http: http.clone(),
        })
    }

    /// The image as a sync's source; the server is asked at the end whether it changed.
    pub fn source(&self) -> Source {
        let storage = self.storage.clone();
        let mut warnings = storage.warnings();
        let bytes = storage.storage();
        let path = bytes.path().display();
        let of_image = self.image.info().warnings;
        warnings.extend(of_image.iter().map(|text| format!("{path}: {text}")));
        Source::new(self.image.clone())
            .with_warnings(warnings)
            .with_history(self.storage.identity(), Arc::new(self.clone()))
            .with_check(Arc::new(move || storage.check()))
    }
}

impl History for WebSource {
    fn changed_since(
        &self,
        older: &WebAddress,
        holds: Option<&SourceIdentity>,
        cancel: &CancelToken,
    ) -> Result<ChangedSince> {
        let unknown = |why: &str| Ok(ChangedSince::Unknown(why.to_owned()));
        let WebStorage::PageBlob(blob) = &self.storage else {
            return unknown("the server keeps no list of changes");
        };
        let info = self.image.info();
        let is_mapped = match info.format {
            Format::Raw => true,
            Format::Vhd => info.layout == image::Layout::Fixed,
            _ => false,
        };
        if !is_mapped {
            return unknown("offsets of the image are not those of the disk");
        }
        let old = match WebStorage::open(older, &self.http, cancel) {
            Ok(old) => old,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => return unknown(&error.to_string()),
        };
        if holds.is_some() && holds != old.identity().as_ref() {
            return unknown("the target was last made from another snapshot");
        }
        let WebStorage::PageBlob(old) = old else {
            return unknown("the older snapshot is no page blob");
        };
        let disk_len = self.image.disk_len();
        Ok(match changes_since(blob, &old)? {
            BlobChanges::Unknown(why) => ChangedSince::Unknown(why),
            BlobChanges::Known(ranges) => {
                // Behind the disk there is only the footer.
                let inside = ranges.into_iter().map(|it| it.start..it.end.min(disk_len));
                ChangedSince::Known(inside.filter(|range| !range.is_empty()).collect())
            }
        })
    }
}

/// The format of an exported disk, which the service wrote: a VHD by its footer, which no guest can
/// write; or, of disks with sectors of 4096 bytes, a VHDX by its first bytes.
///
/// # Errors
/// `InvalidInput` where it is neither or both; `Io`.
fn format_of_blob(storage: &dyn Storage) -> Result<Format> {
    let (len, mut head, mut tail) = (storage.len()?, [0; 8], [0; 8]);
    if len >= SECTOR_BYTES {
        storage.read_exact_at(&mut head, 0)?;
        storage.read_exact_at(&mut tail, len - SECTOR_BYTES)?;
    }
    let what = match (&head == b"vhdxfile", &tail == b"conectix") {
        (false, true) => return Ok(Format::Vhd),
        (true, false) => return Ok(Format::Vhdx),
        (true, true) => "the page blob begins as a VHDX and ends as a VHD",
        (false, false) => "the page blob is no VHD and no VHDX",
    };
    Err(Error::new(ErrorKind::InvalidInput, what)
        .at_path(storage.path())
        .advise("name its format"))
}

/// Of a VHD's footer.
const SECTOR_BYTES: u64 = 512;

//! An image to be read at a web server.

use std::path::Path;
use std::sync::Arc;

use crate::error::Result;
use crate::image::{self, Format, Image, ImageOptions, RawUse};
use crate::image::{refuse_container, refuse_container_name};
use crate::location::WebAddress;
use crate::progress::CancelToken;
use crate::storage::{HttpOptions, HttpStorage, SourceOptions, Storage};
use crate::sync::endpoint::source::Source;
use crate::sync::marker::format::Marker;

/// An image at a web server or in an object store, open for reading.
#[derive(Clone)]
pub struct WebSource {
    image: Arc<dyn Image>,
    storage: Arc<HttpStorage>,
}

opaque!(WebSource);

impl WebSource {
    /// Opens the image at `address`. Its format is the one in `image`, or else what the extension
    /// of the address's path says.
    ///
    /// # Errors
    /// Those of [`HttpStorage::open`] and of opening the image; `Incomplete` for a disk that an
    /// unfinished sync left incomplete; `InvalidInput` for a container that would be read as raw
    /// only by default.
    pub fn open(
        address: &WebAddress,
        image: &ImageOptions,
        options: &SourceOptions,
        http: &HttpOptions,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let storage = Arc::new(HttpStorage::open(address, http, cancel)?);
        if !options.marker_is_data {
            Marker::refuse(&*storage)?;
        }
        let path = Path::new(address.path());
        let format = image.format.unwrap_or_else(|| Format::from_path(path));
        if image.format.is_none() && format == Format::Raw {
            refuse_container_name(path, RawUse::Read)?;
            refuse_container(&*storage, true, RawUse::Read)?;
        }
        let image = image::open_storage(storage.clone(), format, image)
            .map_err(|error| error.at_path(address.to_string()))?;
        Ok(WebSource { image, storage })
    }

    /// The image as a sync's source; the server is asked at the end whether it changed.
    pub fn source(&self) -> Source {
        let storage = self.storage.clone();
        let mut warnings = storage.warnings();
        let path = storage.path().display();
        let of_image = self.image.info().warnings;
        warnings.extend(of_image.iter().map(|text| format!("{path}: {text}")));
        Source::new(self.image.clone())
            .with_warnings(warnings)
            .with_check(Arc::new(move || storage.check()))
    }
}

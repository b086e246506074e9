//! Opening VHDs.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::image::gate::Chain;
use crate::image::{Image, ImageMut, ImageOptions};
use crate::storage::Storage;

use super::fixed::Fixed;
use super::format::DiskKind;
use super::locate::{Located, locate};
use super::parent::open_dynamic;

/// Opens a VHD for reading, with its parents.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`, `Parent`, `Io`.
pub(in crate::image) fn open(
    storage: Arc<dyn Storage>,
    options: &ImageOptions,
) -> Result<Arc<dyn Image>> {
    let located = locate(&*storage, options)?;
    open_located(storage, located, options)
}

/// Opens a VHD for reading and writing.
///
/// # Errors
/// As [`open`]; `Unsupported` for what must not or cannot be written.
pub(in crate::image) fn open_mut(
    storage: Arc<dyn Storage>,
    options: &ImageOptions,
) -> Result<Arc<dyn ImageMut>> {
    // What is only readable with an eye closed must not be made worse.
    let options = options.clone().with_lenient(false);
    let located = locate(&*storage, &options)?;
    let footer = &located.footer;
    let refuse = |message: &'static str, advice: &'static str| {
        Err(Error::new(ErrorKind::Unsupported, message)
            .at_path(storage.path())
            .advise(advice))
    };
    if footer.saved_state != 0 {
        return refuse(
            "a suspended machine is going to resume on this disk",
            "resume it and shut it down first",
        );
    }
    if located.disk_len != footer.current_bytes {
        return refuse(
            "a VHD is written only at the length that its footer has in bytes",
            "open it with the default size policy",
        );
    }
    match footer.kind {
        DiskKind::Fixed => Ok(Arc::new(Fixed::new(storage, located))),
        DiskKind::Dynamic => Ok(Arc::new(open_dynamic(
            storage,
            located,
            &options,
            &Chain::default(),
        )?)),
        DiskKind::Differencing => refuse(
            "a differencing VHD cannot be written",
            "write to a dynamic VHD instead, or merge the chain first",
        ),
    }
}

pub(super) fn open_located(
    storage: Arc<dyn Storage>,
    located: Located,
    options: &ImageOptions,
) -> Result<Arc<dyn Image>> {
    Ok(match located.footer.kind {
        DiskKind::Fixed => Arc::new(Fixed::new(storage, located)),
        DiskKind::Dynamic | DiskKind::Differencing => {
            let chain = Chain::default();
            Arc::new(open_dynamic(storage, located, options, &chain)?)
        }
    })
}

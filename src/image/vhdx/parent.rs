//! The parent of a differencing image.

use std::sync::Arc;

use super::guid::Guid;
use super::header::Headers;
use super::image::{Parent, Vhdx};
use super::metadata::Metadata;
use super::structure::check_signature;
use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageOptions;
use crate::image::gate::{self, Chain, ImageId, ParentRequest, Tried};
use crate::storage::Storage;

/// Opens an image that was found to be the parent.
type OpenParent = fn(Arc<dyn Storage>, &ImageOptions, &Chain) -> Result<Vhdx>;

/// Opens the parent through the caller's gate: the file with the data write GUID that the child
/// names. `None` for an image that needs none.
///
/// # Errors
/// `Parent` where none is offered that matches, or its sectors have another size; whatever is
/// wrong with it; `LimitExceeded` and `Malformed` for chains too long or closed to a ring.
pub(super) fn open(
    storage: &dyn Storage,
    headers: &Headers,
    metadata: &Metadata,
    options: &ImageOptions,
    chain: &Chain,
    open: OpenParent,
) -> Result<Option<Parent>> {
    let Some(locator) = &metadata.parent else {
        return Ok(None);
    };
    let own = image_id(headers.current().data_write);
    let chain = chain.join(own, storage, &options.limits)?;
    let hints: Vec<String> = locator.paths().map(str::to_owned).collect();
    let request = ParentRequest {
        child: storage.path(),
        id: image_id(locator.linkage),
        disk_len: metadata.disk_bytes,
        hints: &hints,
    };
    gate::open_parent(&*options.gate, &request, |file| {
        let found = match check_signature(&*file).and_then(|()| Headers::read(&*file)) {
            Ok(found) => found.current().data_write,
            Err(error) => return Ok(Tried::Other(format!("is no VHDX: {error}").into())),
        };
        if !locator.accepts(found) {
            let other = image_id(found);
            return Ok(Tried::Other(format!("has data write GUID {other}").into()));
        }
        let path = file.path().to_owned();
        let image = open(file, options, &chain)?;
        check_sectors(&image, metadata).map_err(|e| e.at_path(&path))?;
        Ok(Tried::Parent(Parent {
            image: Arc::new(image),
            path: path.display().to_string(),
        }))
    })
    .map(Some)
}

/// What links parent and child is the data write GUID: a disk id that was reset is no reason to
/// refuse ([MS-VHDX] section 2.6.2.6).
fn check_sectors(parent: &Vhdx, child: &Metadata) -> Result<()> {
    if parent.sector_bytes() != child.sector_bytes {
        let message = format!(
            "the parent has sectors of {} bytes, the child of {}",
            parent.sector_bytes(),
            child.sector_bytes
        );
        return Err(Error::new(ErrorKind::Parent, message).in_field("logical_sector_size"));
    }
    Ok(())
}

/// The GUID's digits in the order in which they are read.
fn image_id(guid: Guid) -> ImageId {
    ImageId(guid.digits().to_be_bytes())
}

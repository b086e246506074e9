//! Opening dynamic and differencing files, with their parents.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageOptions;
use crate::image::gate::{self, Chain, ImageId, ParentRequest, Tried};
use crate::storage::Storage;

use super::dynamic::{Dynamic, Parent};
use super::fixed::Fixed;
use super::format::{DiskKind, DynamicHeader, ENTRY_BYTES, locator_text, parent_name_text};
use super::layout::read_layout;
use super::locate::{Located, locate};

/// Reads and checks the tables, and opens the parent where there is one.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`, `Parent`, `Io`.
pub(super) fn open_dynamic(
    storage: Arc<dyn Storage>,
    mut located: Located,
    options: &ImageOptions,
    chain: &Chain,
) -> Result<Dynamic> {
    let named = |error: Error| error.at_path(storage.path());
    let footer = &located.footer;
    if &footer.creator == b"tap\0" && footer.creator_version == BYTE_SWAPPED_BITMAPS {
        return Err(named(
            Error::new(
                ErrorKind::Unsupported,
                "blktap 0.1 wrote its sector bitmaps in another byte order",
            )
            .in_field("creator version")
            .advise("convert the file with a current vhd-util"),
        ));
    }
    let layout = read_layout(&*storage, &located, options).map_err(named)?;
    let parent = match footer.kind {
        DiskKind::Differencing => {
            let id = ImageId(footer.unique_id);
            let chain = chain.join(id, &*storage, &options.limits)?;
            let options = options.for_parent(layout.table.len() as u64 * ENTRY_BYTES as u64);
            Some(open_parent(
                &*storage,
                &located,
                &layout.header,
                &options,
                &chain,
            )?)
        }
        DiskKind::Fixed | DiskKind::Dynamic => None,
    };
    let parent_len = parent.as_ref().map(|it| it.image.disk_len());
    if let Some(parent_len) = parent_len.filter(|len| *len < located.disk_len) {
        // XenServer grows a leaf after its snapshot.
        located.warnings.push(format!(
            "the parent has {parent_len} bytes, this image {}",
            located.disk_len
        ));
    }
    Ok(Dynamic::new(
        storage, located, layout, parent, options, chain,
    ))
}

/// Opens the parent through the caller's gate: the file with the right unique id. One that is
/// shorter reads as zeros beyond its end, as libvhd has it; one that is longer is refused.
///
/// # Errors
/// `Parent` where none is offered that matches; whatever is wrong with the one that does.
fn open_parent(
    storage: &dyn Storage,
    located: &Located,
    header: &DynamicHeader,
    options: &ImageOptions,
    chain: &Chain,
) -> Result<Parent> {
    let hints = hints(storage, header)?;
    let id = ImageId(header.parent_id);
    let request = ParentRequest {
        child: storage.path(),
        id,
        disk_len: located.disk_len,
        hints: &hints,
    };
    gate::open_parent(&*options.gate, &request, |file| {
        let found = match locate(&*file, options) {
            Ok(found) => found,
            Err(error) => return Ok(Tried::Other(format!("is no VHD: {error}").into())),
        };
        if ImageId(found.footer.unique_id) != id {
            let other = ImageId(found.footer.unique_id);
            return Ok(Tried::Other(format!("has id {other}").into()));
        }
        if found.disk_len > located.disk_len {
            return Err(Error::new(
                ErrorKind::Parent,
                format!(
                    "the parent's disk has {} bytes, the child's {}",
                    found.disk_len, located.disk_len
                ),
            )
            .in_field("current size")
            .at_path(file.path()));
        }
        let path = file.path().display().to_string();
        if found.footer.kind == DiskKind::Fixed {
            let image = Arc::new(Fixed::new(file, found));
            return Ok(Tried::Parent(Parent {
                image,
                dynamic: None,
                path,
            }));
        }
        let image = Arc::new(open_dynamic(file, found, options, chain)?);
        Ok(Tried::Parent(Parent {
            image: image.clone(),
            dynamic: Some(image),
            path,
        }))
    })
}

/// What the file says of its parent's place, relative paths first.
fn hints(storage: &dyn Storage, header: &DynamicHeader) -> Result<Vec<String>> {
    let file_len = storage.len()?;
    let mut relative = Vec::new();
    let mut absolute = Vec::new();
    for locator in &header.locators {
        let inside = locator
            .offset
            .checked_add(u64::from(locator.len))
            .is_some_and(|end| end <= file_len);
        if !inside || locator.len > MAX_PATH_BYTES {
            continue;
        }
        // At most MAX_PATH_BYTES.
        let mut payload = vec![0; locator.len as usize];
        storage.read_exact_at(&mut payload, locator.offset)?;
        if let Some(text) = locator_text(locator.platform, &payload) {
            if &locator.platform == b"W2ru" {
                relative.push(text);
            } else {
                absolute.push(text);
            }
        }
    }
    relative.push(parent_name_text(&header.parent_name));
    relative.append(&mut absolute);
    relative.retain(|hint| !hint.is_empty());
    Ok(relative)
}

/// Windows' longest path, 32767 UTF-16 units, and some room.
const MAX_PATH_BYTES: u32 = 64 << 10;

/// blktap's version 0.1.
const BYTE_SWAPPED_BITMAPS: u32 = 0x0000_0001;

//! The parent of a differencing file.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::image::gate::{self, Chain, ImageId, ParentRequest, Tried};
use crate::image::{Image, ImageOptions};
use crate::storage::Storage;

use super::dynamic::Dynamic;
use super::fixed::Fixed;
use super::format::{DiskKind, DynamicHeader, locator_text, parent_name_text};
use super::locate::{Located, locate};

/// A parent, open.
pub(super) struct Parent {
    pub image: Arc<dyn Image>,
    /// The same, where it has blocks.
    pub dynamic: Option<Arc<Dynamic>>,
    pub path: String,
}

/// Opens the parent through the caller's gate: the file with the right unique id and length.
///
/// # Errors
/// `Parent` where none is offered that matches; whatever is wrong with the one that does.
pub(super) fn open_parent(
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
        if found.disk_len != located.disk_len {
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
        let image = Arc::new(Dynamic::open(file, found, options, chain)?);
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

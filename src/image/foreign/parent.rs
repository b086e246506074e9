//! Files that an image names: the caller's gate decides which may be opened.

use std::sync::Arc;

use crate::error::Result;
use crate::image::gate::{self, ImageId, ParentRequest, Tried};
use crate::image::{Image, ImageOptions};
use crate::storage::Storage;

/// A backing file, open.
pub(super) struct Parent {
    pub image: Arc<dyn Image>,
    pub path: String,
}

/// The file that the gate offers under the name that `child` states.
///
/// # Errors
/// `Parent`; what the gate returns.
pub(super) fn named_file(
    child: &Arc<dyn Storage>,
    name: &str,
    disk_len: u64,
    options: &ImageOptions,
) -> Result<Arc<dyn Storage>> {
    let hints = [name.to_owned()];
    let request = ParentRequest {
        child: child.path(),
        id: ImageId([0; 16]),
        disk_len,
        hints: &hints,
    };
    let wanted = name.rsplit('/').next().unwrap_or(name);
    gate::open_parent(&*options.gate, &request, |file| {
        Ok(match file.path().file_name().and_then(|it| it.to_str()) {
            Some(found) if found == wanted => Tried::Parent(file),
            _ => Tried::Other("has another name".into()),
        })
    })
}

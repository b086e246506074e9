//! Files that an image names: the caller's gate decides which may be opened.

use std::sync::Arc;

use crate::error::Result;
use crate::image::gate::{self, Chain, ImageId, ParentRequest, Tried};
use crate::image::{Format, Image, ImageOptions, RawUse, open_storage, refuse_container};
use crate::storage::{HostFile, Storage};

use super::qcow2;

/// A backing file, open.
pub(super) struct Parent {
    pub image: Arc<dyn Image>,
    pub path: String,
}

/// Opens the backing file that `child` names.
///
/// # Errors
/// `Parent` where the gate offers none of that name; `Unsupported` for a format that is not read;
/// those of opening it.
pub(super) fn open(
    child: &Arc<dyn Storage>,
    name: &str,
    format: Option<&str>,
    disk_len: u64,
    options: &ImageOptions,
    chain: &Chain,
) -> Result<Parent> {
    let chain = chain.join(file_id(&**child), &**child, &options.limits)?;
    let file = named_file(child, name, disk_len, options)?;
    let path = file.path().to_owned();
    let format = match format {
        Some(stated) => stated_format(stated)?,
        None => Format::from_path(&path),
    };
    let image = match format {
        Format::Qcow2 => qcow2::open(file, options, &chain),
        Format::Raw => refuse_container(&*file, true, RawUse::Read)
            .and_then(|()| open_storage(file, Format::Raw, options)),
        other => open_storage(file, other, options),
    };
    Ok(Parent {
        image: image.map_err(|e| e.at_path(&path))?,
        path: path.display().to_string(),
    })
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

/// QEMU's names of formats.
fn stated_format(name: &str) -> Result<Format> {
    use crate::error::{Error, ErrorKind};
    match name {
        "raw" | "file" => Ok(Format::Raw),
        "vpc" => Ok(Format::Vhd),
        "vhdx" => Ok(Format::Vhdx),
        "qcow2" => Ok(Format::Qcow2),
        "vmdk" => Ok(Format::Vmdk),
        other => Err(Error::new(
            ErrorKind::Unsupported,
            format!("a backing file of format `{}`", other.escape_debug()),
        )),
    }
}

/// Stands for a file in a chain: these formats have no ids of their own.
fn file_id(file: &dyn Storage) -> ImageId {
    let id = HostFile::at(file.path()).map(|it| it.id());
    let (device, inode) = id.map_or((0, 0), |id| (id.device, id.inode));
    ImageId((u128::from(device) << 64 | u128::from(inode)).to_be_bytes())
}

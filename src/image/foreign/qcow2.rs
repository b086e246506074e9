//! qcow2: what has to be right before imago is asked.

use std::sync::Arc;

use imago::file::File;
use imago::qcow2::Qcow2;

use crate::error::{Error, ErrorKind, Result};
use crate::image::gate::{Chain, ImageId};
use crate::image::probe::{RawUse, refuse_container};
use crate::image::{Format, Image, ImageOptions};
use crate::storage::{HostFile, Storage};

use super::format::{QCOW2_HEADER_BYTES, Qcow2Header, l2_offsets};
use super::image::{Foreign, from_imago, second_handle};
use super::parent::{Parent, named_file};

/// Opens a backing file of another format.
pub(super) type OpenOther = fn(Arc<dyn Storage>, Format, &ImageOptions) -> Result<Arc<dyn Image>>;

/// Opens a qcow2 and the chain below it.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`, `Parent`, `Io`.
pub(super) fn open(
    storage: Arc<dyn Storage>,
    options: &ImageOptions,
    chain: &Chain,
    open_other: OpenOther,
) -> Result<Arc<dyn Image>> {
    let path = storage.path().to_owned();
    let header = check(&*storage, options).map_err(|e| e.at_path(&path))?;
    let failed = |cause| from_imago(cause).at_path(&path);
    let mut driver = Qcow2::<File>::open_image(second_handle(&*storage)?, false).map_err(failed)?;
    driver.set_data_file(None);
    driver.set_backing(None);
    let backing = driver.implicit_backing_file().cloned();
    let backing_format = driver.implicit_backing_format().cloned();
    let parent = backing
        .as_deref()
        .map(|name| {
            let format = backing_format.as_deref();
            let options = options.for_parent(u64::from(header.l1_count) * 8);
            open_backing(
                &storage,
                name,
                format,
                header.disk_bytes,
                &options,
                chain,
                open_other,
            )
        })
        .transpose()?;
    let cluster = 1 << header.cluster_bits;
    let mut facts = vec![("cluster_bytes", cluster.to_string())];
    facts.extend(backing.map(|name| ("backing_file", name)));
    Ok(Arc::new(Foreign {
        driver: Box::new(driver),
        file: storage,
        disk_len: header.disk_bytes,
        parent,
        facts,
        cluster_bytes: cluster,
    }))
}

/// Opens the backing file that `child` names.
///
/// # Errors
/// `Parent` where the gate offers none of that name; `Unsupported` for a format that is not read;
/// those of opening it.
fn open_backing(
    child: &Arc<dyn Storage>,
    name: &str,
    format: Option<&str>,
    disk_len: u64,
    options: &ImageOptions,
    chain: &Chain,
    open_other: OpenOther,
) -> Result<Parent> {
    let chain = chain.join(file_id(&**child), &**child, &options.limits)?;
    let file = named_file(child, name, disk_len, options)?;
    let path = file.path().to_owned();
    let format = match format {
        Some(stated) => stated_format(stated)?,
        None => Format::from_path(&path),
    };
    let image = match format {
        Format::Qcow2 => open(file, options, &chain, open_other),
        Format::Raw => refuse_container(&*file, true, RawUse::Read)
            .and_then(|()| open_other(file, Format::Raw, options)),
        other => open_other(file, other, options),
    };
    Ok(Parent {
        image: image.map_err(|e| e.at_path(&path))?,
        path: path.display().to_string(),
    })
}

/// QEMU's names of formats.
fn stated_format(name: &str) -> Result<Format> {
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

/// Refuses what imago takes: encrypted bytes as if they were plain, and tables that are not all
/// there as if what is missing were zeros.
fn check(storage: &dyn Storage, options: &ImageOptions) -> Result<Qcow2Header> {
    let wrong = |what: &'static str, field| Error::malformed(what).in_field(field);
    let file_len = storage.len()?;
    let mut bytes = [0; QCOW2_HEADER_BYTES];
    if file_len < bytes.len() as u64 {
        return Err(wrong("too short for a qcow2", "magic"));
    }
    storage.read_exact_at(&mut bytes, 0)?;
    let header = Qcow2Header::decode(&bytes)
        .ok_or_else(|| wrong("this is not a qcow2: it does not begin with `QFI`", "magic"))?;
    if !(2..=3).contains(&header.version) {
        let what = format!("version {} of qcow", header.version);
        return Err(Error::new(ErrorKind::Unsupported, what)
            .in_field("version")
            .advise("convert it: qemu-img convert -O qcow2"));
    }
    if header.encryption != 0 {
        return Err(
            Error::new(ErrorKind::Unsupported, "the image is encrypted").in_field("crypt_method")
        );
    }
    if header.features != 0 {
        let named = FEATURES
            .iter()
            .filter(|(bit, ..)| header.features & bit != 0);
        let known = FEATURES.iter().fold(0, |bits, (bit, ..)| bits | bit);
        let mut names: Vec<_> = named
            .clone()
            .map(|(_, name, _)| (*name).to_owned())
            .collect();
        if header.features & !known != 0 {
            names.push(format!("features {:#x}", header.features & !known));
        }
        let advice = match named.clone().all(|(.., is_damage)| *is_damage) && names.len() == 1 {
            true => "repair it: qemu-img check -r all",
            false => "convert it: qemu-img convert -O raw",
        };
        let what = format!("a qcow2 with {}", names.join(", "));
        return Err(Error::new(ErrorKind::Unsupported, what)
            .in_field("incompatible_features")
            .advise(advice));
    }
    if header.disk_bytes > options.limits.disk_bytes {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("a disk of {:#x} bytes exceeds the limit", header.disk_bytes),
        )
        .in_field("size"));
    }
    if !(9..=21).contains(&header.cluster_bits) {
        return Err(wrong("clusters are 512 bytes to 2 MiB", "cluster_bits"));
    }
    let cluster = 1u64 << header.cluster_bits;
    // At most 2^39 bytes a second table, and 2^32 of them: no product runs over after the limit.
    let needed = header.disk_bytes.div_ceil(cluster * (cluster / 8));
    if needed > u64::from(header.l1_count) {
        return Err(wrong(
            "the first table is too short for the disk",
            "l1_size",
        ));
    }
    let l1_bytes = u64::from(header.l1_count) * 8;
    if l1_bytes > options.limits.table_bytes {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            "the first table exceeds the limit",
        )
        .in_field("l1_size"));
    }
    let end = header.l1_offset.checked_add(l1_bytes);
    if end.is_none_or(|end| end > file_len) {
        return Err(wrong(
            "the file ends inside its first table",
            "l1_table_offset",
        ));
    }
    let (mut at, mut left) = (header.l1_offset, l1_bytes);
    while left > 0 {
        // At most 1 MiB.
        let mut piece = vec![0; left.min(PIECE_BYTES) as usize];
        storage.read_exact_at(&mut piece, at)?;
        let behind = l2_offsets(&piece)
            .any(|l2| l2 != 0 && l2.checked_add(cluster).is_none_or(|end| end > file_len));
        if behind {
            return Err(wrong("the file ends before one of its tables", "l1_table").at_offset(at));
        }
        at += piece.len() as u64;
        left -= piece.len() as u64;
    }
    Ok(header)
}

const PIECE_BYTES: u64 = 1 << 20;

/// Features that only a reader that knows them may take, by QEMU's `docs/interop/qcow2.rst`:
/// the bit, its name, and whether it stands for damage.
const FEATURES: [(u64, &str, bool); 5] = [
    (1 << 0, "tables that may be out of date (dirty)", true),
    (1 << 1, "damage that QEMU has found (corrupt)", true),
    (
        1 << 2,
        "its data in another file (external data file)",
        false,
    ),
    (1 << 3, "a compression of its own (zstd)", false),
    (1 << 4, "subclusters (extended L2 entries)", false),
];

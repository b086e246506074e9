//! A page blob as a target.

use std::path::Path;
use std::sync::Arc;

use super::target::{HostTarget, HostTargetOptions, LOG_DIR, elsewhere, trust};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{CreateFormat, CreateOptions, Format};
use crate::location::WebAddress;
use crate::progress::CancelToken;
use crate::storage::{BlobTarget, HttpOptions, Storage};
use crate::sync::endpoint::target::Target;
use crate::sync::marker::format::Marker;
use crate::sync::recovery::found_log::with_own_log;

/// Opens the page blob at `address` to be written: a fixed VHD, as Azure makes disks of, unless
/// another format is chosen. One that is missing, or was never written, is created by the sync.
///
/// The redo log, and the id of the blob's lease, are in the directory for logs of this host.
///
/// # Errors
/// Those of [`BlobTarget::open`]; `Unsupported` for a format that a page blob does not take;
/// `AlreadyExists` for a blob that holds something and is to be created; `Incomplete`, `Io`.
pub(crate) fn open_blob(
    address: &WebAddress,
    options: &HostTargetOptions,
    http: &HttpOptions,
    cancel: &CancelToken,
) -> Result<HostTarget> {
    let named = |error: Error| error.at_path(address.to_string());
    let create = format_of(options).map_err(named)?;
    let place = address.place();
    let directory = options.log_dir.as_deref().unwrap_or(Path::new(LOG_DIR));
    let redo_log = elsewhere(directory, Path::new(&place), options.dry_run)?;
    let lease_file = (!options.dry_run).then(|| redo_log.hidden_sibling(LEASE_SUFFIX));
    let blob = BlobTarget::open(address, http, lease_file, cancel)?;
    if !blob.is_blank() && options.create.is_some() {
        let what = "the page blob holds something, so it cannot be created";
        return Err(named(Error::new(ErrorKind::AlreadyExists, what)));
    }
    let is_new = blob.is_blank();
    let storage: Arc<dyn Storage> = Arc::new(blob);
    let create = CreateOptions::new(create, 0).with_align(options.align_bytes.max(MIB));
    let target = Target::device(storage.clone(), create.format.format(), redo_log)
        .with_image_options(options.image.clone())
        .with_create(create);
    let trusted = trust(&target, options)?;
    let target = match &options.target_manifest {
        Some(path) => target.with_trusted_manifest(path.clone()),
        None => target,
    };
    let target = match Marker::find(&*storage)? {
        Some(marker) => with_own_log(target, &marker, trusted, &options.image.limits)?,
        None => target,
    };
    Ok(HostTarget::of(target, is_new))
}

/// What a page blob holds, or is created as.
fn format_of(options: &HostTargetOptions) -> Result<CreateFormat> {
    match (options.create, options.image.format) {
        (None, None | Some(Format::Vhd)) | (Some(CreateFormat::VhdFixed), _) => {
            Ok(CreateFormat::VhdFixed)
        }
        (None, Some(Format::Raw)) | (Some(CreateFormat::Raw), _) => Ok(CreateFormat::Raw),
        _ => {
            let what = "a page blob holds a fixed VHD, or raw bytes";
            Err(Error::new(ErrorKind::Unsupported, what)
                .advise("leave the format out, or name vhd-fixed or raw"))
        }
    }
}

/// What is added to the name of the redo log to make that of the file with the lease's id.
const LEASE_SUFFIX: &str = "diskdelta-lease";
/// Azure makes disks of whole MiB.
const MIB: u64 = 1 << 20;

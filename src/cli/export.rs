//! `diskdelta delta export`

use std::path::PathBuf;

use crate::hash::Hash;
use crate::image::{Format, Layout};
use crate::storage::{Access, FileRef, resolve};
use crate::sync::{HostSource, export_delta};
use crate::units::format_size;
use serde::Serialize;

use super::args::{self, Parents};
use super::context::Context;
use super::delta_file;
use super::outcome::{Ended, Exit};

/// Write a delta as a differencing VHD or VHDX over its base
///
/// A hypervisor can open the child, or merge it into its parent. The parent must be exactly what
/// the delta was made from, and must not change while the child exists.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Delta to read
    #[arg(value_parser = args::here())]
    file: PathBuf,
    /// VHD or VHDX that the delta was made from
    #[arg(long, value_name = "BASE", value_parser = args::here())]
    parent: PathBuf,
    /// Child to write; it must not exist, and needs an extension of BASE's format
    #[arg(long, value_name = "FILE", value_parser = args::here())]
    to: PathBuf,
    /// Read BASE as this format, whatever its name
    #[arg(long, value_name = "FORMAT", value_parser = args::format())]
    parent_format: Option<Format>,
}

#[derive(Serialize)]
struct Object {
    format: Format,
    layout: Layout,
    parent: String,
    disk_bytes: u64,
    data_bytes: u64,
    zeroed_bytes: u64,
    file_bytes: u64,
    root: Option<Hash>,
}

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    let delta = delta_file::open(&args.file)?;
    let options = Parents::default().options(args.parent_format);
    let base = HostSource::open(&args.parent, &options, &context.common.source_options())?;
    context.warn(&base.warnings());
    export_delta(&delta, &base, &args.to, &options, &context.work)?;
    let trailer = delta.trailer();
    let object = Object {
        format: base.image().info().format,
        layout: Layout::Differencing,
        parent: args.parent.display().to_string(),
        disk_bytes: delta.header().result_len,
        data_bytes: trailer.data_bytes,
        zeroed_bytes: trailer.zero_bytes,
        file_bytes: file_len(&args.to)?,
        root: trailer.result_root,
    };
    context.print(&object, || {
        format!(
            "made {}: a {} over {}, {} data and {} zeros of {}; file {}",
            args.to.display(),
            object.format.name(),
            object.parent,
            format_size(object.data_bytes),
            format_size(object.zeroed_bytes),
            format_size(object.disk_bytes),
            format_size(object.file_bytes)
        )
    })?;
    Ok(Exit::Done)
}

fn file_len(path: &PathBuf) -> crate::Result<u64> {
    FileRef::host(resolve(path)?)?.open(Access::Read)?.len()
}

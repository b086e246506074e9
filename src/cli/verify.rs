//! `diskdelta verify`

use std::time::Instant;

use crate::diff::{Newer, with_manifest};
use crate::hash::Hash;
use crate::units::{format_count, format_size};
use crate::{Extent, Location};
use serde::Serialize;

use super::args::{self, Holes, OneImage};
use super::context::Context;
use super::outcome::{Ended, Exit};
use super::tls_args::TlsArgs;

/// Compare an image with a manifest; status 0 if they are equal, otherwise 1
#[derive(clap::Args)]
pub(super) struct Args {
    /// Image to read
    #[arg(value_parser = args::readable())]
    image: Location,
    /// Manifest to compare with
    #[arg(value_parser = args::readable())]
    manifest: Location,
    #[command(flatten)]
    open: OneImage,
    #[command(flatten)]
    holes: Holes,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Serialize)]
struct Object {
    identical: bool,
    root: Hash,
    manifest_root: Hash,
    disk_bytes: u64,
    manifest_disk_bytes: u64,
    changed_bytes: u64,
    granularity_bytes: u64,
    extents: Vec<Extent>,
    elapsed_seconds: f64,
    warnings: Vec<String>,
}

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    let started = Instant::now();
    let image = args.holes.of(args.open.options());
    let source = context
        .common
        .open_source(&args.image, &image, &args.tls, &context.work)?;
    let warnings = source.warnings().to_vec();
    context.warn(&warnings);
    let manifest = context
        .common
        .open_manifest(&args.manifest, &context.work)?;
    let found = with_manifest(
        &**source.readable()?,
        &manifest,
        Newer::Image,
        &context.work,
    )?;
    source.check()?;
    let object = Object {
        identical: found.root == manifest.root(),
        root: found.root,
        manifest_root: manifest.root(),
        disk_bytes: source.disk_len(),
        manifest_disk_bytes: manifest.disk_len(),
        changed_bytes: found.extents.iter().map(|extent| extent.len).sum(),
        granularity_bytes: manifest.block_size().bytes(),
        extents: found.extents,
        elapsed_seconds: started.elapsed().as_secs_f64(),
        warnings,
    };
    context.print(&object, || text(&object))?;
    Ok(match object.identical {
        true => Exit::Done,
        false => Exit::Differs,
    })
}

fn text(object: &Object) -> Vec<String> {
    if object.identical {
        return vec![format!("verified: root {}", object.root)];
    }
    let mut lines = vec![format!(
        "differs: root {}, wanted {}",
        object.root, object.manifest_root
    )];
    if object.disk_bytes != object.manifest_disk_bytes {
        lines.push(format!(
            "lengths differ: {} bytes, wanted {}",
            object.disk_bytes, object.manifest_disk_bytes
        ));
    }
    if let Some(first) = object.extents.first() {
        lines.push(format!(
            "{} in {}, the first at {:#x}; in units of {}",
            format_size(object.changed_bytes),
            format_count(object.extents.len() as u64, "extent"),
            first.offset,
            format_size(object.granularity_bytes)
        ));
    }
    lines
}

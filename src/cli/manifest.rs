//! `diskdelta manifest`

use std::path::PathBuf;
use std::time::Instant;

use crate::hash::Hash;
use crate::storage::FileRef;
use crate::{BlockSize, Location, manifest};
use serde::Serialize;

use super::args::{self, Holes, OneImage, block_size};
use super::context::Context;
use super::outcome::{Ended, Exit};

/// Write the hashes of all blocks of an image to a file, and print their root
///
/// The file replaces an older manifest once it is complete; any other file is refused.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Image to hash
    #[arg(value_parser = args::readable())]
    image: Location,
    /// Manifest to write
    #[arg(long, short, value_name = "FILE", value_parser = args::here())]
    output: PathBuf,
    /// Block size, a power of two from 4K to 16M
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = block_size)]
    block_size: BlockSize,
    #[command(flatten)]
    open: OneImage,
    #[command(flatten)]
    holes: Holes,
}

#[derive(Serialize)]
struct Object {
    root: Hash,
    disk_bytes: u64,
    block_bytes: BlockSize,
    data_bytes: u64,
    elapsed_seconds: f64,
    warnings: Vec<String>,
}

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    let started = Instant::now();
    let image = args.holes.of(args.open.options());
    let source = context
        .common
        .open_source(&args.image, &image, &context.work)?;
    let warnings = source.warnings().to_vec();
    context.warn(&warnings);
    let file_ref = FileRef::to_write(&args.output)?;
    let image = &**source.readable()?;
    let built = manifest::build_at(image, args.block_size, &context.work, &file_ref, &|| {
        source.check()
    })?;
    let object = Object {
        root: built.root(),
        disk_bytes: built.disk_len(),
        block_bytes: args.block_size,
        data_bytes: built.data_blocks().saturating_mul(args.block_size.bytes()),
        elapsed_seconds: started.elapsed().as_secs_f64(),
        warnings,
    };
    context.print(&object, || object.root.to_string())?;
    Ok(Exit::Done)
}

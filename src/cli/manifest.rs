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
use super::tls_args::TlsArgs;

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
    /// Sign the manifest with a key of minisign that has no password
    ///
    /// The signature, over root, length, block size, name and serial, is put into the manifest.
    #[cfg(feature = "sign")]
    #[arg(long, value_name = "KEY", value_parser = args::here(), requires_all = ["name", "serial"])]
    sign: Option<PathBuf>,
    /// Name of the image, which all its editions have
    #[cfg(feature = "sign")]
    #[arg(long, value_name = "NAME", requires = "sign")]
    name: Option<String>,
    /// Number of this edition; a target never goes back to a lower one
    #[cfg(feature = "sign")]
    #[arg(long, value_name = "N", requires = "sign")]
    serial: Option<u64>,
    #[command(flatten)]
    open: OneImage,
    #[command(flatten)]
    holes: Holes,
    #[command(flatten)]
    tls: TlsArgs,
}

#[cfg(feature = "sign")]
impl Args {
    /// What to sign with, and as which edition.
    fn signing(&self) -> crate::Result<Option<(manifest::SigningKey, manifest::Release)>> {
        let (Some(key), Some(name), Some(serial)) = (&self.sign, &self.name, self.serial) else {
            return Ok(None);
        };
        let release = manifest::Release::new(name, serial)?;
        Ok(Some((manifest::SigningKey::open(key)?, release)))
    }
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
        .open_source(&args.image, &image, &args.tls, &context.work)?;
    let warnings = source.warnings().to_vec();
    context.warn(&warnings);
    let file_ref = FileRef::to_write(&args.output)?;
    let image = &**source.readable()?;
    #[cfg(feature = "sign")]
    let signing = args.signing()?;
    let finish = |built: &manifest::Manifest| {
        source.check()?;
        #[cfg(feature = "sign")]
        if let Some((key, release)) = &signing {
            built.sign(release, key)?;
        }
        let _ = built;
        Ok(())
    };
    let built = manifest::build_at(image, args.block_size, &context.work, &file_ref, &finish)?;
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

//! `diskdelta sync`

use std::path::Path;

use crate::sync::{self, HostSource, HostTarget, ManifestCache};
use crate::{Error, ErrorKind, Location};

use super::context::Context;
use super::outcome::{Ended, Failure};
use super::remote;
pub use super::sync_args::Args;
use super::sync_report::print_report;

pub fn run(args: &Args, context: &Context) -> Ended {
    match (&args.source, &args.target) {
        (Location::Path(source), Location::Path(target)) => run_here(args, source, target, context),
        (Location::Remote(source), Location::Path(target)) => {
            remote::pull(args, source, target, context)
        }
        (Location::Path(source), Location::Remote(target)) => {
            remote::push(args, source, target, context)
        }
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            "one of the two must be on this host",
        )
        .advise("run it on one of the other two")
        .into()),
    }
}

fn run_here(args: &Args, source: &Path, target: &Path, context: &Context) -> Ended {
    if args.manifest_cache.is_some() && args.target_manifest.is_none() {
        let what = "--manifest-cache goes with --target-manifest, or a target on another host";
        return Err(Error::new(ErrorKind::InvalidInput, what).into());
    }
    let options = context.common.source_options();
    let image = args.source_image();
    let source = HostSource::open(source, &image, &options)?;
    let open = args.target_options(&source.files(), &context.common);
    let target = HostTarget::open(target, &open)?;
    let warnings = [source.warnings(), target.warnings().to_vec()].concat();
    context.warn(&warnings);
    let options = args.sync_options()?;
    let mut wanted = source.source();
    // A dry run reads the source instead of making a directory or a manifest.
    if let Some(directory) = args.manifest_cache.as_ref().filter(|_| !args.dry_run) {
        let cached = ManifestCache::open(directory)?.look_up(&source, args.block_size)?;
        wanted = wanted.with_manifest(cached.manifest_or_read(None, &context.work)?.0);
    }
    let report = sync::sync(&wanted, target.target(), &options, &context.work)
        .map_err(Failure::onto(&target))?;
    print_report(context, &report, &warnings)
}

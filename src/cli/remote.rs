//! `diskdelta sync` with one side on another host.

use std::path::Path;

use crate::sync::{HostSource, HostTarget, ManifestCache, SyncReport, sync};
use crate::{BlockSize, Error, ErrorKind, RemoteAddress, Work};

use super::context::Context;
use super::outcome::{Ended, Failure};
use super::sync_args::Args;
use super::sync_report::print_report;

/// What one attempt comes to.
type Attempt = Result<(SyncReport, Vec<String>), Failure>;

/// Makes a target of this host hold what a source of another one holds.
pub fn pull(args: &Args, source: &RemoteAddress, target: &Path, context: &Context) -> Ended {
    again(args, context, || pull_once(args, source, target, context))
}

/// Makes a target of another host hold what a source of this one holds.
pub fn push(args: &Args, source: &Path, target: &RemoteAddress, context: &Context) -> Ended {
    let elsewhere = [
        (args.undo.is_some(), "--undo"),
        (args.target_manifest.is_some(), "--target-manifest"),
        (args.log_dir.is_some(), "--log-dir"),
        (args.hold, "--hold"),
    ];
    if let Some((_, option)) = elsewhere.iter().find(|(is_given, _)| *is_given) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{option} does not go with a target on another host"),
        )
        .into());
    }
    again(args, context, || push_once(args, source, target, context))
}

fn again(args: &Args, context: &Context, attempt: impl FnMut() -> Attempt) -> Ended {
    let retry = args.connect.retry();
    let (report, warnings) = retry.run(&context.work, Failure::error, attempt)?;
    print_report(context, &report, &warnings)
}

fn pull_once(args: &Args, source: &RemoteAddress, target: &Path, context: &Context) -> Attempt {
    if args.manifest_cache.is_some() {
        let what = "--manifest-cache does not go with a source on another host";
        let error = Error::new(ErrorKind::InvalidInput, what);
        return Err(error
            .advise("give it to the agent there: serve --manifest-cache")
            .into());
    }
    let target = HostTarget::open(target, &args.target_options(&[], &context.common))?;
    context.warn(target.warnings());
    let options = args.sync_options()?;
    let work = unlimited(context);
    let client = args
        .connect
        .options(source, context)?
        .connect(source, &work)?;
    let open = context.common.source_options();
    let source = client.open(source.path(), &args.source_image(), &open, &work)?;
    let warnings = [source.warnings(), target.warnings()].concat();
    context.warn(source.warnings());
    let report = sync(&source, target.target(), &options, &work).map_err(Failure::onto(&target))?;
    Ok((report, warnings))
}

fn push_once(args: &Args, source: &Path, target: &RemoteAddress, context: &Context) -> Attempt {
    let image = args.source_image();
    let source = HostSource::open(source, &image, &context.common.source_options())?;
    let warnings = source.warnings();
    context.warn(&warnings);
    // A dry run reads the source instead of making a directory or a manifest.
    let cached = match args.manifest_cache.as_ref().filter(|_| !args.dry_run) {
        Some(directory) => {
            let cached = ManifestCache::open(directory)?.look_up(&source, BlockSize::default())?;
            if let Some(reason) = cached.reason() {
                context
                    .work
                    .progress()
                    .note(&format!("{reason}; the source is read"));
            }
            Some(cached)
        }
        None => None,
    };
    let work = unlimited(context);
    let client = args
        .connect
        .options(target, context)?
        .connect(target, &work)?;
    let open = args.target_options(&[], &context.common);
    let target = client.target(target.path(), &open);
    let report = target.sync_from(&source.source(), cached, &args.sync_options()?, &work)?;
    Ok((report, warnings))
}

/// The line is what a speed limit is for.
fn unlimited(context: &Context) -> Work {
    context.work.clone().with_limit_rate(0)
}

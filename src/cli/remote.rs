//! `diskdelta sync` with one side on another host.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::remote::{Job, TargetJob, Traffic};
use crate::sync::{HostSource, HostTarget, ManifestCache, SyncReport};
use crate::{BlockSize, Error, ErrorKind, RemoteAddress, Work};

use super::Ended;
use super::context::Context;
use super::outcome::Failure;
use super::sync_args::Args;
use super::sync_report::print_report_across;

/// What one attempt comes to.
type Attempt = Result<(SyncReport, Vec<String>, Traffic), Failure>;

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
    let (report, warnings, traffic) = retry.run(&context.work, Failure::error, attempt)?;
    print_report_across(context, &report, &warnings, traffic)
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
    let job = Job {
        path: source.path().as_os_str().as_bytes().to_vec(),
        format: args.source_format,
        target: None,
        live: false,
        marker_is_data: context.common.marker_is_data,
        read_holes: args.reads_holes(),
    };
    let (client, mut connection) = args.connect.dial(source, context, &work)?;
    let pull = client.open_source(&job, &work);
    let pull = pull.map_err(|error| connection.explain(error))?;
    let warnings = [pull.warnings(), target.warnings()].concat();
    context.warn(pull.warnings());
    let (report, traffic) = pull
        .sync_onto(target.target(), &options, &work)
        .map_err(|error| connection.explain(error))
        .map_err(Failure::onto(&target))?;
    Ok((report, warnings, traffic))
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
    let job = Job {
        path: target.path().as_os_str().as_bytes().to_vec(),
        format: args.target_format,
        target: Some(TargetJob {
            mode: args.mode,
            safety: args.safety,
            verify: args.verify,
            allocation: args.allocation,
            create: args.create,
            align_bytes: args.align.unwrap_or(1),
            block_size: args.block_size,
            allow_shrink: args.allow_shrink,
            allow_larger: args.allow_larger,
            dry_run: args.dry_run,
            skip_unreadable: args.skip_unreadable,
        }),
        live: false,
        marker_is_data: false,
        read_holes: args.holes.read_holes,
    };
    let work = unlimited(context);
    let (client, mut connection) = args.connect.dial(target, context, &work)?;
    let pushed = client.push(&job, &source, cached, &work);
    let (report, traffic) = pushed.map_err(|error| connection.explain(error))?;
    Ok((report, warnings, traffic))
}

/// The line is what a speed limit is for.
fn unlimited(context: &Context) -> Work {
    context.work.clone().with_limit_rate(0)
}

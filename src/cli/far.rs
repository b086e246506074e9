//! `diskdelta sync` with one side on another host.

use std::path::Path;
use std::time::Duration;

use diskdelta::remote::{
    Dialled, Job, LineOptions, Retry, ShellOptions, SshPath, TargetJob, Traffic,
};
use diskdelta::sync::{HostSource, HostTarget, SyncReport};
use diskdelta::{Error, ErrorKind, Work};

use super::Ended;
use super::args;
use super::context::Context;
use super::outcome::Failure;
use super::sync::{Args, print_report_across};

/// How the other host is reached.
#[derive(clap::Args)]
pub struct Shell {
    /// Reaches the other host with COMMAND, which is split at spaces, instead of ssh
    #[arg(long, value_name = "COMMAND", default_value = "ssh")]
    rsh: String,
    /// What to run there
    #[arg(long, value_name = "PROGRAM", default_value = "diskdelta")]
    remote_program: String,
    /// Begins again so many times when the line breaks, after longer and longer pauses
    #[arg(long, value_name = "N", default_value_t = 0)]
    retry: u32,
    /// Gives the line up when the other end was silent for so long: 90s, 5m. Below 15s a service
    /// must be told the same
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = args::timeout)]
    timeout: Duration,
}

impl Shell {
    fn options(&self) -> ShellOptions {
        ShellOptions::default()
            .with_shell(&self.rsh)
            .with_program(&self.remote_program)
            .with_timeout((self.timeout != LineOptions::default().silence).then_some(self.timeout))
    }

    fn line(&self, host: &str, context: &Context) -> LineOptions {
        LineOptions::default()
            .with_silence(self.timeout)
            .with_peer(Some(format!("the agent at {host}")))
            .with_limit_rate(context.common.limit_rate.unwrap_or(0))
    }
}

/// What one attempt comes to.
type Attempt = Result<(SyncReport, Vec<String>, Traffic), Failure>;

/// Makes a target of this host hold what a source of another one holds.
pub fn pull(args: &Args, source: &SshPath, context: &Context) -> Ended {
    again(args, context, || pull_once(args, source, context))
}

/// Makes a target of another host hold what a source of this one holds.
pub fn push(args: &Args, target: &SshPath, context: &Context) -> Ended {
    let elsewhere = [
        (args.undo.is_some(), "--undo"),
        (args.target_manifest.is_some(), "--target-manifest"),
        (args.stage_dir.is_some(), "--stage-dir"),
        (args.skip_unreadable, "--skip-unreadable"),
    ];
    if let Some((_, option)) = elsewhere.iter().find(|(is_given, _)| *is_given) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{option} does not go with a target on another host"),
        )
        .into());
    }
    again(args, context, || push_once(args, target, context))
}

fn again(args: &Args, context: &Context, attempt: impl FnMut() -> Attempt) -> Ended {
    let retry = Retry::new(args.shell.retry);
    let (report, warnings, traffic) = retry.run(&context.work, Failure::error, attempt)?;
    print_report_across(context, &report, &warnings, traffic)
}

fn pull_once(args: &Args, source: &SshPath, context: &Context) -> Attempt {
    let target = HostTarget::open(&args.target, &args.target_options(&[], &context.common))?;
    context.warn(target.warnings());
    let options = args.sync_options()?;
    let work = unlimited(context);
    let job = Job {
        path: source.path.clone(),
        format: args.source_format,
        target: None,
    };
    let mut shell = source.start(&args.shell.options())?;
    let (output, input) = shell.streams()?;
    let line = args.shell.line(&source.host, context);
    let pull = Dialled::new(output, input, &line, &work)?.pull(&job, &work)?;
    let warnings = [pull.warnings(), target.warnings()].concat();
    context.warn(pull.warnings());
    let (report, traffic) = pull
        .sync_onto(target.target(), &options, &work)
        .map_err(Failure::onto(&target))?;
    Ok((report, warnings, traffic))
}

fn push_once(args: &Args, target: &SshPath, context: &Context) -> Attempt {
    let image = args.parents.options(args.source_format);
    let source = HostSource::open(&args.source, &image, &context.common.source_options())?;
    let warnings = source.warnings();
    context.warn(&warnings);
    let job = Job {
        path: target.path.clone(),
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
        }),
    };
    let mut shell = target.start(&args.shell.options())?;
    let (output, input) = shell.streams()?;
    let work = unlimited(context);
    let line = args.shell.line(&target.host, context);
    let dialled = Dialled::new(output, input, &line, &work)?;
    let (report, traffic) = dialled.push(&job, &source, &work)?;
    Ok((report, warnings, traffic))
}

/// The line is what a speed limit is for.
fn unlimited(context: &Context) -> Work {
    context.work.clone().with_limit_rate(0)
}

/// Reads what may be an address.
///
/// # Errors
/// `InvalidInput`.
pub fn address(path: &Path) -> Result<Option<SshPath>, Error> {
    let address = SshPath::parse(path)?;
    let is_other = is_url(path) && address.is_none();
    if is_other {
        return Err(
            Error::new(ErrorKind::Unsupported, "no way to reach that is known")
                .at_path(path)
                .advise("write ssh://[user@]host[:port]/path"),
        );
    }
    Ok(address)
}

/// The beginning of an address, and no file here.
fn is_url(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric())
    }) && !path.exists()
}

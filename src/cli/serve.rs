//! `diskdelta serve`

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "failback")]
use crate::failback::disks::DiskAgent;
use crate::progress::NoProgress;
#[cfg(not(feature = "failback"))]
use crate::remote::serve;
#[cfg(feature = "failback")]
use crate::remote::serve_with;
use crate::remote::{LineOptions, ServeOptions, Served};
use crate::{Error, ErrorKind};

use super::args::{self, Holes};
use super::context::Context;
#[cfg(feature = "tls")]
use super::listen::Listen;
use super::outcome::{Ended, Exit};

/// Runs the remote end of a sync
///
/// With --stdio it does one job, then ends: `diskdelta sync` starts it through ssh, and `diskdelta
/// failback` does, also to write to disks of this host, unless --read-only says no. To confine a
/// key to it, put `command="diskdelta serve --stdio --root DIR"` before the key in
/// authorized_keys. With --listen it is a service that many may use at once, over TLS 1.3, each
/// with a certificate that --client-ca has signed.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Speaks over standard input and output
    #[cfg_attr(
        feature = "tls",
        arg(required_unless_present = "listen", conflicts_with = "listen")
    )]
    #[cfg_attr(not(feature = "tls"), arg(required = true))]
    #[arg(long)]
    stdio: bool,
    #[cfg(feature = "tls")]
    #[command(flatten)]
    listen: Listen,
    /// Serve only DIR, and take all paths from there; required with --listen. Unless --read-only,
    /// a client may overwrite any regular file in it
    #[arg(long, value_name = "DIR", value_parser = args::here())]
    root: Option<PathBuf>,
    /// Never writes anything
    #[arg(long)]
    read_only: bool,
    /// Where redo logs lie: beside a file target by default, for a device in /var/lib/diskdelta
    #[arg(long, alias = "stage-dir", value_name = "DIR", value_parser = args::here())]
    log_dir: Option<PathBuf>,
    /// Directory in which the agent keeps its state of failback jobs; outside of --root [default:
    /// /var/lib/diskdelta/agent for root, otherwise diskdelta/agent in the user's state directory]
    #[arg(long, value_name = "DIR", value_parser = args::here())]
    state_dir: Option<PathBuf>,
    /// Gives a line up when the other end was silent for so long: 90s, 5m. Below 15s both ends
    /// must be told
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = args::timeout)]
    timeout: Duration,
    /// Keeps manifests in DIR that stand for reading images which provably did not change since,
    /// and for targets that nothing but such syncs writes
    #[arg(long, value_name = "DIR", value_parser = args::here())]
    manifest_cache: Option<PathBuf>,
    #[command(flatten)]
    holes: Holes,
}

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    if let (Some(state), Some(root)) = (&args.state_dir, &args.root) {
        refuse_inside(state, root)?;
    }
    let line = LineOptions::default()
        .with_silence(args.timeout)
        .with_limit_rate(context.common.limit_rate.unwrap_or(0));
    let options = ServeOptions::default()
        .with_root(args.root.clone())
        .with_read_only(args.read_only)
        .with_log_dir(args.log_dir.clone())
        .with_manifest_cache(args.manifest_cache.clone())
        .with_state_dir(args.state_dir.clone().or_else(default_state))
        .with_direct(context.common.direct)
        .with_read_holes(args.holes.read_holes)
        .with_line(line);
    // The terminal, if there is one, is the other end's; and the line is what a speed limit is for.
    let work = context.work.clone().with_progress(Arc::new(NoProgress));
    let work = work.with_limit_rate(0);
    #[cfg(feature = "tls")]
    if !args.stdio {
        return args.listen.run(options, context, &work);
    }
    let input = unbuffered(std::io::stdin())?;
    let output = unbuffered(std::io::stdout())?;
    #[cfg(feature = "failback")]
    let served = serve_with(input, output, &options, &work, &DiskAgent)?;
    #[cfg(not(feature = "failback"))]
    let served = serve(input, output, &options, &work)?;
    match served {
        Served::Done => Ok(Exit::Done),
        // The other end says why.
        _ => Ok(Exit::Error),
    }
}

/// A client could write to the agent's state.
fn refuse_inside(state: &Path, root: &Path) -> Result<(), Error> {
    // One that is missing will be made in a directory that is there.
    let real = state.ancestors().find_map(|it| it.canonicalize().ok());
    let (Some(real), Ok(root)) = (real, root.canonicalize()) else {
        return Ok(());
    };
    match root != Path::new("/") && real.starts_with(&root) {
        false => Ok(()),
        true => {
            let what = "the directory for the agent's state lies in the directory that is served";
            Err(Error::new(ErrorKind::InvalidInput, what).at_path(state))
        }
    }
}

/// The default directory for an agent's state; `None` for a user without a home.
fn default_state() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/diskdelta/agent"));
    }
    let absolute = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("diskdelta/agent"))
}

fn unbuffered(stream: impl AsFd) -> Result<File, Error> {
    let stream = stream.as_fd().try_clone_to_owned();
    stream
        .map(File::from)
        .map_err(|cause| Error::io("open the line", cause))
}

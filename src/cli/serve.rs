//! `diskdelta serve`

use std::fs::File;
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(windows)]
use std::os::windows::io::AsHandle;
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
use crate::{Error, ErrorKind, UrlPrefix};

use super::args::{self, Holes};
use super::context::Context;
#[cfg(feature = "tls")]
use super::listen::Listen;
use super::outcome::{Ended, Exit};

/// Run the remote end of a sync, once or as a service
///
/// With --stdio it does one job, then ends: `diskdelta sync` and `diskdelta failback` start it
/// through ssh. To restrict a key to it, put `command="diskdelta serve --stdio --root DIR"` before
/// the key in authorized_keys. With --listen it is a service over TLS 1.3 for clients with a
/// certificate of --client-ca.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Serve one job over standard input and output
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
    /// Serve only DIR; clients may overwrite any regular file in it unless --read-only
    #[arg(long, help_heading = "Safety", value_name = "DIR", value_parser = args::here())]
    root: Option<PathBuf>,
    /// Refuse to write anything
    #[arg(long, help_heading = "Safety")]
    read_only: bool,
    /// Directory of redo logs [next to a file, /var/lib/diskdelta for a device]
    #[arg(long, help_heading = "Space", alias = "stage-dir", value_name = "DIR", value_parser = args::here())]
    log_dir: Option<PathBuf>,
    /// Directory of the agent's state of failback jobs, outside of --root
    ///
    /// By default /var/lib/diskdelta/agent for root, otherwise diskdelta/agent in the user's state
    /// directory.
    #[arg(long, help_heading = "Expert", value_name = "DIR", value_parser = args::here())]
    state_dir: Option<PathBuf>,
    /// Give up after this much silence (90s, 5m); below 15s at both ends
    #[arg(long, help_heading = "Remote", value_name = "TIME", default_value = "60s", value_parser = args::timeout)]
    timeout: Duration,
    /// Keep hashes in DIR, and do not read images that are unchanged since
    #[arg(long, help_heading = "Expert", value_name = "DIR", value_parser = args::here())]
    manifest_cache: Option<PathBuf>,
    /// Read sources at web servers whose addresses begin with PREFIX; may be repeated
    ///
    /// PREFIX is https://HOST/ or https://HOST/PATH; one * in HOST stands for any letters, as in
    /// https://md-*.blob.storage.azure.net/. Redirects elsewhere, and addresses of the link alone
    /// (169.254.0.0/16, fe80::/10), are refused.
    #[arg(long, help_heading = "Safety", value_name = "PREFIX", value_parser = UrlPrefix::parse)]
    allow_url: Vec<UrlPrefix>,
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
        .with_allowed_urls(args.allow_url.clone())
        .with_line(line);
    #[cfg(feature = "http")]
    let options = options.with_http(context.common.connect().http);
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
    #[cfg(windows)]
    return Some(PathBuf::from(std::env::var_os("LOCALAPPDATA")?).join("diskdelta/agent"));
    #[cfg(unix)]
    return default_state_of(rustix::process::geteuid().is_root());
}

#[cfg(unix)]
fn default_state_of(is_root: bool) -> Option<PathBuf> {
    if is_root {
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

/// Bytes as they are: what the standard library does to lines and texts of a console is left out.
#[cfg(windows)]
fn unbuffered(stream: impl AsHandle) -> Result<File, Error> {
    let stream = stream.as_handle().try_clone_to_owned();
    stream
        .map(File::from)
        .map_err(|cause| Error::io("open the line", cause))
}

#[cfg(unix)]
fn unbuffered(stream: impl AsFd) -> Result<File, Error> {
    let stream = stream.as_fd().try_clone_to_owned();
    stream
        .map(File::from)
        .map_err(|cause| Error::io("open the line", cause))
}

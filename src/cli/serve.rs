//! `diskdelta serve`

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use diskdelta::failback::disks::DiskHand;
use diskdelta::remote::{LineOptions, ServeOptions, Served, serve_with};
use diskdelta::{Error, Silent};

use super::Ended;
use super::args;
use super::context::Context;
use super::listen::Listen;
use super::outcome::Exit;

/// Is the other end of a sync across hosts
///
/// With --stdio it does one job, then ends: `diskdelta sync` starts it through ssh, and `diskdelta
/// failback` does, also to write to disks of this host, unless --read-only says no. To confine a
/// key to it, put `command="diskdelta serve --stdio --root DIR"` before the key in
/// authorized_keys. With --listen it is a service that many may use at once, over TLS 1.3, each
/// with a certificate that --client-ca has signed.
#[derive(clap::Args)]
pub struct Args {
    /// Speaks over standard input and output
    #[arg(long, required_unless_present = "listen", conflicts_with = "listen")]
    stdio: bool,
    #[command(flatten)]
    listen: Listen,
    /// Serves only what lies in DIR, and takes all paths from there
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Never writes anything
    #[arg(long)]
    read_only: bool,
    /// Where stages lie: beside a file target by default, for a device in /var/lib/diskdelta
    #[arg(long, value_name = "DIR")]
    stage_dir: Option<PathBuf>,
    /// Gives a line up when the other end was silent for so long: 90s, 5m. Below 15s both ends
    /// must be told
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = args::timeout)]
    timeout: Duration,
    /// Keeps manifests in DIR that stand for reading images which provably did not change since,
    /// and for targets that nothing but such syncs writes
    #[arg(long, value_name = "DIR")]
    manifest_cache: Option<PathBuf>,
}

pub fn run(args: &Args, context: &Context) -> Ended {
    let line = LineOptions::default()
        .with_silence(args.timeout)
        .with_limit_rate(context.common.limit_rate.unwrap_or(0));
    let options = ServeOptions::default()
        .with_root(args.root.clone())
        .with_read_only(args.read_only)
        .with_stage_dir(args.stage_dir.clone())
        .with_manifest_cache(args.manifest_cache.clone())
        .with_direct(context.common.direct)
        .with_line(line);
    // The terminal, if there is one, is the other end's; and the line is what a speed limit is for.
    let work = context.work.clone().with_progress(Arc::new(Silent));
    let work = work.with_limit_rate(0);
    if !args.stdio {
        return args.listen.run(options, context, &work);
    }
    let input = unbuffered(std::io::stdin())?;
    let output = unbuffered(std::io::stdout())?;
    match serve_with(input, output, &options, &work, &DiskHand)? {
        Served::Done => Ok(Exit::Done),
        // The other end says why.
        _ => Ok(Exit::Error),
    }
}

fn unbuffered(stream: impl AsFd) -> Result<File, Error> {
    let stream = stream.as_fd().try_clone_to_owned();
    stream
        .map(File::from)
        .map_err(|cause| Error::io("open the line", cause))
}

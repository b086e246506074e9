//! `diskdelta serve --listen`

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::duration::parse_duration;
use crate::path_bytes::path_of;
use crate::remote::tls::{Client, Identity, Service, ServiceEvent, ServiceOptions};
use crate::remote::{RemoteJob, ServeOptions, Served};
use crate::text::{escape, escape_path};
use crate::{Error, ErrorKind, Work};

use super::advice;
use super::args;
use super::context::Context;
use super::outcome::{Ended, Exit};
use super::print::print_error_line;

/// A service over TLS.
#[derive(clap::Args)]
pub(super) struct Listen {
    /// Serve over TLS at this address [port 8730]
    #[arg(long, help_heading = "Remote", value_name = "ADDR:PORT", requires_all = ["cert", "key", "client_ca", "root"])]
    listen: Option<String>,
    /// Certificate of the service
    #[arg(long, help_heading = "Remote", value_name = "PEM", value_parser = args::here(), requires = "listen")]
    cert: Option<PathBuf>,
    /// Key of the service's certificate
    #[arg(long, help_heading = "Remote", value_name = "PEM", value_parser = args::here(), requires = "listen")]
    key: Option<PathBuf>,
    /// Authorities that clients' certificates must come from
    #[arg(long, help_heading = "Remote", value_name = "PEM", value_parser = args::here(), requires = "listen")]
    client_ca: Option<PathBuf>,
    /// Sessions at a time; each takes up to 128M of memory
    #[arg(long, help_heading = "Remote", value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    max_sessions: u16,
    /// End a session after this time in all (8h, 2d); a target being written is completed
    #[arg(long, hide_short_help = true, help_heading = "Remote", value_name = "TIME", value_parser = parse_duration, requires = "listen")]
    session_time: Option<Duration>,
    /// End a session that sends only signs of life for this time
    #[arg(long, hide_short_help = true, help_heading = "Remote", value_name = "TIME", value_parser = parse_duration, default_value = "12h")]
    idle_time: Duration,
}

impl Listen {
    pub(super) fn run(&self, serve: ServeOptions, context: &Context, work: &Work) -> Ended {
        let (Some(listen), Some(cert), Some(key), Some(ca)) =
            (&self.listen, &self.cert, &self.key, &self.client_ca)
        else {
            let what = "a service needs --listen, --cert, --key and --client-ca";
            return Err(Error::new(ErrorKind::InvalidInput, what).into());
        };
        let root = serve.root.as_ref().map(std::fs::canonicalize);
        let serves_all = root.is_some_and(|root| root.is_ok_and(|root| root == Path::new("/")));
        let may = if serve.read_only { "read" } else { "write" };
        let line = serve.line.clone();
        let options = ServiceOptions::default();
        let patience = options.patience.min(line.silence);
        let line = line
            .with_idle(Some(self.idle_time))
            .with_longest(self.session_time);
        let options = options
            .with_patience(patience)
            .with_threads(context.common.threads)
            .with_sessions(usize::from(self.max_sessions))
            .with_serve(serve.with_line(line));
        let service = Service::bind(listen, &Identity::new(cert, key, ca), options)?;
        let say = |text: String| {
            if !context.common.quiet {
                print_error_line(&format!("diskdelta: {}", escape(&text)));
            }
        };
        say(format!("listening at {}", service.address()?));
        if serves_all {
            say(format!(
                "--root / confines no client: each may {may} every file of this host that \
                 this user may"
            ));
        }
        let refusals = Mutex::new(Refusals::new());
        let left_out = |count: u64| {
            if count > 0 {
                say(format!("{count} more were not let in"));
            }
        };
        service.run(work, &|event| {
            let is_refusal = matches!(event, ServiceEvent::Refused { .. });
            let mut refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
            match is_refusal && !refusals.may_be_said() {
                true => refusals.left_out += 1,
                false => {
                    left_out(std::mem::take(&mut refusals.left_out));
                    say(text(event));
                }
            }
        })?;
        let refusals = refusals.into_inner();
        left_out(refusals.unwrap_or_else(PoisonError::into_inner).left_out);
        say("ended".to_owned());
        Ok(Exit::Done)
    }
}

/// How many refusals may be said: those who are not let in must not fill a disk with lines.
struct Refusals {
    left: f64,
    since: Instant,
    left_out: u64,
}

impl Refusals {
    fn new() -> Self {
        Refusals {
            left: LINES_AT_ONCE,
            since: Instant::now(),
            left_out: 0,
        }
    }

    fn may_be_said(&mut self) -> bool {
        let now = Instant::now();
        let come = now.duration_since(self.since).as_secs_f64() * LINES_PER_SECOND;
        self.since = now;
        self.left = (self.left + come).min(LINES_AT_ONCE);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

const LINES_AT_ONCE: f64 = 20.0;
const LINES_PER_SECOND: f64 = 1.0;

fn text(event: &ServiceEvent<'_>) -> String {
    match event {
        ServiceEvent::Refused { address, error } => {
            format!("{address} was not let in: {}", advice::text(error))
        }
        ServiceEvent::Begun {
            session,
            client,
            job,
        } => format!("session {session}: {} {}", who(client), what(job)),
        ServiceEvent::Ended {
            session,
            client,
            served,
            elapsed,
        } => {
            let seconds = elapsed.as_secs_f64();
            let how = match served {
                Ok(Served::Done) => "done".to_owned(),
                Ok(Served::Refused(error)) | Err(error) => {
                    format!("failed: {}", advice::text(error))
                }
            };
            format!("session {session}: {} {how} ({seconds:.1} s)", who(client))
        }
    }
}

fn who(client: &Client) -> String {
    let name = client.name.as_deref().unwrap_or("a client without a name");
    let (address, print) = (client.address, &client.fingerprint);
    format!("{name} at {address} (sha256 {print})")
}

fn what(job: &RemoteJob) -> String {
    let path = match &job.address {
        Some(address) => address.to_string(),
        None => escape_path(&path_of(&job.path)),
    };
    let verb = if job.target.is_some() {
        "writes"
    } else {
        "reads"
    };
    format!("{verb} {path}")
}

//! The end that connects: a sync whose source, or whose target, is at the other end.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::remote_source::RemoteSource;
use super::run::{Session, Side};
use super::source_server::SourceServer;
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::image::ImageOptions;
use crate::location::WebAddress;
use crate::path_bytes::bytes_of;
use crate::progress::Work;
use crate::remote::transport::connection::Connection;
use crate::remote::wire::codec::wrong;
use crate::remote::wire::connection::Line;
use crate::remote::wire::connection_options::LineOptions;
use crate::remote::wire::message::Message;
use crate::remote::wire::outcome::Fault;
use crate::remote::wire::request::{RemoteJob, TargetJob};
use crate::storage::SourceOptions;
use crate::sync::{CachedSource, HostTargetOptions, Source, SyncOptions, SyncReport};
use crate::target_state::TargetState;

/// A connection to an agent, which waits for a job, but no longer than for an end that is silent.
pub struct Client {
    /// Before the connection that carries it: the line ends first.
    session: Session,
    connection: Option<Connection>,
}

opaque!(Client);

impl Client {
    /// Greets the agent behind `reader` and `writer`.
    ///
    /// # Errors
    /// `Unsupported` for an agent of another version; `Malformed` for something other than an
    /// agent; `Io`, `Cancelled`.
    pub fn new(
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        options: &LineOptions,
        work: &Work,
    ) -> Result<Client> {
        let line = Line::new(reader, writer, options.clone().or_peer("the agent"))?;
        let session = Session::greet(line, Side::Client, work.cancel())?;
        Ok(Client {
            session,
            connection: None,
        })
    }

    /// Keeps what carries the connection as long as it is used.
    #[must_use]
    pub(in crate::remote) fn over(mut self, connection: Connection) -> Self {
        self.connection = Some(connection);
        self
    }

    /// Has the agent open the image at `path` as the source of one sync. Of the options, the format
    /// and the reading of holes, and whether others may write to it or its marker is data, go to
    /// the agent.
    ///
    /// # Errors
    /// Those of the agent; `Unsupported` for an agent that cannot read holes where that is asked
    /// for; `Malformed`, `Io`, `Cancelled`.
    pub fn open(
        self,
        path: impl AsRef<Path>,
        image: &ImageOptions,
        options: &SourceOptions,
        work: &Work,
    ) -> Result<Source> {
        let opened = self.ask(&RemoteJob {
            path: bytes_of(path.as_ref()).to_vec(),
            format: image.format,
            target: None,
            // An agent that does not know of it opens it as if it were to be copied, or fails.
            live: options.allow_writers && self.session.looks(),
            marker_is_data: options.marker_is_data && self.session.reads_markers(),
            read_holes: image.read_holes,
            address: None,
        });
        self.opened(opened, image, work)
    }

    /// As [`open`](Client::open), for what is at a web server: the agent reads it.
    ///
    /// # Errors
    /// As [`open`](Client::open); `Unsupported` for an agent that opens no such addresses.
    pub fn open_address(
        self,
        address: &WebAddress,
        image: &ImageOptions,
        options: &SourceOptions,
        work: &Work,
    ) -> Result<Source> {
        if !self.session.opens_addresses() {
            let what = "the diskdelta there cannot open addresses of web servers";
            return Err(Error::new(ErrorKind::Unsupported, what).advise(Advice::SameVersion));
        }
        let opened = self.ask(&RemoteJob {
            path: Vec::new(),
            format: image.format,
            target: None,
            live: false,
            marker_is_data: options.marker_is_data,
            read_holes: image.read_holes,
            address: Some(address.clone()),
        });
        self.opened(opened, image, work)
    }

    /// The source that was asked for.
    fn opened(mut self, asked: Result<()>, image: &ImageOptions, work: &Work) -> Result<Source> {
        asked.map_err(|error| explain(&mut self.connection, error))?;
        let session = Arc::new(self.session);
        match RemoteSource::over(session, &image.limits, work.cancel()) {
            Ok(remote) => Ok(remote
                .for_client()
                .with_connection(self.connection)
                .into_source()),
            Err(error) => Err(explain(&mut self.connection, error)),
        }
    }

    /// The target at `path`, which the agent writes.
    pub fn target(self, path: impl Into<PathBuf>, options: &HostTargetOptions) -> RemoteTarget {
        RemoteTarget {
            client: Some(self),
            path: path.into(),
            options: options.clone(),
        }
    }

    /// The session and what carries it, where the agent looks after disks for a job.
    ///
    /// # Errors
    /// `Unsupported` where it does not.
    #[cfg(feature = "failback")]
    pub(crate) fn disk_agent(self) -> Result<(Session, Option<Connection>)> {
        if self.session.has_disk_agent() {
            return Ok((self.session, self.connection));
        }
        let what = "the diskdelta there can only copy, and does not look after disks for a job";
        Err(Error::new(ErrorKind::Unsupported, what).advise(Advice::SameVersion))
    }

    fn ask(&self, job: &RemoteJob) -> Result<()> {
        if job.read_holes && !self.session.reads_holes() {
            let what = "the diskdelta there takes holes for zeros, and cannot read them";
            return Err(Error::new(ErrorKind::Unsupported, what).advise(Advice::SameVersion));
        }
        let job = Message::RemoteJob(Box::new(job.clone()));
        self.session.line().send(&job)
    }
}

/// The error of a line that broke, with what is known of the reason.
fn explain(connection: &mut Option<Connection>, error: Error) -> Error {
    match connection {
        Some(connection) => connection.explain(error),
        None => error,
    }
}

/// A target at the other end of a connection, which does one sync.
pub struct RemoteTarget {
    /// Until the sync begins.
    client: Option<Client>,
    path: PathBuf,
    options: HostTargetOptions,
}

opaque!(RemoteTarget);

impl RemoteTarget {
    /// Makes the target hold what `source` holds, as [`sync`](crate::sync::sync) does, promises and
    /// all; the report is the agent's. `cached` is what a cache knows of the source.
    ///
    /// # Errors
    /// `InvalidInput` for options that only a target of this host can have, and for a source that
    /// cannot be read from here; those of the agent, of kind `Incomplete` where the target is
    /// incomplete now; those of reading the source.
    pub fn sync_from(
        &mut self,
        source: &Source,
        cached: Option<CachedSource>,
        options: &SyncOptions,
        work: &Work,
    ) -> Result<SyncReport> {
        let (job, image, mut client) = self
            .prepare(source, options)
            .map_err(|error| error.leaving(TargetState::Untouched))?;
        if let Some(reason) = cached.as_ref().and_then(CachedSource::reason) {
            work.progress()
                .note(&format!("{reason}; the source is read"));
        }
        let server = SourceServer {
            image: image.clone(),
            check: &|| source.check(),
            warnings: Vec::new(),
            cached,
        };
        let answered = client
            .ask(&job)
            .and_then(|()| server.answer(&client.session, work));
        let traffic = client.session.traffic();
        let report = match answered {
            Ok(Some(outcome)) => outcome.report(),
            Ok(None) => Err(wrong("no report")),
            Err(error) => {
                // Where the line is down the agent cannot be told.
                let fault = Box::new(Fault::of(&error, false));
                let _ = client.session.line().send(&Message::Fail(fault));
                Err(error)
            }
        };
        client.session.finish();
        let mut report = report.map_err(|error| explain(&mut client.connection, error))?;
        report.traffic = Some(traffic);
        Ok(report)
    }

    fn prepare<'s>(
        &mut self,
        source: &'s Source,
        options: &SyncOptions,
    ) -> Result<(RemoteJob, &'s Arc<dyn Image>, Client)> {
        let job = self.job(options)?;
        let image = source.image().ok_or_else(RemoteTarget::both_remote)?;
        let client = self.client.take().ok_or_else(RemoteTarget::used)?;
        Ok((job, image, client))
    }

    /// The error for a source that is not on this host either.
    pub(crate) fn both_remote() -> Error {
        let what = "source and target are both on other hosts";
        Error::new(ErrorKind::InvalidInput, what).advise("run it on one of these hosts")
    }

    /// The error for a connection that did its sync.
    pub(crate) fn used() -> Error {
        let what = "the connection to this target was used already";
        Error::new(ErrorKind::InvalidInput, what)
    }

    /// What goes over the line of the options.
    fn job(&self, options: &SyncOptions) -> Result<RemoteJob> {
        let of_this_host = [
            (options.undo.is_some(), "an undo file"),
            (options.target_manifest.is_some(), "a target manifest"),
            (options.change_map.is_some(), "a change map"),
            (options.hold, "holding the target"),
            (self.options.log_dir.is_some(), "a directory for the log"),
        ];
        if let Some((_, what)) = of_this_host.iter().find(|(is_given, _)| *is_given) {
            let what = format!("{what} does not go with a target on another host");
            return Err(Error::new(ErrorKind::InvalidInput, what));
        }
        let target = &self.options;
        Ok(RemoteJob {
            path: bytes_of(&self.path).to_vec(),
            format: target.image.format,
            target: Some(TargetJob {
                mode: options.mode,
                safety: options.safety,
                verify: options.verify,
                allocation: target.open.allocation,
                create: target.create,
                align_bytes: target.align_bytes,
                block_size: options.block_size,
                allow_shrink: options.allow_shrink,
                allow_larger: options.allow_larger,
                dry_run: options.dry_run,
                skip_unreadable: options.skip_unreadable,
            }),
            live: false,
            marker_is_data: false,
            read_holes: target.image.read_holes,
            address: None,
        })
    }
}

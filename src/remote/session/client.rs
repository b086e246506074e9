//! The end that dials: a sync whose source, or whose target, is at the other end.

use std::io::{Read, Write};
use std::sync::Arc;

use super::remote_source::{RemoteSource, described};
use super::run::{Session, Side};
use super::source_server::SourceServer;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::progress::{CancelToken, Work};
use crate::remote::wire::codec::wrong;
use crate::remote::wire::connection::{Line, Traffic};
use crate::remote::wire::connection_options::LineOptions;
use crate::remote::wire::message::Message;
use crate::remote::wire::request::{Fault, Job};
use crate::sync::{CachedSource, HostSource, SyncOptions, SyncReport, Target};

/// A line to an agent, which waits for a job, but no longer than for an end that is silent.
pub struct Client {
    session: Session,
}

impl Client {
    /// Greets the agent behind `reader` and `writer`.
    ///
    /// # Errors
    /// `Unsupported` for an agent of another version; `Malformed` for something else than an
    /// agent; `Io`, `Cancelled`.
    pub fn new(
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        options: &LineOptions,
        work: &Work,
    ) -> Result<Client> {
        let line = Line::new(reader, writer, options.clone().or_peer("the agent"))?;
        let session = Session::greet(line, Side::Dialler, work.cancel())?;
        Ok(Client { session })
    }

    /// Has the agent open the source that `job` names.
    ///
    /// # Errors
    /// Those of the agent; `Unsupported` for an agent that cannot read holes where `job` asks for
    /// it; `Malformed`, `Io`, `Cancelled`.
    pub fn open_source(self, job: &Job, work: &Work) -> Result<RemoteSession> {
        self.refuse_holes(job)?;
        let mut job = job.clone();
        // One that does not know of it opens it as if it were to be copied, or says that it cannot.
        job.live &= self.session.looks();
        job.marker_is_data &= self.session.reads_markers();
        self.session.line().send(&Message::Job(Box::new(job)))?;
        let remote = RemoteSource::open(self.session, &Limits::default(), work.cancel())?;
        Ok(RemoteSession {
            remote: Arc::new(remote),
        })
    }

    /// The session, where the agent does what it is asked for beside syncs.
    ///
    /// # Errors
    /// `Unsupported` where it does not.
    pub fn disk_agent(self) -> Result<Session> {
        if self.session.has_disk_agent() {
            return Ok(self.session);
        }
        let what = "the diskdelta there can only copy, and does not look after disks for a job";
        Err(Error::new(ErrorKind::Unsupported, what)
            .advise("run the same version of diskdelta on both hosts"))
    }

    fn refuse_holes(&self, job: &Job) -> Result<()> {
        if !job.read_holes || self.session.reads_holes() {
            return Ok(());
        }
        let what = "the diskdelta there takes holes for zeros, and cannot read them";
        Err(Error::new(ErrorKind::Unsupported, what)
            .advise("run the same version of diskdelta on both hosts"))
    }

    /// Makes the target that `job` names hold what `source` holds, as
    /// [`sync`](crate::sync::sync) does, promises and all; the report is the agent's. `cached` is
    /// what a cache knows of the source. Also returns what went over the line.
    ///
    /// # Errors
    /// Those of the agent, of kind `Incomplete` where the target is incomplete now; those of reading
    /// the source.
    pub fn push(
        self,
        job: &Job,
        source: &HostSource,
        cached: Option<CachedSource>,
        work: &Work,
    ) -> Result<(SyncReport, Traffic)> {
        self.refuse_holes(job)?;
        self.session
            .line()
            .send(&Message::Job(Box::new(job.clone())))?;
        let source_server = SourceServer {
            image: source.image().clone(),
            check: &|| source.check(),
            warnings: Vec::new(),
            cached,
        };
        let answered = source_server.answer(&self.session, work);
        let traffic = self.session.traffic();
        let report = match answered {
            Ok(Some(outcome)) => outcome.report(),
            Ok(None) => Err(wrong("no report")),
            Err(error) => {
                tell(self.session.line(), &error);
                Err(error)
            }
        };
        self.session.finish();
        Ok((report?, traffic))
    }
}

/// A source at an agent.
pub struct RemoteSession {
    remote: Arc<RemoteSource>,
}

impl RemoteSession {
    /// A source that the other end of `session` is about to describe. The line is given back where
    /// it cannot.
    ///
    /// # Errors
    /// Any, from the other end; `LimitExceeded`, `Malformed`, `Io`, `Cancelled`.
    pub fn over(
        session: Session,
        cancel: &CancelToken,
    ) -> Result<RemoteSession, (Error, Box<Session>)> {
        match described(&session, &Limits::default(), cancel) {
            Ok(opened) => Ok(RemoteSession {
                remote: Arc::new(RemoteSource::new(session, opened)),
            }),
            Err(error) => Err((error, Box::new(session))),
        }
    }

    /// What the agent told of the source.
    pub fn warnings(&self) -> &[String] {
        &self.remote.opened().warnings
    }

    /// The source, to be asked for something else than a sync.
    pub fn remote(&self) -> &RemoteSource {
        &self.remote
    }

    /// Tells the agent that nothing more is wanted, and closes the line.
    ///
    /// # Errors
    /// `Io`.
    pub fn end(self) -> Result<()> {
        if let Some(session) = self.leave()? {
            session.finish();
        }
        Ok(())
    }

    /// Tells the other end that nothing more is wanted of this source, and gives the line back.
    ///
    /// # Errors
    /// `Io`.
    pub fn leave(self) -> Result<Option<Session>> {
        self.remote.end(None)?;
        Ok(self.remote.into_session())
    }

    /// Gives the line back as it is, after something has failed that the other end is yet to hear
    /// of.
    pub fn abandon(self) -> Option<Session> {
        self.remote.into_session()
    }

    /// As [`sync`](crate::sync::sync) onto `target`. Also returns what went over the line.
    ///
    /// # Errors
    /// Those of [`sync`](crate::sync::sync) and of the agent.
    pub fn sync_onto(
        self,
        target: &Target,
        options: &SyncOptions,
        work: &Work,
    ) -> Result<(SyncReport, Traffic)> {
        let (synced, session) = self.sync_and_leave(target, options, work);
        if let Some(session) = session {
            session.finish();
        }
        synced
    }

    /// As [`sync_onto`](RemoteSession::sync_onto), and gives the line back.
    pub fn sync_and_leave(
        self,
        target: &Target,
        options: &SyncOptions,
        work: &Work,
    ) -> (Result<(SyncReport, Traffic)>, Option<Session>) {
        let synced = self.remote.sync_onto(target, options, work);
        let synced = match synced {
            Ok(report) => self.remote.end(None).map(|()| report),
            Err(error) => {
                // Where the line is down there is nobody to tell.
                let fault = Box::new(Fault::of(&error, false));
                let _ = self.remote.tell(&Message::Fail(fault));
                Err(error)
            }
        };
        let traffic = self.remote.traffic();
        let session = self.remote.into_session();
        (synced.map(|report| (report, traffic)), session)
    }
}

/// Tells the agent of an error, where it still listens.
fn tell(line: &Line, error: &Error) {
    let _ = line.send(&Message::Fail(Box::new(Fault::of(error, false))));
}

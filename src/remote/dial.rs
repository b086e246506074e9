//! The end that dials: a sync whose source, or whose target, is at the other end.

use std::io::{Read, Write};
use std::sync::Arc;

use super::answer::Answerer;
use super::far_disk::FarDisk;
use super::job::{Fault, Job};
use super::line::{Line, Traffic};
use super::line_options::LineOptions;
use super::message::Message;
use super::session::{Session, Side};
use super::wire::wrong;
use crate::control::Work;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::sync::{CachedSource, HostSource, SyncOptions, SyncReport, Target};

/// A line to an agent, which waits for a job, but no longer than for an end that is silent.
pub struct Dialled {
    session: Session,
}

impl Dialled {
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
    ) -> Result<Dialled> {
        let line = Line::new(reader, writer, options.clone().or_peer("the agent"));
        let session = Session::greet(line, Side::Dialler, work.cancel())?;
        Ok(Dialled { session })
    }

    /// Has the agent open the source that `job` names.
    ///
    /// # Errors
    /// Those of the agent; `Malformed`, `Io`, `Cancelled`.
    pub fn pull(self, job: &Job, work: &Work) -> Result<Pull> {
        let mut job = job.clone();
        // One that does not know of it opens it as if it were to be copied, or says that it cannot.
        job.live &= self.session.looks();
        self.session.line().send(&Message::Job(Box::new(job)))?;
        let far = FarDisk::open(self.session, &Limits::default(), work.cancel())?;
        Ok(Pull { far: Arc::new(far) })
    }

    /// Makes the target that `job` names hold what `source` holds, as
    /// [`sync`](crate::sync::sync) does, promises and all; the report is the agent's. `cached` is
    /// what a cache knows of the source. Also returns what went over the line.
    ///
    /// # Errors
    /// Those of the agent, of kind `Marked` where the target is incomplete now; those of reading
    /// the source.
    pub fn push(
        self,
        job: &Job,
        source: &HostSource,
        cached: Option<CachedSource>,
        work: &Work,
    ) -> Result<(SyncReport, Traffic)> {
        self.session
            .line()
            .send(&Message::Job(Box::new(job.clone())))?;
        let answerer = Answerer {
            image: source.image().clone(),
            check: &|| source.check(),
            warnings: Vec::new(),
            cached,
        };
        let answered = answerer.answer(&self.session, work);
        let traffic = self.session.traffic();
        let report = match answered {
            Ok(Some(ending)) => ending.report(),
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
pub struct Pull {
    far: Arc<FarDisk>,
}

impl Pull {
    /// What the agent told of the source.
    pub fn warnings(&self) -> &[String] {
        &self.far.opened().warnings
    }

    /// The source, to be asked for something else than a sync.
    pub fn far(&self) -> &FarDisk {
        &self.far
    }

    /// Tells the agent that nothing more is wanted, and closes the line.
    ///
    /// # Errors
    /// `Io`.
    pub fn end(self) -> Result<()> {
        self.far.end(None)?;
        if let Some(session) = self.far.into_session() {
            session.finish();
        }
        Ok(())
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
        let synced = self.far.sync_onto(target, options, work);
        match &synced {
            Ok(_) => self.far.end(None)?,
            // Where the line is down there is nobody to tell.
            Err(error) => drop(
                self.far
                    .tell(&Message::Fail(Box::new(Fault::of(error, false)))),
            ),
        }
        let traffic = self.far.traffic();
        if let Some(session) = self.far.into_session() {
            session.finish();
        }
        Ok((synced?, traffic))
    }
}

/// Tells the agent of an error, where it still listens.
fn tell(line: &Line, error: &Error) {
    let _ = line.send(&Message::Fail(Box::new(Fault::of(error, false))));
}

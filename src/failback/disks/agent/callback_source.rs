//! The line of a disk agent: over it the client answers for disks, and hears how far it
//! is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::messages::{AgentReply, Wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::progress::{Phase, Progress, Work};
use crate::remote::{Fault, Message, RemoteSource, Session};
use crate::sync::Source;

/// The line, while no pull uses it.
pub(in crate::failback::disks) struct CallbackSource {
    session: Mutex<Option<Arc<Session>>>,
}

impl CallbackSource {
    pub(super) fn new(session: Session) -> Arc<Self> {
        Arc::new(CallbackSource {
            session: Mutex::new(Some(Arc::new(session))),
        })
    }

    /// Has a disk opened by the client.
    pub(crate) fn open(&self, wanted: Wanted, work: &Work) -> Result<Source> {
        self.tell(&AgentReply::Wanted(wanted))?;
        let session = self.lock().clone().ok_or_else(busy)?;
        let opened = RemoteSource::over(session, &Limits::default(), work.cancel());
        let remote = opened.map_err(Fault::quoted)?;
        Ok(remote.for_client().into_source())
    }

    /// The line, for the last word.
    ///
    /// # Errors
    /// `Io` where it was lost.
    pub(super) fn take(&self) -> Result<Session> {
        let session = self.lock().take();
        session.and_then(Arc::into_inner).ok_or_else(busy)
    }

    /// Whether something can be told without waiting for an end that does not listen.
    fn has_room(&self) -> bool {
        let session = self.lock();
        free(&session).is_some_and(|it| it.line().has_room())
    }

    fn tell(&self, reply: &AgentReply) -> Result<()> {
        let message = Message::Told(reply.encode()?);
        free(&self.lock()).ok_or_else(busy)?.line().send(&message)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session, while no disk is read over it.
fn free(session: &Option<Arc<Session>>) -> Option<&Session> {
    let session = session.as_ref()?;
    (Arc::strong_count(session) == 1).then_some(session)
}

fn busy() -> Error {
    Error::new(ErrorKind::Io, "the connection is in use, or was lost")
}

/// Tells the client how far long work is, unless it answers for a disk: then it sees
/// for itself.
pub(super) struct Told {
    callback_source: Arc<CallbackSource>,
    bytes: AtomicU64,
    last: Mutex<Instant>,
}

impl Told {
    pub(super) fn new(callback_source: Arc<CallbackSource>) -> Self {
        Told {
            callback_source,
            bytes: AtomicU64::new(0),
            last: Mutex::new(Instant::now()),
        }
    }

    fn tell(&self, reply: &AgentReply) {
        // A line that has ended is seen elsewhere, and the work never waits for the line.
        if self.callback_source.has_room() {
            let _ = self.callback_source.tell(reply);
        }
    }
}

impl Progress for Told {
    fn begin(&self, phase: Phase, total_bytes: Option<u64>) {
        self.bytes.store(0, Ordering::Relaxed);
        self.tell(&AgentReply::Begun { phase, total_bytes });
    }

    fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() < EVERY {
            return;
        }
        *last = Instant::now();
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        self.tell(&AgentReply::Advanced { bytes });
    }
}

const EVERY: Duration = Duration::from_millis(200);

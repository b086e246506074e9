//! The line of a disk agent: over it the end that dialled answers for disks, and hears how far it
//! is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::messages::{AgentReply, Wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::failback::disks::remote_disk::RemoteDisk;
use crate::progress::{Phase, Progress, Work};
use crate::remote::{Fault, Message, RemoteSession, Session};

/// The line, while nobody pulls over it.
pub(in crate::failback::disks) struct CallbackSource {
    session: Mutex<Option<Session>>,
}

impl CallbackSource {
    pub(super) fn new(session: Session) -> Arc<Self> {
        Arc::new(CallbackSource {
            session: Mutex::new(Some(session)),
        })
    }

    /// Has a disk opened by the end that dialled.
    ///
    /// # Errors
    /// Those of opening it there; `Io`, `Malformed`, `Cancelled`.
    pub fn open(self: &Arc<Self>, wanted: Wanted, work: &Work) -> Result<RemoteDisk> {
        self.tell(&AgentReply::Wanted(wanted))?;
        match RemoteSession::over(self.take()?, work.cancel()) {
            Ok(remote_session) => Ok(RemoteDisk::over_callback(remote_session, self.clone())),
            Err((error, session)) => {
                self.put_back(Some(*session));
                Err(Fault::quoted(error))
            }
        }
    }

    /// Gives the line back; `None` where it was lost.
    pub fn put_back(&self, session: Option<Session>) {
        *self.lock() = session;
    }

    /// The line, for the last word.
    ///
    /// # Errors
    /// `Io` where it was lost.
    pub(super) fn take(&self) -> Result<Session> {
        self.lock()
            .take()
            .ok_or_else(|| Error::new(ErrorKind::Io, "the line is in use, or was lost"))
    }

    /// Whether something can be told without waiting for an end that does not listen.
    fn has_room(&self) -> bool {
        let session = self.lock();
        session.as_ref().is_some_and(|it| it.line().has_room())
    }

    fn tell(&self, reply: &AgentReply) -> Result<()> {
        let message = Message::Told(reply.encode()?);
        match &*self.lock() {
            Some(session) => session.line().send(&message),
            None => Err(Error::new(ErrorKind::Io, "the line is in use, or was lost")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the end that dialled how far long work is, unless it answers for a disk: then it sees
/// for itself.
pub(super) struct Told {
    callback_source: Arc<CallbackSource>,
    bytes: AtomicU64,
    last: Mutex<Instant>,
}

impl Told {
    pub fn new(callback_source: Arc<CallbackSource>) -> Self {
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
        let phase = PHASES.iter().position(|known| *known == phase).unwrap_or(0);
        let phase = u8::try_from(phase).unwrap_or(0);
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

/// The phase of a number.
pub(super) fn phase_of(number: u8) -> Phase {
    let known = PHASES.get(usize::from(number));
    known.copied().unwrap_or(Phase::Hash)
}

const PHASES: [Phase; 6] = [
    Phase::Sample,
    Phase::Hash,
    Phase::Diff,
    Phase::Copy,
    Phase::Apply,
    Phase::Verify,
];
const EVERY: Duration = Duration::from_millis(200);

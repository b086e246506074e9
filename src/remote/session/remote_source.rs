//! The end with the target: the source at the other end, as a sync sees it.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::run::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::progress::CancelToken;
use crate::remote::transport::connection::Connection;
use crate::remote::wire::codec::wrong;
use crate::remote::wire::format::{LONG_HASH_LEN, SHORT_HASH_LEN};
use crate::remote::wire::message::Message;
use crate::remote::wire::request::Opened;
use crate::sync::{Source, Traffic};

/// A source at the other end of a session.
pub struct RemoteSource {
    /// Until the work is done. Before the connection that carries it: the line ends first.
    session: Mutex<Option<Arc<Session>>>,
    connection: Option<Mutex<Connection>>,
    /// Held while something is asked over the session.
    asking: Mutex<()>,
    /// Whether this end tells the other one how the work ended.
    pub(super) is_client: bool,
    opened: Opened,
    pub(in crate::remote) comparisons: AtomicU64,
    pub(in crate::remote) hash_len: AtomicUsize,
    pub(in crate::remote) has_missed: AtomicBool,
    /// Whether a manifest has stood for reading the source.
    pub(in crate::remote) trusts: AtomicBool,
    /// Whether both disks are read, whatever manifests there are.
    pub(in crate::remote) is_wary: AtomicBool,
}

opaque!(RemoteSource);

/// A session over which nothing else is asked meanwhile.
pub(in crate::remote) struct SessionGuard<'a> {
    session: Arc<Session>,
    _guard: MutexGuard<'a, ()>,
}

impl Deref for SessionGuard<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl RemoteSource {
    /// Takes the description of the source, which the other end sends first.
    ///
    /// # Errors
    /// Any, from the other end; `LimitExceeded`, `Malformed`, `Io`, `Cancelled`.
    pub fn open(session: Session, limits: &Limits, cancel: &CancelToken) -> Result<RemoteSource> {
        RemoteSource::over(Arc::new(session), limits, cancel)
    }

    /// As [`open`](RemoteSource::open), over a session that may be used again.
    ///
    /// # Errors
    /// As [`open`](RemoteSource::open).
    pub fn over(
        session: Arc<Session>,
        limits: &Limits,
        cancel: &CancelToken,
    ) -> Result<RemoteSource> {
        let opened = described(&session, limits, cancel)?;
        Ok(RemoteSource {
            session: Mutex::new(Some(session)),
            connection: None,
            asking: Mutex::new(()),
            is_client: false,
            opened,
            comparisons: AtomicU64::new(0),
            hash_len: AtomicUsize::new(SHORT_HASH_LEN),
            has_missed: AtomicBool::new(false),
            trusts: AtomicBool::new(false),
            is_wary: AtomicBool::new(false),
        })
    }

    /// Tells the other end how the work ended.
    #[must_use]
    pub fn for_client(mut self) -> Self {
        self.is_client = true;
        self
    }

    /// Keeps what carries the session.
    #[must_use]
    pub(in crate::remote) fn with_connection(mut self, connection: Option<Connection>) -> Self {
        self.connection = connection.map(Mutex::new);
        self
    }

    /// Compares with hashes of `hash_len` bytes, 1 to 16, instead of 5.
    #[must_use]
    pub fn with_hash_len(self, bytes: usize) -> Self {
        self.hash_len
            .store(bytes.clamp(1, LONG_HASH_LEN), Ordering::Relaxed);
        self
    }

    /// What the other end told of the source.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The same as a source of a sync.
    pub fn into_source(self) -> Source {
        let warnings = self.opened.warnings.clone();
        Source::from_backend(Arc::new(self)).with_warnings(warnings)
    }

    /// What went over the line, as long as the work is not done.
    pub fn traffic(&self) -> Traffic {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.as_ref().map(|it| it.traffic()).unwrap_or_default()
    }

    /// Sends the last message, and closes the line where nothing else uses it.
    ///
    /// # Errors
    /// `Io`.
    pub(in crate::remote) fn finish_with(&self, message: &Message) -> Result<Option<Traffic>> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = session.take() else {
            return Ok(None);
        };
        let told = session.line().send(message);
        let traffic = session.traffic();
        if let Some(session) = Arc::into_inner(session) {
            session.finish();
        }
        told.map(|()| Some(traffic))
    }

    /// The session, to ask something over it.
    ///
    /// # Errors
    /// `InvalidInput` once the work is done.
    pub(in crate::remote) fn ask(&self) -> Result<SessionGuard<'_>> {
        let guard = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let session = session.clone().ok_or_else(|| {
            let what = "the connection to this disk was used already";
            self.explain(Error::new(ErrorKind::InvalidInput, what))
        })?;
        Ok(SessionGuard {
            session,
            _guard: guard,
        })
    }

    /// The error of a line that broke, with what is known of the reason.
    pub(super) fn explain(&self, error: Error) -> Error {
        match &self.connection {
            Some(connection) => {
                let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                connection.explain(error)
            }
            None => error,
        }
    }
}

impl Drop for RemoteSource {
    /// The other end hears that nothing more is wanted.
    fn drop(&mut self) {
        if self.is_client {
            // Where the line is down it cannot be told.
            let _ = self.finish_with(&Message::Complete(None));
        }
    }
}

/// Takes the description of the source, which the other end sends first.
///
/// # Errors
/// As [`RemoteSource::open`].
fn described(session: &Session, limits: &Limits, cancel: &CancelToken) -> Result<Opened> {
    let opened = match session.line().receive("what its source is", cancel)? {
        Message::Opened(opened) => *opened,
        _ => return Err(wrong("something other than what its source is")),
    };
    if opened.disk_len > limits.disk_bytes {
        let what = "the other end's disk is longer than the limit";
        return Err(Error::new(ErrorKind::LimitExceeded, what).in_field("disk_len"));
    }
    Ok(opened)
}

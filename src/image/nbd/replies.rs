//! The requests that are under way on a connection, and the replies to them as they come.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::handshake::{Contexts, ExportInfo};
use super::pending::{Answer, Pending, Request};
use super::reply::{next_chunk, nonsense};
use crate::error::{Error, ErrorKind, Result};

/// The requests under way; the threads of a connection share it.
pub(super) struct Replies {
    table: Mutex<Table>,
    changed: Condvar,
    info: ExportInfo,
    contexts: Contexts,
}

/// Requests under way, by their cookies.
#[derive(Default)]
struct Table {
    pending: BTreeMap<u64, Pending>,
    waiting: HashMap<u64, SyncSender<Result<Answer>>>,
    last_cookie: u64,
    /// The kind and text of what ended the connection.
    ended: Option<(ErrorKind, String)>,
}

impl Replies {
    /// None are under way.
    pub(super) fn new(info: ExportInfo, contexts: Contexts) -> Self {
        Replies {
            table: Mutex::default(),
            changed: Condvar::new(),
            info,
            contexts,
        }
    }

    /// What the export is.
    pub(super) fn info(&self) -> &ExportInfo {
        &self.info
    }

    /// How many requests are under way; `None` once the connection has ended.
    pub(super) fn load(&self) -> Option<usize> {
        let table = self.lock();
        table.ended.is_none().then_some(table.waiting.len())
    }

    /// The error of a connection that has ended.
    pub(super) fn error(&self) -> Error {
        self.lock().error().unwrap_or_else(|| nonsense("ends"))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a request, once not too many are under way; its cookie.
    ///
    /// # Errors
    /// `InvalidInput` for a range that is not aligned, too long or beyond the disk; that of a
    /// connection that has ended.
    pub(super) fn register(
        &self,
        request: Request,
        sender: SyncSender<Result<Answer>>,
    ) -> Result<u64> {
        request.check(&self.info)?;
        let mut table = self.lock();
        while table.ended.is_none() && table.waiting.len() >= IN_FLIGHT {
            let waited = self.changed.wait(table);
            table = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(error) = table.error() {
            return Err(error);
        }
        table.last_cookie += 1;
        let cookie = table.last_cookie;
        table.pending.insert(cookie, Pending::new(request));
        table.waiting.insert(cookie, sender);
        self.changed.notify_all();
        Ok(cookie)
    }

    /// Whether a request can be entered without waiting.
    pub(super) fn has_room(&self) -> bool {
        let table = self.lock();
        table.ended.is_none() && table.waiting.len() < IN_FLIGHT
    }

    /// Waits for a request; when the oldest one was made. `None` once the connection has ended.
    pub(super) fn wait(&self) -> Option<Instant> {
        let mut table = self.lock();
        loop {
            if table.ended.is_some() {
                return None;
            }
            if let Some(oldest) = table.pending.values().next() {
                return Some(oldest.asked);
            }
            let waited = self.changed.wait(table);
            table = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes one chunk of a reply from the stream, and sends the answer once it is whole.
    ///
    /// # Errors
    /// `Malformed`, `Io`, `Cancelled`: nothing is known of what follows in the stream then.
    pub(super) fn receive<S: Read>(&self, stream: &mut S) -> Result<()> {
        let chunk = next_chunk(stream)?;
        let pending = self.lock().pending.remove(&chunk.cookie);
        let mut pending = pending.ok_or_else(|| nonsense("answers a request that was not made"))?;
        pending.take(chunk, stream, (&self.info, &self.contexts))?;
        let mut table = self.lock();
        if !chunk.is_last {
            table.pending.insert(chunk.cookie, pending);
            return Ok(());
        }
        let answer = pending.finish(&self.contexts);
        if let Some(sender) = table.waiting.remove(&chunk.cookie) {
            // The channel has room for the one answer.
            let _ = sender.send(answer);
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Ends the connection, and whatever waits for it, with this error.
    pub(super) fn end(&self, error: Error) {
        let mut table = self.lock();
        if table.ended.is_none() {
            table.ended = Some((error.kind(), error.to_string()));
        }
        table.pending.clear();
        // Without their senders, those who wait see the end.
        table.waiting.clear();
        self.changed.notify_all();
    }
}

impl Table {
    /// The error of a connection that has ended.
    fn error(&self) -> Option<Error> {
        let (kind, text) = self.ended.as_ref()?;
        Some(Error::new(*kind, text.clone()))
    }
}

/// Requests under way at once, enough for a long way; servers leave some of them waiting.
const IN_FLIGHT: usize = 32;

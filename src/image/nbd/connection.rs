//! One connection to an export, on which several requests are under way at once.

use std::io::{BufReader, Read, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::handshake::{Contexts, ExportInfo};
use super::pending::{Answer, Request, goodbye};
use super::replies::Replies;
use super::reply::failed;
use super::socket::{Halves, Patient};
use super::stream::Duplex;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::CancelToken;

/// A connection that any thread may ask something. A thread of its own reads the replies, in
/// whatever order they come, and gives each to the thread that waits for it.
pub(super) struct Connection {
    writer: Mutex<Patient<Box<dyn Write + Send>>>,
    replies: Arc<Replies>,
    reader: Option<JoinHandle<()>>,
    /// Ends what the reader waits for.
    stop: CancelToken,
    /// Dropped last.
    _guard: Option<Box<dyn Send + Sync>>,
}

impl Connection {
    /// Goes on after the handshake.
    ///
    /// # Errors
    /// `Io` where no thread can be begun.
    pub(super) fn start(
        stream: Patient<Duplex>,
        info: ExportInfo,
        contexts: Contexts,
    ) -> Result<Self> {
        let replies = Arc::new(Replies::new(info, contexts));
        let Halves {
            reader,
            writer,
            guard,
            stop,
        } = stream.split();
        let for_reader = replies.clone();
        let reader = thread::Builder::new()
            .name("nbd".to_owned())
            .spawn(move || read_replies(&for_reader, reader))
            .map_err(|cause| Error::io("begin a thread for an NBD connection", cause))?;
        Ok(Connection {
            writer: Mutex::new(writer),
            replies,
            reader: Some(reader),
            stop,
            _guard: guard,
        })
    }

    /// What the export is.
    pub(super) fn info(&self) -> ExportInfo {
        *self.replies.info()
    }

    /// How many requests are under way; `None` once the connection has ended.
    pub(super) fn load(&self) -> Option<usize> {
        self.replies.load()
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// `InvalidInput` for a range that is not aligned, too long or beyond the disk; what the server
    /// says went wrong; `Malformed` and `Io`, after which the connection has ended; `Cancelled`.
    pub(super) fn call(&self, request: Request) -> Result<Answer> {
        let answer = self.begin(request)?.recv();
        answer.unwrap_or_else(|_| Err(self.replies.error()))
    }

    /// Whether [`begin`](Self::begin) does not wait now.
    pub(super) fn has_room(&self) -> bool {
        self.replies.has_room()
    }

    /// Asks; the answer comes later, or nothing, where the connection ends before.
    ///
    /// # Errors
    /// `InvalidInput` as for [`call`](Self::call); that of a connection that has ended.
    pub(super) fn begin(&self, request: Request) -> Result<Receiver<Result<Answer>>> {
        let (sender, receiver) = sync_channel(1);
        let cookie = self.replies.register(request, sender)?;
        let message = request.message(cookie);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = writer.write_all(&message);
        drop(writer);
        if let Err(cause) = sent {
            self.replies.end(failed(cause));
        }
        Ok(receiver)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let is_sound = self.load().is_some();
        let text = "the connection was closed";
        self.replies.end(Error::new(ErrorKind::Io, text));
        if is_sound {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            // No answer comes, and none is needed.
            let _ = writer.write_all(&goodbye());
        }
        // Answers may still be under way.
        self.stop.cancel();
        if let Some(reader) = self.reader.take() {
            // It has nothing to tell.
            let _ = reader.join();
        }
    }
}

fn read_replies(replies: &Replies, reader: Patient<Box<dyn Read + Send>>) {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    while let Some(asked) = replies.wait() {
        reader.get_mut().begin_at(asked);
        if let Err(error) = replies.receive(&mut reader) {
            replies.end(error);
        }
    }
}

const BUFFER_BYTES: usize = 64 << 10;

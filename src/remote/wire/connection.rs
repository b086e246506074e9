//! A line: frames over any pair of a reader and a writer, each on a thread of its own.

use std::io::{Read, Write};
use std::sync::{Arc, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::closer::Closer;
use super::connection_options::LineOptions;
use super::connection_state::{OUTGOING_BYTES, Shared, cost};
use super::format::kind;
use super::frame::WireFrame;
use super::message::Message;
use crate::error::{Error, Result};
use crate::progress::CancelToken;
use crate::sync::Traffic;

/// The line to the other end.
///
/// Memory: frames that wait to be sent take at most 6 MiB, frames that came and were not taken at
/// most 10 MiB, and the buffers of both directions 8 MiB; headers and bookkeeping are counted.
/// Where the one is full a sender waits, where the other is full the line is not read.
///
/// Dropping it closes its direction after what was sent, and cuts off sockets
/// ([`UnixStream`](std::os::unix::net::UnixStream), [`TcpStream`](std::net::TcpStream)) whose other
/// end does not close its own within half a second. Other readers stay, on a thread, until the
/// other end closes its side or is a line that ends.
pub struct Line {
    shared: Arc<Shared>,
    closer: Closer,
}

opaque!(Line);

/// Sees from elsewhere whether a line has ended.
#[derive(Clone)]
pub struct LineWatch(Arc<Shared>);

opaque!(LineWatch);

impl Line {
    /// A line over `reader` and `writer`, with a thread for each.
    ///
    /// # Errors
    /// `Io` where there is no thread for it.
    pub fn new(
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        options: LineOptions,
    ) -> Result<Self> {
        let failed = |cause: std::io::Error| Error::io("start a thread for the line", cause);
        let line = Line {
            shared: Arc::new(Shared::new(options)),
            closer: Closer::of(&reader, &writer),
        };
        let written = line.shared.clone();
        let write = move || {
            written.write(writer);
            let mut state = written.lock();
            state.is_written = true;
            state.outgoing.clear();
            state.outgoing_bytes = 0;
            drop(state);
            written.ring();
        };
        spawn("line writer", write).map_err(|cause| {
            line.shared.lock().is_written = true;
            failed(cause)
        })?;
        let reading = line.shared.clone();
        let read = move || {
            reading.read(reader);
            reading.lock().is_read = true;
            reading.ring();
        };
        spawn("line reader", read).map_err(|cause| {
            line.shared.lock().is_read = true;
            failed(cause)
        })?;
        Ok(line)
    }

    /// Has `cancel` stop threads that wait to send.
    pub(in crate::remote) fn set_cancel(&self, cancel: &CancelToken) {
        self.shared.lock().cancel = cancel.clone();
    }

    /// Sends a message, as soon as there is room among what waits to be sent.
    ///
    /// # Errors
    /// `Io` once the line is closed, and where the other end takes nothing for too long;
    /// `LimitExceeded` where the line was used for too long; `Cancelled`.
    pub fn send(&self, message: &Message) -> Result<()> {
        let frame = message.encode();
        let most = match frame.kind {
            // The last that is said must not wait for an end that does not listen.
            kind::FAIL | kind::COMPLETE => OUTGOING_BYTES + LAST_WORDS_BYTES,
            _ => OUTGOING_BYTES,
        };
        let mut state = self.shared.lock();
        while state.outgoing_bytes >= most && !state.is_written {
            state.cancel.check()?;
            self.shared.check_age()?;
            self.shared.check_taken(&state)?;
            if state.ended.is_some() {
                break;
            }
            let waited = self.shared.bell.wait_timeout(state, NAP);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.is_written || state.outgoing_bytes >= most {
            drop(state);
            return self.closed_by_the_other();
        }
        let now = Instant::now();
        if state.outgoing.is_empty() {
            state.written = now;
        }
        state.busy = now;
        state.outgoing_bytes += cost(&frame);
        state.outgoing.push_back(frame);
        drop(state);
        self.shared.bell.notify_all();
        Ok(())
    }

    /// Why nothing can be sent: the other end may have said it.
    fn closed_by_the_other(&self) -> Result<()> {
        match self.try_receive()? {
            Some(frame) if frame.kind == kind::FAIL => match Message::decode(&frame, 1)? {
                Message::Fail(fault) => Err(fault.error()),
                _ => Err(self.shared.closed()),
            },
            _ => Err(self.shared.closed()),
        }
    }

    /// Whether something may be sent without waiting.
    pub fn has_room(&self) -> bool {
        self.shared.lock().has_room()
    }

    /// The next frame that has come.
    ///
    /// # Errors
    /// `Io` where the line ended, `Malformed` where it is broken, once all before it is taken;
    /// `LimitExceeded` where it was used for too long.
    pub fn try_receive(&self) -> Result<Option<WireFrame>> {
        let mut state = self.shared.lock();
        self.shared.check_age()?;
        if let Some(frame) = state.incoming.pop_front() {
            state.incoming_bytes -= cost(&frame);
            state.busy = Instant::now();
            drop(state);
            self.shared.bell.notify_all();
            return Ok(Some(frame));
        }
        match state.ended.take() {
            Some(error) => {
                state.ended = Some(self.shared.closed());
                Err(error)
            }
            None => Ok(None),
        }
    }

    /// Waits for the next message; errors of the other end are errors here. Errors say that this
    /// end waited for `what`.
    ///
    /// # Errors
    /// Those of [`try_receive`](Line::try_receive) and [`wait`](Line::wait); any, from the other
    /// end.
    pub fn receive(&self, what: &'static str, cancel: &CancelToken) -> Result<Message> {
        loop {
            let rings = self.rings();
            match self.try_receive()? {
                Some(frame) => match Message::decode(&frame, 0)? {
                    Message::Fail(fault) => return Err(fault.error()),
                    message => return Ok(message),
                },
                None => self.wait(rings, what, cancel)?,
            }
        }
    }

    /// From now on nothing but signs of life may come for so long.
    pub(in crate::remote) fn set_idle(&self, idle: Option<Duration>) {
        self.shared.lock().idle = idle;
    }

    /// How often something has happened on the line, or [`ring`](Line::ring) was called.
    pub fn rings(&self) -> u64 {
        self.shared.lock().rings
    }

    /// Wakes the threads that wait.
    pub fn ring(&self) {
        self.shared.ring();
    }

    /// Waits until there were more than `rings`.
    ///
    /// # Errors
    /// `Cancelled`; `Io` where the other end was silent for too long or took nothing of what waits
    /// for it, `LimitExceeded` where it showed nothing but signs of life for too long, or where the
    /// line was used for too long.
    pub fn wait(&self, rings: u64, what: &'static str, cancel: &CancelToken) -> Result<()> {
        let mut state = self.shared.lock();
        while state.rings == rings {
            cancel.check()?;
            if state.ended.is_none() {
                match (state.incoming.is_empty(), state.has_room()) {
                    (true, _) => self.shared.check_patience(&state, what)?,
                    // What has come waits until there is room for the answers to it.
                    (false, false) => self.shared.check_taken(&state)?,
                    (false, true) => {}
                }
                self.shared.check_age()?;
            }
            let waited = self.shared.bell.wait_timeout(state, NAP);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Sees whether it has ended, while other threads use it.
    pub fn watch(&self) -> LineWatch {
        LineWatch(self.shared.clone())
    }

    /// What went over it so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.lock().traffic
    }

    /// Writes all that was sent, and closes this direction; an end that does not read is not
    /// waited for without end.
    pub fn finish(self) {
        let mut state = self.shared.lock();
        state.is_closing = true;
        state.written = Instant::now();
        self.shared.bell.notify_all();
        while !state.is_written && state.written.elapsed() < FINISH {
            let waited = self.shared.bell.wait_timeout(state, NAP);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl LineWatch {
    /// Whether the other end is gone: the line is closed, or it was silent for too long.
    pub fn is_over(&self) -> bool {
        let state = self.0.lock();
        let is_silent = state.heard.elapsed() > self.0.options.silence;
        state.ended.is_some() || (state.incoming.is_empty() && is_silent)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let begun = Instant::now();
        let mut state = self.shared.lock();
        state.is_closing = true;
        state.dropped = Some(begun);
        state.incoming.clear();
        state.incoming_bytes = 0;
        state.rings += 1;
        self.shared.bell.notify_all();
        if self.closer.is_empty() {
            return;
        }
        while !(state.is_written && state.is_read) && begun.elapsed() < CLOSING {
            let waited = self.shared.bell.wait_timeout(state, CLOSING_NAP);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.closer.close();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

/// Beyond that the last that is said has room.
const LAST_WORDS_BYTES: usize = 1 << 20;
/// How often a cancel is looked for.
const NAP: Duration = Duration::from_millis(200);
const FINISH: Duration = Duration::from_secs(10);
/// How long the other end has to close a socket.
const CLOSING: Duration = Duration::from_millis(500);
const CLOSING_NAP: Duration = Duration::from_millis(50);

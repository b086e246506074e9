//! A line: frames over any pair of a reader and a writer, each on a thread of its own.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::format::kind;
use super::frame::{Frame, FrameDecoder, FrameEncoder};
use super::message::Message;
use crate::control::CancelToken;
use crate::error::{Error, ErrorKind, Result};

/// The line to the other end.
///
/// Both directions go on while nobody looks, so two ends that send at the same time never wait for
/// each other. What has come and was not taken is at most 8 MiB; then the line is not read.
pub struct Line {
    shared: Arc<Shared>,
    outgoing: Option<Sender<Frame>>,
    options: LineOptions,
}

/// How a line is watched.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LineOptions {
    /// How long the other end may be silent; it shows a sign of life three times as often.
    pub silence: Duration,
}

impl LineOptions {
    /// Replaces [`LineOptions::silence`].
    #[must_use]
    pub fn with_silence(mut self, silence: Duration) -> Self {
        self.silence = silence;
        self
    }
}

impl Default for LineOptions {
    fn default() -> Self {
        LineOptions {
            silence: Duration::from_secs(60),
        }
    }
}

/// What went over a line, framing counted, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// To the other end.
    pub sent_bytes: u64,
    /// From it.
    pub received_bytes: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    /// Counts what happened, so that nobody who looked before it sleeps over it.
    rings: u64,
    incoming: VecDeque<Frame>,
    incoming_bytes: usize,
    heard: Option<Instant>,
    /// Why no more comes.
    ended: Option<Error>,
    outgoing_bytes: usize,
    traffic: Traffic,
    is_dropped: bool,
    is_written: bool,
}

impl Line {
    /// A line over `reader` and `writer`, which live until the other end closes its side, and
    /// until all is written.
    pub fn new(
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
        options: LineOptions,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        shared.lock().heard = Some(Instant::now());
        let (outgoing, frames) = channel();
        let reading = shared.clone();
        std::thread::spawn(move || reading.read(reader));
        let written = shared.clone();
        let sign = options.silence / 3;
        std::thread::spawn(move || {
            written.write(writer, &frames, sign);
            written.lock().is_written = true;
            written.ring();
        });
        Line {
            shared,
            outgoing: Some(outgoing),
            options,
        }
    }

    /// Sends a message, some time.
    ///
    /// # Errors
    /// `Io` once the line is closed.
    pub fn send(&self, message: &Message) -> Result<()> {
        let frame = message.encode();
        self.shared.lock().outgoing_bytes += frame.payload.len();
        let sent = self.outgoing.as_ref().map(|outgoing| outgoing.send(frame));
        match sent {
            Some(Ok(())) => Ok(()),
            // The other end may have said why.
            _ => match self.try_receive()? {
                Some(frame) if frame.kind == kind::FAIL => match Message::decode(&frame, 1)? {
                    Message::Fail(fault) => Err(fault.error()),
                    _ => Err(closed()),
                },
                _ => Err(closed()),
            },
        }
    }

    /// Whether bulk data may be sent: what waits for the line is not much.
    pub fn has_room(&self) -> bool {
        self.shared.lock().outgoing_bytes < OUTGOING_BYTES
    }

    /// The next frame that has come.
    ///
    /// # Errors
    /// `Io` where the line ended, `Malformed` where it is broken, once all before it is taken.
    pub fn try_receive(&self) -> Result<Option<Frame>> {
        let mut state = self.shared.lock();
        if let Some(frame) = state.incoming.pop_front() {
            state.incoming_bytes -= frame.payload.len();
            drop(state);
            self.shared.bell.notify_all();
            return Ok(Some(frame));
        }
        match state.ended.take() {
            Some(error) => {
                state.ended = Some(closed());
                Err(error)
            }
            None => Ok(None),
        }
    }

    /// Waits for the next message; errors of the other end are errors here. `what` is waited for.
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

    /// How often something has happened on the line, or [`ring`](Line::ring) was called.
    pub fn rings(&self) -> u64 {
        self.shared.lock().rings
    }

    /// Wakes whoever waits.
    pub fn ring(&self) {
        self.shared.ring();
    }

    /// Waits until there were more than `rings`.
    ///
    /// # Errors
    /// `Cancelled`; `Io` where the other end was silent for too long while `what` was awaited.
    pub fn wait(&self, rings: u64, what: &'static str, cancel: &CancelToken) -> Result<()> {
        let mut state = self.shared.lock();
        while state.rings == rings {
            cancel.check()?;
            let is_silent = state
                .heard
                .is_some_and(|at| at.elapsed() > self.options.silence);
            if is_silent && state.ended.is_none() && state.incoming.is_empty() {
                let seconds = self.options.silence.as_secs();
                return Err(Error::new(
                    ErrorKind::Io,
                    format!("the other end was silent for {seconds} s while {what} was awaited"),
                )
                .advise("run it again when the line is up; it goes on where it stopped"));
            }
            let waited = self.shared.bell.wait_timeout(state, NAP);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// What went over it so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.lock().traffic
    }

    /// Writes all that was sent, and closes this direction; an end that does not read is not
    /// waited for for ever.
    pub fn finish(mut self) {
        drop(self.outgoing.take());
        let begun = Instant::now();
        let mut state = self.shared.lock();
        while !state.is_written && begun.elapsed() < FINISH {
            let waited = self.shared.bell.wait_timeout(state, NAP);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.lock().is_dropped = true;
        self.shared.ring();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        self.lock().rings += 1;
        self.bell.notify_all();
    }

    fn end(&self, error: Error) {
        self.lock().ended.get_or_insert(error);
        self.ring();
    }

    fn read(&self, mut reader: impl Read) {
        let mut decoder = FrameDecoder::default();
        let mut buf = vec![0; READ_BYTES];
        loop {
            let count = match reader.read(&mut buf) {
                Ok(0) => return self.end(closed()),
                Ok(count) => count,
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(cause) => return self.end(Error::io("read from the line", cause)),
            };
            let mut bytes = buf.get(..count).unwrap_or_default();
            while !bytes.is_empty() {
                match decoder.decode(&mut bytes) {
                    Ok(Some(frame)) => self.take(frame),
                    Ok(None) => {}
                    Err(error) => return self.end(error),
                }
            }
            let mut state = self.lock();
            state.traffic.received_bytes += count as u64;
            state.heard = Some(Instant::now());
            while state.incoming_bytes > INCOMING_BYTES && !state.is_dropped {
                state = self
                    .bell
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn take(&self, frame: Frame) {
        if frame.kind == kind::ALIVE {
            return;
        }
        let mut state = self.lock();
        state.incoming_bytes += frame.payload.len();
        state.incoming.push_back(frame);
        drop(state);
        self.ring();
    }

    fn write(&self, mut writer: impl Write, frames: &Receiver<Frame>, sign: Duration) {
        let mut encoder = FrameEncoder::default();
        let mut out = Vec::new();
        loop {
            let frame = match frames.recv_timeout(sign) {
                Ok(frame) => frame,
                Err(RecvTimeoutError::Timeout) => Message::Alive.encode(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            out.clear();
            let mut payload_bytes = frame.payload.len();
            let mut encoded = encoder.encode(frame.kind, &frame.payload, &mut out);
            // Short messages go together.
            while out.len() < TOGETHER_BYTES
                && encoded.is_ok()
                && let Ok(next) = frames.try_recv()
            {
                payload_bytes += next.payload.len();
                encoded = encoder.encode(next.kind, &next.payload, &mut out);
            }
            let written = encoded.and_then(|()| {
                let written = writer.write_all(&out).and_then(|()| writer.flush());
                written.map_err(|cause| Error::io("write to the line", cause))
            });
            let mut state = self.lock();
            state.traffic.sent_bytes += out.len() as u64;
            state.outgoing_bytes = state.outgoing_bytes.saturating_sub(payload_bytes);
            drop(state);
            match written {
                Ok(()) => self.ring(),
                Err(error) => {
                    // What the other end said before it went comes first.
                    std::thread::sleep(LAST_WORDS);
                    return self.end(error);
                }
            }
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Io, "the other end has closed the line")
        .advise("run it again; it goes on where it stopped")
}

const READ_BYTES: usize = 256 << 10;
const INCOMING_BYTES: usize = 8 << 20;
const OUTGOING_BYTES: usize = 4 << 20;
const TOGETHER_BYTES: usize = 64 << 10;
/// How often a cancel is looked for.
const NAP: Duration = Duration::from_millis(200);
const FINISH: Duration = Duration::from_secs(10);
const LAST_WORDS: Duration = Duration::from_millis(200);

//! A line: frames over any pair of a reader and a writer, each on a thread of its own.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use super::closer::Closer;
use super::connection_options::LineOptions;
use super::format::{FRAME_HEADER_LEN, kind};
use super::frame::{Frame, FrameDecoder, FrameEncoder};
use super::message::Message;
use super::throttle::Throttle;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::CancelToken;
use crate::sync::Traffic;
use crate::units::format_size;

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

/// Sees from elsewhere whether a line has ended.
#[derive(Clone)]
pub struct LineWatch(Arc<Shared>);

struct Shared {
    options: LineOptions,
    begun: Instant,
    state: Mutex<State>,
    bell: Condvar,
}

struct State {
    /// Counts what happened, so that no one who looked before it sleeps over it.
    rings: u64,
    incoming: VecDeque<Frame>,
    incoming_bytes: usize,
    /// When anything came.
    heard: Instant,
    /// When a message went or was taken that was no sign of life.
    busy: Instant,
    /// How long nothing but signs of life may come now.
    idle: Option<Duration>,
    /// Why no more comes.
    ended: Option<Error>,
    outgoing: VecDeque<Frame>,
    /// What waits to be sent, or is being sent.
    outgoing_bytes: usize,
    /// When something could be written, or began to wait for it.
    written: Instant,
    traffic: Traffic,
    /// Stops a sender that waits.
    cancel: CancelToken,
    /// Nothing more is sent; what waits still is.
    is_closing: bool,
    dropped: Option<Instant>,
    is_written: bool,
    is_read: bool,
}

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

    /// Has `cancel` stop whoever waits to send.
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
    pub fn try_receive(&self) -> Result<Option<Frame>> {
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

    /// Wakes whoever waits.
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

    /// Sees whether it has ended, whoever uses it meanwhile.
    pub fn watch(&self) -> LineWatch {
        LineWatch(self.shared.clone())
    }

    /// What went over it so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.lock().traffic
    }

    /// Writes all that was sent, and closes this direction; an end that does not read is not
    /// waited for for ever.
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

impl State {
    fn has_room(&self) -> bool {
        self.outgoing_bytes < OUTGOING_BYTES
    }
}

impl Shared {
    fn new(options: LineOptions) -> Self {
        let now = Instant::now();
        let idle = options.idle;
        Shared {
            options,
            begun: now,
            state: Mutex::new(State {
                rings: 0,
                incoming: VecDeque::new(),
                incoming_bytes: 0,
                heard: now,
                busy: now,
                idle,
                ended: None,
                outgoing: VecDeque::new(),
                outgoing_bytes: 0,
                written: now,
                traffic: Traffic::default(),
                cancel: CancelToken::new(),
                is_closing: false,
                dropped: None,
                is_written: false,
                is_read: false,
            }),
            bell: Condvar::new(),
        }
    }

    fn check_age(&self) -> Result<()> {
        match self.options.longest {
            Some(longest) if self.begun.elapsed() > longest => {
                let seconds = longest.as_secs_f64();
                let what = format!("this session took more than {seconds} s, all that it is given");
                Err(Error::new(ErrorKind::LimitExceeded, what)
                    .advise("run it again; it goes on where it stopped"))
            }
            _ => Ok(()),
        }
    }

    fn check_patience(&self, state: &State, what: &str) -> Result<()> {
        let peer = self.options.peer_name();
        if state.heard.elapsed() > self.options.silence {
            let seconds = self.options.silence.as_secs_f64();
            let mut text = format!("{peer} said nothing for {seconds} s while {what} was awaited");
            if state.outgoing_bytes > 0 && state.written.elapsed() > self.options.silence {
                let bytes = format_size(state.outgoing_bytes as u64);
                text += &format!(", and took none of the {bytes} that wait for it");
            }
            return Err(Error::new(ErrorKind::Io, text)
                .advise("run it again when the line is up; it goes on where it stopped"));
        }
        match state.idle {
            Some(idle) if state.busy.elapsed() > idle => {
                let seconds = idle.as_secs_f64();
                let text = format!(
                    "{peer} gave nothing but signs of life for {seconds} s while {what} was awaited"
                );
                Err(Error::new(ErrorKind::LimitExceeded, text))
            }
            _ => Ok(()),
        }
    }

    /// Whether the other end takes some of what waits for it, from time to time.
    fn check_taken(&self, state: &State) -> Result<()> {
        let late = |span: Duration| {
            let (peer, seconds) = (self.options.peer_name(), span.as_secs_f64());
            let bytes = format_size(state.outgoing_bytes as u64);
            format!("{peer} took too little of the {bytes} that wait for it in {seconds} s")
        };
        if state.written.elapsed() > self.options.silence {
            return Err(Error::new(ErrorKind::Io, late(self.options.silence))
                .advise("run it again when the line is up; it goes on where it stopped"));
        }
        match state.idle {
            Some(idle) if state.busy.elapsed() > idle => {
                Err(Error::new(ErrorKind::LimitExceeded, late(idle)))
            }
            _ => Ok(()),
        }
    }

    fn closed(&self) -> Error {
        let peer = self.options.peer_name();
        Error::new(ErrorKind::Io, format!("{peer} has closed the line"))
            .advise("run it again; it goes on where it stopped")
    }

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
        let limit = self.options.receiving.as_deref();
        let mut buf = vec![0; limit.map_or(READ_BYTES, Throttle::piece_bytes)];
        loop {
            let count = match reader.read(&mut buf) {
                Ok(0) => return self.end(self.closed()),
                Ok(count) => count,
                Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(cause) => return self.end(failed("read from the line", cause)),
            };
            if let Some(limit) = limit {
                limit.admit(count as u64);
            }
            // Before anybody sees what they say.
            let mut state = self.lock();
            state.traffic.received_bytes += count as u64;
            state.heard = Instant::now();
            match state.dropped {
                // What still comes is let go, so that the other end can take what it was sent.
                Some(since) if since.elapsed() > LINGER => return,
                _ => drop(state),
            }
            let mut bytes = buf.get(..count).unwrap_or_default();
            while !bytes.is_empty() {
                match decoder.decode(&mut bytes) {
                    Ok(Some(frame)) if frame.kind == kind::END => return self.end(self.closed()),
                    Ok(Some(frame)) => self.take(frame),
                    Ok(None) => {}
                    Err(error) => return self.end(error),
                }
            }
        }
    }

    /// Keeps a frame until it is asked for, once there is room for it.
    fn take(&self, frame: Frame) {
        if frame.kind == kind::ALIVE {
            return;
        }
        let mut state = self.lock();
        while state.incoming_bytes >= INCOMING_BYTES && state.dropped.is_none() {
            let waited = self.bell.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            // It was not silent: it was not listened to.
            state.heard = Instant::now();
        }
        if state.dropped.is_some() {
            return;
        }
        state.incoming_bytes += cost(&frame);
        state.incoming.push_back(frame);
        state.rings += 1;
        drop(state);
        self.bell.notify_all();
    }

    fn write(&self, mut writer: impl Write) {
        let mut encoder = FrameEncoder::default();
        let mut out = Vec::new();
        loop {
            let first = self.next_frame();
            let is_last = first.kind == kind::END;
            let mut bytes = if is_last { 0 } else { cost(&first) };
            out.clear();
            let mut encoded = encoder.encode(first.kind, &first.payload, &mut out);
            // TruncatedHash messages go together.
            while out.len() < TOGETHER_BYTES
                && encoded.is_ok()
                && let Some(next) = self.lock().outgoing.pop_front()
            {
                bytes += cost(&next);
                encoded = encoder.encode(next.kind, &next.payload, &mut out);
            }
            self.lock().traffic.sent_bytes += out.len() as u64;
            let written = encoded.and_then(|()| {
                let written = self.write_out(&mut writer, &out);
                written.map_err(|cause| failed("write to the line", cause))
            });
            let mut state = self.lock();
            state.outgoing_bytes = state.outgoing_bytes.saturating_sub(bytes);
            drop(state);
            match written {
                Ok(()) => self.ring(),
                Err(error) => {
                    // What the other end said before it went comes first.
                    std::thread::sleep(LAST_WORDS);
                    return self.end(error);
                }
            }
            if is_last {
                return;
            }
        }
    }

    /// The next frame to write: a sign of life where there is none for a time, the end where there
    /// will be none.
    fn next_frame(&self) -> Frame {
        let due = Instant::now() + self.options.sign();
        let mut state = self.lock();
        loop {
            if let Some(frame) = state.outgoing.pop_front() {
                return frame;
            }
            if state.is_closing {
                return empty(kind::END);
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // It counts for nothing: there is one at most.
                state.outgoing_bytes += cost(&empty(kind::ALIVE));
                return empty(kind::ALIVE);
            }
            let waited = self.bell.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn write_out(&self, writer: &mut impl Write, out: &[u8]) -> std::io::Result<()> {
        let limit = self.options.sending.as_deref();
        for piece in out.chunks(limit.map_or(PIECE_BYTES, Throttle::piece_bytes)) {
            if let Some(limit) = limit {
                limit.admit(piece.len() as u64);
            }
            writer.write_all(piece)?;
            self.lock().written = Instant::now();
        }
        writer.flush()
    }
}

/// What a frame takes in a queue, in bytes.
fn cost(frame: &Frame) -> usize {
    frame.payload.capacity() + FRAME_HEADER_LEN + FRAME_OVERHEAD
}

fn empty(kind: u8) -> Frame {
    Frame {
        kind,
        payload: Vec::new(),
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

/// What a stream failed with; one that knows more of its own says so.
fn failed(operation: &'static str, cause: std::io::Error) -> Error {
    match cause.downcast::<Error>() {
        Ok(error) => error,
        Err(cause) => Error::io(operation, cause),
    }
}

const READ_BYTES: usize = 256 << 10;
/// What is written at once, so that one that takes little is told from one that takes nothing.
const PIECE_BYTES: usize = 256 << 10;
/// What came and was not taken: more is not read, but for the frame at hand.
const INCOMING_BYTES: usize = 8 << 20;
/// What waits to be sent: more is not taken on, but for the frame at hand.
const OUTGOING_BYTES: usize = 4 << 20;
/// Beyond that the last that is said has room.
const LAST_WORDS_BYTES: usize = 1 << 20;
/// What a queued frame takes beside its payload: its place in a queue that grows by doubling, and
/// what allocating a payload costs.
const FRAME_OVERHEAD: usize = 128;
const TOGETHER_BYTES: usize = 64 << 10;
/// How often a cancel is looked for.
const NAP: Duration = Duration::from_millis(200);
const FINISH: Duration = Duration::from_secs(10);
/// How long the other end has to close a socket.
const CLOSING: Duration = Duration::from_millis(500);
const CLOSING_NAP: Duration = Duration::from_millis(50);
/// How long what still comes is taken off a line that was dropped.
const LINGER: Duration = Duration::from_secs(2);
const LAST_WORDS: Duration = Duration::from_millis(200);

//! A line: frames over any pair of a reader and a writer, each on a thread of its own.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::format::kind;
use super::frame::{Frame, FrameDecoder, FrameEncoder};
use super::line_options::LineOptions;
use super::message::Message;
use super::throttle::Throttle;
use crate::control::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::units::format_size;

/// The line to the other end.
///
/// Both directions go on while nobody looks, so two ends that send at the same time never wait for
/// each other. What has come and was not taken is at most 8 MiB; then the line is not read.
pub struct Line {
    shared: Arc<Shared>,
    outgoing: Option<Sender<Frame>>,
}

/// Sees from elsewhere whether a line has ended.
#[derive(Clone)]
pub struct LineWatch(Arc<Shared>);

/// What went over a line, framing counted, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// To the other end.
    pub sent_bytes: u64,
    /// From it.
    pub received_bytes: u64,
}

struct Shared {
    options: LineOptions,
    begun: Instant,
    state: Mutex<State>,
    bell: Condvar,
}

struct State {
    /// Counts what happened, so that nobody who looked before it sleeps over it.
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
    outgoing_bytes: usize,
    /// When something could be written.
    written: Instant,
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
        let shared = Arc::new(Shared::new(options));
        let (outgoing, frames) = channel();
        let reading = shared.clone();
        std::thread::spawn(move || reading.read(reader));
        let written = shared.clone();
        std::thread::spawn(move || {
            written.write(writer, &frames);
            written.lock().is_written = true;
            written.ring();
        });
        Line {
            shared,
            outgoing: Some(outgoing),
        }
    }

    /// Sends a message, some time.
    ///
    /// # Errors
    /// `Io` once the line is closed.
    pub fn send(&self, message: &Message) -> Result<()> {
        let frame = message.encode();
        let mut state = self.shared.lock();
        state.outgoing_bytes += frame.payload.len();
        state.busy = Instant::now();
        drop(state);
        let sent = self.outgoing.as_ref().map(|outgoing| outgoing.send(frame));
        match sent {
            Some(Ok(())) => Ok(()),
            // The other end may have said why.
            _ => match self.try_receive()? {
                Some(frame) if frame.kind == kind::FAIL => match Message::decode(&frame, 1)? {
                    Message::Fail(fault) => Err(fault.error()),
                    _ => Err(self.shared.closed()),
                },
                _ => Err(self.shared.closed()),
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
    /// `Io` where the line ended, `Malformed` where it is broken, once all before it is taken;
    /// `LimitExceeded` where it was used for too long.
    pub fn try_receive(&self) -> Result<Option<Frame>> {
        let mut state = self.shared.lock();
        self.shared.check_age()?;
        if let Some(frame) = state.incoming.pop_front() {
            state.incoming_bytes -= frame.payload.len();
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
    pub(super) fn set_idle(&self, idle: Option<Duration>) {
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
    /// `Cancelled`; `Io` where the other end was silent for too long, `LimitExceeded` where it
    /// showed nothing but signs of life for too long, or where the line was used for too long.
    pub fn wait(&self, rings: u64, what: &'static str, cancel: &CancelToken) -> Result<()> {
        let mut state = self.shared.lock();
        while state.rings == rings {
            cancel.check()?;
            if state.ended.is_none() && state.incoming.is_empty() {
                self.shared.check_age()?;
                self.shared.check_patience(&state, what)?;
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
    pub fn finish(mut self) {
        drop(self.outgoing.take());
        let mut state = self.shared.lock();
        state.written = Instant::now();
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
        self.shared.lock().is_dropped = true;
        self.shared.ring();
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
                outgoing_bytes: 0,
                written: now,
                traffic: Traffic::default(),
                is_dropped: false,
                is_written: false,
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
            self.lock().traffic.received_bytes += count as u64;
            let mut bytes = buf.get(..count).unwrap_or_default();
            while !bytes.is_empty() {
                match decoder.decode(&mut bytes) {
                    Ok(Some(frame)) => self.take(frame),
                    Ok(None) => {}
                    Err(error) => return self.end(error),
                }
            }
            let mut state = self.lock();
            state.heard = Instant::now();
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

    fn write(&self, mut writer: impl Write, frames: &Receiver<Frame>) {
        let sign = self.options.sign();
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
            self.lock().traffic.sent_bytes += out.len() as u64;
            let written = encoded.and_then(|()| {
                let written = self.write_out(&mut writer, &out);
                written.map_err(|cause| failed("write to the line", cause))
            });
            let mut state = self.lock();
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
const INCOMING_BYTES: usize = 8 << 20;
const OUTGOING_BYTES: usize = 4 << 20;
const TOGETHER_BYTES: usize = 64 << 10;
/// How often a cancel is looked for.
const NAP: Duration = Duration::from_millis(200);
const FINISH: Duration = Duration::from_secs(10);
const LAST_WORDS: Duration = Duration::from_millis(200);

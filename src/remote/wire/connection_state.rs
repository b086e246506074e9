//! The queues of a line, and how long what is in them may wait.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::connection_options::LineOptions;
use super::format::FRAME_HEADER_LEN;
use super::frame::WireFrame;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::CancelToken;
use crate::sync::Traffic;
use crate::units::format_size;

/// What the two ends of the queues and the threads share.
pub(super) struct Shared {
    pub(super) options: LineOptions,
    pub(super) begun: Instant,
    pub(super) state: Mutex<State>,
    pub(super) bell: Condvar,
}

/// The queues, and when something last happened on each.
pub(super) struct State {
    /// Counts what happened, so that no one who looked before it sleeps over it.
    pub(super) rings: u64,
    pub(super) incoming: VecDeque<WireFrame>,
    pub(super) incoming_bytes: usize,
    /// When anything came.
    pub(super) heard: Instant,
    /// When a message went or was taken that was no sign of life.
    pub(super) busy: Instant,
    /// How long nothing but signs of life may come now.
    pub(super) idle: Option<Duration>,
    /// Why no more comes.
    pub(super) ended: Option<Error>,
    pub(super) outgoing: VecDeque<WireFrame>,
    /// What waits to be sent, or is being sent.
    pub(super) outgoing_bytes: usize,
    /// When something could be written, or began to wait for it.
    pub(super) written: Instant,
    pub(super) traffic: Traffic,
    /// Stops a sender that waits.
    pub(super) cancel: CancelToken,
    /// Nothing more is sent; what waits still is.
    pub(super) is_closing: bool,
    pub(super) dropped: Option<Instant>,
    pub(super) is_written: bool,
    pub(super) is_read: bool,
}

impl State {
    pub(super) fn has_room(&self) -> bool {
        self.outgoing_bytes < OUTGOING_BYTES
    }
}

impl Shared {
    pub(super) fn new(options: LineOptions) -> Self {
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

    pub(super) fn check_age(&self) -> Result<()> {
        match self.options.longest {
            Some(longest) if self.begun.elapsed() > longest => {
                let seconds = longest.as_secs_f64();
                let what = format!("this session took more than {seconds} s, all that it is given");
                Err(Error::new(ErrorKind::LimitExceeded, what)
                    .advise("run it again; it continues where it stopped"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_patience(&self, state: &State, what: &str) -> Result<()> {
        let peer = self.options.peer_name();
        if state.heard.elapsed() > self.options.silence {
            let seconds = self.options.silence.as_secs_f64();
            let mut text = format!("{peer} said nothing for {seconds} s while {what} was awaited");
            if state.outgoing_bytes > 0 && state.written.elapsed() > self.options.silence {
                let bytes = format_size(state.outgoing_bytes as u64);
                text += &format!(", and took none of the {bytes} that wait for it");
            }
            return Err(Error::new(ErrorKind::Io, text)
                .advise("run it again when the line is up; it continues where it stopped"));
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
    pub(super) fn check_taken(&self, state: &State) -> Result<()> {
        let late = |span: Duration| {
            let (peer, seconds) = (self.options.peer_name(), span.as_secs_f64());
            let bytes = format_size(state.outgoing_bytes as u64);
            format!("{peer} took too little of the {bytes} that wait for it in {seconds} s")
        };
        if state.written.elapsed() > self.options.silence {
            return Err(Error::new(ErrorKind::Io, late(self.options.silence))
                .advise("run it again when the line is up; it continues where it stopped"));
        }
        match state.idle {
            Some(idle) if state.busy.elapsed() > idle => {
                Err(Error::new(ErrorKind::LimitExceeded, late(idle)))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn closed(&self) -> Error {
        let peer = self.options.peer_name();
        Error::new(ErrorKind::Io, format!("{peer} has closed the connection"))
            .advise("run it again; it continues where it stopped")
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ring(&self) {
        self.lock().rings += 1;
        self.bell.notify_all();
    }

    pub(super) fn end(&self, error: Error) {
        self.lock().ended.get_or_insert(error);
        self.ring();
    }
}

/// What a frame takes in a queue, in bytes.
pub(super) fn cost(frame: &WireFrame) -> usize {
    frame.payload.capacity() + FRAME_HEADER_LEN + FRAME_OVERHEAD
}

/// What waits to be sent: more is not taken on, but for the frame at hand.
pub(super) const OUTGOING_BYTES: usize = 4 << 20;
/// What a queued frame takes beside its payload: its place in a queue that grows by doubling, and
/// what allocating a payload costs.
const FRAME_OVERHEAD: usize = 128;

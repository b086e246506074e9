//! The two threads of a line: one reads frames into their queue, one writes them out of theirs.

use std::io::{Read, Write};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::connection_state::{Shared, cost};
use super::format::kind;
use super::frame::{FrameDecoder, FrameEncoder, WireFrame};
use super::throttle::Throttle;
use crate::error::Error;

impl Shared {
    pub(super) fn read(&self, mut reader: impl Read) {
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
    fn take(&self, frame: WireFrame) {
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

    pub(super) fn write(&self, mut writer: impl Write) {
        let mut encoder = FrameEncoder::default();
        let mut out = Vec::new();
        loop {
            let first = self.next_frame();
            let is_last = first.kind == kind::END;
            let mut bytes = if is_last { 0 } else { cost(&first) };
            out.clear();
            let mut encoded = encoder.encode(first.kind, &first.payload, &mut out);
            // Short messages go together.
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
    fn next_frame(&self) -> WireFrame {
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

fn empty(kind: u8) -> WireFrame {
    WireFrame {
        kind,
        payload: Vec::new(),
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
/// What is written at once, so that one that takes little differs from one that takes nothing.
const PIECE_BYTES: usize = 256 << 10;
/// What came and was not taken: more is not read, but for the frame at hand.
const INCOMING_BYTES: usize = 8 << 20;
const TOGETHER_BYTES: usize = 64 << 10;
/// How long what still comes is taken off a line that was dropped.
const LINGER: Duration = Duration::from_secs(2);
const LAST_WORDS: Duration = Duration::from_millis(200);

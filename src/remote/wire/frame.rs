//! Frames: the pieces that a stream of bytes is cut into.
//!
//! A frame's checksum also covers its number, which is not sent: a frame that is lost, comes twice
//! or in another place is a damaged one.

use super::codec::wrong;
use super::format::{FRAME_HEADER_LEN, PAYLOAD_MOST};
use crate::error::{Error, Result};

/// A kind and its payload, as they came; nothing is known of them but that no byte changed by
/// accident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireFrame {
    /// One of the kinds in docs/reference/protocol.md, or an unknown one.
    pub kind: u8,
    /// At most 2 MiB.
    pub payload: Vec<u8>,
}

/// Makes a stream of bytes of frames.
#[derive(Debug, Default)]
pub struct FrameEncoder {
    number: u64,
}

impl FrameEncoder {
    /// Appends a frame to `out`.
    ///
    /// # Errors
    /// `LimitExceeded` for a payload that no peer takes.
    pub fn encode(&mut self, kind: u8, payload: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let len = match u32::try_from(payload.len()) {
            Ok(len) if payload.len() <= PAYLOAD_MOST => len,
            _ => {
                let what = "a message too long for the line";
                return Err(Error::new(crate::ErrorKind::LimitExceeded, what));
            }
        };
        let head = head(kind, len);
        out.extend_from_slice(&head);
        out.extend_from_slice(&checksum(self.number, &head, payload).to_le_bytes());
        out.extend_from_slice(payload);
        self.number += 1;
        Ok(())
    }
}

/// Finds the frames in a stream of bytes that comes in pieces.
///
/// Holds at most the frame that is not complete; after an error nothing more is found.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    number: u64,
    held: Vec<u8>,
    is_broken: bool,
}

impl FrameDecoder {
    /// Takes as much of `bytes` as the frame at hand needs, leaves the rest there, and returns the
    /// frame if it is complete.
    ///
    /// # Errors
    /// `Malformed` for what is not a whole, undamaged frame in its place.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Result<Option<WireFrame>> {
        if self.is_broken {
            return Err(wrong("a damaged frame before"));
        }
        let frame = self.next(bytes);
        self.is_broken = frame.is_err();
        frame
    }

    /// Whether the line may end here: no frame is begun.
    pub fn is_between(&self) -> bool {
        self.held.is_empty()
    }

    fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<WireFrame>> {
        self.fill(bytes, FRAME_HEADER_LEN);
        let Some((header, _)) = self.held.split_first_chunk::<FRAME_HEADER_LEN>() else {
            return Ok(None);
        };
        let [kind, reserved, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        let payload_len = usize::try_from(len).unwrap_or(usize::MAX);
        if reserved != 0 || payload_len > PAYLOAD_MOST {
            return Err(wrong("something that is not a frame").advise(format!(
                "it begins with {:?}: a shell that prints when it starts, or a program that \
                     is not diskdelta",
                String::from_utf8_lossy(header)
            )));
        }
        self.fill(bytes, FRAME_HEADER_LEN + payload_len);
        if self.held.len() < FRAME_HEADER_LEN + payload_len {
            return Ok(None);
        }
        let payload = self.held.split_off(FRAME_HEADER_LEN);
        let expected = checksum(self.number, &head(kind, len), &payload);
        if u32::from_le_bytes([c0, c1, c2, c3]) != expected {
            return Err(wrong("a frame that is damaged, or not the next one"));
        }
        self.held.clear();
        self.number += 1;
        Ok(Some(WireFrame { kind, payload }))
    }

    /// Moves bytes over until `len` are held.
    fn fill(&mut self, bytes: &mut &[u8], len: usize) {
        let missing = len.saturating_sub(self.held.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(missing);
        self.held.extend_from_slice(taken);
        *bytes = rest;
    }
}

fn head(kind: u8, len: u32) -> [u8; 6] {
    let [l0, l1, l2, l3] = len.to_le_bytes();
    [kind, 0, l0, l1, l2, l3]
}

fn checksum(number: u64, head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

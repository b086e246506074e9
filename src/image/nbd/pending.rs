//! A request whose reply is still to come, or comes in parts.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::time::Instant;

use super::format::*;
use super::handshake::{Contexts, ExportInfo};
use super::reply::{Chunk, array, bytes, complaint, nonsense};
use crate::error::{Error, ErrorKind, Result};

/// What is asked of an export. Ranges begin and end with blocks of the server, or with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Bytes of the disk.
    Read { offset: u64, len: u32 },
    /// What is known of a stretch.
    Status { offset: u64, len: u32 },
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Bytes(Vec<u8>),
    Status(Status),
}

/// What a server says of a stretch of its disk; each list begins where it was asked from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Stretches that read as zeros, or hold data; empty where the server tells nothing of it.
    pub zero: Vec<Run>,
    /// Stretches that were written, or not; empty where no bitmap was asked for.
    pub dirty: Vec<Run>,
}

/// A number of bytes, of which something holds or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How many bytes; not 0.
    pub len: u64,
    /// Whether it holds.
    pub holds: bool,
}

impl Request {
    /// The message that asks.
    pub(super) fn message(self, cookie: u64) -> Vec<u8> {
        let (command, offset, len) = match self {
            Request::Read { offset, len } => (CMD_READ, offset, len),
            Request::Status { offset, len } => (CMD_BLOCK_STATUS, offset, len),
        };
        message(command, cookie, offset, len)
    }

    /// Whether the server has to take it.
    ///
    /// # Errors
    /// `InvalidInput` for a range that is not aligned, too long or beyond the disk.
    pub(super) fn check(self, info: &ExportInfo) -> Result<()> {
        let (offset, len, most) = match self {
            Request::Read { offset, len } => (offset, len, info.max_payload),
            Request::Status { offset, len } => (offset, len, u32::MAX),
        };
        let block = u64::from(info.min_block);
        let is_end =
            |end: u64| end == info.disk_len || (end < info.disk_len && end.is_multiple_of(block));
        let end = offset.checked_add(u64::from(len));
        let fits = len > 0 && len <= most && offset.is_multiple_of(block);
        match fits && end.is_some_and(is_end) {
            true => Ok(()),
            false => {
                let text = "a request that the NBD server does not have to take";
                Err(Error::new(ErrorKind::InvalidInput, text).at_offset(offset))
            }
        }
    }
}

/// The last message of a client.
pub(super) fn goodbye() -> Vec<u8> {
    message(CMD_DISC, 0, 0, 0)
}

fn message(command: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut request = REQUEST.to_be_bytes().to_vec();
    request.extend(0u16.to_be_bytes());
    request.extend(command.to_be_bytes());
    request.extend(cookie.to_be_bytes());
    request.extend(offset.to_be_bytes());
    request.extend(len.to_be_bytes());
    request
}

/// A request that was made, and what has come of its reply.
#[derive(Debug)]
pub(super) struct Pending {
    /// When it was made.
    pub asked: Instant,
    reply: Reply,
    /// What the server says went wrong.
    failed: Option<Error>,
}

#[derive(Debug)]
enum Reply {
    Bytes {
        offset: u64,
        buf: Vec<u8>,
        filled: Filled,
    },
    Status {
        offset: u64,
        status: Status,
    },
}

impl Pending {
    /// Nothing has come yet.
    pub(super) fn new(request: Request) -> Self {
        let reply = match request {
            Request::Read { offset, len } => Reply::Bytes {
                offset,
                buf: vec![0; len as usize],
                filled: Filled::default(),
            },
            Request::Status { offset, .. } => Reply::Status {
                offset,
                status: Status::default(),
            },
        };
        Pending {
            asked: Instant::now(),
            reply,
            failed: None,
        }
    }

    /// Takes the payload of a chunk from the stream.
    ///
    /// # Errors
    /// `Malformed` for a chunk that does not answer the request, `Io`: how much of the reply is
    /// still to come is not known then.
    pub(super) fn take<S: Read>(
        &mut self,
        chunk: Chunk,
        stream: &mut S,
        (info, contexts): (&ExportInfo, &Contexts),
    ) -> Result<()> {
        match (&mut self.reply, chunk.kind) {
            (_, CHUNK_NONE) if chunk.len == 0 && chunk.is_last => Ok(()),
            (_, kind) if kind & CHUNK_ERROR != 0 => {
                let said = complaint(stream, chunk)?;
                self.failed.get_or_insert(said);
                Ok(())
            }
            (
                Reply::Bytes {
                    offset,
                    buf,
                    filled,
                },
                CHUNK_OFFSET_DATA,
            ) => {
                let len = chunk.len.checked_sub(8).ok_or_else(|| wrong("data"))?;
                let at = u64::from_be_bytes(array(stream)?);
                let range = inside(buf.len(), *offset, at, len)?;
                filled.add(range.clone())?;
                let part = buf.get_mut(range).ok_or_else(|| wrong("data"))?;
                stream.read_exact(part).map_err(super::reply::failed)
            }
            (
                Reply::Bytes {
                    offset,
                    buf,
                    filled,
                },
                CHUNK_OFFSET_HOLE,
            ) if chunk.len == 12 => {
                let at = u64::from_be_bytes(array(stream)?);
                let len = u32::from_be_bytes(array(stream)?);
                // The buffer was made of zeros, and no byte of it comes twice.
                filled.add(inside(buf.len(), *offset, at, len)?)
            }
            (Reply::Status { offset, status }, CHUNK_BLOCK_STATUS) => {
                context(chunk, stream, *offset, status, (info, contexts))
            }
            _ => Err(nonsense("sends a chunk that answers nothing")),
        }
    }

    /// The whole reply.
    ///
    /// # Errors
    /// What the server says went wrong; `Malformed` where a part is missing.
    pub(super) fn finish(self, contexts: &Contexts) -> Result<Answer> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.reply {
            Reply::Bytes { buf, filled, .. } if filled.bytes == buf.len() => Ok(Answer::Bytes(buf)),
            Reply::Bytes { .. } => Err(nonsense("leaves out bytes that were asked for")),
            Reply::Status { status, .. } => {
                let missing = contexts.allocation.is_some() && status.zero.is_empty()
                    || contexts.bitmap.is_some() && status.dirty.is_empty();
                match missing {
                    true => Err(nonsense("leaves out a context that was agreed on")),
                    false => Ok(Answer::Status(status)),
                }
            }
        }
    }
}

fn context<S: Read>(
    chunk: Chunk,
    stream: &mut S,
    start: u64,
    status: &mut Status,
    (info, contexts): (&ExportInfo, &Contexts),
) -> Result<()> {
    let payload = chunk.len.checked_sub(4);
    let fits = |len: &u32| *len > 0 && *len <= STATUS_MAX && len.is_multiple_of(8);
    let len = payload.filter(fits).ok_or_else(|| wrong("a status"))?;
    let id = u32::from_be_bytes(array(stream)?);
    let payload = bytes(stream, len as usize)?;
    let (list, flag) = match Some(id) {
        id if id == contexts.allocation => (&mut status.zero, STATE_ZERO),
        id if id == contexts.bitmap => (&mut status.dirty, STATE_DIRTY),
        _ => return Err(nonsense("tells of a context that was not agreed on")),
    };
    if !list.is_empty() {
        return Err(nonsense("tells of a context twice"));
    }
    *list = runs(&payload, flag, start, info)?;
    Ok(())
}

/// Reads a list of lengths and flags; neighbours that are alike become one.
fn runs(payload: &[u8], flag: u32, start: u64, info: &ExportInfo) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    let mut at = start;
    for entry in payload.chunks_exact(8) {
        let number = |half: &[u8]| half.try_into().map_or(0, u32::from_be_bytes);
        let (len, flags) = entry.split_at(4);
        let (len, holds) = (u64::from(number(len)), number(flags) & flag != 0);
        if at == info.disk_len {
            return Err(wrong("a status"));
        }
        // No overflow: disk lengths are below 2^63, lengths of entries below 2^32. The last entry
        // may reach beyond what was asked for, and beyond the disk.
        let end = (at + len).min(info.disk_len);
        let aligned = end == info.disk_len || end.is_multiple_of(u64::from(info.min_block));
        if len == 0 || !aligned {
            return Err(wrong("a status"));
        }
        let len = end - at;
        match runs.last_mut() {
            Some(last) if last.holds == holds => last.len += len,
            _ => runs.push(Run { len, holds }),
        }
        at = end;
    }
    Ok(runs)
}

/// Which parts of a buffer were sent; none may come twice.
#[derive(Debug, Default)]
struct Filled {
    parts: BTreeMap<usize, usize>,
    bytes: usize,
}

impl Filled {
    fn add(&mut self, range: Range<usize>) -> Result<()> {
        let before = self.parts.range(..range.end).next_back();
        if before.is_some_and(|(_, end)| *end > range.start) {
            return Err(nonsense("sends bytes twice"));
        }
        self.bytes += range.len();
        self.parts.insert(range.start, range.end);
        Ok(())
    }
}

/// The part of a buffer that begins at `offset` of the disk which a chunk for `at` fills.
fn inside(buf: usize, offset: u64, at: u64, len: u32) -> Result<Range<usize>> {
    let start = at
        .checked_sub(offset)
        .and_then(|it| usize::try_from(it).ok());
    let range = start.and_then(|start| Some(start..start.checked_add(len as usize)?));
    range
        .filter(|range| !range.is_empty() && range.end <= buf)
        .ok_or_else(|| nonsense("sends bytes that were not asked for"))
}

fn wrong(what: &str) -> Error {
    nonsense(&format!("sends {what} of an impossible length"))
}

/// A little more than any server sends; QEMU stops at 1 MiB.
const STATUS_MAX: u32 = 4 << 20;

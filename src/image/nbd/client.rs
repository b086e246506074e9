//! One connection to an export.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::ops::Range;

use super::format::*;
use super::handshake::{Contexts, ExportInfo, shake};
use super::reply::{Chunk, array, bytes, complaint, failed, next_chunk, nonsense};
use crate::error::{Error, ErrorKind, Result};

/// One connection: one request at a time. After an error it must be dropped, as it is not known how
/// much of the reply is still to come.
pub struct Client<S> {
    stream: S,
    info: ExportInfo,
    contexts: Contexts,
    cookie: u64,
}

opaque!(Client<S>);

/// What a server says of a stretch of its disk; each list begins where it was asked from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Stretches that read as zeros, or hold data; empty where the server tells nothing of it.
    pub zero: Vec<Run>,
    /// Stretches that were written, or not; empty where no bitmap was asked for.
    pub dirty: Vec<Run>,
}

/// A number of bytes, and what holds for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How many bytes; not 0.
    pub len: u64,
    /// Whether it holds.
    pub holds: bool,
}

impl<S: Read + Write> Client<S> {
    /// Makes the handshake for an export, and for a bitmap of it where one is named.
    ///
    /// # Errors
    /// `NotFound` for an unknown export or bitmap; `Unsupported` for a server without structured
    /// replies; `Malformed` for nonsense; `Io`.
    pub fn new(mut stream: S, export: &str, bitmap: Option<&str>) -> Result<Self> {
        let (info, contexts) = shake(&mut stream, export, bitmap)?;
        Ok(Client {
            stream,
            info,
            contexts,
            cookie: 0,
        })
    }

    /// What the export is.
    pub fn info(&self) -> ExportInfo {
        self.info
    }

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// `InvalidInput` for a range that is not aligned, too long or beyond the disk; `Malformed`;
    /// `Io`.
    pub fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<()> {
        let len = u32::try_from(buf.len()).ok();
        let len = len.filter(|len| *len <= self.info.max_payload);
        let len = self.fitting(offset, len)?;
        let cookie = self.ask(CMD_READ, offset, len)?;
        let mut filled = Filled::default();
        loop {
            let chunk = next_chunk(&mut self.stream, cookie)?;
            match chunk.kind {
                CHUNK_OFFSET_DATA => {
                    let len = chunk.len.checked_sub(8).ok_or_else(|| wrong("data"))?;
                    let range = self.chunk_range(buf.len(), offset, len)?;
                    filled.add(range.clone())?;
                    let part = buf.get_mut(range).ok_or_else(|| wrong("data"))?;
                    self.stream.read_exact(part).map_err(failed)?;
                }
                CHUNK_OFFSET_HOLE if chunk.len == 12 => {
                    let at: [u8; 8] = array(&mut self.stream)?;
                    let len = u32::from_be_bytes(array(&mut self.stream)?);
                    let range = inside(buf.len(), offset, u64::from_be_bytes(at), len)?;
                    filled.add(range.clone())?;
                    buf.get_mut(range).ok_or_else(|| wrong("a hole"))?.fill(0);
                }
                _ => self.other(chunk)?,
            }
            if chunk.is_last {
                break;
            }
        }
        match filled.bytes == buf.len() {
            true => Ok(()),
            false => Err(nonsense("leaves out bytes that were asked for")),
        }
    }

    /// Asks for the status of a stretch. Each list covers its beginning at least, and at most a
    /// little more than the stretch, never more than the disk.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn status(&mut self, range: Range<u64>) -> Result<Status> {
        let len = u32::try_from(range.end.saturating_sub(range.start)).ok();
        let len = self.fitting(range.start, len)?;
        if self.contexts == Contexts::default() {
            return Ok(Status::default());
        }
        let cookie = self.ask(CMD_BLOCK_STATUS, range.start, len)?;
        let mut status = Status::default();
        loop {
            let chunk = next_chunk(&mut self.stream, cookie)?;
            match chunk.kind {
                CHUNK_BLOCK_STATUS => self.context(chunk, range.start, &mut status)?,
                _ => self.other(chunk)?,
            }
            if chunk.is_last {
                break;
            }
        }
        let Contexts { allocation, bitmap } = self.contexts;
        let missing = allocation.is_some() && status.zero.is_empty()
            || bitmap.is_some() && status.dirty.is_empty();
        match missing {
            true => Err(nonsense("leaves out a context that was agreed on")),
            false => Ok(status),
        }
    }

    /// Says goodbye; no answer comes.
    pub fn disconnect(mut self) {
        // Who leaves does not care whether he is heard.
        let _ = self.ask(CMD_DISC, 0, 0);
    }

    fn ask(&mut self, command: u16, offset: u64, len: u32) -> Result<u64> {
        self.cookie = self.cookie.wrapping_add(1);
        let mut request = REQUEST.to_be_bytes().to_vec();
        request.extend(0u16.to_be_bytes());
        request.extend(command.to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(len.to_be_bytes());
        self.stream.write_all(&request).map_err(failed)?;
        Ok(self.cookie)
    }

    /// A request's length, if the server has to take the request.
    fn fitting(&self, offset: u64, len: Option<u32>) -> Result<u32> {
        let block = u64::from(self.info.min_block);
        len.filter(|len| {
            let end = offset.checked_add(u64::from(*len));
            let ends = |end: u64| {
                end == self.info.disk_len || (end < self.info.disk_len && end.is_multiple_of(block))
            };
            *len > 0 && offset.is_multiple_of(block) && end.is_some_and(ends)
        })
        .ok_or_else(|| {
            let text = "a request that the NBD server does not have to take";
            Error::new(ErrorKind::InvalidInput, text).at_offset(offset)
        })
    }

    /// Where in the buffer a chunk of data belongs.
    fn chunk_range(&mut self, buf: usize, offset: u64, len: u32) -> Result<Range<usize>> {
        let at: [u8; 8] = array(&mut self.stream)?;
        inside(buf, offset, u64::from_be_bytes(at), len)
    }

    /// A chunk that carries nothing of what was asked for.
    fn other(&mut self, chunk: Chunk) -> Result<()> {
        match chunk.kind {
            CHUNK_NONE if chunk.len == 0 && chunk.is_last => Ok(()),
            kind if kind & CHUNK_ERROR != 0 => Err(complaint(&mut self.stream, chunk)?),
            _ => Err(nonsense("sends a chunk that answers nothing")),
        }
    }

    fn context(&mut self, chunk: Chunk, start: u64, status: &mut Status) -> Result<()> {
        let payload = chunk.len.checked_sub(4);
        let fits = |len: &u32| *len > 0 && *len <= STATUS_MAX && len.is_multiple_of(8);
        let len = payload.filter(fits).ok_or_else(|| wrong("a status"))?;
        let id = u32::from_be_bytes(array(&mut self.stream)?);
        let payload = bytes(&mut self.stream, len as usize)?;
        let (list, flag) = match Some(id) {
            id if id == self.contexts.allocation => (&mut status.zero, STATE_ZERO),
            id if id == self.contexts.bitmap => (&mut status.dirty, STATE_DIRTY),
            _ => return Err(nonsense("tells of a context that was not agreed on")),
        };
        if !list.is_empty() {
            return Err(nonsense("tells of a context twice"));
        }
        *list = runs(&payload, flag, start, self.info)?;
        Ok(())
    }
}

/// Reads a list of lengths and flags; neighbours that are alike become one.
fn runs(payload: &[u8], flag: u32, start: u64, info: ExportInfo) -> Result<Vec<Run>> {
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
#[derive(Default)]
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

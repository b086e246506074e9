//! The handshake: finds the export, and agrees on structured replies and meta contexts.

use std::io::{Read, Write};

use super::format::*;
use super::reply::{array, bytes, failed, nonsense};
use crate::error::{Error, ErrorKind, Result};
use crate::location::NAME_MAX;

/// What a server says of its export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportInfo {
    /// Length of the disk.
    pub disk_len: u64,
    /// Requests begin and end on multiples of it, or end with the disk.
    pub min_block: u32,
    /// No request may be for more bytes.
    pub max_payload: u32,
    /// Several connections see the same.
    pub multi_conn: bool,
}

/// The numbers that a server gave to the contexts of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Contexts {
    pub allocation: Option<u32>,
    pub bitmap: Option<u32>,
}

/// Exchanges the first words with a server.
///
/// # Errors
/// `Unsupported` for one that is too old; `Malformed` for nonsense; `Io`.
pub(super) fn greet<S: Read + Write>(stream: &mut S) -> Result<()> {
    let [first, second] = [u64_of(stream)?, u64_of(stream)?];
    if (first, second) != (NBDMAGIC, IHAVEOPT) {
        return Err(nonsense("does not begin as an NBD server does"));
    }
    let flags = u16::from_be_bytes(array(stream)?);
    if flags & FLAG_FIXED_NEWSTYLE == 0 {
        let text = "the NBD server is too old: it has no fixed newstyle handshake";
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    let flags = u32::from(flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES));
    say(stream, &flags.to_be_bytes())
}

/// Agrees on TLS, which begins with the next byte.
///
/// # Errors
/// `Unsupported` for a server without TLS; `Malformed`, `Io`.
pub(super) fn start_tls<S: Read + Write>(stream: &mut S) -> Result<()> {
    ask(stream, OPT_STARTTLS, &[])?;
    let reply = answer(stream, OPT_STARTTLS)?;
    match reply.kind {
        REP_ACK => Ok(()),
        REP_ERR_UNSUPPORTED | REP_ERR_POLICY => {
            let text = "the NBD server does not offer TLS";
            Err(Error::new(ErrorKind::Unsupported, text)
                .advise("nothing was asked of it in the clear; nbd:// connects without TLS"))
        }
        _ => Err(reply.refusal("TLS")),
    }
}

/// Finds the export; the stream is ready for requests when this returns.
///
/// # Errors
/// `NotFound` for an unknown export or bitmap; `Unsupported` for a server without structured
/// replies; `Malformed` for nonsense; `Io`.
pub(super) fn agree<S: Read + Write>(
    stream: &mut S,
    export: &str,
    bitmap: Option<&str>,
) -> Result<(ExportInfo, Contexts)> {
    if export.len() > NAME_MAX || bitmap.is_some_and(|name| name.len() > NAME_MAX) {
        let text = "a name of more than 4096 bytes";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    structured(stream)?;
    let contexts = contexts(stream, export, bitmap)?;
    Ok((go(stream, export)?, contexts))
}

fn structured<S: Read + Write>(stream: &mut S) -> Result<()> {
    ask(stream, OPT_STRUCTURED_REPLY, &[])?;
    let reply = answer(stream, OPT_STRUCTURED_REPLY)?;
    match reply.kind {
        REP_ACK => Ok(()),
        REP_ERR_UNSUPPORTED => {
            let text = "the NBD server has no structured replies";
            Err(Error::new(ErrorKind::Unsupported, text))
        }
        _ => Err(reply.refusal("structured replies")),
    }
}

fn contexts<S: Read + Write>(
    stream: &mut S,
    export: &str,
    bitmap: Option<&str>,
) -> Result<Contexts> {
    let bitmap = bitmap.map(|name| format!("{CONTEXT_BITMAP}{name}"));
    let queries: Vec<&str> = [Some(CONTEXT_ALLOCATION), bitmap.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    let mut payload = named(export);
    payload.extend((queries.len() as u32).to_be_bytes());
    for query in queries {
        payload.extend(named(query));
    }
    ask(stream, OPT_SET_META_CONTEXT, &payload)?;
    let mut contexts = Contexts::default();
    for _ in 0..REPLIES_MAX {
        let reply = answer(stream, OPT_SET_META_CONTEXT)?;
        match reply.kind {
            REP_META_CONTEXT => {
                let (id, name) = reply.payload.split_first_chunk::<4>().ok_or_else(cut)?;
                let id = u32::from_be_bytes(*id);
                let slot = match name {
                    name if name == CONTEXT_ALLOCATION.as_bytes() => &mut contexts.allocation,
                    name if Some(name) == bitmap.as_ref().map(String::as_bytes) => {
                        &mut contexts.bitmap
                    }
                    _ => return Err(nonsense("names a context that it was not asked for")),
                };
                if slot.replace(id).is_some() {
                    return Err(nonsense("names a context twice"));
                }
            }
            REP_ACK => return agreed(contexts, bitmap.as_deref()),
            // Nothing is known then of zeros; a bitmap is a must.
            REP_ERR_UNSUPPORTED if bitmap.is_none() => return Ok(Contexts::default()),
            REP_ERR_UNKNOWN => return Err(unknown(export)),
            _ => return Err(reply.refusal("meta contexts")),
        }
    }
    Err(nonsense("names contexts without end"))
}

fn agreed(contexts: Contexts, bitmap: Option<&str>) -> Result<Contexts> {
    match (contexts, bitmap) {
        (Contexts { bitmap: None, .. }, Some(name)) => {
            let text = format!("the NBD server has no `{name}`");
            Err(Error::new(ErrorKind::NotFound, text))
        }
        (
            Contexts {
                allocation: Some(one),
                bitmap: Some(other),
            },
            _,
        ) if one == other => Err(nonsense("gives two contexts one number")),
        _ => Ok(contexts),
    }
}

fn go<S: Read + Write>(stream: &mut S, export: &str) -> Result<ExportInfo> {
    let mut payload = named(export);
    payload.extend(1u16.to_be_bytes());
    payload.extend(INFO_BLOCK_SIZE.to_be_bytes());
    ask(stream, OPT_GO, &payload)?;
    let mut found: Option<(u64, u16)> = None;
    let mut blocks = (1, MAX_PAYLOAD);
    for _ in 0..REPLIES_MAX {
        let reply = answer(stream, OPT_GO)?;
        match reply.kind {
            REP_INFO => {
                let (kind, rest) = reply.payload.split_first_chunk::<2>().ok_or_else(cut)?;
                match u16::from_be_bytes(*kind) {
                    INFO_EXPORT => found = Some(export_info(rest)?),
                    INFO_BLOCK_SIZE => blocks = block_sizes(rest)?,
                    _ => {}
                }
            }
            REP_ACK => {
                let (disk_len, flags) = found.ok_or_else(cut)?;
                return Ok(ExportInfo {
                    disk_len,
                    min_block: blocks.0,
                    max_payload: blocks.1,
                    multi_conn: flags & EXPORT_CAN_MULTI_CONN != 0,
                });
            }
            REP_ERR_UNKNOWN => return Err(unknown(export)),
            _ => return Err(reply.refusal("the export")),
        }
    }
    Err(nonsense("tells of its export without end"))
}

fn export_info(payload: &[u8]) -> Result<(u64, u16)> {
    let (size, flags) = payload.split_first_chunk::<8>().ok_or_else(cut)?;
    let flags = flags.first_chunk::<2>().ok_or_else(cut)?;
    let (size, flags) = (u64::from_be_bytes(*size), u16::from_be_bytes(*flags));
    if i64::try_from(size).is_err() || flags & EXPORT_HAS_FLAGS == 0 {
        return Err(nonsense("says impossible things of its export"));
    }
    Ok((size, flags))
}

/// Smallest block and longest request.
fn block_sizes(payload: &[u8]) -> Result<(u32, u32)> {
    let (min, rest) = payload.split_first_chunk::<4>().ok_or_else(cut)?;
    let max = rest.last_chunk::<4>().ok_or_else(cut)?;
    let (min, max) = (u32::from_be_bytes(*min), u32::from_be_bytes(*max));
    if rest.len() != 8 || !min.is_power_of_two() || min > MIN_BLOCK_MAX || max < MIN_BLOCK_MAX {
        return Err(nonsense("states impossible block sizes"));
    }
    let max = max.min(MAX_PAYLOAD);
    Ok((min, max - max % min))
}

/// A reply to an option.
struct Reply {
    kind: u32,
    payload: Vec<u8>,
}

impl Reply {
    fn refusal(&self, what: &str) -> Error {
        if self.kind & REP_ERROR == 0 {
            return nonsense("answers an option with something else");
        }
        if self.kind == REP_ERR_TLS_REQD {
            let text = "the NBD server accepts no connection without TLS";
            return Error::new(ErrorKind::Unsupported, text)
                .advise("write nbds:// instead of nbd://");
        }
        let said = String::from_utf8_lossy(&self.payload);
        let said: String = said.chars().take(200).collect();
        let code = self.kind & !REP_ERROR;
        let text = format!("the NBD server refuses {what}, error {code}: {said}");
        Error::new(ErrorKind::Io, text)
    }
}

fn ask<S: Write>(stream: &mut S, option: u32, payload: &[u8]) -> Result<()> {
    let mut message = IHAVEOPT.to_be_bytes().to_vec();
    message.extend(option.to_be_bytes());
    // A name or two of at most 4096 bytes each.
    message.extend((payload.len() as u32).to_be_bytes());
    message.extend(payload);
    say(stream, &message)
}

fn answer<S: Read>(stream: &mut S, option: u32) -> Result<Reply> {
    if u64_of(stream)? != OPTION_REPLY || u32::from_be_bytes(array(stream)?) != option {
        return Err(nonsense("answers something other than an option"));
    }
    let kind = u32::from_be_bytes(array(stream)?);
    let len = u32::from_be_bytes(array(stream)?);
    if len > REPLY_MAX {
        return Err(nonsense("answers an option at too great length"));
    }
    let payload = bytes(stream, len as usize)?;
    Ok(Reply { kind, payload })
}

fn named(name: &str) -> Vec<u8> {
    // At most 4096 and a prefix.
    let mut out = (name.len() as u32).to_be_bytes().to_vec();
    out.extend(name.as_bytes());
    out
}

fn say<S: Write>(stream: &mut S, message: &[u8]) -> Result<()> {
    stream.write_all(message).map_err(failed)
}

fn u64_of<S: Read>(stream: &mut S) -> Result<u64> {
    Ok(u64::from_be_bytes(array(stream)?))
}

fn unknown(export: &str) -> Error {
    let text = format!("the NBD server has no export `{export}`");
    Error::new(ErrorKind::NotFound, text)
}

fn cut() -> Error {
    nonsense("leaves out a part of its answer")
}

const REPLIES_MAX: usize = 256;
const REPLY_MAX: u32 = 64 << 10;
const MIN_BLOCK_MAX: u32 = 64 << 10;
/// What every server has to take where it states nothing, and more than is ever asked for.
const MAX_PAYLOAD: u32 = 32 << 20;

//! The chunks of a structured reply.

use std::io::{self, Read};

use super::format::*;
use super::socket::cancelled;
use crate::error::{Error, ErrorKind, Result};

/// The head of a chunk; its payload is still in the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    /// The request that it answers.
    pub cookie: u64,
    pub is_last: bool,
    pub kind: u16,
    pub len: u32,
}

/// The head of the next chunk of any reply.
///
/// # Errors
/// `Malformed`, `Io`.
pub(super) fn next_chunk<S: Read>(stream: &mut S) -> Result<Chunk> {
    match u32::from_be_bytes(array(stream)?) {
        STRUCTURED_REPLY => {}
        SIMPLE_REPLY => return Err(nonsense("sends a simple reply after all")),
        _ => return Err(nonsense("sends something that is no reply")),
    }
    let flags = u16::from_be_bytes(array(stream)?);
    let kind = u16::from_be_bytes(array(stream)?);
    let cookie = u64::from_be_bytes(array(stream)?);
    let len = u32::from_be_bytes(array(stream)?);
    Ok(Chunk {
        cookie,
        is_last: flags & CHUNK_DONE != 0,
        kind,
        len,
    })
}

/// What a chunk says went wrong.
///
/// # Errors
/// `Malformed` where it makes no sense; `Io`.
pub(super) fn complaint<S: Read>(stream: &mut S, chunk: Chunk) -> Result<Error> {
    if !(6..=ERROR_MAX).contains(&chunk.len) {
        return Err(nonsense("complains at an impossible length"));
    }
    let payload = bytes(stream, chunk.len as usize)?;
    let errno = payload
        .first_chunk()
        .map_or(0, |it| u32::from_be_bytes(*it));
    let len = payload.get(4..6).and_then(|it| it.try_into().ok());
    let len = len.map_or(0, |it| usize::from(u16::from_be_bytes(it)));
    let Some(said) = payload.get(6..6 + len) else {
        return Err(nonsense("complains at an impossible length"));
    };
    let said: String = String::from_utf8_lossy(said).chars().take(200).collect();
    let text = format!("the NBD server reports error {errno}: {said}");
    Ok(Error::new(ErrorKind::Io, text))
}

/// Fills an array from the stream.
///
/// # Errors
/// `Io`.
pub(super) fn array<S: Read, const N: usize>(stream: &mut S) -> Result<[u8; N]> {
    let mut array = [0; N];
    stream.read_exact(&mut array).map_err(failed)?;
    Ok(array)
}

/// As many bytes; the caller has bounded them.
///
/// # Errors
/// `Io`.
pub(super) fn bytes<S: Read>(stream: &mut S, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The error of a line that broke.
pub(super) fn failed(cause: io::Error) -> Error {
    let cause = match cancelled(cause) {
        Ok(error) => return error,
        Err(cause) => cause,
    };
    let what = match cause.kind() {
        io::ErrorKind::UnexpectedEof => "the NBD server has ended the connection",
        io::ErrorKind::TimedOut => "the NBD server does not answer in time",
        _ => "the connection to the NBD server is broken",
    };
    Error::new(ErrorKind::Io, what).caused_by(cause)
}

/// The error of a server that breaks the protocol.
pub(super) fn nonsense(what: &str) -> Error {
    Error::malformed(format!("the NBD server {what}"))
}

const ERROR_MAX: u32 = 8 << 10;

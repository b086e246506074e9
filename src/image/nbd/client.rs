//! A client without threads, for tests of what a server may send.

use std::io::{Read, Write};
use std::ops::Range;
use std::sync::mpsc::sync_channel;

use super::handshake::{ExportInfo, agree, greet};
use super::pending::{Answer, Request, Status};
use super::replies::Replies;
use super::reply::failed;
use crate::error::Result;

/// One connection: one request at a time. After an error it must be dropped.
pub struct Client<S> {
    stream: S,
    replies: Replies,
}

opaque!(Client<S>);

impl<S: Read + Write> Client<S> {
    /// Makes the handshake for an export, and for a bitmap of it where one is named.
    ///
    /// # Errors
    /// `NotFound` for an unknown export or bitmap; `Unsupported` for a server without structured
    /// replies; `Malformed` for nonsense; `Io`.
    pub fn new(mut stream: S, export: &str, bitmap: Option<&str>) -> Result<Self> {
        greet(&mut stream)?;
        let (info, contexts) = agree(&mut stream, export, bitmap)?;
        let replies = Replies::new(info, contexts);
        Ok(Client { stream, replies })
    }

    /// What the export is.
    pub fn info(&self) -> ExportInfo {
        *self.replies.info()
    }

    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// `InvalidInput` for a range that is not aligned, too long or beyond the disk; `Malformed`;
    /// `Io`.
    pub fn read(&mut self, buf: &mut [u8], offset: u64) -> Result<()> {
        let len = u32::try_from(buf.len()).unwrap_or(u32::MAX);
        if let Answer::Bytes(bytes) = self.call(Request::Read { offset, len })? {
            buf.copy_from_slice(&bytes);
        }
        Ok(())
    }

    /// Asks for the status of a stretch.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn status(&mut self, range: Range<u64>) -> Result<Status> {
        let len = u32::try_from(range.end.saturating_sub(range.start)).unwrap_or(u32::MAX);
        let offset = range.start;
        match self.call(Request::Status { offset, len })? {
            Answer::Status(status) => Ok(status),
            Answer::Bytes(_) => Ok(Status::default()),
        }
    }

    fn call(&mut self, request: Request) -> Result<Answer> {
        let (sender, receiver) = sync_channel(1);
        let cookie = self.replies.register(request, sender)?;
        let message = request.message(cookie);
        self.stream.write_all(&message).map_err(failed)?;
        loop {
            self.replies.receive(&mut self.stream)?;
            if let Ok(answer) = receiver.try_recv() {
                return answer;
            }
        }
    }
}

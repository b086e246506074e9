//! The text of a change map.

use std::io::{self, Chain, Cursor, Read};

use crate::error::{Error, ErrorKind, Result};

/// A text of bounded length, without its byte order mark.
pub(super) struct Input<R> {
    inner: Chain<Cursor<Vec<u8>>, R>,
    left: u64,
}

opaque!(Input<R>);

impl<R: Read> Input<R> {
    /// Reads no more than the first bytes.
    ///
    /// # Errors
    /// `Malformed` for UTF-16; `Io`.
    pub(super) fn new(mut reader: R) -> Result<Self> {
        let mut head = Vec::new();
        let first = reader.by_ref().take(3).read_to_end(&mut head);
        first.map_err(|cause| Error::io("read change map", cause))?;
        match &head[..] {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                let what = "cannot read a change map in UTF-16";
                return Err(Error::malformed(what)
                    .advise("write it in UTF-8, in PowerShell with `Set-Content -Encoding utf8`"));
            }
            [0xef, 0xbb, 0xbf] => head.clear(),
            _ => {}
        }
        Ok(Input {
            inner: Cursor::new(head).chain(reader),
            left: INPUT_BYTES,
        })
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buf)?;
        match self.left.checked_sub(len as u64) {
            Some(left) => self.left = left,
            None => {
                let what = "a change map is longer than 4 GiB";
                return Err(io::Error::other(Error::new(ErrorKind::LimitExceeded, what)));
            }
        }
        Ok(len)
    }
}

/// Several times what 64 TiB have in any of the formats, but for EBS after most of it changed.
const INPUT_BYTES: u64 = 4 << 30;

//! An export as an image: what a sync reads.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Ranges;
use super::connection::Connection;
use super::handshake::{ExportInfo, agree, greet, start_tls};
use super::pending::{Answer, Request, Status};
use super::read_ahead::{REQUEST_BYTES, ReadAhead};
use super::reply::failed;
use super::socket::{Line, cancelled};
use super::stream::Secure;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, ImageInfo};
use crate::location::{NbdAddress, NbdServer};
use crate::progress::CancelToken;
use crate::units::Extent;

/// An export, read with several requests under way, and over several connections where the server
/// allows that.
///
/// Nothing of it is written. It must not change while it is read: QEMU's snapshots do not.
pub struct NbdExport {
    way: Way,
    info: ExportInfo,
    connections: Mutex<Connections>,
    /// What the last answer said of zeros: from where on, and the extents from there.
    known: Mutex<Vec<Extent>>,
    ahead: ReadAhead,
}

opaque!(NbdExport);

/// How an export is connected to.
struct Way {
    address: NbdAddress,
    bitmap: Option<String>,
    secure: Option<Arc<dyn Secure>>,
    cancel: CancelToken,
}

struct Connections {
    open: Vec<Arc<Connection>>,
    most: usize,
}

impl NbdExport {
    /// Connects to an export, and to one of its dirty bitmaps where one is named.
    ///
    /// # Errors
    /// `NotFound` for an unknown export, bitmap or socket; `Unsupported` for a server without
    /// structured replies, and for one at an address with TLS; `Malformed` for nonsense; `Io`.
    pub fn open(address: &NbdAddress, bitmap: Option<&str>) -> Result<Self> {
        Self::open_until(address, bitmap, &CancelToken::new())
    }

    /// As [`open`](Self::open). Connecting now and later, and waiting for answers, end soon after
    /// a cancel.
    ///
    /// # Errors
    /// As [`open`](Self::open); `Cancelled`.
    pub fn open_until(
        address: &NbdAddress,
        bitmap: Option<&str>,
        cancel: &CancelToken,
    ) -> Result<Self> {
        Self::open_secure(address, bitmap, None, cancel)
    }

    /// As [`open_until`](Self::open_until), also at an address with TLS, which `secure` begins.
    ///
    /// # Errors
    /// As [`open_until`](Self::open_until); `Untrusted` for a server whose certificate is no good.
    pub(crate) fn open_secure(
        address: &NbdAddress,
        bitmap: Option<&str>,
        secure: Option<Arc<dyn Secure>>,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let way = Way {
            address: address.clone(),
            bitmap: bitmap.map(str::to_owned),
            secure,
            cancel: cancel.clone(),
        };
        let connection = way.connect()?;
        let info = connection.info();
        Ok(NbdExport {
            way,
            info,
            connections: Mutex::new(Connections {
                open: vec![Arc::new(connection)],
                most: if info.multi_conn { CONNECTIONS } else { 1 },
            }),
            known: Mutex::default(),
            ahead: ReadAhead::default(),
        })
    }

    /// What the bitmap says was written: ascending, disjoint.
    ///
    /// # Errors
    /// `InvalidInput` where no bitmap was named; `Malformed`, `Io`, `Cancelled`.
    pub fn changed(&self, cancel: &CancelToken) -> Result<Vec<Range<u64>>> {
        if self.way.bitmap.is_none() {
            let text = "no bitmap of the export was asked for";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let mut ranges = Ranges::default();
        let mut at = 0;
        while at < self.info.disk_len {
            cancel.check()?;
            for run in self.status(at)?.dirty {
                let end = at.saturating_add(run.len);
                if run.holds {
                    ranges.add(at..end);
                }
                at = end;
            }
        }
        Ok(ranges.finish())
    }

    /// What the server says from `at` on, a multiple of its blocks.
    fn status(&self, at: u64) -> Result<Status> {
        let len = ASKED_BYTES.min(self.info.disk_len - at);
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        match self.call(Request::Status { offset: at, len })? {
            Answer::Status(status) => Ok(status),
            Answer::Bytes(_) => Ok(Status::default()),
        }
    }

    /// Asks over the connection with the least to do.
    fn call(&self, request: Request) -> Result<Answer> {
        let connection = self.connection()?;
        let answer = connection.call(request);
        answer.map_err(|error| self.way.explain(error))
    }

    fn connection(&self) -> Result<Arc<Connection>> {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Connections { open, most } = &mut *connections;
        open.retain(|connection| connection.load().is_some());
        let least = open.iter().min_by_key(|it| it.load()).cloned();
        let is_idle = |it: &Arc<Connection>| it.load().is_some_and(|load| load < BUSY);
        match least {
            Some(least) if is_idle(&least) || open.len() >= *most => Ok(least),
            least => match (self.way.connect(), least) {
                (Ok(connection), _) if connection.info() == self.info => {
                    let connection = Arc::new(connection);
                    open.push(connection.clone());
                    Ok(connection)
                }
                (Ok(_), _) => {
                    let text = "the NBD server now states something else of its export";
                    let error = Error::new(ErrorKind::SourceChanged, text);
                    Err(self.way.explain(error))
                }
                // A server may take fewer than it has others believe.
                (Err(error), Some(least)) if error.kind() == ErrorKind::Io => {
                    *most = open.len();
                    Ok(least)
                }
                (Err(error), _) => Err(error),
            },
        }
    }

    /// Reads whole blocks of the server's, some of which may have been asked for before.
    fn read_blocks(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let max = READ_BYTES.min(self.info.max_payload as usize);
        let mut done = 0;
        while let Some(left) = buf.get_mut(done..).filter(|left| !left.is_empty()) {
            let at = offset + done as u64;
            let bytes = match self.ahead.take(at, left.len() as u64) {
                Some(bytes) => bytes,
                None => {
                    let next = self.ahead.next_after(at);
                    let gap = next.map_or(u64::MAX, |next| next - at);
                    // At most `max`.
                    let len = (left.len().min(max) as u64).min(gap) as u32;
                    match self.call(Request::Read { offset: at, len })? {
                        Answer::Bytes(bytes) => bytes,
                        Answer::Status(_) => Vec::new(),
                    }
                }
            };
            let Some(part) = left.get_mut(..bytes.len()).filter(|part| !part.is_empty()) else {
                return Err(self
                    .way
                    .explain(Error::malformed("the answer is of another length")));
            };
            part.copy_from_slice(&bytes);
            done += bytes.len();
        }
        Ok(())
    }

    /// Asks for a piece of what will be read, where the answer need not be waited for.
    fn ask_ahead(&self, piece: Range<u64>) -> Result<bool> {
        let connection = self.connection()?;
        if !connection.has_room() {
            return Ok(false);
        }
        let (offset, len) = (piece.start, piece.end - piece.start);
        let request = Request::Read {
            offset,
            // At most the length of a piece.
            len: len as u32,
        };
        self.ahead.insert(offset, len, connection.begin(request)?);
        Ok(true)
    }

    /// Asks what lies from `offset` on.
    fn ask(&self, offset: u64) -> Result<Vec<Extent>> {
        let block = u64::from(self.info.min_block);
        let mut at = offset - offset % block;
        let runs = self.status(at)?.zero;
        if runs.is_empty() {
            return Ok(vec![Extent::data(offset..self.info.disk_len)]);
        }
        let extents = runs.into_iter().map(|run| {
            let range = at..at + run.len;
            at = range.end;
            match run.holds {
                true => Extent::zero(range),
                false => Extent::data(range),
            }
        });
        Ok(extents.collect())
    }
}

impl Image for NbdExport {
    fn disk_len(&self) -> u64 {
        self.info.disk_len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        let Some(end) = end.filter(|end| *end <= self.info.disk_len) else {
            return Err(
                Error::new(ErrorKind::Io, "a read ends beyond the end of the disk")
                    .at_path(self.way.address.to_string())
                    .at_offset(offset),
            );
        };
        if buf.is_empty() {
            return Ok(());
        }
        let block = u64::from(self.info.min_block);
        let from = offset - offset % block;
        let to = end.next_multiple_of(block).min(self.info.disk_len);
        if (from, to) == (offset, end) {
            return self.read_blocks(buf, offset);
        }
        // A block at either end at most, of 64 KiB at most.
        let before = (offset - from) as usize;
        let mut whole = vec![0; before + buf.len() + (to - end) as usize];
        self.read_blocks(&mut whole, from)?;
        buf.copy_from_slice(&whole[before..before + buf.len()]);
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        if offset >= self.info.disk_len {
            return Ok(None);
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |known: &[Extent]| {
            let after = known.partition_point(|extent| extent.end() <= offset);
            let extent = known.get(after).filter(|extent| extent.offset <= offset)?;
            Some(Extent {
                offset,
                len: extent.end() - offset,
                kind: extent.kind,
            })
        };
        if let Some(extent) = holds(&known) {
            return Ok(Some(extent));
        }
        *known = self.ask(offset)?;
        holds(&known).map(Some).ok_or_else(|| {
            Error::malformed("the NBD server did not describe the requested range")
                .at_path(self.way.address.to_string())
                .at_offset(offset)
        })
    }

    fn will_read(&self, range: Range<u64>) {
        let block = u64::from(self.info.min_block);
        let step = REQUEST_BYTES.min(u64::from(self.info.max_payload));
        let mut at = range.start - range.start % block;
        let end = range.end.min(self.info.disk_len);
        let end = end.next_multiple_of(block).min(self.info.disk_len);
        while at < end {
            let piece = at..at.saturating_add(step).min(end);
            at = piece.end;
            // A hint: what goes wrong shows when the bytes are read.
            if self.ahead.lacks(piece.start) && !matches!(self.ask_ahead(piece), Ok(true)) {
                return;
            }
        }
    }

    fn look_ahead_bytes(&self) -> u64 {
        match self.way.address.server() {
            NbdServer::Tcp { .. } => LOOK_AHEAD_BYTES,
            NbdServer::Unix(_) => 0,
        }
    }

    fn info(&self) -> ImageInfo {
        ImageInfo {
            facts: vec![("export", self.way.address.to_string())],
            ..ImageInfo::raw(self.info.disk_len)
        }
    }
}

impl Way {
    fn connect(&self) -> Result<Connection> {
        self.try_connect().map_err(|error| self.explain(error))
    }

    fn try_connect(&self) -> Result<Connection> {
        let (server, cancel) = (self.address.server(), &self.cancel);
        let line = match server {
            NbdServer::Unix(socket) => Line::connect(socket, TIME_LIMIT, cancel),
            NbdServer::Tcp { host, port, .. } => Line::connect_tcp(host, *port, TIME_LIMIT, cancel),
        };
        let mut line = line.map_err(|cause| {
            cancelled(cause).unwrap_or_else(|cause| Error::io("connect", cause))
        })?;
        let mut stream = match (server, &self.secure) {
            (
                NbdServer::Tcp {
                    host, tls: true, ..
                },
                Some(secure),
            ) => {
                greet(&mut line)?;
                start_tls(&mut line)?;
                line.secured(host, &**secure)?
            }
            (NbdServer::Tcp { tls: true, .. }, None) => {
                let text = "TLS needs certificates of this end";
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
            _ => {
                greet(&mut line)?;
                line.duplex().map_err(failed)?
            }
        };
        let (info, contexts) = agree(&mut stream, self.address.export(), self.bitmap.as_deref())?;
        Connection::start(stream, info, contexts)
    }

    fn explain(&self, error: Error) -> Error {
        error.at_path(self.address.to_string())
    }
}

/// How much is asked about at once: a multiple of every block size, and what 32 bits hold.
const ASKED_BYTES: u64 = 1 << 30;
/// How much is read by one request, at most.
const READ_BYTES: usize = 2 << 20;
/// How far ahead another host is asked.
const LOOK_AHEAD_BYTES: u64 = 16 << 20;
const CONNECTIONS: usize = 8;
/// How many requests a connection has before another one is opened beside it.
const BUSY: usize = 4;
const TIME_LIMIT: Duration = Duration::from_secs(60);

//! An export as an image: what a sync reads.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Ranges;
use super::client::{Client, Status};
use super::handshake::ExportInfo;
use super::socket::{Line, cancelled};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, ImageInfo};
use crate::location::NbdAddress;
use crate::progress::CancelToken;
use crate::units::Extent;

/// An export, read over as many connections as there are readers, where the server allows that.
///
/// Nothing of it is written. It must not change while it is read: QEMU's snapshots do not.
pub struct NbdExport {
    address: NbdAddress,
    bitmap: Option<String>,
    info: ExportInfo,
    cancel: CancelToken,
    connections: Mutex<Connections>,
    freed: Condvar,
    /// What the last answer said of zeros: from where on, and the extents from there.
    known: Mutex<Vec<Extent>>,
}

opaque!(NbdExport);

/// Idle connections, and how many there are in all.
struct Connections {
    idle: Vec<Client<Line>>,
    open: usize,
}

impl NbdExport {
    /// Connects to an export, and to one of its dirty bitmaps where one is named.
    ///
    /// # Errors
    /// `NotFound` for an unknown export, bitmap or socket; `Unsupported` for a server without
    /// structured replies; `Malformed` for nonsense; `Io`.
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
        let bitmap = bitmap.map(str::to_owned);
        let client = connect(address, bitmap.as_deref(), cancel)?;
        Ok(NbdExport {
            cancel: cancel.clone(),
            info: client.info(),
            address: address.clone(),
            bitmap,
            connections: Mutex::new(Connections {
                idle: vec![client],
                open: 1,
            }),
            freed: Condvar::new(),
            known: Mutex::default(),
        })
    }

    /// What the bitmap says was written: ascending, disjoint.
    ///
    /// # Errors
    /// `InvalidInput` where no bitmap was named; `Malformed`, `Io`, `Cancelled`.
    pub fn changed(&self, cancel: &CancelToken) -> Result<Vec<Range<u64>>> {
        if self.bitmap.is_none() {
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
        let end = at.saturating_add(ASKED_BYTES).min(self.info.disk_len);
        self.with(|client| client.status(at..end))
    }

    /// Uses a connection; one that failed is given up.
    fn with<T>(&self, work: impl FnOnce(&mut Client<Line>) -> Result<T>) -> Result<T> {
        let mut client = self.take()?;
        let done = work(&mut client);
        let mut connections = self.lock();
        match &done {
            Ok(_) => connections.idle.push(client),
            Err(_) => connections.open -= 1,
        }
        drop(connections);
        self.freed.notify_one();
        done.map_err(|error| error.at_path(self.address.socket()))
    }

    fn take(&self) -> Result<Client<Line>> {
        let max = if self.info.multi_conn { CONNECTIONS } else { 1 };
        let mut connections = self.lock();
        loop {
            if let Some(client) = connections.idle.pop() {
                return Ok(client);
            }
            if connections.open < max {
                connections.open += 1;
                break;
            }
            let waited = self.freed.wait(connections);
            connections = waited.unwrap_or_else(PoisonError::into_inner);
        }
        drop(connections);
        let client = connect(&self.address, self.bitmap.as_deref(), &self.cancel);
        let client = client.and_then(|client| {
            let same = client.info() == self.info;
            let text = "the NBD server now says something else of its export";
            match same {
                true => Ok(client),
                false => Err(Error::new(ErrorKind::SourceChanged, text)),
            }
        });
        if client.is_err() {
            self.lock().open -= 1;
            self.freed.notify_one();
        }
        client
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        let locked = self.connections.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads whole blocks of the server's.
    fn read_blocks(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let max = READ_BYTES.min(self.info.max_payload as usize);
        self.with(|client| {
            let mut at = offset;
            for part in buf.chunks_mut(max) {
                client.read(part, at)?;
                at += part.len() as u64;
            }
            Ok(())
        })
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
                    .at_path(self.address.socket())
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
                .at_path(self.address.socket())
                .at_offset(offset)
        })
    }

    fn info(&self) -> ImageInfo {
        ImageInfo {
            facts: vec![("export", self.address.to_string())],
            ..ImageInfo::raw(self.info.disk_len)
        }
    }
}

impl Drop for NbdExport {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut self.lock().idle);
        idle.into_iter().for_each(Client::disconnect);
    }
}

fn connect(
    address: &NbdAddress,
    bitmap: Option<&str>,
    cancel: &CancelToken,
) -> Result<Client<Line>> {
    let line = Line::connect(address.socket(), TIME_LIMIT, cancel).map_err(|cause| {
        cancelled(cause).unwrap_or_else(|e| Error::io("connect to", e).at_path(address.socket()))
    })?;
    Client::new(line, address.export(), bitmap).map_err(|e| e.at_path(address.socket()))
}

/// How much is asked about at once: a multiple of every block size, and what 32 bits hold.
const ASKED_BYTES: u64 = 1 << 30;
/// How much is read by one request, at most.
const READ_BYTES: usize = 2 << 20;
const CONNECTIONS: usize = 8;
const TIME_LIMIT: Duration = Duration::from_secs(60);

//! A page blob that is written.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::lease::Lease;
use super::lists::{List, Lister};
use super::ranges::Ranges;
use super::version::agree;
use super::writer::{DISK_HOSTS, MOST_WRITTEN_BYTES, Writer};
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::location::WebAddress;
use crate::progress::CancelToken;
use crate::storage::http::{HttpOptions, Resource};
use crate::storage::{FileRef, Storage, outside, past_end, poisoned, range_end};

/// A page blob of the Azure blob service as a target: of a storage account, or a managed disk that
/// is being uploaded.
///
/// A write returns once the service has the bytes, durably and under their checksum. Where the
/// service has leases, the blob is leased as long as this lives. A blob that is missing or was
/// never written is empty until [`set_len`](Storage::set_len) gives it its length. What is written
/// first of all to its last page, the footer of a VHD, is held back in memory until that page is
/// written again: nothing takes the blob for a disk before.
pub struct BlobTarget {
    path: PathBuf,
    address: WebAddress,
    options: HttpOptions,
    cancel: CancelToken,
    writer: Writer,
    /// Where the id of the lease is kept; `None` where nothing may be changed.
    lease_file: Option<FileRef>,
    blob: OnceLock<Resource>,
    state: Mutex<State>,
    /// Held while pages are read to change a part of them.
    part_of_page: Mutex<()>,
    /// Given back first, while all else is there.
    lease: Mutex<Option<Lease>>,
}

opaque!(BlobTarget);

#[derive(Default)]
struct State {
    /// Nothing is known to be in it.
    is_blank: bool,
    /// What may hold something other than zeros; `None` where the service cannot list it.
    pages: Option<Ranges>,
    /// The last page of a blob that was blank, until another write is over it.
    footer: Option<Vec<u8>>,
    is_lost: bool,
}

impl BlobTarget {
    /// Opens the page blob at `address`, leases it, and lists its pages; one that is missing is
    /// created later. The id of the lease is kept at `lease_file`; without it nothing is leased,
    /// and nothing may be written.
    ///
    /// # Errors
    /// `InUse` where another run has the lease; `Unsupported` for what is no page blob, and for an
    /// exported disk, which is only read; `InvalidInput` for a snapshot; `Untrusted` for a
    /// redirect, and those of reading.
    pub fn open(
        address: &WebAddress,
        options: &HttpOptions,
        lease_file: Option<FileRef>,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let refuse = |kind, what: &'static str| Error::new(kind, what).at_path(address.to_string());
        if address.snapshot().is_some() {
            return Err(refuse(ErrorKind::InvalidInput, "a snapshot is only read"));
        }
        let is_disk = address.host().starts_with(DISK_HOSTS);
        if is_disk && !address.host().starts_with(UPLOAD_HOSTS) {
            let what = "the address of an exported disk is only read";
            return Err(refuse(ErrorKind::Unsupported, what).advise(Advice::DiskOfBlob));
        }
        let target = BlobTarget {
            path: PathBuf::from(address.to_string()),
            address: address.clone(),
            options: options.clone(),
            cancel: cancel.clone(),
            writer: Writer::new(address, options, cancel)?,
            lease_file: lease_file.filter(|_| !is_disk),
            blob: OnceLock::new(),
            state: Mutex::default(),
            part_of_page: Mutex::default(),
            lease: Mutex::default(),
        };
        match target.look_up() {
            Ok(()) => Ok(target),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                target.lock().is_blank = true;
                Ok(target)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether it is missing, or was never written.
    pub fn is_blank(&self) -> bool {
        self.lock().is_blank
    }

    /// Opens the blob that is there, leases it, and lists its pages.
    fn look_up(&self) -> Result<()> {
        let refuse = |kind, what: &'static str| {
            Err(Error::new(kind, what).at_path(self.address.to_string()))
        };
        let mut blob = Resource::open(&self.address, &self.options, &self.cancel)?;
        if blob.address() != &self.address {
            return refuse(ErrorKind::Untrusted, "the server redirects a target");
        }
        if !blob.is_page_blob() {
            let what = "a target at a web server must be a page blob of the Azure blob service";
            return refuse(ErrorKind::Unsupported, what);
        }
        blob.make_own();
        let version = agree(&mut blob)?;
        self.writer.speak(version);
        if let Some(file_ref) = &self.lease_file {
            let lease = Lease::take(&self.writer, file_ref, &self.address, &self.options)?;
            *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(lease);
        }
        let lister = Lister {
            blob: &blob,
            is_paged: version.is_paged,
        };
        let listed = match lister.list(&List::Allocated) {
            Ok(listed) => Some(listed),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(_) => None,
        };
        let mut state = self.lock();
        state.is_blank = listed.as_ref().is_some_and(Vec::is_empty);
        state.pages = listed.map(|listed| Ranges::of(&listed));
        drop(state);
        // It was looked up once.
        let _ = self.blob.set(blob);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The blob, where it is there.
    fn blob(&self) -> Result<&Resource> {
        self.blob.get().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the page blob was not made yet").at_path(&self.path)
        })
    }

    fn blob_len(&self) -> u64 {
        self.blob.get().map_or(0, |blob| blob.identity().len)
    }

    fn len_now(&self) -> u64 {
        match self.lock().is_blank {
            true => 0,
            false => self.blob_len(),
        }
    }

    fn inside(&self, range: &Range<u64>) -> Result<()> {
        if self.lock().is_lost {
            return Err(poisoned(&self.path));
        }
        let len = self.len_now();
        match range.start <= range.end && range.end <= len {
            true => Ok(()),
            false => Err(outside(&self.path, range, len)),
        }
    }

    /// Where the last page is.
    fn footer_at(&self) -> u64 {
        self.blob_len().saturating_sub(PAGE_BYTES)
    }

    /// Writes whole pages.
    fn write_pages(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut at = offset;
        for piece in buf.chunks(MOST_WRITTEN_BYTES) {
            let end = at + piece.len() as u64;
            self.lock().note_written(at..end);
            self.writer.write(piece, at).inspect_err(|_| self.lose())?;
            self.lock().forget_footer(&(at..end), self.footer_at());
            at = end;
        }
        Ok(())
    }

    /// Changes a part of some pages.
    fn write_part(&self, buf: &[u8], offset: u64) -> Result<()> {
        let alone = self.part_of_page.lock();
        let _alone = alone.unwrap_or_else(PoisonError::into_inner);
        let start = offset - offset % PAGE_BYTES;
        let end = (offset + buf.len() as u64).next_multiple_of(PAGE_BYTES);
        let mut pages = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
        self.read_exact_at(&mut pages, start)?;
        let from = usize::try_from(offset - start).unwrap_or(usize::MAX);
        if let Some(part) = pages.get_mut(from..from + buf.len()) {
            part.copy_from_slice(buf);
        }
        self.write_pages(&pages, start)
    }

    /// A request that was not answered may still arrive later: nothing more is written.
    fn lose(&self) {
        self.lock().is_lost = true;
    }
}

impl State {
    fn note_written(&mut self, range: Range<u64>) {
        if let Some(pages) = &mut self.pages {
            pages.insert(range);
        }
    }

    fn forget_footer(&mut self, written: &Range<u64>, footer_at: u64) {
        if written.contains(&footer_at) {
            self.footer = None;
        }
    }

    /// Whether anything of it was written.
    fn has_pages(&self) -> bool {
        self.pages.as_ref().is_none_or(|it| it.next(0).is_some())
    }
}

impl Storage for BlobTarget {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.len_now())
    }

    fn has_fixed_len(&self) -> bool {
        true
    }

    fn sector_bytes(&self) -> Option<u64> {
        Some(PAGE_BYTES)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = range_end(&self.path, offset, buf.len())?;
        if buf.is_empty() {
            return Ok(());
        }
        let len = self.len_now();
        if end > len {
            return Err(past_end(&self.path, end, len));
        }
        let (is_there, footer) = {
            let state = self.lock();
            let next = state.pages.as_ref().map(|it| it.next(offset));
            let is_there = next.is_none_or(|next| next.is_some_and(|next| next.start < end));
            (is_there, state.footer.clone())
        };
        match is_there {
            true => self.blob()?.read(buf, offset)?,
            // Never written: nothing has to be asked.
            false => buf.fill(0),
        }
        let footer_at = self.footer_at();
        if let Some(footer) = footer.filter(|_| end > footer_at) {
            let (from, skip) = match offset <= footer_at {
                true => (footer_at - offset, 0),
                false => (0, offset - footer_at),
            };
            let index = |at| usize::try_from(at).unwrap_or(usize::MAX);
            let footer = footer.get(index(skip)..).unwrap_or_default();
            let buf = buf.get_mut(index(from)..).unwrap_or_default();
            let len = footer.len().min(buf.len());
            if let (Some(to), Some(from)) = (buf.get_mut(..len), footer.get(..len)) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let end = range_end(&self.path, offset, buf.len())?;
        if buf.is_empty() {
            return Ok(());
        }
        self.inside(&(offset..end))?;
        let mut state = self.lock();
        let is_footer = offset == self.footer_at() && end == self.blob_len();
        if is_footer && state.footer.is_none() && !state.has_pages() {
            state.footer = Some(buf.to_vec());
            return Ok(());
        }
        drop(state);
        match offset.is_multiple_of(PAGE_BYTES) && end.is_multiple_of(PAGE_BYTES) {
            true => self.write_pages(buf, offset),
            false => self.write_part(buf, offset),
        }
    }

    /// Gives a blank blob the length that it has, or makes one of that length.
    fn set_len(&self, len: u64) -> Result<()> {
        let refuse = |what: String| {
            Error::new(ErrorKind::Unsupported, what)
                .at_path(&self.path)
                .advise(Advice::UploadDisk)
        };
        if self.blob.get().is_none() {
            if !len.is_multiple_of(PAGE_BYTES) {
                let what = format!("a page blob of {len} bytes is not whole pages of 512");
                return Err(refuse(what));
            }
            // Where it was made by an attempt whose answer was lost, it is blank.
            self.writer.create(len)?;
            self.look_up()?;
        }
        if self.blob_len() != len {
            let now = self.blob_len();
            return Err(refuse(format!(
                "a page blob of {now} bytes cannot become {len} bytes long"
            )));
        }
        self.lock().is_blank = false;
        Ok(())
    }

    /// Every write is durable once it returns.
    fn sync(&self) -> Result<()> {
        match self.lock().is_lost {
            true => Err(poisoned(&self.path)),
            false => Ok(()),
        }
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.inside(&range)?;
        let start = range.start.next_multiple_of(PAGE_BYTES);
        let end = range.end - range.end % PAGE_BYTES;
        if start >= end {
            let zeros = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
            return match zeros.is_empty() {
                true => Ok(()),
                false => self.write_part(&zeros, range.start),
            };
        }
        for edge in [range.start..start, end..range.end] {
            self.punch_hole(edge)?;
        }
        let pages = start..end;
        let next = self.lock().pages.as_ref().map(|it| it.next(start));
        let is_there = next.is_none_or(|next| next.is_some_and(|next| next.start < end));
        if is_there {
            self.writer.clear(&pages).inspect_err(|_| self.lose())?;
        }
        let mut state = self.lock();
        if let Some(listed) = &mut state.pages {
            listed.remove(&pages);
        }
        state.forget_footer(&pages, self.footer_at());
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let len = self.len_now();
        if offset >= len {
            return Ok(None);
        }
        let state = self.lock();
        let Some(pages) = &state.pages else {
            return Ok(Some(offset..len));
        };
        let footer = state
            .footer
            .as_ref()
            .map(|_| self.footer_at().max(offset)..len);
        let next = pages.next(offset);
        let next = next.map(|it| it.start.max(offset)..it.end);
        Ok(match (next, footer) {
            (Some(next), Some(footer)) if footer.start < next.start => Some(footer),
            (next, footer) => next.or(footer),
        })
    }

    fn confirms_writes(&self) -> bool {
        true
    }
}

/// Azure's pages: the unit of writes.
const PAGE_BYTES: u64 = 512;
/// What the names of hosts begin with that take uploads of managed disks.
const UPLOAD_HOSTS: &str = "md-impexp";

//! What every flat byte store can do.

use std::ops::Range;
use std::path::Path;

use super::{FileId, HostFile, HostHandle, Privacy, SourceStamp};
use crate::error::Result;

/// A flat byte store that many threads may use at once.
///
/// The contract, which every implementation is tested against:
/// - Reads past the end are an error of kind `Io`; nothing is read short.
/// - Writes past the end extend the store, and a gap that this leaves reads as zeros; where the
///   length is [fixed](Storage::has_fixed_len) they are refused and nothing is written.
/// - An empty read or write succeeds anywhere and changes nothing.
/// - What is written is read back at once, also by other threads; it is durable, like a changed
///   length, only after [`sync`](Storage::sync) has returned `Ok`.
/// - After a failed `sync` every later call fails with `Poisoned`: the system may have dropped the
///   very pages it could not write, so that a second `sync` would lie.
/// - Two calls that touch the same bytes at the same time give no promise about these bytes.
pub trait Storage: Send + Sync {
    /// The path or another name, for messages.
    fn path(&self) -> &Path;

    /// Length in bytes.
    ///
    /// # Errors
    /// `Io`, `Poisoned`.
    fn len(&self) -> Result<u64>;

    /// Whether the length is 0.
    ///
    /// # Errors
    /// As [`len`](Storage::len).
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Whether the length cannot change (block devices).
    fn has_fixed_len(&self) -> bool {
        false
    }

    /// Bytes a logical sector, where there are such (block devices).
    fn sector_bytes(&self) -> Option<u64> {
        None
    }

    /// Fills `buf` from byte `offset` on.
    ///
    /// # Errors
    /// `Io`, `Poisoned`. The error's offset is the first byte that could not be read, as near as
    /// the system tells; where the store ends inside the range, the end of the store.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Writes all of `buf` at byte `offset`. Durable after the next `sync`.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Poisoned`; `InvalidInput` for a range beyond the end of a store of fixed
    /// length. After an `Io` or `NoSpace` any part of the range may have been written.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()>;

    /// Cuts or extends to `len` bytes; new bytes read as zeros. Durable after the next `sync`.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Poisoned`; `Unsupported` where the length is fixed and is not `len`.
    fn set_len(&self, len: u64) -> Result<()>;

    /// Makes all earlier writes and length changes durable.
    ///
    /// # Errors
    /// `Io`, `NoSpace`; the handle is poisoned by them.
    fn sync(&self) -> Result<()>;

    /// Makes a range read as zeros, giving its space back where that is possible and wanted;
    /// otherwise zeros are written. Durable after the next `sync`.
    ///
    /// # Errors
    /// As [`write_all_at`](Storage::write_all_at); `InvalidInput` for a range that does not lie
    /// inside the store.
    fn punch_hole(&self, range: Range<u64>) -> Result<()>;

    /// The first stretch at or after `offset` that may hold something other than zeros, clipped
    /// to the store and not empty; `None` when only zeros follow. Where holes cannot be asked for,
    /// all is data.
    ///
    /// # Errors
    /// `Io`, `Poisoned`.
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>>;

    /// The open file, where the store is one of this host and nothing else.
    fn host_fd(&self) -> Option<HostHandle<'_>> {
        None
    }

    /// Makes this store, which is empty, a clone of `model`: it holds the same bytes and shares
    /// their space until one of the two is written to. Whether the file system could do that; where
    /// it could not the store stays empty. Durable after the next `sync`.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Poisoned`.
    fn become_clone_of(&self, _model: &dyn Storage) -> Result<bool> {
        Ok(false)
    }

    /// Refuses a length that the file system or the limits of this process do not allow. Changes
    /// nothing.
    ///
    /// # Errors
    /// `NoSpace`, `Poisoned`.
    fn check_len(&self, _len: u64) -> Result<()> {
        Ok(())
    }

    /// Makes sure that writing `range` later cannot run out of space, as far as the system can
    /// promise that; contents and length stay. Does nothing where space cannot be reserved.
    ///
    /// Returns what takes space only now, for [`give_back`](Storage::give_back). After an error
    /// no more is taken than before.
    ///
    /// # Errors
    /// `NoSpace`, also for what [`check_len`](Storage::check_len) refuses; `Io`, `Poisoned`.
    fn reserve(&self, _range: Range<u64>) -> Result<Vec<Range<u64>>> {
        Ok(Vec::new())
    }

    /// As [`reserve`](Storage::reserve), for what a later [`set_len`](Storage::set_len) needs:
    /// the space of the new bytes too, where zeros take space.
    ///
    /// # Errors
    /// As [`reserve`](Storage::reserve).
    fn reserve_len(&self, len: u64) -> Result<Vec<Range<u64>>> {
        self.check_len(len)?;
        Ok(Vec::new())
    }

    /// Gives reserved space back: `ranges` are holes again, as they were when
    /// [`reserve`](Storage::reserve) returned them; whatever was written there since reads as
    /// zeros. The length stays.
    ///
    /// # Errors
    /// `Io`, `Poisoned`.
    fn give_back(&self, _ranges: &[Range<u64>]) -> Result<()> {
        Ok(())
    }

    /// All bytes at once, where they lie in memory and nothing changes them.
    fn mapped(&self) -> Option<&[u8]> {
        None
    }

    /// Which file it is, whatever its names are; `None` for what is no file, and where that is not
    /// known.
    ///
    /// # Errors
    /// `Io`.
    fn file_id(&self) -> Result<Option<FileId>> {
        Ok(None)
    }

    /// Who may use it, for files that are made of what it holds; its owner alone where that is not
    /// known.
    ///
    /// # Errors
    /// `Io`.
    fn privacy(&self) -> Result<Privacy> {
        Ok(Privacy::PRIVATE)
    }

    /// What would show a change made by another program, where the system keeps such facts; see
    /// [`SourceStamp`].
    ///
    /// # Errors
    /// `Io`, `Poisoned`.
    fn stamp(&self) -> Result<Option<SourceStamp>> {
        Ok(None)
    }

    /// Which file or block device of this host the bytes are, looked at through the open handle;
    /// `None` for what is neither.
    ///
    /// # Errors
    /// `Io`.
    fn host_file(&self) -> Result<Option<HostFile>> {
        Ok(None)
    }

    /// Whether a write returns `Ok` only once the medium's own side has held what arrived there
    /// against a checksum.
    fn confirms_writes(&self) -> bool {
        false
    }

    /// Drops cached pages of `range` that are durable, so that the next read of them comes from
    /// the medium. A hint.
    fn drop_cache(&self, _range: Range<u64>) {}

    /// Tells that `range` is about to be read. A hint.
    fn will_read(&self, _range: Range<u64>) {}

    /// How far ahead of its reads a range is worth [announcing](Storage::will_read), in bytes; 0
    /// where nothing is gained by more than the next few. A hint.
    fn look_ahead_bytes(&self) -> u64 {
        0
    }

    /// Whether what is read now mostly lies in memory already, so that short reads, which stay in
    /// a near cache, are better than long ones. A hint.
    fn reads_from_memory(&self) -> bool {
        false
    }
}

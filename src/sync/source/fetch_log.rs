//! The hashes of what was read of a distant source, so that it is not read again.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::error::{ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{Image, read_padded_at};
use crate::manifest::RangeSet;
use crate::progress::Work;
use crate::storage::{Access, FileRef, SourceIdentity, Storage};

/// Which ranges of one source were read, and the hashes of their bytes, in a file next to the redo
/// log. What another disk holds of them is known by these hashes.
///
/// It is a cache: nothing of it is made durable, and a record that a crash tore, or that another
/// program altered, has a hash that no bytes have.
pub(in crate::sync) struct FetchLog {
    file_ref: FileRef,
    identity: SourceIdentity,
    file: Mutex<File>,
}

enum File {
    /// It is made for the first record.
    None,
    /// The file, and where the next record goes.
    Open(Arc<dyn Storage>, u64),
    /// It cannot be written, so nothing more is noted.
    Full(Option<Arc<dyn Storage>>),
}

/// Where the hashes are kept of what was read for the target with this redo log.
pub(in crate::sync) fn fetch_log(redo_log: &FileRef) -> FileRef {
    redo_log.hidden_sibling("fetched")
}

impl FetchLog {
    /// Opens the file of an earlier run that read the same source, if there is one.
    ///
    /// # Errors
    /// `Untrusted` for a file that this program may not have made; `Io`.
    pub(crate) fn open(redo_log: &FileRef, identity: &SourceIdentity) -> Result<Self> {
        let file_ref = fetch_log(redo_log);
        let mut file = File::None;
        if let Some(storage) = file_ref.open_own_if_there(Access::Write)? {
            let len = storage.len()?;
            let mut head = [0; HEAD_BYTES];
            if len >= HEAD_BYTES as u64 {
                storage.read_exact_at(&mut head, 0)?;
            }
            if head == head_of(identity) {
                // What a crash tore is written over.
                let records = (len - HEAD_BYTES as u64) / RECORD_BYTES as u64;
                let end = HEAD_BYTES as u64 + records * RECORD_BYTES as u64;
                file = File::Open(storage, end);
            }
        }
        Ok(FetchLog {
            file_ref,
            identity: *identity,
            file: Mutex::new(file),
        })
    }

    /// Notes that the source has `bytes` at `offset`. Without room nothing more is noted.
    pub(crate) fn note(&self, offset: u64, bytes: &[u8]) {
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(&offset.to_le_bytes());
        record[8..16].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        record[16..].copy_from_slice(Hash::of(bytes).as_bytes());
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let File::None = &*file {
            *file = match self.create() {
                Ok(storage) => File::Open(storage, HEAD_BYTES as u64),
                Err(_) => File::Full(None),
            };
        }
        if let File::Open(storage, at) = &mut *file {
            match storage.write_all_at(&record, *at) {
                Ok(()) => *at += RECORD_BYTES as u64,
                Err(_) => {
                    let storage = storage.clone();
                    *file = File::Full(Some(storage));
                }
            }
        }
    }

    fn create(&self) -> Result<Arc<dyn Storage>> {
        self.file_ref.remove_own_if_there()?;
        let storage = self.file_ref.create_new()?;
        storage.write_all_at(&head_of(&self.identity), 0)?;
        Ok(storage)
    }

    /// The ranges of the source that `image` holds too: those whose bytes have the hashes noted.
    ///
    /// # Errors
    /// `Io`, `Malformed`, `Cancelled`.
    pub(crate) fn held_by(&self, image: &dyn Image, work: &Work) -> Result<RangeSet> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (storage, end) = match &*file {
            File::None | File::Full(None) => return Ok(RangeSet::default()),
            File::Open(storage, end) => (storage.clone(), *end),
            File::Full(Some(storage)) => (storage.clone(), storage.len()?),
        };
        drop(file);
        let mut held = RangeSet::default();
        let mut at = HEAD_BYTES as u64;
        while at < end {
            work.cancel().check()?;
            let len = (end - at).min(BATCH_RECORDS * RECORD_BYTES as u64);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            storage.read_exact_at(&mut bytes, at)?;
            let (records, _) = bytes.as_chunks::<RECORD_BYTES>();
            let found: Result<Vec<Option<Range<u64>>>> = work.pool().install(|| {
                let one = |record: &[u8; RECORD_BYTES]| is_held(record, image);
                records.par_iter().map(one).collect()
            });
            held = held.union(&RangeSet::of(found?.into_iter().flatten()));
            at += len;
        }
        Ok(held)
    }
}

/// The range of a record, where `image` holds the bytes that it is about.
fn is_held(record: &[u8; RECORD_BYTES], image: &dyn Image) -> Result<Option<Range<u64>>> {
    let number = |at: usize| {
        record[at..]
            .first_chunk()
            .map_or(0, |it| u64::from_le_bytes(*it))
    };
    let (offset, len) = (number(0), number(8));
    let Some(end) = offset.checked_add(len).filter(|_| len <= MOST_BYTES) else {
        return Ok(None);
    };
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    match read_padded_at(image, &mut bytes, offset) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::Malformed) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    Ok((Hash::of(&bytes).as_bytes()[..] == record[16..]).then_some(offset..end))
}

fn head_of(identity: &SourceIdentity) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(b"ddfetch\x01");
    head[8..].copy_from_slice(&identity.0);
    head
}

const HEAD_BYTES: usize = 40;
/// Offset, length, hash.
const RECORD_BYTES: usize = 48;
/// Records whose hashes are compared at once.
const BATCH_RECORDS: u64 = 16 << 10;
/// Longer than what is read at once.
const MOST_BYTES: u64 = 64 << 20;

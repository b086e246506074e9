//! A manifest kept from the last sync, and the durable word on where it no longer holds.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::format::{MAGIC, intent};
use super::notes::{Notes, fingerprint, note_state, read_notes};
use super::ranges::RangeSet;
use super::read::Manifest;
use super::release::Release;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::storage::{Access, FileId, FileRef, FileStorage, Privacy, SourceIdentity, Storage};

/// A manifest that stands for reading its disk, except where it has intents.
///
/// Before the first byte of the disk changes, [`record_intent`](TargetManifest::record_intent) says
/// durably which ranges are about to. These count as different whatever their hashes. After
/// the disk is durable the file is replaced by one without intents ([`save`]).
#[derive(Clone)]
pub struct TargetManifest {
    manifest: Manifest,
    /// The file itself, for intents.
    storage: Arc<dyn Storage>,
    notes: Notes,
}

opaque!(TargetManifest);

impl TargetManifest {
    /// Opens the target manifest that `storage` holds; it must be writable to take intents.
    ///
    /// Intents that are torn, damaged, of another manifest, or too many to hold are no error:
    /// then everything is in doubt.
    ///
    /// # Errors
    /// As [`Manifest::from_storage`].
    pub fn open(storage: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let manifest = Manifest::from_storage(Arc::clone(&storage), limits)?;
        Self::over(manifest, storage, limits)
    }

    /// Opens a target manifest file.
    ///
    /// # Errors
    /// As [`Manifest::from_storage`]; `NotFound`.
    pub fn open_path(path: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        Self::open(Arc::new(FileStorage::open_write(path.as_ref())?), limits)
    }

    /// The manifest, intents aside.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The byte ranges in doubt, ascending and disjoint; `0..u64::MAX` when everything is.
    pub fn intents(&self) -> &[Range<u64>] {
        self.notes.in_doubt.as_slice()
    }

    /// Whether any byte of `range` is in doubt.
    pub fn has_intent(&self, range: Range<u64>) -> bool {
        self.notes.in_doubt.touches(range)
    }

    /// Whether `disk`, the file or device that the manifest was kept of, is as it was then, as far
    /// as the system can tell. True where nothing was noted (see [`PreparedFile::commit_for`]).
    ///
    /// # Errors
    /// `Io`, `Poisoned`.
    pub fn describes(&self, disk: &dyn Storage) -> Result<bool> {
        Ok(self.notes.fingerprint.is_none() || self.notes.fingerprint == fingerprint(disk)?)
    }

    /// Whether it is noted which state of the disk's file or device the manifest describes.
    pub fn is_noted(&self) -> bool {
        self.notes.fingerprint.is_some()
    }

    /// Which source has the disk that the manifest describes, where that was noted.
    pub fn source(&self) -> Option<SourceIdentity> {
        self.notes.source
    }

    /// Which edition of which image the disk is, where a signature stated it.
    pub fn release(&self) -> Option<&Release> {
        self.notes.release.as_ref()
    }

    /// Says that the bytes of `ranges` are about to change. Durable when it returns.
    ///
    /// Very many ranges are rounded out to fewer.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Poisoned`. The disk must not be changed then; on the next open the
    /// ranges, everything, or nothing more than before is in doubt.
    pub fn record_intent(&mut self, ranges: impl IntoIterator<Item = Range<u64>>) -> Result<()> {
        let ranges = RangeSet::of(ranges).coarsened_to(INTENT_RANGES);
        if ranges.as_slice().is_empty() {
            return Ok(());
        }
        let record = intent::encode(self.manifest.root().as_bytes(), ranges.as_slice());
        // After a torn record this one cannot be reached, and need not be: the sync makes sure
        // that the torn one stays, which puts everything in doubt.
        self.storage.write_all_at(&record, self.storage.len()?)?;
        self.storage.sync()?;
        self.notes.in_doubt = std::mem::take(&mut self.notes.in_doubt).union(&ranges);
        Ok(())
    }

    /// The blocks in doubt of a disk of `disk_len` bytes.
    pub(crate) fn intent_blocks(&self, disk_len: u64) -> RangeSet {
        self.notes
            .in_doubt
            .to_blocks(self.manifest.block_size(), disk_len)
    }

    fn over(manifest: Manifest, storage: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let notes = read_notes(&manifest, &*storage, limits)?;
        Ok(TargetManifest {
            manifest,
            storage,
            notes,
        })
    }
}

/// A file that is being written to be put in its place as a whole. No other process shares it.
pub struct PreparedFile {
    file_ref: FileRef,
    file: FileRef,
    storage: Arc<dyn Storage>,
}

opaque!(PreparedFile);

impl PreparedFile {
    /// The file.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Puts it in its place, over an older file. Durable when it returns; may be done again.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn commit(&self) -> Result<()> {
        let directory = self.file_ref.directory();
        match directory.rename(self.file.name(), self.file_ref.name()) {
            // Done already, and perhaps not synced.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !self.file_ref.leads_to(&*self.storage)? {
                    return Err(error);
                }
            }
            renamed => renamed?,
        }
        directory.sync()
    }

    /// As [`commit`](PreparedFile::commit), for the manifest of `disk`, whose last change is
    /// durable: also notes the state that the file or device is in, so that any later change shows
    /// ([`TargetManifest::describes`]).
    ///
    /// # Errors
    /// `Malformed`, `LimitExceeded` for what is prepared; `Io`, `NoSpace`, `Poisoned`.
    pub fn commit_for(&self, disk: &dyn Storage, limits: &Limits) -> Result<()> {
        note_state(&self.storage, disk, limits)?;
        self.commit()
    }

    /// As [`commit`](PreparedFile::commit), where only the file `over` may be replaced: the one
    /// that was there when the writing began, or none.
    ///
    /// # Errors
    /// `AlreadyExists` where another file is there by now; `Io`, `NoSpace`.
    fn commit_over(&self, over: Option<FileId>) -> Result<()> {
        let directory = self.file_ref.directory();
        let taken = |error: Error| match error.kind() {
            ErrorKind::AlreadyExists => error.advise("another process wrote it meanwhile"),
            _ => error,
        };
        match (over, directory.file_id(self.file_ref.name())?) {
            (None, _) => self.file.rename_new(&self.file_ref).map_err(taken)?,
            (over, now) if over == now => {
                directory.rename(self.file.name(), self.file_ref.name())?
            }
            _ => {
                let what = "another file is there by now";
                let error =
                    Error::new(ErrorKind::AlreadyExists, what).at_path(self.file_ref.path());
                return Err(taken(error));
            }
        }
        directory.sync()
    }

    /// Makes the file and its name durable.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(crate) fn make_durable(&self) -> Result<()> {
        self.storage.sync()?;
        self.file_ref.directory().sync()
    }

    /// Removes the file.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn forget(&self) -> Result<()> {
        match self.file.leads_to(&*self.storage)? {
            true => self.file.remove_if_there(),
            false => Ok(()),
        }
    }
}

/// Writes a file and puts it in `file_ref`, durably: [`prepare`] and [`PreparedFile::commit`] at
/// once.
///
/// When this returns `Ok`, the file and its name are durable; when it returns an error, `file_ref`
/// holds what it held, or the new file already, never anything between.
///
/// # Errors
/// Those of `write`; `Io`, `NoSpace`.
pub fn save<T>(file_ref: &FileRef, write: impl FnOnce(Arc<dyn Storage>) -> Result<T>) -> Result<T> {
    let (value, prepared) = prepare(file_ref, write)?;
    prepared.commit()?;
    Ok(value)
}

/// As [`save`], where only what is at `file_ref` now may be replaced.
///
/// # Errors
/// `AlreadyExists` where another process wrote to `file_ref` meanwhile; those of [`save`].
pub(crate) fn save_once<T>(
    file_ref: &FileRef,
    write: impl FnOnce(Arc<dyn Storage>) -> Result<T>,
) -> Result<T> {
    let over = file_ref.directory().file_id(file_ref.name())?;
    let (value, prepared) = prepare(file_ref, write)?;
    if let Err(error) = prepared.commit_over(over) {
        // The first error says more than one from cleaning up.
        let _ = prepared.forget();
        return Err(error);
    }
    Ok(value)
}

/// Writes the file that [`PreparedFile::commit`] will put in `file_ref`, durably, under a random
/// name of its own: `.NAME.ID.new`. What crashes left of such files is removed.
///
/// # Errors
/// Those of `write`; `Io`, `NoSpace`. Nothing is prepared then, as far as cleaning up succeeds.
pub fn prepare<T>(
    file_ref: &FileRef,
    write: impl FnOnce(Arc<dyn Storage>) -> Result<T>,
) -> Result<(T, PreparedFile)> {
    let prepared = begin(file_ref)?;
    let written = write(prepared.storage.clone()).and_then(|value| {
        prepared.make_durable()?;
        Ok(value)
    });
    match written {
        Ok(value) => Ok((value, prepared)),
        Err(error) => {
            // The first error says more than one from cleaning up.
            let _ = prepared.forget();
            Err(error)
        }
    }
}

/// Begins the file that [`PreparedFile::commit`] will put in `file_ref`. Neither the file nor its
/// name is durable yet.
///
/// # Errors
/// `Io`, `NoSpace`.
pub(crate) fn begin(file_ref: &FileRef) -> Result<PreparedFile> {
    let (file, storage) = file_ref.create_temporary(LOGGED, Privacy::PRIVATE)?;
    Ok(PreparedFile {
        file_ref: file_ref.clone(),
        file,
        storage,
    })
}

/// As [`begin`], under the id of a job, by which [`commit_left`] finds it.
///
/// # Errors
/// `Io`, `NoSpace`.
pub(crate) fn begin_for(file_ref: &FileRef, job: &str) -> Result<PreparedFile> {
    file_ref.remove_leftovers(LOGGED)?;
    let file = file_ref.run_sibling(job, LOGGED);
    Ok(PreparedFile {
        file_ref: file_ref.clone(),
        storage: file.create_new()?,
        file,
    })
}

/// Removes what was begun for `file_ref` by what does not run any more, and not committed.
///
/// # Errors
/// `Io`.
pub(crate) fn forget_left(file_ref: &FileRef) -> Result<()> {
    file_ref.remove_leftovers(LOGGED)
}

/// Puts what a job that did not end has prepared for `file_ref` there, as
/// [`PreparedFile::commit_for`]. May be done again after a crash: nothing prepared means that it is
/// in place already.
///
/// # Errors
/// As [`PreparedFile::commit_for`]; `Untrusted` for a file that this program may not have made.
pub(crate) fn commit_left(
    file_ref: &FileRef,
    job: &str,
    disk: &dyn Storage,
    limits: &Limits,
) -> Result<()> {
    let file = file_ref.run_sibling(job, LOGGED);
    match file.open_own_if_there(Access::Write)? {
        Some(storage) => {
            let file_ref = file_ref.clone();
            let prepared = PreparedFile {
                file_ref,
                file,
                storage,
            };
            prepared.commit_for(disk, limits)
        }
        None => file_ref.directory().sync(),
    }
}

/// Refuses a place that holds something other than a manifest, which a new one would destroy. A
/// damaged manifest still is one.
///
/// # Errors
/// `AlreadyExists`, `Io`.
pub(crate) fn refuse_other(file_ref: &FileRef) -> Result<()> {
    let Some(there) = file_ref.open_if_there(Access::Read)? else {
        return Ok(());
    };
    let mut begins = [0; MAGIC.len()];
    let len = there.len()?;
    if len >= begins.len() as u64 {
        there.read_exact_at(&mut begins, 0)?;
    }
    if len == 0 || begins == MAGIC {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        "something other than a manifest is there, and would be replaced",
    )
    .at_path(file_ref.path())
    .advise("name another file"))
}

/// Most ranges in one intent record, which is then 1 MiB long.
const INTENT_RANGES: usize = 1 << 16;

/// What a prepared file's name ends with.
const LOGGED: &str = "new";

//! Room on a target for what is about to be written there, taken before its marker is set.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::format::regions;
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::sync::endpoint::precheck::too_long;
use crate::target_state::TargetState;

/// What was taken of the room on a target: the space of the marker, and of all that follows as far
/// as it is known. It stays taken once the marker is set, and is given back otherwise.
///
/// A marker is set with a value of this type, so there is none without room for it.
pub(in crate::sync) struct Room<'a> {
    storage: &'a dyn Storage,
    taken: Mutex<Vec<Range<u64>>>,
}

impl<'a> Room<'a> {
    /// Takes the room of the marker, on a target as long as it is now.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: nothing is taken, and the target is untouched.
    pub(crate) fn for_marker(storage: &'a dyn Storage) -> Result<Self> {
        let room = Room {
            storage,
            taken: Mutex::default(),
        };
        let len = storage.len()?;
        storage.check_len(len).map_err(no_room)?;
        for range in regions(len) {
            room.add(range)?;
        }
        Ok(room)
    }

    /// Takes the room of what will be written to `range`.
    ///
    /// # Errors
    /// As [`for_marker`](Room::for_marker).
    pub(crate) fn add(&self, range: Range<u64>) -> Result<()> {
        self.keep_note(self.storage.reserve(range))
    }

    /// Takes the room of a new length of the storage.
    ///
    /// # Errors
    /// As [`for_marker`](Room::for_marker).
    pub(crate) fn add_len(&self, len: u64) -> Result<()> {
        self.keep_note(self.storage.reserve_len(len))
            .map_err(|error| match error.kind() {
                // Only where zeros take space is any reserved for a length.
                ErrorKind::NoSpace if !error.is_too_long() => error
                    .leaving(TargetState::Untouched)
                    .advise("the target is untouched; make room where the target is stored")
                    .or_advise(Advice::SparseAllocation),
                _ => error,
            })
    }

    /// The target.
    pub(crate) fn storage(&self) -> &'a dyn Storage {
        self.storage
    }

    /// Leaves all of it taken: the marker is set.
    pub(crate) fn keep(self) {
        self.lock().clear();
    }

    fn keep_note(&self, reserved: Result<Vec<Range<u64>>>) -> Result<()> {
        let reserved = reserved.map_err(no_room)?;
        let mut taken = self.lock();
        for range in reserved {
            if let Some(last) = taken.last_mut().filter(|last| last.end == range.start) {
                last.end = range.end;
            } else if taken.len() < NOTES_MOST {
                // More than this stays taken.
                taken.push(range);
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Range<u64>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let taken = std::mem::take(&mut *self.lock());
        if !taken.is_empty() {
            // The error that led here says more than one from cleaning up.
            let _ = self.storage.give_back(&taken);
        }
    }
}

/// Says what to do about a target without room, which is untouched.
fn no_room(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NoSpace if error.is_too_long() => too_long(error),
        ErrorKind::NoSpace => error
            .leaving(TargetState::Untouched)
            .advise("the target is untouched; make room where the target is stored"),
        _ => error,
    }
}

/// Bounds the memory that the notes take: 32 MiB, 16 bytes each.
const NOTES_MOST: usize = 2 << 20;

//! The two headers: which one is current, and how it is replaced.

use super::format::{HEADER_OFFSETS, HEADER_VERSION, Header, LOG_VERSION};
use super::structure::read_array;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// The current header and where it lies.
#[derive(Debug, Clone)]
pub(super) struct Headers {
    current: Header,
    slot: usize,
    damaged: bool,
    /// Whether the header that is not current may not be on the medium as a whole.
    spare_pending: bool,
}

impl Headers {
    /// Chooses the current header: the only valid one, or the one with the greater sequence
    /// number. Two headers that are equal in every byte count as one.
    ///
    /// # Errors
    /// `Malformed` when no header, or none of two, is current; `Unsupported` for a version of
    /// header or log that is not defined; `Io`.
    pub(super) fn read(storage: &dyn Storage) -> Result<Self> {
        let mut found = [None, None];
        for (offset, found) in HEADER_OFFSETS.into_iter().zip(&mut found) {
            *found = Header::decode(&*read_array(storage, offset, "header")?);
        }
        let damaged = found.iter().any(Option::is_none);
        let (current, slot) = match found {
            [None, None] => {
                return Err(Error::malformed("neither of the two headers is valid")
                    .in_field("header")
                    .at_offset(HEADER_OFFSETS[0]));
            }
            [Some(first), None] => (first, 0),
            [None, Some(second)] => (second, 1),
            [Some(first), Some(second)] if first.sequence == second.sequence => {
                if first != second {
                    return Err(Error::malformed(
                        "two different headers have the same sequence number",
                    )
                    .in_field("sequence_number")
                    .at_offset(HEADER_OFFSETS[1]));
                }
                (first, 0)
            }
            [Some(first), Some(second)] if first.sequence > second.sequence => (first, 0),
            [Some(_), Some(second)] => (second, 1),
        };
        let headers = Headers {
            current,
            slot,
            damaged,
            spare_pending: false,
        };
        headers.check_versions()?;
        Ok(headers)
    }

    /// The current header.
    pub(super) fn current(&self) -> &Header {
        &self.current
    }

    /// Whether one of the two is not valid.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Makes all that was written to the file durable, headers too.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(super) fn barrier(&mut self, storage: &dyn Storage) -> Result<()> {
        storage.sync()?;
        self.spare_pending = false;
        Ok(())
    }

    /// Puts a changed header into the slot that is not current, and makes it durable. At every
    /// moment one valid header is there, because only one is on its way at a time.
    ///
    /// # Errors
    /// `Unsupported` when the sequence number has no successor; `Io`.
    pub(super) fn update(
        &mut self,
        storage: &dyn Storage,
        change: impl Fn(&mut Header),
    ) -> Result<()> {
        if self.spare_pending {
            self.barrier(storage)?;
        }
        let (offset, header) = self.succeed(change)?;
        storage.write_all_at(&*header.encode(), offset)?;
        self.barrier(storage)
    }

    /// As [`update`](Headers::update), and then once more into the other slot, so that either
    /// header will do. The second one is durable after the next barrier; until then the first
    /// one counts.
    ///
    /// # Errors
    /// As [`update`](Headers::update).
    pub(super) fn update_both(
        &mut self,
        storage: &dyn Storage,
        change: impl Fn(&mut Header),
    ) -> Result<()> {
        self.update(storage, &change)?;
        let (offset, header) = self.succeed(&change)?;
        storage.write_all_at(&*header.encode(), offset)?;
        self.spare_pending = true;
        self.damaged = false;
        Ok(())
    }

    /// Takes a changed header as current and says where it belongs; nothing is written.
    ///
    /// # Errors
    /// `Unsupported` when the sequence number has no successor.
    pub(super) fn succeed(&mut self, change: impl Fn(&mut Header)) -> Result<(u64, Header)> {
        let mut next = self.current.clone();
        change(&mut next);
        next.log_version = LOG_VERSION;
        next.sequence = next.sequence.checked_add(1).ok_or_else(spent)?;
        self.slot = 1 - self.slot;
        self.current = next.clone();
        Ok((HEADER_OFFSETS[self.slot], next))
    }

    /// Refuses a header whose sequence number leaves no room for the updates of a session.
    ///
    /// # Errors
    /// `Unsupported`.
    pub(super) fn check_room(&self) -> Result<()> {
        match self.current.sequence.checked_add(SESSION_UPDATES) {
            Some(_) => Ok(()),
            None => Err(spent().at_offset(HEADER_OFFSETS[self.slot])),
        }
    }

    fn check_versions(&self) -> Result<()> {
        let header = &self.current;
        let offset = HEADER_OFFSETS[self.slot];
        if header.version != HEADER_VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("header version {} is not known", header.version),
            )
            .in_field("version")
            .at_offset(offset));
        }
        if !header.log.is_nil() && header.log_version != LOG_VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("log version {} is not known", header.log_version),
            )
            .in_field("log_version")
            .at_offset(offset));
        }
        Ok(())
    }
}

/// More header updates than any session makes.
const SESSION_UPDATES: u64 = 1 << 40;

fn spent() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the header's sequence number has no room left",
    )
    .in_field("sequence_number")
    .advise("copy the disk into a new file")
}

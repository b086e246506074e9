//! The regions that a change map names, held against the disk.

use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::manifest::{Gathered, RangeSet};

/// Regions of a disk, gathered in any order in bounded memory.
#[derive(Debug)]
pub(super) struct Regions {
    gathered: Gathered,
    disk_len: u64,
    /// How many bytes may lie behind the disk, and are left out.
    footer: u64,
}

impl Regions {
    /// None yet, of a disk of `disk_len` bytes.
    pub(super) fn new(disk_len: u64) -> Self {
        Regions {
            gathered: Gathered::new(Limits::default().ranges_bytes()),
            disk_len,
            footer: 0,
        }
    }

    /// As [`new`](Regions::new), of a blob with a footer of as many bytes behind the disk.
    pub(super) fn with_footer(disk_len: u64, footer: u64) -> Self {
        Regions {
            footer,
            ..Regions::new(disk_len)
        }
    }

    pub(super) fn disk_len(&self) -> u64 {
        self.disk_len
    }

    /// Adds a region; an empty one adds nothing.
    ///
    /// # Errors
    /// `Malformed` for one that ends beyond the disk.
    pub(super) fn add(&mut self, offset: u64, len: u64) -> Result<()> {
        let most = self.disk_len.saturating_add(self.footer);
        let end = offset.checked_add(len).filter(|end| *end <= most);
        let Some(end) = end else {
            let disk_len = self.disk_len;
            let what = format!(
                "a change map names {len:#x} bytes at {offset:#x}: the disk ends at {disk_len:#x}"
            );
            return Err(Error::malformed(what).in_field("change_map"));
        };
        let range = offset.min(self.disk_len)..end.min(self.disk_len);
        if !range.is_empty() {
            self.gathered.insert(range);
        }
        Ok(())
    }

    /// Refuses the map of a disk that is shorter than this one.
    ///
    /// # Errors
    /// `Malformed`.
    pub(super) fn require_len(&self, len: u64) -> Result<()> {
        match len < self.disk_len {
            true => Err(self.incomplete(len)),
            false => Ok(()),
        }
    }

    /// The error of a map that tells of the first `len` bytes only.
    pub(super) fn incomplete(&self, len: u64) -> Error {
        let disk_len = self.disk_len;
        let what = format!("a change map covers {len:#x} bytes: the disk has {disk_len:#x}");
        Error::malformed(what).in_field("change_map")
    }

    /// All that was added, and perhaps more.
    pub(super) fn into_set(self) -> RangeSet {
        let disk_len = self.disk_len;
        RangeSet::of(self.gathered.into_set().inside(0..disk_len))
    }
}

//! What a look at a disk finds, one thing after the other.

use std::borrow::Cow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::units::format_size;

/// Something that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Prerequisite {
    /// What was checked, in a word or two.
    pub check: Cow<'static, str>,
    /// Of which disk.
    pub disk: String,
    /// What was found; where it does not hold, what is wrong.
    pub text: String,
    /// It holds.
    pub holds: bool,
    /// What the disk will take, where that was looked at on this host.
    #[serde(skip)]
    pub(in crate::failback) room: Option<Room>,
    /// A marker of an unfinished sync is in the way; its guest may take it away.
    #[serde(skip)]
    pub(super) is_marker: bool,
}

impl Prerequisite {
    /// Something does not hold.
    pub(super) fn failed(check: &'static str, disk: &str, text: String) -> Self {
        Prerequisite {
            check: check.into(),
            disk: disk.to_owned(),
            text,
            holds: false,
            room: None,
            is_marker: false,
        }
    }
}

/// What is known of a disk that is to be read.
pub(super) struct Looked {
    pub disk_bytes: u64,
    /// How much of it holds data; `None` where that cannot be told from here.
    pub allocated_bytes: Option<u64>,
}

/// What a disk will take of a file system of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::failback) struct Room {
    filesystem: Option<u64>,
    directory: PathBuf,
    free: u64,
    /// What it takes for sure; 0 where that is not known, or may be less.
    needed: u64,
}

/// Says where several disks, each of which has room, have not all of them: in words, one for each
/// file system.
pub(in crate::failback) fn crowded<'a>(rooms: impl Iterator<Item = &'a Room>) -> Vec<String> {
    let mut sums: Vec<(&Room, u64, usize)> = Vec::new();
    for room in rooms.filter(|room| room.needed > 0 && room.filesystem.is_some()) {
        match sums
            .iter_mut()
            .find(|it| it.0.filesystem == room.filesystem)
        {
            Some(sum) => (sum.1, sum.2) = (sum.1.saturating_add(room.needed), sum.2 + 1),
            None => sums.push((room, room.needed, 1)),
        }
    }
    let crowded = sums
        .into_iter()
        .filter(|(room, sum, count)| *count > 1 && *sum > room.free);
    let said = crowded.map(|(room, sum, count)| {
        format!(
            "{count} disks need {} of the file system of {}, which has {} free",
            format_size(sum),
            room.directory.display(),
            format_size(room.free)
        )
    });
    said.collect()
}

/// The checks of one disk, as they are made.
pub(super) struct List<'a> {
    pub disk: &'a str,
    pub all: &'a mut Vec<Prerequisite>,
}

impl List<'_> {
    /// It is as it should be.
    pub(super) fn holds(&mut self, check: &'static str, text: String) {
        self.push(check, text, true);
    }

    /// It is not, and why.
    pub(super) fn fails(&mut self, check: &'static str, text: String) {
        self.push(check, text, false);
    }

    /// Whether two lengths are one.
    pub(super) fn size(&mut self, check: &'static str, wanted: u64, found: u64) {
        match wanted == found {
            true => self.holds(check, format!("{found} bytes")),
            false => self.fails(check, format!("{found} bytes instead of {wanted}")),
        }
    }

    /// Whether there is room for all that the source holds; where some of it is there, a delta may
    /// need less.
    pub(super) fn room(
        &mut self,
        check: &'static str,
        free: Result<Option<u64>>,
        at: &Path,
        source: &Looked,
        some_is_there: bool,
    ) {
        let free = match free {
            Ok(Some(free)) => free,
            Ok(None) => return,
            Err(error) => return self.fails(check, error.to_string()),
        };
        let needed = source.allocated_bytes.unwrap_or(source.disk_bytes);
        let text = format!(
            "{} free, {} at most needed",
            format_size(free),
            format_size(needed)
        );
        let is_firm = !some_is_there && source.allocated_bytes.is_some();
        let room = Room {
            filesystem: std::fs::metadata(at).ok().map(|facts| facts.dev()),
            directory: at.to_owned(),
            free,
            needed: if is_firm { needed } else { 0 },
        };
        // One that needs more stops, and goes back. So does a copy of a disk whose data is not
        // known here.
        self.push(check, text, free >= needed || !is_firm);
        if let Some(last) = self.all.last_mut() {
            last.room = Some(room);
        }
    }

    /// What a look brought; an error is a finding.
    pub(super) fn take<T>(&mut self, check: &'static str, looked: Result<T>) -> Option<T> {
        match looked {
            Ok(value) => {
                self.holds(check, "yes".to_owned());
                Some(value)
            }
            Err(error) => {
                self.fails(check, error.to_string());
                if let (Some(last), true) = (self.all.last_mut(), is_marker(&error)) {
                    last.is_marker = true;
                }
                None
            }
        }
    }

    fn push(&mut self, check: &'static str, text: String, holds: bool) {
        self.all.push(Prerequisite {
            holds,
            ..Prerequisite::failed(check, self.disk, text)
        });
    }
}

fn is_marker(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::MarkerInData | ErrorKind::Incomplete
    )
}

#[cfg(test)]
#[path = "../../../tests/inside/failback/findings.rs"]
mod tests;

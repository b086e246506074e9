//! What a look at a disk finds, one thing after the other.

use super::check::Prerequisite;
use crate::error::Result;
use crate::units::format_size;

/// What is known of a disk that is to be read.
pub(super) struct Looked {
    pub disk_bytes: u64,
    /// How much of it holds data; `None` where that cannot be told from here.
    pub allocated_bytes: Option<u64>,
}

/// The checks of one disk, as they are made.
pub(super) struct List<'a> {
    pub disk: &'a str,
    pub all: &'a mut Vec<Prerequisite>,
}

impl List<'_> {
    /// It is as it should be.
    pub fn holds(&mut self, check: &'static str, text: String) {
        self.push(check, text, true);
    }

    /// It is not, and why.
    pub fn fails(&mut self, check: &'static str, text: String) {
        self.push(check, text, false);
    }

    /// Whether two lengths are one.
    pub fn size(&mut self, check: &'static str, wanted: u64, found: u64) {
        match wanted == found {
            true => self.holds(check, format!("{found} bytes")),
            false => self.fails(check, format!("{found} bytes instead of {wanted}")),
        }
    }

    /// Whether there is room for all that the source holds; where some of it is there, a delta may
    /// need less.
    pub fn room(
        &mut self,
        check: &'static str,
        free: Result<Option<u64>>,
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
        // One that needs more stops, and goes back. So does a copy of a disk of which nobody says
        // here how much of it holds data.
        match free >= needed || some_is_there || source.allocated_bytes.is_none() {
            true => self.holds(check, text),
            false => self.fails(check, text),
        }
    }

    /// What a look brought; an error is a finding.
    pub fn take<T>(&mut self, check: &'static str, looked: Result<T>) -> Option<T> {
        match looked {
            Ok(value) => {
                self.holds(check, "yes".to_owned());
                Some(value)
            }
            Err(error) => {
                self.fails(check, error.to_string());
                None
            }
        }
    }

    fn push(&mut self, check: &'static str, text: String, holds: bool) {
        self.all.push(Prerequisite {
            check: check.into(),
            disk: self.disk.to_owned(),
            text,
            holds,
        });
    }
}

//! The bytes under a marker that is forgotten: which are known, and what is written in place of it.

use std::ops::Range;

use super::state::is_of_forget;
use crate::advice::Advice;
use crate::delta::Delta;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Work;
use crate::setters::setters;
use crate::storage::{Access, Storage};
use crate::sync::endpoint::target::Target;
use crate::sync::marker::format::{Marker, SECTOR, can_carry, regions};
use crate::sync::marker::redo::Redo;
use crate::sync::marker::set_lift::sentinel_len;

/// What is known of the bytes under a marker whose log is lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuardedBytes {
    /// The first bytes of the target, as many as the marker guards there.
    pub head: Option<Vec<u8>>,
    /// The last bytes that the marker guards, as many as it guards there.
    pub tail: Option<Vec<u8>>,
    /// Nothing is known: sectors that hold a marker become zeros. Not with `head` or `tail`.
    pub zeros: bool,
    /// Also gives up a marker that holds the target.
    pub held: bool,
}

setters! {
    GuardedBytes:
    /// Replaces [`GuardedBytes::head`].
    with_head, head: Option<Vec<u8>>;
    /// Replaces [`GuardedBytes::tail`].
    with_tail, tail: Option<Vec<u8>>;
    /// Replaces [`GuardedBytes::zeros`].
    with_zeros, zeros: bool;
    /// Replaces [`GuardedBytes::held`].
    with_held, held: bool;
}

/// What a run of this that did not finish has saved of the first page, before it wrote there.
pub(super) struct FirstPage(pub(super) Vec<u8>);

impl FirstPage {
    /// From the log that such a run has left; empty where there is none, or where it was given
    /// bytes for a sector that is a marker still.
    pub(super) fn find(target: &Target, storage: &dyn Storage, work: &Work) -> Result<Self> {
        let limits = &target.image_options().limits;
        let none = FirstPage(Vec::new());
        let Some(file) = target.redo_log().open_own_if_there(Access::Read)? else {
            return Ok(none);
        };
        let Ok(log) = Delta::from_storage(file, limits) else {
            return Ok(none);
        };
        if !is_of_forget(&log) {
            return Ok(none);
        }
        let redo = Redo::load(&log, work, &|_| Ok(()))?;
        let (job, len) = (redo.job()?, storage.len()?);
        let is_same = job.target_len == len && job.is_for(storage)?;
        let mut page = match redo.saved.into_iter().next() {
            Some((0, head)) if is_same => head,
            _ => return Ok(none),
        };
        page.truncate(sentinel_len(len));
        let mut found = vec![0; page.len()];
        storage.read_exact_at(&mut found, 0)?;
        let mut sectors = (0u64..).step_by(SECTOR).zip(found.chunks(SECTOR));
        let first = sectors.find(|(at, sector)| Marker::is_marker(sector, *at));
        let page = FirstPage(page);
        Ok(match first {
            Some((at, _)) if !page.is_saved(at) => page,
            _ => none,
        })
    }

    /// Whether bytes were saved for the sector at `offset`, which was no marker then.
    pub(super) fn is_saved(&self, offset: u64) -> bool {
        let at = index(offset);
        let sector = self.0.get(at..(at + SECTOR).min(self.0.len()));
        sector.is_some_and(|sector| sector.iter().any(|byte| *byte != 0))
    }
}

/// A range of a target that a marker covers, or covered.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) range: Range<u64>,
    /// What of it is a marker now.
    pub(super) marked: Vec<Range<u64>>,
}

/// Bytes for one place of the storage.
pub(super) struct Write {
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) is_given: bool,
}

impl Write {
    pub(super) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.bytes.len() as u64
    }
}

impl Part {
    /// Head and tail, as far as the storage now reaches.
    pub(super) fn all(
        marker: &Marker,
        storage: &dyn Storage,
        page: &FirstPage,
    ) -> Result<Vec<Part>> {
        let len = storage.len()?;
        // A guest may have written any length.
        let marked_len = match can_carry(marker.target_len) {
            true => marker.target_len,
            false => len,
        };
        let mut parts = Vec::new();
        for (name, range) in ["head", "tail"].into_iter().zip(regions(marked_len)) {
            let range = range.start.min(len)..range.end.min(len);
            let mut found = vec![0; index(range.end - range.start)];
            storage.read_exact_at(&mut found, range.start)?;
            let wanted = marker.fill(range.clone());
            let sectors = (range.start..).step_by(SECTOR);
            let mut marked: Vec<Range<u64>> = Vec::new();
            for ((at, found), wanted) in
                sectors.zip(found.chunks(SECTOR)).zip(wanted.chunks(SECTOR))
            {
                // The last sector may be a part of one, which is no marker by itself.
                let is_marker = found == wanted || Marker::is_marker(found, at);
                if !is_marker || page.is_saved(at) {
                    continue;
                }
                let end = at + found.len() as u64;
                match marked.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => marked.push(at..end),
                }
            }
            if !range.is_empty() {
                parts.push(Part {
                    name,
                    range,
                    marked,
                });
            }
        }
        Ok(parts)
    }

    pub(super) fn given<'a>(&self, bytes: &'a GuardedBytes) -> Option<&'a [u8]> {
        match self.name {
            "head" => bytes.head.as_deref(),
            _ => bytes.tail.as_deref(),
        }
    }

    /// What is written there: all that is given, or zeros where a marker is.
    pub(super) fn writes(&self, bytes: &GuardedBytes) -> Vec<Write> {
        if let Some(given) = self.given(bytes) {
            return vec![Write {
                offset: self.range.start,
                bytes: given.to_vec(),
                is_given: true,
            }];
        }
        let zeros = self.marked.iter().map(|range| Write {
            offset: range.start,
            bytes: vec![0; index(range.end - range.start)],
            is_given: false,
        });
        zeros.collect()
    }
}

/// Refuses bytes of another length than the marker guards, and to leave a marker where it is.
pub(super) fn refuse_gaps(parts: &[Part], bytes: &GuardedBytes) -> Result<()> {
    let refuse = |what: String| Error::new(ErrorKind::InvalidInput, what);
    if bytes.zeros && (bytes.head.is_some() || bytes.tail.is_some()) {
        let what = "zeros for all bytes under the marker go with no bytes that are given";
        return Err(refuse(what.to_owned()));
    }
    for (name, given) in [("head", &bytes.head), ("tail", &bytes.tail)] {
        let Some(given) = given else { continue };
        let range = parts.iter().find(|part| part.name == name);
        let range = range.map_or(0..0, |part| part.range.clone());
        if range.end - range.start != given.len() as u64 {
            let what = format!(
                "the {name} under the marker has {} bytes at {:#x}, and {} were given",
                range.end - range.start,
                range.start,
                given.len()
            );
            return Err(refuse(what).advise("give a file of that length"));
        }
    }
    let is_missing =
        |part: &&Part| part.given(bytes).is_none() && !part.marked.is_empty() && !bytes.zeros;
    let missing: Vec<String> = parts
        .iter()
        .filter(is_missing)
        .map(|Part { range, .. }| {
            let len = range.end - range.start;
            format!("the {len} bytes at {:#x}", range.start)
        })
        .collect();
    let give = match (missing.len(), parts.iter().find(is_missing)) {
        (_, None) => return Ok(()),
        (1, Some(part)) if part.name == "head" => Advice::GiveHead,
        (1, _) => Advice::GiveTail,
        _ => Advice::GiveHeadAndTail,
    };
    let what = format!(
        "the bytes under the marker were in the log, and are lost with it: {}",
        missing.join(" and ")
    );
    Err(refuse(what)
        .advise(give)
        .or_advise(Advice::ZeroGuarded)
        .or_advise(
            "then sync again, because the rest of the target may be a mixture of old and new",
        ))
}

pub(super) fn ranges(writes: &[Write], is_given: bool) -> Vec<Range<u64>> {
    let wanted = writes.iter().filter(|write| write.is_given == is_given);
    wanted.map(Write::range).collect()
}

/// Of at most a MiB or so.
pub(super) fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

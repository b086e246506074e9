//! What changed from one snapshot to another, as far as the service can be believed.

use std::ops::Range;

use super::lists::{List, Lister};
use super::page_blob::{PageBlob, is_of_blob};
use super::ranges::{in_one_only, joined};
use crate::error::{Error, Result};
use crate::location::WebAddress;

/// What changed from one snapshot to another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlobChanges {
    /// Byte ranges of the blob that may differ, ascending and disjoint; all others are equal.
    Known(Vec<Range<u64>>),
    /// The service cannot tell, for this reason.
    Unknown(String),
}

/// What changed from `old` to `newer`.
///
/// A list of changes alone is not believed. What one snapshot has allocated and the other has not
/// counts as changed, whatever the list says: services exist that ignore which snapshot they were
/// asked about, and answer with what is allocated, without what was cleared. Where the service can
/// be asked by a time, it is asked by one that no snapshot has, and must refuse.
///
/// # Errors
/// `SourceChanged`, `Cancelled`.
pub fn changes_since(newer: &PageBlob, old: &PageBlob) -> Result<BlobChanges> {
    let older = old.blob().named();
    let unknown = |why: &str| Ok(BlobChanges::Unknown(format!("{older}: {why}")));
    let or_unknown = |error: Error| match is_of_blob(&error) {
        true => Err(error),
        false => Ok(BlobChanges::Unknown(error.to_string())),
    };
    if old.blob().identity().len != newer.blob().identity().len {
        return unknown("the disk had another length");
    }
    let lister = newer.lister();
    let found = match changed(&lister, newer.blob().named(), older) {
        Ok(Some(found)) => found,
        Ok(None) => return unknown("the service ignores which snapshot it is asked about"),
        Err(error) => return or_unknown(error),
    };
    let lists = old.lister().list(&List::Allocated).and_then(|before| {
        let now = lister.list(&List::Allocated)?;
        Ok(in_one_only(&before, &now))
    });
    match lists {
        Ok(other) => Ok(BlobChanges::Known(joined([found, other].concat()))),
        Err(error) => or_unknown(error),
    }
}

/// The service's list of changes; `None` where it has shown that it makes none.
fn changed(
    lister: &Lister<'_>,
    newer: &WebAddress,
    older: &WebAddress,
) -> Result<Option<Vec<Range<u64>>>> {
    let is_same_blob = (newer.host(), newer.path()) == (older.host(), older.path());
    match older.snapshot().filter(|_| is_same_blob) {
        Some(_) if lister.list(&List::SinceTime(NO_SNAPSHOT)).is_ok() => Ok(None),
        Some(time) => lister.list(&List::SinceTime(time)).map(Some),
        None => lister.list(&List::SinceAddress(older)).map(Some),
    }
}

/// A time at which there was no service.
const NO_SNAPSHOT: &str = "1990-01-01T00:00:00.0000000Z";

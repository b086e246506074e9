//! What is noted behind the rows of a manifest: intents, states, sources, signatures.

use std::sync::Arc;

use super::format::{intent, signature, stamp};
use super::ranges::RangeSet;
use super::read::Manifest;
use super::release::Release;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::storage::{SourceIdentity, SourceStamp, Storage};

/// What stands behind the body.
#[derive(Clone, Default)]
pub(super) struct Notes {
    /// The state of the disk's file or device that the manifest describes, where that is known.
    pub(super) fingerprint: Option<[u8; 32]>,
    /// The source whose disk the manifest describes, where that is known.
    pub(super) source: Option<SourceIdentity>,
    /// What the signature of the source's manifest stated, where there was one.
    pub(super) release: Option<Release>,
    pub(super) in_doubt: RangeSet,
}

/// Notes in the manifest that `file` holds which state `disk` is in. Durable when it returns.
///
/// # Errors
/// As [`PreparedFile::commit_for`].
pub(super) fn note_state(
    file: &Arc<dyn Storage>,
    disk: &dyn Storage,
    limits: &Limits,
) -> Result<()> {
    if let Some(fingerprint) = fingerprint(disk)? {
        let root = Manifest::from_storage(file.clone(), limits)?.root();
        let record = stamp::encode(&stamp::OF_DISK, root.as_bytes(), &fingerprint);
        file.write_all_at(&record, file.len()?)?;
    }
    file.sync()
}

/// Notes in the manifest that `file` holds which source has the disk that it describes, and the
/// signature of that source's manifest. Not durable.
///
/// # Errors
/// `Malformed`, `LimitExceeded` for what `file` holds; `Io`, `NoSpace`.
pub(crate) fn note_source(
    file: &Arc<dyn Storage>,
    source: Option<&SourceIdentity>,
    signature: Option<&str>,
    limits: &Limits,
) -> Result<()> {
    if source.is_none() && signature.is_none() {
        return Ok(());
    }
    let manifest = Manifest::from_storage(file.clone(), limits)?;
    if let Some(source) = source {
        let record = stamp::encode(&stamp::OF_SOURCE, manifest.root().as_bytes(), &source.0);
        file.write_all_at(&record, file.len()?)?;
    }
    signature.map_or(Ok(()), |text| manifest.append_signature(text))
}

/// What is noted after the body; what cannot be read there puts everything in doubt.
pub(super) fn read_notes(
    manifest: &Manifest,
    storage: &dyn Storage,
    limits: &Limits,
) -> Result<Notes> {
    let start = manifest.body_end();
    let Some(len) = storage.len()?.checked_sub(start) else {
        return Err(Error::malformed("the file is cut short")
            .in_field("body_end")
            .at_path(storage.path()));
    };
    let mut notes = Notes {
        in_doubt: RangeSet::everything(),
        ..Notes::default()
    };
    let Some(len) = usize::try_from(len)
        .ok()
        .filter(|_| len <= limits.table_bytes)
    else {
        return Ok(notes);
    };
    let mut bytes = vec![0; len];
    storage.read_exact_at(&mut bytes, start)?;
    let root = manifest.root();
    let root = root.as_bytes();
    let mut rest = &bytes[..];
    let mut ranges = Vec::new();
    while !rest.is_empty() {
        if let Some((in_doubt, after)) = intent::decode(rest, root) {
            ranges.extend(in_doubt);
            rest = after;
        } else if let Some((fingerprint, after)) = stamp::decode(&stamp::OF_DISK, rest, root) {
            notes.fingerprint = Some(fingerprint);
            rest = after;
        } else if let Some((source, after)) = stamp::decode(&stamp::OF_SOURCE, rest, root) {
            notes.source = Some(SourceIdentity(source));
            rest = after;
        } else if let Some((text, after)) = signature::decode(rest, root) {
            notes.release = Release::stated_by(text);
            rest = after;
        } else {
            return Ok(notes);
        }
    }
    notes.in_doubt = RangeSet::of(ranges);
    Ok(notes)
}

pub(super) fn fingerprint(disk: &dyn Storage) -> Result<Option<[u8; 32]>> {
    let stamp = SourceStamp::take(disk)?;
    Ok(stamp.and_then(|stamp| stamp.fingerprint()))
}

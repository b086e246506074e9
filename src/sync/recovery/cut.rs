//! Marked targets whose storage has become shorter than their log allows.

use crate::delta::{Header, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::sync::marker::format::Marker;
use crate::sync::marker::redo::Redo;

/// A marked target that lost bytes at its end, which nothing brings back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sync) struct Cut {
    /// The marker that it carries.
    pub marker: Marker,
    /// The least length that its log allows, in bytes.
    least: u64,
    /// Its length, in bytes.
    len: u64,
}

impl Cut {
    /// Compares `storage`, which carries `marker`, with its log. The job may have changed the
    /// length already or not, so all between the length at its start and its last one is allowed. A
    /// longer storage is not refused: it has all bytes that count.
    ///
    /// # Errors
    /// `Io`, `Malformed`.
    pub(crate) fn find(
        storage: &dyn Storage,
        marker: &Marker,
        header: &Header,
        redo: &Redo,
    ) -> Result<Option<Cut>> {
        let start = match header.purpose {
            Purpose::Sidecar => header.base_len,
            // Guest bytes.
            _ => redo.job()?.target_len,
        };
        let last = redo.storage_len.unwrap_or(start);
        let least = match redo.final_state {
            // It was whole when its sidecar was closed.
            Some(_) => last,
            None => start.min(last),
        };
        let len = storage.len()?;
        Ok((len < least).then(|| Cut {
            marker: marker.clone(),
            least,
            len,
        }))
    }

    /// The error for such a target.
    pub(crate) fn refusal(&self) -> Error {
        let Cut { marker, least, len } = self;
        let what = format!(
            "the target is incomplete, and was cut after it was marked: it is {len} bytes long, \
             at least {least} are expected, and the {} bytes between are missing",
            least - len
        );
        Error::new(ErrorKind::Incomplete, what)
            .advise("the missing bytes are lost: restore the disk to its length from a copy")
            .or_advise(marker.forget())
    }
}

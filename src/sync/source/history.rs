//! What a source knows of its earlier states.

use std::ops::Range;

use crate::error::Result;
use crate::location::WebAddress;
use crate::progress::CancelToken;
use crate::storage::SourceIdentity;

/// What a source knows of its earlier states.
pub trait History: Send + Sync {
    /// What of the disk may have changed since `older`, an earlier snapshot of it, which must be
    /// the one that `holds` names, where that is given: guest bytes, ascending and disjoint.
    ///
    /// # Errors
    /// `SourceChanged`, `Cancelled`. An unknown state is no error.
    fn changed_since(
        &self,
        older: &WebAddress,
        holds: Option<&SourceIdentity>,
        cancel: &CancelToken,
    ) -> Result<ChangedSince>;
}

/// What of a disk may have changed since an earlier snapshot of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangedSince {
    /// Guest bytes that may differ, ascending and disjoint; all others are equal.
    Known(Vec<Range<u64>>),
    /// Unknown, for this reason.
    Unknown(String),
}

//! How sources and targets are opened, and what comes of it.

use std::sync::Arc;

use super::allocation::Allocation;
use crate::storage::HostFile;
use crate::storage::Storage;

/// How a source is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SourceOptions {
    /// Bypasses the page cache.
    pub direct: bool,
    /// Reads also while another program writes to it; what is read may then never have been there
    /// at one moment.
    pub allow_writers: bool,
    /// Reads a disk that begins with the marker of an unfinished sync: the marker is data that the
    /// disk's own guest wrote.
    pub marker_is_data: bool,
}

/// How a target is opened.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct TargetOptions {
    /// Reads bypass the page cache; writes go through it.
    pub direct: bool,
    /// How zeros are stored.
    pub allocation: Allocation,
    /// Refuses a file with several names, because replacing it would separate them.
    pub single_link: bool,
    /// What will be read, to be refused as target.
    pub sources: Vec<HostFile>,
}

/// A source or target, open and locked.
#[derive(Clone)]
#[non_exhaustive]
pub struct Opened {
    /// The bytes. The locks last as long as this does.
    pub storage: Arc<dyn Storage>,
    /// What the path led to, with its symbolic links resolved.
    pub host: HostFile,
    /// Dangers that are no errors: locks that the file system does not have, other users of a
    /// source.
    pub warnings: Vec<String>,
}

opaque!(Opened);

impl SourceOptions {
    /// Replaces [`SourceOptions::direct`].
    #[must_use]
    pub fn with_direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// Replaces [`SourceOptions::allow_writers`].
    #[must_use]
    pub fn with_allow_writers(mut self, allow: bool) -> Self {
        self.allow_writers = allow;
        self
    }

    /// Replaces [`SourceOptions::marker_is_data`].
    #[must_use]
    pub fn with_marker_is_data(mut self, is_data: bool) -> Self {
        self.marker_is_data = is_data;
        self
    }
}

impl TargetOptions {
    /// Replaces [`TargetOptions::direct`].
    #[must_use]
    pub fn with_direct(mut self, direct: bool) -> Self {
        self.direct = direct;
        self
    }

    /// Replaces [`TargetOptions::allocation`].
    #[must_use]
    pub fn with_allocation(mut self, allocation: Allocation) -> Self {
        self.allocation = allocation;
        self
    }

    /// Replaces [`TargetOptions::single_link`].
    #[must_use]
    pub fn with_single_link(mut self, single: bool) -> Self {
        self.single_link = single;
        self
    }

    /// Adds to [`TargetOptions::sources`].
    #[must_use]
    pub fn with_source(mut self, source: HostFile) -> Self {
        self.sources.push(source);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_choice_leaves_the_others_as_they_were_made() {
        let source = SourceOptions::default()
            .with_allow_writers(true)
            .with_direct(true);
        assert!(source.direct && source.allow_writers);
        let target = TargetOptions::default()
            .with_allocation(Allocation::Full)
            .with_direct(true);
        assert!(target.direct && target.allocation == Allocation::Full);
    }
}

//! How images are opened.

use std::sync::Arc;

use super::gate::{Closed, DenseGate, ParentGate};
use super::{Format, SizePolicy};
use crate::limits::Limits;
use crate::storage::{Dense, Storage};

/// How images are opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ImageOptions {
    /// The format; by default the path's extension chooses.
    pub format: Option<Format>,
    /// Bounds on what the file may state.
    pub limits: Limits,
    /// Decides which files may be the parents of a differencing image; by default none may.
    pub gate: Arc<dyn ParentGate>,
    /// Which of the lengths that a VHD states is taken.
    pub size_policy: SizePolicy,
    /// Reads VHDs that break a rule without being ambiguous to read: a wrong footer or header
    /// checksum; two footers that disagree (the one at the end is taken); bytes other than zero
    /// in a sector that the bitmap says was never written (they read as zeros).
    pub lenient: bool,
    /// Reads the holes of the file or device, and of the files that the image names, like all
    /// else; by default what the system calls a hole counts as zeros. Blocks that the image's own
    /// tables leave out stay zeros.
    pub read_holes: bool,
}

impl ImageOptions {
    /// Replaces [`ImageOptions::format`].
    #[must_use]
    pub fn with_format(mut self, format: Format) -> Self {
        self.format = Some(format);
        self
    }

    /// The options for the parent of an image whose tables take `table_bytes` of memory: limits
    /// hold for a chain as a whole.
    pub(crate) fn for_parent(&self, table_bytes: u64) -> Self {
        let mut options = self.clone();
        let left = &mut options.limits.table_bytes;
        *left = left.saturating_sub(table_bytes);
        options
    }

    /// Replaces [`ImageOptions::limits`].
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Replaces [`ImageOptions::gate`].
    #[must_use]
    pub fn with_gate(mut self, gate: Arc<dyn ParentGate>) -> Self {
        self.gate = gate;
        self
    }

    /// Replaces [`ImageOptions::size_policy`].
    #[must_use]
    pub fn with_size_policy(mut self, policy: SizePolicy) -> Self {
        self.size_policy = policy;
        self
    }

    /// Replaces [`ImageOptions::lenient`].
    #[must_use]
    pub fn with_lenient(mut self, lenient: bool) -> Self {
        self.lenient = lenient;
        self
    }

    /// Replaces [`ImageOptions::read_holes`].
    #[must_use]
    pub fn with_read_holes(mut self, read: bool) -> Self {
        self.read_holes = read;
        self
    }

    /// `storage`, and how an image in it is opened, with all that is read of both without holes.
    pub(super) fn dense(&self, storage: Arc<dyn Storage>) -> (Arc<dyn Storage>, ImageOptions) {
        let mut options = self.clone().with_read_holes(false);
        options.gate = Arc::new(DenseGate(self.gate.clone()));
        (Arc::new(Dense::new(storage)), options)
    }
}

impl Default for ImageOptions {
    fn default() -> Self {
        ImageOptions {
            format: None,
            limits: Limits::default(),
            gate: Arc::new(Closed),
            size_policy: SizePolicy::default(),
            lenient: false,
            read_holes: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{FileGate, ImageId, ParentRequest};
    use crate::storage::FileStorage;
    use std::path::Path;

    #[test]
    fn holes_of_an_image_and_of_its_parents_are_read_where_that_is_asked_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let open = || Arc::new(FileStorage::open_read(file.path()).unwrap());
        let options = ImageOptions::default()
            .with_gate(Arc::new(FileGate::new().with_parent(file.path())))
            .with_read_holes(true);
        let (storage, options) = options.dense(open());
        let request = ParentRequest {
            child: Path::new("none"),
            id: ImageId([0; 16]),
            disk_len: 0,
            hints: &[],
        };
        let parents = options.gate.candidates(&request).unwrap();
        assert_eq!((parents.len(), options.read_holes), (1, false));
        for storage in [&storage, &parents[0]] {
            assert_eq!(storage.next_data(5).unwrap(), Some(5..1 << 20));
            assert_eq!(storage.next_data(1 << 20).unwrap(), None);
        }
        assert_eq!(open().next_data(0).unwrap(), None);
    }
}

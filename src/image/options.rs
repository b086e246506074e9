//! How images are opened.

use std::sync::Arc;

use super::gate::{Closed, ParentGate};
use super::{Format, vhd::SizePolicy};
use crate::limits::Limits;

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
}

impl Default for ImageOptions {
    fn default() -> Self {
        ImageOptions {
            format: None,
            limits: Limits::default(),
            gate: Arc::new(Closed),
            size_policy: SizePolicy::default(),
            lenient: false,
        }
    }
}

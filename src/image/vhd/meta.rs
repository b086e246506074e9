//! What of a dynamic file changes when anything but payload changes.

use std::collections::BTreeSet;

use super::format::Footer;
use super::locate::Located;
use super::space::Space;

/// What changes when anything but payload changes.
pub(super) struct Meta {
    pub footer: Footer,
    /// Whether the copy at the head is whole and says the same.
    pub head_good: bool,
    pub space: Space,
    /// Sectors of the table that differ from what the storage holds.
    pub dirty: BTreeSet<u64>,
    /// How much is made ready the next time the file grows.
    pub grow_bytes: u64,
}

impl Meta {
    pub(super) fn new(located: Located) -> Self {
        Meta {
            head_good: located.head_good,
            space: Space::new(located.tail_at, located.data_end),
            footer: located.footer,
            dirty: BTreeSet::new(),
            grow_bytes: MIN_GROW_BYTES,
        }
    }
}

impl Meta {
    /// Whether memory has blocks or space that the storage's table and end do not show.
    pub(super) fn is_ahead(&self) -> bool {
        !self.dirty.is_empty() || self.space.has_slack()
    }
}

/// How much room a file gets when it grows for the first time.
pub(super) const MIN_GROW_BYTES: u64 = 4 << 20;

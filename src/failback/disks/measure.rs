//! How much a disk should hold.

use serde::{Deserialize, Serialize};

use crate::units::BlockSize;

/// How much a disk should hold: what the other side has to know of its disk state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measure {
    /// Length in bytes.
    pub disk_len: u64,
    /// Bytes of the blocks that roots are made of.
    pub block_bytes: u64,
}

impl Measure {
    /// Whether another host may mean it.
    pub(super) fn is_possible(&self) -> bool {
        BlockSize::new(self.block_bytes).is_ok() && i64::try_from(self.disk_len).is_ok()
    }
}

//! The partitions of devices, of which there are none.

use crate::storage::Storage;

/// Nothing is to be done: no target is a device.
pub(crate) fn partition_note(_storage: &dyn Storage) -> Option<String> {
    None
}

//! What moves, where other processes find it.

use crate::error::Result;
pub use crate::meter::Moving;
use crate::storage::Directory;
use crate::storage::small_file;

/// Puts what moves where others look; it need not outlive a crash.
pub(super) fn publish(directory: &dyn Directory, vm: &str, moving: &Moving) -> Result<()> {
    // A process that ends may still say so while the next one has taken over.
    let process = std::process::id().to_string();
    let bytes = serde_json::to_vec(moving).unwrap_or_default();
    small_file::put_for_now(directory, &name(vm), &process, &bytes)
}

/// What was published last; `None` where that is nothing, or unreadable.
pub(super) fn published(directory: &dyn Directory, vm: &str) -> Option<Moving> {
    let bytes = small_file::get(directory, &name(vm), MOST_BYTES).ok()??;
    serde_json::from_slice(&bytes).ok()
}

fn name(vm: &str) -> String {
    format!("{vm}.progress")
}

const MOST_BYTES: u64 = 64 << 10;

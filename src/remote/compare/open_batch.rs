//! A batch that was compared and is not finished.

use std::collections::BTreeMap;

use super::windows::BlockHashes;

/// A batch, with what it waits for.
pub(super) struct OpenBatch {
    /// What the target holds, changed as data comes.
    pub blocks: BlockHashes,
    pub state: BatchState,
    /// Blocks whose pages are to come, and which of them may.
    pub awaited: BTreeMap<u32, u16>,
    /// Tasks that change blocks.
    pub changing: usize,
}

/// What a batch waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchState {
    /// Nothing but data is to come.
    Told,
    /// The source's parts are to come, of these segments.
    Asked(u64),
    /// The target's pages are being hashed.
    Paging,
}

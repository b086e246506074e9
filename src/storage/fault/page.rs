//! One page of bytes, and a digest of it that is made once.

use std::ops::{Deref, Range};
use std::sync::OnceLock;

/// The bytes of a page; clones keep the digest, changes drop it.
#[derive(Debug, Clone)]
pub(super) struct Page {
    bytes: [u8; PAGE_LEN],
    digest: OnceLock<blake3::Hash>,
}

impl Page {
    pub(super) fn new(bytes: [u8; PAGE_LEN]) -> Self {
        Page {
            bytes,
            digest: OnceLock::new(),
        }
    }

    pub(super) fn edit(&mut self, within: Range<usize>) -> &mut [u8] {
        self.digest = OnceLock::new();
        &mut self.bytes[within]
    }

    pub(super) fn digest(&self) -> &blake3::Hash {
        self.digest.get_or_init(|| blake3::hash(&self.bytes))
    }
}

impl Deref for Page {
    type Target = [u8; PAGE_LEN];

    fn deref(&self) -> &[u8; PAGE_LEN] {
        &self.bytes
    }
}

impl PartialEq for Page {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

/// The unit of contents that are shared and compared, in bytes.
pub(super) const PAGE_LEN: usize = 4096;

//! What a manifest says of blocks, asked for by several threads.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use blake3::Hash;

use crate::error::Result;
use crate::manifest::{Group, Manifest};

/// A manifest with the groups at hand that were asked for last: several threads go through it,
/// each in ascending order, and finding and checking a group costs more than its use.
pub(crate) struct Known<'a> {
    manifest: &'a Manifest,
    /// Groups by number; `None` for one that is all zeros.
    recent: Mutex<VecDeque<(u64, Option<Group<'a>>)>>,
}

impl<'a> Known<'a> {
    pub fn new(manifest: &'a Manifest) -> Self {
        Known {
            manifest,
            recent: Mutex::default(),
        }
    }

    /// The manifest itself.
    pub fn manifest(&self) -> &'a Manifest {
        self.manifest
    }

    /// The hash of a block; `None` for zeros, and beyond the end of the disk.
    ///
    /// # Errors
    /// `Malformed` where the manifest is damaged; `Io`.
    pub fn hash(&self, block: u64) -> Result<Option<Hash>> {
        let number = block / GROUP_BLOCKS;
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let held = recent.iter().position(|(held, _)| *held == number);
        let at = match held {
            Some(at) => at,
            None => {
                let group = self.manifest.groups(block..block + 1).next();
                recent.push_front((number, group.transpose()?));
                recent.truncate(RECENT_GROUPS);
                0
            }
        };
        let group = recent.get(at).and_then(|(_, group)| group.as_ref());
        Ok(group.and_then(|group| group.hash(block)))
    }
}

/// Blocks of a manifest's group, and how many groups are held: some for each thread.
const GROUP_BLOCKS: u64 = 256;
const RECENT_GROUPS: usize = 32;

//! What a manifest says of blocks, asked for by several threads.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::hash::Hash;

use crate::error::Result;
use crate::manifest::{Group, Manifest, blocks_of, parent_of};

/// A manifest with the groups at hand that were asked for last: several threads go through it,
/// each in ascending order, and finding and checking a group costs more than its use.
pub(crate) struct Known<'a> {
    manifest: &'a Manifest,
    /// Groups by number; `None` for one that is all zeros.
    recent: Mutex<VecDeque<(u64, Option<Group<'a>>)>>,
}

impl<'a> Known<'a> {
    pub(crate) fn new(manifest: &'a Manifest) -> Self {
        Known {
            manifest,
            recent: Mutex::default(),
        }
    }

    /// The manifest itself.
    pub(crate) fn manifest(&self) -> &'a Manifest {
        self.manifest
    }

    /// The hash of a block; `None` for zeros, and beyond the end of the disk.
    ///
    /// # Errors
    /// `Malformed` where the manifest is damaged; `Io`.
    pub(crate) fn hash(&self, block: u64) -> Result<Option<Hash>> {
        let number = parent_of(block);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let held = recent.iter().position(|(held, _)| *held == number);
        let at = match held {
            Some(at) => at,
            None => {
                // All of the group: a block beyond the disk's end is in one with blocks before it.
                let group = self.manifest.groups(blocks_of(1, number)).next();
                recent.push_front((number, group.transpose()?));
                recent.truncate(RECENT_GROUPS);
                0
            }
        };
        let group = recent.get(at).and_then(|(_, group)| group.as_ref());
        Ok(group.and_then(|group| group.hash(block)))
    }
}

/// How many groups are held: some for each thread.
const RECENT_GROUPS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Raw;
    use crate::storage::MemoryStorage;
    use crate::units::BlockSize;
    use crate::{Work, manifest};

    #[test]
    fn asking_beyond_the_end_does_not_hide_the_blocks_before_it() {
        let storage = MemoryStorage::new("disk", vec![7; 3 * 4096]);
        let image = Raw::open(std::sync::Arc::new(storage)).unwrap();
        let work = Work::with_threads(1).unwrap();
        let manifest = manifest::build(&image, BlockSize::MIN, &work).unwrap();
        let known = Known::new(&manifest);
        assert_eq!(known.hash(3).unwrap(), None);
        assert_eq!(known.hash(2).unwrap(), Some(Hash::of(&[7; 4096])));
    }
}

//! Image against manifest: hashed in one pass, compared as the hashes come.

use std::ops::Range;

use crate::hash::Hash;

use crate::error::Result;
use crate::image::Image;
use crate::manifest::{Group, Groups, HashPass, Manifest, ManifestWriter, Sink};
use crate::progress::{Phase, Work};
use crate::units::{BlockSize, Extent};

/// Which of the two sides is the new one: the one whose zeros are told apart, and whose length
/// bounds what is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Newer {
    /// The image.
    Image,
    /// The disk that the manifest describes.
    Manifest,
}

/// What came of comparing an image with a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgainstManifest {
    /// The image's root, at the manifest's block size.
    pub root: Hash,
    /// Whole blocks that differ, ascending, neighbours of one kind joined.
    pub extents: Vec<Extent>,
}

/// Compares an image with a manifest, at the manifest's block size. Memory follows the count of
/// extents that are returned.
///
/// Where the lengths differ, what the old side has beyond the end of the new one is not reported,
/// and what only the new one has is where it is not zero.
///
/// # Errors
/// `Unreadable` with the guest offset; `Malformed` for a damaged manifest; `Io`, `Cancelled`.
pub fn with_manifest(
    image: &dyn Image,
    manifest: &Manifest,
    newer: Newer,
    work: &Work,
) -> Result<AgainstManifest> {
    let (disk_len, block_size) = (image.disk_len(), manifest.block_size());
    work.progress().begin(Phase::Hash, Some(disk_len));
    let mut comparison = Comparison {
        writer: ManifestWriter::root_only(disk_len, block_size),
        groups: manifest.groups(0..u64::MAX),
        group: None,
        newer,
        block_size,
        new_len: match newer {
            Newer::Image => disk_len,
            Newer::Manifest => manifest.disk_len(),
        },
        extents: Vec::new(),
        next_block: 0,
    };
    HashPass::new(image, block_size, work).run(&(), &mut comparison)?;
    comparison.catch_up(u64::MAX)?;
    Ok(AgainstManifest {
        root: comparison.writer.finish()?,
        extents: comparison.extents,
    })
}

struct Comparison<'a> {
    writer: ManifestWriter,
    /// The manifest's groups after `group`.
    groups: Groups<'a>,
    /// The first group that does not end before `next_block`.
    group: Option<Group<'a>>,
    newer: Newer,
    block_size: BlockSize,
    new_len: u64,
    extents: Vec<Extent>,
    /// All blocks below are compared.
    next_block: u64,
}

impl Comparison<'_> {
    /// Compares blocks that are zero in the image, up to `end`.
    fn catch_up(&mut self, end: u64) -> Result<()> {
        while self.next_block < end {
            let Some(blocks) = self.group_at(self.next_block)? else {
                break;
            };
            let mut at = self.next_block.max(blocks.start);
            while at < end.min(blocks.end) {
                self.compare_block(at, None);
                at += 1;
            }
            self.next_block = at.max(self.next_block + 1).min(end);
        }
        self.next_block = self.next_block.max(end);
        Ok(())
    }

    /// The blocks of the group that holds `block`, or the next one after it.
    fn group_at(&mut self, block: u64) -> Result<Option<Range<u64>>> {
        loop {
            match &self.group {
                Some(group) if group.blocks().end > block => return Ok(Some(group.blocks())),
                _ => {}
            }
            match self.groups.next().transpose()? {
                Some(group) => self.group = Some(group),
                None => return Ok(None),
            }
        }
    }

    /// Compares one block; the group at hand is the one that would hold it.
    fn compare_block(&mut self, block: u64, in_image: Option<Hash>) {
        let in_manifest = self.group.as_ref().and_then(|group| group.hash(block));
        let range = self.block_size.range(block, self.new_len);
        if in_image == in_manifest || range.is_empty() {
            return;
        }
        let new = match self.newer {
            Newer::Image => in_image,
            Newer::Manifest => in_manifest,
        };
        let extent = match new {
            Some(_) => Extent::data(range),
            None => Extent::zero(range),
        };
        match self.extents.last_mut() {
            Some(last) if last.kind == extent.kind && last.end() == extent.offset => {
                last.len += extent.len;
            }
            _ => self.extents.push(extent),
        }
    }
}

impl Sink for Comparison<'_> {
    fn data(&mut self, first_block: u64, hashes: &[Option<Hash>]) -> Result<()> {
        self.writer.data(first_block, hashes)?;
        self.catch_up(first_block)?;
        for (block, hash) in (first_block..).zip(hashes) {
            self.group_at(block)?;
            self.compare_block(block, *hash);
            self.next_block = block + 1;
        }
        Ok(())
    }

    fn zeros(&mut self, blocks: Range<u64>) -> Result<()> {
        self.writer.zeros(blocks.clone())?;
        self.catch_up(blocks.end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::diff::manifests;
    use crate::image::Raw;
    use crate::manifest;
    use crate::storage::MemoryStorage;

    fn image(pages: &[u8], last_len: usize) -> Raw {
        let mut bytes: Vec<u8> = pages.iter().flat_map(|kind| vec![*kind; 4096]).collect();
        bytes.truncate(bytes.len().saturating_sub(last_len));
        Raw::open(Arc::new(MemoryStorage::new("disk", bytes))).unwrap()
    }

    proptest! {
        #[test]
        fn comparing_with_an_image_finds_what_comparing_with_its_manifest_finds(
            // Runs, so that whole groups of 256 blocks come out zero on one side or on both.
            a in prop::collection::vec((0u8..3, 1usize..300), 0..6),
            b in prop::collection::vec((0u8..3, 1usize..300), 0..6),
            (cut_a, cut_b) in (0usize..4096, 0usize..4096),
        ) {
            let pages = |runs: &[(u8, usize)]| -> Vec<u8> {
                runs.iter().flat_map(|(kind, len)| vec![*kind; *len]).collect()
            };
            let (a, b) = (image(&pages(&a), cut_a), image(&pages(&b), cut_b));
            let work = Work::with_threads(2).unwrap();
            let of = |image: &Raw| manifest::build(image, BlockSize::MIN, &work).unwrap();
            let (of_a, of_b) = (of(&a), of(&b));
            let expected = |old, new| -> Vec<Extent> {
                manifests(old, new).unwrap().map(|extent| extent.unwrap()).collect()
            };
            let found = with_manifest(&a, &of_b, Newer::Image, &work).unwrap();
            prop_assert_eq!(&found.root, &of_a.root());
            prop_assert_eq!(found.extents, expected(&of_b, &of_a));
            let found = with_manifest(&a, &of_b, Newer::Manifest, &work).unwrap();
            prop_assert_eq!(found.extents, expected(&of_a, &of_b));
        }
    }
}

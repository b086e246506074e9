//! Reading a manifest: every row is held against its hash before anything in it is trusted.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::hash::Hash;

use super::format::{HEADER_LEN, Header, RowRef, row, signature};
use super::tree::{
    Digest, Occupancy, Shape, blocks_under, child_of, node_hash, root_above, slot_of,
};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::storage::{FileStorage, Storage};
use crate::units::BlockSize;

/// The checksums of every block of one image at one moment, lying in a file or in memory.
///
/// Opening reads the header alone; rows are read when they are asked for, and each is checked
/// against the root through the nodes above it, so that nothing this type returns disagrees with
/// [`root`](Manifest::root). Clones share the storage.
#[derive(Clone)]
pub struct Manifest {
    storage: Arc<dyn Storage>,
    shape: Shape,
    root: Hash,
    header: Header,
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manifest")
            .field("path", &self.storage.path())
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Manifest {
    /// Opens the manifest that `storage` holds. Bytes after its body are not looked at.
    ///
    /// # Errors
    /// `Malformed`, with field and offset; `Unsupported` for a later version or another kind of
    /// hash; `LimitExceeded` for a disk longer than [`Limits::disk_bytes`]; `Io`.
    pub fn from_storage(storage: Arc<dyn Storage>, limits: &Limits) -> Result<Self> {
        let mut bytes = [0; HEADER_LEN];
        let len = storage.len()?;
        if len < HEADER_LEN as u64 {
            return Err(Error::malformed("too short for a manifest")
                .during("open")
                .at_path(storage.path()));
        }
        storage.read_exact_at(&mut bytes, 0)?;
        Header::decode(&bytes)
            .and_then(|header| Self::check(header, len, limits))
            .map(|(header, shape)| Manifest {
                root: Hash::from_bytes(header.root),
                storage: Arc::clone(&storage),
                shape,
                header,
            })
            .map_err(|error| error.at_path(storage.path()).during("open"))
    }

    /// Opens a manifest file. It is read where it is needed: where it was cut or changed since,
    /// that is an error then. One that cannot change meanwhile is read faster through a memory map:
    /// `Manifest::from_storage(Arc::new(Mmap::open(path)?), limits)`, see
    /// `Mmap`.
    ///
    /// # Errors
    /// As [`from_storage`](Manifest::from_storage); `NotFound`; `Unsupported` for anything but a
    /// regular file.
    pub fn open_with(path: impl AsRef<Path>, limits: &Limits) -> Result<Self> {
        Self::from_storage(Arc::new(FileStorage::open_read(path.as_ref())?), limits)
    }

    /// What stands for the whole disk.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// Length of the disk in bytes.
    pub fn disk_len(&self) -> u64 {
        self.shape.disk_len
    }

    /// Bytes a block.
    pub fn block_size(&self) -> BlockSize {
        self.shape.block_size
    }

    /// How many blocks are not zero, as the writer counted them; [`verify`](Manifest::verify)
    /// counts again.
    pub fn data_blocks(&self) -> u64 {
        self.header.data_blocks
    }

    /// The signature that follows the rows, as a text, where there is one. It is not checked.
    ///
    /// # Errors
    /// `Io`.
    pub fn signature(&self) -> Result<Option<String>> {
        let left = self.storage.len()?.saturating_sub(self.header.body_end);
        // What is longer is no signature.
        let most = signature::MOST_BYTES + 64;
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(most)];
        if bytes.is_empty() {
            return Ok(None);
        }
        self.storage
            .read_exact_at(&mut bytes, self.header.body_end)?;
        let found = signature::decode(&bytes, self.root.as_bytes());
        Ok(found.map(|(text, _)| text.to_owned()))
    }

    /// Puts a signature behind what the file holds. Not durable.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(crate) fn append_signature(&self, text: &str) -> Result<()> {
        let record = signature::encode(self.root.as_bytes(), text);
        self.storage.write_all_at(&record, self.storage.len()?)
    }

    /// Where it is kept.
    pub(crate) fn path(&self) -> &Path {
        self.storage.path()
    }

    /// The hash of one block; `None` where it is zero, and past the end of the disk.
    ///
    /// Goes down from the top each time: for many blocks use [`groups`](Manifest::groups).
    ///
    /// # Errors
    /// `Malformed` where a row on the way is damaged; `Io`.
    pub fn hash(&self, block: u64) -> Result<Option<Hash>> {
        match self.groups(block..block.saturating_add(1)).next() {
            Some(group) => Ok(group?.hash(block)),
            None => Ok(None),
        }
    }

    /// The groups of 256 blocks that touch `blocks` and are not all zero, in ascending order.
    pub fn groups(&self, blocks: Range<u64>) -> Groups<'_> {
        let blocks = blocks.start..blocks.end.min(self.shape.block_count());
        let mut stack = Vec::new();
        if !blocks.is_empty() {
            stack.extend(self.top());
        }
        Groups {
            manifest: self,
            blocks,
            stack,
            left_bytes: self.header.body_end - HEADER_LEN as u64,
        }
    }

    /// Reads every row, checks all of them against the root, and counts the blocks.
    ///
    /// # Errors
    /// `Malformed`, `Io`.
    pub fn verify(&self) -> Result<()> {
        let mut count = 0u64;
        for group in self.groups(0..u64::MAX) {
            count += group?.node.occupancy.count() as u64;
        }
        if count == self.header.data_blocks {
            return Ok(());
        }
        Err(Error::malformed(format!(
            "the header counts {} blocks, the rows hold {count}",
            self.header.data_blocks
        ))
        .in_field("data_blocks")
        .at_path(self.storage.path()))
    }

    /// Where the rows end and intents may follow.
    pub(super) fn body_end(&self) -> u64 {
        self.header.body_end
    }

    /// The level of the top node, were it there.
    pub(crate) fn height(&self) -> u32 {
        self.shape.height
    }

    /// The top node; `None` where every block is zero.
    pub(crate) fn top(&self) -> Option<Node> {
        (!self.header.top.occupancy.is_empty()).then_some(Node {
            level: self.shape.height,
            index: 0,
            offset: self.header.top.offset,
            occupancy: self.header.top.occupancy,
            hash: self.header.top.hash,
        })
    }

    /// A node's row, checked against the node's hash, its occupancy against the disk's length.
    pub(crate) fn row(&self, node: &Node) -> Result<Row<'_>> {
        let wrong = |message: &'static str| {
            Error::malformed(message)
                .in_field("row")
                .at_offset(node.offset)
                .at_path(self.storage.path())
                .advise("build the manifest again")
        };
        let below = self.shape.count(node.level - 1);
        match node.occupancy.last() {
            Some(last) if child_of(node.index, last) < below => {}
            Some(_) => return Err(wrong("a node has children beyond the end of the disk")),
            None => return Err(wrong("a node has no children")),
        }
        let count = node.occupancy.count();
        let len = row::len(node.level, count);
        let end = node.offset.checked_add(len as u64);
        let inside =
            node.offset >= HEADER_LEN as u64 && end.is_some_and(|end| end <= self.header.body_end);
        if !inside {
            return Err(wrong("a row is outside the body"));
        }
        let bytes = self.bytes(node.offset, len)?;
        if node_hash(&node.occupancy, row::hashes(&bytes, count)) != node.hash {
            return Err(wrong("a row is damaged: it does not have its node's hash"));
        }
        Ok(Row { node: *node, bytes })
    }

    fn shared_row(&self, node: &Node) -> Error {
        Error::malformed("one row serves several nodes")
            .in_field("row")
            .at_offset(node.offset)
            .at_path(self.storage.path())
            .advise("build the manifest again")
    }

    /// Bytes of the body: in place where the storage is mapped, else read.
    fn bytes(&self, offset: u64, len: usize) -> Result<Cow<'_, [u8]>> {
        let start = usize::try_from(offset).ok();
        if let (Some(all), Some(start)) = (self.storage.mapped(), start) {
            let range = start..start.saturating_add(len);
            return all.get(range).map(Cow::Borrowed).ok_or_else(|| {
                Error::malformed("a row ends beyond the file").at_path(self.storage.path())
            });
        }
        // A row has at most 256 children and so at most 18 KiB.
        let mut bytes = vec![0; len];
        self.storage.read_exact_at(&mut bytes, offset)?;
        Ok(Cow::Owned(bytes))
    }

    /// Holds the header's fields against each other, the file's length and the limits.
    fn check(header: Header, file_len: u64, limits: &Limits) -> Result<(Header, Shape)> {
        let block_size = BlockSize::new(u64::from(header.block_size))
            .map_err(|cause| Error::malformed("no valid block size").caused_by(cause))
            .map_err(|error| error.in_field("block_size"))?;
        if header.disk_len > limits.disk_bytes {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "a disk of {:#x} bytes is longer than allowed",
                    header.disk_len
                ),
            )
            .in_field("disk_len"));
        }
        let shape = Shape::new(header.disk_len, block_size);
        if !(HEADER_LEN as u64..=file_len).contains(&header.body_end) {
            return Err(Error::malformed("the file is cut short").in_field("body_end"));
        }
        let top = &header.top;
        if top.occupancy.is_empty() {
            if *top != RowRef::default() || header.data_blocks != 0 {
                return Err(Error::malformed("a top without children").in_field("top"));
            }
        } else if shape.height == 0 {
            return Err(Error::malformed("an empty disk has a top node").in_field("top"));
        }
        if header.data_blocks > shape.block_count() {
            return Err(Error::malformed("more blocks than the disk has").in_field("data_blocks"));
        }
        let top_hash = (!top.occupancy.is_empty()).then_some(&top.hash);
        if root_above(&shape, top_hash).as_bytes() != &header.root {
            return Err(Error::malformed("the root is not that of the top node").in_field("root"));
        }
        Ok((header, shape))
    }
}

/// Up to 256 neighbouring blocks of a manifest, at least one of which is not zero.
#[derive(Clone)]
pub struct Group<'a> {
    node: Node,
    blocks: Range<u64>,
    bytes: Cow<'a, [u8]>,
}

opaque!(Group<'_>);

impl Group<'_> {
    /// The group's number: its first block divided by 256.
    pub fn index(&self) -> u64 {
        self.node.index
    }

    /// The numbers of its blocks, zero ones too; short at the end of the disk.
    pub fn blocks(&self) -> Range<u64> {
        self.blocks.clone()
    }

    /// The hash of a block; `None` where it is zero or not in this group.
    pub fn hash(&self, block: u64) -> Option<Hash> {
        let slot = slot_of(block);
        if !self.blocks.contains(&block) || !self.node.occupancy.contains(slot) {
            return None;
        }
        row::hash(&self.bytes, self.node.occupancy.rank(slot)).map(Hash::from_bytes)
    }

    /// The blocks that are not zero, with their hashes, ascending.
    pub fn entries(&self) -> impl Iterator<Item = (u64, Hash)> {
        let first = self.blocks.start;
        let slots = self.node.occupancy.slots().enumerate();
        slots.filter_map(move |(rank, slot)| {
            let hash = row::hash(&self.bytes, rank)?;
            Some((first + u64::from(slot), Hash::from_bytes(hash)))
        })
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Iterator over the groups of a manifest.
pub struct Groups<'a> {
    manifest: &'a Manifest,
    blocks: Range<u64>,
    /// Nodes still to visit, the next one last.
    stack: Vec<Node>,
    /// How much of the body can still be new: rows that serve many nodes would make a short file
    /// as long to read as a full disk's.
    left_bytes: u64,
}

opaque!(Groups<'_>);

impl<'a> Iterator for Groups<'a> {
    type Item = Result<Group<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(node) = self.stack.pop() {
            let row = self.manifest.row(&node).and_then(|row| {
                let left = self.left_bytes.checked_sub(row.bytes.len() as u64);
                self.left_bytes = left.ok_or_else(|| self.manifest.shared_row(&node))?;
                Ok(row)
            });
            let row = match row {
                Ok(row) => row,
                Err(error) => {
                    self.stack.clear();
                    return Some(Err(error));
                }
            };
            if node.level == 1 {
                let count = self.manifest.shape.block_count();
                return Some(Ok(row.into_group(count)));
            }
            let wanted = node.occupancy.slots().filter(|slot| {
                let covered = blocks_of(node.level - 1, child_of(node.index, *slot));
                covered.start < self.blocks.end && self.blocks.start < covered.end
            });
            let from = self.stack.len();
            self.stack.extend(wanted.filter_map(|slot| row.child(slot)));
            self.stack[from..].reverse();
        }
        None
    }
}

/// A node of the tree, its row not read yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    /// 1 for a group.
    pub level: u32,
    pub index: u64,
    pub offset: u64,
    pub occupancy: Occupancy,
    pub hash: Digest,
}

/// A node's row that has the node's hash.
pub(crate) struct Row<'a> {
    node: Node,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Row<'a> {
    /// The hash of child `slot`.
    pub(crate) fn hash(&self, slot: u8) -> Option<Digest> {
        let occupancy = &self.node.occupancy;
        let rank = occupancy.contains(slot).then(|| occupancy.rank(slot))?;
        row::hash(&self.bytes, rank)
    }

    /// Child `slot` of a node above the groups.
    pub(crate) fn child(&self, slot: u8) -> Option<Node> {
        let occupancy = &self.node.occupancy;
        let rank = occupancy.contains(slot).then(|| occupancy.rank(slot))?;
        let child = row::child(&self.bytes, occupancy.count(), rank)?;
        Some(Node {
            level: self.node.level - 1,
            index: child_of(self.node.index, slot),
            offset: child.offset,
            occupancy: child.occupancy,
            hash: child.hash,
        })
    }

    fn into_group(self, block_count: u64) -> Group<'a> {
        let blocks = blocks_of(1, self.node.index);
        Group {
            blocks: blocks.start..blocks.end.min(block_count),
            node: self.node,
            bytes: self.bytes,
        }
    }
}

/// The blocks that a full node covers. Indexes come from the shape, so nothing overflows: a level
/// has at most 2^(52 - 8 * level) nodes, rounded up.
pub(crate) fn blocks_of(level: u32, index: u64) -> Range<u64> {
    let span = blocks_under(level);
    index * span..(index + 1) * span
}

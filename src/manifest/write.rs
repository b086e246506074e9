//! Writing a manifest: hashes come in, rows go out, the tree grows from below.

use std::ops::Range;
use std::sync::Arc;

use crate::hash::Hash;

use super::format::{HEADER_LEN, Header, RowRef, row};
use super::read::Group;
use super::tree::{Occupancy, Shape, node_hash, parent_of, root_above, slot_of};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::units::BlockSize;

/// Takes the final blocks of one disk, in ascending order.
pub trait Sink: Send {
    /// The hashes of the blocks from `first_block` on; `None` where a block is zero.
    ///
    /// # Errors
    /// `InvalidInput` for a block out of order or beyond the disk; `Io`, `NoSpace`.
    fn data(&mut self, first_block: u64, hashes: &[Option<Hash>]) -> Result<()>;

    /// Blocks that are all zero.
    ///
    /// # Errors
    /// As [`data`](Sink::data).
    fn zeros(&mut self, blocks: Range<u64>) -> Result<()>;
}

/// A sink for callers who need no manifest.
impl Sink for () {
    fn data(&mut self, _first_block: u64, _hashes: &[Option<Hash>]) -> Result<()> {
        Ok(())
    }

    fn zeros(&mut self, _blocks: Range<u64>) -> Result<()> {
        Ok(())
    }
}

/// Writes a manifest, or finds only its root, from block hashes in ascending order.
///
/// Holds one open node for each level of the tree, whatever the length of the disk; finished rows
/// go to the storage. Nothing is durable until the caller syncs the storage.
pub struct ManifestWriter {
    shape: Shape,
    rows: Rows,
    /// The open node of each level, groups first.
    open: Vec<OpenNode>,
    top: Option<RowRef>,
    next_block: u64,
    data_blocks: u64,
}

opaque!(ManifestWriter);

impl ManifestWriter {
    /// Writes into `storage`, which is emptied first.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn create(storage: Arc<dyn Storage>, disk_len: u64, block_size: BlockSize) -> Result<Self> {
        storage.set_len(0)?;
        Ok(Self::over(Some(storage), disk_len, block_size))
    }

    /// Keeps nothing but what the root needs.
    pub fn root_only(disk_len: u64, block_size: BlockSize) -> Self {
        Self::over(None, disk_len, block_size)
    }

    /// Bytes a block.
    pub(crate) fn block_size(&self) -> BlockSize {
        self.shape.block_size
    }

    /// Adds a block that is not zero. Blocks left out are zero.
    ///
    /// # Errors
    /// `InvalidInput` unless `block` comes after all earlier ones and lies on the disk; `Io`,
    /// `NoSpace`.
    pub fn push(&mut self, block: u64, hash: &Hash) -> Result<()> {
        self.admit(block, 1)?;
        self.data_blocks += 1;
        self.next_block = block + 1;
        let child = RowRef {
            hash: *hash.as_bytes(),
            ..RowRef::default()
        };
        self.add(1, block, child)
    }

    /// Writes what is open and the header, and returns the root. Not durable yet.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn finish(mut self) -> Result<Hash> {
        for level in 1..=self.shape.height {
            self.close(level)?;
        }
        let root = root_above(&self.shape, self.top.as_ref().map(|top| &top.hash));
        let header = Header {
            // At most 16 MiB.
            block_size: self.shape.block_size.bytes() as u32,
            disk_len: self.shape.disk_len,
            root: *root.as_bytes(),
            body_end: self.rows.end(),
            data_blocks: self.data_blocks,
            top: self.top.unwrap_or_default(),
        };
        self.rows.finish(&header)?;
        Ok(root)
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Adds a whole group of another manifest, whose hash is checked already.
    pub(super) fn push_group(&mut self, group: &Group<'_>) -> Result<()> {
        let blocks = group.blocks();
        self.admit(blocks.start, blocks.end - blocks.start)?;
        self.close(1)?;
        let node = group.node();
        let child = RowRef {
            offset: self
                .rows
                .append(|out| out.extend_from_slice(group.bytes()))?,
            occupancy: node.occupancy,
            hash: node.hash,
        };
        self.data_blocks += node.occupancy.count() as u64;
        self.next_block = blocks.end;
        self.add(2, group.index(), child)
    }

    fn over(storage: Option<Arc<dyn Storage>>, disk_len: u64, block_size: BlockSize) -> Self {
        let shape = Shape::new(disk_len, block_size);
        let open = (0..shape.height).map(|_| OpenNode::default()).collect();
        ManifestWriter {
            shape,
            rows: Rows::new(storage),
            open,
            top: None,
            next_block: 0,
            data_blocks: 0,
        }
    }

    fn admit(&self, block: u64, count: u64) -> Result<()> {
        let end = block.checked_add(count);
        if block >= self.next_block && end.is_some_and(|end| end <= self.shape.block_count()) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            format!("block {block} comes out of order, or is beyond the end of the disk"),
        ))
    }

    /// Adds child `index` to its parent on `level`, closing the node that was open there before.
    fn add(&mut self, level: u32, index: u64, child: RowRef) -> Result<()> {
        if level > self.shape.height {
            self.top = Some(child);
            return Ok(());
        }
        let parent = parent_of(index);
        if self.node(level).index != parent {
            self.close(level)?;
        }
        let node = self.node(level);
        node.index = parent;
        node.occupancy.insert(slot_of(index));
        node.children.push(child);
        Ok(())
    }

    /// Writes the open node of `level`, if there is one, and adds it to its parent.
    fn close(&mut self, level: u32) -> Result<()> {
        let node = self.node(level);
        if node.children.is_empty() {
            return Ok(());
        }
        let index = node.index;
        let occupancy = std::mem::take(&mut node.occupancy);
        let children = std::mem::take(&mut node.children);
        let mut hash = [0; 32];
        let offset = self.rows.append(|out| {
            let start = out.len();
            row::encode(level, &children, out);
            hash = node_hash(&occupancy, row::hashes(&out[start..], children.len()));
        })?;
        let row = RowRef {
            offset,
            occupancy,
            hash,
        };
        self.add(level + 1, index, row)
    }

    /// `level` is from 1 to the height, by construction of every call.
    fn node(&mut self, level: u32) -> &mut OpenNode {
        &mut self.open[level as usize - 1]
    }
}

impl Sink for ManifestWriter {
    fn data(&mut self, first_block: u64, hashes: &[Option<Hash>]) -> Result<()> {
        for (block, hash) in (first_block..).zip(hashes) {
            if let Some(hash) = hash {
                self.push(block, hash)?;
            }
        }
        Ok(())
    }

    fn zeros(&mut self, blocks: Range<u64>) -> Result<()> {
        self.admit(blocks.start, blocks.end.saturating_sub(blocks.start))?;
        self.next_block = blocks.end;
        Ok(())
    }
}

/// A node whose children are still coming.
#[derive(Default)]
struct OpenNode {
    index: u64,
    occupancy: Occupancy,
    children: Vec<RowRef>,
}

/// Where rows are appended: buffered storage, or nowhere.
struct Rows {
    storage: Option<Arc<dyn Storage>>,
    buffer: Vec<u8>,
    /// Where `buffer` will lie.
    written_to: u64,
}

impl Rows {
    fn new(storage: Option<Arc<dyn Storage>>) -> Self {
        Rows {
            storage,
            buffer: Vec::new(),
            written_to: HEADER_LEN as u64,
        }
    }

    fn end(&self) -> u64 {
        self.written_to + self.buffer.len() as u64
    }

    /// Appends what `fill` adds to the buffer; returns where it begins.
    fn append(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<u64> {
        let start = self.end();
        fill(&mut self.buffer);
        if self.buffer.len() >= FLUSH_BYTES {
            self.flush()?;
        }
        Ok(start)
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(storage) = &self.storage {
            storage.write_all_at(&self.buffer, self.written_to)?;
        }
        self.written_to = self.end();
        self.buffer.clear();
        Ok(())
    }

    /// The header goes last: until then the file is no manifest.
    fn finish(mut self, header: &Header) -> Result<()> {
        self.flush()?;
        match &self.storage {
            Some(storage) => storage.write_all_at(&header.encode(), 0),
            None => Ok(()),
        }
    }
}

const FLUSH_BYTES: usize = 1 << 20;

//! VMDKs of a descriptor and the extents that it names.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::image::{Format, Image, ImageInfo, ImageOptions, Layout};
use crate::storage::{HostFile, Storage, past_end};
use crate::units::{Extent, ExtentKind};

use super::descriptor::{Descriptor, ExtentContent, SIGNATURE, described_by, part_of_a_disk};
use super::format::{SECTOR, SESPARSE_SIGNATURE};
use super::image::stored_extent;
use super::parent::named_file;
use super::sparse::Sparse;

/// A disk in several pieces, open for reading.
pub(super) struct Vmdk {
    descriptor: Arc<dyn Storage>,
    create_type: Option<String>,
    disk_len: u64,
    /// Ascending, without gaps.
    pieces: Vec<Piece>,
}

/// A stretch of the disk.
struct Piece {
    range: Range<u64>,
    content: Content,
}

enum Content {
    Zero,
    /// The bytes of a file from `first` on.
    Flat {
        file: Arc<dyn Storage>,
        first: u64,
    },
    Sparse(Sparse),
}

impl Vmdk {
    /// Opens a descriptor, and the files that it names through the caller's gate.
    ///
    /// # Errors
    /// `Malformed`, `Unsupported`, `LimitExceeded`, `Parent`, `Io`.
    pub(super) fn open(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Self> {
        let path = storage.path().to_owned();
        Self::read(storage, options).map_err(|error| error.at_path(path))
    }

    fn read(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Self> {
        let descriptor = read_descriptor(&*storage)?;
        descriptor.refuse_child()?;
        let disk_len = descriptor.disk_len().unwrap_or(u64::MAX);
        if disk_len == 0 {
            return Err(Error::malformed("a disk of 0 bytes"));
        }
        if disk_len > options.limits.disk_bytes {
            let what = format!("a disk of {disk_len:#x} bytes exceeds the limit");
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        if descriptor.extents.len() > MOST_EXTENTS {
            let what = "the descriptor names too many files";
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        let sparse = |content: &ExtentContent| matches!(content, ExtentContent::Sparse { .. });
        let sparse_count = descriptor
            .extents
            .iter()
            .filter(|it| sparse(&it.content))
            .count();
        let (mut pieces, mut at) = (Vec::new(), 0);
        // The tables of all extents together are held to the limit.
        let mut options = options.clone();
        for extent in descriptor.extents {
            // The sum of all fits.
            let len = extent.sectors * SECTOR as u64;
            let content = match extent.content {
                ExtentContent::Zero => Content::Zero,
                ExtentContent::Flat { file, first_sector } => Content::Flat {
                    file: named_file(&storage, &file, disk_len, &options)?,
                    first: first_sector.checked_mul(SECTOR as u64).ok_or_else(|| {
                        Error::malformed("an extent begins beyond the end of any file")
                            .in_field("extent")
                    })?,
                },
                ExtentContent::Sparse { file } => {
                    let file = named_file(&storage, &file, disk_len, &options)?;
                    let extent = Sparse::open_extent(file, len, &options, sparse_count)?;
                    options = options.for_parent(extent.directory_bytes());
                    Content::Sparse(extent)
                }
            };
            if len > 0 {
                let range = at..at + len;
                pieces.push(Piece { range, content });
            }
            at += len;
        }
        Ok(Vmdk {
            descriptor: storage,
            create_type: descriptor.create_type,
            disk_len,
            pieces,
        })
    }

    /// The pieces that hold bytes of `range`, each with its part of the range, from its own first
    /// byte on.
    fn within(&self, range: Range<u64>) -> impl Iterator<Item = (&Piece, Range<u64>)> {
        let first = self
            .pieces
            .partition_point(|it| it.range.end <= range.start);
        let pieces = self.pieces.get(first..).unwrap_or_default().iter();
        pieces
            .take_while(move |it| it.range.start < range.end)
            .map(move |piece| {
                let (start, end) = (&piece.range.start, &piece.range.end);
                let from = range.start.max(*start) - start;
                (piece, from..range.end.min(*end) - start)
            })
    }

    /// The extent at `offset`, inside the disk, not merged with its neighbours.
    fn extent(&self, offset: u64) -> Result<Option<Extent>> {
        let Some((piece, inside)) = self.within(offset..self.disk_len).next() else {
            return Ok(None);
        };
        let len = inside.end - inside.start;
        let (kind, len) = match &piece.content {
            Content::Zero => (ExtentKind::Zero, len),
            Content::Sparse(sparse) => match sparse.next_extent(inside.start)? {
                Some(below) => (below.kind, below.len.min(len)),
                None => (ExtentKind::Zero, len),
            },
            Content::Flat { file, first } => {
                stored_extent(&**file, first.saturating_add(inside.start), len)?
            }
        };
        Ok(Some(Extent { offset, len, kind }))
    }
}

impl Image for Vmdk {
    fn disk_len(&self) -> u64 {
        self.disk_len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        if end > self.disk_len {
            return Err(past_end(self.descriptor.path(), end, self.disk_len));
        }
        let mut rest = buf;
        for (piece, inside) in self.within(offset..end) {
            // No longer than the buffer, so it fits.
            let (part, after) = rest.split_at_mut((inside.end - inside.start) as usize);
            match &piece.content {
                Content::Zero => part.fill(0),
                Content::Sparse(sparse) => sparse.read_exact_at(part, inside.start)?,
                Content::Flat { file, first } => read_flat(&**file, part, *first, inside.start)?,
            }
            rest = after;
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        let Some(mut extent) = self.extent(offset)? else {
            return Ok(None);
        };
        for _ in 0..MOST_MERGED {
            match self.extent(extent.end())? {
                Some(next) if next.kind == extent.kind => extent.len += next.len,
                _ => break,
            }
        }
        Ok(Some(extent))
    }

    fn info(&self) -> ImageInfo {
        let create_type = self.create_type.as_ref();
        ImageInfo {
            format: Format::Vmdk,
            layout: match self
                .pieces
                .iter()
                .any(|it| matches!(it.content, Content::Sparse(_)))
            {
                true => Layout::TwoGbMaxExtentSparse,
                false => Layout::Flat,
            },
            disk_bytes: self.disk_len,
            sector_bytes: Some(SECTOR as u64),
            block_bytes: None,
            parents: Vec::new(),
            facts: create_type
                .map(|it| ("create type", it.escape_debug().to_string()))
                .into_iter()
                .chain([("extents", self.pieces.len().to_string())])
                .collect(),
            warnings: Vec::new(),
        }
    }

    fn files(&self) -> Result<Vec<HostFile>> {
        let mut files: Vec<_> = self.descriptor.host_file()?.into_iter().collect();
        for piece in &self.pieces {
            match &piece.content {
                Content::Zero => {}
                Content::Flat { file, .. } => files.extend(file.host_file()?),
                Content::Sparse(sparse) => files.extend(sparse.files()?),
            }
        }
        Ok(files)
    }

    fn drop_cache(&self, range: Range<u64>) {
        for (piece, inside) in self.within(range) {
            match &piece.content {
                Content::Zero => {}
                Content::Sparse(sparse) => sparse.drop_cache(inside),
                Content::Flat { file, first } => file.drop_cache(moved(&inside, *first)),
            }
        }
    }

    fn will_read(&self, range: Range<u64>) {
        for (piece, inside) in self.within(range) {
            if let Content::Flat { file, first } = &piece.content {
                file.will_read(moved(&inside, *first));
            }
        }
    }
}

/// A range of an extent as a range of its file, where it begins at `first`.
fn moved(range: &Range<u64>, first: u64) -> Range<u64> {
    first.saturating_add(range.start)..first.saturating_add(range.end)
}

fn read_flat(file: &dyn Storage, buf: &mut [u8], first: u64, at: u64) -> Result<()> {
    let start = first.saturating_add(at);
    let end = start.checked_add(buf.len() as u64);
    let len = file.len()?;
    if end.is_none_or(|end| end > len) {
        let what = "a part of the disk is beyond the end of its file";
        return Err(Error::malformed(what).at_offset(start).at_path(file.path()));
    }
    file.read_exact_at(buf, start)
}

/// The text of a descriptor that is a file of its own.
fn read_descriptor(storage: &dyn Storage) -> Result<Descriptor> {
    let len = storage.len()?;
    let mut head = [0; SIGNATURE.len()];
    let there = head.len().min(usize::try_from(len).unwrap_or(usize::MAX));
    let (inside, _) = head.split_at_mut(there);
    storage.read_exact_at(inside, 0)?;
    if head.starts_with(SESPARSE_SIGNATURE) {
        let what = "a seSparse extent: a part of a disk that another file describes";
        return Err(part_of_a_disk(what, storage.path()));
    }
    if !head.eq_ignore_ascii_case(SIGNATURE) {
        return Err(match described_by(storage.path()) {
            Some(_) => {
                let what =
                    "no descriptor: by its name a part of a disk that another file describes";
                part_of_a_disk(what, storage.path())
            }
            None => Error::malformed("no VMDK: it begins neither as a descriptor nor as an extent")
                .advise("name the descriptor, the .vmdk that is a short text"),
        });
    }
    if len > DESCRIPTOR_BYTES {
        let what = "a descriptor of more than 1 MiB";
        return Err(Error::new(ErrorKind::LimitExceeded, what));
    }
    // At most 1 MiB.
    let mut text = vec![0; len as usize];
    storage.read_exact_at(&mut text, 0)?;
    Descriptor::parse(&String::from_utf8_lossy(&text))
}

const DESCRIPTOR_BYTES: u64 = 1 << 20;
/// Each may be an open file. A disk of 2 TiB in pieces of 2 GiB has 1024.
const MOST_EXTENTS: usize = 1024;
/// Neighbours that are merged into one extent.
const MOST_MERGED: usize = 64;

//! Contents of one file: sparse pages, shared between all states that hold the same bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::page::{PAGE_LEN, Page};

/// The bytes of one file or device at one moment; clones share their pages.
///
/// Comparing two of them is cheap where they share pages, so a check over thousands of crash states
/// should keep its expected contents as such and compare with `==`.
#[derive(Clone, Default)]
pub struct FileBytes {
    len: u64,
    chunks: BTreeMap<u64, Arc<Chunk>>,
}

impl FileBytes {
    /// Contents of `len` zero bytes that takes no memory.
    pub fn zeros(len: u64) -> Self {
        FileBytes {
            len,
            chunks: BTreeMap::new(),
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.slice(0..self.len)
    }

    /// A copy of the bytes of `range`; what lies past the end reads as zeros.
    pub fn slice(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; to_usize(range.end.saturating_sub(range.start))];
        self.read(&mut bytes, range.start);
        bytes
    }

    /// How many bytes lie in pages of 4096 bytes that are not holes.
    pub fn data_bytes(&self) -> u64 {
        let pages = self
            .chunks
            .values()
            .flat_map(|chunk| chunk.iter().flatten());
        pages.count() as u64 * PAGE
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) {
        let mut rest = buf;
        for piece in pieces(offset..offset + rest.len() as u64) {
            let (now, later) = rest.split_at_mut(piece.within.len());
            match self.page(piece.page) {
                Some(page) => now.copy_from_slice(&page[piece.within]),
                None => now.fill(0),
            }
            rest = later;
        }
    }

    pub(super) fn page(&self, index: u64) -> Option<&Arc<Page>> {
        let (chunk, slot) = place(index);
        self.chunks.get(&chunk)?[slot].as_ref()
    }

    pub(super) fn set_page(&mut self, index: u64, page: Option<Arc<Page>>) {
        let (chunk, slot) = place(index);
        if page.is_some() || self.chunks.contains_key(&chunk) {
            let chunk = self.chunks.entry(chunk).or_insert_with(empty_chunk);
            Arc::make_mut(chunk)[slot] = page;
        }
    }

    /// The bytes `within` page `index`, to be changed; the page is no longer a hole.
    pub(super) fn edit(&mut self, index: u64, within: Range<usize>) -> &mut [u8] {
        let (chunk, slot) = place(index);
        let chunk = self.chunks.entry(chunk).or_insert_with(empty_chunk);
        let page =
            Arc::make_mut(chunk)[slot].get_or_insert_with(|| Arc::new(Page::new([0; PAGE_LEN])));
        Arc::make_mut(page).edit(within)
    }

    /// Cuts or extends; new bytes are a hole.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let last = len.div_ceil(PAGE);
            let (chunk, slot) = place(last);
            self.chunks.split_off(&(chunk + 1));
            if let Some(chunk) = self.chunks.get_mut(&chunk) {
                Arc::make_mut(chunk)[slot..].fill(None);
            }
            let tail = to_usize(len % PAGE);
            if tail > 0 && self.page(len / PAGE).is_some() {
                self.edit(len / PAGE, tail..PAGE_LEN).fill(0);
            }
        }
        self.len = len;
    }

    /// Takes the bytes of `range` from `patch`, which must cover it; the length stays, and what
    /// lies past it is left out.
    pub(super) fn take(&mut self, patch: &Patch, range: Range<u64>) {
        self.take_pages(|index| patch.page(index), range);
    }

    /// As [`take`](FileBytes::take), from other contents.
    pub(super) fn take_contents(&mut self, from: &FileBytes, range: Range<u64>) {
        self.take_pages(|index| from.page(index), range);
    }

    fn take_pages<'a>(
        &mut self,
        page_at: impl Fn(u64) -> Option<&'a Arc<Page>>,
        range: Range<u64>,
    ) {
        for piece in pieces(range.start..range.end.min(self.len)) {
            let page = page_at(piece.page);
            if piece.within.len() == PAGE_LEN {
                self.set_page(piece.page, page.cloned());
            } else if let Some(page) = page {
                self.edit(piece.page, piece.within.clone())
                    .copy_from_slice(&page[piece.within]);
            } else if self.page(piece.page).is_some() {
                self.edit(piece.page, piece.within).fill(0);
            }
        }
    }

    /// Adds length and bytes to a digest; holes are told apart from zeros.
    pub(super) fn digest(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&self.len.to_le_bytes());
        for (chunk, pages) in &self.chunks {
            for (slot, page) in (0u64..).zip(&**pages) {
                if let Some(page) = page {
                    hasher.update(&(chunk * CHUNK_PAGES + slot).to_le_bytes());
                    hasher.update(page.digest().as_bytes());
                }
            }
        }
    }

    /// The first run of pages that are not holes, at or after `offset`, clipped to the length.
    pub(super) fn next_data(&self, offset: u64) -> Option<Range<u64>> {
        let mut run: Option<Range<u64>> = None;
        let (first, _) = place(offset / PAGE);
        for (chunk, pages) in self.chunks.range(first..) {
            for (slot, page) in pages.iter().enumerate() {
                let at = (chunk * CHUNK_PAGES + slot as u64) * PAGE;
                let here = at.max(offset)..(at + PAGE).min(self.len);
                match &mut run {
                    _ if here.is_empty() => {}
                    Some(run) if page.is_some() && run.end == here.start => run.end = here.end,
                    Some(_) => return run,
                    None if page.is_some() => run = Some(here),
                    None => {}
                }
            }
        }
        run
    }
}

impl From<Vec<u8>> for FileBytes {
    fn from(bytes: Vec<u8>) -> Self {
        FileBytes::from(&bytes[..])
    }
}

impl From<&[u8]> for FileBytes {
    fn from(bytes: &[u8]) -> Self {
        let mut contents = FileBytes::zeros(bytes.len() as u64);
        contents.take(&Patch::new(0, bytes), 0..bytes.len() as u64);
        contents
    }
}

impl PartialEq for FileBytes {
    fn eq(&self, other: &Self) -> bool {
        let covers = |a: &FileBytes, b: &FileBytes| {
            a.chunks.iter().all(|(at, chunk)| match b.chunks.get(at) {
                Some(twin) => Arc::ptr_eq(chunk, twin) || same_chunk(chunk, twin),
                None => chunk.iter().all(|page| same_page(page, &None)),
            })
        };
        let only_here = |(at, chunk): (&u64, &Arc<Chunk>)| {
            self.chunks.contains_key(at) || chunk.iter().all(|page| same_page(page, &None))
        };
        self.len == other.len && covers(self, other) && other.chunks.iter().all(only_here)
    }
}

impl Eq for FileBytes {}

impl fmt::Debug for FileBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "FileBytes({:#x} bytes, {:#x} of data)",
            self.len,
            self.data_bytes()
        )
    }
}

/// The bytes of one write, cut into pages that files can share; a missing page is a hole.
#[derive(Debug, Clone)]
pub(super) struct Patch {
    pub(super) range: Range<u64>,
    pages: Vec<Option<Arc<Page>>>,
}

impl Patch {
    pub(super) fn new(offset: u64, bytes: &[u8]) -> Self {
        let range = offset..offset + bytes.len() as u64;
        let mut rest = bytes;
        let mut pages = Vec::new();
        for piece in pieces(range.clone()) {
            let (now, later) = rest.split_at(piece.within.len());
            let mut page = [0; PAGE_LEN];
            page[piece.within].copy_from_slice(now);
            pages.push(Some(Arc::new(Page::new(page))));
            rest = later;
        }
        Patch { range, pages }
    }

    pub(super) fn hole(range: Range<u64>) -> Self {
        let pages = vec![None; pieces(range.clone()).count()];
        Patch { range, pages }
    }

    /// All of `contents`.
    pub(super) fn of(contents: &FileBytes) -> Self {
        let range = 0..contents.len();
        let pages = pieces(range.clone()).map(|piece| contents.page(piece.page).cloned());
        Patch {
            pages: pages.collect(),
            range,
        }
    }

    pub(super) fn is_hole(&self) -> bool {
        self.pages.iter().all(Option::is_none)
    }

    /// What a write that stops half way has written: whole sectors, where there are several.
    pub(super) fn first_half(&self) -> Option<Self> {
        let mut half = self.clone();
        let middle = self.range.start + (self.range.end - self.range.start) / 2;
        let even = middle - middle % 512;
        half.range.end = if even > self.range.start {
            even
        } else {
            middle
        };
        let count = pieces(half.range.clone()).count();
        half.pages.truncate(count);
        (!half.range.is_empty()).then_some(half)
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(to_usize(self.range.end - self.range.start));
        for piece in pieces(self.range.clone()) {
            match self.page(piece.page) {
                Some(page) => bytes.extend_from_slice(&page[piece.within]),
                None => bytes.resize(bytes.len() + piece.within.len(), 0),
            }
        }
        bytes
    }

    pub(super) fn page(&self, index: u64) -> Option<&Arc<Page>> {
        let first = self.range.start / PAGE;
        self.pages
            .get(to_usize(index.checked_sub(first)?))?
            .as_ref()
    }
}

/// The part of a range that lies in one page.
pub(super) struct Piece {
    pub(super) page: u64,
    pub(super) within: Range<usize>,
}

/// Cuts a range at page boundaries.
pub(super) fn pieces(range: Range<u64>) -> impl Iterator<Item = Piece> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let page = at / PAGE;
        let end = range.end.min((page + 1) * PAGE);
        let within = to_usize(at % PAGE)..to_usize(end - page * PAGE);
        at = end;
        Some(Piece { page, within })
    })
}

pub(super) const PAGE: u64 = PAGE_LEN as u64;

type Chunk = [Option<Arc<Page>>; CHUNK_PAGES as usize];
const CHUNK_PAGES: u64 = 64;

fn empty_chunk() -> Arc<Chunk> {
    Arc::new([const { None }; CHUNK_PAGES as usize])
}

fn place(index: u64) -> (u64, usize) {
    (index / CHUNK_PAGES, to_usize(index % CHUNK_PAGES))
}

fn same_chunk(a: &Chunk, b: &Chunk) -> bool {
    a.iter().zip(b).all(|(a, b)| same_page(a, b))
}

fn same_page(a: &Option<Arc<Page>>, b: &Option<Arc<Page>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
        (Some(page), None) | (None, Some(page)) => page.iter().all(|&byte| byte == 0),
        (None, None) => true,
    }
}

/// Rows longer than memory exist only as holes; nothing asks for all their bytes.
pub(super) fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(bytes: &[u8]) -> FileBytes {
        FileBytes::from(bytes)
    }

    #[test]
    fn writing_and_reading_back_agree_with_a_plain_vector() {
        let mut model = vec![0u8; 40_000];
        let mut contents = contents(&model);
        for i in 0..200u64 {
            let (at, len) = (i * 7919 % 39_000, i * 31 % 900 + 1);
            let bytes = vec![i as u8; len as usize];
            model[at as usize..(at + len) as usize].copy_from_slice(&bytes);
            contents.take(&Patch::new(at, &bytes), at..at + len);
        }
        assert_eq!(contents.to_vec(), model);
        assert_eq!(contents, FileBytes::from(&model[..]));
    }

    #[test]
    fn cutting_and_extending_again_shows_zeros() {
        let mut contents = contents(&[7; 10_000]);
        contents.set_len(5000);
        contents.set_len(10_000);
        let mut model = vec![7; 5000];
        model.resize(10_000, 0);
        assert_eq!(contents.to_vec(), model);
        contents.set_len(0);
        assert_eq!(contents.data_bytes(), 0);
    }

    #[test]
    fn holes_and_written_zeros_compare_equal_but_are_told_apart_by_next_data() {
        let written = contents(&[0; 9000]);
        let hole = FileBytes::zeros(9000);
        assert_eq!(written, hole);
        assert_eq!(hole, written);
        assert_eq!(written.next_data(0), Some(0..9000));
        assert_eq!(hole.next_data(0), None);
        assert_ne!(hole, FileBytes::zeros(9001));
    }

    #[test]
    fn data_runs_are_clipped_to_offset_and_length() {
        let mut contents = FileBytes::zeros(1 << 20);
        contents.take(&Patch::new(300_000, &[1; 5000]), 300_000..305_000);
        assert_eq!(contents.next_data(0), Some(73 * 4096..75 * 4096));
        assert_eq!(
            contents.next_data(74 * 4096 + 5),
            Some(74 * 4096 + 5..75 * 4096)
        );
        assert_eq!(contents.next_data(75 * 4096), None);
        contents.take(&Patch::hole(299_008..307_200), 299_008..307_200);
        assert_eq!(contents.next_data(0), None);
    }

    #[test]
    fn a_run_of_data_crosses_chunks() {
        let bytes = vec![3; 600_000];
        assert_eq!(contents(&bytes).next_data(1), Some(1..600_000));
    }
}

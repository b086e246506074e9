//! Entries of the log (section 2.3).

use super::super::guid::Guid;
use super::{MIB, PAGE, Page, array_at, guid_at, put, u32_at, u64_at};

/// Descriptors in the first page of an entry, after its header.
const FIRST_PAGE_DESCRIPTORS: u64 = 126;
/// Descriptors in each further page.
const PAGE_DESCRIPTORS: u64 = 128;
const HEADER_BYTES: usize = 64;
const DESCRIPTOR_BYTES: usize = 32;

/// An entry's header (section 2.3.1.1). Trusted only when the whole entry's checksum holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryHeader {
    /// CRC-32C over the entry, this field counting as zeros.
    pub checksum: u32,
    /// Length of the entry in bytes.
    pub len: u32,
    /// Where in the log the oldest entry lies that must be replayed with this one.
    pub tail: u32,
    /// One more than that of the entry before.
    pub sequence: u64,
    /// How many descriptors follow.
    pub descriptor_count: u32,
    /// The header's log GUID, or the entry is of an earlier life of the log.
    pub log: Guid,
    /// The file was at least this long, durably, when the entry was written.
    pub flushed_file: u64,
    /// The file is to be at least this long after replay.
    pub last_file: u64,
}

impl EntryHeader {
    /// The header at the start of `page`; `None` without the signature.
    pub(crate) fn decode(page: &Page) -> Option<Self> {
        (page[..4] == *b"loge").then(|| EntryHeader {
            checksum: u32_at(page, 4),
            len: u32_at(page, 8),
            tail: u32_at(page, 12),
            sequence: u64_at(page, 16),
            descriptor_count: u32_at(page, 24),
            log: guid_at(page, 32),
            flushed_file: u64_at(page, 48),
            last_file: u64_at(page, 56),
        })
    }

    /// How many pages hold header and descriptors.
    pub(crate) fn descriptor_pages(&self) -> u64 {
        descriptor_pages(u64::from(self.descriptor_count))
    }

    /// How many descriptors lie in page `page` of the entry.
    pub(crate) fn descriptors_in(&self, page: u64) -> usize {
        let (before, room) = match page {
            0 => (0, FIRST_PAGE_DESCRIPTORS),
            _ => (
                FIRST_PAGE_DESCRIPTORS + (page - 1) * PAGE_DESCRIPTORS,
                PAGE_DESCRIPTORS,
            ),
        };
        // At most 128.
        u64::from(self.descriptor_count)
            .saturating_sub(before)
            .min(room) as usize
    }
}

/// What one descriptor asks for (sections 2.3.1.2 and 2.3.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Descriptor {
    /// `len` bytes at `offset` become zeros.
    Zero {
        /// First byte of the file.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// Must be the entry's.
        sequence: u64,
    },
    /// One page at `offset` takes new bytes from the next data page.
    Data {
        /// First byte of the file.
        offset: u64,
        /// The page's first 8 bytes.
        leading: [u8; 8],
        /// The page's last 4 bytes.
        trailing: [u8; 4],
        /// Must be the entry's.
        sequence: u64,
    },
}

impl Descriptor {
    /// The first `count` (at most 128) descriptors in page `page` of an entry; a `None` among
    /// them is one of no known kind.
    pub(crate) fn decode_page(
        page: &Page,
        index: u64,
        count: usize,
    ) -> impl Iterator<Item = Option<Descriptor>> {
        let start = if index == 0 { HEADER_BYTES } else { 0 };
        page[start..]
            .chunks_exact(DESCRIPTOR_BYTES)
            .take(count)
            .map(Self::decode)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let offset = u64_at(bytes, 16);
        let sequence = u64_at(bytes, 24);
        match &bytes[..4] {
            b"zero" => Some(Descriptor::Zero {
                offset,
                len: u64_at(bytes, 8),
                sequence,
            }),
            b"desc" => Some(Descriptor::Data {
                offset,
                trailing: array_at(bytes, 4),
                leading: array_at(bytes, 8),
                sequence,
            }),
            _ => None,
        }
    }
}

/// The sequence number in a data page; `None` without the signature.
pub(crate) fn data_page_sequence(page: &Page) -> Option<u64> {
    let high = u64::from(u32_at(page, 4));
    (page[..4] == *b"data").then(|| high << 32 | u64::from(u32_at(page, 4092)))
}

/// The page that a data page stands for.
pub(crate) fn restore_page(data: &Page, leading: [u8; 8], trailing: [u8; 4]) -> Box<Page> {
    let mut page = Box::new(*data);
    page[..8].copy_from_slice(&leading);
    page[4092..].copy_from_slice(&trailing);
    page
}

/// How many data pages fit into one entry of at most `len` bytes.
pub(crate) fn entry_capacity(len: u64) -> u64 {
    let pages = len / PAGE;
    let mut count = pages.saturating_sub(1);
    while count > 0 && descriptor_pages(count) + count > pages {
        count -= 1;
    }
    count
}

/// An entry that is a sequence by itself: its tail is where it lies, the start of the log.
///
/// `pages` are few enough for the log; see [`entry_capacity`].
/// The file must durably be at least as long as its whole MiB when the entry begins to count.
pub(crate) fn encode_entry(log: Guid, file_len: u64, pages: &[(u64, &Page)]) -> Vec<u8> {
    const SEQUENCE: u64 = 1;
    let data_at = descriptor_pages(pages.len() as u64) * PAGE;
    let len = data_at + pages.len() as u64 * PAGE;
    // A log is shorter than 4 GiB, and so is what fits into it.
    let mut entry = vec![0; len as usize];
    entry[..4].copy_from_slice(b"loge");
    put(&mut entry, 8, &(len as u32).to_le_bytes());
    put(&mut entry, 16, &SEQUENCE.to_le_bytes());
    put(&mut entry, 24, &(pages.len() as u32).to_le_bytes());
    put(&mut entry, 32, &log.to_disk());
    let whole_mib = file_len - file_len % MIB;
    put(&mut entry, 48, &whole_mib.to_le_bytes());
    put(&mut entry, 56, &whole_mib.to_le_bytes());
    let (head, data) = entry.split_at_mut(data_at as usize);
    let descriptors = head[HEADER_BYTES..].chunks_exact_mut(DESCRIPTOR_BYTES);
    let sectors = data.chunks_exact_mut(PAGE as usize);
    for (((offset, page), descriptor), sector) in pages.iter().zip(descriptors).zip(sectors) {
        descriptor[..4].copy_from_slice(b"desc");
        put(descriptor, 4, &page[4092..]);
        put(descriptor, 8, &page[..8]);
        put(descriptor, 16, &offset.to_le_bytes());
        put(descriptor, 24, &SEQUENCE.to_le_bytes());
        sector.copy_from_slice(*page);
        sector[..4].copy_from_slice(b"data");
        put(sector, 4, &((SEQUENCE >> 32) as u32).to_le_bytes());
        put(sector, 4092, &(SEQUENCE as u32).to_le_bytes());
    }
    super::seal(&mut entry);
    entry
}

fn descriptor_pages(count: u64) -> u64 {
    1 + count
        .saturating_sub(FIRST_PAGE_DESCRIPTORS)
        .div_ceil(PAGE_DESCRIPTORS)
}

//! Memory that reads past the cache can fill in place.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// A buffer that starts at a page boundary, so that reads past the cache can fill it in place.
///
/// Any buffer may be read into; one that is not aligned costs a copy. A large one lies in huge
/// pages where the system has them: what is read straight into memory costs a segment of the
/// request for each page that does not lie behind the last one, and devices take few segments.
#[derive(Debug)]
pub struct AlignedBuf {
    bytes: Bytes,
    start: usize,
    len: usize,
}

#[derive(Debug)]
enum Bytes {
    Heap(Vec<u8>),
    Huge(MmapMut),
}

impl AlignedBuf {
    /// `len` zeros.
    pub fn new(len: usize) -> Self {
        if len >= LARGE
            && let Ok(map) = MmapMut::map_anon(len.saturating_add(HUGE_PAGE))
        {
            // A hint: small pages only cost time.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            // Up to the next huge page, and at most one further.
            let start = map.as_ptr().align_offset(HUGE_PAGE).min(HUGE_PAGE);
            let bytes = Bytes::Huge(map);
            return AlignedBuf { bytes, start, len };
        }
        let bytes = vec![0u8; len + PAGE];
        let start = bytes.as_ptr().align_offset(PAGE).min(PAGE);
        let bytes = Bytes::Heap(bytes);
        AlignedBuf { bytes, start, len }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes = match &self.bytes {
            Bytes::Heap(bytes) => &bytes[..],
            Bytes::Huge(map) => &map[..],
        };
        &bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let bytes = match &mut self.bytes {
            Bytes::Heap(bytes) => &mut bytes[..],
            Bytes::Huge(map) => &mut map[..],
        };
        &mut bytes[self.start..self.start + self.len]
    }
}

const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// From here on huge pages are worth what they take more.
const LARGE: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aligned_buffer_has_its_length_and_starts_at_a_page() {
        for len in [0, 1, 4095, 4096, 100_000, LARGE - 1, LARGE, 3 << 20] {
            let mut buf = AlignedBuf::new(len);
            assert_eq!(buf.len(), len);
            assert_eq!(buf.as_ptr() as usize % PAGE, 0);
            assert!(buf.iter().all(|byte| *byte == 0));
            buf.fill(7);
        }
    }
}

//! A storage whose regions under the marker are kept in memory.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::Result;
use crate::storage::{HostFile, Storage, next_data};

/// Shows a marked target as if it carried no marker: the regions under the marker live in memory,
/// with the bytes they had before, and take all changes; everything else goes through.
///
/// So an image can be opened and written while the disk below shows the marker, and what the
/// regions under the marker must hold in the end is simply what is in memory then.
pub(in crate::sync) struct OverlayStorage {
    inner: Arc<dyn Storage>,
    /// Ascending and apart.
    regions: RwLock<Arc<Vec<Arc<Region>>>>,
}

struct Region {
    range: Range<u64>,
    bytes: RwLock<Vec<u8>>,
}

impl OverlayStorage {
    /// Covers each range that begins at an offset with the bytes given for it; ranges are apart.
    pub(crate) fn new(inner: Arc<dyn Storage>, saved: Vec<(u64, Vec<u8>)>) -> Self {
        let mut regions: Vec<Arc<Region>> = saved
            .into_iter()
            .map(|(start, bytes)| Region::new(start, bytes))
            .collect();
        regions.sort_by_key(|region| region.range.start);
        OverlayStorage {
            inner,
            regions: RwLock::new(Arc::new(regions)),
        }
    }

    /// Keeps `bytes` at `offset` in memory too, in place of what is shown there now.
    ///
    /// # Errors
    /// None of its own; those of a write below cannot happen.
    pub(crate) fn add_region(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut more = Vec::new();
        self.pieces(offset..offset + bytes.len() as u64, |region, piece| {
            let part = &bytes[index(piece.start - offset)..index(piece.end - offset)];
            match region {
                Some(region) => region.write(&piece, part),
                None => more.push(Region::new(piece.start, part.to_vec())),
            }
            Ok(())
        })?;
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::clone(&regions);
        all.extend(more);
        all.sort_by_key(|region| region.range.start);
        *regions = Arc::new(all);
        Ok(())
    }

    /// The bytes in memory, range by range, as far as the storage now reaches.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn contents(&self) -> Result<Vec<(u64, Vec<u8>)>> {
        let len = self.inner.len()?;
        let mut covered = self.all();
        for (start, bytes) in &mut covered {
            bytes.truncate(index(len.saturating_sub(*start)));
        }
        Ok(covered)
    }

    /// All bytes in memory, those beyond the end of the storage too.
    pub(crate) fn all(&self) -> Vec<(u64, Vec<u8>)> {
        let bytes = |region: &Region| {
            let bytes = region.bytes.read().unwrap_or_else(PoisonError::into_inner);
            bytes.clone()
        };
        self.regions()
            .iter()
            .map(|region| (region.range.start, bytes(region)))
            .collect()
    }

    fn regions(&self) -> Arc<Vec<Arc<Region>>> {
        self.regions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Cuts `range` at the borders of the regions and passes the pieces out in order.
    fn pieces(
        &self,
        range: Range<u64>,
        mut visit: impl FnMut(Option<&Region>, Range<u64>) -> Result<()>,
    ) -> Result<()> {
        let mut at = range.start;
        let regions = self.regions();
        let first = regions.partition_point(|region| region.range.end <= range.start);
        for region in regions[first..]
            .iter()
            .take_while(|region| region.range.start < range.end)
        {
            let start = region.range.start.clamp(at, range.end.max(at));
            let end = region.range.end.clamp(start, range.end.max(start));
            if at < start {
                visit(None, at..start)?;
            }
            if start < end {
                visit(Some(region), start..end)?;
            }
            at = end.max(start);
        }
        if at < range.end {
            visit(None, at..range.end)
        } else {
            Ok(())
        }
    }
}

impl Region {
    fn new(start: u64, bytes: Vec<u8>) -> Arc<Self> {
        let range = start..start + bytes.len() as u64;
        Arc::new(Region {
            range,
            bytes: RwLock::new(bytes),
        })
    }

    fn write(&self, range: &Range<u64>, from: &[u8]) {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        bytes[self.local(range)].copy_from_slice(from);
    }

    /// `range` lies inside the region.
    fn local(&self, range: &Range<u64>) -> Range<usize> {
        index(range.start - self.range.start)..index(range.end - self.range.start)
    }

    fn fill_zeros(&self, range: &Range<u64>) {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        bytes[self.local(range)].fill(0);
    }
}

impl Storage for OverlayStorage {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn host_file(&self) -> Result<Option<HostFile>> {
        self.inner.host_file()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        self.pieces(range, |region, piece| {
            let part = &mut buf[index(piece.start - offset)..index(piece.end - offset)];
            match region {
                None => self.inner.read_exact_at(part, piece.start),
                Some(region) => {
                    let bytes = region.bytes.read().unwrap_or_else(PoisonError::into_inner);
                    part.copy_from_slice(&bytes[region.local(&piece)]);
                    Ok(())
                }
            }
        })
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let range = offset..offset.saturating_add(buf.len() as u64);
        self.pieces(range, |region, piece| {
            let part = &buf[index(piece.start - offset)..index(piece.end - offset)];
            match region {
                None => self.inner.write_all_at(part, piece.start),
                Some(region) => {
                    region.write(&piece, part);
                    Ok(())
                }
            }
        })
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)?;
        // What is cut off must read as zeros if the storage grows again.
        for region in self.regions().iter() {
            let cut = region.range.start.max(len)..region.range.end;
            if !cut.is_empty() {
                region.fill_zeros(&cut);
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.pieces(range, |region, piece| match region {
            None => self.inner.punch_hole(piece),
            Some(region) => {
                region.fill_zeros(&piece);
                Ok(())
            }
        })
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let len = self.len()?;
        let inner = next_data(&*self.inner, offset)?;
        let regions = self.regions();
        let region = regions
            .iter()
            .find(|region| region.range.end > offset.max(region.range.start));
        let region = region.map(|region| region.range.start.max(offset)..region.range.end.min(len));
        Ok(match (inner, region.filter(|range| !range.is_empty())) {
            (Some(inner), Some(region)) if region.start <= inner.start => Some(region),
            (Some(inner), Some(region)) => Some(inner.start..inner.end.min(region.start)),
            (inner, region) => inner.or(region),
        })
    }

    fn check_len(&self, len: u64) -> Result<()> {
        self.inner.check_len(len)
    }

    fn reserve(&self, range: Range<u64>) -> Result<Vec<Range<u64>>> {
        self.inner.reserve(range)
    }

    fn reserve_len(&self, len: u64) -> Result<Vec<Range<u64>>> {
        self.inner.reserve_len(len)
    }

    fn give_back(&self, ranges: &[Range<u64>]) -> Result<()> {
        self.inner.give_back(ranges)
    }

    fn drop_cache(&self, range: Range<u64>) {
        self.inner.drop_cache(range);
    }

    fn will_read(&self, range: Range<u64>) {
        self.inner.will_read(range);
    }

    fn look_ahead_bytes(&self) -> u64 {
        self.inner.look_ahead_bytes()
    }

    fn reads_from_memory(&self) -> bool {
        self.inner.reads_from_memory()
    }
}

/// Pieces are no longer than buffers in memory, which `usize` counts.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;
    use proptest::prelude::*;
    use std::sync::Mutex;

    /// All hole, and notes what it is asked for.
    struct Hole(Mutex<Vec<(&'static str, Range<u64>)>>);

    impl Hole {
        fn note(&self, what: &'static str, range: Range<u64>) {
            self.0.lock().unwrap().push((what, range));
        }
    }

    impl Storage for Hole {
        fn path(&self) -> &Path {
            Path::new("hole")
        }

        fn len(&self) -> Result<u64> {
            Ok(8192)
        }

        fn read_exact_at(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
            buf.fill(0);
            Ok(())
        }

        fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
            self.note("write", offset..offset + buf.len() as u64);
            Ok(())
        }

        fn set_len(&self, len: u64) -> Result<()> {
            self.note("set_len", 0..len);
            Ok(())
        }

        fn sync(&self) -> Result<()> {
            self.note("sync", 0..0);
            Ok(())
        }

        fn punch_hole(&self, range: Range<u64>) -> Result<()> {
            self.note("punch_hole", range);
            Ok(())
        }

        fn next_data(&self, _offset: u64) -> Result<Option<Range<u64>>> {
            Ok(None)
        }

        fn reserve(&self, range: Range<u64>) -> Result<Vec<Range<u64>>> {
            self.note("reserve", range);
            Ok(Vec::new())
        }

        fn drop_cache(&self, range: Range<u64>) {
            self.note("drop_cache", range);
        }

        fn will_read(&self, range: Range<u64>) {
            self.note("will_read", range);
        }

        fn reads_from_memory(&self) -> bool {
            true
        }
    }

    #[test]
    fn bytes_in_memory_are_data_where_a_hole_lies_below() {
        let hole = Arc::new(Hole(Mutex::default()));
        let overlay = OverlayStorage::new(hole, vec![(0, vec![1; 1024])]);
        overlay.add_region(4096, &[2; 512]).unwrap();
        for (offset, data) in [
            (0, Some(0..1024)),
            (1000, Some(1000..1024)),
            (1024, Some(4096..4608)),
            (4100, Some(4100..4608)),
            (4608, None),
        ] {
            assert_eq!(overlay.next_data(offset).unwrap(), data, "{offset}");
        }
    }

    #[test]
    fn what_does_not_touch_bytes_goes_to_the_storage_below() {
        let hole = Arc::new(Hole(Mutex::default()));
        let overlay = OverlayStorage::new(hole.clone(), vec![(0, vec![1; 4096])]);
        overlay.reserve(0..8192).unwrap();
        overlay.drop_cache(1..2);
        overlay.will_read(3..4);
        overlay.sync().unwrap();
        assert!(overlay.reads_from_memory());
        let memory = Arc::new(MemoryStorage::new("t", Vec::new()));
        let below = memory.reads_from_memory();
        assert!(!below && !OverlayStorage::new(memory, Vec::new()).reads_from_memory());
        overlay.write_all_at(&[7; 8192], 0).unwrap();
        overlay.punch_hole(4000..5000).unwrap();
        let asked = hole.0.lock().unwrap();
        let expected = [
            ("reserve", 0..8192),
            ("drop_cache", 1..2),
            ("will_read", 3..4),
            ("sync", 0..0),
            ("write", 4096..8192),
            ("punch_hole", 4096..5000),
        ];
        assert_eq!(*asked, expected);
    }

    proptest! {
        #[test]
        fn an_overlay_behaves_as_the_storage_below_it(
            ops in prop::collection::vec((0u8..4, 0u64..100, 0u64..60, any::<u8>()), 1..40),
        ) {
            let mut model: Vec<u8> = (0..100).collect();
            let inner = Arc::new(MemoryStorage::new("t", vec![0xee; 100]));
            inner.write_all_at(&model[20..90], 20).unwrap();
            let saved = vec![(0, model[..20].to_vec()), (90, model[90..].to_vec())];
            let overlay = OverlayStorage::new(inner.clone(), saved);
            for (op, start, len, byte) in ops {
                let size = model.len() as u64;
                match op {
                    0 => {
                        let bytes = vec![byte; len as usize];
                        overlay.write_all_at(&bytes, start).unwrap();
                        let end = (start + len) as usize;
                        // Covered bytes past the end need a length first; so do images.
                        if end > model.len() {
                            overlay.set_len(end as u64).unwrap();
                            model.resize(end, 0);
                            overlay.write_all_at(&bytes, start).unwrap();
                        }
                        model[start as usize..end].fill(byte);
                    }
                    1 if start + len <= size => {
                        overlay.punch_hole(start..start + len).unwrap();
                        model[start as usize..(start + len) as usize].fill(0);
                    }
                    2 => {
                        overlay.set_len(start + len).unwrap();
                        model.resize((start + len) as usize, 0);
                    }
                    _ => {}
                }
                let mut all = vec![0; model.len()];
                overlay.read_exact_at(&mut all, 0).unwrap();
                prop_assert_eq!(&all, &model);
                let mut at = 0;
                while let Some(data) = overlay.next_data(at).unwrap() {
                    prop_assert!(data.start >= at && data.end > data.start);
                    prop_assert!(model[at as usize..data.start as usize].iter().all(|b| *b == 0));
                    at = data.end;
                }
                prop_assert!(model[(at as usize).min(model.len())..].iter().all(|b| *b == 0));
            }
        }
    }
}

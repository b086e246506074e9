//! A target between the first and the last write of its marker.

use std::ops::Range;
use std::sync::Arc;

use super::format::{Marker, SECTOR, regions, sentinel};
use super::in_data;
use super::overlay::OverlayStorage;
use super::redo::Redo;
use super::room::Room;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// The bytes of `storage` where the marker lies, or would lie, of a target that was `target_len`
/// bytes long when it was marked; as far as the storage now reaches.
///
/// # Errors
/// `Io`.
pub(in crate::sync) fn read_regions(
    storage: &dyn Storage,
    target_len: u64,
) -> Result<Vec<(u64, Vec<u8>)>> {
    let len = storage.len()?;
    regions(target_len)
        .into_iter()
        .map(|range| {
            let range = range.start..range.end.min(len).max(range.start);
            let mut bytes = vec![0; index(&range)];
            if !bytes.is_empty() {
                storage.read_exact_at(&mut bytes, range.start)?;
            }
            Ok((range.start, bytes))
        })
        .collect()
}

/// Sets the marker, the sentinel page first. Durable when it returns.
///
/// # Errors
/// `Io`, `NoSpace`.
pub(in crate::sync) fn set_marker(room: Room<'_>, marker: &Marker) -> Result<()> {
    let storage = room.storage();
    begin_marker(room, marker)?;
    storage.sync()
}

/// Sets the marker, the sentinel page first: that is durable when it returns, the rest is written.
///
/// # Errors
/// `Io`, `NoSpace`.
pub(in crate::sync) fn begin_marker(room: Room<'_>, marker: &Marker) -> Result<()> {
    let storage = room.storage();
    let sentinel = sentinel(marker.target_len);
    storage.write_all_at(&marker.fill(sentinel.clone()), 0)?;
    room.keep();
    storage.sync()?;
    write_guard(storage, marker)
}

/// Makes the marker of a marked target whole again after a crash while it was set or lifted. What
/// is left of it on the sentinel page is not written, for it must not be lost now. Durable when it
/// returns.
///
/// # Errors
/// `Io`, `NoSpace`.
pub(in crate::sync) fn repair_marker(storage: &dyn Storage, marker: &Marker) -> Result<()> {
    begin_mend(storage, marker)?;
    storage.sync()
}

/// [`repair_marker`], written, not synced.
///
/// # Errors
/// `Io`, `NoSpace`.
pub(in crate::sync) fn begin_mend(storage: &dyn Storage, marker: &Marker) -> Result<()> {
    let sentinel = sentinel(marker.target_len);
    let wanted = marker.fill(sentinel.clone());
    let mut found = vec![0; wanted.len()];
    storage.read_exact_at(&mut found, 0)?;
    let sectors = wanted.chunks(SECTOR).zip(found.chunks(SECTOR));
    for (index, (wanted, found)) in (0u64..).zip(sectors) {
        if wanted != found {
            storage.write_all_at(wanted, index * SECTOR as u64)?;
        }
    }
    write_guard(storage, marker)
}

/// Puts `marker` in place of the one that the sentinel page carries. The first sector that carries
/// that one changes last, and what else is on the sentinel page is written over once the new marker
/// is durable; so at every moment a crash leaves one of the two, and no more than one sector that
/// was no marker is in doubt while the old one is found. The sentinel page is durable when it
/// returns, the rest is written.
///
/// # Errors
/// `Io`, `NoSpace`; the target is marked, by either.
pub(in crate::sync) fn begin_repoint(storage: &dyn Storage, marker: &Marker) -> Result<()> {
    let wanted = marker.fill(sentinel(marker.target_len));
    let mut found = vec![0; wanted.len()];
    storage.read_exact_at(&mut found, 0)?;
    let sectors: Vec<(u64, &[u8])> = (0u64..)
        .step_by(SECTOR)
        .zip(wanted.chunks(SECTOR))
        .collect();
    let mut markers: Vec<usize> = (0..sectors.len())
        .zip(found.chunks(SECTOR))
        .filter(|(index, found)| Marker::is_marker(found, sectors[*index].0))
        .map(|(index, _)| index)
        .collect();
    if let [only] = markers[..] {
        // Alone it could be lost while it changes.
        let other = only.checked_sub(1).unwrap_or(1);
        markers.extend((other < sectors.len()).then_some(other));
    }
    let (last, others) = markers.split_at(1.min(markers.len()));
    for part in [others, last] {
        for index in part {
            let (offset, bytes) = sectors[*index];
            storage.write_all_at(bytes, offset)?;
        }
        storage.sync()?;
    }
    begin_mend(storage, marker)
}

/// Writes the marker everywhere but on the sentinel page, which carries it already.
///
/// # Errors
/// `Io`, `NoSpace`.
fn write_guard(storage: &dyn Storage, marker: &Marker) -> Result<()> {
    let sentinel = sentinel(marker.target_len);
    let len = storage.len()?;
    for range in regions(marker.target_len) {
        let range = range.start.max(sentinel.end)..range.end.min(len);
        if !range.is_empty() {
            storage.write_all_at(&marker.fill(range.clone()), range.start)?;
        }
    }
    Ok(())
}

/// Shows the target without its marker, with the new length, tables and footers of `redo` in
/// place. The length is durable when this returns, and so is the rest of the marker where that
/// was only written; the tables are written, not synced.
///
/// # Errors
/// `Io`, `NoSpace`.
pub(in crate::sync) fn open_overlay(
    storage: &Arc<dyn Storage>,
    redo: &Redo,
    marker: Guard,
) -> Result<Arc<OverlayStorage>> {
    let overlay = OverlayStorage::new(storage.clone(), redo.saved.clone());
    let before = overlay.len()?;
    if let Some(len) = redo.storage_len.filter(|len| *len != before) {
        overlay.set_len(len)?;
    }
    let mut clears = false;
    redo.zeros(&mut |range| {
        clears = true;
        overlay.punch_hole(range)
    })?;
    // Space that a crash may leave holding garbage must hold zeros before data goes in.
    if marker == Guard::Written || before != overlay.len()? || clears {
        overlay.sync()?;
    }
    for (offset, bytes) in &redo.last {
        overlay.add_region(*offset, bytes)?;
    }
    redo.tables(&mut |offset, bytes| overlay.write_all_at(bytes, offset))?;
    Ok(Arc::new(overlay))
}

/// How far the marker is set, the sentinel page apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sync) enum Guard {
    /// A sync has to follow.
    Written,
    Durable,
}

/// Lifts the marker: what is in memory goes to its place, the sentinel page last. All is durable
/// when it returns. Everything else must be durable before.
///
/// # Errors
/// `Io`, `NoSpace`; `VerifyFailed` when what was written does not read back, `MarkerInData` when
/// the target would still look marked; it stays marked.
pub(in crate::sync) fn lift_marker(storage: &dyn Storage, overlay: &OverlayStorage) -> Result<()> {
    let regions = overlay.contents()?;
    // What was logged was checked; a log may be older, or not ours.
    in_data::refuse_on(overlay)?;
    let sentinel = sentinel(storage.len()?);
    for (start, bytes) in &regions {
        let skip = usize::try_from(sentinel.end.saturating_sub(*start)).unwrap_or(usize::MAX);
        if let Some(rest) = bytes.get(skip..).filter(|rest| !rest.is_empty()) {
            storage.write_all_at(rest, start + skip as u64)?;
        }
    }
    storage.sync()?;
    for (start, bytes) in &regions {
        let skip = usize::try_from(sentinel.end.saturating_sub(*start)).unwrap_or(usize::MAX);
        if let Some(rest) = bytes.get(skip..).filter(|rest| !rest.is_empty()) {
            read_back(storage, start + skip as u64, rest)?;
        }
    }
    if let Some((0, bytes)) = regions.first() {
        let page = bytes.get(..index(&sentinel)).unwrap_or(bytes);
        storage.write_all_at(page, 0)?;
    }
    storage.sync()
}

fn read_back(storage: &dyn Storage, offset: u64, wanted: &[u8]) -> Result<()> {
    storage.drop_cache(offset..offset + wanted.len() as u64);
    let mut found = vec![0; wanted.len()];
    storage.read_exact_at(&mut found, offset)?;
    if found == wanted {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::VerifyFailed,
        "what was written does not read back",
    )
    .at_offset(offset)
    .at_path(storage.path()))
}

/// Length of the first page of a storage of `len` bytes.
pub(in crate::sync) fn sentinel_len(len: u64) -> usize {
    index(&sentinel(len))
}

/// Ranges under a marker are at most a MiB long.
fn index(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use super::*;
    use crate::delta::{DeltaWriter, Frame, FrameKind, Header, JobId, Purpose};
    use crate::limits::Limits;
    use crate::progress::Work;
    use crate::storage::fault::{FaultDisk, OpKind};
    use crate::storage::{Access, FileRef, MemoryDirectory};
    use crate::sync::Safety;
    use crate::sync::log::sidecar;
    use crate::units::BlockSize;

    const LEN: u64 = 3 << 20;

    /// What a sidecar holds that puts one table anew.
    fn redo(file_ref: &FileRef, storage_len: Option<u64>, zeros: Option<Range<u64>>) -> Redo {
        let header = Header {
            purpose: Purpose::Sidecar,
            job: JobId([1; 16]),
            base_len: 0,
            result_len: 0,
            block_size: BlockSize::MIN,
        };
        file_ref.remove_if_there().unwrap();
        let mut writer = DeltaWriter::create(file_ref.create_new().unwrap(), header).unwrap();
        if let Some(len) = storage_len {
            writer.push(&Frame::length(len)).unwrap();
        }
        if let Some(range) = zeros {
            writer.push(&Frame::zero_table(range)).unwrap();
        }
        let table = Frame::bytes(FrameKind::Table, 2 << 20, &[7; 512]);
        writer.push(&table).unwrap();
        writer.commit().unwrap();
        let work = Work::with_threads(1).unwrap();
        let read = sidecar::read(file_ref, &Limits::default(), &work).unwrap();
        read.unwrap().1
    }

    fn disk() -> (FaultDisk, Arc<dyn Storage>) {
        let disk = FaultDisk::new();
        disk.put("/d/t", vec![5; LEN as usize]);
        let storage = disk.open("/d/t", Access::Write).unwrap();
        (disk, Arc::new(storage))
    }

    #[test]
    fn a_marker_that_a_crash_tore_anywhere_becomes_whole_and_what_is_left_of_it_is_not_touched() {
        let marker = Marker {
            job: JobId([1; 16]),
            safety: Safety::Atomic,
            target_len: LEN,
            redo_log: "/d/s".into(),
            held: false,
        };
        for left in 0..8u64 {
            let (disk, storage) = disk();
            let room = Room::for_marker(&*storage).unwrap();
            set_marker(room, &marker).unwrap();
            let whole = disk.contents("/d/t").unwrap();
            let torn = (0..8).filter(|sector| *sector != left);
            for sector in torn.chain([8, 20, LEN / 512 - 1]) {
                storage.write_all_at(&[0xee; 512], sector * 512).unwrap();
            }
            disk.make_durable();
            repair_marker(&*storage, &marker).unwrap();
            assert!(
                disk.contents("/d/t").unwrap() == whole,
                "all but sector {left}"
            );
            let log = disk.log();
            let mut written = log.ops().filter(|op| op.kind() == OpKind::Write);
            let touches = |range: Range<u64>| range.contains(&(left * 512));
            assert!(!written.any(|op| touches(op.range().unwrap())), "{left}");
            assert_eq!(log.ops().last().unwrap().kind(), OpKind::Sync);
        }
    }

    #[test]
    fn new_and_cleared_space_is_durable_before_anything_is_written() {
        let file_ref = FileRef::new(Arc::new(MemoryDirectory::new()), "s");
        for (storage_len, zeros) in [
            (Some(LEN + 4096), None),
            (None, Some(LEN / 2..LEN / 2 + 4096)),
            (Some(LEN + 4096), Some(LEN..LEN + 4096)),
        ] {
            let (disk, storage) = disk();
            let redo = redo(&file_ref, storage_len, zeros);
            open_overlay(&storage, &redo, Guard::Durable).unwrap();
            let log = disk.log();
            let kinds: Vec<OpKind> = log.ops().map(|op| op.kind()).collect();
            assert_eq!(kinds[kinds.len() - 2..], [OpKind::Sync, OpKind::Write]);
        }
        let (disk, storage) = disk();
        open_overlay(&storage, &Redo::default(), Guard::Durable).unwrap();
        assert!(disk.log().is_empty(), "nothing is new");
        open_overlay(&storage, &Redo::default(), Guard::Written).unwrap();
        assert_eq!(disk.log().syncs().len(), 1);
    }
}

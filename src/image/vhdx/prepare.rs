//! Deciding where new bytes will lie without writing any: the caller applies the patches.

use std::ops::Range;

use bytes::Bytes;

use super::format::PAGE;
use super::guid::Guid;
use super::read::Backing;
use super::room::Erase;
use super::writer::{VhdxMut, Writer};
use crate::error::{ErrorKind, Result};
use crate::image::{Change, Image, Patch};
use crate::units::{Extent, ExtentKind};

impl VhdxMut {
    pub(super) fn prepare_patches(&self, change: &Change<'_>) -> Result<Vec<Patch>> {
        let mut writer = self.usable_writer()?;
        if change.extents.is_empty() && change.disk_len == self.disk_len() {
            return Ok(Vec::new());
        }
        if change.disk_len != self.disk_len() {
            self.check_resize(&writer, change.disk_len)?;
        }
        writer.prepared = true;
        // Half of a change is none: after an error the tables in memory stand for nothing.
        writer.torn = true;
        let patches = self.decide(&mut writer, change)?;
        writer.torn = false;
        Ok(patches)
    }

    fn decide(&self, writer: &mut Writer, change: &Change<'_>) -> Result<Vec<Patch>> {
        let mut plan = Plan::default();
        if change.disk_len != self.disk_len() {
            self.resize(writer, change.disk_len, &mut Erase::Later(&mut plan.zeros))?;
        }
        for extent in change.extents {
            self.image
                .inside(extent.offset, extent.len, ErrorKind::InvalidInput)?;
            self.prepare_extent(writer, extent, &mut plan)?;
        }
        let mut patches = Vec::new();
        if writer.space.end() > writer.file_len {
            writer.file_len = writer.space.end();
            patches.push(Patch::SetLen(writer.file_len));
        }
        patches.extend(plan.unwritten().into_iter().map(Patch::Zero));
        patches.append(&mut plan.edges);
        self.table_patches(&mut patches);
        if !self.begun_before() {
            self.header_patches(writer, &mut patches)?;
        }
        Ok(patches)
    }

    fn prepare_extent(&self, writer: &mut Writer, extent: &Extent, plan: &mut Plan) -> Result<()> {
        let is_zero = extent.kind == ExtentKind::Zero;
        let mut at = extent.offset;
        while at < extent.end() {
            let (place, len) = self.image.stretch(at, extent.end() - at)?;
            let end = self.block_end(at).min(extent.end());
            let frees = is_zero && !self.image.metadata.fixed;
            if frees && place != Backing::Zero && self.is_whole_block(&(at..end)) {
                self.give_back(writer, at)?;
                at = end;
                continue;
            }
            match place {
                Backing::File(file) => {
                    if !is_zero {
                        plan.writes(file..file + len);
                    }
                    at += len;
                }
                Backing::Zero if is_zero => at += len,
                Backing::Zero | Backing::Parent => {
                    let part = at..end;
                    let mut erase = Erase::Later(&mut plan.zeros);
                    let room = self.find_room(writer, &part, &mut erase)?;
                    for edge in self.edges(&part)? {
                        plan.edges.push(Patch::Write {
                            offset: room.at + edge.offset - at,
                            bytes: edge.bytes.into(),
                            last: false,
                        });
                    }
                    if !is_zero {
                        plan.writes(room.at..room.at + (end - at));
                    }
                    self.publish(writer, &part, &room)?;
                    at = end;
                }
            }
        }
        Ok(())
    }

    /// The changed pages of the tables, neighbours in one piece.
    fn table_patches(&self, patches: &mut Vec<Patch>) {
        let mut tables = self.image.lock_tables();
        let pages = tables.pages.unwritten();
        tables.pages.promised(&pages);
        drop(tables);
        let is_next = |(before, _): &(u64, _), (after, _): &(u64, _)| before + PAGE == *after;
        for run in pages.chunk_by(is_next) {
            let Some((offset, _)) = run.first() else {
                continue;
            };
            let bytes: Vec<u8> = run.iter().flat_map(|(_, page)| **page).collect();
            patches.push(Patch::Write {
                offset: *offset,
                bytes: bytes.into(),
                last: false,
            });
        }
    }

    /// Both headers under a new name of the contents: the last thing that makes the file whole.
    fn header_patches(&self, writer: &mut Writer, patches: &mut Vec<Patch>) -> Result<()> {
        let (file_write, data_write) = (Guid::random()?, Guid::random()?);
        for _ in 0..2 {
            let (offset, header) = writer.headers.succeed(|header| {
                header.file_write = file_write;
                header.data_write = data_write;
            })?;
            patches.push(Patch::Write {
                offset,
                bytes: Bytes::copy_from_slice(&*header.encode()),
                last: true,
            });
        }
        Ok(())
    }
}

/// What a change means for bytes of the file other than the tables.
#[derive(Default)]
struct Plan {
    /// Space that is taken or becomes visible, and must be zeros where nothing is written.
    zeros: Vec<Range<u64>>,
    /// What the change's own data will cover.
    writes: Vec<Range<u64>>,
    /// Bytes of the parent around the change's data.
    edges: Vec<Patch>,
}

impl Plan {
    fn writes(&mut self, range: Range<u64>) {
        match self.writes.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.writes.push(range),
        }
    }

    /// The zeros that nothing is written over.
    fn unwritten(&mut self) -> Vec<Range<u64>> {
        self.zeros.sort_by_key(|range| range.start);
        self.writes.sort_by_key(|range| range.start);
        let mut left = Vec::new();
        let mut first = 0;
        for zeros in &self.zeros {
            let mut at = zeros.start;
            let behind = |range: &Range<u64>| range.end <= zeros.start;
            first += self
                .writes
                .iter()
                .skip(first)
                .take_while(|range| behind(range))
                .count();
            for write in self.writes.iter().skip(first) {
                if write.start >= zeros.end {
                    break;
                }
                if at < write.start {
                    left.push(at..write.start);
                }
                at = at.max(write.end);
            }
            if at < zeros.end {
                left.push(at..zeros.end);
            }
        }
        left
    }
}

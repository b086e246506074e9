//! Deciding where new bytes will lie without writing any: the caller applies the patches.

use bytes::Bytes;

use super::Guid;
use super::format::MIB;
use super::read::Place;
use super::room::Reuse;
use super::write::{VhdxMut, Writer};
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
        let old_len = writer.file_len;
        let mut payload = Vec::new();
        if change.disk_len != self.disk_len() {
            self.resize(writer, change.disk_len, Reuse::Untouched, &mut |range| {
                self.zero_patches(range, &mut payload)
            })?;
        }
        for extent in change.extents {
            self.image
                .inside(extent.offset, extent.len, ErrorKind::InvalidInput)?;
            self.prepare_extent(writer, extent, &mut payload)?;
        }
        let mut patches = Vec::new();
        if writer.space.end() > old_len {
            // Cutting first makes the new space zeros again when the patches are applied for a
            // second time.
            patches.push(Patch::SetLen(old_len));
            patches.push(Patch::SetLen(writer.space.end()));
            writer.file_len = writer.space.end();
        }
        {
            let mut tables = self.image.lock_tables();
            let pages = tables.pages.unwritten();
            tables.pages.promised(&pages);
            patches.extend(pages.into_iter().map(|(offset, page)| Patch::Write {
                offset,
                bytes: Bytes::from_owner(SharedPage(page)),
                last: false,
            }));
        }
        patches.append(&mut payload);
        if !self.begun_before() {
            self.header_patches(writer, &mut patches)?;
        }
        Ok(patches)
    }

    fn prepare_extent(
        &self,
        writer: &mut Writer,
        extent: &Extent,
        patches: &mut Vec<Patch>,
    ) -> Result<()> {
        let mut at = extent.offset;
        while at < extent.end() {
            let (place, len) = self.image.stretch(at, extent.end() - at)?;
            let end = self.block_end(at).min(extent.end());
            let is_zero = extent.kind == ExtentKind::Zero;
            let frees = is_zero && !self.image.metadata.fixed;
            if frees && place != Place::Zero && self.is_whole_block(&(at..end)) {
                self.give_back(writer, at)?;
                at = end;
                continue;
            }
            match place {
                // In place, or nothing to do.
                Place::File(_) => at += len,
                Place::Zero if is_zero => at += len,
                Place::Zero | Place::Parent => {
                    let part = at..end;
                    let room = self.find_room(writer, &part, Reuse::Untouched)?;
                    for edge in self.edges(&part)? {
                        patches.push(Patch::Write {
                            offset: room.at + edge.offset - at,
                            bytes: edge.bytes.into(),
                            last: false,
                        });
                    }
                    self.publish(writer, &part, &room)?;
                    at = end;
                }
            }
        }
        Ok(())
    }

    /// Patches that make payload zeros where it is not.
    fn zero_patches(&self, range: std::ops::Range<u64>, patches: &mut Vec<Patch>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let Some(data) = self.image.storage.next_data(at)? else {
                break;
            };
            at = data.start.max(at);
            let end = data.end.min(range.end).min(at.saturating_add(MIB));
            if at >= end {
                break;
            }
            // At most 1 MiB.
            let mut bytes = vec![0; (end - at) as usize];
            self.image.storage.read_exact_at(&mut bytes, at)?;
            if bytes.iter().any(|byte| *byte != 0) {
                bytes.fill(0);
                patches.push(Patch::Write {
                    offset: at,
                    bytes: bytes.into(),
                    last: false,
                });
            }
            at = end;
        }
        Ok(())
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

/// Lets patches and tables share one copy of a page.
struct SharedPage(std::sync::Arc<super::format::Page>);

impl AsRef<[u8]> for SharedPage {
    fn as_ref(&self) -> &[u8] {
        &*self.0
    }
}

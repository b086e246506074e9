//! Committing changed table pages through the file's log ([MS-VHDX] section 2.3).
//!
//! One log entry is a whole sequence by itself. It is written while the header still says that
//! the log is empty, so nothing trusts it; then everything so far is made durable; then one
//! header update makes the entry count, and that is the moment of the commit. The pages follow in
//! their places, and another header update empties the log. A crash before the commit leaves the
//! old tables and new payload that nothing refers to; a crash after it leaves an entry to be
//! replayed, which any reader of the format does.

use std::sync::Arc;

use super::format::{Page, encode_entry, entry_capacity};
use super::guid::Guid;
use super::writer::{VhdxMut, Writer};
use crate::error::Result;

/// Longest entry; a longer log is not used up to its end.
const MOST_ENTRY_BYTES: u64 = 8 << 20;

impl VhdxMut {
    /// Makes everything written so far durable and gives back what blocks no longer hold.
    pub(super) fn commit(&self, writer: &mut Writer) -> Result<()> {
        let storage = &*self.image.storage;
        let pages = self.in_order(self.image.lock_tables().pages.unwritten());
        if pages.is_empty() {
            writer.headers.barrier(storage)?;
            return self.give_up(writer);
        }
        let log_bytes = (writer.log.end - writer.log.start).min(MOST_ENTRY_BYTES);
        // A log has at least 1 MiB, so some pages always fit.
        let most = entry_capacity(log_bytes).max(1) as usize;
        let mut batches = pages.chunks(most).peekable();
        while let Some(batch) = batches.next() {
            let is_last = batches.peek().is_none();
            self.commit_batch(writer, batch, is_last)?;
            self.image.lock_tables().pages.written(batch);
        }
        self.give_up(writer)
    }

    fn commit_batch(
        &self,
        writer: &mut Writer,
        batch: &[(u64, Arc<Page>)],
        is_last: bool,
    ) -> Result<()> {
        let storage = &*self.image.storage;
        let log = Guid::random()?;
        let pages: Vec<(u64, &Page)> = batch.iter().map(|(at, page)| (*at, &**page)).collect();
        let entry = encode_entry(log, writer.file_len, &pages);
        storage.write_all_at(&entry, writer.log.start)?;
        writer.headers.barrier(storage)?;
        writer.torn = true;
        writer.headers.update(storage, |header| header.log = log)?;
        for (at, page) in pages {
            storage.write_all_at(page, at)?;
        }
        writer.headers.barrier(storage)?;
        let empty = |header: &mut super::format::Header| header.log = Guid::NIL;
        match is_last {
            // Afterwards either header tells of an empty log.
            true => writer.headers.update_both(storage, empty)?,
            false => writer.headers.update(storage, empty)?,
        }
        writer.torn = false;
        Ok(())
    }

    /// Sector bitmaps and the metadata first, then the block table from its end: wherever a crash
    /// cuts a commit of several entries, a partial block has its bitmap, whose entry lies behind
    /// that of the block.
    fn in_order(&self, mut pages: Vec<(u64, Arc<Page>)>) -> Vec<(u64, Arc<Page>)> {
        let bat = &self.image.geometry.bat;
        pages.sort_by_key(|(at, _)| (bat.contains(at), std::cmp::Reverse(*at)));
        pages
    }

    /// Frees what committed changes no longer hold.
    fn give_up(&self, writer: &mut Writer) -> Result<()> {
        for range in std::mem::take(&mut writer.freed) {
            let inside = range.start..range.end.min(writer.file_len);
            self.image.storage.punch_hole(inside)?;
            writer.space.release(range);
        }
        Ok(())
    }
}

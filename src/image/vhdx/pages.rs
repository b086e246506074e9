//! Table pages in memory: few, read when they are needed, and those that were changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::format::{PAGE, Page};
use crate::error::{Error, ErrorKind, Result};
use crate::image::gate::Chain;
use crate::storage::Storage;

/// Pages of block table, sector bitmaps and metadata, by their first byte in the file.
///
/// Unchanged pages are kept in two generations of bounded size; a page that is used moves to the
/// young one, and when that is full, it becomes the old one.
pub(super) struct Pages {
    storage: Arc<dyn Storage>,
    young: HashMap<u64, Arc<Page>>,
    old: HashMap<u64, Arc<Page>>,
    /// Pages that the file does not hold yet, or not for certain.
    changed: BTreeMap<u64, Arc<Page>>,
    /// Those of them that the caller has not promised to write.
    unwritten: BTreeSet<u64>,
    most_changed: usize,
    /// Unchanged pages a generation.
    generation: usize,
}

/// Pages a generation of a whole chain: 8 MiB.
const GENERATION: usize = 2048;

impl Pages {
    /// Pages of `storage`, the file of an image under `chain`, of which at most `changed_bytes`
    /// are kept changed.
    pub(super) fn new(storage: Arc<dyn Storage>, changed_bytes: u64, chain: &Chain) -> Self {
        Pages {
            storage,
            young: HashMap::new(),
            old: HashMap::new(),
            changed: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            most_changed: usize::try_from(changed_bytes / PAGE).unwrap_or(usize::MAX),
            generation: chain.share(GENERATION),
        }
    }

    /// The page at `offset`, a multiple of 4096. What lies beyond the end of the file is zeros.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn page(&mut self, offset: u64) -> Result<Arc<Page>> {
        if let Some(page) = self
            .changed
            .get(&offset)
            .or_else(|| self.young.get(&offset))
        {
            return Ok(page.clone());
        }
        let page = match self.old.remove(&offset) {
            Some(page) => page,
            None => {
                let mut page = Box::new([0; 4096]);
                let there = self.storage.len()?.saturating_sub(offset).min(PAGE) as usize;
                if there > 0 {
                    self.storage.read_exact_at(&mut page[..there], offset)?;
                }
                Arc::from(page)
            }
        };
        self.keep(offset, page.clone());
        Ok(page)
    }

    /// Changes the page at `offset`, in memory.
    ///
    /// # Errors
    /// `LimitExceeded` when too many pages are changed; `Io`.
    pub(super) fn change(&mut self, offset: u64, change: impl FnOnce(&mut Page)) -> Result<()> {
        if !self.changed.contains_key(&offset) {
            if self.changed.len() >= self.most_changed {
                return Err(Error::new(
                    ErrorKind::LimitExceeded,
                    "the changed parts of the tables do not fit the limit on memory",
                )
                .in_field("table_bytes")
                .advise("raise the limit, or write less at a time"));
            }
            let page = self.page(offset)?;
            self.young.remove(&offset);
            self.changed.insert(offset, page);
        }
        if let Some(page) = self.changed.get_mut(&offset) {
            change(Arc::make_mut(page));
            self.unwritten.insert(offset);
        }
        Ok(())
    }

    /// Whether half of what may be kept changed is.
    pub(super) fn is_crowded(&self) -> bool {
        self.unwritten.len() >= self.most_changed / 2
    }

    /// The changed pages that the caller has not promised to write, by rising offset.
    pub(super) fn unwritten(&self) -> Vec<(u64, Arc<Page>)> {
        self.unwritten
            .iter()
            .filter_map(|offset| Some((*offset, self.changed.get(offset)?.clone())))
            .collect()
    }

    /// Notes that the caller will write these pages: they stay in memory for good, because
    /// it does not report when that is done.
    pub(super) fn promised(&mut self, pages: &[(u64, Arc<Page>)]) {
        for (offset, _) in pages {
            self.unwritten.remove(offset);
        }
    }

    /// Notes that the file holds these pages.
    pub(super) fn written(&mut self, pages: &[(u64, Arc<Page>)]) {
        for (offset, page) in pages {
            self.unwritten.remove(offset);
            self.changed.remove(offset);
            self.keep(*offset, page.clone());
        }
    }

    fn keep(&mut self, offset: u64, page: Arc<Page>) {
        if self.young.len() >= self.generation {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&offset);
        self.young.insert(offset, page);
    }
}

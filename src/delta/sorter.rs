//! Sorting any number of rows in bounded memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::Result;
use crate::storage::Storage;
use crate::storage::scratch;

/// Rows of `N` numbers, in any order, a bounded number of them in memory; the others are written,
/// run by sorted run, to an unnamed file.
pub(super) struct Sorter<const N: usize> {
    rows: Vec<[u64; N]>,
    /// How many rows are in memory at most.
    most: usize,
    /// The file next to which the unnamed one is made.
    near: PathBuf,
    spilled: Option<Spilled>,
}

struct Spilled {
    file: Arc<dyn Storage>,
    /// Sorted stretches of the file.
    runs: Vec<Range<u64>>,
    end: u64,
}

impl<const N: usize> Sorter<N> {
    /// A sorter that takes about `bytes` of memory.
    pub(super) fn new(bytes: u64, near: PathBuf) -> Self {
        let most = bytes / Self::ROW_BYTES as u64;
        Sorter {
            rows: Vec::new(),
            most: usize::try_from(most).unwrap_or(usize::MAX).max(LEAST_ROWS),
            near,
            spilled: None,
        }
    }

    /// The rows in memory, which may be sorted and joined.
    pub(super) fn rows(&mut self) -> &mut Vec<[u64; N]> {
        &mut self.rows
    }

    /// Whether the next row that is pushed has others written to the file.
    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= self.most
    }

    /// Adds a row.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(super) fn push(&mut self, row: [u64; N]) -> Result<()> {
        if self.is_full() {
            self.spill()?;
        }
        if self.rows.len() == self.rows.capacity() {
            // Twice as many, but never more than are wanted.
            let more = self.rows.len().max(1024).min(self.most - self.rows.len());
            self.rows.reserve_exact(more);
        }
        self.rows.push(row);
        Ok(())
    }

    /// Writes the rows in memory to the file.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(super) fn spill(&mut self) -> Result<()> {
        self.rows.sort_unstable();
        let spilled = match &mut self.spilled {
            Some(spilled) => spilled,
            none => none.insert(Spilled {
                file: scratch(&self.near)?,
                runs: Vec::new(),
                end: 0,
            }),
        };
        let mut rows = self.rows.drain(..);
        spilled.add(|| Ok(rows.next()))?;
        drop(rows);
        if spilled.runs.len() >= RUNS_MOST {
            spilled.join::<N>()?;
        }
        Ok(())
    }

    /// All rows, ascending.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(super) fn finish(mut self) -> Result<Sorted<N>> {
        if self.spilled.is_none() {
            self.rows.sort_unstable();
            return Ok(Sorted::Memory(self.rows.into_iter()));
        }
        if !self.rows.is_empty() {
            self.spill()?;
        }
        // The readers' memory takes the place of the rows'.
        self.rows = Vec::new();
        let Some(spilled) = self.spilled else {
            return Ok(Sorted::Memory(Vec::new().into_iter()));
        };
        Ok(Sorted::Merge(spilled.merge()?))
    }

    /// All rows, ascending, to be looked up.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub(super) fn into_table(mut self) -> Result<Table<N>> {
        if self.spilled.is_some() && !self.rows.is_empty() {
            self.spill()?;
        }
        let Some(mut spilled) = self.spilled else {
            self.rows.sort_unstable();
            return Ok(Table::Memory(self.rows));
        };
        self.rows = Vec::new();
        if spilled.runs.len() > 1 {
            spilled.join::<N>()?;
        }
        Ok(Table::File {
            run: spilled.runs.pop().unwrap_or_default(),
            file: spilled.file,
        })
    }

    const ROW_BYTES: usize = N * size_of::<u64>();
}

/// Sorted rows, in memory or in a file.
pub(super) enum Table<const N: usize> {
    Memory(Vec<[u64; N]>),
    File {
        file: Arc<dyn Storage>,
        run: Range<u64>,
    },
}

impl<const N: usize> Table<N> {
    /// Passes on the rows from the first one on that `is_before` does not pass over, until `visit`
    /// has seen enough and says so by `false`.
    ///
    /// # Errors
    /// `Io`, and what `visit` returns.
    pub(super) fn each(
        &self,
        is_before: impl Fn(&[u64; N]) -> bool,
        mut visit: impl FnMut(&[u64; N]) -> Result<bool>,
    ) -> Result<()> {
        let (file, run) = match self {
            Table::Memory(rows) => {
                for row in &rows[rows.partition_point(is_before)..] {
                    if !visit(row)? {
                        break;
                    }
                }
                return Ok(());
            }
            Table::File { file, run } => (&**file, run),
        };
        let row_bytes = Sorter::<N>::ROW_BYTES as u64;
        let (mut first, mut end) = (0, (run.end - run.start) / row_bytes);
        let from = |row: u64, bytes| Reader::new(run.start + row * row_bytes..run.end, bytes);
        while first < end {
            let middle = first + (end - first) / 2;
            match from(middle, Sorter::<N>::ROW_BYTES).next(file)? {
                Some(row) if is_before(&row) => first = middle + 1,
                _ => end = middle,
            }
        }
        let mut rows = from(first, LOOK_UP_BYTES);
        while let Some(row) = rows.next(file)? {
            if !visit(&row)? {
                break;
            }
        }
        Ok(())
    }
}

impl Spilled {
    /// Appends a run of rows, which ascend.
    fn add<const N: usize>(
        &mut self,
        mut next: impl FnMut() -> Result<Option<[u64; N]>>,
    ) -> Result<()> {
        let start = self.end;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        loop {
            let row = next()?;
            if row.is_none() || buffer.len() + Sorter::<N>::ROW_BYTES > BUFFER_BYTES {
                self.file.write_all_at(&buffer, self.end)?;
                self.end += buffer.len() as u64;
                buffer.clear();
            }
            match row {
                Some(row) => buffer.extend(row.iter().flat_map(|number| number.to_le_bytes())),
                None => break,
            }
        }
        self.runs.push(start..self.end);
        Ok(())
    }

    /// Makes one run of all.
    fn join<const N: usize>(&mut self) -> Result<()> {
        let runs = std::mem::take(&mut self.runs);
        let mut merge = Merge::<N>::new(self.file.clone(), &runs)?;
        self.add(|| merge.next())?;
        runs.into_iter()
            .try_for_each(|run| self.file.punch_hole(run))
    }

    fn merge<const N: usize>(&self) -> Result<Merge<N>> {
        Merge::new(self.file.clone(), &self.runs)
    }
}

/// Rows in ascending order.
pub(super) enum Sorted<const N: usize> {
    Memory(std::vec::IntoIter<[u64; N]>),
    Merge(Merge<N>),
}

impl<const N: usize> Sorted<N> {
    /// The next row.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn next(&mut self) -> Result<Option<[u64; N]>> {
        match self {
            Sorted::Memory(rows) => Ok(rows.next()),
            Sorted::Merge(merge) => merge.next(),
        }
    }
}

/// Sorted runs that become one.
pub(super) struct Merge<const N: usize> {
    file: Arc<dyn Storage>,
    readers: Vec<Reader>,
    /// The next row of each reader that has one.
    heads: BinaryHeap<Reverse<([u64; N], usize)>>,
}

/// A run being read.
struct Reader {
    left: Range<u64>,
    /// How much is read at a time.
    step_bytes: usize,
    buffer: Vec<u8>,
    used: usize,
}

impl<const N: usize> Merge<N> {
    fn new(file: Arc<dyn Storage>, runs: &[Range<u64>]) -> Result<Self> {
        let readers = runs
            .iter()
            .map(|run| Reader::new(run.clone(), BUFFER_BYTES));
        let mut merge = Merge {
            file,
            readers: readers.collect(),
            heads: BinaryHeap::new(),
        };
        for index in 0..merge.readers.len() {
            merge.advance(index)?;
        }
        Ok(merge)
    }

    fn next(&mut self) -> Result<Option<[u64; N]>> {
        let Some(Reverse((row, index))) = self.heads.pop() else {
            return Ok(None);
        };
        self.advance(index)?;
        Ok(Some(row))
    }

    fn advance(&mut self, index: usize) -> Result<()> {
        if let Some(reader) = self.readers.get_mut(index)
            && let Some(row) = reader.next(&*self.file)?
        {
            self.heads.push(Reverse((row, index)));
        }
        Ok(())
    }
}

impl Reader {
    fn new(left: Range<u64>, step_bytes: usize) -> Self {
        Reader {
            left,
            step_bytes,
            buffer: Vec::new(),
            used: 0,
        }
    }

    fn next<const N: usize>(&mut self, file: &dyn Storage) -> Result<Option<[u64; N]>> {
        if self.used == self.buffer.len() {
            let rows = self.step_bytes / Sorter::<N>::ROW_BYTES * Sorter::<N>::ROW_BYTES;
            let len = (self.left.end - self.left.start).min(rows as u64);
            // No more than a buffer.
            self.buffer.resize(len as usize, 0);
            file.read_exact_at(&mut self.buffer, self.left.start)?;
            self.left.start += len;
            self.used = 0;
        }
        let row = self
            .buffer
            .get(self.used..self.used + Sorter::<N>::ROW_BYTES);
        let Some(row) = row else {
            return Ok(None);
        };
        self.used += row.len();
        let mut numbers = [0; N];
        for (number, bytes) in numbers.iter_mut().zip(row.chunks_exact(size_of::<u64>())) {
            *number = bytes
                .first_chunk()
                .map_or(0, |bytes| u64::from_le_bytes(*bytes));
        }
        Ok(Some(numbers))
    }
}

/// Runs that are read at once, with a buffer each.
const RUNS_MOST: usize = 256;
const BUFFER_BYTES: usize = 64 << 10;
/// Few rows of those that are looked up are next to each other.
const LOOK_UP_BYTES: usize = 1536;
/// However small the limit.
const LEAST_ROWS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_come_sorted_however_few_fit_in_memory(
            rows in prop::collection::vec([0u64..50, 0u64..u64::MAX, 0u64..3], 0..800),
            bytes in 0u64..4000,
        ) {
            let mut sorter = Sorter::<3>::new(bytes, PathBuf::from("none"));
            for row in &rows {
                sorter.push(*row).unwrap();
            }
            let mut sorted = sorter.finish().unwrap();
            let mut expected = rows;
            expected.sort_unstable();
            for row in expected {
                prop_assert_eq!(sorted.next().unwrap(), Some(row));
            }
            prop_assert_eq!(sorted.next().unwrap(), None);
        }

        #[test]
        fn rows_are_looked_up_however_few_fit_in_memory(
            rows in prop::collection::vec([0u64..500, 0u64..9], 0..300),
            bytes in 0u64..2000,
            from in 0u64..510,
            count in 0usize..300,
        ) {
            let mut sorter = Sorter::<2>::new(bytes, PathBuf::from("none"));
            for row in &rows {
                sorter.push(*row).unwrap();
            }
            let table = sorter.into_table().unwrap();
            let mut found = Vec::new();
            let look = |row: &[u64; 2]| {
                found.push(*row);
                Ok(found.len() < count)
            };
            table.each(|row| row[0] < from, look).unwrap();
            let mut expected = rows;
            expected.sort_unstable();
            expected.retain(|row| row[0] >= from);
            expected.truncate(count.max(1));
            prop_assert_eq!(found, expected);
        }
    }
}

//! A disk as a grid of cells, each as dark as much of it is marked.

use std::fmt::Write;
use std::ops::Range;

use crate::units::format_size;

/// Cells in a row: with the offset before them they fit a terminal of 80 columns.
const COLUMNS: usize = 64;
const MAX_ROWS: u64 = 16;
/// The smallest cell, a page.
const MIN_CELL_BYTES: u64 = 4096;
/// Width and height of a cell in SVG, in its units.
const CELL: usize = 10;
/// Space for the offsets before the rows, in SVG's units.
const MARGIN: usize = 80;

/// A disk in rows of cells of equal length.
pub(super) struct Picture {
    disk_bytes: u64,
    cell_bytes: u64,
    /// The marked bytes of each cell.
    marked: Vec<u64>,
}

impl Picture {
    /// A picture of `marked`: ranges of the disk, ascending and apart.
    pub(super) fn new(disk_bytes: u64, marked: impl Iterator<Item = Range<u64>>) -> Self {
        let cells = MAX_ROWS * COLUMNS as u64;
        let cell_bytes = disk_bytes
            .div_ceil(cells)
            .checked_next_power_of_two()
            .unwrap_or(1 << 63)
            .max(MIN_CELL_BYTES);
        let count = usize::try_from(disk_bytes.div_ceil(cell_bytes)).unwrap_or_default();
        let mut picture = Picture {
            disk_bytes,
            cell_bytes,
            marked: vec![0; count],
        };
        marked.for_each(|range| picture.mark(range));
        picture
    }

    fn mark(&mut self, range: Range<u64>) {
        let end = range.end.min(self.disk_bytes);
        let mut at = range.start;
        while at < end {
            let cell = at / self.cell_bytes;
            let next = (cell + 1).saturating_mul(self.cell_bytes).min(end);
            self.marked[cell as usize] += next - at;
            at = next;
        }
    }

    /// What a cell stands for, in words.
    pub(super) fn scale(&self) -> String {
        format!("each cell is {}", format_size(self.cell_bytes))
    }

    /// The rows as text, each with its offset.
    pub(super) fn lines(&self) -> Vec<String> {
        let rows = self.marked.chunks(COLUMNS).enumerate();
        rows.map(|(row, cells)| {
            let first = row * COLUMNS;
            let cells: String = (first..first + cells.len())
                .map(|cell| match self.quarters(cell) {
                    0 => '·',
                    1 => '░',
                    2 => '▒',
                    3 => '▓',
                    _ => '█',
                })
                .collect();
            format!("{:>10} {cells}", self.offset(first))
        })
        .collect()
    }

    /// The picture as an SVG file. `title` and `what` must hold no markup.
    pub(super) fn svg(&self, title: &str, what: &str) -> String {
        let rows = self.marked.len().div_ceil(COLUMNS);
        let (width, height) = (MARGIN + COLUMNS * CELL + CELL, (rows + 3) * CELL);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
             <title>{title}</title>\n\
             <style>text{{font:9px sans-serif;fill:#57606a}}rect{{fill:#0969da}}</style>\n\
             <rect width=\"{width}\" height=\"{height}\" style=\"fill:#fff\"/>\n"
        );
        for (cell, marked) in self.marked.iter().enumerate() {
            let (x, y) = (MARGIN + cell % COLUMNS * CELL, (cell / COLUMNS + 1) * CELL);
            let size = CELL - 1;
            // A cell with one marked byte is seen.
            let share = match *marked {
                0 => 0.06,
                marked => 0.2 + 0.8 * marked as f64 / self.len(cell) as f64,
            };
            // A string takes everything.
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{size}\" height=\"{size}\" opacity=\"{share:.2}\">\
                 <title>{}: {} {what}</title></rect>",
                self.offset(cell),
                format_size(*marked)
            );
        }
        for row in 0..rows {
            let y = (row + 2) * CELL - 2;
            let offset = self.offset(row * COLUMNS);
            let _ = writeln!(svg, "<text x=\"4\" y=\"{y}\">{offset}</text>");
        }
        let y = (rows + 2) * CELL + 4;
        let _ = writeln!(
            svg,
            "<text x=\"4\" y=\"{y}\">{}</text>\n</svg>",
            self.scale()
        );
        svg
    }

    fn offset(&self, cell: usize) -> String {
        match cell {
            0 => "0".to_owned(),
            cell => format_size(cell as u64 * self.cell_bytes),
        }
    }

    /// Length of a cell; the last one may be shorter.
    fn len(&self, cell: usize) -> u64 {
        let start = cell as u64 * self.cell_bytes;
        self.cell_bytes.min(self.disk_bytes - start)
    }

    /// How many quarters of a cell are marked, rounded up.
    fn quarters(&self, cell: usize) -> u64 {
        let marked = u128::from(self.marked[cell]) * 4;
        marked.div_ceil(u128::from(self.len(cell))) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_as_dark_as_much_of_it_is_marked() {
        let page = 4096;
        let marked = [0..page, 2 * page..2 * page + 1, 4 * page..5 * page - 1];
        let picture = Picture::new(5 * page + 512, marked.into_iter());
        assert_eq!(picture.lines(), ["         0 █·░·█·"]);
        // The last cell is short, and full with fewer bytes.
        let all = Picture::new(5 * page + 512, std::iter::once(5 * page..u64::MAX));
        assert_eq!(all.lines(), ["         0 ·····█"]);
    }

    #[test]
    fn a_disk_of_any_length_fits_a_screen() {
        for disk_bytes in [0, 1, 4096, 1 << 20, (1 << 40) + 1, 1 << 63, u64::MAX] {
            let picture = Picture::new(disk_bytes, std::iter::once(0..disk_bytes));
            let lines = picture.lines();
            assert!(lines.len() <= 16, "{disk_bytes}");
            assert!(lines.iter().all(|it| it.chars().count() <= 75), "{lines:?}");
            assert!(!lines.concat().contains('·'), "{disk_bytes}");
        }
    }
}

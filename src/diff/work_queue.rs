//! Gives a pair of images out in units, so that any number of threads can compare them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::image::Image;
use crate::progress::CancelToken;
use crate::units::{Extent, ExtentKind, PAGE_BYTES};

/// Gives units out in ascending order; stretches where both sides are zeros are passed over.
///
/// Every unit begins on a page and ends on one or at the end of the source, whatever the images'
/// extents look like: a page that is only partly a zero extent counts as data, and so do zeros
/// too short to be worth a gap.
pub(super) struct WorkQueue<'a> {
    cursor: Mutex<Cursor<'a>>,
    /// Length of a unit, in bytes.
    unit_bytes: u64,
    /// Units that are known before they are given out, so that the source can fetch them.
    ahead_units: usize,
    cancel: &'a CancelToken,
}

/// A range to compare; at least one side holds data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub range: Range<u64>,
    pub source: ExtentKind,
    pub target: ExtentKind,
}

/// What [`WorkQueue::next_unit`] gives.
#[derive(Debug, Default)]
pub(super) struct NextUnit {
    /// The next unit; `None` when all have been given out.
    pub unit: Option<Unit>,
    /// Bytes passed over on the way to it.
    pub passed_bytes: u64,
}

impl<'a> WorkQueue<'a> {
    /// Gives out `windows`, which are ascending, disjoint, page aligned and inside the source.
    pub(super) fn new(
        source: &'a dyn Image,
        target: &'a dyn Image,
        windows: Vec<Range<u64>>,
        unit_bytes: u64,
        cancel: &'a CancelToken,
    ) -> Self {
        let mut windows = windows.into_iter();
        let window = windows.next().unwrap_or(0..0);
        WorkQueue {
            cursor: Mutex::new(Cursor {
                source: Side::new(source),
                target: Side::new(target),
                window,
                windows,
                ahead: VecDeque::new(),
            }),
            unit_bytes,
            ahead_units: usize::try_from(source.look_ahead_bytes() / unit_bytes).unwrap_or(0),
            cancel,
        }
    }

    /// The next unit, and what was passed over before it.
    ///
    /// # Errors
    /// `Cancelled`; those of [`Image::next_extent`].
    pub(super) fn next_unit(&self) -> Result<NextUnit> {
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        while cursor.ahead.len() <= self.ahead_units {
            let next = self.find_next(&mut cursor)?;
            let data = next
                .unit
                .as_ref()
                .filter(|it| it.source == ExtentKind::Data);
            if let (Some(unit), true) = (data, self.ahead_units > 0) {
                cursor.source.image.will_read(unit.range.clone());
            }
            let is_last = next.unit.is_none();
            cursor.ahead.push_back(next);
            if is_last {
                break;
            }
        }
        Ok(cursor.ahead.pop_front().unwrap_or_default())
    }

    fn find_next(&self, cursor: &mut Cursor<'_>) -> Result<NextUnit> {
        let mut next = NextUnit::default();
        while cursor.reach_window() {
            self.cancel.check()?;
            let at = cursor.window.start;
            let (source, target, end) = cursor.stretch(at)?;
            if source == ExtentKind::Zero && target == ExtentKind::Zero {
                next.passed_bytes += end - at;
                cursor.window.start = end;
                continue;
            }
            // Neighbours of one kind make one unit, however finely a format cuts its extents.
            let limit = (at - at % self.unit_bytes)
                .saturating_add(self.unit_bytes)
                .min(cursor.window.end);
            let mut end = end.min(limit);
            while end < limit {
                let (next_source, next_target, next_end) = cursor.stretch(end)?;
                if (next_source, next_target) != (source, target) {
                    break;
                }
                end = next_end.min(limit);
            }
            cursor.window.start = end;
            next.unit = Some(Unit {
                range: at..end,
                source,
                target,
            });
            break;
        }
        Ok(next)
    }
}

struct Cursor<'a> {
    source: Side<'a>,
    target: Side<'a>,
    /// What is left of the window at hand.
    window: Range<u64>,
    windows: std::vec::IntoIter<Range<u64>>,
    /// What was found and not given out yet.
    ahead: VecDeque<NextUnit>,
}

impl Cursor<'_> {
    /// Goes on to the next window where one is finished; false when there is none.
    fn reach_window(&mut self) -> bool {
        while self.window.is_empty() {
            match self.windows.next() {
                Some(next) => self.window = next,
                None => return false,
            }
        }
        true
    }

    /// Both kinds at `at`, and how far they hold inside the window.
    fn stretch(&mut self, at: u64) -> Result<(ExtentKind, ExtentKind, u64)> {
        let (source, source_end) = self.source.stretch(at)?;
        let (target, target_end) = self.target.stretch(at)?;
        let end = source_end.min(target_end).min(self.window.end);
        Ok((source, target, end))
    }
}

/// One image and the extent at hand, widened or narrowed to whole pages.
struct Side<'a> {
    image: &'a dyn Image,
    /// As it was at the start: what a visitor does to the target must not change the comparison.
    disk_len: u64,
    kind: ExtentKind,
    range: Range<u64>,
}

impl<'a> Side<'a> {
    fn new(image: &'a dyn Image) -> Self {
        Side {
            image,
            disk_len: image.disk_len(),
            kind: ExtentKind::Zero,
            range: 0..0,
        }
    }

    /// The kind at `at`, a page's first byte, and how far it holds at least. Beyond the end of
    /// the disk everything is zeros.
    fn stretch(&mut self, at: u64) -> Result<(ExtentKind, u64)> {
        if !self.range.contains(&at) {
            let (zeros, end) = self.zeros_from(at)?;
            (self.kind, self.range) = if zeros {
                (ExtentKind::Zero, at..end)
            } else {
                (ExtentKind::Data, at..pages_up(end))
            };
        }
        Ok((self.kind, self.range.end))
    }

    /// Whether whole pages of zeros that are worth passing over begin at `at`, and where they, or
    /// else the data, end.
    fn zeros_from(&self, at: u64) -> Result<(bool, u64)> {
        let mut end = at;
        while end < self.disk_len && end - at < GAP_BYTES {
            // No extent inside the disk: let the read say what is wrong.
            let extent = self.image.next_extent(end)?;
            let extent = extent.unwrap_or_else(|| Extent::data(end..self.disk_len));
            let extent_end = extent.offset.saturating_add(extent.len).max(end + 1);
            if extent.kind == ExtentKind::Data {
                return Ok((false, extent_end));
            }
            end = extent_end;
        }
        if end >= self.disk_len {
            return Ok((true, u64::MAX));
        }
        Ok((true, end - end % PAGE_BYTES))
    }
}

/// Rounds up to whole pages; the last page below 2^64 stays short.
pub(super) fn pages_up(offset: u64) -> u64 {
    offset
        .checked_next_multiple_of(PAGE_BYTES)
        .unwrap_or(u64::MAX)
}

/// Bytes of one unit where `threads` threads compare: with very many threads shorter ones, so that
/// the buffers of all take no more than 64 MiB.
pub(super) fn unit_bytes(threads: usize) -> u64 {
    if threads <= FEW_THREADS {
        return UNIT_BYTES;
    }
    let bytes = BUFFERS_BYTES / 2 / threads as u64;
    (bytes - bytes % PAGE_BYTES).clamp(UNIT_BYTES / 16, UNIT_BYTES / 2)
}

/// So many may have buffers in huge pages, which take 2 MiB each.
const FEW_THREADS: usize = 16;
/// For two buffers a thread, where there are more.
const BUFFERS_BYTES: u64 = 32 << 20;

/// Bytes of one unit. Long enough for a medium to give its best with one read a thread under way,
/// and short enough that what one read brings is still in a near cache when it is compared:
/// on a warm cache 256 KiB cost a tenth more, and longer units hardly less.
const UNIT_BYTES: u64 = 512 << 10;

/// Zeros shorter than this between data are read with it: on a warm cache that costs about as much
/// as finding and reading both ends one by one, on a medium it saves a request.
const GAP_BYTES: u64 = 16 << 10;

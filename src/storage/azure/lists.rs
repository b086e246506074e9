//! Lists of page ranges, from requests of which each may be too much for the service.

use std::ops::Range;

use super::ranges::joined;
use crate::error::{Error, ErrorKind, Result};
use crate::location::WebAddress;
use crate::page_list::{PageListItem, PageListReader};
use crate::storage::http::{Failure, Query, Resource};

/// Which list is asked for.
pub(super) enum List<'a> {
    /// What is allocated.
    Allocated,
    /// What changed since a snapshot of the same blob, by its time as addresses write it.
    SinceTime(&'a str),
    /// What changed since a snapshot, by its address.
    SinceAddress(&'a WebAddress),
}

/// Asks for page ranges of one blob.
pub(super) struct Lister<'a> {
    pub blob: &'a Resource,
    /// Whether the service hands lists out in pages.
    pub is_paged: bool,
}

impl Lister<'_> {
    /// The ranges of a list, sorted and joined. Ranges that were cleared are among them.
    ///
    /// A list that the service cannot make in time is asked for in parts.
    ///
    /// # Errors
    /// `Untrusted`, `NotFound` and `Io` where the service refuses it; `Malformed`,
    /// `LimitExceeded`, `SourceChanged`, `Cancelled`.
    pub(super) fn list(&self, list: &List<'_>) -> Result<Vec<Range<u64>>> {
        let len = self.blob.identity().len;
        let mut found = Vec::new();
        let (mut at, mut step, mut failures) = (0, len, 0);
        while at < len {
            let part = at..at.saturating_add(step).min(len);
            let size = part.end - part.start;
            match self.part(list, &part, &mut found) {
                Ok(()) => {
                    at = part.end;
                    step = step.saturating_mul(2);
                }
                Err(error)
                    if error.kind() == ErrorKind::Io
                        && size > LEAST_PART_BYTES
                        && failures < MOST_FAILURES =>
                {
                    failures += 1;
                    step = (size / 2).next_multiple_of(LEAST_PART_BYTES);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(joined(found))
    }

    /// Adds the ranges of one part, page by page.
    fn part(&self, list: &List<'_>, part: &Range<u64>, found: &mut Vec<Range<u64>>) -> Result<()> {
        let mut marker = None;
        loop {
            let next = self.page(list, part, marker.as_deref(), found)?;
            match next {
                None => return Ok(()),
                Some(next) if marker.as_ref() == Some(&next) => {
                    return Err(self.wrong("a page list goes on where it began"));
                }
                Some(next) => marker = Some(next),
            }
        }
    }

    /// Adds the ranges of one page, and returns the marker of the next.
    fn page(
        &self,
        list: &List<'_>,
        part: &Range<u64>,
        marker: Option<&str>,
        found: &mut Vec<Range<u64>>,
    ) -> Result<Option<String>> {
        let mut parameters = "comp=pagelist".to_owned();
        let mut headers = self.blob.headers().to_vec();
        match list {
            List::Allocated => {}
            List::SinceTime(time) => parameters += &format!("&prevsnapshot={time}"),
            List::SinceAddress(older) => {
                headers.push(("x-ms-previous-snapshot-url", older.with_secrets()));
            }
        }
        if self.is_paged {
            parameters += &format!("&maxresults={PAGE_ENTRIES}");
        }
        if let Some(marker) = marker {
            parameters += &format!("&marker={}", encoded(marker));
        }
        if *part != (0..self.blob.identity().len) {
            headers.push((
                "x-ms-range",
                format!("bytes={}-{}", part.start, part.end - 1),
            ));
        }
        let query = Query {
            at: self.blob.named(),
            url: self.blob.address().with_parameters(&parameters),
            headers,
            body: None,
        };
        let mut retries = self.blob.client().retries_of(LIST_ATTEMPTS);
        loop {
            let before = found.len();
            match self.attempt(&query, found) {
                Ok(next) => return Ok(next),
                Err(failure) => {
                    found.truncate(before);
                    retries.wait(failure)?;
                }
            }
        }
    }

    fn attempt(
        &self,
        query: &Query<'_>,
        found: &mut Vec<Range<u64>>,
    ) -> Result<Option<String>, Failure> {
        let mut answer = self.blob.client().attempt(query, &[])?;
        let (etag, first) = (answer.header("etag"), self.blob.identity().etag.as_deref());
        if let (Some(etag), Some(first)) = (etag, first)
            && etag != first
        {
            return Err(answer.refuse(ErrorKind::SourceChanged, "its ETag changed meanwhile"));
        }
        let len = self.blob.identity().len;
        let mut items = PageListReader::new(answer.reader(PAGE_BYTES));
        let mut next = None;
        loop {
            let item = items.next_item().map_err(|error| match error.kind() {
                ErrorKind::Io => Failure::passing(error.at_path(query.at.to_string())),
                _ => Failure::Final(error.at_path(query.at.to_string())),
            })?;
            match item {
                None => return Ok(next),
                Some(PageListItem::Begin) => {}
                Some(PageListItem::NextMarker(marker)) => next = Some(marker),
                Some(PageListItem::PageRange(range) | PageListItem::ClearRange(range)) => {
                    if range.end > len {
                        return Err(self.wrong("a page range ends behind the blob").into());
                    }
                    if found.len() >= MOST_RANGES {
                        let what = "a page list has more than 4 Mi ranges";
                        return Err(Error::new(ErrorKind::LimitExceeded, what).into());
                    }
                    match found.last_mut() {
                        Some(last) if last.end == range.start => last.end = range.end,
                        _ => found.push(range),
                    }
                }
            }
        }
    }

    fn wrong(&self, what: &'static str) -> Error {
        Error::malformed(what).at_path(self.blob.named().to_string())
    }
}

/// As the value of a parameter.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The most entries that the service hands out at once.
const PAGE_ENTRIES: u32 = 10_000;
/// Bytes of one answer, at least 16 for each range that is taken.
const PAGE_BYTES: u64 = 1 << 30;
/// Ranges of one list: 64 MiB.
const MOST_RANGES: usize = 4 << 20;
/// The shortest part that a list is asked for in.
const LEAST_PART_BYTES: u64 = 4 << 20;
/// Parts that failed and were halved.
const MOST_FAILURES: u32 = 256;
/// A list that takes too long is not made faster by asking again.
const LIST_ATTEMPTS: u32 = 2;

//! Numbers and byte strings in the payload of a message.

use std::ops::Range;

use super::format::{LIST_MOST, TEXT_MOST};
use crate::error::{Error, Result};

/// Writes the fields of a payload.
#[derive(Debug, Default)]
pub(in crate::remote) struct Put(pub Vec<u8>);

impl Put {
    /// A number in as few bytes as it needs, seven bits each, the least first.
    pub(crate) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            // The low seven bits, and that more follow.
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push((value & 0x7f) as u8);
    }

    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn flag(&mut self, value: bool) {
        self.0.push(u8::from(value));
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Bytes with their count in front; cut where they are longer than a peer takes.
    pub(crate) fn text(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(..TEXT_MOST).unwrap_or(bytes);
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }
}

/// Takes the fields of a payload, which may hold anything.
#[derive(Debug)]
pub(in crate::remote) struct Take<'a>(pub &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn number(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                return Err(wrong(
                    "a number that is too large, or longer than it needs to be",
                ));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(wrong("a number that does not end"))
    }

    /// A number of at most `most`.
    pub(crate) fn count(&mut self, most: usize) -> Result<usize> {
        match usize::try_from(self.number()?) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(wrong("a count beyond its limit")),
        }
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        let (first, rest) = self.0.split_first().ok_or_else(short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn flag(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(wrong("a flag that is neither 0 nor 1")),
        }
    }

    pub(crate) fn raw(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn text(&mut self) -> Result<&'a [u8]> {
        let len = self.count(TEXT_MOST)?;
        self.raw(len)
    }

    pub(crate) fn string(&mut self) -> Result<String> {
        let bytes = self.text()?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(wrong("bytes after the end of a message"))
        }
    }
}

/// What a peer sent breaks the protocol.
pub(in crate::remote) fn wrong(what: &'static str) -> Error {
    Error::malformed(format!("the other end sent {what}"))
        .advise("run it again; if it comes back, one of the two ends or the line is broken")
}

fn short() -> Error {
    wrong("a message that is too short")
}

/// Ascending ranges: how far each begins behind the end of the last, and its length.
pub(in crate::remote) fn put_ranges(ranges: &[Range<u64>], out: &mut Put) {
    out.number(ranges.len() as u64);
    let mut at = 0;
    for range in ranges {
        out.number(range.start.saturating_sub(at));
        out.number(range.end.saturating_sub(range.start));
        at = range.end;
    }
}

/// Ranges that are not empty, ascend, and end below 2^63.
pub(in crate::remote) fn take_ranges(from: &mut Take<'_>) -> Result<Vec<Range<u64>>> {
    let count = from.count(LIST_MOST)?;
    let mut at = 0u64;
    let mut ranges = Vec::new();
    for _ in 0..count {
        let (gap, len) = (from.number()?, from.number()?);
        let start = at.checked_add(gap);
        let end = start.and_then(|start| start.checked_add(len));
        match (start, end) {
            (Some(start), Some(end)) if len > 0 && end <= i64::MAX as u64 => {
                ranges.push(start..end);
                at = end;
            }
            _ => return Err(wrong("an invalid range")),
        }
    }
    Ok(ranges)
}

/// At most [`TEXTS_MOST`] texts.
pub(super) fn put_texts(texts: &[String], out: &mut Put) {
    let texts = texts.get(..TEXTS_MOST).unwrap_or(texts);
    out.number(texts.len() as u64);
    texts.iter().for_each(|text| out.text(text.as_bytes()));
}

pub(super) fn take_texts(from: &mut Take<'_>) -> Result<Vec<String>> {
    let count = from.count(TEXTS_MOST)?;
    (0..count).map(|_| from.string()).collect()
}

/// Every table has fewer than 256 rows, and every value that this crate makes is in its table.
pub(super) fn index_of<T: PartialEq>(table: &[T], value: &T) -> u8 {
    let index = table.iter().position(|known| known == value);
    index
        .and_then(|index| u8::try_from(index).ok())
        .unwrap_or(0)
}

/// The value of a row of a table.
///
/// # Errors
/// `Malformed`.
pub(super) fn choice<T: Clone>(table: &[T], index: u8) -> Result<T> {
    let known = table.get(usize::from(index)).cloned();
    known.ok_or_else(|| wrong("a choice that this version does not know"))
}

const TEXTS_MOST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form_each() {
        for value in [
            0,
            1,
            127,
            128,
            300,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut put = Put::default();
            put.number(value);
            let mut take = Take(&put.0);
            assert_eq!(take.number().unwrap(), value);
            take.end().unwrap();
        }
        for bytes in [&[0x80, 0][..], &[0xff; 10], &[0x80; 11], &[0x80], &[]] {
            assert!(Take(bytes).number().is_err(), "{bytes:?}");
        }
    }
}

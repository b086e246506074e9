//! Blocks, extents and sizes.

use std::fmt;
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};

/// The unit in which differences are refined: a page of every file system that matters here.
pub const PAGE_BYTES: u64 = 4096;

/// How many guest bytes a block holds: a power of two, 4 KiB to 16 MiB, 64 KiB by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockSize(u32);

impl BlockSize {
    /// The smallest block, 4 KiB.
    pub const MIN: BlockSize = BlockSize(4 << 10);
    /// The largest block, 16 MiB.
    pub const MAX: BlockSize = BlockSize(16 << 20);

    /// A block of `bytes` bytes.
    ///
    /// # Errors
    /// `InvalidInput` unless `bytes` is a power of two from 4 KiB to 16 MiB.
    pub fn new(bytes: u64) -> Result<Self> {
        match u32::try_from(bytes) {
            Ok(small)
                if small.is_power_of_two() && (Self::MIN.0..=Self::MAX.0).contains(&small) =>
            {
                Ok(BlockSize(small))
            }
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("a block of {bytes} bytes is not a power of two from 4K to 16M"),
            )
            .in_field("block_size")),
        }
    }

    /// Bytes a block.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// How many blocks a disk of `disk_len` bytes has; the last may be short.
    pub fn count(self, disk_len: u64) -> u64 {
        disk_len.div_ceil(self.bytes())
    }

    /// The bytes of block `index` on a disk of `disk_len` bytes; empty past the end.
    pub fn range(self, index: u64, disk_len: u64) -> Range<u64> {
        let start = index.saturating_mul(self.bytes()).min(disk_len);
        start..start.saturating_add(self.bytes()).min(disk_len)
    }
}

/// Checks a change map of a disk of `disk_len` bytes. Ranges may overlap and come in any order.
///
/// # Errors
/// `InvalidInput` for a range that ends before it begins, or beyond the end of the disk: a tracker
/// that names such a range is wrong about the disk.
pub(crate) fn check_change_map(map: &[Range<u64>], disk_len: u64) -> Result<()> {
    for range in map {
        let why = match range {
            range if range.start > range.end => "it ends before it begins".to_owned(),
            range if range.end > disk_len => format!("the disk ends at {disk_len:#x}"),
            _ => continue,
        };
        let (start, end) = (range.start, range.end);
        let what = format!("a change map names bytes {start:#x} to {end:#x}: {why}");
        return Err(Error::new(ErrorKind::InvalidInput, what).in_field("change_map"));
    }
    Ok(())
}

impl Default for BlockSize {
    fn default() -> Self {
        BlockSize(64 << 10)
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_size(self.bytes()))
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for BlockSize {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.bytes())
    }
}

/// Whether an extent's bytes must be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum ExtentKind {
    /// Bytes that may be anything, zeros too.
    Data,
    /// Reads as zeros and need not be read.
    Zero,
}

/// A range of bytes with a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// How many bytes; never 0 in what this crate returns.
    #[cfg_attr(feature = "serde", serde(rename = "length"))]
    pub len: u64,
    /// Data or zeros.
    pub kind: ExtentKind,
}

impl Extent {
    /// A data extent over `range`.
    pub fn data(range: Range<u64>) -> Self {
        Extent {
            offset: range.start,
            len: range.end - range.start,
            kind: ExtentKind::Data,
        }
    }

    /// A zero extent over `range`.
    pub fn zero(range: Range<u64>) -> Self {
        Extent {
            offset: range.start,
            len: range.end - range.start,
            kind: ExtentKind::Zero,
        }
    }

    /// The first extent of `window`, in which the first data is `data`.
    pub(crate) fn first(window: Range<u64>, data: Option<Range<u64>>) -> Self {
        match data {
            Some(data) if data.start == window.start => Extent::data(data),
            Some(data) => Extent::zero(window.start..data.start),
            None => Extent::zero(window),
        }
    }

    /// First byte after the extent.
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// The bytes as a range.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.end()
    }
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Every byte equals the one before it: one call of the system's compare, as fast as memory.
    match bytes.split_first() {
        Some((first, rest)) => *first == 0 && *rest == bytes[..rest.len()],
        None => true,
    }
}

/// Reads `64K`, `4M`, `1G`, `2T` or plain bytes; units are powers of 1024.
///
/// # Errors
/// `InvalidInput` for anything else, and for sizes of 2^64 or more.
pub fn parse_size(text: &str) -> Result<u64> {
    let wrong = || {
        Error::new(
            ErrorKind::InvalidInput,
            format!("`{text}` is not a size; write bytes or 64K, 4M, 1G, 2T (powers of 1024)"),
        )
    };
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(1 << shift).ok_or_else(wrong)
}

/// Says a size as a person would: `64K`, `1.5G`, exact where it is a whole number of units.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    for (shift, unit) in UNITS {
        if bytes >> shift > 0 {
            let whole = bytes >> shift;
            let rest = bytes & ((1 << shift) - 1);
            if rest == 0 {
                return format!("{whole}{unit}");
            }
            return format!("{:.1}{unit}", bytes as f64 / (1u64 << shift) as f64);
        }
    }
    format!("{bytes}B")
}

/// A count of things: `1 extent`, `2 extents`.
pub fn format_count(count: u64, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        _ => format!("{count} {thing}s"),
    }
}

/// A moment in UTC, to the second: `2026-11-30T07:06:09Z`.
pub fn format_utc(seconds_since_1970: u64) -> String {
    let (days, seconds) = (seconds_since_1970 / 86_400, seconds_since_1970 % 86_400);
    // Counted from March on, a leap day is the last of its year; 400 years have 146097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (era * 400 + year, month + 3),
        _ => (era * 400 + year + 1, month - 9),
    };
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_nothing_else() {
        assert_eq!(parse_size("64K").unwrap(), 65536);
        assert_eq!(parse_size("4MiB").unwrap(), 4 << 20);
        assert_eq!(parse_size("512").unwrap(), 512);
        for wrong in ["", "K", "-1", "1.5G", "64 K", "1Q", "99999999999T"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(format_size(65536), "64K");
        assert_eq!(format_size(1536 << 20), "1.5G");
        assert_eq!(format_size(7), "7B");
    }

    #[test]
    fn moments_are_told_in_utc_and_counts_with_what_they_count() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (978_307_199, "2000-12-31T23:59:59Z"),
            (1_796_009_314, "2026-11-30T03:28:34Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (5_241_652_095, "2136-02-07T06:28:15Z"),
        ] {
            assert_eq!(format_utc(seconds), text);
        }
        assert_eq!(format_count(1, "extent"), "1 extent");
        assert_eq!(format_count(0, "frame"), "0 frames");
    }

    #[test]
    fn one_byte_anywhere_is_not_zero() {
        let mut bytes = [0; 100];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in 0..bytes.len() {
            bytes[at] = 0x80;
            assert!(!is_zero(&bytes) && !is_zero(&bytes[at..]) && is_zero(&bytes[..at]));
            bytes[at] = 0;
        }
    }

    #[test]
    fn the_last_block_may_be_short() {
        let size = BlockSize::default();
        assert_eq!(size.count(65537), 2);
        assert_eq!(size.range(1, 65537), 65536..65537);
        assert!(size.range(2, 65537).is_empty());
        assert!(BlockSize::new(5000).is_err());
        assert!(BlockSize::new(32 << 20).is_err());
    }
}

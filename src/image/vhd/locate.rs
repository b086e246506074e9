//! Finding the footer that counts.

use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageOptions;
use crate::storage::Storage;
use crate::units::format_size;

use super::format::{
    DiskKind, FOOTER_BYTES, Footer, HEADER_COOKIE, MAX_DYNAMIC_BYTES, SECTOR_BYTES,
};
use super::size_policy::SizePolicy;

/// A VHD file's footer, and what was found on the way to it.
pub(super) struct Located {
    pub footer: Footer,
    /// The guest-visible length that the policy takes.
    pub disk_len: u64,
    /// Where the footer that was taken lies.
    pub footer_at: u64,
    /// Where a whole footer of 512 bytes lies at the end of the file.
    pub tail_at: Option<u64>,
    /// Whether the copy at the head says the same (always so in fixed files, which have none).
    pub head_good: bool,
    /// First byte that belongs to no block: the footer's, or the end of the file.
    pub data_end: u64,
    pub warnings: Vec<String>,
}

/// Reads both ends of the file and chooses: the footer at the end, and where a crash has left
/// none there, the copy at the head of a dynamic file.
///
/// # Errors
/// `Malformed` where there is no footer, or two that disagree; `Unsupported`, `LimitExceeded`,
/// `Io`.
pub(super) fn locate(storage: &dyn Storage, options: &ImageOptions) -> Result<Located> {
    let ends = Ends::read(storage)?;
    let mut located = choose(&ends, options.lenient).map_err(|e| e.at_path(storage.path()))?;
    let footer = &located.footer;
    let wrong = |message: String| {
        Error::malformed(message)
            .in_field("current size")
            .at_offset(located.footer_at + 48)
            .at_path(storage.path())
    };
    let current = footer.current_bytes;
    let most = footer.kind.max_disk_bytes();
    if !current.is_multiple_of(SECTOR_BYTES) || current > most {
        return Err(wrong(format!(
            "a {} disk of {current:#x} bytes is not whole sectors up to {}",
            footer.kind.layout().name(),
            format_size(most)
        )));
    }
    // Fixed files of no bytes exist; one that holds some has lost its length.
    if current == 0 && footer.kind == DiskKind::Fixed && located.data_end > 0 {
        return Err(wrong(
            "a disk of 0 bytes in a file that holds more".to_owned(),
        ));
    }
    refuse_hidden_table(storage, &ends, &located)?;
    located.disk_len = options.size_policy.disk_len(footer);
    if located.disk_len > options.limits.disk_bytes {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("a disk of {:#x} bytes exceeds the limit", located.disk_len),
        )
        .in_field("current size")
        .at_path(storage.path()));
    }
    if footer.kind == DiskKind::Fixed && located.disk_len > located.data_end {
        return Err(wrong(format!(
            "the disk has {:#x} bytes, but the file holds only {:#x} of them",
            located.disk_len, located.data_end
        ))
        .advise("the file was cut short; copy it again"));
    }
    let more = located.footer_warnings(&ends);
    located.warnings.extend(more);
    Ok(located)
}

/// Refuses a fixed disk in a file that is laid out as a dynamic one: read as fixed, its header and
/// table would be taken for guest bytes. A guest may store such a header anywhere, but not where
/// the footer of the disk itself, or a copy of it at the head, points.
///
/// # Errors
/// `Malformed`, `Io`.
fn refuse_hidden_table(storage: &dyn Storage, ends: &Ends, located: &Located) -> Result<()> {
    let footer = &located.footer;
    if footer.kind != DiskKind::Fixed {
        return Ok(());
    }
    let copy = ends.head(true).ok();
    let copy = copy.filter(|copy| copy.unique_id == footer.unique_id);
    for pointing in [Some(footer), copy.as_ref()].into_iter().flatten() {
        let at = pointing.data_offset;
        let end = at.checked_add(HEADER_COOKIE.len() as u64);
        if end.is_none_or(|end| end > ends.file_len) {
            continue;
        }
        let mut cookie = [0; HEADER_COOKIE.len()];
        storage.read_exact_at(&mut cookie, at)?;
        if cookie == *HEADER_COOKIE {
            return Err(Error::malformed(
                "the footer says a fixed disk, but the file has the header of a dynamic one",
            )
            .in_field("disk type")
            .at_offset(located.footer_at + 60)
            .at_path(storage.path())
            .advise("its footer is damaged; restore the file from a copy"));
        }
    }
    Ok(())
}

/// The bytes at both ends of a file.
struct Ends {
    file_len: u64,
    head: Option<[u8; FOOTER_BYTES]>,
    /// The last 512 bytes, and the last 511 with the missing byte as a zero.
    tails: [Option<[u8; FOOTER_BYTES]>; 2],
}

impl Ends {
    fn read(storage: &dyn Storage) -> Result<Self> {
        let file_len = storage.len()?;
        let read = |at: Option<u64>, len: usize| -> Result<_> {
            let Some(at) = at else {
                return Ok(None);
            };
            let mut bytes = [0; FOOTER_BYTES];
            storage.read_exact_at(&mut bytes[..len], at)?;
            Ok(Some(bytes))
        };
        let head_at = (file_len >= FOOTER_BYTES as u64).then_some(0);
        Ok(Ends {
            file_len,
            head: read(head_at, FOOTER_BYTES)?,
            tails: [
                read(file_len.checked_sub(FOOTER_LENS[0]), FOOTER_BYTES)?,
                read(file_len.checked_sub(FOOTER_LENS[1]), FOOTER_BYTES - 1)?,
            ],
        })
    }

    fn head(&self, lenient: bool) -> Result<Footer> {
        match &self.head {
            Some(bytes) => Footer::decode(bytes, 0, lenient),
            None => Err(no_footer()),
        }
    }

    /// The footer at the end and its length, the full one before the short one.
    fn tail(&self, lenient: bool) -> Result<(Footer, u64)> {
        let mut first_error = None;
        for (bytes, len) in self.tails.iter().zip(FOOTER_LENS) {
            let Some(bytes) = bytes else { continue };
            match Footer::decode(bytes, self.file_len - len, lenient) {
                Ok(footer) => return Ok((footer, len)),
                // A footer with a fault says more than that there is no footer.
                Err(error) if error.field() != Some("cookie") => return Err(error),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(no_footer))
    }

    fn located(&self, footer: Footer, tail_len: Option<u64>, head_good: bool) -> Located {
        let tail_at = tail_len.map(|len| self.file_len - len);
        Located {
            disk_len: footer.current_bytes,
            footer,
            footer_at: tail_at.unwrap_or(0),
            tail_at: tail_at.filter(|_| tail_len == Some(FOOTER_LENS[0])),
            head_good,
            data_end: tail_at.unwrap_or(self.file_len),
            warnings: Vec::new(),
        }
    }
}

fn choose(ends: &Ends, lenient: bool) -> Result<Located> {
    let head = ends.head(false);
    let tail_error = match ends.tail(false) {
        Ok((tail, len)) if tail.kind == DiskKind::Fixed => return fixed(ends, tail, len),
        Ok((tail, len)) => return with_tail(ends, tail, len, head, lenient),
        Err(error) => error,
    };
    // A footer at the end whose checksum is wrong. If it says `fixed`, the bytes at offset 0 are
    // the guest's, whatever they look like, so the head must not be asked.
    let weak_tail = ends.tail(true).ok();
    if let Some((tail, len)) = &weak_tail
        && tail.kind == DiskKind::Fixed
    {
        if !lenient {
            return Err(tail_error);
        }
        let mut located = ends.located(tail.clone(), Some(*len), true);
        located.warn("the footer's checksum is wrong");
        return Ok(located);
    }
    if let Ok(head) = head
        && head.kind != DiskKind::Fixed
    {
        let mut located = ends.located(head, None, true);
        located.warn("no footer at the end, as a crash while growing leaves it; its copy is used");
        return Ok(located);
    }
    if lenient {
        if let Some((tail, len)) = weak_tail {
            let mut located = ends.located(tail, Some(len), false);
            located.warn("the footer's checksum is wrong");
            return Ok(located);
        }
        if let Ok(head) = ends.head(true)
            && head.kind != DiskKind::Fixed
        {
            let mut located = ends.located(head, None, true);
            located.warn("no footer at the end; its copy is used, whose checksum is wrong");
            return Ok(located);
        }
    }
    // Say what is wrong with whichever end looks like a footer.
    match ends.head(false) {
        Err(head_error)
            if tail_error.field() == Some("cookie") && head_error.field() != Some("cookie") =>
        {
            Err(head_error)
        }
        _ => Err(tail_error.advise("if the file is not a VHD, name its format")),
    }
}

fn fixed(ends: &Ends, tail: Footer, len: u64) -> Result<Located> {
    let spare = (ends.file_len - len).saturating_sub(tail.current_bytes);
    // A file that is exactly a fixed one may hold anything at offset 0. One that is not, and
    // begins like a dynamic file, may be a dynamic one whose last block ends like a footer.
    if spare > 0
        && ends
            .head(false)
            .is_ok_and(|head| head.kind != DiskKind::Fixed)
    {
        return Err(Error::malformed(
            "the end says a fixed disk that does not fill the file, the head a dynamic one",
        )
        .in_field("disk type")
        .at_offset(ends.file_len - len + 60));
    }
    let mut located = ends.located(tail, Some(len), true);
    if spare > 0 {
        located.warn(format!("{spare:#x} bytes between the disk and the footer"));
    }
    Ok(located)
}

fn with_tail(
    ends: &Ends,
    tail: Footer,
    len: u64,
    head: Result<Footer>,
    lenient: bool,
) -> Result<Located> {
    let Ok(head) = head else {
        let mut located = ends.located(tail, Some(len), false);
        located.warn("the footer's copy at the head of the file is damaged");
        return Ok(located);
    };
    let differs = [
        ("disk type", 60, head.kind != tail.kind),
        ("current size", 48, head.current_bytes != tail.current_bytes),
        ("unique id", 68, head.unique_id != tail.unique_id),
        ("data offset", 16, head.data_offset != tail.data_offset),
    ];
    let Some((field, at, _)) = differs.into_iter().find(|(_, _, differs)| *differs) else {
        let same = head == tail;
        return Ok(ends.located(tail, Some(len), same));
    };
    if !lenient {
        return Err(
            Error::malformed("the footer and its copy at the head disagree")
                .in_field(field)
                .at_offset(at)
                .advise("read it leniently to take the footer at the end"),
        );
    }
    let mut located = ends.located(tail, Some(len), false);
    located.warn(format!("the footer's copy at the head has another {field}"));
    Ok(located)
}

impl Located {
    fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    fn footer_warnings(&self, ends: &Ends) -> Vec<String> {
        let mut warnings = Vec::new();
        let footer = &self.footer;
        if self.tail_at.is_none() && self.data_end < ends.file_len {
            warnings.push("the footer has 511 bytes, as Virtual PC before 2004 wrote it".into());
        }
        let qemu = SizePolicy::QemuCompat.disk_len(footer);
        if qemu != self.disk_len {
            warnings.push(format!(
                "QEMU takes the geometry for the length and sees {qemu} bytes"
            ));
        }
        if footer.current_bytes > MAX_DYNAMIC_BYTES {
            warnings.push("longer than the 2040 GiB that QEMU opens of a VHD".into());
        }
        if footer.saved_state != 0 {
            warnings.push("a suspended machine is going to resume on this disk".into());
        }
        warnings
    }
}

/// Lengths of a footer: whole, and as Virtual PC before 2004 wrote it.
const FOOTER_LENS: [u64; 2] = [FOOTER_BYTES as u64, FOOTER_BYTES as u64 - 1];

fn no_footer() -> Error {
    Error::malformed("too short for a VHD").in_field("cookie")
}

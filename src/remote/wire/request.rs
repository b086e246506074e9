//! What the end that dialled wants, what the other one answers, and how it ends.

use std::ops::Range;
use std::time::Duration;

use super::codec::{Put, Take, wrong};
use super::format::LIST_MOST;
use super::message::{put_ranges, take_ranges};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{CreateFormat, Format, ImageInfo};
use crate::remote::shown_paths::ShownPaths;
use crate::storage::Allocation;
use crate::sync::{Mode, Outcome, Safety, SyncOptions, SyncReport, Verified, Verify};
use crate::units::BlockSize;

/// What the end that dialled wants of the other one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Where the other end's image lies there.
    pub path: Vec<u8>,
    /// Its format, where the path is not to choose it.
    pub format: Option<Format>,
    /// How to write to it; `None` where it is the source.
    pub target: Option<TargetJob>,
    /// Whether others may write to the source meanwhile: it is only looked at, and what is read
    /// of it is of no one moment.
    pub live: bool,
    /// Whether a marker of an unfinished sync at the beginning of the source was written by its
    /// guest.
    pub marker_is_data: bool,
    /// Whether the holes of the other end's file or device are read too; see
    /// [`ImageOptions::read_holes`](crate::image::ImageOptions::read_holes).
    pub read_holes: bool,
}

/// How the other end is to write its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetJob {
    /// How what moves is found.
    pub mode: Mode,
    /// What holds while the sync is under way.
    pub safety: Safety,
    /// What is read back.
    pub verify: Verify,
    /// What becomes of the space of zeros.
    pub allocation: Allocation,
    /// What a missing target is created as.
    pub create: Option<CreateFormat>,
    /// The target's length is rounded up to a multiple of this.
    pub align_bytes: u64,
    /// Blocks of roots.
    pub block_size: BlockSize,
    /// Whether a file may become shorter.
    pub allow_shrink: bool,
    /// Whether a device may be larger.
    pub allow_larger: bool,
    /// Whether only to look.
    pub dry_run: bool,
    /// Whether what the source cannot read is passed over.
    pub skip_unreadable: bool,
}

/// What a source is, as far as the target's end needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Length of the disk.
    pub disk_len: u64,
    /// The format.
    pub format: Format,
    /// Bytes a sector, where there are such.
    pub sector_bytes: Option<u64>,
    /// Bytes a block of the format, where there are such.
    pub block_bytes: Option<u64>,
    /// Dangers that are no errors.
    pub warnings: Vec<String>,
    /// Whether there is a manifest that may stand for reading it.
    pub has_manifest: bool,
}

/// How a sync ended at the remote end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteOutcome {
    numbers: Vec<u64>,
    reason: String,
    notes: Vec<String>,
    /// The first of them; more than a message takes are not told.
    unreadable: Vec<Range<u64>>,
}

/// An error, as it goes over the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    kind: u8,
    text: String,
    /// Whether the target at the end that failed is marked as incomplete now.
    pub marked: bool,
}

impl Job {
    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.text(&self.path);
        out.text(self.format.map_or("", Format::name).as_bytes());
        out.flag(self.target.is_some());
        let Some(target) = &self.target else {
            // An end without the features knows nothing of these bytes.
            if self.live || self.marker_is_data || self.read_holes {
                out.flag(self.live);
            }
            if self.marker_is_data || self.read_holes {
                out.flag(self.marker_is_data);
            }
            if self.read_holes {
                out.flag(true);
            }
            return;
        };
        out.byte(index_of(&MODES, &target.mode));
        out.byte(index_of(&SAFETIES, &target.safety));
        out.byte(index_of(&VERIFIES, &target.verify));
        out.byte(index_of(&ALLOCATIONS, &target.allocation));
        let create = target.create.map(|create| index_of(&CREATES, &create));
        out.byte(create.map_or(0, |index| index + 1));
        out.number(target.align_bytes);
        out.number(target.block_size.bytes());
        out.flag(target.allow_shrink);
        out.flag(target.allow_larger);
        out.flag(target.dry_run);
        // An end without the features knows nothing of these bytes.
        if target.skip_unreadable || self.read_holes {
            out.flag(target.skip_unreadable);
        }
        if self.read_holes {
            out.flag(true);
        }
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>) -> Result<Job> {
        let path = from.text()?.to_vec();
        let format = match from.string()?.as_str() {
            "" => None,
            name => Some(Format::parse(name)?),
        };
        let target = match from.flag()? {
            true => Some(TargetJob::take(from)?),
            false => None,
        };
        let is_source = target.is_none();
        Ok(Job {
            live: is_source && !from.is_empty() && from.flag()?,
            marker_is_data: is_source && !from.is_empty() && from.flag()?,
            read_holes: !from.is_empty() && from.flag()?,
            path,
            format,
            target,
        })
    }
}

impl TargetJob {
    fn take(from: &mut Take<'_>) -> Result<TargetJob> {
        Ok(TargetJob {
            mode: choice(&MODES, from.byte()?)?,
            safety: choice(&SAFETIES, from.byte()?)?,
            verify: choice(&VERIFIES, from.byte()?)?,
            allocation: choice(&ALLOCATIONS, from.byte()?)?,
            create: match from.byte()? {
                0 => None,
                index => Some(choice(&CREATES, index - 1)?),
            },
            align_bytes: from.number()?,
            block_size: BlockSize::new(from.number()?)?,
            allow_shrink: from.flag()?,
            allow_larger: from.flag()?,
            dry_run: from.flag()?,
            skip_unreadable: !from.is_empty() && from.flag()?,
        })
    }

    /// The same as options of a sync.
    pub fn sync_options(&self) -> SyncOptions {
        SyncOptions::default()
            .with_mode(self.mode)
            .with_safety(self.safety)
            .with_verify(self.verify)
            .with_block_size(self.block_size)
            .with_allow_shrink(self.allow_shrink)
            .with_allow_larger(self.allow_larger)
            .with_dry_run(self.dry_run)
            .with_skip_unreadable(self.skip_unreadable)
    }
}

impl Opened {
    /// The image that it describes.
    pub fn info(&self) -> ImageInfo {
        ImageInfo {
            format: self.format,
            subformat: "",
            disk_bytes: self.disk_len,
            sector_bytes: self.sector_bytes,
            block_bytes: self.block_bytes,
            facts: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.number(self.disk_len);
        out.text(self.format.name().as_bytes());
        out.number(self.sector_bytes.unwrap_or(0));
        out.number(self.block_bytes.unwrap_or(0));
        put_texts(&self.warnings, out);
        // An end without the feature knows nothing of this byte.
        if self.has_manifest {
            out.flag(true);
        }
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>) -> Result<Opened> {
        let disk_len = from.number()?;
        if disk_len > i64::MAX as u64 {
            return Err(wrong("a disk longer than any"));
        }
        // A format that this build cannot read matters only where it is read.
        let format = Format::parse(&from.string()?).unwrap_or(Format::Raw);
        let some = |bytes| (bytes != 0).then_some(bytes);
        Ok(Opened {
            disk_len,
            format,
            sector_bytes: some(from.number()?),
            block_bytes: some(from.number()?),
            warnings: take_texts(from)?,
            has_manifest: !from.is_empty() && from.flag()?,
        })
    }
}

impl RemoteOutcome {
    /// What goes over the line of a report.
    pub fn of(report: &SyncReport) -> RemoteOutcome {
        RemoteOutcome {
            numbers: vec![
                u64::from(index_of(&OUTCOMES, &report.outcome)),
                u64::from(index_of(&MODES, &report.mode)),
                u64::from(index_of(&SAFETIES, &report.safety)),
                u64::from(index_of(&VERIFIEDS, &report.verified)),
                report.disk_bytes,
                report.compared_bytes,
                report.changed_bytes,
                report.zeroed_bytes,
                report.written_bytes,
                report.logged_bytes,
                report.resumed_bytes,
                report.untouched_tail_bytes,
                report.granularity_bytes,
                u64::try_from(report.elapsed.as_micros()).unwrap_or(u64::MAX),
            ],
            reason: report.reason.clone(),
            notes: report.notes.clone(),
            unreadable: report.unreadable.iter().take(LIST_MOST).cloned().collect(),
        }
    }

    /// The report again.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn report(self) -> Result<SyncReport> {
        let small = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
        let [
            outcome,
            mode,
            safety,
            verified,
            disk,
            compared,
            changed,
            zeroed,
            written,
            logged,
            resumed,
            tail,
            granularity,
            micros,
        ] = self.numbers[..]
        else {
            return Err(wrong("a report of another length"));
        };
        Ok(SyncReport {
            outcome: choice(&OUTCOMES, small(outcome))?,
            mode: choice(&MODES, small(mode))?,
            reason: self.reason,
            safety: choice(&SAFETIES, small(safety))?,
            disk_bytes: disk,
            compared_bytes: compared,
            changed_bytes: changed,
            zeroed_bytes: zeroed,
            written_bytes: written,
            logged_bytes: logged,
            resumed_bytes: resumed,
            untouched_tail_bytes: tail,
            granularity_bytes: granularity,
            verified: choice(&VERIFIEDS, small(verified))?,
            unreadable: self.unreadable,
            root: None,
            notes: self.notes,
            elapsed: Duration::from_micros(micros),
            traffic: None,
            trusts_manifest: false,
        })
    }

    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.number(self.numbers.len() as u64);
        self.numbers.iter().for_each(|number| out.number(*number));
        out.text(self.reason.as_bytes());
        put_texts(&self.notes, out);
        // An end without the feature knows nothing of them.
        if !self.unreadable.is_empty() {
            put_ranges(&self.unreadable, out);
        }
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>) -> Result<RemoteOutcome> {
        let count = from.count(64)?;
        Ok(RemoteOutcome {
            numbers: (0..count).map(|_| from.number()).collect::<Result<_>>()?,
            reason: from.string()?,
            notes: take_texts(from)?,
            unreadable: match from.is_empty() {
                true => Vec::new(),
                false => take_ranges(from)?,
            },
        })
    }
}

impl Fault {
    /// What goes over the line of an error.
    pub fn of(error: &Error, marked: bool) -> Fault {
        Fault {
            kind: index_of(&KINDS, &error.kind()),
            text: error.to_string(),
            marked,
        }
    }

    /// As [`of`](Fault::of), for a client that is shown paths as `shown` does.
    pub(crate) fn shown(error: &Error, marked: bool, shown: &ShownPaths) -> Fault {
        Fault {
            text: shown.error(error),
            ..Fault::of(error, marked)
        }
    }

    /// The error again, as one of the other end; of kind `Incomplete` where a target is marked now.
    pub fn error(&self) -> Error {
        let kind = match self.marked {
            true => ErrorKind::Incomplete,
            false => choice(&KINDS, self.kind).unwrap_or(ErrorKind::Io),
        };
        Error::new(kind, format!("{SAYS}{}", self.text))
    }

    /// An error of the other end in its own words, to be told it again.
    #[cfg(feature = "failback")]
    pub(crate) fn quoted(error: Error) -> Error {
        match error.to_string().strip_prefix(SAYS) {
            Some(text) => Error::new(error.kind(), text.to_owned()),
            None => error,
        }
    }

    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.byte(self.kind);
        out.text(self.text.as_bytes());
        out.flag(self.marked);
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>) -> Result<Fault> {
        Ok(Fault {
            kind: from.byte()?,
            text: from.string()?,
            marked: from.flag()?,
        })
    }
}

fn put_texts(texts: &[String], out: &mut Put) {
    let texts = texts.get(..TEXTS_MOST).unwrap_or(texts);
    out.number(texts.len() as u64);
    texts.iter().for_each(|text| out.text(text.as_bytes()));
}

fn take_texts(from: &mut Take<'_>) -> Result<Vec<String>> {
    let count = from.count(TEXTS_MOST)?;
    (0..count).map(|_| from.string()).collect()
}

/// Every table has fewer than 256 rows, and every value that this crate makes is in its table.
fn index_of<T: PartialEq>(table: &[T], value: &T) -> u8 {
    let index = table.iter().position(|known| known == value);
    index
        .and_then(|index| u8::try_from(index).ok())
        .unwrap_or(0)
}

fn choice<T: Copy>(table: &[T], index: u8) -> Result<T> {
    let known = table.get(usize::from(index)).copied();
    known.ok_or_else(|| wrong("a choice that this version does not know"))
}

const SAYS: &str = "the other end: ";
const TEXTS_MOST: usize = 32;

const MODES: [Mode; 3] = [Mode::Auto, Mode::Delta, Mode::Full];
const SAFETIES: [Safety; 2] = [Safety::Atomic, Safety::InPlace];
const VERIFIES: [Verify; 3] = [Verify::Written, Verify::All, Verify::None];
const ALLOCATIONS: [Allocation; 3] = [Allocation::Keep, Allocation::Sparse, Allocation::Full];
const CREATES: [CreateFormat; 5] = [
    CreateFormat::Raw,
    CreateFormat::VhdFixed,
    CreateFormat::VhdDynamic,
    CreateFormat::VhdxFixed,
    CreateFormat::VhdxDynamic,
];
const OUTCOMES: [Outcome; 5] = [
    Outcome::Identical,
    Outcome::Synced,
    Outcome::SyncedWithGaps,
    Outcome::DryRun,
    Outcome::Unchanged,
];
const VERIFIEDS: [Verified; 5] = [
    Verified::No,
    Verified::Written,
    Verified::Cached,
    Verified::All,
    Verified::Tracked,
];
const KINDS: [ErrorKind; 20] = [
    ErrorKind::Io,
    ErrorKind::NotFound,
    ErrorKind::AlreadyExists,
    ErrorKind::NoSpace,
    ErrorKind::InUse,
    ErrorKind::Malformed,
    ErrorKind::Unsupported,
    ErrorKind::LimitExceeded,
    ErrorKind::InvalidInput,
    ErrorKind::BaseMismatch,
    ErrorKind::VerifyFailed,
    ErrorKind::Incomplete,
    ErrorKind::Parent,
    ErrorKind::SourceChanged,
    ErrorKind::Unreadable,
    ErrorKind::Cancelled,
    ErrorKind::Poisoned,
    ErrorKind::Untrusted,
    ErrorKind::TargetChanged,
    ErrorKind::MarkerInData,
];

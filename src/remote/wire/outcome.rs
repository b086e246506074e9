//! What came of a job, as it goes over the line: a report, or an error.

use std::ops::Range;
use std::time::Duration;

use super::codec::{
    Put, Take, choice, index_of, put_ranges, put_texts, take_ranges, take_texts, wrong,
};
use super::format::LIST_MOST;
use super::request::{MODES, SAFETIES};
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::remote::shown_paths::ShownPaths;
use crate::sync::{Outcome, SyncReport, Verified};
use crate::target_state::TargetState;

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
    advice: Vec<Advice>,
    /// Whether the target at the end that failed is marked as incomplete now.
    pub marked: bool,
    target_state: Option<TargetState>,
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
            cloned: false,
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
            trusts_map: false,
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
            text: error.without_advice(),
            advice: error.advice().to_vec(),
            marked,
            target_state: error.target_state(),
        }
    }

    /// As [`of`](Fault::of), for a client that is shown paths as `shown` does.
    pub(crate) fn shown(error: &Error, marked: bool, shown: &ShownPaths) -> Fault {
        let fault = Fault::of(error, marked);
        let text = |text: &str| shown.error_text(error, text);
        Fault {
            text: text(&fault.text),
            advice: fault.advice.into_iter().map(|it| it.shown(&text)).collect(),
            ..fault
        }
    }

    /// The error again, as one of the other end; of kind `Incomplete` where a target is marked now.
    pub fn error(&self) -> Error {
        let kind = match self.marked {
            true => ErrorKind::Incomplete,
            false => choice(&KINDS, self.kind).unwrap_or(ErrorKind::Io),
        };
        let error = Error::new(kind, format!("{SAYS}{}", self.text));
        let error = error.advise_all(self.advice.clone());
        match self.target_state {
            Some(state) => error.leaving(state),
            None => error,
        }
    }

    /// An error of the other end in its own words, to be told it again.
    #[cfg(feature = "failback")]
    pub(crate) fn quoted(error: Error) -> Error {
        match error.without_advice().strip_prefix(SAYS) {
            Some(text) => {
                Error::new(error.kind(), text.to_owned()).advise_all(error.advice().to_vec())
            }
            None => error,
        }
    }

    pub(in crate::remote) fn put(&self, out: &mut Put) {
        out.byte(self.kind);
        out.text(self.text.as_bytes());
        out.flag(self.marked);
        out.byte(match &self.target_state {
            Some(state) => index_of(&TARGET_STATES, state),
            None => NO_STATE,
        });
        out.number(self.advice.len() as u64);
        self.advice
            .iter()
            .for_each(|advice| put_advice(advice, out));
    }

    pub(in crate::remote) fn take(from: &mut Take<'_>) -> Result<Fault> {
        Ok(Fault {
            kind: from.byte()?,
            text: from.string()?,
            marked: from.flag()?,
            target_state: match from.byte()? {
                NO_STATE => None,
                number => Some(choice(&TARGET_STATES, number)?),
            },
            advice: (0..from.count(ADVICE_MOST)?)
                .map(|_| take_advice(from))
                .collect::<Result<_>>()?,
        })
    }
}

/// One that carries something has the numbers after those of the others.
fn put_advice(advice: &Advice, out: &mut Put) {
    let (number, text) = match advice {
        Advice::Words(words) => (WORDS, words.to_string()),
        Advice::SourceFormat(format) => (WORDS + 1, format.to_string()),
        Advice::TargetFormat(format) => (WORDS + 2, format.to_string()),
        Advice::TrustLog(log) => (WORDS + 3, log.display().to_string()),
        Advice::Align(bytes) => {
            out.byte(WORDS + 4);
            return out.number(*bytes);
        }
        plain => return out.byte(index_of(Advice::PLAIN, plain)),
    };
    out.byte(number);
    out.text(text.as_bytes());
}

fn take_advice(from: &mut Take<'_>) -> Result<Advice> {
    Ok(match from.byte()? {
        WORDS => from.string()?.into(),
        number if number == WORDS + 1 => Advice::SourceFormat(from.string()?.into()),
        number if number == WORDS + 2 => Advice::TargetFormat(from.string()?.into()),
        number if number == WORDS + 3 => Advice::TrustLog(from.string()?.into()),
        number if number == WORDS + 4 => Advice::Align(from.number()?),
        number => choice(Advice::PLAIN, number)?,
    })
}

/// The number of the first advice that carries something.
const WORDS: u8 = 200;
const ADVICE_MOST: usize = 64;

/// Of an error that has no target.
const NO_STATE: u8 = 255;

const TARGET_STATES: [TargetState; 5] = [
    TargetState::Untouched,
    TargetState::Complete,
    TargetState::Recover,
    TargetState::RunAgain,
    TargetState::Held,
];

const SAYS: &str = "the other end: ";

const OUTCOMES: [Outcome; 5] = [
    Outcome::Identical,
    Outcome::Synced,
    Outcome::SyncedWithGaps,
    Outcome::DryRun,
    Outcome::Unchanged,
];

const VERIFIEDS: [Verified; 6] = [
    Verified::No,
    Verified::Written,
    Verified::Cached,
    Verified::All,
    Verified::Tracked,
    Verified::Sent,
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

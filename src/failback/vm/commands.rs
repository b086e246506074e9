//! Controls VMs through the operator's own programs: one for each verb, JSON in and out.
//!
//! A program gets one JSON object on its standard input and, for the shell's sake, the same facts
//! in its environment (`DISKDELTA_VERB`, `_TOKEN`, `_JOB`, `_VM`, `_SIDE`, `_SITE`, `_HOST`). It
//! answers with one JSON object on its standard output: `exists`, `running` and `fenced`, as the
//! VM is *after* what it did. `changes-since` answers with `disks`, or with `tracking_lost` or
//! `snapshot_lost`. What it writes to standard error is kept for the log.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use super::{CHANGES_SINCE, Call, Changes, DiskChanges, VmController, misdirected, verb};
use crate::api::changes_between;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::{Action, Checkpoint, Token, VmSeen};
use crate::location::Location;
use crate::program::{Program, Spoken};

/// A VM that is controlled by programs.
#[derive(Debug, Clone)]
pub struct CommandController {
    facts: Facts,
    verbs: BTreeMap<String, Vec<String>>,
    default: Option<Vec<String>>,
    time_limit: Duration,
}

impl CommandController {
    /// A controller that runs `verbs[verb]`, or else `default` with the verb as last argument.
    pub fn new(
        facts: Facts,
        verbs: BTreeMap<String, Vec<String>>,
        default: Option<Vec<String>>,
        time_limit: Duration,
    ) -> Self {
        CommandController {
            facts,
            verbs,
            default,
            time_limit,
        }
    }

    fn ask(&self, verb: &'static str, call: &Call<'_>, details: Details) -> Result<Said> {
        let request = VerbRequest {
            verb,
            token: call.token,
            details,
            facts: &self.facts,
        };
        let input = serde_json::to_vec(&request).map_err(|e| {
            Error::new(ErrorKind::InvalidInput, "cannot encode the request as JSON").caused_by(e)
        })?;
        let program = self.program(verb, call.token)?;
        let spoken = program.run(&input, self.time_limit, call.cancel)?;
        serde_json::from_slice(&spoken.output).map_err(|e| nonsense(&program, &spoken, e))
    }

    fn program(&self, verb: &'static str, token: Token) -> Result<Program> {
        let argv = match (self.verbs.get(verb), &self.default) {
            (Some(argv), _) => argv.clone(),
            (None, Some(argv)) => [&argv[..], &[verb.to_owned()]].concat(),
            (None, None) => Vec::new(),
        };
        let program = Program::new(argv)?
            .with_env("DISKDELTA_VERB", verb)
            .with_env("DISKDELTA_TOKEN", token.to_string());
        let facts = self.facts.environment().into_iter();
        Ok(facts.fold(program, |it, (name, value)| it.with_env(name, value)))
    }
}

impl VmController for CommandController {
    fn execute(&self, call: &Call<'_>, action: Action) -> Result<VmSeen> {
        let verb = verb(action).ok_or_else(|| misdirected(action))?;
        let mut details = Details::default();
        match action {
            Action::Retire { discard_disks } => details.discard_disks = Some(discard_disks),
            Action::ArmTracking { keep } => details.keep = keep.map(|it| it.0.to_string()),
            _ => {}
        }
        let seen = self.ask(verb, call, details)?.seen;
        seen.ok_or_else(|| incomplete(verb, "`exists`, `running` and `fenced`"))
    }

    fn changes_since(
        &self,
        call: &Call<'_>,
        since: Option<Checkpoint>,
        from_snapshot: bool,
    ) -> Result<Changes> {
        let details = Details {
            since: since.map(|checkpoint| checkpoint.0.to_string()),
            from_snapshot: Some(from_snapshot),
            ..Details::default()
        };
        let said = self.ask(CHANGES_SINCE, call, details)?;
        match said.disks {
            _ if said.tracking_lost => Ok(Changes::TrackingLost),
            _ if said.snapshot_lost => Ok(Changes::SnapshotLost),
            Some(disks) => self.changes(disks, since.is_some(), call),
            None => Err(incomplete(
                CHANGES_SINCE,
                "`disks`, `tracking_lost` or `snapshot_lost`",
            )),
        }
    }
}

impl CommandController {
    /// Every disk of the job must be there once, and its changes where they were asked for.
    fn changes(&self, disks: Vec<SaidDisk>, tracked: bool, call: &Call<'_>) -> Result<Changes> {
        let mut changes = Vec::with_capacity(disks.len());
        for disk in disks {
            let address = Location::parse_absolute(&disk.address)?;
            let ranges = match (disk.changed, disk.since, tracked) {
                (Some(ranges), _, true) => Some(checked(&disk.identity, ranges)?),
                (None, Some(since), true) => changes_between(&address, &since, call.cancel)?,
                (None, None, true) => {
                    let what = format!("`changed` of disk `{}`", disk.identity);
                    return Err(incomplete(CHANGES_SINCE, &what));
                }
                (_, _, false) => None,
            };
            if tracked && ranges.is_none() {
                return Ok(Changes::TrackingLost);
            }
            changes.push(DiskChanges {
                address,
                identity: disk.identity,
                changed: ranges,
            });
        }
        let mut said: Vec<&str> = changes.iter().map(|disk| &disk.identity[..]).collect();
        let mut known: Vec<&str> = self.facts.disks.iter().map(|disk| &disk.0[..]).collect();
        said.sort_unstable();
        known.sort_unstable();
        if said != known {
            let text = format!("the program told of the disks {said:?}, the job has {known:?}");
            return Err(Error::malformed(text).in_field("disks"));
        }
        Ok(Changes::Tracked(changes))
    }
}

/// What is sent to a program.
#[derive(Serialize)]
struct VerbRequest<'a> {
    verb: &'static str,
    token: Token,
    #[serde(flatten)]
    details: Details,
    #[serde(flatten)]
    facts: &'a Facts,
}

#[derive(Default, Serialize)]
struct Details {
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_snapshot: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discard_disks: Option<bool>,
}

/// What a program says.
#[derive(Deserialize)]
struct Said {
    #[serde(flatten)]
    seen: Option<VmSeen>,
    #[serde(default)]
    tracking_lost: bool,
    #[serde(default)]
    snapshot_lost: bool,
    disks: Option<Vec<SaidDisk>>,
}

#[derive(Deserialize)]
struct SaidDisk {
    identity: String,
    address: String,
    /// Pairs of offset and length.
    changed: Option<Vec<(u64, u64)>>,
    /// An earlier snapshot of the disk, where the service that has both tells what changed.
    since: Option<String>,
}

fn checked(identity: &str, ranges: Vec<(u64, u64)>) -> Result<Vec<std::ops::Range<u64>>> {
    let what = format!("a changed range of disk `{identity}` ends beyond 2^64");
    let checked = |(offset, len): (u64, u64)| match offset.checked_add(len) {
        Some(end) => Ok(offset..end),
        None => Err(Error::malformed(what.clone()).at_offset(offset)),
    };
    ranges.into_iter().map(checked).collect()
}

fn incomplete(verb: &str, what: &str) -> Error {
    let text = format!("the program for `{verb}` does not say {what}");
    Error::malformed(text).advise("see what it must print in the documentation")
}

fn nonsense(program: &Program, spoken: &Spoken, cause: serde_json::Error) -> Error {
    let said = String::from_utf8_lossy(&spoken.output);
    let begin: String = said.chars().take(200).collect();
    let text = format!("`{program}` did not print the JSON object that it should: `{begin}`");
    Error::malformed(text).caused_by(cause)
}

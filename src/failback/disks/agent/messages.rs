//! What a disk agent is asked, and what it says; as JSON, checked before anything is done.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::disk_work::Done;
use crate::failback::disks::estimate::Estimate;
use crate::failback::disks::findings::Prerequisite;
use crate::failback::disks::measure::Measure;
use crate::failback::machine::{Action, Side, Token};
use crate::failback::plan::is_name;
use crate::fencing::is_instance;
use crate::image::Format;
use crate::location::is_plain;
use crate::progress::Phase;
use crate::remote::format::{PAYLOAD_MOST, WINDOWS_MOST};

/// One thing to do to the disks of one VM at one side, all of which lie at the disk agent's host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::failback::disks) struct AgentRequest {
    pub job: String,
    pub vm: String,
    /// Tells the job apart from others of that name; nothing where only a look is asked for.
    pub instance: String,
    /// The side that the disks are of.
    pub side: Side,
    /// Always null: where the disk agent keeps what it has to remember is for its own host to say.
    pub state: (),
    pub create: bool,
    pub in_place: bool,
    pub disks: Vec<DiskAsked>,
    /// The command's number.
    pub token: Token,
    pub task: Task,
}

/// A disk at the disk agent's host. A path that does not begin with `/` begins in the home
/// directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::failback::disks) struct DiskAsked {
    pub identity: String,
    pub bytes: Option<u64>,
    pub path: PathBuf,
    pub format: Format,
    /// Where the other side's disk lies at the same host; where it does not, the client
    /// answers for it.
    pub other: Option<PathBuf>,
    pub other_format: Format,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::failback::disks) enum Task {
    /// The prerequisites, outside of any job.
    Look,
    /// What a job would move.
    Estimate,
    /// How much the disks should hold.
    Measure,
    /// The ways back are not needed any more.
    ForgetWaysBack,
    /// A command of the machine.
    Execute {
        action: Action,
        keep_undo: bool,
        /// What the command knows of changes.
        changes: Option<Vec<DiskRead>>,
        /// How much the other side's disks should hold, for what is compared with that.
        other: Option<Vec<Option<Measure>>>,
    },
}

/// Where a disk is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::failback::disks) struct DiskRead {
    pub identity: String,
    /// Its path at the disk agent's host; where it is not there, the client answers for
    /// it.
    pub here: Option<PathBuf>,
    /// How many ranges of it may have changed, where that is known. They come behind the request.
    pub ranges: Option<u64>,
}

/// What a disk agent says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(in crate::failback::disks) enum AgentReply {
    /// The next messages are about this disk, of which the client is the source.
    Wanted(Wanted),
    /// A phase of long work begins.
    Begun {
        phase: Phase,
        total_bytes: Option<u64>,
    },
    Advanced {
        bytes: u64,
    },
    /// Of a command, and of ways back that were removed.
    Done(Done),
    Looked(Vec<Prerequisite>),
    Estimated(Vec<Estimate>),
    Measured(Vec<Option<Measure>>),
}

/// A disk that the client answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::failback::disks) struct Wanted {
    /// By its number in the request.
    pub disk: usize,
    /// What the pass reads; otherwise the other side's disk itself.
    pub of_pass: bool,
    /// Its VM may write to it meanwhile.
    pub live: bool,
}

impl AgentRequest {
    /// As bytes of a message.
    ///
    /// # Errors
    /// `LimitExceeded` for more than goes into one.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    /// From bytes that may be anything.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let request: AgentRequest = decode(bytes)?;
        request.check()?;
        Ok(request)
    }

    /// What the request brings ranges of.
    pub(crate) fn sources(&self) -> &[DiskRead] {
        match &self.task {
            Task::Execute { changes, .. } => changes.as_deref().unwrap_or_default(),
            _ => &[],
        }
    }

    /// Whether it only looks, outside of any job.
    pub(crate) fn only_looks(&self) -> bool {
        matches!(self.task, Task::Look | Task::Estimate)
    }

    fn check(&self) -> Result<()> {
        let is_instance = match self.only_looks() {
            true => self.instance.is_empty(),
            false => is_instance(&self.instance),
        };
        require(is_name(&self.job) && is_name(&self.vm) && is_instance)?;
        require((1..=DISKS_MOST).contains(&self.disks.len()))?;
        let mut identities = BTreeSet::new();
        let mut paths = BTreeSet::new();
        for disk in &self.disks {
            require(is_text(&disk.identity) && identities.insert(&disk.identity))?;
            require(is_path(&disk.path) && paths.insert(&disk.path))?;
            if let Some(other) = &disk.other {
                require(is_path(other) && paths.insert(other))?;
            }
            require(disk.format.is_writable())?;
        }
        let mut read = BTreeSet::new();
        let mut ranges = 0u64;
        for from in self.sources() {
            require(identities.contains(&from.identity) && read.insert(&from.identity))?;
            require(from.here.as_deref().is_none_or(is_path))?;
            ranges = ranges.saturating_add(from.ranges.unwrap_or(0));
        }
        require(ranges <= WINDOWS_MOST as u64)?;
        match &self.task {
            Task::Execute {
                action,
                changes,
                other,
                ..
            } => {
                let (brings, compares) = match action {
                    Action::Check | Action::Block | Action::Unblock | Action::Verify => {
                        (false, false)
                    }
                    Action::Copy(_) => (true, false),
                    Action::Restore { since, compare } => (since.is_some() && !compare, false),
                    Action::CheckBaseline { .. } => (false, true),
                    // Of a VM, or done by the end that runs the job.
                    _ => return Err(wrong()),
                };
                require(changes.is_some() == brings && other.is_some() == compares)?;
                let other = other.as_deref().unwrap_or_default();
                require(!compares || other.len() == self.disks.len())?;
                require(other.iter().flatten().all(Measure::is_possible))
            }
            Task::Estimate | Task::ForgetWaysBack => require(self.side == Side::Target),
            Task::Look | Task::Measure => Ok(()),
        }
    }
}

impl AgentReply {
    /// As bytes of a message.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    /// From bytes that may be anything.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reply: AgentReply = decode(bytes)?;
        match &mut reply {
            AgentReply::Looked(all) => all.iter_mut().for_each(|it| {
                it.check = plain(&it.check).into();
                it.disk = plain(&it.disk);
                it.text = plain(&it.text);
            }),
            AgentReply::Done(done) => done.detail = done.detail.as_deref().map(plain),
            AgentReply::Estimated(all) => all.iter_mut().try_for_each(|it| {
                it.disk = plain(&it.disk);
                let costs = [
                    it.read_seconds,
                    it.line_seconds,
                    it.write_seconds,
                    it.back_seconds,
                ];
                let mut numbers = costs.into_iter().chain(it.written_per_second);
                require(numbers.all(|number| number.is_finite() && number >= 0.0))
            })?,
            AgentReply::Measured(all) => require(all.iter().flatten().all(Measure::is_possible))?,
            _ => {}
        }
        Ok(reply)
    }
}

fn is_text(text: &str) -> bool {
    (1..=TEXT_MOST).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn is_path(path: &Path) -> bool {
    path.to_str()
        .is_some_and(|text| is_text(text) && is_plain(text, path))
}

/// The other end's text; nothing in it steers a terminal.
fn plain(text: &str) -> String {
    let message: String = text.chars().take(TEXT_MOST).collect();
    message.replace(char::is_control, " ")
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>> {
    let failed = |e| Error::new(ErrorKind::InvalidInput, "cannot encode this as JSON").caused_by(e);
    let bytes = serde_json::to_vec(message).map_err(failed)?;
    match bytes.len() <= PAYLOAD_MOST {
        true => Ok(bytes),
        false => {
            let what = "more than goes into one message of a disk agent";
            Err(Error::new(ErrorKind::LimitExceeded, what))
        }
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| wrong().caused_by(e))
}

fn require(holds: bool) -> Result<()> {
    holds.then_some(()).ok_or_else(wrong)
}

/// What a peer sent makes no sense.
pub(in crate::failback::disks) fn wrong() -> Error {
    Error::malformed("the other end sent a request or an answer that is invalid")
        .advise(Advice::SameVersion)
}

/// Disks of one VM.
const DISKS_MOST: usize = 256;
const TEXT_MOST: usize = 4096;

#[cfg(test)]
#[path = "../../../../tests/inside/failback/messages.rs"]
mod tests;

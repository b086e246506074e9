//! What stands in a job's journal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::{AcceptedRequest, History};
use super::machine::{Command, Event, GroupAsked, JobMode, Side, Spec, State};
use crate::error::{Error, ErrorKind, Result};

/// A record of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Record {
    /// The first record: what the job is.
    Job(JobRecord),
    /// Something happened, and the job is in another state since.
    Step(Box<StepRecord>),
}

/// What a job is; it does not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The job's name.
    pub job: String,
    /// The VM's name.
    pub vm: String,
    /// `primary-to-recovery` or `recovery-to-primary`.
    pub direction: String,
    /// What the operator chose.
    pub spec: Spec,
    /// The highest epoch of the jobs before: what controls VMs and disks may remember it.
    pub after_epoch: u64,
}

/// A record of a plan's own journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlanRecord {
    /// The first record: what is to be done.
    Begun(Begun),
    /// A request to the plan as a whole.
    Asked {
        /// What, by whom and when.
        #[serde(flatten)]
        request: AcceptedRequest,
        /// What is asked of the plan from then on.
        #[serde(flatten)]
        asked: GroupAsked,
    },
}

/// What a plan's job is; it does not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The plan file, as it was given.
    pub plan: String,
    /// The mode of each VM, as chosen or recommended.
    pub modes: BTreeMap<String, JobMode>,
    /// By whom it was begun.
    pub by: String,
    /// When, in milliseconds since 1970; 0 where that was not written down.
    #[serde(default)]
    pub at_ms: u64,
    /// The highest epoch of the jobs before.
    pub after_epoch: u64,
}

/// What happened, and where the job stands since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Milliseconds since 1970, by the executor's clock; for people only.
    pub at_ms: u64,
    /// What happened.
    pub event: Event,
    /// More about it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What is decided by it: whose VM may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decide: Option<Side>,
    /// What is sent next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Command>,
    /// Where the job stands: all that the next executor needs.
    pub state: State,
    /// What happened last, and when, up to this step.
    #[serde(default)]
    pub history: History,
}

/// Gives a kind of records its form in a journal.
macro_rules! journaled {
    ($($record:ident)*) => {$(
        impl $record {
            /// As bytes for the journal.
            ///
            /// # Errors
            /// `InvalidInput` when it cannot be said as JSON, which no record of this crate is.
            pub fn encode(&self) -> Result<Vec<u8>> {
                serde_json::to_vec(self).map_err(|e| {
                    let text = "cannot say a journal record as JSON";
                    Error::new(ErrorKind::InvalidInput, text).caused_by(e)
                })
            }

            /// From bytes of the journal.
            ///
            /// # Errors
            /// `Malformed` for what no version of this program wrote.
            pub fn decode(bytes: &[u8]) -> Result<Self> {
                serde_json::from_slice(bytes)
                    .map_err(|e| Error::malformed("a journal record is invalid").caused_by(e))
            }
        }
    )*};
}

journaled!(Record PlanRecord);

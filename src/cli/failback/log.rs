//! All that happened in a job, in words.

use std::collections::BTreeMap;

use crate::failback::job::LogLine;
use crate::failback::machine::{Answer, Command, Event, Side};
use crate::failback::record::{Record, StepRecord};
use crate::units::format_size;

use super::moments::{exact_date, span, wrapped};
use super::status::wrong_copy;
use super::text::{asks, state_line};

/// All that happened, VM by VM.
pub(super) fn log(lines: &[LogLine], operation: &str) -> Vec<String> {
    let mut sent: BTreeMap<&str, Command> = BTreeMap::new();
    let lines = lines.iter().map(|line| match &line.record {
        Record::Job(job) => format!(
            "{}: job {}, a {operation} ({})",
            line.vm, job.job, job.direction
        ),
        Record::Step(step) => {
            let text = step_line(&line.vm, step, sent.get(&line.vm[..]));
            sent.extend(step.intent.map(|command| (&line.vm[..], command)));
            text
        }
    });
    wrapped(lines.collect())
}

fn step_line(vm: &str, step: &StepRecord, sent: Option<&Command>) -> String {
    let mut text = format!("{} {vm}: ", exact_date(step.at_ms));
    text += &match &step.event {
        Event::Asked { request, by } => format!("{by} asks: {}", asks(*request)),
        Event::TakenOver { epoch } => format!("a process takes the job up (epoch {epoch})"),
        Event::Answered { token, answer } => {
            let command = sent.filter(|command| command.token == *token);
            let command = command.map_or_else(|| token.to_string(), |it| it.to_string());
            format!("{command}: {}", answered(*answer))
        }
        Event::Unanswered { token } => format!("no answer to {token}"),
        Event::RetryDue => "it is tried again".to_owned(),
        Event::PassDue => "the next pass is due".to_owned(),
        Event::CommitDue => "the time to commit has run out".to_owned(),
        Event::GroupShutsDown => "the group is shut down".to_owned(),
        Event::GroupActivates => "the group is started".to_owned(),
    };
    if let Some(detail) = &step.detail {
        text += &format!(" ({detail})");
    }
    if let Some(side) = step.decide {
        text += match side {
            Side::Source => " DECIDED: the source may run",
            Side::Target => " DECIDED: the target may run",
        };
    }
    let history = &step.history;
    if let (Some(ms), true) = (history.downtime_ms, history.phase_at_ms == step.at_ms) {
        text += &format!(" (neither ran for {})", span(ms));
    }
    if let Some(failure) = history.failed_cutover.as_ref()
        && failure.at_ms == step.at_ms
    {
        text += &format!(" THE CUTOVER FAILED: {}", wrong_copy(failure));
    }
    text + &format!(" -> {}", state_line(&step.state))
}

fn answered(answer: Answer) -> String {
    match answer {
        Answer::Vm(seen) if !seen.exists => "is not there".to_owned(),
        Answer::Vm(seen) => {
            let runs = if seen.running { "runs" } else { "is off" };
            let fenced = if seen.fenced { ", fenced" } else { "" };
            format!("{runs}{fenced}")
        }
        Answer::Done => "done".to_owned(),
        Answer::Copied(pass) => format!(
            "{} in {}",
            format_size(pass.changed_bytes),
            span(pass.elapsed_ms)
        ),
        Answer::TrackingLost => "what was written was not tracked".to_owned(),
        Answer::SnapshotLost => "the snapshot is gone".to_owned(),
        Answer::Verified { found, expected } if found == expected => "right".to_owned(),
        Answer::Verified { .. } | Answer::Damaged => "WRONG".to_owned(),
        Answer::Proven(root) => format!("its root is {root}"),
        Answer::Baseline(true) => "unchanged".to_owned(),
        Answer::Baseline(false) => "changed".to_owned(),
        Answer::Failed(problem) => format!("FAILED: {problem}"),
    }
}

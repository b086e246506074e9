//! `diskdelta recover`

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::resolve_to_write;
use crate::sync::{
    Forgotten, GuardedBytes, HostTarget, HostTargetOptions, LOG_DIR, Pending, PendingState,
    Recovered, pending, recover_all,
};
use crate::text::escape_path;
use crate::units::format_size;
use crate::{Error, ErrorKind, Location};
use serde::Serialize;

use super::advice;
use super::args::{self, TargetArgs};
use super::context::{Context, name_of};
use super::outcome::{Ended, Exit, Failure};
use super::progress::Notes;

/// Finish, or give up, an interrupted sync
///
/// A marked target is finished from its redo log. --list and --all look in the given directories,
/// by default in the log directory and the current one.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Target; with --list and --all, directories to look in
    #[arg(required_unless_present_any = ["list", "all"], value_name = "TARGET")]
    #[arg(value_parser = args::readable())]
    paths: Vec<Location>,
    /// Give the sync up: the target, which must be unmarked, stays as it was
    #[arg(long, conflicts_with_all = ["list", "all"])]
    discard: bool,
    /// Release a held target that is whole, so that it can be used
    #[arg(long, conflicts_with_all = ["list", "all", "discard"])]
    release: bool,
    /// Remove the marker of a target whose log is lost
    ///
    /// Needs the bytes that were under it (--head, --tail), or --zero-guarded; with --release also
    /// for a held target.
    #[arg(long, hide_short_help = true, help_heading = "Expert", conflicts_with_all = ["list", "all", "discard", "target_manifest"])]
    forget: bool,
    /// With --forget: bytes of the start of the target, as many as the marker covers
    #[arg(long, hide_short_help = true, help_heading = "Expert", requires = "forget", value_name = "FILE", value_parser = args::here())]
    head: Option<PathBuf>,
    /// With --forget: bytes of the end of the target, as many as the marker covers
    #[arg(long, hide_short_help = true, help_heading = "Expert", requires = "forget", value_name = "FILE", value_parser = args::here())]
    tail: Option<PathBuf>,
    /// With --forget: write zeros over the marker; the bytes under it are lost
    #[arg(long, hide_short_help = true, help_heading = "Expert", requires = "forget", conflicts_with_all = ["head", "tail"])]
    zero_guarded: bool,
    /// Target manifest to update, if it is in neither the target's directory nor the log's
    #[arg(long, hide_short_help = true, help_heading = "Expert", value_name = "FILE", value_parser = args::here())]
    target_manifest: Option<PathBuf>,
    /// List interrupted syncs
    #[arg(long, conflicts_with = "all")]
    list: bool,
    /// Finish every marked target that is found
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    open: TargetArgs,
}

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    if args.list {
        return list(args, context);
    }
    let options = args.open.options(&context.common);
    if args.all {
        return all(args, &options, context);
    }
    let [at] = &args.paths[..] else {
        let what = "one target at a time; directories go with --list and --all";
        return Err(Error::new(ErrorKind::InvalidInput, what).into());
    };
    let manifest = args
        .target_manifest
        .as_ref()
        .map(resolve_to_write)
        .transpose()?;
    let options = options.with_target_manifest(manifest);
    let target = context.open_target(at, &options)?;
    if args.forget {
        return forget(args, &target, context);
    }
    let notes = Arc::new(Notes::over(context.progress.clone()));
    let work = context.work.clone().with_progress(notes.clone());
    let done = match (args.discard, args.release) {
        (true, _) => target.discard(&work),
        (_, true) => target.release(&work),
        _ => target.recover(&work),
    };
    let notes = notes.take();
    context.warn(&notes);
    let recovered = done.map_err(Failure::onto(&target))?;
    let object = Object {
        notes,
        ..Object::new(at.to_string(), recovered)
    };
    context.print(&object, || object.text(args.discard))?;
    Ok(match recovered {
        Recovered::Rerun => Exit::Recover,
        _ => Exit::Done,
    })
}

fn forget(args: &Args, target: &HostTarget, context: &Context) -> Ended {
    let bytes = GuardedBytes::default()
        .with_head(read_guarded(args.head.as_deref())?)
        .with_tail(read_guarded(args.tail.as_deref())?)
        .with_zeros(args.zero_guarded)
        .with_held(args.release);
    let done = target.forget(&bytes, &context.work);
    let forgotten = done.map_err(Failure::onto(target))?;
    context.warn(&forgotten.notes);
    let object = ForgottenObject::of(target, &forgotten);
    context.print(&object, || object.text())?;
    Ok(Exit::Done)
}

/// The bytes of a file that is not much longer than what a marker guards.
fn read_guarded(path: Option<&Path>) -> Result<Option<Vec<u8>>, Error> {
    let Some(path) = path else { return Ok(None) };
    let failed = |cause| Error::io("read", cause).at_path(path);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(GUARDED_MOST)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(Some(bytes))
}

/// A marker guards a MiB at either end, and less than a sector more.
const GUARDED_MOST: u64 = 2 << 20;

#[derive(Serialize)]
struct ForgottenObject {
    target: String,
    outcome: String,
    restored: Vec<Span>,
    lost: Vec<Span>,
    rest: &'static str,
    opens: bool,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Span {
    offset: u64,
    bytes: u64,
}

impl ForgottenObject {
    fn of(target: &HostTarget, forgotten: &Forgotten) -> Self {
        let spans = |ranges: &[Range<u64>]| {
            let spans = ranges.iter().map(|it| Span {
                offset: it.start,
                bytes: it.end - it.start,
            });
            spans.collect()
        };
        ForgottenObject {
            target: target.target().path().display().to_string(),
            outcome: "forgotten".to_owned(),
            restored: spans(&forgotten.restored),
            lost: spans(&forgotten.lost),
            rest: "unknown",
            opens: forgotten.opens,
            notes: forgotten.notes.clone(),
        }
    }

    fn text(&self) -> Vec<String> {
        let target = &self.target;
        let text = |spans: &[Span]| {
            let spans = spans.iter();
            let spans = spans.map(|it| format!("{} bytes at {:#x}", it.bytes, it.offset));
            spans.collect::<Vec<_>>().join(", ")
        };
        let mut lines = vec![format!("{target}: the marker is removed")];
        if !self.restored.is_empty() {
            lines.push(format!("restored as given: {}", text(&self.restored)));
        }
        if !self.lost.is_empty() {
            lines.push(format!("lost, now zeros: {}", text(&self.lost)));
        }
        lines.push(FORGOTTEN.to_owned());
        if !self.opens {
            lines.push(
                "it does not open as an image of its format: remove it, and sync to a new one"
                    .to_owned(),
            );
        }
        lines
    }
}

const FORGOTTEN: &str = "all else may be a mixture of old and new, because the lost log was that of \
                         an unfinished sync: sync again before the disk is used";

fn list(args: &Args, context: &Context) -> Ended {
    let mut list = List {
        pending: Vec::new(),
    };
    for directory in args.directories() {
        match pending(&directory) {
            Ok(found) => list.pending.extend(found),
            Err(error) if error.kind() == ErrorKind::NotFound && args.paths.is_empty() => {}
            Err(error) => return Err(error.into()),
        }
    }
    context.print(&list, || match list.pending.is_empty() {
        true => vec!["nothing is pending".to_owned()],
        false => list.pending.iter().map(text_of).collect::<Vec<_>>(),
    })?;
    Ok(Exit::Done)
}

fn all(args: &Args, options: &HostTargetOptions, context: &Context) -> Ended {
    let (mut recovered, mut exit) = (Vec::new(), Exit::Done);
    for directory in args.directories() {
        let outcomes = match recover_all(&directory, options, &context.work) {
            Ok(outcomes) => outcomes,
            Err(error) if error.kind() == ErrorKind::NotFound && args.paths.is_empty() => continue,
            Err(error) => return Err(error.into()),
        };
        for (item, outcome) in outcomes {
            let target = item.target.unwrap_or(item.file).display().to_string();
            let object = match outcome {
                Ok(outcome) => Object::new(target, outcome),
                Err(error) => Object {
                    target,
                    outcome: "failed".to_owned(),
                    error: Some(advice::text(&error)),
                    notes: Vec::new(),
                },
            };
            if matches!(object.outcome.as_str(), "failed" | "rerun") {
                exit = Exit::Recover;
            }
            recovered.push(object);
        }
    }
    let list = All { recovered };
    context.print(&list, || match list.recovered.is_empty() {
        true => vec!["nothing to recover".to_owned()],
        false => {
            let lines = list.recovered.iter().map(|object| object.text(false));
            lines.collect()
        }
    })?;
    Ok(exit)
}

impl Args {
    fn directories(&self) -> Vec<PathBuf> {
        match (self.paths.is_empty(), &self.open.log_dir) {
            (false, _) => self.paths.iter().map(path_of).collect(),
            (true, Some(log_dir)) => vec![log_dir.clone()],
            (true, None) => vec![PathBuf::from(LOG_DIR), PathBuf::from(".")],
        }
    }
}

/// The path of a directory, or what cannot be one.
fn path_of(at: &Location) -> PathBuf {
    match at {
        Location::Path(path) => path.clone(),
        other => other.to_string().into(),
    }
}

#[derive(Serialize)]
struct Object {
    target: String,
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

impl Object {
    fn new(target: String, recovered: Recovered) -> Self {
        Object {
            target,
            outcome: name_of(&recovered),
            error: None,
            notes: Vec::new(),
        }
    }

    fn text(&self, discarded: bool) -> String {
        let what = match self.outcome.as_str() {
            "nothing" => "nothing to recover",
            "old" if discarded => "given up; the target is as it was",
            "old" => {
                "the target is as it was; the same sync, run again, goes on with what was \
                 logged (recover --discard drops it)"
            }
            "new" => "finished; the target is as it should become",
            "held" => "whole, and held for its holder; recover --release makes it usable",
            "forgotten" => {
                "the marker is removed, as recover --forget began it; all that was not given to it \
                 may be a mixture of old and new: sync again before the disk is used"
            }
            "kept" => {
                "the target was not changed; the log is not certainly its own, so it is not \
                 dropped but kept"
            }
            "rerun" => "incomplete; run the same in-place sync again to finish it",
            _ => self.error.as_deref().unwrap_or("in doubt"),
        };
        format!("{}: {what}", self.target)
    }
}

#[derive(Serialize)]
struct All {
    recovered: Vec<Object>,
}

#[derive(Serialize)]
struct List {
    pending: Vec<Pending>,
}

fn text_of(pending: &Pending) -> String {
    let target = match &pending.target {
        Some(target) => escape_path(target),
        None => "a target that it does not name".to_owned(),
    };
    let state = match pending.state {
        PendingState::Marked => "incomplete; `recover` finishes it",
        PendingState::Rerun => "incomplete; the same sync must run again",
        PendingState::Held => "whole, and held until it is released",
        PendingState::Damaged => {
            "incomplete, and its log is damaged: bring back an undamaged copy of it, or give up \
             the bytes under the marker (`recover --forget`)"
        }
        PendingState::InUse => "in use; perhaps its sync is under way",
        PendingState::Missing => "not there any more",
        PendingState::Untrusted => {
            "the file may not come from diskdelta and was not read; a marked disk may need it: \
             find out who changed it, and name it with --trust-log"
        }
        _ => "as it was; the same sync goes on, `recover --discard` gives up",
    };
    let size = format_size(pending.file_bytes);
    format!("{target}: {state} ({}, {size})", escape_path(&pending.file))
}

//! `diskdelta recover`

use std::path::PathBuf;

use diskdelta::storage::resolve;
use diskdelta::sync::{
    HostTarget, HostTargetOptions, Pending, PendingKind, Recovered, STAGE_DIR, Standstill, pending,
    recover_all,
};
use diskdelta::text::escape_path;
use diskdelta::units::format_size;
use diskdelta::{Error, ErrorKind, Limits};
use serde::Serialize;

use super::Ended;
use super::args::{self, TargetArgs};
use super::context::Context;
use super::outcome::{Exit, Failure};

/// Finishes, or gives up, an interrupted sync
///
/// A marked target is finished from its stage. --discard drops what was staged, which is possible
/// only while the target is unmarked. A target that is held stays so until --release. --list shows
/// what is pending, --all finishes all of it: in the folders that are named, or else in the stage
/// folder and the current one.
#[derive(clap::Args)]
pub struct Args {
    /// The target; with --list and --all, folders to look in
    #[arg(required_unless_present_any = ["list", "all"], value_name = "TARGET")]
    #[arg(value_parser = args::here())]
    paths: Vec<PathBuf>,
    /// Gives the sync up: the target stays as it was
    #[arg(long, conflicts_with_all = ["list", "all"])]
    discard: bool,
    /// Lets a target go that is held and whole, so that it can be used again
    #[arg(long, conflicts_with_all = ["list", "all", "discard"])]
    release: bool,
    /// The kept manifest to bring up to date, if it is in neither the target's folder nor the log's
    #[arg(long, value_name = "FILE", value_parser = args::here())]
    target_manifest: Option<PathBuf>,
    /// Shows what is pending
    #[arg(long, conflicts_with = "all")]
    list: bool,
    /// Finishes every marked target that is found
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    open: TargetArgs,
}

pub fn run(args: &Args, context: &Context) -> Ended {
    if args.list {
        return list(args, context);
    }
    let options = args.open.options(&context.common);
    if args.all {
        return all(args, &options, context);
    }
    let [path] = &args.paths[..] else {
        let what = "one target at a time; folders go with --list and --all";
        return Err(Error::new(ErrorKind::InvalidInput, what).into());
    };
    let manifest = args.target_manifest.as_ref().map(resolve).transpose()?;
    let options = options.with_target_manifest(manifest);
    let target = HostTarget::open(path, &options)?;
    context.warn(target.warnings());
    let done = match (args.discard, args.release) {
        (true, _) => target.discard(&context.work),
        (_, true) => target.release(&context.work),
        _ => target.recover(&context.work),
    };
    let recovered = done.map_err(Failure::onto(&target))?;
    let object = Object::new(path.display().to_string(), recovered);
    context.print(&object, || object.text(args.discard))?;
    Ok(match recovered {
        Recovered::Rerun => Exit::Recover,
        _ => Exit::Done,
    })
}

fn list(args: &Args, context: &Context) -> Ended {
    let mut all = Vec::new();
    for folder in args.folders() {
        match pending(&folder, &Limits::default()) {
            Ok(found) => all.extend(found),
            Err(error) if error.kind() == ErrorKind::NotFound && args.paths.is_empty() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let pending: Vec<Item> = all.iter().map(Item::of).collect();
    context.print(&List { pending }, || match all.is_empty() {
        true => vec!["nothing is pending".to_owned()],
        false => all.iter().map(text_of).collect::<Vec<_>>(),
    })?;
    Ok(Exit::Done)
}

fn all(args: &Args, options: &HostTargetOptions, context: &Context) -> Ended {
    let (mut recovered, mut exit) = (Vec::new(), Exit::Done);
    for folder in args.folders() {
        let outcomes = match recover_all(&folder, options, &context.work) {
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
                    outcome: "failed",
                    error: Some(error.to_string()),
                },
            };
            if matches!(object.outcome, "failed" | "rerun") {
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
    fn folders(&self) -> Vec<PathBuf> {
        match (self.paths.is_empty(), &self.open.stage_dir) {
            (false, _) => self.paths.clone(),
            (true, Some(stage_dir)) => vec![stage_dir.clone()],
            (true, None) => vec![PathBuf::from(STAGE_DIR), PathBuf::from(".")],
        }
    }
}

#[derive(Serialize)]
struct Object {
    target: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Object {
    fn new(target: String, recovered: Recovered) -> Self {
        let outcome = match recovered {
            Recovered::Nothing => "nothing",
            Recovered::Old => "old",
            Recovered::New => "new",
            Recovered::Rerun => "rerun",
            Recovered::Held => "held",
            _ => "unknown",
        };
        Object {
            target,
            outcome,
            error: None,
        }
    }

    fn text(&self, discarded: bool) -> String {
        let what = match self.outcome {
            "nothing" => "nothing to recover",
            "old" if discarded => "given up; the target is as it was",
            "old" => {
                "the target is as it was; the same sync, run again, goes on with what was \
                 staged (recover --discard drops it)"
            }
            "new" => "finished; the target is as it should become",
            "held" => "whole, and held: whoever holds it goes on, or recover --release lets it go",
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
    pending: Vec<Item>,
}

#[derive(Serialize)]
struct Item {
    file: String,
    file_bytes: u64,
    kind: &'static str,
    target: Option<String>,
    state: &'static str,
}

impl Item {
    fn of(pending: &Pending) -> Self {
        Item {
            file: pending.file.display().to_string(),
            file_bytes: pending.file_bytes,
            kind: match pending.kind {
                PendingKind::Stage => "stage",
                PendingKind::PartOfStage => "part_of_stage",
                PendingKind::Sidecar => "sidecar",
                PendingKind::Copy => "copy",
                _ => "unknown",
            },
            target: pending.target.as_ref().map(|it| it.display().to_string()),
            state: match pending.standstill {
                Standstill::Unmarked => "unmarked",
                Standstill::Marked => "marked",
                Standstill::Rerun => "rerun",
                Standstill::Held => "held",
                Standstill::InUse => "in_use",
                Standstill::Missing => "missing",
                Standstill::Untrusted => "untrusted",
                _ => "unknown",
            },
        }
    }
}

fn text_of(pending: &Pending) -> String {
    let target = match &pending.target {
        Some(target) => escape_path(target),
        None => "a target that it does not name".to_owned(),
    };
    let state = match pending.standstill {
        Standstill::Marked => "incomplete; `recover` finishes it",
        Standstill::Rerun => "incomplete; the same sync must run again",
        Standstill::Held => "whole, and held until it is released",
        Standstill::InUse => "in use; perhaps its sync is under way",
        Standstill::Missing => "not there any more",
        Standstill::Untrusted => {
            "the file may not come from diskdelta and was not read; remove it, or name it with \
             --trust-log"
        }
        _ => "as it was; the same sync goes on, `recover --discard` gives up",
    };
    let size = format_size(pending.file_bytes);
    format!("{target}: {state} ({}, {size})", escape_path(&pending.file))
}

//! `diskdelta undo`

use std::path::PathBuf;

use crate::storage::{FileRef, resolve};
use crate::{Location, sync};

use super::args::{self, TargetArgs};
use super::context::Context;
use super::outcome::{Ended, Failure};
use super::sync_report::print_report;

/// Restore what a target held before a sync with --undo FILE
#[derive(clap::Args)]
pub(super) struct Args {
    /// File that `sync --undo` wrote
    #[arg(value_parser = args::here())]
    file: PathBuf,
    /// Target, as that sync left it
    #[arg(value_parser = args::readable())]
    target: Location,
    #[command(flatten)]
    open: TargetArgs,
}

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    let target = context.open_target(&args.target, &args.open.options(&context.common))?;
    let file = FileRef::host(resolve(&args.file)?)?;
    let report =
        sync::undo(&file, target.target(), &context.work).map_err(Failure::onto(&target))?;
    print_report(context, &report, target.warnings())
}

//! `diskdelta delta`

use std::path::PathBuf;

use crate::api::DeltaInfo;
use crate::delta::{self, Delta, DeltaOptions};
use crate::hash::Hash;
use crate::image::Format;
use crate::storage::FileRef;
use crate::sync::{self, BaseCheck, Verify};
use crate::units::{format_count, format_size};
use crate::{BlockSize, Limits, Location, Result};
use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::args::{self, Holes, Parents, SideFormat, TargetArgs};
use super::changes::{ChangesArg, changed_in};
use super::context::{Context, name_of};
use super::delta_file;
use super::export;
use super::outcome::{Ended, Exit, Failure};
use super::sync_report::print_report;
use super::tls_args::TlsArgs;

/// Create, apply, show, merge and export delta files
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Create(Box<CreateArgs>),
    Apply(ApplyArgs),
    Export(export::Args),
    Show(ShowArgs),
    Merge(MergeArgs),
}

/// Write the difference from BASE to SOURCE to a file
///
/// The file can be carried away and applied to a target that holds BASE.
#[derive(clap::Args)]
struct CreateArgs {
    /// Image, or manifest (`.manifest`), of what the target holds
    #[arg(value_parser = args::readable())]
    base: Location,
    /// Image that the target is to hold
    #[arg(value_parser = args::readable())]
    source: Location,
    #[command(flatten)]
    out: OutArgs,
    /// Block size of the two roots; that of BASE if it is a manifest
    #[arg(long, hide_short_help = true, help_heading = "Expert", value_name = "SIZE", default_value = "64K", value_parser = args::block_size)]
    block_size: BlockSize,
    /// Read BASE as this format, whatever its name
    #[arg(long, alias = "target-format", value_name = "FORMAT", value_parser = args::side_format())]
    base_format: Option<SideFormat>,
    /// Read the source as this format, whatever its name
    #[arg(long, value_name = "FORMAT", value_parser = args::format())]
    source_format: Option<Format>,
    /// Look for changes only where a change map names them; `-` is standard input
    ///
    /// KIND is as in sync --changes. BASE is a manifest: of two images the roots need all bytes.
    /// The delta leads to the source only if the map names all that changed since BASE.
    #[arg(long, value_name = "KIND:FILE", value_parser = ChangesArg::parse)]
    changes: Option<ChangesArg>,
    #[command(flatten)]
    parents: Parents,
    #[command(flatten)]
    holes: Holes,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Where a delta goes, and how it is packed.
#[derive(clap::Args)]
struct OutArgs {
    /// Delta to write; it must not exist
    #[arg(long, short, value_name = "FILE", value_parser = args::here())]
    output: PathBuf,
    /// zstd level, 1 to 22; 0 disables compression
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(0..=22))]
    level: i32,
}

/// Merge deltas that follow each other into one
#[derive(clap::Args)]
struct MergeArgs {
    /// Deltas, oldest first
    #[arg(required = true, value_parser = args::here())]
    files: Vec<PathBuf>,
    #[command(flatten)]
    out: OutArgs,
}

/// Apply a delta to a target that holds its base
///
/// A target that holds the result already is not changed; any other is refused.
#[derive(clap::Args)]
struct ApplyArgs {
    /// Delta to read
    #[arg(value_parser = args::here())]
    file: PathBuf,
    /// Image or block device to change
    #[arg(value_parser = args::readable())]
    target: Location,
    /// How the base is recognised: by the whole target, or by what the delta replaces
    #[arg(long, help_heading = "Safety", default_value = "whole", value_parser = base_check())]
    base: BaseCheck,
    /// What is read back from the medium afterwards
    #[arg(long, help_heading = "Safety", default_value = "written", value_parser = args::verify())]
    verify: Verify,
    #[command(flatten)]
    open: TargetArgs,
}

/// Check a delta file to its last byte, and show what it holds
#[derive(clap::Args)]
struct ShowArgs {
    /// Delta to read
    #[arg(value_parser = args::here())]
    file: PathBuf,
}

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    match &args.verb {
        Verb::Create(args) => create(args, context),
        Verb::Apply(args) => apply(args, context),
        Verb::Export(args) => export::run(args, context),
        Verb::Show(args) => show(args, context),
        Verb::Merge(args) => merge(args, context),
    }
}

fn create(args: &CreateArgs, context: &Context) -> Ended {
    let common = &context.common;
    let (parents, holes, tls) = (&args.parents, args.holes, &args.tls);
    let work = &context.work;
    let base = common.open_side(&args.base, args.base_format, parents, holes, tls, work)?;
    let image = args.holes.of(args.parents.options(args.source_format));
    let source = common.open_source(&args.source, &image, tls, work)?;
    context.warn(&[&base.warnings(), source.warnings()].concat());
    let options = DeltaOptions::default()
        .with_block_size(args.block_size)
        .with_level(args.out.level());
    let changes = changed_in(args.changes.as_ref(), source.changes(), source.disk_len())?;
    let privacy = source.privacy().and(base.privacy());
    args.out.file_ref()?.create_whole(privacy, |storage| {
        let image = &**source.readable()?;
        delta::create_within(base.as_base(), image, changes, storage, &options, work)?;
        base.check()?;
        source.check()
    })?;
    print(&delta_file::open(&args.out.output)?, context)
}

fn merge(args: &MergeArgs, context: &Context) -> Ended {
    let deltas: Vec<Delta> = args
        .files
        .iter()
        .map(delta_file::open)
        .collect::<Result<_>>()?;
    let (limits, level) = (Limits::default(), args.out.level());
    delta::merge_to(
        &deltas,
        &args.out.file_ref()?,
        &limits,
        level,
        &context.work,
    )?;
    print(&delta_file::open(&args.out.output)?, context)
}

impl OutArgs {
    fn level(&self) -> Option<i32> {
        (self.level > 0).then_some(self.level)
    }

    fn file_ref(&self) -> Result<FileRef> {
        FileRef::to_write(&self.output)
    }
}

fn apply(args: &ApplyArgs, context: &Context) -> Ended {
    let delta = delta_file::open(&args.file)?;
    let target = context.open_target(&args.target, &args.open.options(&context.common))?;
    let (base, verify) = (args.base, args.verify);
    let report = sync::apply_delta(&delta, target.target(), base, verify, &context.work)
        .map_err(Failure::onto(&target))?;
    print_report(context, &report, target.warnings())
}

fn show(args: &ShowArgs, context: &Context) -> Ended {
    let delta = delta_file::open(&args.file)?;
    delta.verify(&context.work, &|_| Ok(()))?;
    print(&delta, context)
}

fn print(delta: &Delta, context: &Context) -> Ended {
    let info = delta.info()?;
    context.print(&info, || text(&info))?;
    Ok(Exit::Done)
}

fn text(info: &DeltaInfo) -> Vec<String> {
    let stated = |root: Option<Hash>| root.map_or("not stated".to_owned(), |it| it.to_string());
    vec![
        format!("{}, complete", name_of(&info.purpose)),
        format!(
            "disk: {} before, {} after; {} data and {} zeros in {}; file {}",
            format_size(info.base_len),
            format_size(info.disk_len),
            format_size(info.data_bytes),
            format_size(info.zero_bytes),
            format_count(info.frame_count, "frame"),
            format_size(info.file_bytes)
        ),
        format!("base root: {}", stated(info.base_root)),
        format!("root:      {}", stated(info.root)),
    ]
}

fn base_check() -> impl TypedValueParser<Value = BaseCheck> {
    PossibleValuesParser::new(["whole", "touched"]).map(|name| match name.as_str() {
        "touched" => BaseCheck::Touched,
        _ => BaseCheck::Whole,
    })
}

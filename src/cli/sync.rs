//! `diskdelta sync`

use std::path::{Path, PathBuf};

use diskdelta::image::{CreateFormat, Format, ImageOptions};
use diskdelta::remote::{Location, Traffic};
use diskdelta::storage::{Allocation, HostFile, Place, TargetOptions, resolve};
use diskdelta::sync::{
    self, HostSource, HostTarget, HostTargetOptions, ManifestCache, Mode, Outcome, Safety,
    SyncOptions, SyncReport, Verified, Verify,
};
use diskdelta::units::{format_size, parse_size};
use diskdelta::{BlockSize, Error, ErrorKind};
use serde::Serialize;

use super::Ended;
use super::args::{self, Common, Holes, Parents};
use super::context::Context;
use super::far;
use super::outcome::{Exit, Failure};
use super::reach::Reach;

/// Makes TARGET hold what SOURCE holds, moving only what differs
///
/// A missing target is created, its format chosen by its extension (sparse raw, dynamic VHD or
/// VHDX) or by --create. TARGET may be a block device.
#[derive(clap::Args)]
pub struct Args {
    /// The image to read; on another host ssh://[user@]host[:port]/path, or
    /// diskdelta://host[:port]/name at a service there
    #[arg(value_parser = args::anywhere())]
    pub source: Location,
    /// The image or block device to write, or the address of one on another host
    #[arg(value_parser = args::anywhere())]
    pub target: Location,
    /// How what moves is found: by comparing (delta), or not at all (full)
    #[arg(long, default_value = "auto", value_parser = args::mode())]
    pub mode: Mode,
    /// atomic: staged first, so the target is old or new at any moment. in-place: written at
    /// once; the target is marked as incomplete until the sync, run again if need be, is done
    #[arg(long, default_value = "atomic", value_parser = args::safety())]
    pub safety: Safety,
    /// Leaves the target marked when the sync is done, so that nothing uses it until `recover
    /// --release`; also goes on with one that is held. Goes with --safety in-place
    #[arg(long)]
    pub hold: bool,
    /// Creates the target in this format
    #[arg(long, value_name = "FORMAT", value_parser = args::create_format())]
    pub create: Option<CreateFormat>,
    /// Rounds the length of the target up to a multiple of SIZE (Azure wants 1M)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub align: Option<u64>,
    /// Writes the way back there before the target changes; `undo` takes it
    #[arg(long, value_name = "FILE", value_parser = args::here())]
    pub undo: Option<PathBuf>,
    /// Where the stage lies: beside a file target by default, for a device in /var/lib/diskdelta
    #[arg(long, value_name = "DIR", value_parser = args::here())]
    pub stage_dir: Option<PathBuf>,
    /// A manifest that stands for reading the target, and is kept current; begun if missing. It
    /// holds only as long as nothing but such syncs writes to the target
    #[arg(long, value_name = "FILE", value_parser = args::here())]
    pub target_manifest: Option<PathBuf>,
    /// Keeps the source's manifest in DIR, to stand for reading it as long as its file's identity,
    /// length and times, or its device's count of writes, are the same; a wrong one is found by
    /// --verify all only. Goes with --target-manifest, or a target on another host
    #[arg(long, value_name = "DIR", value_parser = args::here())]
    pub manifest_cache: Option<PathBuf>,
    /// Bytes a block of a manifest that is begun
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = args::block_size)]
    pub block_size: BlockSize,
    /// What is read back from the medium afterwards; `all` reads holes too, as --read-holes does
    #[arg(long, default_value = "written", value_parser = args::verify())]
    pub verify: Verify,
    /// What becomes of the space of zeros that are written: as the target has it, holes, or taken.
    /// Zeros that are there already stay as they are, but for --mode full
    #[arg(long, default_value = "keep", value_parser = args::allocation())]
    pub allocation: Allocation,
    /// Says what a sync would do, and writes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Takes FILE, a log or sidecar or copy of an unfinished sync, for one that diskdelta made,
    /// where the file system does not show it; you answer for what it holds
    #[arg(long, value_name = "FILE", value_parser = args::here())]
    pub trust_log: Vec<PathBuf>,
    /// Goes on where the source cannot be read, leaves the target's bytes there (status 4)
    #[arg(long)]
    pub skip_unreadable: bool,
    /// Lets a file target become shorter
    #[arg(long)]
    pub allow_shrink: bool,
    /// Takes a device that is larger than the source; what lies beyond stays as it is
    #[arg(long)]
    pub allow_larger: bool,
    /// Reads the source as this format, whatever its name says
    #[arg(long, value_name = "FORMAT", value_parser = args::format())]
    pub source_format: Option<Format>,
    /// Writes the target as this format, whatever its name says
    #[arg(long, value_name = "FORMAT", value_parser = args::format())]
    pub target_format: Option<Format>,
    #[command(flatten)]
    pub parents: Parents,
    #[command(flatten)]
    pub holes: Holes,
    #[command(flatten)]
    pub reach: Reach,
}

pub fn run(args: &Args, context: &Context) -> Ended {
    match (&args.source, &args.target) {
        (Location::Here(source), Location::Here(target)) => run_here(args, source, target, context),
        (Location::Far(source), Location::Here(target)) => far::pull(args, source, target, context),
        (Location::Here(source), Location::Far(target)) => far::push(args, source, target, context),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            "one of the two must be on this host",
        )
        .advise("run it on one of the other two")
        .into()),
    }
}

fn run_here(args: &Args, source: &Path, target: &Path, context: &Context) -> Ended {
    if args.manifest_cache.is_some() && args.target_manifest.is_none() {
        let what = "--manifest-cache goes with --target-manifest, or a target on another host";
        return Err(Error::new(ErrorKind::InvalidInput, what).into());
    }
    let options = context.common.source_options();
    let image = args.source_image();
    let source = HostSource::open(source, &image, &options)?;
    let open = args.target_options(&source.files(), &context.common);
    let target = HostTarget::open(target, &open)?;
    let warnings = [source.warnings(), target.warnings().to_vec()].concat();
    context.warn(&warnings);
    let options = args.sync_options()?;
    let mut wanted = source.source();
    // A dry run reads the source instead of making a folder or a manifest.
    if let Some(folder) = args.manifest_cache.as_ref().filter(|_| !args.dry_run) {
        let cached = ManifestCache::open(folder)?.look_up(&source, args.block_size)?;
        wanted = wanted.with_manifest(cached.manifest_or_read(None, &context.work)?.0);
    }
    let report = sync::sync(&wanted, target.target(), &options, &context.work)
        .map_err(Failure::onto(&target))?;
    print_report(context, &report, &warnings)
}

impl Args {
    /// How a source of this host is opened: what is verified as a whole is read as a whole.
    pub fn source_image(&self) -> ImageOptions {
        let image = self.parents.options(self.source_format);
        image.with_read_holes(self.reads_holes())
    }

    /// Whether holes of the source are read; those of a target are by [`Verify::All`] itself.
    pub fn reads_holes(&self) -> bool {
        self.holes.read_holes || self.verify == Verify::All
    }

    pub fn target_options(&self, sources: &[HostFile], common: &Common) -> HostTargetOptions {
        let open = TargetOptions::default()
            .with_direct(common.direct)
            .with_allocation(self.allocation);
        HostTargetOptions::default()
            .with_image(self.holes.of(self.parents.options(self.target_format)))
            .with_create(self.create)
            .with_align_bytes(self.align.unwrap_or(1))
            .with_stage_dir(self.stage_dir.clone())
            .with_trusted(self.trust_log.clone())
            .with_target_manifest(
                self.target_manifest
                    .as_ref()
                    .and_then(|it| resolve(it).ok()),
            )
            .with_dry_run(self.dry_run)
            .with_open(open)
            .with_sources(sources.iter().cloned())
    }

    pub fn sync_options(&self) -> diskdelta::Result<SyncOptions> {
        let place = |path: &PathBuf| Place::host(resolve(path)?);
        Ok(SyncOptions::default()
            .with_mode(self.mode)
            .with_safety(self.safety)
            .with_hold(self.hold)
            .with_verify(self.verify)
            .with_undo(self.undo.as_ref().map(place).transpose()?)
            .with_target_manifest(self.target_manifest.as_ref().map(place).transpose()?)
            .with_block_size(self.block_size)
            .with_allow_shrink(self.allow_shrink)
            .with_allow_larger(self.allow_larger)
            .with_skip_unreadable(self.skip_unreadable)
            .with_dry_run(self.dry_run))
    }
}

#[derive(Serialize)]
struct Object<'a> {
    outcome: &'static str,
    mode: &'static str,
    reason: &'a str,
    safety: &'static str,
    disk_bytes: u64,
    compared_bytes: u64,
    changed_bytes: u64,
    zeroed_bytes: u64,
    written_bytes: u64,
    staged_bytes: u64,
    resumed_bytes: u64,
    untouched_tail_bytes: u64,
    granularity_bytes: u64,
    verified: &'static str,
    unreadable: Vec<Range>,
    root: Option<String>,
    elapsed_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_bytes: Option<u64>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Range {
    offset: u64,
    length: u64,
}

/// Prints what a sync, an applied delta or an undo did.
pub fn print_report(context: &Context, report: &SyncReport, warnings: &[String]) -> Ended {
    print_any(context, report, warnings, None)
}

/// Prints what a sync across hosts did.
pub fn print_report_across(
    context: &Context,
    report: &SyncReport,
    warnings: &[String],
    traffic: Traffic,
) -> Ended {
    print_any(context, report, warnings, Some(traffic))
}

fn print_any(
    context: &Context,
    report: &SyncReport,
    warnings: &[String],
    traffic: Option<Traffic>,
) -> Ended {
    let warnings = &[warnings, &report.notes].concat();
    let unreadable = report.unreadable.iter().map(|range| Range {
        offset: range.start,
        length: range.end - range.start,
    });
    let object = Object {
        outcome: outcome_name(report.outcome),
        mode: mode_name(report.mode),
        reason: &report.reason,
        safety: safety_name(report.safety),
        disk_bytes: report.disk_bytes,
        compared_bytes: report.compared_bytes,
        changed_bytes: report.changed_bytes,
        zeroed_bytes: report.zeroed_bytes,
        written_bytes: report.written_bytes,
        staged_bytes: report.staged_bytes,
        resumed_bytes: report.resumed_bytes,
        untouched_tail_bytes: report.untouched_tail_bytes,
        granularity_bytes: report.granularity_bytes,
        verified: verified_name(report.verified),
        unreadable: unreadable.collect(),
        root: report
            .root
            .map(|root| diskdelta::manifest::Hash::from_bytes(root).to_string()),
        elapsed_seconds: report.elapsed.as_secs_f64(),
        sent_bytes: traffic.map(|it| it.sent_bytes),
        received_bytes: traffic.map(|it| it.received_bytes),
        warnings,
    };
    context.print(&object, || text(report, traffic))?;
    Ok(match report.unreadable.is_empty() {
        true => Exit::Done,
        false => Exit::Gaps,
    })
}

fn text(report: &SyncReport, traffic: Option<Traffic>) -> Vec<String> {
    let size = format_size;
    let disk = size(report.disk_bytes);
    let changed = size(report.changed_bytes);
    let seconds = report.elapsed.as_secs_f64();
    let mut lines = vec![match report.outcome {
        Outcome::Identical => format!("identical: nothing written ({disk} disk, {seconds:.1} s)"),
        Outcome::Unchanged => unchanged(report, &disk),
        Outcome::DryRun if report.written_bytes > 0 => format!(
            "dry run: {changed} of {disk} would change, {} would be written",
            size(report.written_bytes)
        ),
        Outcome::DryRun => format!("dry run: {changed} of {disk} would change"),
        _ => format!(
            "done: {changed} of {disk} changed, {} written, {} zeroed ({seconds:.1} s)",
            size(report.written_bytes),
            size(report.zeroed_bytes)
        ),
    }];
    let mut how = format!("mode {}", mode_name(report.mode));
    if !report.reason.is_empty() {
        how += &format!(" ({})", report.reason);
    }
    how += &format!(
        ", safety {}, verified {}",
        safety_name(report.safety),
        verified_name(report.verified)
    );
    lines.push(how);
    if let Some(traffic) = traffic {
        let (sent, received) = (size(traffic.sent_bytes), size(traffic.received_bytes));
        lines.push(format!("{sent} sent, {received} received"));
    }
    if report.resumed_bytes > 0 {
        let resumed = size(report.resumed_bytes);
        lines.push(format!("{resumed} taken over from an earlier run"));
    }
    if report.untouched_tail_bytes > 0 {
        let tail = size(report.untouched_tail_bytes);
        lines.push(format!("{tail} beyond the source left as they were"));
    }
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    lines.extend(report.unreadable.iter().map(|range| {
        let len = range.end - range.start;
        format!("unreadable: {len} bytes at {:#x}", range.start)
    }));
    lines
}

fn unchanged(report: &SyncReport, disk: &str) -> String {
    let what = match report.verified {
        Verified::Tracked => "nothing tracked as changed differs",
        Verified::Cached => "nothing differs by the manifests",
        _ if !report.unreadable.is_empty() => "nothing that could be read differs",
        _ => "nothing was found to differ",
    };
    let seconds = report.elapsed.as_secs_f64();
    format!("unchanged: {what}; nothing written ({disk} disk, {seconds:.1} s)")
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Identical => "identical",
        Outcome::Unchanged => "unchanged",
        Outcome::Synced => "synced",
        Outcome::SyncedWithGaps => "synced_with_gaps",
        Outcome::DryRun => "dry_run",
        _ => "unknown",
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Delta => "delta",
        Mode::Full => "full",
        _ => "auto",
    }
}

fn safety_name(safety: Safety) -> &'static str {
    match safety {
        Safety::Atomic => "atomic",
        Safety::InPlace => "in-place",
        _ => "unknown",
    }
}

fn verified_name(verified: Verified) -> &'static str {
    match verified {
        Verified::No => "no",
        Verified::Written => "written",
        Verified::Cached => "cached",
        Verified::Tracked => "tracked",
        Verified::All => "all",
        _ => "unknown",
    }
}

//! `diskdelta diff`

use std::time::Instant;

use crate::Extent;
use crate::Location;
use crate::units::format_size;
use serde::Serialize;

use super::args::{self, Holes, Parents, SideFormat, side_format};
use super::changes::{ChangesArg, changed_in};
use super::context::{Context, name_of};
use super::outcome::{Ended, Exit};
use super::tls_args::TlsArgs;

/// Show where two disks differ; status 0 if nowhere, otherwise 1
///
/// A and B are images or manifests (`.manifest`, or --source-format manifest). The extents are
/// what a sync from A to B would change; `zero` where A holds zeros.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Source: image or manifest
    #[arg(value_parser = args::readable())]
    a: Location,
    /// Target: image or manifest
    #[arg(value_parser = args::readable())]
    b: Location,
    /// Look only where a change map names it; `-` is standard input
    ///
    /// KIND is as in sync --changes. A and B are images; what the map leaves out is not found.
    #[arg(long, value_name = "KIND:FILE", value_parser = ChangesArg::parse)]
    changes: Option<ChangesArg>,
    /// Read A as this format, whatever its name
    #[arg(long, value_name = "FORMAT", value_parser = side_format())]
    source_format: Option<SideFormat>,
    /// Read B as this format, whatever its name
    #[arg(long, value_name = "FORMAT", value_parser = side_format())]
    target_format: Option<SideFormat>,
    #[command(flatten)]
    parents: Parents,
    #[command(flatten)]
    holes: Holes,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Serialize)]
struct Object {
    identical: bool,
    disk_bytes: u64,
    target_disk_bytes: u64,
    changed_bytes: u64,
    zeroed_bytes: u64,
    granularity_bytes: u64,
    extents: Vec<Extent>,
    elapsed_seconds: f64,
    warnings: Vec<String>,
}

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    let started = Instant::now();
    let common = &context.common;
    let open = |at, format| {
        let (parents, holes, work) = (&args.parents, args.holes, &context.work);
        common.open_side(at, format, parents, holes, &args.tls, work)
    };
    let a = open(&args.a, args.source_format)?;
    let b = open(&args.b, args.target_format)?;
    let warnings = [a.warnings(), b.warnings()].concat();
    context.warn(&warnings);
    let changes = changed_in(args.changes.as_ref(), a.changes(), a.disk_len())?;
    let found = a.diff_within(&b, changes, &context.work)?;
    let object = Object {
        identical: found.is_identical(),
        disk_bytes: a.disk_len(),
        target_disk_bytes: b.disk_len(),
        changed_bytes: found.changed_bytes(),
        zeroed_bytes: found.zeroed_bytes(),
        granularity_bytes: found.granularity_bytes,
        extents: found.extents,
        elapsed_seconds: started.elapsed().as_secs_f64(),
        warnings,
    };
    context.print(&object, || text(&object))?;
    Ok(match object.identical {
        true => Exit::Done,
        false => Exit::Differs,
    })
}

fn text(object: &Object) -> Vec<String> {
    if object.identical {
        return vec!["identical".to_owned()];
    }
    let mut lines: Vec<String> = object
        .extents
        .iter()
        .map(|it| format!("{} {:#x} {}", name_of(&it.kind), it.offset, it.len))
        .collect();
    if object.disk_bytes != object.target_disk_bytes {
        lines.push(format!(
            "lengths differ: {} and {} bytes",
            object.disk_bytes, object.target_disk_bytes
        ));
    }
    let (extents, differ) = match object.extents.len() {
        1 => ("1 extent".to_owned(), "differs"),
        count => (format!("{count} extents"), "differ"),
    };
    lines.push(format!(
        "{} in {extents} {differ}, {} of it zeros now; in units of {}",
        format_size(object.changed_bytes),
        format_size(object.zeroed_bytes),
        format_size(object.granularity_bytes)
    ));
    lines
}

//! `diskdelta info`

use crate::Location;
use crate::api::open_source;
use crate::image::{ImageInfo, Layout};
use crate::units::format_size;
use serde::Serialize;

use super::args::{self, OneImage};
use super::context::Context;
use super::outcome::{Ended, Exit};
use super::tls_args::TlsArgs;

/// Show what an image is: format, size, allocated space, parents, oddities
#[derive(clap::Args)]
pub(super) struct Args {
    /// Image to inspect, also while others write to it
    #[arg(value_parser = args::readable())]
    image: Location,
    #[command(flatten)]
    open: OneImage,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    info: &'a ImageInfo,
    allocated_bytes: u64,
}

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    let live = context.common.source_options().with_allow_writers(true);
    let options = args.open.options();
    let connect = args.tls.of(context.common.connect(), [&args.image])?;
    let source = open_source(&args.image, &options, &live, &connect, &context.work)?;
    let mut info = source.info();
    info.warnings = source.warnings().to_vec();
    let object = Object {
        info: &info,
        allocated_bytes: source.readable()?.allocated_bytes()?,
    };
    context.print(&object, || text(&object))?;
    Ok(Exit::Done)
}

fn text(object: &Object<'_>) -> Vec<String> {
    let info = object.info;
    let size = |bytes| format!("{} ({bytes} bytes)", format_size(bytes));
    let layout = match info.layout {
        Layout::Flat => "",
        other => other.name(),
    };
    let format = format!("{} {layout}", info.format.name());
    let mut lines = vec![
        ("format", format.trim_end().to_owned()),
        ("disk", size(info.disk_bytes)),
        ("allocated", size(object.allocated_bytes)),
    ];
    lines.extend(info.facts.iter().map(|(key, value)| (*key, value.clone())));
    lines.extend(info.parents.iter().map(|it| ("parent", it.clone())));
    lines.extend(info.warnings.iter().map(|it| ("warning", it.clone())));
    lines
        .into_iter()
        .map(|(key, value)| format!("{:<15} {value}", format!("{key}:")))
        .collect()
}

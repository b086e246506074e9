//! `diskdelta info`

use crate::Location;
use crate::api::open_source;
use crate::remote::ConnectOptions;
use crate::units::format_size;
use serde::Serialize;
use std::collections::BTreeMap;

use super::args::{self, OneImage};
use super::context::Context;
use super::outcome::{Ended, Exit};

/// Says what an image is: format, size, space taken, parents, oddities
#[derive(clap::Args)]
pub(super) struct Args {
    /// The image, also while others write to it
    #[arg(value_parser = args::readable())]
    image: Location,
    #[command(flatten)]
    open: OneImage,
}

#[derive(Serialize)]
struct Object<'a> {
    format: &'static str,
    subformat: &'a str,
    disk_bytes: u64,
    allocated_bytes: u64,
    parents: Vec<&'a str>,
    facts: BTreeMap<String, &'a str>,
    warnings: &'a [String],
}

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    let live = context.common.source_options().with_allow_writers(true);
    let (options, connect) = (args.open.options(), ConnectOptions::default());
    let source = open_source(&args.image, &options, &live, &connect, &context.work)?;
    let info = source.info();
    let warnings = source.warnings();
    let facts = info.facts.iter().map(|(key, value)| (*key, value.as_str()));
    let (parents, facts): (Vec<_>, Vec<_>) = facts.partition(|(key, _)| *key == "parent");
    let object = Object {
        format: info.format.name(),
        subformat: info.subformat,
        disk_bytes: info.disk_bytes,
        allocated_bytes: source.readable()?.allocated_bytes()?,
        parents: parents.into_iter().map(|(_, path)| path).collect(),
        facts: facts
            .into_iter()
            .map(|(key, value)| (key.replace(' ', "_"), value))
            .collect(),
        warnings,
    };
    context.print(&object, || text(&object, &info.facts))?;
    Ok(Exit::Done)
}

fn text(object: &Object<'_>, facts: &[(&str, String)]) -> Vec<String> {
    let size = |bytes| format!("{} ({bytes} bytes)", format_size(bytes));
    let format = format!("{} {}", object.format, object.subformat);
    let mut lines = vec![
        ("format", format.trim_end().to_owned()),
        ("disk", size(object.disk_bytes)),
        ("allocated", size(object.allocated_bytes)),
    ];
    lines.extend(facts.iter().map(|(key, value)| (*key, value.clone())));
    lines.extend(object.warnings.iter().map(|it| ("warning", it.clone())));
    lines
        .into_iter()
        .map(|(key, value)| format!("{:<15} {value}", format!("{key}:")))
        .collect()
}

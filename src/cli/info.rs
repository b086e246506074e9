//! `diskdelta info`

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::sync::HostSource;
use crate::units::format_size;
use serde::Serialize;

use super::args::{self, OneImage};
use super::context::Context;
use super::outcome::{Ended, Exit};

/// Says what an image is: format, size, space taken, parents, oddities
#[derive(clap::Args)]
pub(super) struct Args {
    /// The image, also while others write to it
    #[arg(value_parser = args::here())]
    image: PathBuf,
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
    let source = HostSource::open(&args.image, &args.open.options(), &live)?;
    let info = source.image().info();
    let warnings = source.warnings();
    let facts = info.facts.iter().map(|(key, value)| (*key, value.as_str()));
    let (parents, facts): (Vec<_>, Vec<_>) = facts.partition(|(key, _)| *key == "parent");
    let object = Object {
        format: info.format.name(),
        subformat: info.subformat,
        disk_bytes: info.disk_bytes,
        allocated_bytes: source.image().allocated_bytes()?,
        parents: parents.into_iter().map(|(_, path)| path).collect(),
        facts: facts
            .into_iter()
            .map(|(key, value)| (key.replace(' ', "_"), value))
            .collect(),
        warnings: &warnings,
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

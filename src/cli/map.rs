//! `diskdelta map`

use std::path::PathBuf;

use crate::storage::FileRef;
use crate::sync::HostSide;
use crate::units::{Extent, ExtentKind, format_count, format_size};
use crate::{Error, ErrorKind, Location, Result};
use serde::Serialize;

use super::args::{self, Holes, Parents, SideFormat, side_format};
use super::context::Context;
use super::map_picture::Picture;
use super::outcome::{Ended, Exit};
use super::tls_args::TlsArgs;

/// Show where the data of a disk is, or what changed since an older disk
///
/// Draws the disk in the terminal, each cell as dark as much of it is data, or changed since OLD.
/// Data are what the format allocates: they are not read, unless OLD is given. --json lists the
/// extents with the keys of `qemu-img map`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Image to draw
    #[arg(value_parser = args::readable())]
    image: Location,
    /// Older image or manifest: draw what changed since
    #[arg(value_parser = args::readable())]
    old: Option<Location>,
    /// Write the picture to an SVG file, too
    #[arg(long, value_name = "FILE", value_parser = args::here())]
    svg: Option<PathBuf>,
    /// Read IMAGE as this format, whatever its name
    #[arg(long, value_name = "FORMAT", value_parser = side_format())]
    source_format: Option<SideFormat>,
    /// Read OLD as this format, whatever its name
    #[arg(long, value_name = "FORMAT", value_parser = side_format())]
    old_format: Option<SideFormat>,
    #[command(flatten)]
    parents: Parents,
    #[command(flatten)]
    holes: Holes,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Serialize)]
struct Object {
    disk_bytes: u64,
    /// Data, or what changed, in bytes.
    marked_bytes: u64,
    /// The unit of `extents`.
    granularity_bytes: u64,
    extents: Vec<Entry>,
    warnings: Vec<String>,
}

/// An extent by the keys of `qemu-img map --output json`.
#[derive(Serialize)]
struct Entry {
    start: u64,
    length: u64,
    /// Whether it reads as zeros.
    zero: bool,
    data: bool,
    /// Whether it changed since the older disk, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<bool>,
}

impl Entry {
    fn is_marked(&self) -> bool {
        self.changed.unwrap_or(self.data)
    }
}

pub(super) fn run(args: &Args, context: &Context) -> Ended {
    let common = &context.common;
    let open = |at, format| {
        let (parents, holes, work) = (&args.parents, args.holes, &context.work);
        common.open_side(at, format, parents, holes, &args.tls, work)
    };
    let image = open(&args.image, args.source_format)?;
    let mut warnings = image.warnings();
    let mut granularity_bytes = 1;
    let extents = match &args.old {
        None => allocated(&image)?,
        Some(old) => {
            let old = open(old, args.old_format)?;
            warnings.extend(old.warnings());
            let found = image.diff(&old, &context.work)?;
            granularity_bytes = found.granularity_bytes;
            with_unchanged(found.extents, image.disk_len())
        }
    };
    context.warn(&warnings);
    let object = Object {
        disk_bytes: image.disk_len(),
        marked_bytes: extents
            .iter()
            .filter(|it| it.is_marked())
            .map(|it| it.length)
            .sum(),
        granularity_bytes,
        extents,
        warnings,
    };
    let marked = object.extents.iter().filter(|it| it.is_marked());
    let picture = Picture::new(
        object.disk_bytes,
        marked.map(|it| it.start..it.start + it.length),
    );
    let what = if args.old.is_some() {
        "changed"
    } else {
        "data"
    };
    if let Some(file) = &args.svg {
        let svg = picture.svg(&summary(&object, what), what);
        let file = FileRef::to_write(file)?;
        file.create_whole(image.privacy(), |storage| {
            storage.write_all_at(svg.as_bytes(), 0)
        })?;
    }
    context.print(&object, || {
        let mut lines = picture.lines();
        lines.push(format!("{}; {}", summary(&object, what), picture.scale()));
        lines
    })?;
    Ok(Exit::Done)
}

fn summary(object: &Object, what: &str) -> String {
    let count = object.extents.iter().filter(|it| it.is_marked()).count() as u64;
    format!(
        "{} of {} {what}, in {}",
        format_size(object.marked_bytes),
        format_size(object.disk_bytes),
        format_count(count, "extent")
    )
}

/// What the image holds as data and as zeros, neighbours of one kind joined.
fn allocated(side: &HostSide) -> Result<Vec<Entry>> {
    let HostSide::Image(image, _) = side else {
        let what = "a manifest shows what changed since an older disk, not where data is";
        return Err(Error::new(ErrorKind::InvalidInput, what));
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = 0;
    while let Some(extent) = image.next_extent(at)? {
        at = extent.end();
        let zero = extent.kind == ExtentKind::Zero;
        match entries.last_mut().filter(|last| last.zero == zero) {
            Some(last) => last.length += extent.len,
            None => entries.push(Entry {
                start: extent.offset,
                length: extent.len,
                zero,
                data: !zero,
                changed: None,
            }),
        }
    }
    Ok(entries)
}

/// The changed extents, ascending, and what is between them.
fn with_unchanged(changed: Vec<Extent>, disk_bytes: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut at = 0;
    let end = Extent::zero(disk_bytes..disk_bytes);
    for extent in changed.into_iter().chain([end]) {
        if extent.offset > at {
            entries.push(Entry {
                start: at,
                length: extent.offset - at,
                zero: false,
                data: true,
                changed: Some(false),
            });
        }
        at = extent.end();
        if extent.len > 0 {
            entries.push(Entry {
                start: extent.offset,
                length: extent.len,
                zero: extent.kind == ExtentKind::Zero,
                data: extent.kind != ExtentKind::Zero,
                changed: Some(true),
            });
        }
    }
    entries
}

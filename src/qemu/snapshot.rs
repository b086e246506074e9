//! One moment of all disks of a VM that runs on, exported for reading.
//!
//! Each disk gets a scratch overlay, to which QEMU first copies what the guest is about to
//! overwrite. All of them begin in one transaction, which also freezes a copy of each bitmap: what
//! was written up to that moment.

use serde_json::{Value, json};

use super::files::{QemuFiles, remove};
use super::monitor::{Monitor, Node};
use crate::error::{Error, Result};
use crate::location::NbdAddress;

/// Takes a snapshot, in place of an earlier one. The same name again finds it taken.
///
/// # Errors
/// `Io` where QEMU refuses; `Cancelled`.
pub(crate) fn take(
    monitor: &mut Monitor<'_>,
    files: &QemuFiles,
    nodes: &[Node],
    name: &str,
) -> Result<()> {
    let wanted: Vec<String> = (0..nodes.len()).map(|disk| export(name, disk)).collect();
    let mut there = exports(monitor)?;
    there.sort_unstable();
    if there == sorted(&wanted) {
        return Ok(());
    }
    release(monitor, files, nodes)?;
    serve(monitor, files)?;
    let mut at_once = Vec::new();
    for (disk, node) in nodes.iter().enumerate() {
        add_scratch(monitor, files, disk, node)?;
        at_once.extend(ours(node).flat_map(|bitmap| freeze(node, bitmap)));
    }
    // Bitmaps first: none may miss a write that the snapshot holds.
    at_once.extend(nodes.iter().enumerate().map(|(disk, node)| {
        let data = json!({
            "job-id": named(FLEECE, disk), "device": node.name,
            "target": named(SCRATCH, disk), "sync": "none",
        });
        json!({"type": "blockdev-backup", "data": data})
    }));
    monitor.at_once(at_once)?;
    for (disk, node) in nodes.iter().enumerate() {
        let bitmaps: Vec<String> = ours(node).map(|bitmap| frozen(bitmap)).collect();
        add_export(monitor, &wanted[disk], &named(SCRATCH, disk), &bitmaps)?;
    }
    Ok(())
}

/// Ends the snapshot, and whatever is left of one.
///
/// # Errors
/// `Io` where QEMU refuses; `Cancelled`.
pub(crate) fn release(monitor: &mut Monitor<'_>, files: &QemuFiles, nodes: &[Node]) -> Result<()> {
    for id in exports(monitor)? {
        remove_export(monitor, &id)?;
    }
    let jobs = monitor.ids("query-jobs", "id", OURS)?;
    for id in &jobs {
        // It may end by itself meanwhile.
        let _ = monitor.run("job-cancel", json!({ "id": id }));
    }
    for id in &jobs {
        monitor.wait(&format!("the end of `{id}`"), END_LIMIT, |monitor| {
            let job = monitor.job(id)?;
            if job.as_ref().is_some_and(|job| job["status"] == "concluded") {
                monitor.run("job-dismiss", json!({ "id": id }))?;
            }
            Ok(job.is_none())
        })?;
    }
    let query = "query-named-block-nodes";
    let added = monitor.ids(query, "node-name", OURS)?;
    // Overlays before the files that they lie in.
    let (lower, overlays): (Vec<_>, Vec<_>) = added
        .iter()
        .partition(|name| name.starts_with(SCRATCH_FILE));
    for name in overlays.into_iter().chain(lower) {
        monitor.run("blockdev-del", json!({ "node-name": name }))?;
    }
    for node in nodes {
        for bitmap in node.bitmaps.iter().filter(|it| it.starts_with(FROZEN)) {
            remove_bitmap(monitor, node, bitmap)?;
        }
    }
    files.clear_scratch(nodes.len())
}

/// Where the snapshot's disks can be read; `None` where there is none, or not of all disks.
///
/// # Errors
/// `Io` where QEMU refuses.
pub(crate) fn taken(
    monitor: &mut Monitor<'_>,
    files: &QemuFiles,
    nodes: &[Node],
) -> Result<Option<Vec<NbdAddress>>> {
    let mut there = exports(monitor)?;
    there.sort_unstable();
    let Some(first) = there.first().and_then(|first| first.strip_suffix("-0")) else {
        return Ok(None);
    };
    let wanted: Vec<_> = (0..nodes.len())
        .map(|disk| format!("{first}-{disk}"))
        .collect();
    if there != sorted(&wanted) {
        return Ok(None);
    }
    let addresses = wanted
        .into_iter()
        .map(|name| NbdAddress::new(files.exports(), name));
    Ok(Some(addresses.collect()))
}

/// Removes a bitmap.
///
/// # Errors
/// `Io` where QEMU refuses.
pub(crate) fn remove_bitmap(monitor: &mut Monitor<'_>, node: &Node, name: &str) -> Result<()> {
    let arguments = json!({"node": node.name, "name": name});
    monitor
        .run("block-dirty-bitmap-remove", arguments)
        .map(drop)
}

/// Sees to it that QEMU's exports can be reached.
///
/// # Errors
/// `Io` where QEMU refuses.
pub(crate) fn serve(monitor: &mut Monitor<'_>, files: &QemuFiles) -> Result<()> {
    let socket = files.exports();
    let addr = json!({"type": "unix", "data": {"path": socket}});
    match monitor.run("nbd-server-start", json!({ "addr": addr })) {
        // There is no way to ask. If it is another's, the export is not found at our socket.
        Err(error) if error.to_string().contains("already running") => Ok(()),
        Ok(_) => Ok(()),
        Err(error) => {
            // Left by a QEMU that was killed.
            remove(&socket)?;
            monitor
                .run("nbd-server-start", json!({ "addr": addr }))
                .map(drop)
                .map_err(|_| error)
        }
    }
}

/// Exports a node for reading, with bitmaps that do not record.
///
/// # Errors
/// `Io` where QEMU refuses.
pub(crate) fn add_export(
    monitor: &mut Monitor<'_>,
    name: &str,
    node: &str,
    bitmaps: &[String],
) -> Result<()> {
    let arguments = json!({
        "type": "nbd", "id": name, "name": name, "node-name": node,
        "writable": false, "bitmaps": bitmaps,
    });
    monitor.run("block-export-add", arguments).map(drop)
}

/// Ends an export, even while it is read.
///
/// # Errors
/// `Io` where QEMU refuses; `Cancelled`.
pub(crate) fn remove_export(monitor: &mut Monitor<'_>, name: &str) -> Result<()> {
    let arguments = json!({"id": name, "mode": "hard"});
    monitor.run("block-export-del", arguments)?;
    monitor.wait(
        &format!("the end of export `{name}`"),
        END_LIMIT,
        |monitor| Ok(!exports(monitor)?.iter().any(|there| there == name)),
    )
}

/// Our exports.
fn exports(monitor: &mut Monitor<'_>) -> Result<Vec<String>> {
    monitor.ids("query-block-exports", "id", OURS)
}

fn add_scratch(
    monitor: &mut Monitor<'_>,
    files: &QemuFiles,
    disk: usize,
    node: &Node,
) -> Result<()> {
    let path = files.scratch(disk);
    remove(&path)?;
    let (file, overlay) = (named(SCRATCH_FILE, disk), named(SCRATCH, disk));
    create(
        monitor,
        json!({"driver": "file", "filename": path, "size": 0}),
    )?;
    let options = json!({"driver": "file", "node-name": file, "filename": path});
    monitor.run("blockdev-add", options)?;
    create(
        monitor,
        json!({"driver": "qcow2", "file": file, "size": node.bytes}),
    )?;
    let options = json!({
        "driver": "qcow2", "node-name": overlay, "file": file, "backing": node.name,
    });
    monitor.run("blockdev-add", options)?;
    Ok(())
}

fn create(monitor: &mut Monitor<'_>, options: Value) -> Result<()> {
    let arguments = json!({"job-id": CREATE, "options": options});
    monitor.run("blockdev-create", arguments)?;
    let made = monitor.finish_job(CREATE);
    made.map_err(|error| Error::new(error.kind(), format!("no scratch space: {error}")))
}

/// Our bitmaps of a node that record.
fn ours(node: &Node) -> impl Iterator<Item = &String> {
    node.bitmaps.iter().filter(|it| it.starts_with(BITMAP))
}

/// A copy of a bitmap as it is now, which does not record.
fn freeze(node: &Node, bitmap: &str) -> [Value; 2] {
    let copy = frozen(bitmap);
    let add = json!({
        "node": node.name, "name": copy, "granularity": GRANULARITY, "disabled": true,
    });
    let merge = json!({"node": node.name, "target": copy, "bitmaps": [bitmap]});
    [
        json!({"type": "block-dirty-bitmap-add", "data": add}),
        json!({"type": "block-dirty-bitmap-merge", "data": merge}),
    ]
}

/// The name of the copy of a bitmap that a snapshot keeps.
pub(crate) fn frozen(bitmap: &str) -> String {
    format!("{FROZEN}{bitmap}")
}

fn export(name: &str, disk: usize) -> String {
    format!("{OURS}snapshot-{name}-{disk}")
}

fn named(what: &str, disk: usize) -> String {
    format!("{what}{disk}")
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}

/// Bytes for each bit of a bitmap.
pub(crate) const GRANULARITY: u32 = 65536;
/// Before the names of all bitmaps that record.
pub(crate) const BITMAP: &str = "diskdelta-since-";
/// Before the names of copies.
const FROZEN: &str = "frozen-";
/// Before all names that we give in a QEMU, bitmaps apart.
const OURS: &str = "diskdelta-";
// Node names have at most 31 characters.
const SCRATCH: &str = "diskdelta-scratch-";
const SCRATCH_FILE: &str = "diskdelta-scratchfile-";
const FLEECE: &str = "diskdelta-fleece-";
const CREATE: &str = "diskdelta-create";
const END_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

//! What is done in which order, whatever a crash would leave.

use std::path::Path;

use diskdelta::image::Format;
use diskdelta::storage::fault::{NoRewrite, SyncedBefore};

use crate::case::{Case, TARGET};
use crate::cases::for_each_case;

/// No range is written twice between two syncs, and nothing reaches the target before the stage,
/// sidecar, way back and intent beside it are durable, names and all.
fn operations_come_in_their_order(case: &Case) {
    let disk = case.disk();
    case.work_on(&disk).unwrap();
    let log = disk.log();
    // A copy that has no name yet is compared again after a crash, whatever it holds.
    if case.old.is_some() {
        log.check(NoRewrite::new())
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
    if case.marks() && case.format != Format::Vhdx {
        // Needed later, or not at all: the manifest to come, a stage that was set aside.
        let waits = |path: &Path| {
            let text = path.to_string_lossy();
            !path.ends_with("t") && !text.ends_with(".new") && !text.ends_with(".earlier")
        };
        let then = |path: &Path| path == Path::new(TARGET);
        log.check(SyncedBefore::new(waits, then))
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
}

for_each_case!(operations_come_in_their_order);

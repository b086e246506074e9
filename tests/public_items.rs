//! What the crate shows without `failback` and `testing`, item by item: everything that the root
//! names. Modules that are public with these features alone are not counted, nor are methods.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::fs;

/// Every public item; a new one is added here, with a reason in the commit that brings it.
const ITEMS: &[&str] = &[
    "Advice",
    "Allocation",
    "Base",
    "Block",
    "BlockSize",
    "CancelGuard",
    "CancelToken",
    "ChangeMap",
    "ChangeMapKind",
    "Cloning",
    "CreateFormat",
    "Delta",
    "DeltaInfo",
    "Diff",
    "Disk",
    "DiskOptions",
    "Error",
    "ErrorKind",
    "Extent",
    "ExtentKind",
    "FileId",
    "Format",
    "Hash",
    "HostFile",
    "HostKind",
    "Image",
    "ImageInfo",
    "Layout",
    "Limits",
    "Location",
    "Manifest",
    "MemoryStorage",
    "Mode",
    "NbdAddress",
    "Outcome",
    "Pending",
    "PendingKind",
    "PendingState",
    "Phase",
    "Privacy",
    "PublicKey",
    "Purpose",
    "Recovered",
    "Release",
    "RemoteAddress",
    "Result",
    "Safety",
    "SigningKey",
    "SourceStamp",
    "Storage",
    "Sync",
    "SyncReport",
    "SyncTarget",
    "TargetState",
    "Tick",
    "Traffic",
    "UrlPrefix",
    "Verified",
    "Verify",
    "WebAddress",
    "Work",
    "cli",
    "discard",
    "peer",
    "peer::Client",
    "peer::ConnectOptions",
    "peer::DialOptions",
    "peer::HttpOptions",
    "peer::Identity",
    "peer::LineOptions",
    "peer::Retry",
    "peer::ServeOptions",
    "peer::Served",
    "peer::Service",
    "peer::ServiceEvent",
    "peer::ServiceOptions",
    "peer::ShellOptions",
    "peer::serve",
    "pending",
    "rayon",
    "recover",
    "undo",
];

#[test]
fn the_root_shows_these_items_and_no_others() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap();
    let shown = items(&text);
    let expected: BTreeSet<String> = ITEMS.iter().map(|it| (*it).to_owned()).collect();
    assert_eq!(shown, expected);
    assert!(shown.len() <= 120, "{}", shown.len());
}

/// The names behind `pub` in the crate's root file, but for those of test and failback builds.
fn items(text: &str) -> BTreeSet<String> {
    let mut shown = BTreeSet::new();
    let mut is_left_out = false;
    let mut prefix = String::new();
    let mut statement = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[cfg(") {
            is_left_out |= line.contains("\"testing\"") && !line.contains("not(feature");
            is_left_out |= line.contains("\"failback\"");
        } else if !line.starts_with("//") && !line.starts_with("#[") {
            statement.push_str(line);
        }
        if line == "}" {
            prefix.clear();
            statement.clear();
        } else if line.starts_with("pub mod ") && line.ends_with('{') {
            let name = line.trim_start_matches("pub mod ").trim_end_matches(" {");
            shown.insert(name.to_owned());
            prefix = format!("{name}::");
            statement.clear();
        } else if statement.ends_with(';') {
            if let (Some(item), false) = (statement.strip_prefix("pub "), is_left_out) {
                let names = item.trim_end_matches(';');
                let names = names
                    .strip_prefix("use ")
                    .or(names.strip_prefix("mod "))
                    .unwrap();
                let list = names.split_once("::{").map_or(names, |(_, list)| list);
                for name in list.trim_end_matches('}').split(',').map(str::trim) {
                    let name = name.rsplit("::").next().unwrap();
                    if !name.is_empty() {
                        shown.insert(format!("{prefix}{name}"));
                    }
                }
            }
            statement.clear();
            is_left_out = false;
        }
    }
    shown
}

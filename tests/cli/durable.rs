//! What is called durable was synced: the system calls of whole runs, as `strace` sees them.

use std::path::Path;
use std::process::Command;

use super::fixture::{COMMAND, Fixture, left_out};

#[test]
fn what_a_run_wrote_and_renamed_is_synced_before_it_ends() {
    if Command::new("strace").arg("-V").output().is_err() {
        return left_out("strace");
    }
    for (words, written) in [
        ("sync new.raw old.raw", "old.raw"),
        ("sync new.raw old.raw --safety in-place", "old.raw"),
        ("sync new.raw old.raw --mode full", "old.raw"),
        ("sync new.raw old.raw --undo back", "back"),
        ("sync new.raw made.vhd", "made.vhd"),
        ("manifest new.raw -o kept", "kept"),
        ("delta create old.raw new.raw -o delta", "delta"),
    ] {
        let fixture = Fixture::new();
        fixture.disk("new.raw", 1200, 1);
        fixture.disk("old.raw", 1200, 2);
        let calls = trace(&fixture, words);
        let directory = fixture.path("").canonicalize().unwrap();
        let directory = directory.to_str().unwrap();
        let last = |is: &dyn Fn(&str) -> bool| calls.iter().rposition(|call| is(call));

        // Files are written under names of their own first.
        let synced = format!("<{directory}/");
        let is_write = |call: &str| call.contains("write") && call.contains(&synced);
        let is_sync = |call: &str| call.contains("sync(") && call.contains(&synced);
        let wrote = last(&is_write);
        assert!(wrote.is_some(), "{words}: {calls:#?}");
        assert!(last(&is_sync) > wrote, "{words}: {calls:#?}");

        let directory = format!("<{directory}>");
        let is_rename = |call: &str| call.contains("rename") && call.contains(&directory);
        let is_removal = |call: &str| call.contains("unlink") && call.contains(&directory);
        let named =
            last(&|call| is_rename(call) || is_removal(call) || is_creation(call, &directory));
        let is_sync = |call: &str| call.contains("fsync(") && call.contains(&directory);
        assert!(last(&is_sync) > named, "{words}: {calls:#?}");
        assert!(Path::new(&fixture.path(written)).exists(), "{words}");
    }
}

fn is_creation(call: &str, directory: &str) -> bool {
    call.contains("O_CREAT") && call.contains(directory)
}

/// The calls of a run that succeeds, in their order.
fn trace(fixture: &Fixture, words: &str) -> Vec<String> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let calls = "trace=write,pwrite64,pwritev,pwritev2,fsync,fdatasync,openat,/rename,/unlink";
    let status = Command::new("strace")
        .args(["-f", "-y", "-qq", "-s", "0", "-e", calls, "-o"])
        .arg(log.path())
        .arg(COMMAND)
        .args(words.split_whitespace())
        .current_dir(fixture.path(""))
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.unwrap().success(), "{words}");
    let text = std::fs::read_to_string(log.path()).unwrap();
    text.lines().map(str::to_owned).collect()
}

//! File systems that cannot rename without replacing, as `strace` makes this one one of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use diskdelta::sync::HostTargetOptions;

use crate::fixture::{COMMAND, Fixture, Run, left_out, noise, write_at};
use crate::interrupted::leave_marked;

fn has_strace() -> bool {
    let found = Command::new("strace").arg("-V").output().is_ok();
    if !found {
        left_out("strace");
    }
    found
}

/// Runs the command where system calls fail as `faults` say; whether one of them was made.
fn run_with(fixture: &Fixture, faults: &[&str], words: &str) -> (Run, bool) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=renameat2,linkat"]);
    for fault in faults {
        command.args(["-e", &format!("inject={fault}")]);
    }
    let output = command
        .arg("-o")
        .arg(log.path())
        .arg(COMMAND)
        .args(words.split_whitespace())
        .current_dir(fixture.path(""))
        .output()
        .unwrap();
    let run = Run {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    let text = fs::read_to_string(log.path()).unwrap();
    (run, text.contains("(INJECTED)"))
}

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 300, 1);
    fixture.disk("old.raw", 300, 2);
    fixture
}

fn contents(fixture: &Fixture) -> BTreeMap<String, Vec<u8>> {
    let names = fixture.names().into_iter();
    names
        .map(|name| (name.clone(), fixture.bytes(&name)))
        .collect()
}

/// What is put in place without replacing, and the file that is.
const WORKS: [(&str, &str); 6] = [
    ("sync new.raw made.raw", "made.raw"),
    ("sync new.raw made.vhdx", "made.vhdx"),
    ("sync new.raw old.raw --mode delta --undo back", "back"),
    ("delta create old.raw new.raw -o made.delta", "made.delta"),
    ("manifest new.raw -o made.manifest", "made.manifest"),
    (
        "sync new.raw old.raw --mode delta --target-manifest kept",
        "kept",
    ),
];

#[test]
fn where_a_file_system_cannot_rename_without_replacing_a_link_does_it() {
    if !has_strace() {
        return;
    }
    for error in ["EINVAL", "ENOSYS", "EOPNOTSUPP"] {
        let mut injected = 0;
        for (words, made) in WORKS {
            let fixture = fixture();
            let fault = format!("renameat2:error={error}");
            let (run, is_hit) = run_with(&fixture, &[&fault], words);
            assert_eq!(run.status, 0, "{error}: {words}: {run:?}");
            injected += usize::from(is_hit);
            let facts = fs::metadata(fixture.path(made)).unwrap();
            assert_eq!(facts.nlink(), 1, "{error}: {words}");
            let names = fixture.names();
            assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
            if words.contains("old.raw --") {
                assert!(
                    fixture.bytes("old.raw") == fixture.bytes("new.raw"),
                    "{words}"
                );
            }
        }
        assert!(injected > 4, "{error}: {injected}");
    }
}

#[test]
fn where_a_file_system_can_neither_rename_without_replacing_nor_link_nothing_is_changed() {
    if !has_strace() {
        return;
    }
    for cannot_link in ["EPERM", "EOPNOTSUPP", "ENOSYS"] {
        let link = format!("linkat:error={cannot_link}");
        for (words, made) in WORKS {
            let fixture = fixture();
            let before = contents(&fixture);
            let faults = ["renameat2:error=EINVAL", link.as_str()];
            let (run, is_hit) = run_with(&fixture, &faults, words);
            if !is_hit {
                assert_eq!(run.status, 0, "{words}: {run:?}");
                continue;
            }
            assert_eq!(run.status, 2, "{words}: {run:?}");
            assert!(
                run.stderr
                    .contains("neither rename without replacing nor link"),
                "{words}: {run:?}"
            );
            assert!(!fixture.path(made).exists(), "{words}");
            let now = contents(&fixture);
            for (name, bytes) in &before {
                assert!(now[name] == *bytes, "{words}: {name} was changed");
            }
            let left: Vec<_> = now
                .keys()
                .filter(|name| !before.contains_key(*name))
                .collect();
            // What was logged is taken up by the next run.
            let is_redo_log = |name: &&&String| name.as_str() == ".old.raw.diskdelta-log";
            assert!(
                left.iter().all(|name| is_redo_log(&name)),
                "{words}: {left:?}"
            );
            fixture.done(words);
            let names = fixture.names();
            assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
        }
    }
}

#[test]
fn a_log_is_kept_where_a_file_system_cannot_rename_without_replacing() {
    if !has_strace() {
        return;
    }
    for link in [None, Some("linkat:error=EPERM")] {
        let fixture = fixture();
        fixture.disk("other.raw", 300, 3);
        let target = fixture.path("old.raw");
        leave_marked(
            &fixture.path("new.raw"),
            &target,
            HostTargetOptions::default(),
        );
        fs::rename(&target, fixture.path("moved.raw")).unwrap();
        fs::write(&target, noise(300 * 4096, 4)).unwrap();
        let before = contents(&fixture);
        let faults: Vec<&str> = ["renameat2:error=EINVAL"].into_iter().chain(link).collect();
        let (run, is_hit) = run_with(&fixture, &faults, "sync other.raw old.raw --mode delta");
        assert!(is_hit, "{run:?}");
        if link.is_some() {
            assert_eq!(run.status, 2, "{run:?}");
            assert!(contents(&fixture) == before, "{:?}", fixture.names());
            fixture.done("sync other.raw old.raw --mode delta");
        } else {
            assert_eq!(run.status, 0, "{run:?}");
        }
        assert!(fixture.bytes("old.raw") == fixture.bytes("other.raw"));
        fixture.done("recover moved.raw");
        assert!(fixture.bytes("moved.raw") == fixture.bytes("new.raw"));
        write_at(&target, 0, &[1]);
        fixture.done("sync other.raw old.raw");
        let names = fixture.names();
        assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
    }
}

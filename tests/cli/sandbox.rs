//! What an agent tells a client that it keeps to a directory.

use std::fs;

use crate::fixture::{Fixture, write_at};
use crate::guest_marker::marker;
use crate::remote::shell;

#[test]
fn a_confined_client_is_shown_paths_below_its_root_only() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("served/directory")).unwrap();
    fs::create_dir_all(fixture.path("logs")).unwrap();
    fixture.disk("new.raw", 64, 1);
    fixture.disk("served/disk.raw", 64, 2);
    let marked = fixture.disk("served/marked.raw", 64, 2);
    write_at(&marked, 0, &marker(0, "/etc/secret/.x.diskdelta-log"));
    fixture.done("sync new.raw base.vhdx");
    fixture.done("sync new.raw base2.vhdx");
    std::os::unix::fs::symlink(fixture.path("new.raw"), fixture.path("served/link.raw")).unwrap();
    fs::write(fixture.path("served/short.vhd"), [1; 700]).unwrap();
    shell(&fixture, "--root served --log-dir logs");
    let own = fixture.path(".");
    let own = own.parent().unwrap().to_str().unwrap();
    for (path, told) in [
        ("none.raw", "none.raw: "),
        ("/none.raw", "none.raw: "),
        ("directory", "directory: "),
        ("marked.raw", "marked.raw: "),
        ("link.raw", "link.raw: "),
        ("short.vhd", "short.vhd: "),
        ("none/none.raw", "none/none.raw: "),
        ("../new.raw", "new.raw: "),
        ("/etc/passwd", "etc/passwd: "),
    ] {
        let pull = fixture.run(&format!("sync ssh://host/{path} here.raw --rsh ./rsh"));
        let push = fixture.run(&format!("sync new.raw ssh://host/{path} --rsh ./rsh"));
        for run in [pull, push] {
            if run.status == 0 {
                continue;
            }
            let Some((_, theirs)) = run.stderr.split_once("the other end: ") else {
                panic!("{path}: {run:?}");
            };
            assert!(theirs.contains(told), "{path}: {run:?}");
            for outside in [own, "served/", "logs/", "/etc/", "secret"] {
                assert!(!theirs.contains(outside), "{path}: {outside}: {run:?}");
            }
        }
    }
}

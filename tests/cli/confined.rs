//! What an agent tells a client that it confines to a directory.

use std::fs;

use crate::guest_marker::marker;
use crate::lab::{Lab, write_at};
use crate::remote::shell;

#[test]
fn a_confined_client_is_shown_paths_below_its_root_only() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("served/directory")).unwrap();
    fs::create_dir_all(lab.path("logs")).unwrap();
    lab.disk("new.raw", 64, 1);
    lab.disk("served/disk.raw", 64, 2);
    let marked = lab.disk("served/marked.raw", 64, 2);
    write_at(&marked, 0, &marker(0, "/etc/secret/.x.diskdelta-log"));
    lab.done("sync new.raw base.vhdx");
    lab.done("sync new.raw base2.vhdx");
    std::os::unix::fs::symlink(lab.path("new.raw"), lab.path("served/link.raw")).unwrap();
    fs::write(lab.path("served/short.vhd"), [1; 700]).unwrap();
    shell(&lab, "--root served --log-dir logs");
    let own = lab.path(".");
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
        let pull = lab.run(&format!("sync ssh://host/{path} here.raw --rsh ./rsh"));
        let push = lab.run(&format!("sync new.raw ssh://host/{path} --rsh ./rsh"));
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

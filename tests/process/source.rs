//! Sources that change under the reader.

use std::fs::{self, File};
use std::time::Duration;

use crate::lab::{Lab, PAGE, ended, until, write_at};

/// What somebody does to the source while it is read.
type Change = (&'static str, fn(&Lab));

const CHANGES: [Change; 4] = [
    ("written behind the reader", |lab| {
        write_at(&lab.path("new.raw"), 7, b"late");
    }),
    ("written before the reader", |lab| {
        write_at(&lab.path("new.raw"), (PAGES * PAGE - 99) as u64, b"late");
    }),
    ("cut", |lab| set_len(lab, PAGES / 3)),
    ("made longer", |lab| set_len(lab, PAGES + 9)),
];

fn set_len(lab: &Lab, pages: usize) {
    let file = File::options().write(true).open(lab.path("new.raw"));
    file.unwrap().set_len((pages * PAGE) as u64).unwrap();
}

#[test]
fn a_source_that_changes_or_shrinks_is_reported_and_never_mixed_in() {
    for (what, change) in CHANGES {
        for (words, begun) in [
            ("--mode delta", ".old.raw.diskdelta-log"),
            ("--mode full", ".old.raw.diskdelta-new"),
            ("--mode delta --target-manifest kept", ".new"),
        ] {
            let lab = Lab::new();
            lab.disk("new.raw", PAGES, 1);
            let old = lab.disk("old.raw", PAGES, 2);
            let before = fs::read(&old).unwrap();
            let slow = lab.start(&format!("sync new.raw old.raw {words} --limit-rate 16M"));
            until(begun, || {
                lab.names().iter().any(|name| name.contains(begun))
            });
            std::thread::sleep(Duration::from_millis(60));
            change(&lab);
            let run = ended(slow);
            assert_eq!(run.status, 2, "{what}, {words}: {run:?}");
            assert!(
                run.stderr.contains("the source changed"),
                "{what}, {words}: {run:?}"
            );
            assert!(lab.bytes("old.raw") == before, "{what}, {words}");
            let fast = words.replace("--mode full", "");
            lab.done(&format!("sync new.raw old.raw --allow-shrink {fast}"));
            assert!(
                lab.bytes("old.raw") == lab.bytes("new.raw"),
                "{what}, {words}"
            );
        }
    }
}

#[test]
fn a_source_that_changes_under_an_in_place_sync_leaves_the_target_marked() {
    for (what, change) in CHANGES {
        let lab = Lab::new();
        lab.disk("new.raw", PAGES, 1);
        lab.disk("old.raw", PAGES, 2);
        let words = "sync new.raw old.raw --mode delta --safety in-place";
        let slow = lab.start(&format!("{words} --limit-rate 16M"));
        until("a marker", || {
            lab.bytes("old.raw").starts_with(b"\0diskdelta mark")
        });
        std::thread::sleep(Duration::from_millis(60));
        change(&lab);
        let run = ended(slow);
        assert_eq!(run.status, 3, "{what}: {run:?}");
        assert!(run.stderr.contains("the source changed"), "{what}: {run:?}");
        assert!(
            run.stderr.contains("run the same sync again"),
            "{what}: {run:?}"
        );
        lab.run("info old.raw").fails(3, "incomplete");
        lab.done(&format!("{words} --allow-shrink"));
        assert!(lab.bytes("old.raw") == lab.bytes("new.raw"), "{what}");
    }
}

/// Half a second at the rate that the syncs are held to.
const PAGES: usize = 2000;

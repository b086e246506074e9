//! Sources that change under the reader.

use std::fs::{self, File};
use std::time::Duration;

use crate::fixture::{Fixture, PAGE, ended, until, write_at};

/// What somebody does to the source while it is read.
type Change = (&'static str, fn(&Fixture));

const CHANGES: [Change; 4] = [
    ("written behind the reader", |fixture| {
        write_at(&fixture.path("new.raw"), 7, b"late");
    }),
    ("written before the reader", |fixture| {
        write_at(
            &fixture.path("new.raw"),
            (PAGES * PAGE - 99) as u64,
            b"late",
        );
    }),
    ("cut", |fixture| set_len(fixture, PAGES / 3)),
    ("made longer", |fixture| set_len(fixture, PAGES + 9)),
];

fn set_len(fixture: &Fixture, pages: usize) {
    let file = File::options().write(true).open(fixture.path("new.raw"));
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
            let fixture = Fixture::new();
            fixture.disk("new.raw", PAGES, 1);
            let old = fixture.disk("old.raw", PAGES, 2);
            let before = fs::read(&old).unwrap();
            let slow = fixture.start(&format!("sync new.raw old.raw {words} --limit-rate 16M"));
            until(begun, || {
                fixture.names().iter().any(|name| name.contains(begun))
            });
            std::thread::sleep(Duration::from_millis(60));
            change(&fixture);
            let run = ended(slow);
            assert_eq!(run.status, 2, "{what}, {words}: {run:?}");
            assert!(
                run.stderr.contains("the source changed"),
                "{what}, {words}: {run:?}"
            );
            assert!(fixture.bytes("old.raw") == before, "{what}, {words}");
            let fast = words.replace("--mode full", "");
            fixture.done(&format!("sync new.raw old.raw --allow-shrink {fast}"));
            assert!(
                fixture.bytes("old.raw") == fixture.bytes("new.raw"),
                "{what}, {words}"
            );
        }
    }
}

#[test]
fn a_source_that_changes_under_an_in_place_sync_leaves_the_target_marked() {
    for (what, change) in CHANGES {
        let fixture = Fixture::new();
        fixture.disk("new.raw", PAGES, 1);
        fixture.disk("old.raw", PAGES, 2);
        let words = "sync new.raw old.raw --mode delta --safety in-place";
        let slow = fixture.start(&format!("{words} --limit-rate 16M"));
        until("a marker", || {
            fixture.bytes("old.raw").starts_with(b"\0diskdelta mark")
        });
        std::thread::sleep(Duration::from_millis(60));
        change(&fixture);
        let run = ended(slow);
        assert_eq!(run.status, 3, "{what}: {run:?}");
        assert!(run.stderr.contains("the source changed"), "{what}: {run:?}");
        assert!(
            run.stderr.contains("run the same sync again"),
            "{what}: {run:?}"
        );
        fixture.run("info old.raw").fails(3, "incomplete");
        fixture.done(&format!("{words} --allow-shrink"));
        assert!(
            fixture.bytes("old.raw") == fixture.bytes("new.raw"),
            "{what}"
        );
    }
}

/// Half a second at the rate that the syncs are held to.
const PAGES: usize = 2000;

//! Two processes at one target.

use std::fs;

use crate::fixture::{Fixture, ended, signal, until};
use crate::host::{LoopDevice, has_loop_devices};

/// While a sync runs, nothing else of ours touches its target or its redo log.
fn second_is_refused(fixture: &Fixture, target: &str, options: &str, redo_log: &str) {
    let words = format!("sync new.raw {target} --mode delta {options}");
    let slow = fixture.start(&format!("{words} --limit-rate 2M"));
    until("a redo log", || {
        let directory = std::fs::read_dir(fixture.path(redo_log))
            .into_iter()
            .flatten();
        directory
            .filter_map(Result::ok)
            .any(|it| it.file_name().to_string_lossy().contains("diskdelta-"))
    });
    for second in [
        words.clone(),
        format!("{words} --safety in-place"),
        format!("{words} --mode full").replace("--mode delta", ""),
        format!("recover {target} {options}"),
        format!("recover {target} --discard {options}"),
        format!("delta apply other.delta {target} {options}"),
    ] {
        let run = fixture.run(&second);
        assert_eq!(run.status, 2, "{second}: {run:?}");
        let is_named = run.stderr.contains("open for writing") || run.stderr.contains("in use");
        assert!(is_named, "{second}: {run:?}");
    }
    let run = signal(slow, "INT");
    assert_eq!(run.status, 2, "it was under way all the time: {run:?}");
    fixture.done(&words);
    fixture.done(&format!("diff new.raw {target}"));
}

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 3000, 1);
    fixture.disk("old.raw", 3000, 2);
    fixture.disk("other.raw", 3000, 3);
    fixture.done("delta create old.raw other.raw -o other.delta");
    fixture
}

#[test]
fn a_second_process_is_refused_at_a_file() {
    second_is_refused(&fixture(), "old.raw", "", ".");
}

#[test]
fn a_second_process_is_refused_at_a_device() {
    if !has_loop_devices() {
        return;
    }
    let fixture = fixture();
    let device = LoopDevice::attach(&fixture.path("old.raw"));
    let path = device.path().to_str().unwrap();
    second_is_refused(&fixture, path, "--log-dir logs", "logs");
}

/// Runs both at once; which of them ended well.
fn both(fixture: &Fixture, words: [&str; 2]) -> Vec<usize> {
    let children = words.map(|words| fixture.start(words));
    let runs = children.map(ended);
    for run in &runs {
        assert!([0, 2].contains(&run.status), "{words:?}: {runs:?}");
    }
    let good: Vec<usize> = (0..2).filter(|index| runs[*index].status == 0).collect();
    assert!(!good.is_empty(), "{words:?}: {runs:?}");
    good
}

fn nothing_is_left(fixture: &Fixture) {
    let names = fixture.names();
    assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
}

#[test]
fn two_syncs_at_once_onto_one_target_leave_what_one_that_ended_well_wrote() {
    let fixture = Fixture::new();
    let sources = ["a.raw", "b.raw"];
    fixture.disk("a.raw", 1500, 1);
    fixture.disk("b.raw", 1500, 2);
    let ways = ["--mode delta", "--mode full", "--safety in-place"];
    for first in ways {
        for second in ways {
            fixture.disk("t.raw", 1500, 3);
            let good = both(
                &fixture,
                [
                    &format!("sync a.raw t.raw {first}"),
                    &format!("sync b.raw t.raw {second}"),
                ],
            );
            let now = fixture.bytes("t.raw");
            let is_one = good
                .iter()
                .any(|index| fixture.bytes(sources[*index]) == now);
            assert!(is_one, "{first}, {second}: {good:?}");
            nothing_is_left(&fixture);
        }
    }
}

#[test]
fn of_two_syncs_at_once_with_one_undo_file_one_is_done_and_can_be_undone() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 1500, 1);
    for _ in 0..4 {
        for (name, seed) in [("s.raw", 2), ("t.raw", 3)] {
            fixture.disk(name, 1500, seed);
        }
        let before = ["s.raw", "t.raw"].map(|name| fixture.bytes(name));
        let good = both(
            &fixture,
            [
                "sync new.raw s.raw --mode delta --undo back",
                "sync new.raw t.raw --mode delta --undo back",
            ],
        );
        let [done] = good[..] else {
            panic!("both wrote one undo file");
        };
        let names = ["s.raw", "t.raw"];
        assert!(fixture.bytes(names[done]) == fixture.bytes("new.raw"));
        assert!(
            fixture.bytes(names[1 - done]) == before[1 - done],
            "it was touched"
        );
        fixture.done(&format!("undo back {}", names[done]));
        assert!(fixture.bytes(names[done]) == before[done]);
        // The one that was refused keeps what it logged, for when it runs again.
        fixture.done(&format!("recover {} --discard", names[1 - done]));
        fs::remove_file(fixture.path("back")).unwrap();
        nothing_is_left(&fixture);
    }
}

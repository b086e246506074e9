//! Two processes at one target.

use crate::host::{LoopDevice, has_loop_devices};
use crate::lab::{Lab, signal, until};

/// While a sync runs, nothing else of ours touches its target or its stage.
fn second_is_refused(lab: &Lab, target: &str, options: &str, stage: &str) {
    let words = format!("sync new.raw {target} --mode delta {options}");
    let slow = lab.start(&format!("{words} --limit-rate 2M"));
    until("a stage", || {
        let folder = std::fs::read_dir(lab.path(stage)).into_iter().flatten();
        folder
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
        let run = lab.run(&second);
        assert_eq!(run.status, 2, "{second}: {run:?}");
        let is_named = run.stderr.contains("open for writing") || run.stderr.contains("in use");
        assert!(is_named, "{second}: {run:?}");
    }
    let run = signal(slow, "INT");
    assert_eq!(run.status, 2, "it was under way all the time: {run:?}");
    lab.done(&words);
    lab.done(&format!("diff new.raw {target}"));
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.disk("new.raw", 3000, 1);
    lab.disk("old.raw", 3000, 2);
    lab.disk("other.raw", 3000, 3);
    lab.done("delta create old.raw other.raw -o other.delta");
    lab
}

#[test]
fn a_second_process_is_refused_at_a_file() {
    second_is_refused(&lab(), "old.raw", "", ".");
}

#[test]
fn a_second_process_is_refused_at_a_device() {
    if !has_loop_devices() {
        return;
    }
    let lab = lab();
    let device = LoopDevice::attach(&lab.path("old.raw"));
    let path = device.path().to_str().unwrap();
    second_is_refused(&lab, path, "--stage-dir stages", "stages");
}

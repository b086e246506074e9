//! `recover --forget`: the way out for a marked target whose log is lost.

use std::fs;
use std::path::Path;
use std::process::Command;

use diskdelta::sync::HostTargetOptions;

use crate::guest_marker::marker;
use crate::interrupted::{leave_marked, marked};
use crate::lab::{Lab, Loop, PAGE, write_at};

const MIB: usize = 1 << 20;
const LOG: &str = ".old.raw.diskdelta-log";

/// A target that an interrupted sync left marked, without its log, and what was under the marker.
fn lost() -> Lab {
    let lab = marked();
    fs::remove_file(lab.path(LOG)).unwrap();
    give(&lab);
    lab
}

fn give(lab: &Lab) {
    let new = lab.bytes("new.raw");
    fs::write(lab.path("head"), &new[..MIB]).unwrap();
    fs::write(lab.path("tail"), &new[new.len() - MIB..]).unwrap();
}

fn is_marked(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap();
    bytes[..PAGE]
        .chunks(512)
        .any(|sector| sector.starts_with(b"\0diskdelta mark1"))
}

#[test]
fn a_target_without_its_log_says_what_is_lost_and_what_is_wanted() {
    let lab = lost();
    let (before, names) = (lab.bytes("old.raw"), lab.names());
    lab.run("recover old.raw")
        .fails(3, "recover TARGET --forget");
    lab.run("sync new.raw old.raw").fails(3, "recover");
    let run = lab.run("recover old.raw --forget");
    assert_eq!(run.status, 3, "{run:?}");
    for text in [
        "1048576 bytes at 0x0",
        "--head",
        "--tail",
        "--zero-guarded",
        "a mixture",
    ] {
        assert!(run.stderr.contains(text), "{text}: {run:?}");
    }
    lab.run("recover old.raw --forget --head head")
        .fails(3, "--tail");
    fs::write(lab.path("short"), [1; 512]).unwrap();
    lab.run("recover old.raw --forget --head short --tail tail")
        .fails(3, "1048576 bytes at 0x0, and 512 were given");
    lab.run("recover old.raw --forget --head new.raw --tail tail")
        .fails(3, "of that length");
    lab.run("recover old.raw --forget --head missing --tail tail")
        .fails(2, "missing");
    let run = lab.run("recover old.raw --forget --zero-guarded --tail tail");
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains("cannot be used with"), "{run:?}");
    let run = lab.run("recover old.raw --zero-guarded");
    assert_eq!(run.status, 2, "{run:?}");
    fs::remove_file(lab.path("short")).unwrap();
    assert!(lab.bytes("old.raw") == before);
    assert_eq!(lab.names(), names);
}

#[test]
fn a_target_without_its_log_is_usable_again_with_what_was_under_its_marker() {
    let lab = lost();
    let (status, report) = lab.json("recover old.raw --forget --head head --tail tail");
    assert_eq!(status, 0, "{report}");
    assert_eq!(report["outcome"], "forgotten");
    assert_eq!(report["rest"], "unknown");
    assert_eq!(report["restored"][0]["offset"], 0);
    assert_eq!(report["restored"][1]["bytes"], MIB);
    assert_eq!(report["lost"].as_array().unwrap().len(), 0);
    assert_eq!(lab.names(), ["head", "new.raw", "old.raw", "tail"]);
    let (now, new) = (lab.bytes("old.raw"), lab.bytes("new.raw"));
    assert!(now[..MIB] == new[..MIB] && now[new.len() - MIB..] == new[new.len() - MIB..]);
    lab.done("sync new.raw old.raw --mode delta");
    assert!(lab.bytes("old.raw") == new);
    lab.run("recover old.raw --forget --zero-guarded")
        .fails(2, "carries no marker");
    lab.run("recover none.raw --forget --zero-guarded")
        .fails(2, "no such target");
}

#[test]
fn what_was_under_a_marker_is_given_up_only_where_that_is_asked_for() {
    let lab = lost();
    let run = lab.done("recover old.raw --forget --zero-guarded");
    for text in [
        "lost, now zeros: 1048576 bytes at 0x0",
        "mixture of old and new",
    ] {
        assert!(run.stdout.contains(text), "{text}: {run:?}");
    }
    let now = lab.bytes("old.raw");
    assert!(now[..MIB].iter().all(|byte| *byte == 0));
    assert!(now[now.len() - MIB..].iter().all(|byte| *byte == 0));
    lab.done("sync new.raw old.raw");
    assert!(lab.bytes("old.raw") == lab.bytes("new.raw"));
}

#[test]
fn a_target_whose_log_is_there_is_not_forgotten() {
    let lab = marked();
    give(&lab);
    let before = lab.bytes("old.raw");
    for given in ["--zero-guarded", "--head head --tail tail"] {
        lab.run(&format!("recover old.raw --forget {given}"))
            .fails(3, "run recover without --forget");
    }
    assert!(lab.bytes("old.raw") == before);
    lab.done("recover old.raw");
    assert!(lab.bytes("old.raw") == lab.bytes("new.raw"));
}

#[test]
fn a_target_whose_log_is_elsewhere_is_not_forgotten_where_that_is_named() {
    let lab = marked();
    fs::create_dir(lab.path("logs")).unwrap();
    fs::rename(lab.path(LOG), lab.path("logs").join(LOG)).unwrap();
    for option in ["--log-dir logs", &format!("--trust-log logs/{LOG}")] {
        lab.run(&format!("recover old.raw --forget --zero-guarded {option}"))
            .fails(3, "run recover without --forget");
    }
    assert!(is_marked(&lab.path("old.raw")));
    lab.done(&format!("recover old.raw --trust-log logs/{LOG}"));
    assert!(lab.bytes("old.raw") == lab.bytes("new.raw"));
}

#[test]
fn a_damaged_log_is_kept_when_its_target_is_forgotten() {
    let lab = marked();
    give(&lab);
    let mut log = lab.bytes(LOG);
    let at = log.len() / 2;
    log[at] ^= 1;
    fs::write(lab.path(LOG), &log).unwrap();
    let run = lab.run("recover old.raw");
    assert_eq!(run.status, 3, "{run:?}");
    let (status, report) = lab.json("recover old.raw --forget --head head --tail tail");
    assert_eq!(status, 0, "{report}");
    let names = lab.names();
    let kept: Vec<_> = names.iter().filter(|name| name.starts_with('.')).collect();
    assert_eq!(kept.len(), 1, "{names:?}");
    assert!(lab.bytes(kept[0]) == log);
    assert!(
        report["notes"][0]
            .as_str()
            .unwrap()
            .contains(kept[0].as_str())
    );
    lab.done("sync new.raw old.raw");
    assert!(lab.bytes("old.raw") == lab.bytes("new.raw"));
}

#[test]
fn an_in_place_target_without_its_sidecar_has_a_way_out() {
    let lab = marked();
    lab.done("recover old.raw");
    let new = lab.bytes("new.raw");
    lab.disk("other.raw", new.len() / PAGE, 3);
    let slow = lab.start("sync other.raw old.raw --safety in-place --limit-rate 1M");
    crate::lab::until("a marker", || is_marked(&lab.path("old.raw")));
    crate::lab::signal(slow, "INT");
    lab.run("recover old.raw --forget --zero-guarded")
        .fails(3, "run the same in-place sync again");
    fs::remove_file(lab.path(LOG)).unwrap();
    lab.run("sync other.raw old.raw --safety in-place")
        .fails(3, "diskdelta recover TARGET --forget");
    lab.done("recover old.raw --forget --zero-guarded");
    lab.done("sync other.raw old.raw --safety in-place");
    assert!(lab.bytes("old.raw") == lab.bytes("other.raw"));
    assert_eq!(lab.names(), ["new.raw", "old.raw", "other.raw"]);
}

#[test]
fn a_container_that_does_not_open_any_more_is_said_to() {
    let lab = Lab::new();
    lab.disk("new.raw", 900, 1);
    for name in ["old.vhdx", "old.vhd"] {
        lab.disk("first.raw", 900, 2);
        lab.done(&format!("sync first.raw {name}"));
        let whole = lab.bytes(name);
        lab.done(&format!("sync new.raw {name} --safety in-place --hold"));
        lab.done(&format!("recover {name} --release"));
        let released = lab.bytes(name);
        lab.done(&format!("sync first.raw {name} --safety in-place --hold"));
        fs::remove_file(lab.path(&format!(".{name}.diskdelta-log"))).unwrap();
        let len = lab.bytes(name).len();
        assert!(len >= whole.len() && released.len() <= len);
        let marked = lab.bytes(name);
        let (status, report) =
            lab.json(&format!("recover {name} --forget --zero-guarded --release"));
        assert_eq!((status, &report["opens"]), (0, &false.into()), "{report}");
        fs::write(lab.path(name), &marked).unwrap();
        let run = lab.done(&format!("recover {name} --forget --zero-guarded --release"));
        assert!(run.stdout.contains("does not open"), "{run:?}");
        fs::remove_file(lab.path(name)).unwrap();
        lab.done(&format!("sync new.raw {name}"));
    }
}

#[test]
fn a_marker_that_a_guest_wrote_costs_the_sectors_that_hold_it_and_no_others() {
    let lab = Lab::new();
    let disk = lab.disk("disk.raw", 1024, 1);
    let before = lab.bytes("disk.raw");
    for sector in [0, 7] {
        write_at(&disk, sector as u64 * 512, &marker(sector, "/no/such/log"));
    }
    lab.run("recover disk.raw")
        .fails(3, "recover TARGET --forget");
    let (status, report) = lab.json("recover disk.raw --forget --zero-guarded");
    assert_eq!(status, 0, "{report}");
    let mut expected = before;
    expected[..512].fill(0);
    expected[7 * 512..8 * 512].fill(0);
    assert!(lab.bytes("disk.raw") == expected);
    assert_eq!(report["lost"].as_array().unwrap().len(), 2);
    assert_eq!(lab.names(), ["disk.raw"]);
}

#[test]
fn a_marker_that_a_guest_wrote_with_any_length_in_it_is_given_up() {
    for len in [
        0u64,
        1,
        511,
        4095,
        4096,
        1 << 20,
        3 << 20,
        1 << 40,
        u64::MAX,
    ] {
        let lab = Lab::new();
        let disk = lab.disk("disk.raw", 1024, 1);
        let mut expected = lab.bytes("disk.raw");
        let mut sector = marker(5, "/no/such/log");
        sector[40..48].copy_from_slice(&len.to_le_bytes());
        let crc = crc32fast::hash(&sector[..508]);
        sector[508..].copy_from_slice(&crc.to_le_bytes());
        write_at(&disk, 5 * 512, &sector);
        lab.done("recover disk.raw --forget --zero-guarded");
        expected[5 * 512..6 * 512].fill(0);
        assert!(lab.bytes("disk.raw") == expected, "{len}");
    }
}

#[test]
fn a_guests_marker_with_a_name_that_no_file_can_have_has_the_ordinary_ways_out() {
    let suffix = ".diskdelta-log";
    for stem in [
        "A\0B".to_owned(),
        "\0".to_owned(),
        "/no/such\0/A".to_owned(),
        "x".repeat(242),
        "x".repeat(290),
        format!("/tmp/{}", "\u{e4}".repeat(130)),
    ] {
        let name = format!("{stem}{suffix}");
        let lab = Lab::new();
        lab.disk("other.raw", 1024, 2);
        let disk = lab.disk("disk.raw", 1024, 1);
        fs::create_dir(lab.path("logs")).unwrap();
        let mut expected = lab.bytes("disk.raw");
        write_at(&disk, 3 * 512, &marker(3, &name));
        for words in [
            "recover disk.raw",
            "recover disk.raw --log-dir logs",
            "recover disk.raw --discard",
            "sync other.raw disk.raw",
        ] {
            let run = lab.run(words);
            assert_eq!(run.status, 3, "{words}: {run:?}");
            let is_plain = |c: char| c == '\n' || !c.is_control();
            assert!(run.stderr.chars().all(is_plain), "{words}: {run:?}");
            assert!(run.stderr.contains("--forget"), "{words}: {run:?}");
        }
        lab.done("recover disk.raw --forget --zero-guarded");
        expected[3 * 512..4 * 512].fill(0);
        assert!(lab.bytes("disk.raw") == expected, "{name:?}");
        lab.done("sync other.raw disk.raw");
    }
}

#[test]
fn a_marker_is_not_replaced_by_another() {
    let lab = lost();
    let mut head = lab.bytes("head");
    head[512..1024].copy_from_slice(&marker(1, "/x"));
    fs::write(lab.path("head"), head).unwrap();
    let before = lab.bytes("old.raw");
    lab.run("recover old.raw --forget --head head --tail tail")
        .fails(3, "marker");
    assert!(lab.bytes("old.raw") == before);
    assert!(!lab.path(LOG).exists());
}

#[test]
fn a_held_target_without_its_sidecar_is_forgotten_only_where_its_hold_is_too() {
    let lab = Lab::new();
    lab.disk("new.raw", 900, 1);
    lab.disk("old.raw", 900, 2);
    lab.done("sync new.raw old.raw --safety in-place --hold");
    lab.run("recover old.raw --forget --zero-guarded --release")
        .fails(3, "recover --release, without --forget");
    fs::remove_file(lab.path(LOG)).unwrap();
    lab.run("recover old.raw --forget --zero-guarded")
        .fails(3, "--release");
    assert!(is_marked(&lab.path("old.raw")));
    lab.done("recover old.raw --forget --zero-guarded --release");
    assert!(!is_marked(&lab.path("old.raw")));
    lab.done("sync new.raw old.raw");
    assert!(lab.bytes("old.raw") == lab.bytes("new.raw"));
}

#[test]
fn a_planted_log_is_no_log_of_a_target_that_is_forgotten() {
    let lab = lost();
    let log = lab.path(LOG);
    fs::write(&log, b"not a log").unwrap();
    assert!(
        Command::new("chmod")
            .args(["666"])
            .arg(&log)
            .status()
            .unwrap()
            .success()
    );
    let before = lab.bytes("old.raw");
    lab.run("recover old.raw --forget --head head --tail tail")
        .fails(3, "may not come from diskdelta");
    assert!(lab.bytes("old.raw") == before);
    assert!(fs::read(&log).unwrap() == b"not a log");
    fs::remove_file(&log).unwrap();
    lab.done("recover old.raw --forget --head head --tail tail");
}

#[test]
fn a_device_without_its_log_has_a_way_out() {
    let lab = Lab::new();
    lab.disk("new.raw", 900, 1);
    let disk = lab.disk("disk", 900, 2);
    fs::create_dir(lab.path("logs")).unwrap();
    let Some(device) = Loop::over(&disk) else {
        return;
    };
    let name = &device.0;
    lab.done(&format!(
        "sync new.raw {name} --safety in-place --hold --log-dir logs"
    ));
    for entry in fs::read_dir(lab.path("logs")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    give(&lab);
    lab.done(&format!(
        "recover {name} --forget --release --head head --tail tail --log-dir logs"
    ));
    assert_eq!(fs::read_dir(lab.path("logs")).unwrap().count(), 0);
    lab.done(&format!("diff new.raw {name}"));
}

#[test]
fn a_cut_disk_is_not_finished_and_is_given_up_although_its_log_is_there() {
    let lab = marked();
    let len = lab.bytes("old.raw").len();
    let file = fs::OpenOptions::new().write(true).open(lab.path("old.raw"));
    file.unwrap().set_len(len as u64 / 2).unwrap();
    let before = lab.bytes("old.raw");
    let run = lab.run("recover old.raw");
    run.fails(3, "recover TARGET --forget");
    for text in [len, len / 2] {
        assert!(run.stderr.contains(&format!("{text} ")), "{text}: {run:?}");
    }
    lab.run("recover old.raw --discard").fails(3, "was cut");
    lab.run("recover old.raw --release").fails(3, "was cut");
    lab.run("sync new.raw old.raw").fails(3, "was cut");
    let all = lab.run("recover --all .");
    assert_eq!(all.status, 3, "{all:?}");
    assert!(all.stdout.contains("was cut"), "{all:?}");
    assert!(lab.bytes("old.raw") == before);
    let log = lab.bytes(LOG);
    let run = lab.done("recover old.raw --forget --zero-guarded");
    assert!(run.stderr.contains("is kept as"), "{run:?}");
    let names = lab.names();
    let kept: Vec<_> = names.iter().filter(|name| name.starts_with('.')).collect();
    assert!(kept.len() == 1 && lab.bytes(kept[0]) == log, "{names:?}");
    lab.done("sync new.raw old.raw");
    assert!(lab.bytes("old.raw") == lab.bytes("new.raw"));
}

#[test]
fn a_held_disk_that_was_cut_is_not_released() {
    let lab = Lab::new();
    lab.disk("new.raw", 900, 1);
    lab.disk("old.raw", 900, 2);
    lab.done("sync new.raw old.raw --safety in-place --hold");
    let len = lab.bytes("old.raw").len() as u64;
    let file = fs::OpenOptions::new().write(true).open(lab.path("old.raw"));
    file.unwrap().set_len(len - 512).unwrap();
    for words in ["", " --release"] {
        lab.run(&format!("recover old.raw{words}"))
            .fails(3, "recover TARGET --forget --release");
    }
    lab.run("recover old.raw --forget --zero-guarded")
        .fails(3, "--release");
    lab.done("recover old.raw --forget --zero-guarded --release");
    lab.done("sync new.raw old.raw");
    assert!(lab.bytes("old.raw") == lab.bytes("new.raw"));
}

#[test]
fn a_device_made_smaller_under_its_marker_is_not_finished() {
    let lab = Lab::new();
    lab.disk("new.raw", 900, 1);
    let under = lab.disk("under", 900, 2);
    let Some(device) = Loop::over(&under) else {
        return;
    };
    let options = HostTargetOptions::default().with_log_dir(Some(lab.path("logs")));
    leave_marked(&lab.path("new.raw"), Path::new(&device.0), options);
    let file = fs::OpenOptions::new().write(true).open(&under).unwrap();
    file.set_len(700 * PAGE as u64).unwrap();
    drop(file);
    let status = Command::new("losetup").args(["-c", &device.0]).status();
    assert!(status.unwrap().success());
    let recover = format!("recover {} --log-dir logs", device.0);
    lab.run(&recover).fails(3, "2867200");
    lab.done(&format!("{recover} --forget --zero-guarded"));
}

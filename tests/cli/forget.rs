//! `recover --forget`: the way out for a marked target whose log is lost.

use std::fs;
use std::path::Path;
use std::process::Command;

use diskdelta::sync::HostTargetOptions;

use crate::fixture::{Fixture, Loop, PAGE, write_at};
use crate::guest_marker::marker;
use crate::interrupted::{leave_marked, marked};

const MIB: usize = 1 << 20;
const LOG: &str = ".old.raw.diskdelta-log";

/// A target that an interrupted sync left marked, without its log, and what was under the marker.
fn lost() -> Fixture {
    let fixture = marked();
    fs::remove_file(fixture.path(LOG)).unwrap();
    give(&fixture);
    fixture
}

fn give(fixture: &Fixture) {
    let new = fixture.bytes("new.raw");
    fs::write(fixture.path("head"), &new[..MIB]).unwrap();
    fs::write(fixture.path("tail"), &new[new.len() - MIB..]).unwrap();
}

fn is_marked(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap();
    bytes[..PAGE]
        .chunks(512)
        .any(|sector| sector.starts_with(b"\0diskdelta mark1"))
}

#[test]
fn a_target_without_its_log_says_what_is_lost_and_what_is_wanted() {
    let fixture = lost();
    let (before, names) = (fixture.bytes("old.raw"), fixture.names());
    fixture
        .run("recover old.raw")
        .fails(3, "recover TARGET --forget");
    fixture.run("sync new.raw old.raw").fails(3, "recover");
    let run = fixture.run("recover old.raw --forget");
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
    fixture
        .run("recover old.raw --forget --head head")
        .fails(3, "--tail");
    fs::write(fixture.path("short"), [1; 512]).unwrap();
    fixture
        .run("recover old.raw --forget --head short --tail tail")
        .fails(3, "1048576 bytes at 0x0, and 512 were given");
    fixture
        .run("recover old.raw --forget --head new.raw --tail tail")
        .fails(3, "of that length");
    fixture
        .run("recover old.raw --forget --head missing --tail tail")
        .fails(2, "missing");
    let run = fixture.run("recover old.raw --forget --zero-guarded --tail tail");
    assert_eq!(run.status, 2, "{run:?}");
    assert!(run.stderr.contains("cannot be used with"), "{run:?}");
    let run = fixture.run("recover old.raw --zero-guarded");
    assert_eq!(run.status, 2, "{run:?}");
    fs::remove_file(fixture.path("short")).unwrap();
    assert!(fixture.bytes("old.raw") == before);
    assert_eq!(fixture.names(), names);
}

#[test]
fn a_target_without_its_log_is_usable_again_with_what_was_under_its_marker() {
    let fixture = lost();
    let (status, report) = fixture.json("recover old.raw --forget --head head --tail tail");
    assert_eq!(status, 0, "{report}");
    assert_eq!(report["outcome"], "forgotten");
    assert_eq!(report["rest"], "unknown");
    assert_eq!(report["restored"][0]["offset"], 0);
    assert_eq!(report["restored"][1]["bytes"], MIB);
    assert_eq!(report["lost"].as_array().unwrap().len(), 0);
    assert_eq!(fixture.names(), ["head", "new.raw", "old.raw", "tail"]);
    let (now, new) = (fixture.bytes("old.raw"), fixture.bytes("new.raw"));
    assert!(now[..MIB] == new[..MIB] && now[new.len() - MIB..] == new[new.len() - MIB..]);
    fixture.done("sync new.raw old.raw --mode delta");
    assert!(fixture.bytes("old.raw") == new);
    fixture
        .run("recover old.raw --forget --zero-guarded")
        .fails(2, "carries no marker");
    fixture
        .run("recover none.raw --forget --zero-guarded")
        .fails(2, "no such target");
}

#[test]
fn what_was_under_a_marker_is_given_up_only_where_that_is_asked_for() {
    let fixture = lost();
    let run = fixture.done("recover old.raw --forget --zero-guarded");
    for text in [
        "lost, now zeros: 1048576 bytes at 0x0",
        "mixture of old and new",
    ] {
        assert!(run.stdout.contains(text), "{text}: {run:?}");
    }
    let now = fixture.bytes("old.raw");
    assert!(now[..MIB].iter().all(|byte| *byte == 0));
    assert!(now[now.len() - MIB..].iter().all(|byte| *byte == 0));
    fixture.done("sync new.raw old.raw");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
}

#[test]
fn a_target_whose_log_is_there_is_not_forgotten() {
    let fixture = marked();
    give(&fixture);
    let before = fixture.bytes("old.raw");
    for given in ["--zero-guarded", "--head head --tail tail"] {
        fixture
            .run(&format!("recover old.raw --forget {given}"))
            .fails(3, "have it recovered (diskdelta recover TARGET)");
    }
    assert!(fixture.bytes("old.raw") == before);
    fixture.done("recover old.raw");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
}

#[test]
fn a_target_whose_log_is_elsewhere_is_not_forgotten_where_that_is_named() {
    let fixture = marked();
    fs::create_dir(fixture.path("logs")).unwrap();
    fs::rename(fixture.path(LOG), fixture.path("logs").join(LOG)).unwrap();
    for option in ["--log-dir logs", &format!("--trust-log logs/{LOG}")] {
        fixture
            .run(&format!("recover old.raw --forget --zero-guarded {option}"))
            .fails(3, "have it recovered (diskdelta recover TARGET)");
    }
    assert!(is_marked(&fixture.path("old.raw")));
    fixture.done(&format!("recover old.raw --trust-log logs/{LOG}"));
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
}

#[test]
fn a_damaged_log_is_kept_when_its_target_is_forgotten() {
    let fixture = marked();
    give(&fixture);
    let mut log = fixture.bytes(LOG);
    let at = log.len() / 2;
    log[at] ^= 1;
    fs::write(fixture.path(LOG), &log).unwrap();
    let run = fixture.run("recover old.raw");
    assert_eq!(run.status, 3, "{run:?}");
    let (status, report) = fixture.json("recover old.raw --forget --head head --tail tail");
    assert_eq!(status, 0, "{report}");
    let names = fixture.names();
    let kept: Vec<_> = names.iter().filter(|name| name.starts_with('.')).collect();
    assert_eq!(kept.len(), 1, "{names:?}");
    assert!(fixture.bytes(kept[0]) == log);
    assert!(
        report["notes"][0]
            .as_str()
            .unwrap()
            .contains(kept[0].as_str())
    );
    fixture.done("sync new.raw old.raw");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
}

#[test]
fn an_in_place_target_without_its_sidecar_has_a_way_out() {
    let fixture = marked();
    fixture.done("recover old.raw");
    let new = fixture.bytes("new.raw");
    fixture.disk("other.raw", new.len() / PAGE, 3);
    let slow = fixture.start("sync other.raw old.raw --safety in-place --limit-rate 1M");
    crate::fixture::until("a marker", || is_marked(&fixture.path("old.raw")));
    crate::fixture::signal(slow, "INT");
    fixture
        .run("recover old.raw --forget --zero-guarded")
        .fails(3, "run the same in-place sync again");
    fs::remove_file(fixture.path(LOG)).unwrap();
    fixture
        .run("sync other.raw old.raw --safety in-place")
        .fails(3, "diskdelta recover TARGET --forget");
    fixture.done("recover old.raw --forget --zero-guarded");
    fixture.done("sync other.raw old.raw --safety in-place");
    assert!(fixture.bytes("old.raw") == fixture.bytes("other.raw"));
    assert_eq!(fixture.names(), ["new.raw", "old.raw", "other.raw"]);
}

#[test]
fn a_container_that_does_not_open_any_more_is_said_to() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 900, 1);
    for name in ["old.vhdx", "old.vhd"] {
        fixture.disk("first.raw", 900, 2);
        fixture.done(&format!("sync first.raw {name}"));
        let whole = fixture.bytes(name);
        fixture.done(&format!("sync new.raw {name} --safety in-place --hold"));
        fixture.done(&format!("recover {name} --release"));
        let released = fixture.bytes(name);
        fixture.done(&format!("sync first.raw {name} --safety in-place --hold"));
        fs::remove_file(fixture.path(&format!(".{name}.diskdelta-log"))).unwrap();
        let len = fixture.bytes(name).len();
        assert!(len >= whole.len() && released.len() <= len);
        let marked = fixture.bytes(name);
        let (status, report) =
            fixture.json(&format!("recover {name} --forget --zero-guarded --release"));
        assert_eq!((status, &report["opens"]), (0, &false.into()), "{report}");
        fs::write(fixture.path(name), &marked).unwrap();
        let run = fixture.done(&format!("recover {name} --forget --zero-guarded --release"));
        assert!(run.stdout.contains("does not open"), "{run:?}");
        fs::remove_file(fixture.path(name)).unwrap();
        fixture.done(&format!("sync new.raw {name}"));
    }
}

#[test]
fn a_marker_that_a_guest_wrote_costs_the_sectors_that_hold_it_and_no_others() {
    let fixture = Fixture::new();
    let disk = fixture.disk("disk.raw", 1024, 1);
    let before = fixture.bytes("disk.raw");
    for sector in [0, 7] {
        write_at(&disk, sector as u64 * 512, &marker(sector, "/no/such/log"));
    }
    fixture
        .run("recover disk.raw")
        .fails(3, "recover TARGET --forget");
    let (status, report) = fixture.json("recover disk.raw --forget --zero-guarded");
    assert_eq!(status, 0, "{report}");
    let mut expected = before;
    expected[..512].fill(0);
    expected[7 * 512..8 * 512].fill(0);
    assert!(fixture.bytes("disk.raw") == expected);
    assert_eq!(report["lost"].as_array().unwrap().len(), 2);
    assert_eq!(fixture.names(), ["disk.raw"]);
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
        let fixture = Fixture::new();
        let disk = fixture.disk("disk.raw", 1024, 1);
        let mut expected = fixture.bytes("disk.raw");
        let mut sector = marker(5, "/no/such/log");
        sector[40..48].copy_from_slice(&len.to_le_bytes());
        let crc = crc32fast::hash(&sector[..508]);
        sector[508..].copy_from_slice(&crc.to_le_bytes());
        write_at(&disk, 5 * 512, &sector);
        fixture.done("recover disk.raw --forget --zero-guarded");
        expected[5 * 512..6 * 512].fill(0);
        assert!(fixture.bytes("disk.raw") == expected, "{len}");
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
        let fixture = Fixture::new();
        fixture.disk("other.raw", 1024, 2);
        let disk = fixture.disk("disk.raw", 1024, 1);
        fs::create_dir(fixture.path("logs")).unwrap();
        let mut expected = fixture.bytes("disk.raw");
        write_at(&disk, 3 * 512, &marker(3, &name));
        for words in [
            "recover disk.raw",
            "recover disk.raw --log-dir logs",
            "recover disk.raw --discard",
            "sync other.raw disk.raw",
        ] {
            let run = fixture.run(words);
            assert_eq!(run.status, 3, "{words}: {run:?}");
            let is_plain = |c: char| c == '\n' || !c.is_control();
            assert!(run.stderr.chars().all(is_plain), "{words}: {run:?}");
            assert!(run.stderr.contains("--forget"), "{words}: {run:?}");
        }
        fixture.done("recover disk.raw --forget --zero-guarded");
        expected[3 * 512..4 * 512].fill(0);
        assert!(fixture.bytes("disk.raw") == expected, "{name:?}");
        fixture.done("sync other.raw disk.raw");
    }
}

#[test]
fn a_marker_is_not_replaced_by_another() {
    let fixture = lost();
    let mut head = fixture.bytes("head");
    head[512..1024].copy_from_slice(&marker(1, "/x"));
    fs::write(fixture.path("head"), head).unwrap();
    let before = fixture.bytes("old.raw");
    fixture
        .run("recover old.raw --forget --head head --tail tail")
        .fails(3, "marker");
    assert!(fixture.bytes("old.raw") == before);
    assert!(!fixture.path(LOG).exists());
}

#[test]
fn a_held_target_without_its_sidecar_is_forgotten_only_where_its_hold_is_too() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 900, 1);
    fixture.disk("old.raw", 900, 2);
    fixture.done("sync new.raw old.raw --safety in-place --hold");
    fixture
        .run("recover old.raw --forget --zero-guarded --release")
        .fails(3, "release it (diskdelta recover TARGET --release)");
    fs::remove_file(fixture.path(LOG)).unwrap();
    fixture
        .run("recover old.raw --forget --zero-guarded")
        .fails(3, "--release");
    assert!(is_marked(&fixture.path("old.raw")));
    fixture.done("recover old.raw --forget --zero-guarded --release");
    assert!(!is_marked(&fixture.path("old.raw")));
    fixture.done("sync new.raw old.raw");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
}

#[test]
fn a_planted_log_is_no_log_of_a_target_that_is_forgotten() {
    let fixture = lost();
    let log = fixture.path(LOG);
    fs::write(&log, b"not a log").unwrap();
    assert!(
        Command::new("chmod")
            .args(["666"])
            .arg(&log)
            .status()
            .unwrap()
            .success()
    );
    let before = fixture.bytes("old.raw");
    fixture
        .run("recover old.raw --forget --head head --tail tail")
        .fails(3, "may not come from diskdelta");
    assert!(fixture.bytes("old.raw") == before);
    assert!(fs::read(&log).unwrap() == b"not a log");
    fs::remove_file(&log).unwrap();
    fixture.done("recover old.raw --forget --head head --tail tail");
}

#[test]
fn a_device_without_its_log_has_a_way_out() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 900, 1);
    let disk = fixture.disk("disk", 900, 2);
    fs::create_dir(fixture.path("logs")).unwrap();
    let Some(device) = Loop::over(&disk) else {
        return;
    };
    let name = &device.0;
    fixture.done(&format!(
        "sync new.raw {name} --safety in-place --hold --log-dir logs"
    ));
    for entry in fs::read_dir(fixture.path("logs")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    give(&fixture);
    fixture.done(&format!(
        "recover {name} --forget --release --head head --tail tail --log-dir logs"
    ));
    assert_eq!(fs::read_dir(fixture.path("logs")).unwrap().count(), 0);
    fixture.done(&format!("diff new.raw {name}"));
}

#[test]
fn a_cut_disk_is_not_finished_and_is_given_up_although_its_log_is_there() {
    let fixture = marked();
    let len = fixture.bytes("old.raw").len();
    let file = fs::OpenOptions::new()
        .write(true)
        .open(fixture.path("old.raw"));
    file.unwrap().set_len(len as u64 / 2).unwrap();
    let before = fixture.bytes("old.raw");
    let run = fixture.run("recover old.raw");
    run.fails(3, "recover TARGET --forget");
    for text in [len, len / 2] {
        assert!(run.stderr.contains(&format!("{text} ")), "{text}: {run:?}");
    }
    fixture.run("recover old.raw --discard").fails(3, "was cut");
    fixture.run("recover old.raw --release").fails(3, "was cut");
    fixture.run("sync new.raw old.raw").fails(3, "was cut");
    let all = fixture.run("recover --all .");
    assert_eq!(all.status, 3, "{all:?}");
    assert!(all.stdout.contains("was cut"), "{all:?}");
    assert!(fixture.bytes("old.raw") == before);
    let log = fixture.bytes(LOG);
    let run = fixture.done("recover old.raw --forget --zero-guarded");
    assert!(run.stderr.contains("is kept as"), "{run:?}");
    let names = fixture.names();
    let kept: Vec<_> = names.iter().filter(|name| name.starts_with('.')).collect();
    assert!(
        kept.len() == 1 && fixture.bytes(kept[0]) == log,
        "{names:?}"
    );
    fixture.done("sync new.raw old.raw");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
}

#[test]
fn a_held_disk_that_was_cut_is_not_released() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 900, 1);
    fixture.disk("old.raw", 900, 2);
    fixture.done("sync new.raw old.raw --safety in-place --hold");
    let len = fixture.bytes("old.raw").len() as u64;
    let file = fs::OpenOptions::new()
        .write(true)
        .open(fixture.path("old.raw"));
    file.unwrap().set_len(len - 512).unwrap();
    for words in ["", " --release"] {
        fixture
            .run(&format!("recover old.raw{words}"))
            .fails(3, "recover TARGET --forget --release");
    }
    fixture
        .run("recover old.raw --forget --zero-guarded")
        .fails(3, "--release");
    fixture.done("recover old.raw --forget --zero-guarded --release");
    fixture.done("sync new.raw old.raw");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
}

#[test]
fn a_device_made_smaller_under_its_marker_is_not_finished() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 900, 1);
    let under = fixture.disk("under", 900, 2);
    let Some(device) = Loop::over(&under) else {
        return;
    };
    let options = HostTargetOptions::default().with_log_dir(Some(fixture.path("logs")));
    leave_marked(&fixture.path("new.raw"), Path::new(&device.0), options);
    let file = fs::OpenOptions::new().write(true).open(&under).unwrap();
    file.set_len(700 * PAGE as u64).unwrap();
    drop(file);
    let status = Command::new("losetup").args(["-c", &device.0]).status();
    assert!(status.unwrap().success());
    let recover = format!("recover {} --log-dir logs", device.0);
    fixture.run(&recover).fails(3, "2867200");
    fixture.done(&format!("{recover} --forget --zero-guarded"));
}

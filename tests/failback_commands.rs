//! VMs controlled by the operator's programs: what they are told, and what becomes of programs
//! that fail, hang, print nonsense or too much.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use diskdelta::failback::machine::{Action, Checkpoint, Side, Token, VmSeen};
use diskdelta::failback::vm::{Call, Changes, CommandController, Facts, VmController};
use diskdelta::{CancelToken, ErrorKind};

#[test]
fn a_program_says_what_the_vm_is_after_what_it_did() {
    let seen = inspect(r#"echo '{"exists": true, "running": false, "fenced": true, "more": 1}'"#);
    let expected = VmSeen {
        exists: true,
        running: false,
        fenced: true,
    };
    assert_eq!(seen.unwrap(), expected);
}

#[test]
fn a_program_is_told_the_facts_in_its_environment_and_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let (input, env) = (directory.path().join("input"), directory.path().join("env"));
    let script = format!("cat > {}; env > {}; {SEEN}", input.display(), env.display());
    let controller = controller(&script);
    let cancel = CancelToken::new();
    let keep = Some(Checkpoint(token(1, 2)));
    controller
        .execute(&call(&cancel), Action::ArmTracking { keep })
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(input).unwrap()).unwrap();
    assert_eq!(json["verb"], "arm-tracking");
    assert_eq!(
        json["token"],
        serde_json::json!({"epoch": 3, "sequence": 4})
    );
    assert_eq!(json["keep"], "1.2");
    assert_eq!(json["vm"], "db1");
    assert_eq!(json["disks"][0][1], "/vm/db1.vhdx");
    let env = std::fs::read_to_string(env).unwrap();
    for line in [
        "DISKDELTA_VERB=arm-tracking",
        "DISKDELTA_TOKEN=3.4",
        "DISKDELTA_JOB=shop",
        "DISKDELTA_VM=db1",
        "DISKDELTA_SIDE=target",
        "DISKDELTA_SITE=primary",
        "DISKDELTA_HOST=hv1",
    ] {
        assert!(env.lines().any(|there| there == line), "{line}");
    }
}

#[test]
fn one_program_may_serve_all_verbs_and_gets_the_verb_as_its_last_argument() {
    let argv = ["sh", "-c", &format!("[ $1 = fence ] && {SEEN}"), "sh"];
    let argv = argv.map(str::to_owned).to_vec();
    let limit = Duration::from_secs(60);
    let controller = CommandController::new(facts(), BTreeMap::new(), Some(argv), limit);
    let cancel = CancelToken::new();
    assert!(controller.execute(&call(&cancel), Action::Fence).is_ok());
    assert!(controller.execute(&call(&cancel), Action::Unfence).is_err());
}

#[test]
fn a_program_that_fails_is_an_error_with_what_it_said() {
    let error = inspect("echo the cloud is on fire >&2; exit 3").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let text = error.to_string();
    assert!(
        text.contains("the cloud is on fire") && text.contains("exit status: 3"),
        "{text}"
    );
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let limit = Duration::from_secs(60);
    let argv = Some(vec!["/no/such/program".to_owned()]);
    let controller = CommandController::new(facts(), BTreeMap::new(), argv, limit);
    let error = controller
        .execute(&call(&CancelToken::new()), Action::Inspect)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/no/such/program"));
}

#[test]
fn a_program_that_prints_nonsense_is_an_error_that_shows_it() {
    for (script, shown) in [
        ("echo VM is fine", "VM is fine"),
        ("true", "did not print the JSON object"),
        (
            r#"echo '{"exists": true}'"#,
            "does not say `exists`, `running` and `fenced`",
        ),
        (
            r#"echo '{"exists": "yes", "running": 1, "fenced": 0}'"#,
            "does not say",
        ),
        (r#"printf '\377\376'"#, "did not print the JSON object"),
    ] {
        let error = inspect(script).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{script}");
        assert!(error.to_string().contains(shown), "{error}");
    }
}

#[test]
fn a_program_that_hangs_is_killed_with_all_that_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; sleep 1000", file.display());
    let verbs = BTreeMap::from([("inspect".to_owned(), shell(&script))]);
    let limit = Duration::from_millis(500);
    let controller = CommandController::new(facts(), verbs, None, limit);
    let error = controller
        .execute(&call(&CancelToken::new()), Action::Inspect)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(
        error
            .to_string()
            .contains("took longer than 500ms and was killed"),
        "{error}"
    );
    let pid = std::fs::read_to_string(file).unwrap();
    let left = format!("/proc/{}/stat", pid.trim());
    // It is gone, or waits for whoever adopted it to notice.
    let gone = || match std::fs::read_to_string(&left) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    while !gone() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_program_that_is_cancelled_is_killed() {
    let cancel = CancelToken::new();
    let controller = controller("sleep 1000");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| controller.execute(&call(&cancel), Action::Inspect));
        std::thread::sleep(Duration::from_millis(50));
        cancel.cancel();
        let error = asked.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    });
}

#[test]
fn a_program_that_prints_without_end_is_bounded() {
    let script = format!("head -c 17000000 /dev/zero; {SEEN}");
    let error = inspect(&script).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    let error = inspect("head -c 5000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1");
    let text = error.unwrap_err().to_string();
    assert!(text.ends_with("xend") && text.len() < 10_000);
}

#[test]
fn a_program_that_leaves_a_child_behind_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; {SEEN}", file.display());
    assert!(inspect(&script).is_ok());
    let pid = std::fs::read_to_string(file).unwrap();
    assert!(
        Path::new(&format!("/proc/{}", pid.trim())).exists(),
        "a VM may be such a child"
    );
    let killed = std::process::Command::new("kill").arg(pid.trim()).status();
    assert!(killed.unwrap().success());
}

/// Neither a thread nor a pipe, in the process that asked: this test counts those of its own.
#[test]
fn a_child_that_keeps_the_programs_output_keeps_nothing_of_the_caller() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pids");
    // Each reads what it can still write to.
    let script = format!(
        "(trap '' PIPE; while sleep 0.05; do echo x >&2 || exit; done) & echo $! >> {}; {SEEN}",
        file.display()
    );
    let pipes = || {
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let paths = open.filter_map(|it| std::fs::read_link(it.unwrap().path()).ok());
        paths
            .filter(|it| it.to_string_lossy().starts_with("pipe:"))
            .collect::<std::collections::BTreeSet<_>>()
    };
    let mine = |before: &std::collections::BTreeSet<_>| pipes().difference(before).count();
    let before = pipes();
    for _ in 0..5 {
        assert!(inspect(&script).is_ok());
    }
    // Other tests of this process have pipes of their own for a while.
    let begin = std::time::Instant::now();
    while mine(&before) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "pipes are left");
        std::thread::sleep(Duration::from_millis(20));
    }
    // And what was left behind sees that nothing reads it any more.
    for pid in std::fs::read_to_string(file).unwrap().lines() {
        let left = format!("/proc/{pid}/stat");
        let gone = || std::fs::read_to_string(&left).map_or(true, |stat| stat.contains(") Z "));
        while !gone() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn changes_are_trusted_only_where_they_tell_of_every_disk_of_the_job() {
    let changes = |answer: &str, since: Option<Checkpoint>| {
        let controller = controller(&format!("echo '{answer}'"));
        controller.changes_since(&call(&CancelToken::new()), since, false)
    };
    let since = Some(Checkpoint(token(1, 1)));
    let disk = |more: &str| {
        format!(r#"{{"disks": [{{"identity": "db1-system", "address": "/dev/x"{more}}}]}}"#)
    };
    let Changes::Tracked(found) =
        changes(&disk(r#", "changed": [[0, 512], [4096, 1]]"#), since).unwrap()
    else {
        panic!("tracked");
    };
    assert_eq!(found[0].changed, Some(vec![0..512, 4096..4097]));
    assert_eq!(
        changes(r#"{"tracking_lost": true}"#, since).unwrap(),
        Changes::TrackingLost
    );
    assert_eq!(
        changes(r#"{"snapshot_lost": true}"#, since).unwrap(),
        Changes::SnapshotLost
    );
    assert!(changes(&disk(""), None).is_ok());
    for wrong in [
        disk(""),
        disk(r#", "changed": [[18446744073709551615, 2]]"#),
        disk(r#", "changed": [[-1, 2]]"#),
        r#"{"disks": []}"#.to_owned(),
        disk(r#", "changed": []"#).replace("db1-system", "another"),
        "{}".to_owned(),
    ] {
        let error = changes(&wrong, since).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{wrong}");
    }
}

const SEEN: &str = r#"echo '{"exists": true, "running": true, "fenced": false}'"#;

fn inspect(script: &str) -> diskdelta::Result<VmSeen> {
    controller(script).execute(&call(&CancelToken::new()), Action::Inspect)
}

/// A controller whose programs are all this shell script.
fn controller(script: &str) -> CommandController {
    let limit = Duration::from_secs(60);
    CommandController::new(facts(), BTreeMap::new(), Some(shell(script)), limit)
}

fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

fn facts() -> Facts {
    Facts {
        job: "shop".to_owned(),
        vm: "db1".to_owned(),
        side: Side::Target,
        site: "primary".to_owned(),
        host: "hv1".to_owned(),
        networks: vec!["lan".to_owned()],
        disks: vec![("db1-system".to_owned(), "/vm/db1.vhdx".to_owned())],
        blocked_disks: Vec::new(),
    }
}

fn call(cancel: &CancelToken) -> Call<'_> {
    Call {
        token: token(3, 4),
        cancel,
    }
}

fn token(epoch: u64, sequence: u64) -> Token {
    Token { epoch, sequence }
}

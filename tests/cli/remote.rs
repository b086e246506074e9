//! One side on another host: this one, behind a script, or behind a real ssh.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::fixture::{Fixture, PAGE, ended, left_out, noise, send, until, write_at};

const COMMAND: &str = env!("CARGO_BIN_EXE_diskdelta");

/// A script that stands in for ssh: drops what ssh takes and runs the agent, here.
pub fn shell(fixture: &Fixture, serve: &str) -> PathBuf {
    let text = format!(
        "#!/bin/sh\necho \"$@\" >> {log}\necho $$ >> {pids}\nexec {COMMAND} serve --stdio {serve}\n",
        log = fixture.path("asked").display(),
        pids = fixture.path("pids").display(),
    );
    script(fixture, "rsh", &text)
}

fn script(fixture: &Fixture, name: &str, text: &str) -> PathBuf {
    let path = fixture.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// A directory with a disk and an old copy of it.
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 2000, 1);
    let old = fixture.disk("old.raw", 2000, 1);
    for page in (0..2000).step_by(9) {
        write_at(&old, page * PAGE as u64, &noise(PAGE, page + 77));
    }
    fixture
}

#[test]
fn pull_and_push_behind_any_shell() {
    let fixture = fixture();
    fs::copy(fixture.path("old.raw"), fixture.path("second.raw")).unwrap();
    shell(&fixture, "--root .");
    let (status, report) = fixture.json("sync ssh://me@host:2222/new.raw old.raw --rsh ./rsh");
    assert_eq!(status, 0, "{report}");
    assert_eq!(report["outcome"], "synced");
    assert_eq!(report["changed_bytes"], 223 * PAGE);
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    let received = report["received_bytes"].as_u64().unwrap();
    assert!(received > 223 * PAGE as u64 && received < 223 * PAGE as u64 + 50_000);
    let (status, report) = fixture.json("sync new.raw ssh://host/second.raw --rsh ./rsh");
    assert_eq!(
        (status, &report["outcome"]),
        (0, &"synced".into()),
        "{report}"
    );
    assert!(report["sent_bytes"].as_u64().unwrap() > 223 * PAGE as u64);
    assert!(fixture.bytes("second.raw") == fixture.bytes("new.raw"));
    let again = fixture.done("sync new.raw ssh://host/second.raw --rsh ./rsh");
    assert!(again.stdout.starts_with("identical"), "{again:?}");
    assert!(again.stdout.contains(" sent, "), "{again:?}");
    let asked = String::from_utf8(fixture.bytes("asked")).unwrap();
    let lines: Vec<&str> = asked.lines().collect();
    assert_eq!(lines[0], "-p 2222 -l me host diskdelta serve --stdio");
    assert_eq!(lines[1], "host diskdelta serve --stdio");
}

#[test]
fn what_the_other_end_refuses_is_said_here_in_one_line() {
    let fixture = fixture();
    shell(&fixture, "--root . --read-only");
    let before = fixture.bytes("old.raw");
    fixture
        .run("sync new.raw ssh://host/old.raw --rsh ./rsh")
        .fails(2, "only reads");
    fixture
        .run("sync ssh://host/none.raw old.raw --rsh ./rsh")
        .fails(2, "none.raw");
    fixture
        .run("sync ssh://host/../x old.raw --rsh ./rsh")
        .fails(2, "is outside of what this agent serves");
    fixture
        .run("sync new.raw ssh://host/old.raw --rsh ./rsh --undo u")
        .fails(2, "--undo");
    fixture
        .run("sync ssh://a/new.raw ssh://b/old.raw --rsh ./rsh")
        .fails(2, "both on other hosts");
    fixture
        .run("sync ftp://host/new.raw old.raw")
        .fails(2, "ssh://");
    fixture
        .run("sync ssh://-oProxyCommand=x/new.raw old.raw")
        .fails(2, "not an address");
    fixture
        .run("sync ssh://host/new.raw old.raw --rsh ./no-such-shell")
        .fails(2, "--rsh");
    assert!(fixture.bytes("old.raw") == before);
    script(&fixture, "prints", "#!/bin/sh\necho Welcome to this host\n");
    fixture
        .run("sync ssh://host/new.raw old.raw --rsh ./prints")
        .fails(2, "Welcome to");
    script(&fixture, "ends", "#!/bin/sh\nexit 3\n");
    fixture
        .run("sync ssh://host/new.raw old.raw --rsh ./ends")
        .fails(2, "has closed the connection");
    assert!(fixture.bytes("old.raw") == before);
}

#[test]
fn a_killed_agent_leaves_the_target_old_and_the_same_command_goes_on() {
    for pushes in [false, true] {
        let fixture = Fixture::new();
        fixture.disk("new.raw", 6000, 1);
        fixture.disk("old.raw", 6000, 2);
        shell(&fixture, "--root .");
        let before = fixture.bytes("old.raw");
        let words = match pushes {
            true => "sync new.raw ssh://host/old.raw --rsh ./rsh",
            false => "sync ssh://host/new.raw old.raw --rsh ./rsh",
        };
        let slow = fixture.start(&format!("{words} --limit-rate 3M"));
        let redo_log = fixture.path(".old.raw.diskdelta-log");
        until("a redo log of its own", || {
            fs::metadata(&redo_log).is_ok_and(|it| it.len() > 4 << 20)
        });
        let pids = String::from_utf8(fixture.bytes("pids")).unwrap();
        let agent = pids.lines().last().unwrap();
        let killed = Command::new("kill")
            .args(["-KILL", agent])
            .status()
            .unwrap();
        assert!(killed.success());
        let run = ended(slow);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(run.stderr.contains("has closed the connection"), "{run:?}");
        assert!(fixture.bytes("old.raw") == before);
        let (status, report) = fixture.json(words);
        assert_eq!(status, 0, "{report}");
        assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
        let resumed = report["resumed_bytes"].as_u64().unwrap();
        assert!(resumed > 3 << 20, "{report}");
        let key = if pushes {
            "sent_bytes"
        } else {
            "received_bytes"
        };
        let moved = report[key].as_u64().unwrap();
        assert!(moved < 6000 * PAGE as u64 - resumed + 100_000, "{report}");
    }
}

#[test]
fn a_line_that_breaks_is_taken_up_again_within_one_run_where_that_is_asked_for() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 2000, 1);
    fixture.disk("old.raw", 2000, 2);
    // Ends the agent once two MiB more are logged than the last time.
    let text = format!(
        "#!/bin/sh\nn=$(cat count 2>/dev/null || echo 0)\nn=$((n + 1))\necho $n > count\n\
         logged() {{ stat -c %s .old.raw.diskdelta-log || echo 0; }}\n\
         (while kill -0 $$ && [ $(logged) -lt $((n * 2097152)) ]; do sleep 0.02; done\n\
         kill -9 $$) </dev/null >/dev/null 2>&1 &\n\
         exec {COMMAND} serve --stdio --root . --read-only\n"
    );
    script(&fixture, "breaks", &text);
    let words = "sync ssh://host/new.raw old.raw --rsh ./breaks --limit-rate 4M";
    fixture.run(words).fails(2, "has closed the connection");
    let (status, report) = fixture.json(&format!("{words} --retry 5"));
    assert_eq!(status, 0, "{report}");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    assert!(
        report["resumed_bytes"].as_u64().unwrap() > 1 << 20,
        "{report}"
    );
}

#[test]
fn a_target_left_marked_at_the_other_end_is_told_by_the_status() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 6000, 1);
    fixture.disk("old.raw", 6000, 2);
    shell(&fixture, "--root .");
    let words = "sync new.raw ssh://host/old.raw --rsh ./rsh --safety in-place";
    let slow = fixture.start(&format!("{words} --limit-rate 3M"));
    let sidecar = fixture.path(".old.raw.diskdelta-log");
    until("a sidecar", || sidecar.exists());
    std::thread::sleep(Duration::from_millis(500));
    send(&slow, "INT");
    let run = ended(slow);
    assert_ne!(run.status, 0, "{run:?}");
    until("the agent to let go", || {
        let (_, listed) = fixture.json("recover --list .");
        listed["pending"][0]["state"] == "rerun"
    });
    fixture
        .run("sync new.raw ssh://host/old.raw --rsh ./rsh")
        .fails(3, "run the same sync again");
    fixture.done(words);
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
}

#[test]
fn with_manifests_at_both_ends_neither_disk_is_read_and_the_report_says_so() {
    let fixture = fixture();
    shell(&fixture, "--root . --manifest-cache there");
    // What was written a moment ago is not trusted to stay as it is.
    let wait_for_clock = || std::thread::sleep(Duration::from_millis(3100));
    wait_for_clock();
    let words = "sync new.raw ssh://host/old.raw --rsh ./rsh --manifest-cache here";
    let both = |report: &serde_json::Value| {
        report["sent_bytes"].as_u64().unwrap() + report["received_bytes"].as_u64().unwrap()
    };
    let (status, first) = fixture.json(words);
    assert_eq!(
        (status, &first["verified"]),
        (0, &"written".into()),
        "{first}"
    );
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    let (status, same) = fixture.json(words);
    assert_eq!(
        (status, &same["outcome"]),
        (0, &"unchanged".into()),
        "{same}"
    );
    assert_eq!(same["verified"], "cached");
    assert_eq!(same["compared_bytes"], 0);
    assert!(both(&same) < 1000, "{same}");

    // A source that was written to is read, and held against the target's manifest.
    write_at(&fixture.path("new.raw"), 5 * PAGE as u64, &noise(PAGE, 99));
    wait_for_clock();
    let (status, changed) = fixture.json(words);
    assert_eq!(
        (status, &changed["outcome"]),
        (0, &"synced".into()),
        "{changed}"
    );
    assert_eq!(changed["changed_bytes"], PAGE);
    assert_eq!(changed["verified"], "cached");
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));

    // The same between two sources that are both known.
    fs::copy(fixture.path("new.raw"), fixture.path("other.raw")).unwrap();
    write_at(
        &fixture.path("other.raw"),
        900 * PAGE as u64,
        &noise(2 * PAGE, 98),
    );
    wait_for_clock();
    fixture.done("sync other.raw ssh://host/made.raw --rsh ./rsh --manifest-cache here");
    let words = words.replace("new.raw", "other.raw");
    let (status, moved) = fixture.json(&words);
    assert_eq!(
        (status, &moved["outcome"]),
        (0, &"synced".into()),
        "{moved}"
    );
    assert_eq!(moved["changed_bytes"], 2 * PAGE);
    assert_eq!(moved["verified"], "cached");
    assert!(
        moved["compared_bytes"].as_u64().unwrap() <= 16 << 20,
        "{moved}"
    );
    assert!(fixture.bytes("old.raw") == fixture.bytes("other.raw"));

    // A target that somebody wrote to is read again, and made right.
    write_at(&fixture.path("old.raw"), 70 * PAGE as u64, &noise(PAGE, 97));
    let (status, mended) = fixture.json(&words);
    assert_eq!(
        (status, &mended["outcome"]),
        (0, &"synced".into()),
        "{mended}"
    );
    assert!(fixture.bytes("old.raw") == fixture.bytes("other.raw"));
    // All that was asked to be read is read.
    let (_, all) = fixture.json(&format!("{words} --verify all"));
    assert_eq!(all["verified"], "all", "{all}");
    fixture
        .run("sync ssh://host/new.raw old.raw --rsh ./rsh --manifest-cache here")
        .fails(2, "serve --manifest-cache");
}

#[test]
fn a_pull_keeps_the_manifest_of_its_target_and_an_agent_that_of_its_source() {
    let fixture = fixture();
    shell(&fixture, "--root . --read-only --manifest-cache there");
    std::thread::sleep(Duration::from_millis(3100));
    for safety in ["atomic", "in-place"] {
        let words = format!(
            "sync ssh://host/new.raw old.raw --rsh ./rsh --target-manifest kept --safety {safety}"
        );
        let (status, first) = fixture.json(&words);
        assert_eq!(status, 0, "{first}");
        let (status, same) = fixture.json(&words);
        assert_eq!((status, &same["verified"]), (0, &"cached".into()), "{same}");
        assert_eq!(same["outcome"], "unchanged");
        assert_eq!(same["compared_bytes"], 0);
        assert_eq!(same["root"], first["root"]);
        let received = same["received_bytes"].as_u64().unwrap();
        assert!(received < 500, "{same}");
        write_at(&fixture.path("old.raw"), 0, &noise(PAGE, 5));
    }
}

#[test]
fn a_wrong_cache_is_found_by_verify_all_and_where_it_is_looked_at() {
    let fixture = fixture();
    shell(&fixture, "--root . --manifest-cache there");
    std::thread::sleep(Duration::from_millis(3100));
    let words = "sync new.raw ssh://host/old.raw --rsh ./rsh --manifest-cache here";
    fixture.done(words);
    let kept = fs::read_dir(fixture.path("there")).unwrap().next().unwrap();
    let kept = kept.unwrap().path();
    write_at(&fixture.path("old.raw"), 10 * PAGE as u64, &noise(PAGE, 55));
    // Without the record of a stamp it is trusted, as one that some other program made.
    let body = fs::read(&kept).unwrap();
    let end = u64::from_le_bytes(body[56..64].try_into().unwrap()) as usize;
    fs::write(&kept, &body[..end]).unwrap();
    let (status, wrong) = fixture.json(words);
    assert_eq!(
        (status, &wrong["outcome"]),
        (0, &"unchanged".into()),
        "{wrong}"
    );
    assert_eq!(wrong["verified"], "cached");
    fs::write(&kept, &body[..end]).unwrap();
    fixture
        .run(&format!("{words} --verify all"))
        .fails(2, "does not hold");
    // Beside a page that changed the whole block is looked at.
    write_at(&fixture.path("new.raw"), 11 * PAGE as u64, &noise(PAGE, 56));
    fs::write(&kept, &body[..end]).unwrap();
    let (status, mended) = fixture.json(words);
    assert_eq!(
        (status, &mended["outcome"]),
        (0, &"synced".into()),
        "{mended}"
    );
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
}

#[test]
fn a_dry_run_onto_a_missing_target_says_what_would_be_written() {
    let fixture = fixture();
    shell(&fixture, "--root .");
    for words in [
        "sync new.raw t.raw --dry-run",
        "sync ssh://host/new.raw t.raw --rsh ./rsh --dry-run",
        "sync new.raw ssh://host/t.raw --rsh ./rsh --dry-run",
    ] {
        let (status, report) = fixture.json(words);
        assert_eq!((status, &report["outcome"]), (0, &"dry_run".into()));
        let all = fixture.bytes("new.raw").len();
        assert_eq!(report["written_bytes"], all, "{words}");
        assert!(!fixture.path("t.raw").exists(), "{words}");
    }
}

#[test]
fn a_dry_run_moves_hashes_only() {
    let fixture = fixture();
    shell(&fixture, "--root .");
    let before = fixture.bytes("old.raw");
    for words in [
        "sync ssh://host/new.raw old.raw --rsh ./rsh --dry-run",
        "sync new.raw ssh://host/old.raw --rsh ./rsh --dry-run",
    ] {
        let (status, report) = fixture.json(words);
        assert_eq!(
            (status, &report["outcome"]),
            (0, &"dry_run".into()),
            "{report}"
        );
        assert_eq!(report["changed_bytes"], 223 * PAGE);
        let moved =
            report["sent_bytes"].as_u64().unwrap() + report["received_bytes"].as_u64().unwrap();
        assert!(moved < 40_000, "{report}");
        assert!(fixture.bytes("old.raw") == before);
    }
}

#[test]
fn a_local_sync_with_both_manifests_reads_what_differs() {
    let fixture = fixture();
    std::thread::sleep(Duration::from_millis(3100));
    let words = "sync new.raw old.raw --target-manifest kept --manifest-cache here";
    fixture.done(words);
    let (status, same) = fixture.json(words);
    assert_eq!(
        (status, &same["outcome"]),
        (0, &"unchanged".into()),
        "{same}"
    );
    assert_eq!(same["verified"], "cached");
    assert_eq!(same["compared_bytes"], 0);
    write_at(&fixture.path("new.raw"), 100 * PAGE as u64, &noise(PAGE, 3));
    let (status, changed) = fixture.json(words);
    assert_eq!(
        (status, &changed["changed_bytes"]),
        (0, &(PAGE as u64).into()),
        "{changed}"
    );
    assert!(
        changed["compared_bytes"].as_u64().unwrap() <= 64 << 10,
        "{changed}"
    );
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    fixture
        .run("sync new.raw old.raw --manifest-cache here")
        .fails(2, "--target-manifest");
}

/// A throw-away sshd on this host; ended when dropped.
struct Sshd {
    process: Child,
    port: u16,
}

impl Sshd {
    /// One that lets its own throw-away key in; `None`, loudly, where there is no sshd.
    fn start(fixture: &Fixture) -> Option<Sshd> {
        let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"];
        let Some(program) = program.iter().find(|it| Path::new(it).exists()) else {
            left_out("no sshd is here");
            return None;
        };
        for name in ["host_key", "user_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(fixture.path(name))
                .status();
            if !made.is_ok_and(|it| it.success()) {
                left_out("no ssh-keygen is here");
                return None;
            }
        }
        fs::copy(fixture.path("user_key.pub"), fixture.path("authorized")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {host}\nAuthorizedKeysFile {keys}\n\
             PasswordAuthentication no\nStrictModes no\nUsePAM no\nPidFile none\n",
            host = fixture.path("host_key").display(),
            keys = fixture.path("authorized").display(),
        );
        fs::write(fixture.path("sshd_config"), config).unwrap();
        // It wants an empty directory of its own, which packages make when they start it.
        let _ = fs::create_dir_all("/run/sshd");
        let process = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(fixture.path("sshd_config"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sshd = Sshd { process, port };
        until("sshd to listen", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok_and(|mut stream| {
                let mut greeting = [0; 4];
                stream.read_exact(&mut greeting).is_ok() && &greeting == b"SSH-"
            })
        });
        Some(sshd)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn pull_and_push_through_a_real_ssh() {
    let fixture = fixture();
    let Some(sshd) = Sshd::start(&fixture) else {
        return;
    };
    let mut config = fs::File::create(fixture.path("ssh_config")).unwrap();
    writeln!(
        config,
        "Host remote-host\nHostName 127.0.0.1\nPort {}\nIdentityFile {}\nIdentitiesOnly yes\n\
         StrictHostKeyChecking no\nUserKnownHostsFile {}\nLogLevel ERROR",
        sshd.port,
        fixture.path("user_key").display(),
        fixture.path("known_hosts").display(),
    )
    .unwrap();
    let rsh = format!(
        "#!/bin/sh\nexec ssh -F {} \"$@\"\n",
        fixture.path("ssh_config").display()
    );
    script(&fixture, "through", &rsh);
    let directory = fixture.path("").display().to_string();
    let directory = directory.trim_end_matches('/');
    let shell = format!("--rsh ./through --remote-program {COMMAND}");
    fs::copy(fixture.path("old.raw"), fixture.path("second.raw")).unwrap();
    fixture.done(&format!(
        "sync ssh://remote-host{directory}/new.raw old.raw {shell}"
    ));
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    fixture.done(&format!(
        "sync new.raw ssh://remote-host{directory}/second.raw {shell}"
    ));
    assert!(fixture.bytes("second.raw") == fixture.bytes("new.raw"));
    fixture.done(&format!(
        "sync new.raw ssh://remote-host{directory}/made.vhdx {shell}"
    ));
    fixture.done("diff new.raw made.vhdx");
    // A key that may do nothing but serve one directory, and only read it.
    let key = fs::read_to_string(fixture.path("user_key.pub")).unwrap();
    let forced =
        format!("command=\"{COMMAND} serve --stdio --root {directory} --read-only\" {key}");
    fs::write(fixture.path("authorized"), forced).unwrap();
    fixture.done("sync ssh://remote-host/new.raw second.raw --rsh ./through");
    fixture
        .run("sync new.raw ssh://remote-host/second.raw --rsh ./through")
        .fails(2, "only reads");
}

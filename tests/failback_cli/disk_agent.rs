//! What an agent does for whoever asks it to look after disks, and what it does not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use diskdelta::image::Raw;
use diskdelta::remote::{Fault, Line, LineOptions, Message, Session, Side, SourceServer};
use diskdelta::storage::{MemoryStorage, Storage};
use diskdelta::{CancelToken, Error, ErrorKind, Work};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An agent that serves `options`, and the line to it.
struct Agent {
    session: Session,
    child: Child,
}

impl Agent {
    fn new(options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_diskdelta"));
        command.args(["serve", "--stdio"]).args(options);
        if !options.contains(&"--state-dir") {
            command.arg("--state-dir").arg(state());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (output, input) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let line = LineOptions::default().with_silence(Duration::from_secs(30));
        let line = Line::new(output, input, line).unwrap();
        let session = Session::greet(line, Side::Client, &CancelToken::new()).unwrap();
        Agent { session, child }
    }

    fn say(&self, request: &Value) {
        let words = request.to_string().into_bytes();
        self.session.line().send(&Message::Ask(words)).unwrap();
    }

    /// What it says in the end.
    fn hear(&self) -> Result<Value, String> {
        let receive = || self.session.line().receive("a word", &CancelToken::new());
        loop {
            match receive().map_err(|error| error.to_string())? {
                Message::Told(words) => {
                    let reply: Value = serde_json::from_slice(&words).unwrap();
                    if reply.get("begun").is_none() && reply.get("advanced").is_none() {
                        return Ok(reply);
                    }
                }
                other => return Err(format!("{other:?}")),
            }
        }
    }

    fn tell(&self, message: &Message) {
        self.session.line().send(message).unwrap();
    }

    /// Is the source of what it does next.
    fn answer(&self, bytes: Vec<u8>) {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new("source", bytes));
        let source_server = SourceServer {
            image: Arc::new(Raw::open(storage).unwrap()),
            check: &|| Ok(()),
            warnings: Vec::new(),
            cached: None,
        };
        let work = Work::with_threads(1).unwrap();
        source_server.answer(&self.session, &work).unwrap();
    }

    fn end(mut self) {
        self.session.finish();
        self.child.wait().unwrap();
    }

    fn ask(options: &[&str], request: &Value) -> Result<Value, String> {
        let agent = Agent::new(options);
        agent.say(request);
        let heard = agent.hear();
        agent.end();
        heard
    }
}

/// Where agents of this process keep their state.
fn state() -> PathBuf {
    let name = format!("agent-{}", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// A command that needs to know no more.
fn command(action: &str) -> Value {
    json!({"execute": {"action": action, "keep_undo": false, "changes": null, "other": null}})
}

fn copy(amount: Value, from_snapshot: bool, changes: Value) -> Value {
    let action = json!({"copy": {"amount": amount, "from_snapshot": from_snapshot}});
    json!({"execute": {"action": action, "keep_undo": false, "changes": changes, "other": null}})
}

fn is_done() -> Value {
    json!({"done": {"answer": "done", "detail": null}})
}

fn request(disk: &Path, token: (u64, u64), task: Value) -> Value {
    json!({
        "job": "shop", "vm": "db1", "instance": "a".repeat(32), "side": "target",
        "state": null, "create": false, "in_place": false,
        "token": {"epoch": token.0, "sequence": token.1},
        "disks": [{
            "identity": "x", "bytes": null, "path": disk, "format": "raw",
            "other": null, "other_format": "raw",
        }],
        "task": task,
    })
}

fn disk() -> (TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    fs::write(&path, [7; 8192]).unwrap();
    (directory, path)
}

#[test]
fn a_disk_is_blocked_once_and_let_go_by_nobody_older() {
    let (directory, disk) = disk();
    let blocked = directory.path().join("disk.raw.failback-shop.partial.raw");
    for _ in 0..2 {
        let done = Agent::ask(&[], &request(&disk, (3, 1), command("block")));
        assert_eq!(done.unwrap(), is_done());
        assert!(blocked.exists() && !disk.exists());
    }
    for old in [(2, 9), (3, 0)] {
        let late = Agent::ask(&[], &request(&disk, old, command("unblock"))).unwrap_err();
        assert!(late.contains("comes too late: 3.1"), "{late}");
        assert!(blocked.exists() && !disk.exists());
    }
    let done = Agent::ask(&[], &request(&disk, (3, 2), command("unblock")));
    assert_eq!(done.unwrap(), is_done());
    assert!(!blocked.exists() && disk.exists());
}

#[test]
fn an_agent_that_only_reads_or_serves_another_directory_touches_nothing() {
    let (directory, disk) = disk();
    let (other, _) = self::disk();
    let block = request(&disk, (1, 1), command("block"));
    let refused = Agent::ask(&["--read-only"], &block).unwrap_err();
    assert!(refused.contains("only reads"), "{refused}");
    let root = other.path().to_str().unwrap();
    assert!(Agent::ask(&["--root", root], &block).is_err());
    let link = other.path().join("link.raw");
    std::os::unix::fs::symlink(&disk, &link).unwrap();
    let block = request(Path::new("/link.raw"), (1, 1), command("block"));
    let refused = Agent::ask(&["--root", root], &block).unwrap_err();
    assert!(refused.contains("outside"), "{refused}");
    let mut state = request(Path::new("/disk.raw"), (1, 1), command("block"));
    state["state"] = json!(directory.path().join("state"));
    let refused = Agent::ask(&["--root", root], &state).unwrap_err();
    assert!(refused.contains("invalid"), "{refused}");
    assert!(disk.exists() && !directory.path().join("state").exists());
    // What lies inside is taken from there.
    let block = request(Path::new("/disk.raw"), (1, 1), command("block"));
    assert_eq!(Agent::ask(&["--root", root], &block).unwrap(), is_done());
    assert!(!other.path().join("disk.raw").exists() && disk.exists());
}

#[test]
fn a_request_that_makes_no_sense_is_refused_and_nothing_is_done() {
    let (directory, disk) = disk();
    let mut all = vec![json!(null), json!([]), json!("block")];
    for (at, with) in [
        ("/job", json!("../../etc")),
        ("/instance", json!("..")),
        ("/disks/0/path", json!("/tmp/../disk")),
        ("/task", json!({"copy": {"amount": "everything"}})),
    ] {
        let mut wrong = request(&disk, (1, 1), command("block"));
        *wrong.pointer_mut(at).unwrap() = with;
        all.push(wrong);
    }
    for wrong in all {
        let refused = Agent::ask(&[], &wrong).unwrap_err();
        assert!(refused.contains("invalid"), "{wrong}: {refused}");
    }
    let from = json!([{"identity": "x", "here": null, "ranges": 2}]);
    let copy = copy(json!("everything"), true, from);
    // Ranges that do not come, or are too many.
    for windows in [vec![], vec![0..1, 2..3, 4..5]] {
        let agent = Agent::new(&[]);
        agent.say(&request(&disk, (1, 1), copy.clone()));
        let line = agent.session.line();
        line.send(&Message::Windows(windows)).unwrap();
        let refused = agent.hear().unwrap_err();
        assert!(refused.contains("invalid"), "{refused}");
    }
    assert!(disk.exists());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn what_an_agent_keeps_lies_outside_of_what_it_serves_and_no_job_names_it() {
    let (directory, _disk) = disk();
    let root = directory.path().to_str().unwrap();
    let link = tempfile::tempdir().unwrap();
    let link = link.path().join("link");
    std::os::unix::fs::symlink(directory.path(), &link).unwrap();
    for state in [directory.path().join("state"), link.join("state")] {
        let run = Command::new(env!("CARGO_BIN_EXE_diskdelta"))
            .args(["serve", "--stdio", "--root", root, "--state-dir"])
            .arg(&state)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(2));
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(
            said.contains("lies in the directory that is served"),
            "{said}"
        );
    }
    // Where nothing is confined, or all is served, the directory is refused by what it is.
    let state = tempfile::tempdir().unwrap();
    let token = state.path().join("token.raw");
    fs::write(&token, [1; 8192]).unwrap();
    let own = ["--state-dir", state.path().to_str().unwrap()];
    let all = [own[0], own[1], "--root", "/"];
    for options in [&own[..], &all[..]] {
        let refused = Agent::ask(options, &request(&token, (1, 1), command("block"))).unwrap_err();
        assert!(refused.contains("the agent's own"), "{refused}");
    }
    assert!(token.exists());
    // Nor is a name one of files that are made next to others.
    for name in [
        ".disk.raw.diskdelta-log",
        ".DISK.RAW.DISKDELTA-REDO_LOG",
        ".disk.raw.diskdelta-new",
        ".manifest.new",
    ] {
        let odd = directory.path().join(name);
        fs::write(&odd, [1; 8192]).unwrap();
        let refused = Agent::ask(&[], &request(&odd, (1, 1), command("block"))).unwrap_err();
        assert!(
            refused.contains("reserved for files of diskdelta"),
            "{name}: {refused}"
        );
        assert!(odd.exists());
    }
}

#[test]
fn a_state_directory_that_others_may_write_to_is_refused() {
    let (_directory, disk) = disk();
    let state = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions(state.path(), mode).unwrap();
    let options = ["--state-dir", state.path().to_str().unwrap()];
    let refused = Agent::ask(&options, &request(&disk, (1, 1), command("block"))).unwrap_err();
    assert!(refused.contains("others may write"), "{refused}");
    assert!(disk.exists());
}

#[test]
fn several_disks_are_copied_one_after_the_other_over_one_line() {
    let (directory, one) = disk();
    let two = directory.path().join("two.raw");
    // Two blocks, of which one is looked at in the end.
    const LEN: usize = 128 << 10;
    fs::write(&two, [8; LEN]).unwrap();
    let both = |sequence, what| {
        let mut request = request(&one, (1, sequence), what);
        let mut second = request["disks"][0].clone();
        second["identity"] = json!("y");
        second["path"] = json!(two);
        request["disks"].as_array_mut().unwrap().push(second);
        request
    };
    // Of the first nobody knows where it is; the second is looked at all the same.
    let agent = Agent::new(&[]);
    agent.say(&both(1, command("check")));
    assert_eq!(agent.hear().unwrap()["wanted"]["disk"], 0);
    let lost = Error::new(ErrorKind::NotFound, "it is nowhere");
    agent.tell(&Message::Fail(Box::new(Fault::of(&lost, false))));
    assert_eq!(agent.hear().unwrap()["wanted"]["disk"], 1);
    agent.answer(vec![9; LEN]);
    let found = agent.hear().unwrap();
    assert_eq!(found["done"]["answer"], json!({"failed": "unfit"}));
    let detail = &found["done"]["detail"];
    assert_eq!(detail, "source readable: x: it is nowhere", "{found:?}");
    agent.end();

    assert_eq!(
        Agent::ask(&[], &both(2, command("block"))).unwrap(),
        is_done()
    );
    let from =
        |identity: &str, ranges| json!({"identity": identity, "here": null, "ranges": ranges});
    let sources = json!([from("x", Value::Null), from("y", Value::Null)]);
    let first = copy(json!("everything"), true, sources);
    let agent = Agent::new(&[]);
    agent.say(&both(3, first));
    let held = |name: &str| {
        let blocked = format!("{name}.failback-shop.partial.raw");
        fs::read(directory.path().join(blocked)).unwrap()
    };
    for (number, byte, len) in [(0, 1, 8192), (1, 2, LEN)] {
        assert_eq!(agent.hear().unwrap()["wanted"]["disk"], number);
        agent.answer(vec![byte; len]);
    }
    assert_eq!(
        agent.hear().unwrap()["done"]["answer"]["copied"]["changed_bytes"],
        8192 + LEN
    );
    agent.end();
    assert!(held("disk.raw") == [1; 8192] && held("two.raw") == [2; LEN]);

    // Of what changed since, ranges say where to look.
    let since = json!({"changed_since": {"epoch": 1, "sequence": 1}});
    let since = copy(
        since,
        false,
        json!([from("y", json!(2)), from("x", json!(0))]),
    );
    let agent = Agent::new(&[]);
    agent.say(&both(4, since));
    agent.tell(&Message::Windows(vec![0..1024, 2048..4096]));
    for (number, byte, len) in [(0, 1, 8192), (1, 3, LEN)] {
        assert_eq!(agent.hear().unwrap()["wanted"]["disk"], number);
        agent.answer(vec![byte; len]);
    }
    assert_eq!(
        agent.hear().unwrap()["done"]["answer"]["copied"]["changed_bytes"],
        LEN / 2
    );
    agent.end();
    assert!(held("disk.raw") == [1; 8192]);
    let two = held("two.raw");
    assert!(two[..LEN / 2] == [3; LEN / 2] && two[LEN / 2..] == [2; LEN / 2]);
}

#[test]
fn a_copy_without_a_source_leaves_the_disk_unbootable_and_as_it_was() {
    let (directory, disk) = disk();
    let blocked = directory.path().join("disk.raw.failback-shop.partial.raw");
    Agent::ask(&[], &request(&disk, (1, 1), command("block"))).unwrap();
    let from = json!([{"identity": "x", "here": null, "ranges": null}]);
    let copy = copy(json!("everything"), true, from);
    let mut agent = Agent::new(&[]);
    agent.say(&request(&disk, (1, 2), copy));
    let wanted = agent.hear().unwrap();
    assert_eq!(wanted["wanted"]["disk"], 0);
    // Whoever asked has gone: the agent ends, and nothing is left half done.
    drop(agent.session);
    agent.child.wait().unwrap();
    assert!(fs::read(&blocked).unwrap() == [7; 8192] && !disk.exists());
    let directory = directory.path().join("no-such-directory/disk.raw");
    let refused = Agent::ask(&[], &request(&directory, (1, 1), command("block"))).unwrap_err();
    assert!(refused.contains("no-such-directory"), "{refused}");
}

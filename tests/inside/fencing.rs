//! Fencing tokens that an agent keeps, from inside.

use super::*;
use std::os::unix::fs::symlink;
use std::path::Path;

fn token(epoch: u64, sequence: u64) -> Token {
    Token { epoch, sequence }
}

fn never() -> bool {
    false
}

fn fencing_token(directory: &Path, id: char) -> FencingToken {
    let directory = HostDirectory::open(directory).unwrap();
    FencingToken::new(directory, &id.to_string().repeat(32))
}

#[test]
fn an_older_token_is_refused_by_whoever_comes_later() {
    let directory = tempfile::tempdir().unwrap();
    let fencing_token = || fencing_token(directory.path(), 'a');
    drop(fencing_token().admit(token(2, 5), &never).unwrap());
    drop(fencing_token().admit(token(2, 5), &never).unwrap());
    for old in [token(2, 4), token(1, 9)] {
        let error = fencing_token().admit(old, &never).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InUse);
    }
    fencing_token().pass().unwrap();
}

#[test]
fn who_is_inside_sees_a_newer_one_come_and_that_one_waits() {
    let directory = tempfile::tempdir().unwrap();
    let fencing_token = fencing_token(directory.path(), 'a');
    let first = fencing_token.admit(token(1, 1), &never).unwrap();
    first.check().unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| {
            fencing_token
                .admit(token(2, 1), &never)
                .map(|it| it.check())
        });
        while first.check().is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!second.is_finished(), "let in beside another");
        drop(first);
        second.join().unwrap().unwrap().unwrap();
    });
}

#[test]
fn who_waits_stops_waiting_once_nobody_wants_it() {
    let directory = tempfile::tempdir().unwrap();
    let fencing_token = fencing_token(directory.path(), 'a');
    let _first = fencing_token.admit(token(1, 1), &never).unwrap();
    let error = fencing_token.admit(token(1, 2), &|| true).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn a_new_job_of_the_name_begins_anew_and_the_old_one_never_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let old = fencing_token(directory.path(), 'a');
    drop(old.admit(token(7, 7), &never).unwrap());
    fs::write(old.disk_states().join("db1.target-0.manifest"), "x").unwrap();
    let new = fencing_token(directory.path(), 'b');
    drop(new.admit(token(1, 1), &never).unwrap());
    assert!(!old.disk_states().exists());
    let error = old.admit(token(8, 1), &never).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(old.pass().is_err());
}

#[test]
fn a_token_that_cannot_be_read_lets_nobody_in() {
    let directory = tempfile::tempdir().unwrap();
    let fencing_token = fencing_token(directory.path(), 'a');
    drop(fencing_token.admit(token(1, 1), &never).unwrap());
    fs::write(directory.path().join("token"), "{").unwrap();
    let error = fencing_token.admit(token(1, 2), &never).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Malformed);
}

#[test]
fn a_token_that_names_other_directories_removes_nothing_there() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    let inside = directory.path().join("state");
    fs::create_dir(&inside).unwrap();
    let id = "a".repeat(32);
    let odd: [&str; 5] = [
        outside.to_str().unwrap(),
        "../outside",
        "",
        "..",
        "A0000000000000000000000000000000",
    ];
    for past in odd {
        let text = serde_json::json!({
            "instance": id, "newest": {"epoch": 1, "sequence": 1}, "past": [past],
        });
        fs::write(inside.join("token"), text.to_string()).unwrap();
        let fencing_token = fencing_token(&inside, 'a');
        let error = fencing_token.admit(token(1, 2), &never).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(outside.join("precious").exists(), "{past}");
    }
    // A link under a name that would do is not followed.
    let past = "b".repeat(32);
    symlink(&outside, inside.join(&past)).unwrap();
    let text = serde_json::json!({
        "instance": id, "newest": {"epoch": 1, "sequence": 1}, "past": [past],
    });
    fs::write(inside.join("token"), text.to_string()).unwrap();
    drop(
        fencing_token(&inside, 'a')
            .admit(token(1, 2), &never)
            .unwrap(),
    );
    assert!(outside.join("precious").exists());
}

#[test]
fn a_token_that_somebody_else_may_have_written_is_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let fencing_token = fencing_token(directory.path(), 'a');
    drop(fencing_token.admit(token(5, 1), &never).unwrap());
    let path = directory.path().join("token");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(&path, mode).unwrap();
    let error = fencing_token.admit(token(5, 2), &never).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    fs::remove_file(&path).unwrap();
    symlink("/etc/passwd", &path).unwrap();
    let error = fencing_token.admit(token(5, 2), &never).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
}

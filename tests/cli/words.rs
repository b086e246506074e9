//! What names and texts mean, and what errors tell.

use std::fs;
use std::process::{Command, Stdio};

use crate::fixture::{COMMAND, Fixture, PAGE, write_at};
use crate::remote::shell;

#[test]
fn a_text_that_is_no_path_makes_no_file_in_any_verb() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fixture.disk("old.raw", 600, 2);
    fixture.done("manifest new.raw -o new.manifest");
    fixture.done("delta create old.raw new.raw -o way.delta");
    let before = fixture.names();
    for (text, part) in [
        ("host:web.img", "did you mean ssh://host/web.img"),
        ("-", "./-"),
        ("env:DISK", "./env:DISK"),
        ("@list", "./@list"),
        ("ftp://host/a", "./ftp://host/a"),
        ("file:///a", "write the path alone"),
        ("C:\\a.vhd", "Windows"),
    ] {
        for verb in [
            "sync new.raw TEXT",
            "sync TEXT new.raw",
            "sync new.raw old.raw --mode delta --undo=TEXT",
            "sync new.raw old.raw --target-manifest=TEXT",
            "sync new.raw old.raw --log-dir=TEXT",
            "info TEXT",
            "diff TEXT new.raw",
            "diff new.raw TEXT",
            "verify TEXT new.manifest",
            "verify new.raw TEXT",
            "manifest TEXT -o m",
            "manifest new.raw --output=TEXT",
            "delta create TEXT new.raw -o d",
            "delta create old.raw TEXT -o d",
            "delta create old.raw new.raw --output=TEXT",
            "delta apply TEXT old.raw",
            "delta apply way.delta TEXT",
            "delta show TEXT",
            "undo TEXT old.raw",
            "undo way.delta TEXT",
            "recover TEXT",
            "recover old.raw --target-manifest=TEXT",
            "recover old.raw --trust-log=TEXT",
            "recover --list TEXT",
            "sync new.raw old.raw --trust-log=TEXT",
            "sync new.raw old.raw --parent=TEXT",
            "sync new.raw old.raw --manifest-cache=TEXT",
            "serve --stdio --root=TEXT",
            "serve --stdio --log-dir=TEXT",
            "serve --stdio --state-dir=TEXT",
            "serve --stdio --manifest-cache=TEXT",
            "delta export way.delta --parent=TEXT --to=t.vhd",
            "delta merge way.delta TEXT -o d",
            "failback check TEXT",
            "failback start TEXT",
            "failback status --state-dir=TEXT",
            "man --dir=TEXT",
        ] {
            let words = verb.replace("TEXT", text);
            let run = fixture.run(&words);
            run.fails(2, part);
            assert_eq!(fixture.names(), before, "{words}");
            let (status, object) = fixture.json(&words);
            assert_eq!(status, 2, "{words}");
            let message = object["error"]["message"].as_str().unwrap();
            assert!(message.contains(part), "{words}: {message}");
        }
    }
    fixture.run("info ssh://host/a").fails(2, "of this host");
    fixture
        .run("sync new.raw new/")
        .fails(2, "names a directory");
    // The way to write it is taken, and so is a file that is there.
    fixture.done("sync new.raw ./host:web.img");
    fixture.done("sync old.raw host:web.img");
    assert!(fixture.bytes("host:web.img") == fixture.bytes("old.raw"));
    fixture.done("sync new.raw ./-");
    fixture.done("diff ./- new.raw");
}

#[test]
fn pipes_and_files_without_a_name_are_called_what_they_are() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    let piped = |words: &[&str]| {
        let output = Command::new(COMMAND)
            .current_dir(fixture.path(""))
            .args(words)
            .stdin(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for words in [
        ["sync", "/dev/stdin", "out.raw"],
        ["sync", "new.raw", "/dev/stdin"],
    ] {
        let text = piped(&words);
        assert!(text.contains("/dev/stdin: this is a pipe"), "{text}");
    }
    let removed = fixture.disk("removed.raw", 600, 3);
    let file = fs::File::open(&removed).unwrap();
    fs::remove_file(&removed).unwrap();
    let output = Command::new(COMMAND)
        .current_dir(fixture.path(""))
        .args(["sync", "new.raw", "/dev/stdin"])
        .stdin(file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("no name any more"), "{text}");
    assert_eq!(fixture.names(), ["new.raw"]);
    let socket = std::os::unix::net::UnixListener::bind(fixture.path("socket")).unwrap();
    fixture
        .run("sync socket out.raw")
        .fails(2, "this is a socket");
    fixture
        .run("sync new.raw socket")
        .fails(2, "this is a socket");
    drop(socket);
}

#[test]
fn wrong_words_are_told_as_json_too() {
    let fixture = Fixture::new();
    for words in [
        "sync",
        "sync a b --bad",
        "sync a b --mode fast",
        "sync a b --limit-rate 4X",
        "recover",
        "frobnicate",
    ] {
        let (status, object) = fixture.json(words);
        assert_eq!((status, &object["status"]), (2, &2.into()), "{words}");
        assert_eq!(object["error"]["kind"], "invalid_input", "{words}");
        assert!(!object["error"]["message"].as_str().unwrap().is_empty());
    }
    let run = fixture.run("sync a b --bad");
    assert!(run.stdout.is_empty() && run.status == 2);
    assert_eq!(fixture.run("--help --json").status, 0);
}

#[test]
fn an_end_that_is_not_there_is_told_by_what_the_shell_says() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    for (script, parts) in [
        (
            "echo no such host >&2; exit 255",
            ["could not reach", "no such host"],
        ),
        (
            "echo sh: not found >&2; exit 127",
            ["--remote-program", "not found"],
        ),
        ("echo odd >&2; exit 7", ["status 7", "odd"]),
    ] {
        shell(&fixture, "");
        fs::write(fixture.path("rsh"), format!("#!/bin/sh\n{script}\n")).unwrap();
        for words in [
            "sync new.raw ssh://host/x --rsh ./rsh",
            "sync ssh://host/x old.raw --rsh ./rsh",
        ] {
            let (status, object) = fixture.json(words);
            assert_eq!(status, 2, "{words}");
            let message = object["error"]["message"].as_str().unwrap();
            for part in parts {
                assert!(message.contains(part), "{words}: {message}");
            }
        }
    }
}

#[test]
fn a_report_names_the_mode_that_was_really_used() {
    let fixture = Fixture::new();
    for way in ["--mode delta", "--safety in-place", ""] {
        fs::write(fixture.path("new.raw"), [1; 513]).unwrap();
        fs::write(fixture.path("old.raw"), [2; 513]).unwrap();
        for dry in ["--dry-run", ""] {
            let (status, report) = fixture.json(&format!("sync new.raw old.raw {way} {dry}"));
            assert_eq!(status, 0);
            assert_eq!(report["mode"], "full", "{way} {dry}");
            assert_eq!(report["safety"], "atomic", "{way} {dry}");
            let reason = report["reason"].as_str().unwrap();
            assert!(reason.contains("too short"), "{way} {dry}: {reason}");
        }
    }
}

#[test]
fn facts_of_a_vhd_are_told_with_units_and_dates() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fixture.done("sync new.raw a.vhd");
    let text = fixture.done("info a.vhd").stdout;
    assert!(
        text.contains(" bytes)") && !text.contains("after 1970"),
        "{text}"
    );
    let facts = fixture.json("info a.vhd").1["facts"].clone();
    let created = facts["created"].as_str().unwrap();
    assert!(
        created.starts_with("20") && created.ends_with('Z'),
        "{created}"
    );
    // A creator that is filled up with NULs.
    fixture.done("sync new.raw b.vhd --create vhd-fixed");
    let len = fixture.bytes("b.vhd").len() as u64;
    write_at(&fixture.path("b.vhd"), len - 512 + 28, b"tap\0");
    let mut footer = fixture.bytes("b.vhd")[len as usize - 512..].to_vec();
    footer[64..68].fill(0);
    let sum = footer.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    write_at(
        &fixture.path("b.vhd"),
        len - 512 + 64,
        &(!sum).to_be_bytes(),
    );
    let text = fixture.done("info b.vhd").stdout;
    assert!(text.contains("tap ") && !text.contains("x00"), "{text}");
}

#[test]
fn counts_of_one_are_told_as_one() {
    let fixture = Fixture::new();
    let old = fixture.disk("old.raw", 600, 1);
    fixture.done("manifest old.raw -o old.manifest");
    write_at(&old, 9 * PAGE as u64, b"changed");
    assert!(
        fixture
            .run("verify old.raw old.manifest")
            .stdout
            .contains("in 1 extent,")
    );
}

#[test]
fn a_directory_that_may_not_be_written_to_is_told_with_the_way_on() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fs::create_dir(fixture.path("d")).unwrap();
    fixture.disk("d/t.img", 600, 2);
    // Where another user can run it, too.
    fs::copy(COMMAND, fixture.path("command")).unwrap();
    let run = |more: &[&str]| {
        let output = Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--no-new-privs",
            ])
            .args(["./command", "sync", "new.raw", "d/t.img"])
            .args(more)
            .current_dir(fixture.path(""))
            .output();
        output.map(|it| String::from_utf8(it.stderr).unwrap())
    };
    use std::os::unix::fs::{PermissionsExt, chown};
    fs::set_permissions(fixture.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    if chown(fixture.path("d/t.img"), Some(65534), Some(65534)).is_err() {
        return crate::fixture::left_out("not root");
    }
    fs::create_dir(fixture.path("locked")).unwrap();
    fs::set_permissions(fixture.path("locked"), fs::Permissions::from_mode(0o700)).unwrap();
    for more in [
        &["--mode", "full"][..],
        &["--log-dir", "locked", "--mode", "delta"],
        &["--mode", "delta"],
        &["--safety", "in-place"],
    ] {
        match run(more) {
            Ok(text) => assert!(text.contains("--log-dir"), "{more:?}: {text}"),
            Err(_) => return crate::fixture::left_out("setpriv is not here"),
        }
    }
}

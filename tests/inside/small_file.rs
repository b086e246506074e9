//! Small files that are trusted only if this program made them, from inside.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::storage::HostDirectory;

#[test]
fn a_planted_file_is_neither_written_through_nor_believed() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name);
    fs::write(at("precious"), "precious").unwrap();
    let directory = HostDirectory::open(temporary.path()).unwrap();
    let fifo = |name: &str| {
        let made = std::process::Command::new("mkfifo").arg(at(name)).status();
        assert!(made.unwrap().success());
    };
    for plant in [
        &|name: &str| symlink(at("precious"), at(name)).unwrap(),
        &|name: &str| symlink(at("not there"), at(name)).unwrap(),
        &|name: &str| fs::hard_link(at("precious"), at(name)).unwrap(),
        &fifo,
    ] as [&dyn Fn(&str); 4]
    {
        plant("token");
        let error = get(&directory, "token", 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        plant("token.new");
        put(&directory, "token", b"1.2").unwrap();
        assert_eq!(get(&directory, "token", 100).unwrap().unwrap(), b"1.2");
        plant("token.7");
        put_for_now(&directory, "token", "7", b"1.3").unwrap();
        assert_eq!(get(&directory, "token", 100).unwrap().unwrap(), b"1.3");
        assert_eq!(fs::read(at("precious")).unwrap(), b"precious");
        assert!(!at("not there").exists());
        clear(&directory, "token").unwrap();
        clear(&directory, "token").unwrap();
        assert!(get(&directory, "token", 100).unwrap().is_none());
    }
    put(&directory, "token", b"more than is wanted").unwrap();
    let error = get(&directory, "token", 3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
}

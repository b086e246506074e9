//! Requests that are left in a directory.

use std::sync::Arc;
use std::time::Duration;

use diskdelta::failback::directory_mailbox::{DirectoryMailbox, send};
use diskdelta::failback::machine::Request;
use diskdelta::failback::mailbox::Mailbox;
use diskdelta::storage::{Directory, MemoryDirectory};
use diskdelta::{CancelToken, Error, ErrorKind, Result};

fn ask(
    directory: &MemoryDirectory,
    request: Request,
    wait: Duration,
    is_running: bool,
) -> Result<bool> {
    send(directory, request, "me", wait, &|| Ok(is_running))
}

fn wait() -> Duration {
    Duration::from_secs(60)
}

#[test]
fn a_request_is_taken_once_and_its_fate_is_told() {
    let directory = MemoryDirectory::new();
    let mut mailbox = DirectoryMailbox::new(Arc::new(directory.clone()), CancelToken::new());
    assert!(mailbox.poll().unwrap().is_none());
    for fate in [Ok(()), Err(Error::new(ErrorKind::InvalidInput, "not now"))] {
        let expected = fate.as_ref().map_err(ToString::to_string).copied();
        let told = std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&directory, Request::Commit, wait(), true));
            let taken = loop {
                if let Some(taken) = mailbox.poll().unwrap() {
                    break taken;
                }
            };
            assert_eq!((taken.request, &taken.by[..]), (Request::Commit, "me"));
            assert!(mailbox.poll().unwrap().is_none());
            (taken.reply)(fate);
            asked.join().unwrap()
        });
        let expected = expected.map(|()| true);
        assert_eq!(told.map_err(|e| e.to_string()), expected);
        assert!(directory.names().unwrap().is_empty());
    }
}

#[test]
fn a_request_that_nobody_takes_is_taken_back() {
    let directory = MemoryDirectory::new();
    let error = ask(&directory, Request::Start, Duration::ZERO, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(directory.names().unwrap().is_empty());
}

#[test]
fn a_request_to_an_executor_that_has_ended_meanwhile_is_taken_back_at_once() {
    let directory = MemoryDirectory::new();
    assert!(!ask(&directory, Request::Start, wait(), false).unwrap());
    assert!(directory.names().unwrap().is_empty());
}

#[test]
fn nonsense_in_the_directory_is_taken_away_and_ends_nothing() {
    let directory = MemoryDirectory::new();
    directory.insert("a.request", b"{".to_vec());
    directory.insert("b.request", vec![b' '; 100_000]);
    directory.insert("other", Vec::new());
    let mut mailbox = DirectoryMailbox::new(Arc::new(directory.clone()), CancelToken::new());
    assert!(mailbox.poll().unwrap().is_none());
    assert!(mailbox.poll().unwrap().is_none());
    let left = directory.names().unwrap();
    assert!(left.contains(&"other".into()) && !left.contains(&"a.request".into()));
}

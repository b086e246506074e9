//! Requests from another process: small files in a directory that the executor looks into.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::executor::{Asked, Bell, Mailbox};
use super::machine::Request;
use super::watch::Watch;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::CancelToken;
use crate::random::random;
use crate::storage::{Access, Directory};

/// The executor's end: takes requests out of a directory.
///
/// A request is taken away before it is carried out, so that it is never carried out twice. Where
/// the executor dies in between, nobody answers, and the job's state says what became of it.
pub struct DirectoryInbox {
    directory: Arc<dyn Directory>,
    leave: CancelToken,
    watched: Option<(Bell, Watch)>,
}

opaque!(DirectoryInbox);

impl DirectoryInbox {
    /// Looks into `directory`; `leave` tells the executor to leave its job.
    pub fn new(directory: Arc<dyn Directory>, leave: CancelToken) -> Self {
        DirectoryInbox {
            directory,
            leave,
            watched: None,
        }
    }

    /// Rings `bell` when a request comes, where the directory can be watched.
    #[must_use]
    pub fn with_bell(mut self, bell: &Bell) -> Self {
        let watch = Watch::of(self.directory.path(), bell);
        self.watched = watch.map(|watch| (bell.clone(), watch));
        self
    }
}

impl Mailbox for DirectoryInbox {
    fn poll(&mut self) -> Result<Option<Asked>> {
        let mut names = self.directory.names()?;
        names.sort();
        let requests = names
            .iter()
            .filter_map(|name| Some((name, id_of(name, REQUEST)?)));
        for (name, id) in requests {
            let request: Result<RequestFile> = take(&*self.directory, name);
            let directory = self.directory.clone();
            let reply = file_name(id, REPLY);
            let reply = Box::new(move |fate: Result<()>| {
                // Whoever asked may be gone; what was asked for stands in the journal.
                let _ = put(&*directory, &reply, &Reply::from(fate));
            });
            match request {
                Ok(RequestFile { request, by }) => return Ok(Some(Asked { request, by, reply })),
                Err(error) => reply(Err(error)),
            }
        }
        Ok(None)
    }

    fn bell(&self) -> Option<Bell> {
        self.watched.as_ref().map(|(bell, _)| bell.clone())
    }

    fn leave(&self) -> bool {
        self.leave.is_cancelled()
    }
}

/// The other end: asks the executor that looks into `directory`, and waits for its answer. Where
/// `is_running` says that there is no executor any more, the request is taken back, and this is
/// `false`.
///
/// # Errors
/// `InvalidInput` where it is refused, saying why; `InUse` where nobody answers within `wait`,
/// and the request is taken back; `Io`.
pub fn send(
    directory: &dyn Directory,
    request: Request,
    by: &str,
    wait: Duration,
    is_running: &dyn Fn() -> Result<bool>,
) -> Result<bool> {
    let id = format!("{:016x}", u64::from_le_bytes(random()?));
    let (asked, reply) = (file_name(&id, REQUEST), file_name(&id, REPLY));
    let by = by.to_owned();
    let answered = Bell::new();
    let watch = Watch::of(directory.path(), &answered);
    let nap = if watch.is_some() { LONG_NAP } else { NAP };
    put(directory, &asked, &RequestFile { request, by })?;
    let begin = Instant::now();
    let gone = loop {
        // Looked at first: an executor that ends may have answered before.
        let gone = !is_running()?;
        if directory.names()?.contains(&reply) {
            return Result::from(take::<Reply>(directory, &reply)?).map(|()| true);
        }
        if gone || begin.elapsed() >= wait {
            break gone;
        }
        answered.wait(nap.min(wait.saturating_sub(begin.elapsed())));
    };
    let taken = directory.remove(&asked).is_err();
    if gone && !taken {
        return Ok(false);
    }
    let text = match taken {
        true => "the executor took the request and did not answer",
        false => "no executor took the request",
    };
    Err(Error::new(ErrorKind::InUse, text).advise("look at the job's state"))
}

#[derive(Serialize, Deserialize)]
struct RequestFile {
    request: Request,
    by: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Accepted,
    Refused(String),
    Failed(String),
}

impl From<Result<()>> for Reply {
    fn from(fate: Result<()>) -> Self {
        match fate {
            Ok(()) => Reply::Accepted,
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                Reply::Refused(error.to_string())
            }
            Err(error) => Reply::Failed(error.to_string()),
        }
    }
}

impl From<Reply> for Result<()> {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Accepted => Ok(()),
            Reply::Refused(why) => Err(Error::new(ErrorKind::InvalidInput, why)),
            Reply::Failed(why) => Err(Error::new(ErrorKind::Io, why)),
        }
    }
}

/// How often an answer is looked for.
const NAP: Duration = Duration::from_millis(20);
/// And where the directory is watched, so that an executor that dies is noticed.
const LONG_NAP: Duration = Duration::from_millis(200);
const REQUEST: &str = ".request";
const REPLY: &str = ".reply";
/// Longest file that is trusted.
const LEN_MAX: u64 = 64 << 10;

fn file_name(id: &str, kind: &str) -> OsString {
    OsString::from(format!("{id}{kind}"))
}

fn id_of<'a>(name: &'a OsStr, kind: &str) -> Option<&'a str> {
    name.to_str()?.strip_suffix(kind)
}

/// Puts a file there, whole or not at all.
fn put(directory: &dyn Directory, name: &OsStr, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| {
        Error::new(ErrorKind::InvalidInput, "cannot say a request as JSON").caused_by(e)
    })?;
    let mut unfinished = name.to_owned();
    unfinished.push(".new");
    directory.create_new(&unfinished)?.write_all_at(&bytes, 0)?;
    directory.rename(&unfinished, name)
}

fn take<T: for<'a> Deserialize<'a>>(directory: &dyn Directory, name: &OsStr) -> Result<T> {
    let file = directory.open_own(name, Access::Read);
    // What is no request is taken away, too.
    let file = match file {
        Err(error) => {
            let _ = directory.remove(name);
            return Err(error);
        }
        file => file?,
    };
    let len = file.len()?;
    directory.remove(name)?;
    if len > LEN_MAX {
        return Err(Error::new(ErrorKind::LimitExceeded, "a request is too long").at_path(name));
    }
    // At most 64 KiB.
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::malformed("a request makes no sense")
            .at_path(name)
            .caused_by(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryDirectory;

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
        let mut mailbox = DirectoryInbox::new(Arc::new(directory.clone()), CancelToken::new());
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
        let mut mailbox = DirectoryInbox::new(Arc::new(directory.clone()), CancelToken::new());
        assert!(mailbox.poll().unwrap().is_none());
        assert!(mailbox.poll().unwrap().is_none());
        let left = directory.names().unwrap();
        assert!(left.contains(&"other".into()) && !left.contains(&"a.request".into()));
    }
}

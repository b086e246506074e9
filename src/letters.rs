//! Requests from another process: small files in a directory that is looked into.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bell::Bell;
use crate::duration::now_ms;
use crate::error::{Error, ErrorKind, Result};
use crate::random::random;
use crate::storage::{Directory, Watch, small_file};

/// A request, by whom, and where its answer goes.
pub(crate) struct Letter<T> {
    pub request: T,
    pub by: String,
    pub reply: Box<dyn FnOnce(Result<()>) + Send>,
}

/// Takes the next request out of a directory, if there is one.
///
/// A request is taken away before it is carried out, so that it is never carried out twice. Where
/// the process dies in between, no answer comes.
///
/// # Errors
/// `Io`. What is no request is taken away, and answered.
pub(crate) fn next<T: DeserializeOwned>(
    directory: &Arc<dyn Directory>,
) -> Result<Option<Letter<T>>> {
    let names = directory.names()?;
    let mut names: Vec<_> = names.iter().filter_map(|name| name.to_str()).collect();
    names.sort_unstable();
    let ids = names.iter().filter_map(|name| name.strip_suffix(REQUEST));
    for id in ids {
        let request: Result<RequestFile<T>> = take(&**directory, &format!("{id}{REQUEST}"));
        let directory = directory.clone();
        let reply = format!("{id}{REPLY}");
        let is_queued = request.as_ref().is_ok_and(|file| file.queued);
        let reply = Box::new(move |fate: Result<()>| {
            // The process that asked may be gone.
            if !is_queued {
                let _ = put(&*directory, &reply, &Reply::from(fate));
            }
        });
        match request {
            Ok(RequestFile { request, by, .. }) => return Ok(Some(Letter { request, by, reply })),
            Err(error) => reply(Err(error)),
        }
    }
    Ok(None)
}

/// The other end: asks the process that looks into `directory`, and waits for its answer. Where
/// `is_running` says that there is no such process any more, the request is taken back, and this is
/// `false`.
///
/// # Errors
/// `InvalidInput` where it is refused, saying why; `InUse` without an answer within `wait`,
/// and the request is taken back; `Io`.
pub fn send<T: Serialize>(
    directory: &dyn Directory,
    request: T,
    by: &str,
    wait: Duration,
    is_running: &dyn Fn() -> Result<bool>,
) -> Result<bool> {
    let id = format!("{:016x}", u64::from_le_bytes(random()?));
    let (asked, reply) = (format!("{id}{REQUEST}"), format!("{id}{REPLY}"));
    let answered = Bell::new();
    let watch = Watch::of(directory.path(), &answered);
    let nap = if watch.is_some() { LONG_NAP } else { NAP };
    put(directory, &asked, &RequestFile::new(request, by, false))?;
    let begin = Instant::now();
    let gone = loop {
        // Looked at first: an executor that ends may have answered before.
        let gone = !is_running()?;
        if directory.names()?.iter().any(|name| *name == *reply) {
            return Result::from(take::<Reply>(directory, &reply)?).map(|()| true);
        }
        if gone || begin.elapsed() >= wait {
            break gone;
        }
        answered.wait(nap.min(wait.saturating_sub(begin.elapsed())));
    };
    let taken = directory.remove(OsStr::new(&asked)).is_err();
    if gone && !taken {
        return Ok(false);
    }
    let text = match taken {
        true => "the executor took the request and did not answer",
        false => "no executor took the request",
    };
    Err(Error::new(ErrorKind::InUse, text).advise("look at the job's state"))
}

/// Leaves a request for the next such process; its answer is not awaited.
///
/// # Errors
/// `NoSpace`, `Io`.
pub fn queue<T: Serialize>(directory: &dyn Directory, request: T, by: &str) -> Result<()> {
    let id = format!("{:016x}", u64::from_le_bytes(random()?));
    let file = RequestFile::new(request, by, true);
    put(directory, &format!("{id}{REQUEST}"), &file)?;
    directory.sync()
}

/// The requests that were [left](queue) and not taken yet: by whom, and when.
///
/// # Errors
/// `Io`.
pub(crate) fn queued<T: DeserializeOwned>(
    directory: &dyn Directory,
) -> Result<Vec<(T, String, u64)>> {
    let names = directory.names()?.into_iter();
    let files = names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(REQUEST))
        .filter_map(|name| small_file::get(directory, &name, LEN_MAX).ok().flatten())
        .filter_map(|bytes| serde_json::from_slice::<RequestFile<T>>(&bytes).ok());
    Ok(files
        .filter(|file| file.queued)
        .map(|file| (file.request, file.by, file.at_ms))
        .collect())
}

#[derive(Serialize, Deserialize)]
struct RequestFile<T> {
    request: T,
    by: String,
    /// The answer is not awaited.
    #[serde(default)]
    queued: bool,
    /// When it was made, in milliseconds since 1970.
    #[serde(default)]
    at_ms: u64,
}

impl<T> RequestFile<T> {
    fn new(request: T, by: &str, queued: bool) -> Self {
        let by = by.to_owned();
        RequestFile {
            request,
            by,
            queued,
            at_ms: now_ms(),
        }
    }
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

fn put(directory: &dyn Directory, name: &str, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| {
        Error::new(ErrorKind::InvalidInput, "cannot encode a request as JSON").caused_by(e)
    })?;
    small_file::put_for_now(directory, name, "new", &bytes)
}

fn take<T: DeserializeOwned>(directory: &dyn Directory, name: &str) -> Result<T> {
    let bytes = small_file::get(directory, name, LEN_MAX);
    // What is no request is taken away, too.
    let removed = directory.remove(OsStr::new(name));
    let bytes = bytes?.unwrap_or_default();
    removed?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::malformed("a request is invalid")
            .at_path(name)
            .caused_by(e)
    })
}

//! Requests from another process, for an executor.

use std::sync::Arc;

use super::history::AcceptedRequest;
use super::machine::Request;
use super::mailbox::{Asked, Mailbox};
use crate::bell::Bell;
use crate::error::Result;
use crate::letters;
pub use crate::letters::{queue, send};
use crate::progress::CancelToken;
use crate::storage::{Directory, Watch};

/// The executor's end: takes requests out of a directory. What was asked is in the job's journal,
/// also where no answer comes.
pub struct DirectoryMailbox {
    directory: Arc<dyn Directory>,
    leave: CancelToken,
    watched: Option<(Bell, Watch)>,
}

opaque!(DirectoryMailbox);

impl DirectoryMailbox {
    /// Looks into `directory`; `leave` tells the executor to leave its job.
    pub fn new(directory: Arc<dyn Directory>, leave: CancelToken) -> Self {
        DirectoryMailbox {
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

impl Mailbox for DirectoryMailbox {
    fn poll(&mut self) -> Result<Option<Asked>> {
        let next = letters::next(&self.directory)?;
        Ok(next.map(|it| Asked {
            request: it.request,
            by: it.by,
            reply: it.reply,
        }))
    }

    fn bell(&self) -> Option<Bell> {
        self.watched.as_ref().map(|(bell, _)| bell.clone())
    }

    fn leave(&self) -> bool {
        self.leave.is_cancelled()
    }
}

/// The requests that were [left](queue) and not taken yet.
///
/// # Errors
/// `Io`.
pub fn queued(directory: &dyn Directory) -> Result<Vec<AcceptedRequest>> {
    let left = letters::queued::<Request>(directory)?.into_iter();
    Ok(left
        .map(|(request, by, at_ms)| AcceptedRequest::new(request, &by, at_ms))
        .collect())
}

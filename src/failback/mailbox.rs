//! Where an executor is asked for things.

use super::machine::{Event, Request, State};
use crate::bell::Bell;
use crate::error::Result;

/// Where people's requests come from.
pub trait Mailbox {
    /// The next one, if there is one now.
    ///
    /// # Errors
    /// Whatever ends the executor.
    fn poll(&mut self) -> Result<Option<Asked>>;

    /// What is rung whenever there may be something to poll, or the executor is to leave. Without
    /// one the executor looks every 20 ms.
    fn bell(&self) -> Option<Bell> {
        None
    }

    /// Whether the executor is to leave the job for now; it can be taken over later.
    fn leave(&self) -> bool;

    /// What the job's group has come to; told once.
    fn group(&mut self) -> Option<Event> {
        None
    }

    /// Told where the job stands, again and again, and before each reply.
    fn note(&mut self, _state: &State) {}
}

/// A request, and where its answer goes.
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// By whom.
    pub by: String,
    /// Told once: accepted, or refused and why.
    pub reply: Box<dyn FnOnce(Result<()>) + Send>,
}

opaque!(Asked);

/// A mailbox that stays empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMailbox;

impl Mailbox for NoMailbox {
    fn poll(&mut self) -> Result<Option<Asked>> {
        Ok(None)
    }

    fn leave(&self) -> bool {
        false
    }
}

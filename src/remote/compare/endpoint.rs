//! What the two ends of a descent have in common.

use crate::error::Result;
use crate::remote::wire::message::Message;

/// One end of a descent as a value: messages and results of work go in, messages and work come out.
///
/// Its driver carries messages to the other end in their order, does the work, on any
/// thread and in any order, and asks for the next step until there is none.
pub trait Endpoint {
    /// Something to read, hash or write.
    type Task: Send;
    /// What came of it.
    type Completion: Send;

    /// Whether what it sends answers what the other end asks. Such an end is given no message while
    /// it has no room on the line; the other end's messages are bounded by how much it is asked.
    const ONLY_ANSWERS: bool;

    /// The next thing to do, if there is one now.
    ///
    /// # Errors
    /// Those of the images' extents.
    fn next_output(&mut self, capacity: Capacity) -> Result<Option<Output<Self::Task>>>;

    /// Takes a message of the other end.
    ///
    /// # Errors
    /// `Malformed` for one that the other end may not send now.
    fn receive(&mut self, message: Message) -> Result<()>;

    /// Takes what came of a task.
    ///
    /// # Errors
    /// Those of [`next_output`](Endpoint::next_output).
    fn complete(&mut self, done: Self::Completion) -> Result<()>;

    /// Whether nothing is left to do or to wait for.
    fn is_finished(&self) -> bool;
}

/// Does the work of one end.
pub trait Worker: Sync {
    /// What is to be done.
    type Task: Send;
    /// What came of it.
    type Completion: Send;

    /// Does it, on any thread.
    ///
    /// # Errors
    /// Those of the images; `Malformed` for data that is not what it should be.
    fn perform(&self, task: Self::Task) -> Result<Self::Completion>;
}

/// What may be begun now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Another task.
    pub tasks: bool,
    /// Another message on the line.
    pub line: bool,
}

/// What an end wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<T> {
    /// Send this.
    Send(Message),
    /// Do this, and tell what came of it.
    Run(T),
}

//! The end that wants nothing of a source but its root.

use std::collections::VecDeque;
use std::convert::Infallible;

use super::endpoint::{Capacity, Endpoint, Output, Worker};
use crate::error::Result;
use crate::remote::wire::codec::wrong;
use crate::remote::wire::comparison::Blocks;
use crate::remote::wire::format::{BATCH, WINDOW_BATCHES};
use crate::remote::wire::message::Message;

/// Holds nothing against what the source says: every batch is answered as if it were known, so
/// that the source reads and hashes all of its disk and sends no byte of it.
pub struct RootPeer {
    disk_len: u64,
    /// The first batch of which the source may still speak.
    next: u64,
    outbox: VecDeque<Message>,
    root: Option<[u8; 32]>,
}

opaque!(RootPeer);

/// Nothing is read at this end.
pub(in crate::remote) struct NoWorker;

impl RootPeer {
    /// For a disk of `disk_len` bytes, all of it.
    pub fn new(disk_len: u64) -> Self {
        RootPeer {
            disk_len,
            next: 0,
            outbox: VecDeque::new(),
            root: None,
        }
    }

    /// How much of the disk the source has told of, in bytes, for progress.
    pub fn finished_bytes(&self) -> u64 {
        match self.root {
            Some(_) => self.disk_len,
            None => self.next.saturating_mul(BATCH).min(self.disk_len),
        }
    }

    /// The root, once it is finished.
    pub fn root(&self) -> Option<[u8; 32]> {
        self.root
    }
}

impl Endpoint for RootPeer {
    type Task = Infallible;
    type Completion = Infallible;

    const ONLY_ANSWERS: bool = false;

    fn next_output(&mut self, capacity: Capacity) -> Result<Option<Output<Infallible>>> {
        let message = capacity.line.then(|| self.outbox.pop_front()).flatten();
        Ok(message.map(Output::Send))
    }

    fn receive(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Segments(segments) if self.root.is_none() => {
                let batch = segments.batch;
                if batch < self.next || batch >= self.disk_len.div_ceil(BATCH) {
                    return Err(wrong(
                        "a batch that is out of order or beyond the end of the disk",
                    ));
                }
                if self.outbox.len() >= 2 * WINDOW_BATCHES {
                    return Err(wrong("more batches than the window takes"));
                }
                self.next = batch + 1;
                self.outbox.push_back(Message::Blocks(Blocks {
                    batch,
                    segments: Vec::new(),
                }));
                Ok(())
            }
            Message::Root(root) if self.root.is_none() => {
                self.root = Some(root);
                Ok(())
            }
            _ => Err(wrong("a message that has no place in finding a root")),
        }
    }

    fn complete(&mut self, done: Infallible) -> Result<()> {
        match done {}
    }

    fn is_finished(&self) -> bool {
        self.root.is_some() && self.outbox.is_empty()
    }
}

impl Worker for NoWorker {
    type Task = Infallible;
    type Completion = Infallible;

    fn perform(&self, task: Infallible) -> Result<Infallible> {
        match task {}
    }
}

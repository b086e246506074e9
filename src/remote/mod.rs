//! Syncs across hosts: a protocol without I/O, and what carries it.

pub mod format;

mod end;
mod frame;
mod job;
mod keys;
mod message;
mod rounds;
mod source_end;
mod source_work;
mod target_end;
mod target_work;
mod view;
mod wire;

pub use end::{End, Room, Step, Worker};
pub use frame::{Frame, FrameDecoder, FrameEncoder};
pub use job::{Ending, Fault, Job, Opened, TargetJob};
pub use keys::Keys;
pub use message::{Claims, Compare, Hello, Message};
pub use rounds::{
    Blocks, Children, Data, LeafFate, Leaves, NewLeaf, Pages, PagesOfLeaf, Parts, Short,
};
pub use source_end::SourceEnd;
pub use source_work::{SourceDone, SourceTask, SourceWorker, Wanted};
pub use target_end::TargetEnd;
pub use target_work::{Handed, TargetDone, TargetTask, TargetWorker, Visit};
pub use view::{LeafHashes, View, Windows};

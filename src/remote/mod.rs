//! Syncs across hosts: a protocol without I/O, and what carries it.

pub mod format;
#[cfg(feature = "tls")]
pub mod tls;

mod answer;
mod closer;
mod confine;
mod copy;
mod dial;
mod drive;
mod end;
mod far_disk;
mod far_path;
mod far_search;
mod frame;
mod gaps;
mod hashing;
mod job;
mod keys;
mod known;
mod line;
mod line_options;
mod location;
mod message;
mod own_folders;
mod pipe;
mod reach;
mod retry;
mod root_end;
mod rounds;
mod serve;
mod session;
mod shown_paths;
mod source_end;
mod source_work;
mod ssh;
mod target_end;
mod target_work;
mod throttle;
mod tree;
mod view;
mod wire;

pub use answer::Answerer;
pub use confine::{Confined, Root};
pub use dial::{Dialled, Pull};
pub use end::{End, Room, Step, Worker};
pub use far_disk::FarDisk;
pub use far_path::FarPath;
pub use frame::{Frame, FrameDecoder, FrameEncoder};
pub use job::{Ending, Fault, Job, Opened, TargetJob};
pub use keys::Keys;
pub use known::Known;
pub use line::{Line, LineWatch, Traffic};
pub use line_options::LineOptions;
pub use location::Location;
pub use message::{Claims, Compare, Hello, Message};
#[cfg(feature = "failback")]
pub(crate) use own_folders::{OwnFolders, lies_within};
pub use reach::{Carrier, Reach};
pub use retry::Retry;
pub use root_end::RootEnd;
pub use rounds::{
    Blocks, Children, Data, LeafFate, Leaves, NewLeaf, Pages, PagesOfLeaf, Parts, Short,
};
#[cfg(feature = "failback")]
pub(crate) use serve::refuse;
pub use serve::{Hand, ServeOptions, Served, serve, serve_with};
pub use session::{Session, Side};
pub use source_end::SourceEnd;
pub use source_work::{SourceDone, SourceTask, SourceWorker, Wanted};
pub use ssh::{Shell, ShellOptions, SshPath};
pub use target_end::{TakeLeaves, TargetEnd};
pub use target_work::{Handed, TargetDone, TargetTask, TargetWorker, Visit};
pub use tree::{NodeHash, Nodes, NodesAre, Tree, TreeEnd, children_of};
pub use view::{LeafHashes, View, Windows};

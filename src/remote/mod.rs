//! Syncs across hosts: a protocol without I/O, and what carries it.

mod compare;
mod sandbox;
mod session;
#[cfg(feature = "tls")]
pub mod tls;
mod transport;
mod wire;

mod own_directories;
mod shown_paths;

pub use compare::endpoint::{End, Room, Step, Worker};
pub use compare::keys::Keys;
pub use compare::known::Known;
pub use compare::root::RootEnd;
pub use compare::source::SourceEnd;
pub use compare::source_worker::{SourceDone, SourceTask, SourceWorker, Wanted};
pub use compare::target::{TakeBlocks, TargetEnd};
pub use compare::target_worker::{Handed, TargetDone, TargetTask, TargetWorker, Visit};
pub use compare::tree::{NodeHash, Nodes, NodesAre, Tree, TreeEnd, children_of};
pub use compare::view::{BlockHashes, View, Windows};
#[cfg(feature = "failback")]
pub(crate) use own_directories::{OwnDirectories, lies_within};
pub use sandbox::{Confined, Root};
pub use session::client::{Client, Pull};
pub use session::remote_source::RemoteSource;
pub use session::run::{Session, Side};
#[cfg(feature = "failback")]
pub(crate) use session::serve::refuse;
pub use session::serve::{DiskService, ServeOptions, Served, serve, serve_with};
pub use session::source_server::SourceServer;
pub use transport::connect::{ConnectOptions, Connection};
pub use transport::retry::Retry;
pub use transport::ssh::{Shell, ShellOptions};
pub use wire::comparison::{
    BlockDiff, BlockPages, Blocks, Children, Data, NewBlock, Pages, Parts, Segments, Short,
};
pub use wire::connection::{Line, LineWatch, Traffic};
pub use wire::connection_options::LineOptions;
pub use wire::format;
pub use wire::frame::{Frame, FrameDecoder, FrameEncoder};
pub use wire::message::{Claims, Compare, Hello, Message};
pub use wire::request::{Ending, Fault, Job, Opened, TargetJob};

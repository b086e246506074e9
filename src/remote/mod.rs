//! Syncs across hosts: a protocol without I/O, and what carries it.

mod compare;
mod connect;
mod sandbox;
#[cfg(feature = "tls")]
mod service;
mod session;
#[cfg(feature = "tls")]
pub mod tls;
mod transport;
mod wire;

mod own_directories;
mod shown_paths;

pub use compare::endpoint::{Capacity, Endpoint, Output, Worker};
pub use compare::keys::Keys;
pub use compare::known::Known;
pub use compare::root::RootPeer;
pub use compare::source::SourcePeer;
pub use compare::source_worker::{SourceCompletion, SourceTask, SourceWorker, Wanted};
pub use compare::target::{TakeBlocks, TargetPeer};
pub use compare::target_worker::{Emitted, TargetCompletion, TargetTask, TargetWorker, Visit};
pub use compare::tree::{TreePeer, children_of};
pub use compare::view::View;
pub use compare::windows::{BlockHashes, Windows};
pub use connect::ConnectOptions;
#[cfg(feature = "failback")]
pub(crate) use own_directories::{OwnDirectories, lies_within};
pub use sandbox::{Sandbox, SandboxPath};
pub use session::client::{Client, RemoteTarget};
pub use session::remote_source::RemoteSource;
pub use session::run::{Session, Side};
#[cfg(feature = "failback")]
pub(crate) use session::serve::refuse;
pub use session::serve::{DiskService, ServeOptions, Served, serve, serve_with};
pub use session::source_server::SourceServer;
pub use transport::retry::Retry;
pub use transport::ssh::{Shell, ShellOptions};
pub use wire::comparison::{
    BlockDiff, BlockPages, Blocks, Children, Data, NewBlock, Pages, Parts, Segments, TruncatedHash,
};
pub use wire::connection::{Line, LineWatch};
pub use wire::connection_options::LineOptions;
pub use wire::format;
pub use wire::frame::{FrameDecoder, FrameEncoder, WireFrame};
pub use wire::message::{Claims, Compare, Hello, Message};
pub use wire::nodes::{NodeHash, Nodes, NodesAre, Tree};
pub use wire::outcome::{Fault, RemoteOutcome};
pub use wire::request::{Opened, RemoteJob, TargetJob};

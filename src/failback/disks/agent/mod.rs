//! Disks that lie on another host and are written there, by a *disk agent*.
//!
//! What has to be done to such disks (renames, markers, undo files, disk states, reading back) is
//! done at their host, by the same [`HostDisks`](super::HostDisks) that does it here. Each call of
//! the end that runs the job starts an agent there, which does this one thing and ends. Where it
//! needs the other side's disk, the client answers for it over the same line, as the
//! source of a sync.
//!
//! The agent trusts its request only as far as it goes: it touches the disks that this names.
//! What keeps executors apart is kept by the agent itself, where no client writes, see
//! [`state_dir`] and [`fencing`](crate::fencing).

pub(in crate::failback::disks::agent) mod callback_source;
pub(in crate::failback::disks::agent) mod client;
pub(in crate::failback::disks::agent) mod messages;
mod ranges;
pub(in crate::failback::disks::agent) mod server;
pub(in crate::failback::disks::agent) mod state_dir;

pub(super) use callback_source::CallbackSource;
pub(super) use client::{AgentClient, Open};
pub(super) use messages::{AgentReply, AgentRequest, Task, Wanted, wrong};
pub use server::DiskAgent;

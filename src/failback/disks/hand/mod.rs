//! Disks that lie on another host and are written there: a *hand*.
//!
//! What has to be done to such disks (renames, marks, undo files, ledgers, reading back) is done at
//! their host, by the same [`HostDisks`](super::HostDisks) that does it here. Each call of the end
//! that runs the job starts an agent there, which does this one thing and ends. Where it needs
//! the other side's disk, the end that dialled answers for it over the same line, as the source of a
//! sync.
//!
//! The agent believes its request only as far as it goes: it touches the disks that this names. What
//! keeps executors apart is kept by the agent itself, where no client writes, see [`state`] and
//! [`fence`].

mod agent;
mod caller;
mod fence;
mod ranges;
mod state;
mod supply;
mod words;

pub use agent::DiskHand;
pub(super) use caller::Caller;
pub(super) use supply::Supply;
pub(super) use words::{Reply, Request, Wanted, What};

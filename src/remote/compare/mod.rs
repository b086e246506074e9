//! Finding what differs with only one of the two disks here, without I/O of its own.

pub(super) mod driver;
pub(super) mod endpoint;
pub(super) mod full;
pub(super) mod gaps;
pub(super) mod hashing;
pub(super) mod keys;
pub(super) mod known;
mod open_batch;
pub(super) mod root;
pub(super) mod source;
pub(super) mod source_worker;
pub(super) mod target;
pub(super) mod target_worker;
pub(super) mod tree;
pub(super) mod view;
pub(super) mod windows;

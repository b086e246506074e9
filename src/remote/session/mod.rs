//! Both ends of a session: the client that asks, and the server of a disk.

pub(super) mod client;
pub(super) mod remote_source;
pub(super) mod run;
pub(super) mod search;
pub(super) mod serve;
mod source_backend;
pub(super) mod source_server;

//! Programs and sockets that carry a connection.

pub(super) mod connection;
pub(super) mod pipe;
pub(super) mod retry;
pub(super) mod ssh;

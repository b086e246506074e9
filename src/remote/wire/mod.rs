//! What goes over a connection: frames, messages, and the connection that carries them.

pub(super) mod closer;
pub(super) mod codec;
pub(super) mod comparison;
pub(super) mod connection;
pub(super) mod connection_options;
pub(super) mod connection_state;
mod connection_threads;
pub mod format;
pub(super) mod frame;
pub(super) mod message;
pub(super) mod nodes;
pub(super) mod outcome;
pub(super) mod request;
pub(super) mod throttle;

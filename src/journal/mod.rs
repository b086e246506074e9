//! The journal of a job: what was decided, written down before it is done.
//!
//! One file, only ever added to. [`Writer::append`] makes a record durable before it returns, and
//! then notes in a seal how many there are. So a reader tells a torn end, which a crash leaves and
//! which was never acted upon, from a journal that was cut or changed afterwards.

mod format;
mod read;
mod write;

pub use read::{Entry, Reader};
pub use write::Writer;

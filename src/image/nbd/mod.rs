//! A small blocking NBD client: reads exports of other programs, above all of QEMU.
//!
//! Only what reading a disk needs: the fixed newstyle handshake over a Unix socket, TCP or TLS
//! (STARTTLS), structured replies, `base:allocation` and `qemu:dirty-bitmap` as meta contexts, READ
//! and BLOCK_STATUS. The server is not trusted: every length that it states is checked before
//! anything follows from it.

#[cfg(feature = "testing")]
mod client;
mod connection;
mod export;
mod format;
mod handshake;
mod pending;
mod ranges;
mod read_ahead;
mod replies;
mod reply;
pub(crate) mod socket;
pub(crate) mod stream;

#[cfg(feature = "testing")]
pub use client::Client;
pub use export::NbdExport;
pub use handshake::ExportInfo;
pub use pending::{Run, Status};
pub use ranges::Ranges;

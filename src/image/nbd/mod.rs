//! A small blocking NBD client: reads exports of other programs, above all of QEMU.
//!
//! Only what reading a disk needs: the fixed newstyle handshake over a Unix socket, structured
//! replies, `base:allocation` and `qemu:dirty-bitmap` as meta contexts, READ and BLOCK_STATUS. The
//! server is not trusted: every length that it states is checked before anything follows from it.

mod client;
mod export;
mod format;
mod handshake;
mod ranges;
mod reply;
pub(crate) mod socket;

pub use client::{Client, Run, Status};
pub use export::NbdExport;
pub use handshake::ExportInfo;
pub use ranges::Ranges;

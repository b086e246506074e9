//! Storage that fails and crashes as a test wishes (feature `testing`).
//!
//! A [`FaultDisk`] holds directories, files and devices in memory and logs everything that is done
//! to them. From the log, [`Crashes`] produces the states that a power cut may have left:
//!
//! - Between two syncs any subset of the writes may have landed, in any order. Of a write, each
//!   512-byte sector may be old, new or garbage (noise or zeros); bytes that were not written
//!   keep their value.
//! - A length change is an operation of its own, also where a write extends a file: it may be
//!   lost, or land before the data, and then new space reads as zeros, as garbage, or as what the
//!   newest file that is no more held there, which may be valid records of an earlier run.
//! - A created file's name, a rename and a removal are durable after a sync of their directory;
//!   until then each may be there or not. A rename never leaves a file with two names, unless the
//!   disk has to [link](FaultDisk::link_to_rename) for it.
//! - A [clone](FaultDisk::clone_files) lands as a write of all its bytes does. Of two files that
//!   exchange names each has its old or its new one, both alike.
//! - Owner, mode and the like that were copied to a file are durable after its next sync.
//! - After a failed [`sync`](crate::storage::Storage::sync) the handle is poisoned, reads from a
//!   fresh handle show what was written, and no later sync makes it durable: it must be written
//!   again. With [`Failure::Lossy`] they show the old bytes.
//!
//! A [`Fault`] makes the nth operation fail, [`FaultDisk::drop_syncs`] takes a barrier away, and
//! [`Log::check`] holds the log against a rule such as [`NoRewrite`].
//!
//! # How to test a protocol
//! - *Power cut*: run it on a disk, then recover and check the [`CrashState::disk`] of every
//!   state. That disk has a log of its own, so its `crashes()` (with another seed and a low
//!   limit) are those of the recovery.
//! - *Killed process*: [`Fault::nth`] with [`and_all_later`](Fault::and_all_later), run,
//!   [`heal`](FaultDisk::heal), recover on the same disk. What the dead process did not sync is
//!   still pending, so a power cut after the recovery may lose it.
//! - *Failing disk*: as before with a fault that strikes once, for the first, second, third
//!   operation and so on until [`fired`](FaultDisk::fired) stays empty.
//! - *Barriers*: for each of [`Log::syncs`] run again with that one dropped, and expect a
//!   violation.
//!
//! # Examples
//! A file replaced by a rename is whole after any crash, but only if it was synced first:
//!
//! ```
//! use diskdelta::storage::fault::{FaultDisk, FileBytes};
//! use diskdelta::storage::Directory;
//!
//! fn replace(directory: &impl Directory, sync_first: bool) -> diskdelta::Result<()> {
//!     let file = directory.create_new("new".as_ref())?;
//!     file.write_all_at(b"new text", 0)?;
//!     if sync_first {
//!         file.sync()?;
//!     }
//!     directory.rename("new".as_ref(), "text".as_ref())?;
//!     directory.sync()
//! }
//!
//! fn survives(sync_first: bool) -> bool {
//!     let disk = FaultDisk::new();
//!     disk.put("/d/text", &b"old text"[..]);
//!     replace(&disk.directory("/d"), sync_first).unwrap();
//!     disk.note("replaced");
//!     let (old, new) = (FileBytes::from(&b"old text"[..]), FileBytes::from(&b"new text"[..]));
//!     let whole = disk.crashes().check(|state| match state.disk().contents("/d/text") {
//!         Some(bytes) if bytes == new => Ok(()),
//!         Some(bytes) if bytes == old && !state.noted("replaced") => Ok(()),
//!         bytes => Err(format!("the file holds {bytes:?}")),
//!     });
//!     whole.is_ok()
//! }
//!
//! assert!(survives(true));
//! assert!(!survives(false));
//! ```

mod contents;
mod crash;
mod directory;
mod disk;
mod handle;
mod inject;
mod inner;
mod landing;
mod log;
mod noise;
mod op;
mod order;
mod page;
mod plan;
mod replay;
mod state;
mod tear;

pub use contents::FileBytes;
pub use crash::{Coverage, CrashState, Crashes};
pub use directory::FaultDirectory;
pub use disk::FaultDisk;
pub use handle::FaultStorage;
pub use inject::{Call, Failure, Fault, Fired};
pub use log::Log;
pub use op::{Op, OpKind, Outcome, SyncCall};
pub use order::{NoRewrite, OrderRule, Step, SyncedBefore, Violation};

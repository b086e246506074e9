//! Make one disk image hold exactly what another holds, moving only what differs, and never
//! leaving the target half done.
//!
//! ```no_run
//! use diskdelta::{Disk, Work};
//!
//! # fn main() -> diskdelta::Result<()> {
//! let work = Work::new()?;
//! let report = Disk::open("web.vhdx")?.sync_to("/dev/vg0/web").run(&work)?;
//! println!("{} bytes changed, {:?}", report.changed_bytes, report.verified);
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//! - **The target is whole at every moment.** A crash, a full file system or a cancel leaves it
//!   entirely old, or marked as incomplete so that nothing can take it for a disk, until
//!   [`recover`] makes it entirely new. [`Error::target_state`] tells which.
//! - **What `Ok` says is durable.** When a function that writes returns, its result has been synced
//!   to the medium, and what was written has been read back from there.
//! - **Only what differs is written.** The cost of a sync follows the data and the changes, not the
//!   length of the disk. Memory is bounded whatever the length.
//! - **Bytes from outside are hostile.** Images, deltas, manifests and peers may state anything:
//!   every number is checked against [`Limits`] before it is used.
//!
//! # How a sync works
//! ```text
//!  source                                                  target
//!  image file ──┐                                      ┌── image file, device
//!  device ──────┤  1 compare      2 log     3 apply    │
//!  own storage ─┼───────────────▶ redo log ──────────▶─┤
//!  other host ──┘  4 KiB pages    durable   read back  └── own storage
//!                                           ▲
//!                         a crash from here on: `recover`
//! ```
//! Differences are gathered in a redo log. Once that is durable, a marker makes the target
//! unusable, the log is applied, what was written is read back, and the marker is lifted. Where
//! everything differs, a whole copy takes the target's place by a rename instead.
//!
//! # Ten jobs
//! | job | code | program |
//! | --- | --- | --- |
//! | hash and verify | [`Disk::root`], [`Disk::save_manifest`], [`Disk::verify`] | `examples/verify.rs` |
//! | find differences | [`Disk::diff_from`] | `examples/diff.rs` |
//! | carry a delta away | [`Disk::delta_from`], [`Delta::apply_to`], [`Delta::merge`] | `examples/delta.rs` |
//! | sync with progress, cancel, resume | [`Disk::sync_to`], [`Work::on_progress`] | `examples/sync.rs` |
//! | an own storage | [`Storage`], [`Disk::from_storage`], [`SyncTarget::storage`] | `examples/own_storage.rs` |
//! | a change map | `ChangeMap` (feature `changes`), [`Sync::only`] | `examples/change_map.rs` |
//! | under an async runtime | [`CancelToken::guard`] | `examples/async_runtime.rs` |
//! | tell errors apart | [`Error::kind`], [`Error::target_state`] | `examples/errors.rs` |
//! | sync over an own transport | [`peer`] | `examples/transport.rs` |
//! | bring virtual machines home | `failback::Job` (feature `failback`) | `examples/failback.rs` |
//!
//! # Features
//! None is on by default.
//!
//! | feature | adds |
//! | --- | --- |
//! | `changes` | change maps as other programs write them |
//! | `cli` | the command `diskdelta`, with what the features below add to it |
//! | `http` | disks at web servers and in object stores as sources |
//! | `imago` | qcow2 and VMDK as sources |
//! | `nbd` | exports of NBD servers as sources |
//! | `tls` | the service over TLS, and connections to it |
//! | `failback` | jobs that bring running virtual machines home |
//! | `encryption` | replicas of these jobs that are kept encrypted (age, about 100 crates) |
//! | `qemu` | virtual machines under QEMU for these jobs |
//! | `serde` | `Serialize` of reports, for JSON and the like |
//! | `sign` | manifests that are signed (minisign) |
//! | `full` | all of them |
//! | `testing` | the fault harness, the contract suites and the inner modules, for tests |
//!
//! # Platforms
//! Linux, on file systems with `SEEK_DATA` (ext4, XFS, btrfs, tmpfs and others) and on block
//! devices. Windows, on NTFS and ReFS: files only, with the features `changes`, `cli`, `nbd`,
//! `serde` and `testing`; tested under Wine.
#![cfg_attr(docsrs, feature(doc_cfg))]
// Without `testing`, what only tests reach looks unused.
#![cfg_attr(not(feature = "testing"), allow(dead_code, unused_imports))]
#![warn(missing_debug_implementations)]
#![cfg_attr(feature = "testing", warn(unreachable_pub))]

#[cfg(all(windows, feature = "failback"))]
compile_error!("the feature `failback` is not supported on Windows");

#[macro_use]
mod opaque;

mod advice;
#[cfg(feature = "testing")]
pub mod api;
#[cfg(not(feature = "testing"))]
mod api;
#[cfg(feature = "failback")]
mod bell;
mod cancel;
#[cfg(feature = "changes")]
mod changes;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "testing")]
pub mod delta;
#[cfg(not(feature = "testing"))]
mod delta;
#[cfg(feature = "testing")]
pub mod diff;
#[cfg(not(feature = "testing"))]
mod diff;
#[cfg(any(feature = "cli", feature = "failback"))]
mod duration;
#[cfg(feature = "testing")]
pub mod error;
#[cfg(not(feature = "testing"))]
mod error;
#[cfg(feature = "failback")]
pub mod failback;
#[cfg(feature = "failback")]
mod fencing;
mod hash;
#[cfg(feature = "testing")]
pub mod image;
#[cfg(not(feature = "testing"))]
mod image;
#[cfg(all(feature = "failback", feature = "testing"))]
pub mod journal;
#[cfg(all(feature = "failback", not(feature = "testing")))]
mod journal;
#[cfg(feature = "failback")]
mod letters;
#[cfg(feature = "testing")]
pub mod limits;
#[cfg(not(feature = "testing"))]
mod limits;
mod location;
#[cfg(feature = "testing")]
pub mod manifest;
#[cfg(not(feature = "testing"))]
mod manifest;
#[cfg(feature = "failback")]
mod meter;
#[cfg(feature = "failback")]
mod named;
#[cfg(any(feature = "changes", feature = "http"))]
mod page_list;
mod path_bytes;
#[cfg(any(feature = "failback", feature = "http"))]
mod program;
#[cfg(feature = "testing")]
pub mod progress;
#[cfg(not(feature = "testing"))]
mod progress;
#[cfg(feature = "qemu")]
mod qemu;
mod random;
#[cfg(feature = "testing")]
pub mod remote;
#[cfg(not(feature = "testing"))]
mod remote;
#[cfg(all(feature = "failback", feature = "testing"))]
pub mod replica;
#[cfg(all(feature = "failback", not(feature = "testing")))]
mod replica;
#[cfg(feature = "serde")]
mod serialize;
mod setters;
#[cfg(feature = "testing")]
pub mod storage;
#[cfg(not(feature = "testing"))]
mod storage;
#[cfg(feature = "testing")]
pub mod sync;
#[cfg(not(feature = "testing"))]
mod sync;
mod target_state;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "testing")]
pub mod text;
#[cfg(not(feature = "testing"))]
mod text;
mod token_bucket;
#[cfg(feature = "testing")]
pub mod units;
#[cfg(not(feature = "testing"))]
mod units;
#[cfg(feature = "failback")]
mod vm;

/// Syncs with another host, over SSH, TLS, or a transport of the caller's own.
///
/// # Examples
/// Makes a device here hold what an image behind `ssh` holds:
/// ```no_run
/// use diskdelta::peer::ConnectOptions;
/// use diskdelta::{Disk, Location, Work};
///
/// # fn main() -> diskdelta::Result<()> {
/// let work = Work::new()?;
/// let location = Location::parse("ssh://host/srv/web.vhd")?;
/// let source = Disk::connect(&location, &ConnectOptions::default(), &work)?;
/// source.sync_to("/dev/vg0/web").run(&work)?;
/// # Ok(())
/// # }
/// ```
pub mod peer {
    #[cfg(feature = "tls")]
    pub use crate::remote::tls::{DialOptions, Identity, Service, ServiceEvent, ServiceOptions};
    pub use crate::remote::{
        Client, ConnectOptions, LineOptions, Retry, ServeOptions, Served, ShellOptions, serve,
    };
    #[cfg(feature = "http")]
    pub use crate::storage::HttpOptions;
}

pub use advice::Advice;
pub use api::{
    Base, Block, DeltaInfo, Disk, DiskOptions, Sync, SyncTarget, discard, recover, undo,
};
#[cfg(feature = "changes")]
pub use changes::{ChangeMap, ChangeMapKind};
pub use delta::{Delta, Purpose};
pub use error::{Error, ErrorKind, Result};
pub use hash::Hash;
pub use image::{CreateFormat, Format, Image, ImageInfo, Layout};
pub use limits::Limits;
pub use location::{Location, NbdAddress, RemoteAddress, UrlPrefix, WebAddress};
pub use manifest::{Manifest, Release};
#[cfg(feature = "sign")]
pub use manifest::{PublicKey, SigningKey};
pub use progress::{CancelGuard, CancelToken, Phase, Tick, Work};
#[cfg(feature = "testing")]
pub use progress::{MOST_THREADS, NoProgress, Progress};
pub use storage::{
    Allocation, FileId, HostFile, HostKind, MemoryStorage, Privacy, SourceStamp, Storage,
};
pub use sync::{
    Cloning, Diff, Mode, Outcome, Pending, PendingKind, PendingState, Recovered, Safety,
    SyncReport, Traffic, Verified, Verify, pending,
};
pub use target_state::TargetState;
pub use units::{BlockSize, Extent, ExtentKind};

/// The pool that [`Work::on_pool`] takes.
pub use rayon;

/// The examples of the README must compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

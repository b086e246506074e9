//! Make one disk image hold exactly what another holds, moving only what differs, and never
//! leaving the target half done.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod api;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod delta;
pub mod diff;
pub mod error;
#[cfg(feature = "failback")]
pub mod failback;
mod hash;
pub mod image;
#[cfg(feature = "failback")]
pub mod journal;
pub mod limits;
mod location;
pub mod manifest;
pub mod progress;
mod random;
pub mod remote;
#[cfg(feature = "failback")]
pub mod replica;
mod setters;
pub mod storage;
pub mod sync;
mod target_state;
pub mod text;
mod token_bucket;
pub mod units;

pub use api::{Base, Block, DeltaInfo, Disk, DiskOptions, Sync, SyncTarget, recover, undo};
pub use delta::Delta;
pub use error::{Error, ErrorKind, Result};
pub use hash::Hash;
pub use image::Format;
pub use limits::Limits;
pub use location::{Location, NbdAddress, RemoteAddress};
pub use manifest::Manifest;
pub use progress::{CancelToken, MOST_THREADS, NoProgress, Phase, Progress, Work};
pub use target_state::TargetState;
pub use units::{BlockSize, Extent, ExtentKind};

/// The examples of the README must compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

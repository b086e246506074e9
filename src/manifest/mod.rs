//! Manifests: the checksums of every block of one image at one moment.
//!
//! A block's hash is the plain BLAKE3 of its bytes; a block that is all zero has none. A tree
//! above the hashes ends in one [`Hash`], which stands for the contents, the length and the block
//! size of the disk. The cost of a manifest follows the blocks that hold data, not the length of
//! the disk: holes are never read, and zero subtrees take no space.
//!
//! ```
//! use std::sync::Arc;
//!
//! use diskdelta::image::Raw;
//! use diskdelta::storage::MemoryStorage;
//! use diskdelta::{BlockSize, Work, manifest};
//!
//! # fn main() -> diskdelta::Result<()> {
//! let storage = MemoryStorage::new("disk", b"some bytes".repeat(10_000));
//! let image = Raw::open(Arc::new(storage))?;
//! let manifest = manifest::build(&image, BlockSize::default(), &Work::with_threads(2)?)?;
//! assert_eq!(manifest.data_blocks(), 2);
//! println!("{}", manifest.root());
//! # Ok(())
//! # }
//! ```

mod build;
mod descend;
mod format;
mod hash;
mod notes;
mod plan;
mod ranges;
mod read;
mod release;
#[cfg(feature = "sign")]
mod signature;
mod target_manifest;
mod tree;
mod update;
mod write;

pub(crate) use build::reopen;
pub use build::{build, build_at, build_to, root_of, update_to};
pub use hash::{HashPass, HashedRun, Visit};
pub use read::{Group, Groups, Manifest};
pub use release::Release;
#[cfg(feature = "sign")]
pub use signature::{PublicKey, SigningKey};
pub use target_manifest::{PreparedFile, TargetManifest, prepare, save};
pub use update::ManifestUpdater;
pub use write::{ManifestWriter, Sink};

pub(crate) use notes::note_source;
pub(crate) use ranges::{Gathered, RangeSet};
pub(crate) use read::{Node, Row, blocks_of};
pub(crate) use target_manifest::refuse_other;
pub(crate) use target_manifest::{begin, begin_for, commit_left, forget_left};
pub(crate) use tree::{child_of, parent_of};
pub(crate) use update::same_block_size;

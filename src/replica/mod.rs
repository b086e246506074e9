//! Disks kept encrypted: what a pass sent, link by link, each an age file.
//!
//! A [`Replica`] is a directory. Its first link is a delta from a disk of zeros, each further one a
//! delta from what the links before it give; beside each lies the manifest of what the chain gives
//! up to there. All of them are [age](https://age-encryption.org/v1) files, which `age --decrypt`
//! opens, and none is ever changed: a pass adds a link, and putting a long chain together writes a
//! new one before the old one goes.
//!
//! Who has the directory and not the key learns how long the disk's data and each pass's changes
//! are, and nothing of what they hold or which of them are equal. Who can also write there can take
//! the chain back to an earlier pass by removing the newest files; the root of the last pass, kept
//! elsewhere, shows that. Any other change is found.

mod binding;
mod chain;
pub(crate) mod encrypted;
#[cfg(feature = "encryption")]
mod key;
#[cfg(not(feature = "encryption"))]
#[path = "no_key.rs"]
mod key;
mod key_file;
mod link;
pub(crate) mod remote_link;

pub use chain::{Appended, Changed, Replica};
pub use key::Key;
pub use key_file::KeyFile;
pub(crate) use remote_link::ManifestImage;

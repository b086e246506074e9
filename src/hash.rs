//! The one hash type: 32 bytes of BLAKE3.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// 32 bytes of BLAKE3: the hash of a block, or of a whole disk (its *root*).
///
/// The hash of a block is the plain BLAKE3 of its bytes. A root stands for the contents, the length
/// and the block size of a disk: equal roots mean equal disks. Roots of different block sizes
/// cannot be compared. Shown and parsed as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "String", into = "String")
)]
pub struct Hash([u8; 32]);

impl Hash {
    /// A hash from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Hash(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What formats store where there is no hash.
    pub(crate) const ZERO: Hash = Hash([0; 32]);

    /// The hash that `hasher` has come to.
    pub(crate) fn finish(hasher: &blake3::Hasher) -> Self {
        Hash(hasher.finalize().into())
    }

    /// The hash of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Hash(blake3::hash(bytes).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> String {
        hash.to_string()
    }
}

impl TryFrom<String> for Hash {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Hash {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        blake3::Hash::from_hex(text)
            .map(|hash| Hash(hash.into()))
            .map_err(|cause| {
                Error::new(ErrorKind::InvalidInput, "a hash is 64 hex digits")
                    .in_field("hash")
                    .caused_by(cause)
            })
    }
}

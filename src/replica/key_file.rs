//! Where the key of a replica lies.

use std::path::PathBuf;

/// Where a key lies.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFile {
    /// A file of age identities, as `age-keygen` makes it.
    Identity(PathBuf),
    /// A file that holds a passphrase in its first line. Each file that is written or opened costs
    /// about a second of computing then, which is what makes guessing slow.
    Passphrase(PathBuf),
}

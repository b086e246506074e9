//! Who may use a file: links, and files that this program made.

pub(in crate::storage) mod links;
pub(in crate::storage) mod own;
#[cfg(any(feature = "tls", feature = "encryption"))]
pub(in crate::storage) mod private_file;

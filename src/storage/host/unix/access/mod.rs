//! Who may use a file: owners, links, locks and attributes.

pub(in crate::storage) mod attributes;
#[cfg(feature = "failback")]
pub(crate) mod flock;
pub(in crate::storage) mod links;
pub(in crate::storage) mod lock;
#[cfg(feature = "failback")]
pub(in crate::storage) mod lock_file;
pub(in crate::storage) mod own;
#[cfg(any(feature = "tls", feature = "encryption"))]
pub(in crate::storage) mod private_file;

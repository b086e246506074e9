//! Where a pass finds the bytes of a disk.

use std::fmt;

use crate::error::Result;
#[cfg(feature = "qemu")]
use crate::failback::nbd::NbdAddress;
use crate::failback::plan::Address;

/// Where a disk can be read during a pass: its own file, a copy, or what a server exports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadAt {
    /// A file or block device of the executor's host, in the disk's format.
    Host(Address),
    /// An export of an NBD server: the guest's bytes, whatever the disk's format.
    #[cfg(feature = "qemu")]
    Nbd(NbdAddress),
}

impl ReadAt {
    /// Reads an absolute path, or `nbd+unix:///EXPORT?socket=PATH`.
    ///
    /// # Errors
    /// `InvalidInput` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        #[cfg(feature = "qemu")]
        if let Some(address) = NbdAddress::parse(text) {
            return address.map(ReadAt::Nbd);
        }
        Address::parse(text).map(ReadAt::Host)
    }
}

impl fmt::Display for ReadAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadAt::Host(address) => address.fmt(f),
            #[cfg(feature = "qemu")]
            ReadAt::Nbd(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_read_from_a_path_or_from_an_export() {
        let path = ReadAt::parse("/mnt/snap/db1.raw").unwrap();
        assert!(matches!(path, ReadAt::Host(_)));
        assert!(ReadAt::parse("db1.raw").is_err());
        #[cfg(feature = "qemu")]
        {
            let export = ReadAt::parse("nbd+unix:///db1?socket=/run/nbd.sock").unwrap();
            assert_eq!(export.to_string(), "nbd+unix:///db1?socket=/run/nbd.sock");
            assert!(ReadAt::parse("nbd+unix:///db1").is_err());
        }
    }
}

//! Which file it is, and of what kind.

/// What of the host a storage lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostKind {
    /// A regular file.
    File,
    /// A block device.
    Device,
}

/// Which file it is, whatever its names are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The number of the file system.
    pub device: u64,
    /// The number of the file on it.
    pub inode: u64,
}

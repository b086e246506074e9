//! What a path leads to: a regular file or a block device, and which.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::access::attributes::{has_access_list, path_has_access_list};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Privacy;
use crate::storage::host::file_id::{FileId, HostKind};

/// A device by its number, or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Node {
    Device(u64),
    File(FileId),
}

/// A regular file or block device that a path led to.
#[derive(Debug, Clone)]
pub struct HostFile {
    path: PathBuf,
    kind: HostKind,
    id: FileId,
    link_count: u64,
    device_number: u64,
    is_thick: bool,
    privacy: Privacy,
}

impl HostFile {
    /// What `path` leads to, through symbolic links; nothing is opened.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `Unsupported` for anything but a regular file or a block device, and for
    /// files of `/proc`, `/sys` and their like.
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let failed = |cause: io::Error| Error::io("inspect", cause).at_path(path);
        let facts = fs::metadata(path).map_err(failed)?;
        let system = rustix::fs::statfs(path).map_err(|e| failed(e.into()))?;
        // The kernel's type is a word of its own width; magic numbers have 32 bits.
        let mut host = Self::from_facts(path.to_owned(), &facts, system.f_type as u32)?;
        if path_has_access_list(path) {
            host.privacy = host.privacy.common();
        }
        Ok(host)
    }

    /// What an open file is.
    pub(in crate::storage) fn of(path: PathBuf, file: &File) -> Result<Self> {
        let failed = |cause: io::Error| Error::io("inspect", cause);
        let facts = file.metadata().map_err(|e| failed(e).at_path(&path))?;
        let system = rustix::fs::fstatfs(file).map_err(|e| failed(e.into()).at_path(&path))?;
        let mut host = Self::from_facts(path, &facts, system.f_type as u32)?;
        if has_access_list(file) {
            host.privacy = host.privacy.common();
        }
        Ok(host)
    }

    /// The path, as it was given or resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or a device.
    pub fn kind(&self) -> HostKind {
        self.kind
    }

    /// Which file; for a device, which node.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// How many names the file has.
    pub fn link_count(&self) -> u64 {
        self.link_count
    }

    /// Whether it is a file without holes to speak of; an empty one is not.
    pub fn is_thick(&self) -> bool {
        self.is_thick
    }

    /// Who may use it, for files that are made of what it holds. Behind an access list the bits of
    /// the group tell nothing of the group, so only what all may do counts.
    pub fn privacy(&self) -> Privacy {
        self.privacy
    }

    /// By its number where it is a device.
    pub(in crate::storage) fn node(&self) -> Node {
        match self.device_number() {
            Some(number) => Node::Device(number),
            None => Node::File(self.id),
        }
    }

    /// The number of the device; `None` for a file.
    pub(in crate::storage) fn device_number(&self) -> Option<u64> {
        (self.kind == HostKind::Device).then_some(self.device_number)
    }

    /// Whether both are one file or one device, whatever their names.
    pub fn is_same(&self, other: &HostFile) -> bool {
        match (self.device_number(), other.device_number()) {
            (Some(mine), Some(theirs)) => mine == theirs,
            (None, None) => self.id == other.id,
            _ => false,
        }
    }

    pub(in crate::storage) fn into_path(self) -> PathBuf {
        self.path
    }

    fn from_facts(path: PathBuf, facts: &Metadata, system: u32) -> Result<Self> {
        let kind = facts.file_type();
        let what = if kind.is_block_device() {
            None
        } else if kind.is_dir() {
            Some("a directory")
        } else if kind.is_fifo() {
            Some("a pipe")
        } else if kind.is_socket() {
            Some("a socket")
        } else if kind.is_char_device() {
            Some("a character device")
        } else if !kind.is_file() {
            Some("neither a regular file nor a block device")
        } else if KERNEL_FILE_SYSTEMS.contains(&system) {
            Some("not a stored file, but a view into the kernel")
        } else {
            None
        };
        if let Some(what) = what {
            return Err(
                Error::new(ErrorKind::Unsupported, format!("this is {what}"))
                    .at_path(path)
                    .advise("name a regular file or a block device"),
            );
        }
        Ok(HostFile {
            kind: if kind.is_block_device() {
                HostKind::Device
            } else {
                HostKind::File
            },
            id: id_of(facts),
            link_count: facts.nlink(),
            device_number: facts.rdev(),
            is_thick: kind.is_file() && is_thick(facts),
            privacy: Privacy::of(facts.mode(), facts.gid()),
            path,
        })
    }
}

/// Which file these facts are of.
pub(in crate::storage) fn id_of(facts: &Metadata) -> FileId {
    FileId {
        device: facts.dev(),
        inode: facts.ino(),
    }
}

impl FileId {
    /// Which file or directory `path` leads to.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|facts| id_of(&facts))
    }

    /// As [`at`](FileId::at), with a link as the last part not followed.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn of_name(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|facts| id_of(&facts))
    }
}

/// The error for what is opened as a file and is none.
pub(super) fn not_regular(path: PathBuf) -> Error {
    Error::new(ErrorKind::Unsupported, "this is not a regular file").at_path(path)
}

/// Whether at least as much space is taken as a file is long.
pub(in crate::storage) fn is_thick(facts: &Metadata) -> bool {
    facts.len() > 0 && facts.blocks().saturating_mul(BLOCK_BYTES) >= facts.len()
}

/// What the system counts a file's space in.
const BLOCK_BYTES: u64 = 512;

/// File systems whose regular files are no stores of bytes: their lengths are 0 or invented.
const KERNEL_FILE_SYSTEMS: [u32; 14] = [
    0x0000_9fa0, // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0xde5e_81e4, // efivarfs
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0x6265_6570, // configfs
    0x1980_0202, // mqueue
    0xf97c_ff8c, // selinuxfs
    0x6e73_6673, // nsfs
];

//! What a path leads to, and which file it is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use windows_sys::Win32::Storage::FileSystem::{
    FILE_ATTRIBUTE_COMPRESSED, FILE_ATTRIBUTE_SPARSE_FILE, FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT, FILE_READ_ATTRIBUTES, FILE_SHARE_DELETE, FILE_SHARE_READ,
    FILE_SHARE_WRITE,
};

use super::calls::{Facts, facts};
use crate::error::{Error, ErrorKind, Result};
use crate::path_bytes::bytes_of;
use crate::storage::Privacy;
use crate::storage::host::file_id::{FileId, HostKind};

/// A regular file that a path led to.
#[derive(Debug, Clone)]
pub struct HostFile {
    path: PathBuf,
    id: FileId,
    link_count: u64,
    is_thick: bool,
}

impl HostFile {
    /// What `path` leads to, through links; nothing is opened for reading or writing.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `Unsupported` for anything but a regular file.
    pub fn at(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        refuse_devices(path)?;
        let failed = |cause: io::Error| Error::io("inspect", cause).at_path(path);
        let file = open_to_look(path, true).map_err(failed)?;
        Self::from_facts(path.to_owned(), &facts(&file).map_err(failed)?)
    }

    /// What an open file is.
    pub(super) fn of(path: PathBuf, file: &File) -> Result<Self> {
        match facts(file) {
            Ok(facts) => Self::from_facts(path, &facts),
            Err(cause) => Err(Error::io("inspect", cause).at_path(path)),
        }
    }

    /// The path, as it was given or resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file.
    pub fn kind(&self) -> HostKind {
        HostKind::File
    }

    /// Which file.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// How many names the file has.
    pub fn link_count(&self) -> u64 {
        self.link_count
    }

    /// Whether it is a file without holes; an empty one is not.
    pub fn is_thick(&self) -> bool {
        self.is_thick
    }

    /// Who may use it, for files that are made of what it holds: those whom the access list of the
    /// directory admits, which new files take over.
    pub fn privacy(&self) -> Privacy {
        Privacy::USUAL
    }

    /// Whether both are one file, whatever their names.
    pub fn is_same(&self, other: &HostFile) -> bool {
        self.id == other.id
    }

    pub(super) fn from_facts(path: PathBuf, facts: &Facts) -> Result<Self> {
        if facts.is_directory {
            return Err(Error::new(ErrorKind::Unsupported, "this is a directory")
                .at_path(path)
                .advise("name a regular file"));
        }
        Ok(HostFile {
            path,
            id: id_of(facts),
            link_count: u64::from(facts.links),
            is_thick: facts.len > 0 && !has_holes(facts),
        })
    }
}

impl FileId {
    /// Which file or directory `path` leads to.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        facts(&open_to_look(path, true)?).map(|facts| id_of(&facts))
    }

    /// As [`at`](FileId::at), with a link as the last part not followed.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn of_name(path: &Path) -> io::Result<Self> {
        facts(&open_to_look(path, false)?).map(|facts| id_of(&facts))
    }
}

/// Which file these facts are of. NTFS numbers its files with 64 bits; ReFS takes 128, of which a
/// hash stands here.
pub(super) fn id_of(facts: &Facts) -> FileId {
    let number = u128::from_le_bytes(facts.id);
    let inode = u64::try_from(number).unwrap_or_else(|_| {
        let hash = blake3::hash(&facts.id);
        let (first, _) = hash
            .as_bytes()
            .split_first_chunk()
            .unwrap_or((&[0; 8], &[]));
        u64::from_le_bytes(*first)
    });
    FileId {
        device: facts.volume,
        inode,
    }
}

/// Whether zeros need take no space.
pub(super) fn has_holes(facts: &Facts) -> bool {
    facts.attributes & (FILE_ATTRIBUTE_SPARSE_FILE | FILE_ATTRIBUTE_COMPRESSED) != 0
}

/// A handle that only shows what a file or directory is: no share mode of another keeps it from
/// being opened, and it keeps no other from anything.
pub(super) fn open_to_look(path: &Path, follows: bool) -> io::Result<File> {
    let flags = match follows {
        true => FILE_FLAG_BACKUP_SEMANTICS,
        false => FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT,
    };
    OpenOptions::new()
        .access_mode(FILE_READ_ATTRIBUTES)
        .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE)
        .custom_flags(flags)
        .open(path)
}

/// Refuses `\\.\PhysicalDrive0` and other devices.
///
/// # Errors
/// `Unsupported`.
pub(super) fn refuse_devices(path: &Path) -> Result<()> {
    let bytes = bytes_of(path);
    let is_volume = bytes.starts_with(br"\\?\Volume{") && path.file_name().is_none();
    if !bytes.starts_with(br"\\.\") && !bytes.starts_with(b"//./") && !is_volume {
        return Ok(());
    }
    let what = "disks and other devices are not supported on Windows";
    Err(Error::new(ErrorKind::Unsupported, what)
        .at_path(path)
        .advise("name a file"))
}

/// The error for what is opened as a file and is none.
pub(super) fn not_regular(path: PathBuf) -> Error {
    Error::new(ErrorKind::Unsupported, "this is not a regular file").at_path(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_number_and_a_long_number_by_its_hash() {
        let home = tempfile::tempdir().unwrap();
        let (one, other) = (home.path().join("one"), home.path().join("other"));
        std::fs::write(&one, b"1").unwrap();
        std::fs::write(&other, b"2").unwrap();
        let id = FileId::at(&one).unwrap();
        assert_eq!(FileId::of_name(&one).unwrap(), id);
        assert_ne!(FileId::at(&other).unwrap(), id);
        let link = home.path().join("link");
        std::fs::hard_link(&one, &link).unwrap();
        assert_eq!(FileId::at(&link).unwrap(), id);
        assert_eq!(HostFile::at(&link).unwrap().link_count(), 2);
        let mut facts = facts(&open_to_look(&one, true).unwrap()).unwrap();
        facts.id = 7u128.to_le_bytes();
        assert_eq!(id_of(&facts).inode, 7);
        facts.id = (7u128 << 64 | 7).to_le_bytes();
        let first = id_of(&facts);
        facts.id = (8u128 << 64 | 7).to_le_bytes();
        assert_ne!(id_of(&facts), first);
    }

    #[test]
    fn a_directory_and_a_device_are_refused_with_their_reason() {
        let home = tempfile::tempdir().unwrap();
        let error = HostFile::at(home.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let error = HostFile::at(r"\\.\PhysicalDrive0").unwrap_err();
        assert!(error.to_string().contains("not supported on Windows"));
    }
}

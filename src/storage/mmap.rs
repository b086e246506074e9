//! Files that nothing else changes, read through a memory map.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};

use super::past_end;
use super::read_only::ReadOnly;
use crate::error::{Error, ErrorKind, Result};

/// A file mapped into memory for reading, as long as it was when it was opened.
///
/// For manifests, and for images that do not change, as the caller knows. Nothing else may write to
/// the mapped part of the file or truncate it while this lives: changed bytes would be seen in the
/// middle of a read, and touching a page that was cut off kills the process. Bytes appended later
/// do no harm and are not seen.
#[derive(Debug)]
pub struct Mmap {
    path: PathBuf,
    map: memmap2::Mmap,
}

impl Mmap {
    /// Maps the file at `path`, which must be a regular file.
    ///
    /// # Errors
    /// `NotFound`, `Io`; `InvalidInput` for anything but a regular file.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let file = File::open(&path).map_err(|e| Error::io("open", e).at_path(&path))?;
        let metadata = file
            .metadata()
            .map_err(|e| Error::io("get the length of", e).at_path(&path))?;
        if !metadata.is_file() {
            let message = "only a regular file can be mapped";
            return Err(Error::new(ErrorKind::InvalidInput, message).at_path(path));
        }
        // SAFETY: the caller promises, as said above, that the file keeps its bytes and its length
        // while the map lives. Every reader treats the bytes as hostile and checks them first.
        let map =
            unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io("map", e).at_path(&path))?;
        Ok(Mmap { path, map })
    }
}

impl ReadOnly for Mmap {
    const WHAT: &'static str = "a mapped file";

    fn name(&self) -> &Path {
        &self.path
    }

    fn byte_len(&self) -> u64 {
        self.map.len() as u64
    }

    fn read_inside(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let from = usize::try_from(offset).ok();
        let rest = from.and_then(|from| self.map.get(from..));
        match rest.and_then(|rest| rest.get(..buf.len())) {
            Some(bytes) => buf.copy_from_slice(bytes),
            None => return Err(past_end(&self.path, offset, self.byte_len())),
        }
        Ok(())
    }

    fn memory(&self) -> Option<&[u8]> {
        Some(&self.map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Storage;

    #[test]
    fn a_mapped_file_reads_as_it_is_and_cannot_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        let map = Mmap::open(&path).unwrap();
        let mut buf = [0; 4];
        map.read_exact_at(&mut buf, 6).unwrap();
        assert_eq!(&buf, b"6789");
        let short = map.read_exact_at(&mut buf, 7).unwrap_err();
        assert_eq!(short.kind(), ErrorKind::Io);
        assert!(map.read_exact_at(&mut buf, u64::MAX).is_err());
        map.read_exact_at(&mut [], 1 << 40).unwrap();
        let changes = [
            map.write_all_at(b"x", 0),
            map.set_len(4),
            map.punch_hole(0..4),
            map.sync(),
        ];
        for change in changes {
            assert_eq!(change.unwrap_err().kind(), ErrorKind::Unsupported);
        }
        assert_eq!(map.next_data(3).unwrap(), Some(3..10));
        assert_eq!(map.next_data(10).unwrap(), None);
        assert_eq!(map.mapped(), Some(&b"0123456789"[..]));
    }

    #[test]
    fn an_empty_file_maps_and_a_directory_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        assert!(Mmap::open(&path).unwrap().is_empty().unwrap());
        assert!(Mmap::open(directory.path()).is_err());
    }
}

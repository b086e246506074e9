//! How fast a medium takes what is written to it, and gives it back.

use std::path::Path;
use std::time::Instant;

use crate::error::{ErrorKind, Result};
use crate::progress::Work;
use crate::storage::{FileStorage, Storage};

/// Seconds a byte.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Throughput {
    /// Written, and durable.
    pub write: f64,
    /// Read back from the medium.
    pub back: f64,
}

impl Throughput {
    /// That of the medium of a directory, seen by a file of 32 MiB that has no name and is gone
    /// then. `otherwise` where there can be none: without a directory, without room, or where the
    /// file system knows no such files.
    pub(crate) fn at(directory: Option<&Path>, otherwise: f64, work: &Work) -> Result<Self> {
        let tried = directory.map_or(Ok(None), |directory| measured(directory, work));
        let throughput = match tried {
            Err(error) if error.kind() == ErrorKind::NoSpace => None,
            tried => tried?,
        };
        Ok(throughput.unwrap_or(Throughput {
            write: otherwise,
            back: otherwise,
        }))
    }
}

fn measured(directory: &Path, work: &Work) -> Result<Option<Throughput>> {
    let Some(file) = FileStorage::nameless(directory)? else {
        return Ok(None);
    };
    let mut bytes = vec![0; PIECE_BYTES];
    // What neither packs nor is there twice.
    let mut noise = blake3::Hasher::new().finalize_xof();
    let offsets = || (0..BYTES).step_by(PIECE_BYTES);
    let mut write = 0.0;
    for offset in offsets() {
        work.cancel().check()?;
        noise.fill(&mut bytes);
        let begun = Instant::now();
        file.write_all_at(&bytes, offset)?;
        write += begun.elapsed().as_secs_f64();
    }
    let begun = Instant::now();
    file.sync()?;
    write += begun.elapsed().as_secs_f64();
    file.drop_cache(0..BYTES);
    let begun = Instant::now();
    for offset in offsets() {
        work.cancel().check()?;
        file.read_exact_at(&mut bytes, offset)?;
    }
    Ok(Some(Throughput {
        write: write / BYTES as f64,
        back: begun.elapsed().as_secs_f64() / BYTES as f64,
    }))
}

const BYTES: u64 = 32 << 20;
const PIECE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_tried_and_nothing_is_left_there() {
        let directory = tempfile::tempdir().unwrap();
        let work = Work::with_threads(1).unwrap();
        let throughput = Throughput::at(Some(directory.path()), -1.0, &work).unwrap();
        let tried = FileStorage::nameless(directory.path()).unwrap().is_some();
        assert!(throughput.write > 0.0 && throughput.back > 0.0 || !tried);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

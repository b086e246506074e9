//! How fast a medium takes what is written to it, and gives it back.

use std::time::Instant;

use super::disk_path::DiskPath;
use crate::error::{ErrorKind, Result};
use crate::progress::Work;
use crate::storage::{FileStorage, Storage};

/// Seconds a byte.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ThroughputProbe {
    /// Written, and durable.
    pub write: f64,
    /// Read back from the medium.
    pub back: f64,
}

impl ThroughputProbe {
    /// That of the medium of a disk, seen by a file of 32 MiB that has no name and is gone then.
    /// `otherwise` where there can be none: onto a device, without room, or where the file system
    /// knows no such files.
    pub(super) fn at(disk_path: &DiskPath, otherwise: f64, work: &Work) -> Result<Self> {
        let tried = match disk_path.is_device {
            true => Ok(None),
            false => measured(disk_path, work),
        };
        let throughput = match tried {
            Err(error) if error.kind() == ErrorKind::NoSpace => None,
            tried => tried?,
        };
        Ok(throughput.unwrap_or(ThroughputProbe {
            write: otherwise,
            back: otherwise,
        }))
    }
}

fn measured(disk_path: &DiskPath, work: &Work) -> Result<Option<ThroughputProbe>> {
    let Some(file) = FileStorage::nameless(disk_path.directory())? else {
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
    Ok(Some(ThroughputProbe {
        write: write / BYTES as f64,
        back: begun.elapsed().as_secs_f64() / BYTES as f64,
    }))
}

const BYTES: u64 = 32 << 20;
const PIECE_BYTES: usize = 1 << 20;

#[cfg(test)]
#[path = "../../../tests/inside/failback/throughput_probe.rs"]
mod tests;

//! The stamps of files and block devices.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::devices::kernel::Kernel;
use super::host_file::id_of;
use crate::error::{Error, Result};
use crate::storage::host::file_id::FileId;
use crate::storage::host::stamp::SourceStamp;

impl SourceStamp {
    pub(in crate::storage) fn of_file(path: &Path, file: &File) -> Result<Self> {
        let facts = file
            .metadata()
            .map_err(|e| Error::io("inspect file", e).at_path(path))?;
        Ok(SourceStamp {
            id: id_of(&facts),
            len: facts.len(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
            is_device: false,
            sectors_written: None,
        })
    }

    pub(in crate::storage) fn of_device(path: &Path, file: &File, len: u64) -> Result<Self> {
        let failed = |cause| Error::io("inspect device", cause).at_path(path);
        // Writes made before this moment must be counted now and not when they reach the device.
        // Where that is not possible a change is reported once too often.
        let _ = file.sync_all();
        let number = file.metadata().map_err(failed)?.rdev();
        Ok(SourceStamp {
            id: FileId {
                device: number,
                inode: 0,
            },
            len,
            modified: (0, 0),
            changed: (0, 0),
            is_device: true,
            sectors_written: sectors_written(&Kernel::host(), number),
        })
    }
}

/// The seventh number of the device's statistics.
fn sectors_written(kernel: &Kernel, number: u64) -> Option<u64> {
    let text = fs::read_to_string(kernel.device_directory(number)?.join("stat")).ok()?;
    text.split_ascii_whitespace().nth(6)?.parse().ok()
}

/// What is another after each start of the system.
pub(in crate::storage) fn boot_id() -> Option<Vec<u8>> {
    fs::read(BOOT_ID).ok()
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

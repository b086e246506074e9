//! What shows that a source was changed by another program while it was read.

use std::time::{SystemTime, UNIX_EPOCH};

use super::boot_id;
use super::file_id::FileId;

/// Facts about a source at one moment that a change by another program would alter.
///
/// For a file: which file it is, its length, and when it was changed. For a block device: which it
/// is, its length, and how much the kernel has written to it since it started; writes that a
/// storage system makes behind the kernel's back are not seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStamp {
    pub(super) id: FileId,
    pub(super) len: u64,
    pub(super) modified: (i64, i64),
    pub(super) changed: (i64, i64),
    pub(super) is_device: bool,
    pub(super) sectors_written: Option<u64>,
}

impl SourceStamp {
    /// What shows that it was changed until `now`.
    pub(in crate::storage) fn difference(&self, now: &SourceStamp) -> Option<&'static str> {
        if now.id != self.id {
            Some("it is another file now")
        } else if now.len != self.len {
            Some("its length changed")
        } else if now.sectors_written != self.sectors_written {
            Some("another program wrote to the device")
        } else if now.modified != self.modified {
            Some("its modification time changed")
        } else if now.changed != self.changed {
            Some("its change time changed")
        } else {
            None
        }
    }

    /// The file it is of; `None` for a device.
    #[cfg(feature = "imago")]
    pub(in crate::storage) fn file(&self) -> Option<FileId> {
        (self.id.inode != 0).then_some(self.id)
    }

    /// A short name for these facts that a later run can compare with its own; `None` where they
    /// do not tell all changes. A device's names only last until the system restarts.
    pub fn fingerprint(&self) -> Option<[u8; 32]> {
        let mut hasher = blake3::Hasher::new_derive_key(FINGERPRINT);
        let mut take = |number: u64| {
            hasher.update(&number.to_le_bytes());
        };
        take(self.id.inode);
        take(self.len);
        if self.is_device {
            // The kernel numbers its devices and counts what it writes anew at each start.
            take(self.id.device);
            take(self.sectors_written?);
            hasher.update(&boot_id()?);
        } else {
            for (seconds, nanoseconds) in [self.modified, self.changed] {
                take(seconds.cast_unsigned());
                take(nanoseconds.cast_unsigned());
            }
        }
        Some(hasher.finalize().into())
    }

    /// Which file or device it is, as long as the system does not renumber its devices.
    pub(crate) fn identity(&self) -> [u8; 16] {
        (u128::from(self.id.device) << 64 | u128::from(self.id.inode)).to_le_bytes()
    }

    /// Whether a write after `now`, when the stamp was about to be taken, must show in it. A file
    /// that was changed just before may be changed again without another time.
    pub(crate) fn is_settled(&self, now: SystemTime) -> bool {
        let Ok(now) = now.duration_since(UNIX_EPOCH) else {
            return false;
        };
        let before = i64::try_from(now.as_secs()).map_or(i64::MAX, |now| now - STABLE_SECONDS);
        self.is_device || (self.modified.0 < before && self.changed.0 < before)
    }
}

/// File systems count times in ticks, the coarsest of them in two seconds.
const STABLE_SECONDS: i64 = 2;
const FINGERPRINT: &str = "diskdelta 2026-11 fingerprint of an unchanged file or device";

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_stamp_is_settled_when_a_later_change_must_have_a_later_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        file.as_file().set_modified(long_ago).unwrap();
        let stamp = SourceStamp::of_file(file.path(), file.as_file()).unwrap();
        let changed = Duration::from_secs(stamp.changed.0.cast_unsigned());
        let after = |seconds: u64| UNIX_EPOCH + changed + Duration::from_secs(seconds);
        for (seconds, is) in [(0, false), (1, false), (2, false), (3, true), (60, true)] {
            assert_eq!(stamp.is_settled(after(seconds)), is, "{seconds}");
        }
        assert!(!stamp.is_settled(UNIX_EPOCH - Duration::from_secs(1)));
        // Its own time was set ahead, and counts then.
        let ahead = UNIX_EPOCH + changed + Duration::from_secs(3600);
        file.as_file().set_modified(ahead).unwrap();
        let stamp = SourceStamp::of_file(file.path(), file.as_file()).unwrap();
        for (seconds, is) in [(60, false), (3602, false), (3603, true)] {
            assert_eq!(stamp.is_settled(after(seconds)), is, "{seconds}");
        }
    }

    #[test]
    fn a_file_is_known_by_its_file_system_and_its_number_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = SourceStamp::of_file(file.path(), file.as_file()).unwrap();
        let identity = |device: u64, inode: u64| {
            let id = FileId { device, inode };
            let stamp = SourceStamp {
                id,
                ..stamp.clone()
            };
            stamp.identity()
        };
        assert_eq!(identity(1, 2), identity(1, 2));
        let all = [
            identity(1, 2),
            identity(2, 1),
            identity(1, 3),
            identity(3, 2),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one), "{index}");
        }
    }
}

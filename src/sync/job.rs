//! The description of its job that a redo log carries.

use crate::delta::{FrameKind, JobId, Purpose, peek};
use crate::limits::Limits;
use crate::path_bytes::{bytes_of, path_of};
use crate::storage::{Access, FileRef};
use std::path::PathBuf;

use super::endpoint::target::Target;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Format;
use crate::storage::Storage;

/// What recovery must know besides the frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// How the target is read.
    pub format: Format,
    /// Length of the target's storage before the job, in bytes.
    pub target_len: u64,
    /// Where the target was.
    pub target: PathBuf,
    /// The number of the target's file on its file system, where it is known.
    pub target_inode: Option<u64>,
    /// The target manifest that a finished job replaces, and its successor.
    pub manifest: Option<PathBuf>,
}

impl Job {
    /// A job for the target in `storage`.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn of(
        target: &Target,
        storage: &dyn Storage,
        manifest: Option<PathBuf>,
    ) -> Result<Job> {
        Ok(Job {
            format: target.format(),
            target_len: storage.len()?,
            target: target.path(),
            target_inode: storage.file_id()?.map(|id| id.inode),
            manifest,
        })
    }

    /// Whether `storage` may be the target's file, whatever it is called now.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn is_for(&self, storage: &dyn Storage) -> Result<bool> {
        let found = storage.file_id()?;
        Ok(match (self.target_inode, found) {
            (Some(wanted), Some(found)) => wanted == found.inode,
            // A device, whose log is found by its lasting name.
            _ => true,
        })
    }

    /// Format name, length, number of the file, target path, manifest path; each text behind its
    /// length.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.target_len.to_le_bytes());
        out.extend_from_slice(&self.target_inode.unwrap_or(0).to_le_bytes());
        let manifest = self.manifest.as_ref().map(bytes_of);
        let texts = [
            self.format.name().as_bytes(),
            bytes_of(&self.target),
            manifest.unwrap_or(b""),
        ];
        for text in texts {
            // Paths are at most 4096 bytes; 32 bits hold any length that memory holds here.
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text);
        }
        out
    }

    /// # Errors
    /// `Malformed`.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let wrong =
            || Error::malformed("the redo log's job description is damaged").in_field("job");
        let (version, rest) = bytes.split_first_chunk::<4>().ok_or_else(wrong)?;
        let (target_len, rest) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
        let (target_inode, mut rest) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
        let mut text = || {
            let (len, tail) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
            let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| wrong())?;
            let (text, tail) = tail.split_at_checked(len).ok_or_else(wrong)?;
            rest = tail;
            Ok::<_, Error>(text.to_vec())
        };
        let (format, target, manifest) = (text()?, text()?, text()?);
        if u32::from_le_bytes(*version) != VERSION {
            return Err(wrong());
        }
        let format = String::from_utf8(format).map_err(|_| wrong())?;
        Ok(Job {
            format: Format::parse(&format)?,
            target_len: u64::from_le_bytes(*target_len),
            target_inode: Some(u64::from_le_bytes(*target_inode)).filter(|number| *number != 0),
            target: path_of(&target).into_owned(),
            manifest: (!manifest.is_empty()).then(|| path_of(&manifest).into_owned()),
        })
    }
}

const VERSION: u32 = 2;

/// The job that the redo log or sidecar at `place` is for; `None` where there is none, or another
/// file.
///
/// # Errors
/// `Untrusted` for a file that this program may not have made; `Io`.
pub(in crate::sync) fn read_job(
    file_ref: &FileRef,
    limits: &Limits,
) -> Result<Option<(JobId, Purpose, Job)>> {
    let Some(storage) = file_ref.open_own_if_there(Access::Read)? else {
        return Ok(None);
    };
    let begins = match peek(&*storage, limits) {
        Ok(begins) => begins,
        Err(error) if error.kind() == ErrorKind::Io => return Err(error),
        Err(_) => return Ok(None),
    };
    let (id, purpose) = (begins.header.job, begins.header.purpose);
    Ok(match begins.first {
        Some((FrameKind::Job, bytes)) if matches!(purpose, Purpose::RedoLog | Purpose::Sidecar) => {
            Job::decode(&bytes).ok().map(|job| (id, purpose, job))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_cut_anywhere_is_an_error() {
        let job = Job {
            format: Format::Raw,
            target_len: 77,
            target: "/a/b".into(),
            target_inode: Some(5),
            manifest: Some("/c".into()),
        };
        let bytes = job.encode();
        assert_eq!(Job::decode(&bytes).unwrap(), job);
        for len in 0..bytes.len() {
            assert!(Job::decode(&bytes[..len]).is_err(), "{len}");
        }
    }
}

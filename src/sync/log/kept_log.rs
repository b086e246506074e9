//! Logs and sidecars that are kept because the marked disk that they finish is not where it was.

use std::ffi::OsString;
use std::sync::Arc;

use crate::delta::JobId;
use crate::error::{ErrorKind, Result};
use crate::storage::{Directory, FileRef};
use crate::sync::endpoint::target::LOG_SUFFIX;

/// Gives a complete log a name with the id of its job, which no later sync takes: `redo_log` is
/// free then. Durable when it returns. Says what it did.
///
/// # Errors
/// As [`Directory::rename_new`](crate::storage::Directory::rename_new).
pub(in crate::sync) fn keep(redo_log: &FileRef, job: JobId) -> Result<String> {
    let kept = file_ref(redo_log, job);
    match redo_log.rename_new(&kept) {
        // A crash in the middle of an earlier renaming left both names.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let directory = redo_log.directory();
            if directory.file_id(redo_log.name())? != directory.file_id(kept.name())? {
                return Err(error.advise("move one of the two logs elsewhere"));
            }
            redo_log.remove_if_there()?;
        }
        renamed => renamed?,
    }
    redo_log.directory().sync()?;
    Ok(left(&kept))
}

/// What to do with a complete log at `kept` that the target has no use for.
pub(in crate::sync) fn left(kept: &FileRef) -> String {
    format!(
        "the log of an unfinished sync is kept as {}: the target does not carry its marker; \
         recover the disk that does with it, or remove it",
        kept.path().display()
    )
}

/// The log of `job` that was kept in `directory`, whatever its disk was called.
///
/// # Errors
/// `Io`.
pub(in crate::sync) fn find(directory: &Arc<dyn Directory>, job: JobId) -> Result<Option<FileRef>> {
    let end = format!(".{job}.{LOG_SUFFIX}");
    let names = directory.names()?;
    let found = names
        .into_iter()
        .find(|name| name.as_encoded_bytes().ends_with(end.as_bytes()));
    Ok(found.map(|name| FileRef::new(directory.clone(), name)))
}

/// `STEM.JOB.diskdelta-log` of `STEM.diskdelta-log`, or a name made from that where it is too
/// long.
fn file_ref(redo_log: &FileRef, job: JobId) -> FileRef {
    let end = format!(".{LOG_SUFFIX}");
    let name = redo_log.name().as_encoded_bytes();
    let stem = name
        .strip_suffix(end.as_bytes())
        .and_then(|stem| str::from_utf8(stem).ok());
    match stem.filter(|_| name.len() + JOB_LEN <= NAME_MOST) {
        Some(stem) => {
            let name = OsString::from(format!("{stem}.{job}{end}"));
            FileRef::new(redo_log.directory().clone(), name)
        }
        None => redo_log.run_sibling(&job.to_string(), LOG_SUFFIX),
    }
}

/// What file systems allow.
const NAME_MOST: usize = 255;
/// A dot and 32 digits.
const JOB_LEN: usize = 33;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryDirectory;

    #[test]
    fn a_kept_log_has_the_id_of_its_job_and_is_found_by_it() {
        let job = JobId([0xab; 16]);
        let names = [
            ".disk.raw.diskdelta-log".to_owned(),
            format!(".{}.diskdelta-log", "x".repeat(240)),
        ];
        for name in names {
            let redo_log = FileRef::new(Arc::new(MemoryDirectory::new()), &name);
            redo_log
                .create_new()
                .unwrap()
                .write_all_at(b"log", 0)
                .unwrap();
            assert!(find(redo_log.directory(), job).unwrap().is_none());
            keep(&redo_log, job).unwrap();
            let kept = find(redo_log.directory(), job).unwrap().unwrap();
            assert!(!redo_log.is_there().unwrap() && kept.is_there().unwrap());
            assert!(kept.name().len() <= NAME_MOST);
            assert!(
                find(redo_log.directory(), JobId([1; 16]))
                    .unwrap()
                    .is_none()
            );
            redo_log.create_new().unwrap();
            assert!(keep(&redo_log, job).is_err(), "two logs of one job");
            assert!(redo_log.is_there().unwrap() && kept.is_there().unwrap());
        }
    }
}

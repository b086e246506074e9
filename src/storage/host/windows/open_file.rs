//! An open file that gives way when another file takes its name.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use super::calls::{facts, reopen_unbuffered};
use super::host_file::id_of;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::host::file_id::FileId;
use crate::storage::poisoned;

/// An open file. Its share mode keeps others out as long as it is open.
#[derive(Debug)]
pub(super) struct OpenFile {
    path: PathBuf,
    id: FileId,
    handles: RwLock<Option<Handles>>,
    is_poisoned: AtomicBool,
}

#[derive(Debug)]
struct Handles {
    file: File,
    /// Reads of it come from the medium; `None` inside where the system gives none.
    unbuffered: OnceLock<Option<File>>,
}

/// All that this process has open, to be found by what they are.
static OPEN: Mutex<Vec<Weak<OpenFile>>> = Mutex::new(Vec::new());

impl OpenFile {
    pub(super) fn new(path: PathBuf, file: File) -> Result<Arc<Self>> {
        let id = match facts(&file) {
            Ok(facts) => id_of(&facts),
            Err(cause) => return Err(Error::io("inspect", cause).at_path(path)),
        };
        let open = Arc::new(OpenFile {
            path,
            id,
            handles: RwLock::new(Some(Handles {
                file,
                unbuffered: OnceLock::new(),
            })),
            is_poisoned: AtomicBool::new(false),
        });
        let mut all = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|it| it.strong_count() > 0);
        all.push(Arc::downgrade(&open));
        Ok(open)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Fails once a sync has failed.
    pub(super) fn usable(&self) -> Result<()> {
        match self.is_poisoned.load(Ordering::SeqCst) {
            true => Err(poisoned(&self.path)),
            false => Ok(()),
        }
    }

    /// Does something with the file, unless it gave way.
    pub(super) fn with<T>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&File) -> io::Result<T>,
    ) -> Result<T> {
        self.with_handles(operation, |handles| act(&handles.file))
    }

    /// As [`with`](OpenFile::with), by a handle whose reads come from the medium, where there is
    /// one.
    pub(super) fn with_unbuffered<T>(
        &self,
        operation: &'static str,
        act: impl FnOnce(Option<&File>) -> io::Result<T>,
    ) -> Result<T> {
        self.with_handles(operation, |handles| {
            let reopen = || reopen_unbuffered(&handles.file).ok();
            act(handles.unbuffered.get_or_init(reopen).as_ref())
        })
    }

    fn with_handles<T>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&Handles) -> io::Result<T>,
    ) -> Result<T> {
        self.usable()?;
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        match &*handles {
            Some(handles) => {
                act(handles).map_err(|cause| Error::io(operation, cause).at_path(&self.path))
            }
            None => {
                let what = "the file is closed, because another one has its name now";
                Err(Error::new(ErrorKind::TargetChanged, what).at_path(&self.path))
            }
        }
    }

    pub(super) fn sync(&self) -> Result<()> {
        let synced = self.with("sync", File::sync_all);
        synced.inspect_err(|_| self.is_poisoned.store(true, Ordering::SeqCst))
    }
}

/// Closes what this process has open of a file whose name another one is to take: a file system
/// without the rename of POSIX replaces no open file. Whether there was any.
pub(super) fn give_way(id: FileId) -> bool {
    let all = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let of_it = all
        .iter()
        .filter_map(Weak::upgrade)
        .filter(|it| it.id == id);
    let mut any = false;
    for open in of_it {
        let mut handles = open.handles.write().unwrap_or_else(PoisonError::into_inner);
        any |= handles.take().is_some();
    }
    any
}

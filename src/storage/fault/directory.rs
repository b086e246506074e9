//! A directory of a disk.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::handle::{FaultStorage, id_of};
use super::inject::Failure;
use super::inner::{Shared, missing};
use super::op::{Effect, OpKind, Outcome, without_ids};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::host::access::own;
use crate::storage::{Access, Directory, FileId, Privacy, Storage};

/// A directory of a [`FaultDisk`](super::FaultDisk); clones show the same directory.
#[derive(Debug, Clone)]
pub struct FaultDirectory {
    disk: Shared,
    path: Arc<Path>,
}

impl FaultDirectory {
    pub(super) fn new(disk: Shared, path: Arc<Path>) -> Self {
        FaultDirectory { disk, path }
    }

    /// The path that stands in the log.
    fn logged(&self, name: &OsStr) -> PathBuf {
        without_ids(&self.path.join(name))
    }
}

impl Directory for FaultDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(FaultStorage::open(
            &self.disk,
            &self.path.join(name),
            access,
        )?))
    }

    fn open_own(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        let path = self.path.join(name);
        let file = FaultStorage::open(&self.disk, &path, access)?;
        let is_foreign = self.disk.lock().is_foreign(file.id());
        match is_foreign {
            true => Err(own::refusal("the test made it another user's", path)),
            false => Ok(Arc::new(file)),
        }
    }

    fn trust(&self, name: &OsStr) -> Result<()> {
        let path = self.logged(name);
        let mut inner = self.disk.lock();
        let Some(file) = inner.live.named(&self.path, name) else {
            return Err(missing(&path));
        };
        inner.set_foreign(file, false);
        Ok(())
    }

    fn create(&self, name: &OsStr, _privacy: Privacy) -> Result<Arc<dyn Storage>> {
        let path = self.logged(name);
        let mut inner = self.disk.lock();
        let late = inner.judge(OpKind::Create, &path, 0..0)?;
        if inner.live.named(&self.path, name).is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, "exists already").at_path(path));
        }
        let file = inner.new_file();
        inner.live.contents_mut(file);
        let (directory, name) = (self.path.clone(), name.to_owned());
        let effect = Effect::Create {
            directory,
            name,
            file,
        };
        inner.log(OpKind::Create, &path, effect, Outcome::Done);
        late.done()?;
        inner.add_writer(file);
        let disk = self.disk.clone();
        Ok(Arc::new(FaultStorage::new(
            disk,
            file,
            path.into(),
            Access::Write,
            0,
        )))
    }

    fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let path = self.logged(from);
        let mut inner = self.disk.lock();
        let late = inner.judge(OpKind::Rename, &path, 0..0)?;
        let Some(file) = inner.live.named(&self.path, from) else {
            return Err(missing(&path));
        };
        let (directory, to) = (self.path.clone(), to.to_owned());
        let effect = Effect::Rename {
            directory,
            to,
            file,
        };
        inner.log(OpKind::Rename, &path, effect, Outcome::Done);
        late.done()
    }

    fn exchange(&self, one: &OsStr, other: &OsStr) -> Result<bool> {
        let path = self.logged(one);
        let mut inner = self.disk.lock();
        if !inner.live.clones {
            return Ok(false);
        }
        let late = inner.judge(OpKind::Rename, &path, 0..0)?;
        let named = |name: &OsStr| {
            let file = inner.live.named(&self.path, name);
            file.map(|file| (name.to_owned(), file))
                .ok_or_else(|| missing(&self.logged(name)))
        };
        let (one, other) = (named(one)?, named(other)?);
        let directory = self.path.clone();
        let effect = Effect::Exchange {
            directory,
            one,
            other,
        };
        inner.log(OpKind::Rename, &path, effect, Outcome::Done);
        late.done().map(|()| true)
    }

    fn can_clone(&self) -> Result<bool> {
        Ok(self.disk.lock().live.clones)
    }

    fn rename_new(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let taken = self.logged(to);
        let must_link = {
            let inner = self.disk.lock();
            if inner.live.named(&self.path, to).is_some() {
                return Err(Error::new(ErrorKind::AlreadyExists, "exists already").at_path(taken));
            }
            inner.links_to_rename()
        };
        if !must_link {
            return self.rename(from, to);
        }
        {
            let mut inner = self.disk.lock();
            let late = inner.judge(OpKind::Create, &taken, 0..0)?;
            let Some(file) = inner.live.named(&self.path, from) else {
                return Err(missing(&self.logged(from)));
            };
            let (directory, name) = (self.path.clone(), to.to_owned());
            let effect = Effect::Create {
                directory,
                name,
                file,
            };
            inner.log(OpKind::Create, &taken, effect, Outcome::Done);
            late.done()?;
        }
        self.remove(from)
    }

    fn remove_unused(&self, name: &OsStr) -> Result<bool> {
        {
            let inner = self.disk.lock();
            let Some(file) = inner.live.named(&self.path, name) else {
                return Ok(false);
            };
            if inner.is_foreign(file) || inner.has_writers(file) {
                return Ok(false);
            }
        }
        self.remove(name).map(|()| true)
    }

    fn file_id(&self, name: &OsStr) -> Result<Option<FileId>> {
        let file = self.disk.lock().live.named(&self.path, name);
        Ok(file.map(id_of))
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        let path = self.logged(name);
        let mut inner = self.disk.lock();
        let late = inner.judge(OpKind::Remove, &path, 0..0)?;
        if inner.live.named(&self.path, name).is_none() {
            return Err(missing(&path));
        }
        let (directory, name) = (self.path.clone(), name.to_owned());
        inner.log(
            OpKind::Remove,
            &path,
            Effect::Remove { directory, name },
            Outcome::Done,
        );
        late.done()
    }

    fn names(&self) -> Result<Vec<OsString>> {
        let mut inner = self.disk.lock();
        inner.judge(OpKind::Names, &self.path, 0..0)?.done()?;
        Ok(inner.live.names(&self.path))
    }

    fn sync(&self) -> Result<()> {
        let mut inner = self.disk.lock();
        let directory = self.path.clone();
        let outcome = inner.sync_outcome(&self.path);
        let (outcome, end) = match inner.judge_open(OpKind::SyncDirectory, &self.path, 0..0) {
            None => (outcome, Ok(())),
            Some((Failure::Late, error)) => (Outcome::Done, Err(error)),
            Some((_, error)) => (Outcome::Failed, Err(error)),
        };
        inner.log(
            OpKind::SyncDirectory,
            &self.path,
            Effect::SyncDirectory { directory },
            outcome,
        );
        end
    }

    fn copy_attributes(&self, from: &OsStr, to: &OsStr) -> Result<Vec<String>> {
        let path = self.logged(to);
        let mut inner = self.disk.lock();
        let late = inner.judge(OpKind::Attributes, &path, 0..0)?;
        let named = |name| {
            let file = inner.live.named(&self.path, name);
            file.ok_or_else(|| missing(&self.logged(name)))
        };
        let (from, file) = (named(from)?, named(to)?);
        let attributes = inner.live.attributes(from);
        let effect = Effect::Attributes { file, attributes };
        inner.log(OpKind::Attributes, &path, effect, Outcome::Done);
        late.done().map(|()| Vec::new())
    }
}

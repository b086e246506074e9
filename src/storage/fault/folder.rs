//! A folder of a [`FaultDisk`].

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use super::disk::{FaultDisk, missing};
use super::handle::FaultStorage;
use super::inject::Failure;
use super::log::{Effect, OpKind, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Access, Folder, Storage};

/// A folder of a [`FaultDisk`]; clones show the same folder.
#[derive(Debug, Clone)]
pub struct FaultFolder {
    disk: FaultDisk,
    path: Arc<Path>,
}

impl FaultFolder {
    pub(super) fn new(disk: FaultDisk, path: Arc<Path>) -> Self {
        FaultFolder { disk, path }
    }
}

impl Folder for FaultFolder {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self, name: &OsStr, access: Access) -> Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.disk.open(self.path.join(name), access)?))
    }

    fn create_new(&self, name: &OsStr) -> Result<Arc<dyn Storage>> {
        let path = self.path.join(name);
        let mut inner = self.disk.lock();
        let late = inner.judge(OpKind::Create, &path, 0..0)?;
        if inner.live.named(&self.path, name).is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, "exists already").at_path(path));
        }
        let file = inner.new_file();
        inner.live.row_mut(file);
        let (folder, name) = (self.path.clone(), name.to_owned());
        let effect = Effect::Create { folder, name, file };
        inner.log(OpKind::Create, &path, effect, Outcome::Done);
        late.done()?;
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
        let path = self.path.join(from);
        let mut inner = self.disk.lock();
        let late = inner.judge(OpKind::Rename, &path, 0..0)?;
        let Some(file) = inner.live.named(&self.path, from) else {
            return Err(missing(&path));
        };
        let (folder, to) = (self.path.clone(), to.to_owned());
        let effect = Effect::Rename { folder, to, file };
        inner.log(OpKind::Rename, &path, effect, Outcome::Done);
        late.done()
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        let path = self.path.join(name);
        let mut inner = self.disk.lock();
        let late = inner.judge(OpKind::Remove, &path, 0..0)?;
        if inner.live.named(&self.path, name).is_none() {
            return Err(missing(&path));
        }
        let (folder, name) = (self.path.clone(), name.to_owned());
        inner.log(
            OpKind::Remove,
            &path,
            Effect::Remove { folder, name },
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
        let folder = self.path.clone();
        let outcome = inner.sync_outcome(&self.path);
        let (outcome, end) = match inner.judge_open(OpKind::SyncFolder, &self.path, 0..0) {
            None => (outcome, Ok(())),
            Some((Failure::Late, error)) => (Outcome::Done, Err(error)),
            Some((_, error)) => (Outcome::Failed, Err(error)),
        };
        inner.log(
            OpKind::SyncFolder,
            &self.path,
            Effect::SyncFolder { folder },
            outcome,
        );
        end
    }

    fn copy_attributes(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        let path = self.path.join(to);
        let mut inner = self.disk.lock();
        let late = inner.judge(OpKind::Attributes, &path, 0..0)?;
        for name in [from, to] {
            if inner.live.named(&self.path, name).is_none() {
                return Err(missing(&self.path.join(name)));
            }
        }
        inner.log(OpKind::Attributes, &path, Effect::Nothing, Outcome::Done);
        late.done()
    }
}

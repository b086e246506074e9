//! An open file or device of a disk.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::contents::Patch;
use super::inject::Failure;
use super::inner::{Inner, Shared, missing};
use super::op::{Effect, FileId, OpKind, Outcome, without_ids};
use crate::error::codes::{self, system_error};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{self, Access, Storage, outside, past_end, poisoned, range_end};

/// An open file or device of a [`FaultDisk`](super::FaultDisk).
#[derive(Debug)]
pub struct FaultStorage {
    disk: Shared,
    file: FileId,
    path: Arc<Path>,
    access: Access,
    poisoned: AtomicBool,
    /// How many syncs of the file had failed when it was opened: a later failure is reported to
    /// every handle once.
    failures_seen: u64,
}

impl FaultStorage {
    pub(super) fn open(disk: &Shared, path: &Path, access: Access) -> Result<Self> {
        let mut inner = disk.lock();
        let logged = without_ids(path);
        let late = inner.judge(OpKind::Open, &logged, 0..0)?;
        let Some(file) = inner.live.find(path) else {
            return Err(missing(path));
        };
        late.done()?;
        if access == Access::Write {
            inner.add_writer(file);
        }
        let failures = *inner.sync_failures(file);
        Ok(FaultStorage::new(
            disk.clone(),
            file,
            logged.into(),
            access,
            failures,
        ))
    }

    pub(super) fn new(
        disk: Shared,
        file: FileId,
        path: Arc<Path>,
        access: Access,
        failures_seen: u64,
    ) -> Self {
        FaultStorage {
            disk,
            file,
            path,
            access,
            poisoned: AtomicBool::new(false),
            failures_seen,
        }
    }

    pub(super) fn id(&self) -> FileId {
        self.file
    }

    fn usable(&self) -> Result<()> {
        if self.poisoned.load(Ordering::SeqCst) {
            return Err(poisoned(&self.path));
        }
        Ok(())
    }

    fn writable(&self, kind: OpKind) -> Result<()> {
        self.usable()?;
        match self.access {
            Access::Read => Err(Error::io(
                kind.operation(),
                system_error(codes::NOT_OPEN_FOR_THAT),
            )
            .at_path(&self.path)),
            Access::Write => Ok(()),
        }
    }

    fn row_len(&self, inner: &Inner) -> u64 {
        inner
            .live
            .contents(self.file)
            .map_or(0, |contents| contents.len())
    }

    fn write(&self, kind: OpKind, patch: Patch) -> Result<()> {
        let mut inner = self.disk.lock();
        let range = patch.range.clone();
        let len_before = self.row_len(&inner);
        if range.end > len_before && inner.live.is_device(self.file) {
            return Err(outside(&self.path, &range, len_before));
        }
        let write = |patch| Effect::Write {
            file: self.file,
            patch,
            len_before,
        };
        let Some((failure, error)) = inner.judge_open(kind, &self.path, range) else {
            inner.log(kind, &self.path, write(patch), Outcome::Done);
            return Ok(());
        };
        let (effect, outcome) = match failure {
            Failure::Late => (write(patch), Outcome::Done),
            Failure::Short => {
                let half = patch.first_half().map_or(Effect::Nothing, write);
                (half, Outcome::Failed)
            }
            _ => (Effect::Nothing, Outcome::Failed),
        };
        inner.log(kind, &self.path, effect, outcome);
        Err(error)
    }
}

impl Storage for FaultStorage {
    fn path(&self) -> &Path {
        &self.path
    }

    fn file_id(&self) -> Result<Option<storage::FileId>> {
        Ok(Some(id_of(self.file)))
    }

    fn len(&self) -> Result<u64> {
        self.usable()?;
        let mut inner = self.disk.lock();
        inner.judge(OpKind::Len, &self.path, 0..0)?.done()?;
        Ok(self.row_len(&inner))
    }

    fn has_fixed_len(&self) -> bool {
        self.disk.lock().live.is_device(self.file)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.usable()?;
        let end = range_end(&self.path, offset, buf.len())?;
        if buf.is_empty() {
            return Ok(());
        }
        let mut inner = self.disk.lock();
        inner.judge(OpKind::Read, &self.path, offset..end)?.done()?;
        let len = self.row_len(&inner);
        if end > len {
            return Err(past_end(&self.path, end, len));
        }
        if !inner.readable(self.file, &(offset..end)) {
            let unreadable = Error::io("read", system_error(codes::FAILED));
            return Err(unreadable.at_path(&self.path).at_offset(offset));
        }
        if let Some(contents) = inner.live.contents(self.file) {
            contents.read(buf, offset);
        }
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.writable(OpKind::Write)?;
        range_end(&self.path, offset, buf.len())?;
        if buf.is_empty() {
            return Ok(());
        }
        self.write(OpKind::Write, Patch::new(offset, buf))
    }

    fn become_clone_of(&self, model: &dyn Storage) -> Result<bool> {
        self.writable(OpKind::Clone)?;
        let model = model.file_id()?.map(|id| FileId(id.inode));
        let patch = {
            let inner = self.disk.lock();
            let contents = model.and_then(|file| inner.live.contents(file));
            contents.filter(|_| inner.live.clones).map(Patch::of)
        };
        match patch {
            Some(patch) => self.write(OpKind::Clone, patch).map(|()| true),
            None => Ok(false),
        }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.writable(OpKind::SetLen)?;
        let mut inner = self.disk.lock();
        if inner.live.is_device(self.file) {
            if self.row_len(&inner) == len {
                return Ok(());
            }
            return Err(
                Error::new(ErrorKind::Unsupported, "a device has a fixed length")
                    .during(OpKind::SetLen.operation())
                    .at_path(&self.path),
            );
        }
        let late = inner.judge(OpKind::SetLen, &self.path, 0..0)?;
        let (file, before) = (self.file, self.row_len(&inner));
        let effect = Effect::SetLen {
            file,
            before,
            after: len,
        };
        inner.log(OpKind::SetLen, &self.path, effect, Outcome::Done);
        late.done()
    }

    fn sync(&self) -> Result<()> {
        self.usable()?;
        let mut inner = self.disk.lock();
        let effect = Effect::Sync { file: self.file };
        let outcome = inner.sync_outcome(&self.path);
        let fault = inner.judge_open(OpKind::Sync, &self.path, 0..0);
        let told = *inner.sync_failures(self.file) == self.failures_seen;
        let (outcome, error) = match fault {
            Some((Failure::Late, error)) => (Outcome::Done, error),
            Some((Failure::Lossy, error)) => (Outcome::Lost, error),
            Some((_, error)) => (Outcome::Failed, error),
            None if told => {
                inner.log(OpKind::Sync, &self.path, effect, outcome);
                return Ok(());
            }
            None => (
                Outcome::Failed,
                Error::io("sync", system_error(codes::FAILED)).at_path(&self.path),
            ),
        };
        *inner.sync_failures(self.file) += 1;
        inner.log(OpKind::Sync, &self.path, effect, outcome);
        if outcome == Outcome::Lost {
            inner.fall_back(self.file);
        }
        self.poisoned.store(true, Ordering::SeqCst);
        Err(error)
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.writable(OpKind::PunchHole)?;
        let len = self.row_len(&self.disk.lock());
        if range.start > range.end || range.end > len {
            return Err(outside(&self.path, &range, len));
        }
        if range.is_empty() {
            return Ok(());
        }
        self.write(OpKind::PunchHole, Patch::hole(range))
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.usable()?;
        let mut inner = self.disk.lock();
        inner.judge(OpKind::NextData, &self.path, 0..0)?.done()?;
        let len = self.row_len(&inner);
        if inner.live.is_device(self.file) {
            return Ok((offset < len).then_some(offset..len));
        }
        Ok(inner
            .live
            .contents(self.file)
            .and_then(|contents| contents.next_data(offset)))
    }

    fn reserve(&self, range: Range<u64>) -> Result<Vec<Range<u64>>> {
        self.writable(OpKind::Reserve)?;
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut inner = self.disk.lock();
        // Whatever fails, what was taken is given back, as a file does it.
        inner
            .judge(OpKind::Reserve, &self.path, range.clone())?
            .done()?;
        let taken = match inner.live.is_device(self.file) {
            true => Vec::new(),
            false => inner.take_space(self.file, &range),
        };
        inner.log(
            OpKind::Reserve,
            &self.path,
            Effect::Reserve { range },
            Outcome::Done,
        );
        Ok(taken)
    }

    fn give_back(&self, ranges: &[Range<u64>]) -> Result<()> {
        self.writable(OpKind::GiveBack)?;
        let mut inner = self.disk.lock();
        let late = inner.judge(OpKind::GiveBack, &self.path, 0..0)?;
        inner.give_back_space(self.file, ranges);
        inner.log(OpKind::GiveBack, &self.path, Effect::Nothing, Outcome::Done);
        late.done()
    }
}

impl Drop for FaultStorage {
    fn drop(&mut self) {
        if self.access == Access::Write {
            self.disk.lock().drop_writer(self.file);
        }
    }
}

/// The file as the contract of storages names it.
pub(super) fn id_of(file: FileId) -> storage::FileId {
    storage::FileId {
        device: 0,
        inode: file.0,
    }
}

//! A disk that its site keeps encrypted: a replica in a directory, until its VM is to run.
//!
//! While there is a chain it is what the disk holds. The disk itself, where it is there too, was
//! made from it, for the VM that is about to be started, and goes with the next pass. A disk
//! without a chain is one of before, and becomes the chain's first link.
//!
//! A file is there or not. A block device always is, so it is emptied: zeros are written over it,
//! under the marker that it carries all that time, and that this was done is noted.

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::disk_path::{DiskPath, age, exists, remove};
use super::disk_state::DiskState;
use super::source_disk::{SourceDisk, open_to_write};
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::{Amount, Copy};
use crate::failback::plan::Encryption;
use crate::hash::Hash;
use crate::image::{CreateFormat, CreateOptions, Resized};
use crate::manifest::{self, Manifest, TargetManifest};
use crate::progress::Work;
use crate::replica::{Changed, Key, Replica};
use crate::storage::{
    AbsentDirectory, Directory, FileRef, HostDirectory, MemoryStorage, Storage, resolve_to_write,
};
use crate::sync::{Mode, Safety, Source, SyncOptions, Verify, sync};

/// Where an encrypted disk is kept, and its key.
pub(super) struct EncryptedDisk {
    directory: PathBuf,
    key: Arc<Key>,
    disk_path: DiskPath,
}

impl EncryptedDisk {
    /// Where the disk at `disk_path` is kept encrypted, which is called `identity`, of the VM `vm`.
    ///
    /// # Errors
    /// `Unsupported` for a device without a directory in the plan; those of
    /// [`Key::load`].
    pub(super) fn of(
        disk_path: DiskPath,
        encryption: &Encryption,
        vm: &str,
        identity: &str,
    ) -> Result<Self> {
        let directory = match encryption.directory_of(vm, identity) {
            Some(directory) => directory,
            None if disk_path.is_device => {
                let text = "an encrypted replica lies in a directory beside the disk, and a block \
                            device has none";
                return Err(Error::new(ErrorKind::Unsupported, text)
                    .at_path(&disk_path.own)
                    .advise("name a `directory` in the plan's `encryption` table"));
            }
            None => {
                let mut name = OsString::from(disk_path.own.file_name().unwrap_or_default());
                name.push(".replica");
                disk_path.own.with_file_name(name)
            }
        };
        Ok(EncryptedDisk {
            directory,
            key: Arc::new(Key::load(&encryption.key, &encryption.recipients)?),
            disk_path,
        })
    }

    /// Whether there is a replica.
    pub(super) fn exists(&self) -> Result<bool> {
        self.replica()?.exists()
    }

    /// What the replica holds; `None` where there is none.
    pub(super) fn manifest(&self) -> Result<Option<Manifest>> {
        self.replica()?.manifest()
    }

    /// As [`manifest`](Self::manifest), to stand for reading the disk.
    pub(super) fn target_manifest(&self) -> Result<Option<TargetManifest>> {
        self.replica()?.target_manifest()
    }

    /// Free space where it lies, in bytes.
    pub(super) fn free_bytes(&self) -> Result<Option<u64>> {
        self.parent()?.free_bytes()
    }

    /// Whether the replica is all that there is of the disk.
    pub(super) fn is_alone(&self, state: &DiskState) -> Result<bool> {
        Ok(self.exists()? && !self.is_written_out(state)?)
    }

    /// How long ago the last pass was added, where clocks make sense.
    pub(super) fn age(&self) -> Option<Duration> {
        age(&self.directory)
    }

    /// The root of what the replica holds, all of it read and authenticated; `None` where there
    /// is none.
    pub(super) fn verify(&self, work: &Work) -> Result<Option<Hash>> {
        let replica = self.replica()?;
        match replica.exists()? {
            true => replica.verify(work).map(Some),
            false => Ok(None),
        }
    }

    /// Adds a pass to the replica. Where the VM is about to be started on the disk, that is
    /// written out too, under the blocked name. Returns how many bytes changed. All of it is
    /// durable when this returns.
    pub(super) fn copy(
        &self,
        copy: Copy,
        source: &SourceDisk,
        changed: Option<&[Range<u64>]>,
        state: &DiskState,
        work: &Work,
    ) -> Result<u64> {
        let replica = self.make()?;
        let disk_len = source.disk_len();
        let create = self.create(disk_len);
        let anew = copy.amount == Amount::Everything;
        if anew {
            replica.remove()?;
        } else {
            if self.is_written_out(state)? && !replica.exists()? {
                self.take_in(&replica, disk_len, work)?;
            }
            self.empty(state, disk_len, work)?;
        }
        // What the last pass left; a chain that is not there is compared with the whole disk.
        let since = state.current()?.map(|known| known.root());
        let changed = match copy.amount {
            Amount::ChangedSince(_) => since.zip(changed),
            _ => None,
        };
        let rounded = create.rounded_len()?;
        // Trackers count in blocks, and so may end behind the disk.
        let inside = |range: Range<u64>| range.start..range.end.min(rounded);
        let changed = changed.map(|(since, ranges)| Changed {
            since,
            ranges: ranges.iter().cloned().map(inside).collect(),
        });
        let appended = manifest::save(&state.file, |next| {
            source.append_to(&replica, rounded, changed, &next, work)
        })?;
        self.empty(state, disk_len, work)?;
        match replica.compact(MOST_LINKS, work) {
            Err(error) if error.kind() == ErrorKind::LimitExceeded => {}
            compacted => drop(compacted?),
        }
        match copy.from_snapshot {
            true => state.set_verified()?,
            false => {
                // What is written out is read back whole.
                state.distrust()?;
                self.write_out(state, &replica, &create, work)?;
            }
        }
        Ok(appended.changed_bytes)
    }

    /// Takes note that the disk is being written, and not from the replica.
    pub(super) fn pass_over(&self, state: &DiskState) -> Result<()> {
        match self.disk_path.is_device {
            true => state.unnote(EMPTY),
            false => Ok(()),
        }
    }

    /// Gives the replica up: the disk itself is what counts from here on.
    pub(super) fn give_up(&self) -> Result<()> {
        if !exists(&self.directory)? {
            return Ok(());
        }
        self.replica()?.remove()?;
        fs::remove_dir(&self.directory)
            .map_err(|e| Error::io("remove directory", e).at_path(&self.directory))?;
        self.parent()?.sync()
    }

    /// The error for a disk that is to be used, and of which there is only the replica.
    pub(super) fn not_written_out(&self) -> Error {
        let text = "this disk is kept encrypted, and was not written out yet";
        Error::new(ErrorKind::VerifyFailed, text).at_path(&self.directory)
    }

    /// Makes the disk of before the chain's first link.
    fn take_in(&self, replica: &Replica, disk_len: u64, work: &Work) -> Result<()> {
        let plain = match SourceDisk::at_rest(&self.disk_path, work) {
            // Half a disk is of no use.
            Err(error) if error.kind() == ErrorKind::Incomplete => return Ok(()),
            opened => opened?,
        };
        // What a device has beyond the disk does not count.
        let image = plain.local()?.clone();
        let image = match self.disk_path.is_device {
            true => Resized::at_most(image, disk_len),
            false => image,
        };
        let create = self.create(image.disk_len());
        let image = Resized::at_least(image, create.rounded_len()?);
        let next: Arc<dyn Storage> = Arc::new(MemoryStorage::new(&self.directory, Vec::new()));
        let appended = replica.append(&*image, None, &next, &|| plain.check(), work)?;
        // The disk of before is gone after this.
        match replica.verify(work)? == appended.root {
            true => Ok(()),
            false => {
                let text = "the replica is not what was just written to it";
                Err(Error::new(ErrorKind::VerifyFailed, text).at_path(&self.directory))
            }
        }
    }

    /// Whether the disk itself may hold anything.
    fn is_written_out(&self, state: &DiskState) -> Result<bool> {
        match self.disk_path.is_device {
            true => Ok(!state.is_noted(EMPTY)?),
            false => exists(&self.disk_path.blocked),
        }
    }

    /// Takes all away that the disk itself holds, of `disk_len` bytes. Durable when it returns.
    fn empty(&self, state: &DiskState, disk_len: u64, work: &Work) -> Result<()> {
        if !self.disk_path.is_device {
            remove(&self.disk_path.blocked)?;
            return self.disk_path.sync_directory();
        }
        if self.is_written_out(state)? {
            self.write(&Source::new(Resized::zeros(disk_len)?), work)?;
            state.note(EMPTY)?;
        }
        Ok(())
    }

    /// Writes out what the replica holds. Durable when it returns, and not read back.
    fn write_out(
        &self,
        state: &DiskState,
        replica: &Replica,
        create: &CreateOptions,
        work: &Work,
    ) -> Result<()> {
        if !self.disk_path.is_device {
            return replica.restore(&FileRef::host(&self.disk_path.blocked)?, create, work);
        }
        self.pass_over(state)?;
        self.write(&Source::new(Arc::new(replica.image(work)?)), work)
    }

    /// Writes to the device; what is zero on both sides already is not written again.
    fn write(&self, source: &Source, work: &Work) -> Result<()> {
        let target = open_to_write(&self.disk_path.own, self.disk_path.format)?;
        let options = SyncOptions::default()
            .with_mode(Mode::Delta)
            .with_safety(Safety::InPlace)
            .with_hold(true)
            .with_allow_larger(true)
            .with_verify(Verify::None);
        sync(source, target.target(), &options, work).map(drop)
    }

    fn create(&self, disk_len: u64) -> CreateOptions {
        CreateOptions::new(CreateFormat::growing(self.disk_path.format), disk_len)
    }

    /// The replica; where its directory is missing it holds nothing.
    fn replica(&self) -> Result<Replica> {
        let directory: Arc<dyn Directory> = match exists(&self.directory)? {
            true => Arc::new(HostDirectory::open(resolve_to_write(&self.directory)?)?),
            false => Arc::new(AbsentDirectory::new(&self.directory)),
        };
        Ok(Replica::new(directory, self.key.clone()).only_own())
    }

    fn make(&self) -> Result<Replica> {
        if !exists(&self.directory)? {
            let parent = self.parent()?;
            fs::create_dir(&self.directory)
                .map_err(|e| Error::io("create directory", e).at_path(&self.directory))?;
            parent.sync()?;
        }
        self.replica()
    }

    /// The directory that the replica's lies in.
    fn parent(&self) -> Result<HostDirectory> {
        let parent = self.directory.parent().unwrap_or(Path::new("/"));
        HostDirectory::open(resolve_to_write(parent)?)
    }
}

/// A chain of more links than that is put together.
const MOST_LINKS: usize = 32;
/// The note that a device was emptied.
const EMPTY: &str = "empty";

//! A disk that its site keeps encrypted: a replica in a folder beside it, until its VM is to run.
//!
//! While there is a chain it is what the disk holds. A file that stands beside it under the
//! blocked name was made from it, for the VM that is about to be started, and goes with the next
//! pass. A file without a chain is a disk of before, and becomes the chain's first link.

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::check::age;
use super::ledger::{Ledger, padded};
use super::open_to_read;
use super::seat::{Seat, exists, remove};
use crate::control::Work;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::disk_work::CopyOrder;
use crate::failback::machine::Amount;
use crate::failback::plan::Encryption;
use crate::failback::replica::{Changed, Key, Replica};
use crate::image::{CreateFormat, CreateOptions, Image};
use crate::manifest::{self, Manifest};
use crate::storage::{Folder, HostFolder, MemoryStorage, Place, SourceOptions, Storage};
use crate::sync::for_sampled;
use crate::units::is_zero;

/// Where an encrypted disk is kept, and its key.
pub(super) struct Vault {
    folder: PathBuf,
    key: Arc<Key>,
    seat: Seat,
}

/// What a pass reads.
pub(super) struct Reading<'a> {
    pub image: Arc<dyn Image>,
    /// What changed since the last pass, where that is known.
    pub changed: Option<Vec<Range<u64>>>,
    /// Whether it stayed as it was.
    pub check: &'a dyn Fn() -> Result<()>,
}

impl Vault {
    /// The vault of the disk at `seat`.
    ///
    /// # Errors
    /// Those of [`Key::load`].
    pub fn of(seat: Seat, encryption: &Encryption) -> Result<Self> {
        let mut name = OsString::from(seat.own.file_name().unwrap_or_default());
        name.push(".replica");
        Ok(Vault {
            folder: seat.own.with_file_name(name),
            key: Arc::new(Key::load(&encryption.key, &encryption.recipients)?),
            seat,
        })
    }

    /// Whether there is a replica.
    ///
    /// # Errors
    /// As [`Replica::exists`].
    pub fn exists(&self) -> Result<bool> {
        self.replica()?
            .map_or(Ok(false), |replica| replica.exists())
    }

    /// What the replica holds; `None` where there is none.
    ///
    /// # Errors
    /// As [`Replica::manifest`].
    pub fn manifest(&self) -> Result<Option<Manifest>> {
        match self.replica()? {
            Some(replica) => replica.manifest(),
            None => Ok(None),
        }
    }

    /// How long ago the last pass was added, where clocks make sense.
    pub fn age(&self) -> Option<Duration> {
        age(&self.folder)
    }

    /// The root of what the replica holds, all of it read and authenticated; `None` where there
    /// is none.
    ///
    /// # Errors
    /// As [`Replica::verify`].
    pub fn verify(&self, work: &Work) -> Result<Option<manifest::Root>> {
        match self.replica()? {
            Some(replica) if replica.exists()? => replica.verify(work).map(Some),
            _ => Ok(None),
        }
    }

    /// Adds a pass to the replica. Where the VM is about to be started on the disk, that is
    /// written out too, under the blocked name. Returns how many bytes changed. All of it is
    /// durable when this returns.
    ///
    /// # Errors
    /// As [`Replica::append`].
    pub fn copy(
        &self,
        order: &CopyOrder<'_>,
        from: Reading<'_>,
        ledger: &Ledger,
        work: &Work,
    ) -> Result<u64> {
        let replica = self.make()?;
        let anew = order.amount == Amount::Everything;
        if anew {
            replica.remove()?;
        } else {
            self.take_in(&replica, work)?;
        }
        let create = self.create(from.image.disk_len());
        let image = padded(from.image, create.rounded_len()?);
        // What the last pass left; a chain that is not there is compared with the whole disk.
        let since = ledger.current()?.map(|known| known.root());
        let changed = match order.amount {
            Amount::ChangedSince(_) => since.zip(from.changed),
            _ => None,
        };
        let changed = changed.map(|(since, ranges)| Changed { since, ranges });
        let appended = manifest::save(&ledger.place(), |next| {
            replica.append(&*image, changed, &next, from.check, work)
        })?;
        self.drop_plain()?;
        match replica.compact(MOST_LINKS, work) {
            Err(error) if error.kind() == ErrorKind::LimitExceeded => {}
            compacted => drop(compacted?),
        }
        match order.from_snapshot {
            true => ledger.set_verified()?,
            false => {
                // What is written out is read back whole.
                ledger.distrust()?;
                let blocked = Place::host(&self.seat.blocked)?;
                replica.restore(&blocked, &create, work)?;
            }
        }
        Ok(appended.changed_bytes)
    }

    /// Gives the replica up: the disk under the blocked name is what counts from here on.
    ///
    /// # Errors
    /// `VerifyFailed` where no such disk was written out; `Io`.
    pub fn give_up(&self) -> Result<()> {
        let Some(replica) = self.replica()? else {
            return Ok(());
        };
        if replica.exists()? && self.seat.path()?.is_none() {
            let text = "this disk is kept encrypted, and was not written out yet";
            return Err(Error::new(ErrorKind::VerifyFailed, text).at_path(&self.folder));
        }
        replica.remove()?;
        fs::remove_dir(&self.folder)
            .map_err(|e| Error::io("remove folder", e).at_path(&self.folder))?;
        self.seat.sync_folder()
    }

    /// How many of the blocks that a sample looked at differ from what the replica holds: looked
    /// at, and different.
    ///
    /// # Errors
    /// Those of the source and of the manifest; `Cancelled`.
    pub fn sample(source: &dyn Image, held: &Manifest, work: &Work) -> Result<(u64, u64)> {
        let size = held.block_size();
        let (mut looked, mut differ) = (0, 0);
        for_sampled(source, size, work, &mut |sampled| {
            let block = sampled.start / size.bytes();
            let range = size.range(block, source.disk_len());
            let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let mut bytes = vec![0; len];
            source.read_exact_at(&mut bytes, range.start)?;
            let now = (!is_zero(&bytes)).then(|| blake3::hash(&bytes));
            looked += 1;
            differ += u64::from(held.hash(block)? != now);
            Ok(())
        })?;
        Ok((looked, differ))
    }

    /// Makes what stands beside the chain part of it, or drops it where it came from there.
    fn take_in(&self, replica: &Replica, work: &Work) -> Result<()> {
        if !exists(&self.seat.blocked)? {
            return Ok(());
        }
        if !replica.exists()? {
            let options = SourceOptions::default();
            let plain = open_to_read(&self.seat.blocked, self.seat.format, &options)?;
            let image = plain.image().clone();
            let create = self.create(image.disk_len());
            let image = padded(image, create.rounded_len()?);
            let next: Arc<dyn Storage> = Arc::new(MemoryStorage::new(&self.folder, Vec::new()));
            let appended = replica.append(&*image, None, &next, &|| plain.check(), work)?;
            // The disk of before is gone after this.
            if replica.verify(work)? != appended.root {
                let text = "the replica is not what was just written to it";
                return Err(Error::new(ErrorKind::VerifyFailed, text).at_path(&self.folder));
            }
        }
        self.drop_plain()
    }

    fn drop_plain(&self) -> Result<()> {
        remove(&self.seat.blocked)?;
        self.seat.sync_folder()
    }

    fn create(&self, disk_len: u64) -> CreateOptions {
        CreateOptions::new(CreateFormat::growing(self.seat.format), disk_len)
    }

    fn replica(&self) -> Result<Option<Replica>> {
        Ok(match exists(&self.folder)? {
            true => Some(self.open()?),
            false => None,
        })
    }

    fn make(&self) -> Result<Replica> {
        if !exists(&self.folder)? {
            fs::create_dir(&self.folder)
                .map_err(|e| Error::io("create folder", e).at_path(&self.folder))?;
            self.seat.sync_folder()?;
        }
        self.open()
    }

    fn open(&self) -> Result<Replica> {
        let folder: Arc<dyn Folder> = Arc::new(HostFolder::open(&self.folder)?);
        Ok(Replica::new(folder, self.key.clone()))
    }
}

/// A chain of more links than that is put together.
const MOST_LINKS: usize = 32;

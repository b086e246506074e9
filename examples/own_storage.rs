//! Syncs a disk into a storage of one's own: here one that counts what is written to it:
//! `own_storage DISK LOG`.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use diskdelta::{Disk, Format, MemoryStorage, Result, Storage, SyncTarget, Work};

struct Counting {
    inner: MemoryStorage,
    written: AtomicU64,
}

impl Storage for Counting {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.written.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.inner.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.inner.next_data(offset)
    }

    fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.inner.punch_hole(range)
    }

    fn sync(&self) -> Result<()> {
        self.inner.sync()
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [disk, log] = &args[..] else {
        return Err("usage: own_storage DISK LOG".into());
    };
    let disk = Disk::open(disk)?;
    let store = Arc::new(Counting {
        inner: MemoryStorage::new("store", vec![0; usize::try_from(disk.len())?]),
        written: AtomicU64::new(0),
    });

    let target = SyncTarget::storage(store.clone(), Format::Raw, log);
    let report = disk.sync_to(target).run(&Work::new()?)?;
    let written = store.written.load(Ordering::Relaxed);
    println!("{} bytes changed, {written} written", report.changed_bytes);
    Ok(())
}

//! A VHDX that is open for writing, and what only writing needs.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::guid::Guid;
use super::header::Headers;
use super::image::Vhdx;
use super::log::{ActiveLog, log_region};
use super::open::Opened;
use super::replay::Replayed;
use super::space::Space;
use super::structure::check_signature;
use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageOptions;
use crate::image::gate::Chain;
use crate::limits::Limits;
use crate::storage::Storage;

/// A VHDX, open for reading and writing.
///
/// Payload is written in place. What that changes in the tables is kept in memory and committed
/// by `sync` through the file's log, so that at every moment the file follows the format's rules
/// and each block reads as it was at the last sync, or as it was written since. Blocks that become
/// zeros are given back, and their space is used again after the next sync.
pub struct VhdxMut {
    pub(super) image: Vhdx,
    pub(super) writer: Mutex<Writer>,
    /// Whether the GUIDs that name the file's contents were replaced since it was opened.
    pub(super) begun: AtomicBool,
}

opaque!(VhdxMut);

/// What only writing needs. Its lock is taken before that of the tables.
pub(super) struct Writer {
    pub headers: Headers,
    pub space: Space,
    pub log: Range<u64>,
    pub file_len: u64,
    /// Given back by changes that are not committed yet.
    pub freed: Vec<Range<u64>>,
    /// Whether patches were emitted. Then blocks are not given back any more, because the
    /// tables on the storage are the caller's.
    pub prepared: bool,
    /// Set while headers, log or what belongs together in the tables change; still set after a
    /// failure in the middle.
    pub torn: bool,
    pub limits: Limits,
}

impl VhdxMut {
    /// Opens `storage` for reading and writing. A log that is not empty is replayed into the
    /// file, durably, first; nothing else is written before the first change.
    ///
    /// # Errors
    /// As [`Vhdx::open`]; `Unsupported` also for files that have no place for a log, or whose
    /// header can take no more updates; `NoSpace`.
    pub fn open(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Self> {
        let path = storage.path().to_owned();
        Self::open_replaying(storage, options).map_err(|e| e.at_path(path))
    }

    /// The GUID by which children know this image; replaced at the first change.
    pub fn data_write_guid(&self) -> Guid {
        self.lock_writer().headers.current().data_write
    }

    pub(super) fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_replaying(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Self> {
        check_signature(&*storage)?;
        let mut headers = Headers::read(&*storage)?;
        headers.check_room()?;
        if let Some(log) = ActiveLog::find(&*storage, headers.current(), &options.limits)? {
            let replayed = Replayed::new(storage.clone(), &log)?;
            // A file that turns out not to be readable stays as it is.
            Opened::replayed(
                Arc::new(Replayed::new(storage.clone(), &log)?),
                headers.clone(),
                log.len(),
                options,
                &Chain::default(),
            )?;
            replayed.write_down(&mut headers)?;
        }
        let file_len = storage.len()?;
        let log = log_region(headers.current())
            .filter(|log| !log.is_empty() && log.end <= file_len)
            .ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, "the file has no place for a log")
                    .in_field("log_offset")
                    .advise("copy the disk into a new file")
            })?;
        let opened = Opened::replayed(storage, headers, 0, options, &Chain::default())?;
        if opened.layout_end > file_len {
            return Err(Error::malformed("a region is beyond the end of the file")
                .in_field("region_table")
                .at_offset(opened.layout_end));
        }
        Ok(VhdxMut {
            image: opened.image,
            writer: Mutex::new(Writer {
                headers: opened.headers,
                space: opened.space,
                log,
                file_len,
                freed: Vec::new(),
                prepared: false,
                torn: false,
                limits: options.limits.clone(),
            }),
            begun: AtomicBool::new(false),
        })
    }
}

impl Vhdx {
    /// Opens `storage` for reading and writing; see [`VhdxMut::open`].
    ///
    /// # Errors
    /// As [`VhdxMut::open`].
    pub fn open_mut(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<VhdxMut> {
        VhdxMut::open(storage, options)
    }
}

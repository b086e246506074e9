//! What unfinished delta files would make of a disk, read where it is needed.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::format::{FrameKind, JobId};
use super::layers::Layers;
use super::reader::{data_frame_at, for_each_intact};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Image, ImageInfo, read_padded_at};
use crate::limits::Limits;
use crate::progress::Work;
use crate::storage::Storage;
use crate::units::Extent;

/// A disk with the guest data of delta files over it, of each as far as it is intact. Every frame
/// is hashed again when it is read. Frames of more pieces than memory may hold are left out.
pub(crate) struct Overlaid {
    base: Arc<dyn Image>,
    files: Vec<(Arc<dyn Storage>, JobId)>,
    layers: Layers<Piece>,
    limits: Limits,
    /// The frame that was read last.
    near: Mutex<Option<(Frame, Vec<u8>)>>,
}

/// What holds the bytes of a range.
#[derive(Clone, Copy)]
enum Piece {
    Zeros,
    Data(Frame),
}

/// A data frame, by its file and its place in it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Frame {
    file: usize,
    at: u64,
    offset: u64,
    len: u64,
}

impl Overlaid {
    /// Lays `files`, each over those before it, over `base`.
    ///
    /// # Errors
    /// `Io`, `Cancelled`. A damaged file is no error.
    pub(crate) fn new(
        base: Arc<dyn Image>,
        files: impl IntoIterator<Item = Arc<dyn Storage>>,
        limits: &Limits,
        work: &Work,
    ) -> Result<Self> {
        let layers = Mutex::new(Layers::new(0, limits));
        let mut known = Vec::new();
        for storage in files {
            let file = known.len();
            let walked = for_each_intact(&storage, limits, work, &|frame| {
                let range = frame.range();
                let piece = match frame.header().kind {
                    FrameKind::Zero => Piece::Zeros,
                    FrameKind::Data => Piece::Data(Frame {
                        file,
                        at: frame.at(),
                        offset: range.start,
                        len: range.end - range.start,
                    }),
                    _ => return Ok(()),
                };
                let mut layers = layers.lock().unwrap_or_else(PoisonError::into_inner);
                layers.lay(range, piece);
                Ok(())
            });
            match walked {
                Ok(header) => known.push((storage, header.job)),
                // A file whose very header is damaged holds nothing.
                Err(error) if error.kind() == ErrorKind::Malformed => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Overlaid {
            base,
            files: known,
            layers: layers.into_inner().unwrap_or_else(PoisonError::into_inner),
            limits: limits.clone(),
            near: Mutex::default(),
        })
    }

    fn copy(&self, frame: Frame, range: Range<u64>, to: &mut [u8]) -> Result<()> {
        let changed = || Error::malformed("a frame is not what it was");
        let (storage, job) = self.files.get(frame.file).ok_or_else(changed)?;
        let mut near = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = match &*near {
            Some((kept, bytes)) if *kept == frame => bytes,
            _ => {
                let bytes = data_frame_at(&**storage, *job, &self.limits, frame.at, frame.len)?;
                &near.insert((frame, bytes)).1
            }
        };
        let start = usize::try_from(range.start - frame.offset).unwrap_or(usize::MAX);
        let part = bytes.get(start..).and_then(|bytes| bytes.get(..to.len()));
        to.copy_from_slice(part.ok_or_else(changed)?);
        Ok(())
    }
}

impl Image for Overlaid {
    fn disk_len(&self) -> u64 {
        self.base.disk_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        read_padded_at(&*self.base, buf, offset)?;
        let end = offset.saturating_add(buf.len() as u64);
        for (range, piece) in self.layers.pieces_in(offset..end) {
            // Inside the buffer: pieces lie in the range that was asked for.
            let (from, to) = (range.start - offset, range.end - offset);
            let part = buf.get_mut(from as usize..to as usize).unwrap_or_default();
            match piece {
                Piece::Zeros => part.fill(0),
                Piece::Data(frame) => self.copy(frame, range, part)?,
            }
        }
        Ok(())
    }

    fn next_extent(&self, offset: u64) -> Result<Option<Extent>> {
        let len = self.disk_len();
        Ok((offset < len).then(|| Extent::data(offset..len)))
    }

    fn info(&self) -> ImageInfo {
        self.base.info()
    }
}

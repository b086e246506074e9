//! New differencing images, in the formats that have them.

use std::ops::Range;
use std::sync::Arc;

use super::vhdx::{self, Vhdx, VhdxMut};
use super::{Format, ImageMut, ImageOptions, vhd};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// A differencing image that is being made: what is not written shows its parent.
///
/// It is nothing that can be opened before [`finish`](NewChild::finish) has returned.
pub(crate) struct NewChild {
    body: Body,
}

enum Body {
    Vhd(Box<vhd::NewChild>),
    Vhdx(Box<VhdxMut>),
}

impl NewChild {
    /// Refuses a format that knows no children.
    ///
    /// # Errors
    /// `Unsupported`.
    pub(crate) fn check_format(format: Format) -> Result<()> {
        match format {
            Format::Vhd | Format::Vhdx => Ok(()),
            _ => Err(no_children(format)),
        }
    }

    /// Begins a child of `parent` in empty storage. `parent_path` is where the parent lies as seen
    /// from the child's directory, with backslashes; `options` open the parent, and must offer it
    /// as the child's.
    ///
    /// # Errors
    /// `Unsupported` for a format that knows no children; those of opening the parent; `Io`,
    /// `NoSpace`.
    pub(crate) fn create(
        storage: Arc<dyn Storage>,
        parent: Arc<dyn Storage>,
        parent_path: &str,
        format: Format,
        options: &ImageOptions,
    ) -> Result<Self> {
        let body = match format {
            Format::Vhd => {
                let child = vhd::NewChild::create(storage, parent, parent_path, options)?;
                Body::Vhd(Box::new(child))
            }
            Format::Vhdx => {
                let parent = Vhdx::open(parent, options)?;
                vhdx::create(&*storage, &vhdx::NewDisk::child_of(&parent, parent_path))?;
                Body::Vhdx(Box::new(VhdxMut::open(storage, options)?))
            }
            _ => return Err(no_children(format)),
        };
        Ok(NewChild { body })
    }

    /// Writes guest bytes.
    ///
    /// # Errors
    /// `Io`, `NoSpace`; `InvalidInput` for a range beyond the disk.
    pub(crate) fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        match &self.body {
            Body::Vhd(child) => child.write_all_at(buf, offset),
            Body::Vhdx(child) => child.write_all_at(buf, offset),
        }
    }

    /// Makes guest bytes zeros, whatever the parent holds there.
    ///
    /// # Errors
    /// As [`write_all_at`](NewChild::write_all_at).
    pub(crate) fn write_zeroes_at(&self, range: Range<u64>) -> Result<()> {
        match &self.body {
            Body::Vhd(child) => child.write_zeroes_at(range),
            Body::Vhdx(child) => child.write_zeroes_at(range),
        }
    }

    /// Completes the image. Durable when it returns, but for the file's name.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub(crate) fn finish(self) -> Result<()> {
        match &self.body {
            Body::Vhd(child) => child.finish(),
            Body::Vhdx(child) => child.sync(),
        }
    }
}

fn no_children(format: Format) -> Error {
    let what = format!("the format {format} has no differencing images");
    Error::new(ErrorKind::Unsupported, what).advise("only a VHD or a VHDX can have a child")
}

//! Markers in guest data.
//!
//! A guest can write the bytes of a marker to its own disk. On a target whose file begins with the
//! guest's first page such a marker cannot be told from one that a sync has set, and the target
//! would always count as incomplete. A new first page that holds one is therefore refused,
//! wherever it comes from, before the target changes.

use super::format::{Marker, sentinel};
use crate::diff::{CompareOptions, Content};
use crate::error::{Error, ErrorKind, Result};
use crate::image::Layout;
use crate::image::{self, CreateFormat, Format, Image, ImageInfo};
use crate::storage::Storage;
use crate::sync::endpoint::source::SyncContext;

/// # Errors
/// `MarkerInData` when a target with this first page would look marked.
pub(in crate::sync) fn refuse(page: &[u8]) -> Result<()> {
    match Marker::in_page(page) {
        None => Ok(()),
        Some(_) => Err(Error::new(
            ErrorKind::MarkerInData,
            "the new first page holds a marker of an unfinished sync; a target that begins with \
             it would always count as incomplete",
        )
        .advise(
            "clear the marker on the source, from its guest, or write to a dynamic VHD or a VHDX, \
             which do not begin with guest data",
        )),
    }
}

/// [`refuse`] for the first page of `storage`.
///
/// # Errors
/// Those of [`refuse`]; `Io`.
pub(in crate::sync) fn refuse_on(storage: &dyn Storage) -> Result<()> {
    match Marker::find(storage)? {
        None => Ok(()),
        Some(_) => refuse(&first_page_of(storage)?),
    }
}

/// Refuses a source that would make the target look marked, before anything is logged or written.
/// `old` is the target, where there is one.
///
/// # Errors
/// Those of [`refuse`], and those of comparing with a source on another host.
pub(in crate::sync) fn refuse_source(
    context: &SyncContext<'_>,
    old: Option<&dyn Image>,
) -> Result<()> {
    let begins_with_guest = match old {
        Some(old) => begins_with_guest_data(&old.info()),
        None => {
            let source = context.source.info();
            let create = context
                .target
                .create_options(&source, None, context.source.disk_len());
            matches!(create.format, CreateFormat::Raw | CreateFormat::VhdFixed)
        }
    };
    if !begins_with_guest {
        return Ok(());
    }
    let page = sentinel(context.source.disk_len());
    match (context.source.image(), old) {
        (Some(image), _) => {
            let mut bytes = vec![0; index(page.end)];
            match image::read_padded_at(&**image, &mut bytes, 0) {
                Ok(()) => refuse(&bytes),
                // What cannot be read is named, or passed over, where it is compared.
                Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::Unreadable) => {
                    Ok(())
                }
                Err(error) => Err(error),
            }
        }
        (None, Some(old)) => {
            let first = FirstPage::new(old, page.end)?;
            let first = std::sync::Mutex::new(first);
            let options = CompareOptions::default()
                .with_skip_unreadable(context.options.skip_unreadable)
                .with_change_map(Some(vec![page]));
            context.compare(old, &options, context.work, &|difference| {
                let mut first = first.lock().unwrap_or_else(|e| e.into_inner());
                first.put(difference.offset, difference.new);
                Ok(())
            })?;
            first
                .into_inner()
                .unwrap_or_else(|e| e.into_inner())
                .check()
        }
        (None, None) => Ok(()),
    }
}

/// Whether the storage of an image begins with the guest's first page.
pub(in crate::sync) fn begins_with_guest_data(info: &ImageInfo) -> bool {
    info.format == Format::Raw || (info.format == Format::Vhd && info.layout == Layout::Fixed)
}

/// The first page of a target as changes are laid over it.
pub(in crate::sync) struct FirstPage(Vec<u8>);

impl FirstPage {
    /// The page of a disk that will be `len` bytes long, with what `old` holds.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn new(old: &dyn Image, len: u64) -> Result<Self> {
        let mut page = vec![0; index(sentinel(len).end)];
        image::read_padded_at(old, &mut page, 0)?;
        Ok(FirstPage(page))
    }

    /// Lays over what of a change is on the page.
    pub(crate) fn put(&mut self, offset: u64, new: Content<'_>) {
        let start = index(offset).min(self.0.len());
        let len = index(new.len()).min(self.0.len() - start);
        match new.bytes() {
            Some(bytes) => self.0[start..start + len].copy_from_slice(&bytes[..len]),
            None => self.0[start..start + len].fill(0),
        }
    }

    /// # Errors
    /// Those of [`refuse`].
    pub(crate) fn check(&self) -> Result<()> {
        refuse(&self.0)
    }
}

fn first_page_of(storage: &dyn Storage) -> Result<Vec<u8>> {
    let mut page = vec![0; index(sentinel(storage.len()?).end)];
    storage.read_exact_at(&mut page, 0)?;
    Ok(page)
}

/// Of a page.
fn index(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

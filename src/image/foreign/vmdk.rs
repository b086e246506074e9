//! VMDK descriptors that name flat files.

use std::io;
use std::sync::Arc;

use imago::file::File;
use imago::format::drivers::FormatDriverInstance;
use imago::format::gate::ImplicitOpenGate;
use imago::vmdk::Vmdk;
use imago::{FormatAccess, FormatDriverBuilder, StorageOpenOptions};

use crate::error::{Error, ErrorKind, Result};
use crate::image::{Format, Image, ImageOptions};
use crate::storage::Storage;

use super::image::{Foreign, from_imago, second_handle};
use super::parent::named_file;

/// Opens a descriptor and the files that it names.
///
/// # Errors
/// `Malformed`, `Unsupported`, `LimitExceeded`, `Parent`, `Io`.
pub(super) fn open(storage: Arc<dyn Storage>, options: &ImageOptions) -> Result<Arc<dyn Image>> {
    let path = storage.path().to_owned();
    let failed = |cause| from_imago(cause).at_path(&path);
    let mut driver = Vmdk::<File, FormatAccess<File>>::open_image(second_handle(&*storage)?, false)
        .map_err(failed)?;
    let disk_len = driver.size();
    if disk_len == 0 {
        return Err(Error::malformed("a disk of 0 bytes").at_path(&path));
    }
    if disk_len > options.limits.disk_bytes {
        return Err(Error::new(
            ErrorKind::LimitExceeded,
            format!("a disk of {disk_len:#x} bytes exceeds the limit"),
        )
        .at_path(&path));
    }
    let mut extents = Extents {
        files: vec![storage.clone()],
        error: None,
        disk_len,
        options,
    };
    let opened = driver.open_implicit_dependencies_gated(&mut extents);
    if let Some(error) = extents.error {
        return Err(error);
    }
    opened.map_err(failed)?;
    Ok(Arc::new(Foreign {
        format: Format::Vmdk,
        driver: Box::new(driver),
        files: extents.files,
        disk_len,
        parent: None,
        facts: Vec::new(),
        block_bytes: None,
    }))
}

/// Opens what a descriptor names through the caller's gate.
struct Extents<'a> {
    /// The descriptor, then the files in the order in which they are named.
    files: Vec<Arc<dyn Storage>>,
    /// Says more than what gets through imago.
    error: Option<Error>,
    disk_len: u64,
    options: &'a ImageOptions,
}

impl Extents<'_> {
    fn open(&mut self, options: &StorageOpenOptions) -> Result<File> {
        let name = options.get_filename().and_then(|path| path.file_name());
        let name = name.and_then(|name| name.to_str()).unwrap_or_default();
        let Some(descriptor) = self.files.first() else {
            return Err(Error::malformed("an extent without a descriptor"));
        };
        if self.files.len() > self.options.limits.chain_count {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "the descriptor names too many files",
            ));
        }
        let file = named_file(descriptor, name, self.disk_len, self.options)?;
        let handle = second_handle(&*file)?;
        self.files.push(file);
        Ok(handle)
    }
}

impl ImplicitOpenGate<File> for &mut Extents<'_> {
    fn open_format<F: FormatDriverBuilder<File>>(
        &mut self,
        _builder: F,
    ) -> io::Result<FormatAccess<File>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open_storage(&mut self, builder: StorageOpenOptions) -> io::Result<File> {
        self.open(&builder).map_err(|error| {
            let said = io::Error::other(error.to_string());
            self.error = Some(error);
            said
        })
    }
}

//! How the job opens disks of this host.

use std::path::Path;

use crate::error::Result;
use crate::image::{Format, ImageOptions};
use crate::storage::SourceOptions;
use crate::sync::{HostSource, HostTarget, HostTargetOptions};

pub(super) fn open_to_read(
    path: &Path,
    format: Format,
    options: &SourceOptions,
) -> Result<HostSource> {
    HostSource::open(path, &ImageOptions::default().with_format(format), options)
}

pub(super) fn open_to_write(path: &Path, format: Format) -> Result<HostTarget> {
    let image = ImageOptions::default().with_format(format);
    HostTarget::open(path, &HostTargetOptions::default().with_image(image))
}

//! Virtual disks seen through a format: raw, VHD, VHDX.

mod child;
mod contract;
mod create;
#[cfg(feature = "imago")]
mod foreign;
mod format;
mod gate;
mod layout;
#[cfg(feature = "nbd")]
pub mod nbd;
mod open;
mod options;
mod probe;
mod raw;
mod resized;
pub mod vhd;
pub mod vhdx;

pub(crate) use child::NewChild;
pub use contract::{Change, Image, ImageInfo, ImageMut, Patch};
pub(crate) use contract::{flat_extent, read_padded_at};
pub use create::{CreateFormat, CreateOptions, create};
pub use format::Format;
pub use gate::{Closed, FileGate, ImageId, ParentGate, ParentRequest};
pub use layout::Layout;
pub(crate) use open::only_read;
pub use open::{open, open_storage, open_storage_mut};
pub use options::ImageOptions;
pub use probe::{RawUse, refuse_container, refuse_container_name};
pub use raw::Raw;
pub(crate) use resized::Resized;
pub use vhd::SizePolicy;

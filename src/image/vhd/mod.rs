//! VHD: Virtual PC's format, also Azure's and Hyper-V's first (specification 1.0).
//!
//! Fixed, dynamic and differencing files are read, fixed and dynamic ones written. What the crate
//! trusts of a file: the footer at its end if that has the right checksum, otherwise the copy
//! at the head; the footer's kind alone says how the rest is read. Header and table are trusted
//! as far as checks of every place, length and overlap go. Sector bitmaps are trusted in
//! differencing files; in dynamic ones they may only repeat what the bytes say.

mod bitmap;
mod child;
mod create;
mod dynamic;
mod facts;
mod fixed;
pub mod format;
mod layout;
mod locate;
mod meta;
mod open;
mod parent;
mod prepare;
mod resize;
mod size_policy;
mod space;
mod write;

pub(super) use child::NewChild;
pub(super) use create::{check_dynamic, check_fixed, create_dynamic, create_fixed};
pub(super) use open::{open, open_mut};
pub use size_policy::SizePolicy;

//! Delta files: extents together with their new bytes, in one append-only format.
//!
//! The same file serves as a portable delta, as the redo log of an atomic sync, and as the way
//! back from one. The layout is in `docs/reference/formats.md`.

mod bookkeeping;
mod create;
mod export;
mod format;
mod frame;
mod header;
mod layers;
mod merge;
mod overlaid;
mod overlaps;
mod peek;
mod ranges;
mod reader;
mod result;
mod reverse;
mod scan;
mod sections;
mod sorter;
mod stack;
mod writer;

pub(crate) use bookkeeping::Bookkeeping;
pub use create::{Base, DeltaOptions, create, create_link, create_within};
pub use export::{ExportBase, export};
pub use format::{FrameHeader, FrameKind, Header, JobId, Old, Purpose, Trailer};
pub use frame::VerifiedFrame;
pub(crate) use frame::{fits_new, fits_old};
pub use merge::{merge, merge_to};
pub(crate) use overlaid::Overlaid;
pub(crate) use peek::peek;
pub(crate) use ranges::Ranges;
pub use reader::{Delta, for_each_intact};
pub(crate) use result::roots;
pub use reverse::reverse;
pub use stack::Stack;
pub use writer::{DeltaWriter, Frame};

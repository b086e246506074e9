//! Delta files: extents together with their new bytes, in one append-only format.
//!
//! The same file serves as a portable delta, as the redo log of an atomic sync, and as the way
//! back from one. The layout is in `docs/format.md`.

mod create;
mod export;
mod format;
mod merge;
mod peek;
mod ranges;
mod reader;
mod reverse;
mod writer;

pub use create::{Base, DeltaOptions, create};
pub use export::{ExportBase, export};
pub use format::{FrameHeader, FrameKind, Hash, Header, JobId, Old, Purpose, Trailer};
pub use merge::merge;
pub(crate) use peek::peek;
pub(crate) use ranges::Ranges;
pub use reader::{Delta, VerifiedFrame, for_each_intact};
pub(crate) use reader::{fits_new, fits_old};
pub use reverse::reverse;
pub use writer::{DeltaWriter, Frame};

//! Change maps: which bytes of a disk may have changed, as other programs write it down.
//!
//! Each format has a reader of its own in [`kinds`]. All take their input as it comes, in memory
//! that does not depend on its length, and believe nothing of it: ranges may come in any order and
//! overlap, but none may reach beyond the disk.

mod input;
mod json;
mod kind;
mod kinds;
mod map;
mod regions;

pub use kind::ChangeMapKind;
pub use map::ChangeMap;

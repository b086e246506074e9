//! What the first page of the crate shows.

mod source;

pub use source::open_source;

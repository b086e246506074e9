//! What differs between two images, and where.

mod collect;
mod compare;
mod feed;

pub use collect::images;
pub use compare::{CompareOptions, CompareReport, Content, Difference, compare};

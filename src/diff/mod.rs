//! What differs between two images or manifests, and where.

mod against;
mod collect;
mod compare;
mod extents;
mod known;
mod manifests;
mod options;
mod with_manifest;
mod work_queue;

pub use against::{ManifestDifference, against_manifest};
pub(crate) use against::{against, against_within};
pub use compare::{CompareReport, Content, Difference, compare};
pub use extents::images;
pub(crate) use known::Known;
pub use manifests::{ManifestDiff, manifests, target_manifest};
pub use options::CompareOptions;
pub use with_manifest::{AgainstManifest, Newer, with_manifest};

//! The extents in which two images differ.

use super::collect::Collector;
use super::compare::{Content, compare};
use super::options::CompareOptions;
use crate::error::Result;
use crate::image::Image;
use crate::progress::Work;
use crate::units::Extent;

/// The extents in which `source` differs from `target`: ascending, disjoint, as long as their
/// kind allows; `Zero` where the source holds zeros.
///
/// Compares as [`compare`] does. Memory follows the count of extents that are returned.
///
/// # Errors
/// As [`compare`].
pub fn images(
    source: &dyn Image,
    target: &dyn Image,
    options: &CompareOptions,
    work: &Work,
) -> Result<Vec<Extent>> {
    let found = Collector::default();
    compare(source, target, options, work, &|difference| {
        found.add(match difference.new {
            Content::Bytes(_) => Extent::data(difference.range()),
            Content::Zeros(_) => Extent::zero(difference.range()),
        });
        Ok(())
    })?;
    Ok(found.finish())
}

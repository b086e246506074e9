//! Gathers extents that threads find in any order.

use std::sync::{Mutex, PoisonError};

use super::compare::{Content, compare};
use super::options::CompareOptions;
use crate::control::Work;
use crate::error::Result;
use crate::image::Image;
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

/// Disjoint extents in any order, merged as they come so that memory follows the outcome.
#[derive(Default)]
pub(super) struct Collector(Mutex<Gathered>);

#[derive(Default)]
struct Gathered {
    extents: Vec<Extent>,
    /// The count at which it pays to merge again.
    merge_at: usize,
}

impl Collector {
    pub(super) fn add(&self, extent: Extent) {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gathered.extents.push(extent);
        if gathered.extents.len() >= gathered.merge_at {
            merge(&mut gathered.extents);
            // Doubling keeps the sorting at a constant share of the work.
            gathered.merge_at = (gathered.extents.len() * 2).max(1024);
        }
    }

    pub(super) fn finish(self) -> Vec<Extent> {
        let gathered = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut extents = gathered.extents;
        merge(&mut extents);
        extents
    }
}

/// Sorts, and joins neighbours of one kind.
fn merge(extents: &mut Vec<Extent>) {
    extents.sort_unstable_by_key(|extent| extent.offset);
    extents.dedup_by(|next, last| {
        let joins = next.kind == last.kind && next.offset == last.end();
        if joins {
            last.len += next.len;
        }
        joins
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_kind_join_and_others_do_not() {
        let collector = Collector::default();
        for at in (0..5000u64).rev() {
            collector.add(Extent::data(at * 10..at * 10 + 10));
        }
        collector.add(Extent::zero(50_000..50_010));
        collector.add(Extent::zero(50_020..50_030));
        assert_eq!(
            collector.finish(),
            [
                Extent::data(0..50_000),
                Extent::zero(50_000..50_010),
                Extent::zero(50_020..50_030)
            ]
        );
    }
}

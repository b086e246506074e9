//! Gathers extents that threads find in any order.

use std::sync::{Mutex, PoisonError};

use crate::units::Extent;

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

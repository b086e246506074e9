//! Differencing images over their parents.

use std::fmt;
use std::sync::Arc;

use diskdelta::image::{Format, ParentGate, ParentRequest};
use diskdelta::storage::Storage;

use super::super::craft::vhd::Vhd;
use super::super::craft::vhdx::Vhdx;
use super::super::input::Input;
use super::super::reference::{Disk, vhd, vhdx};
use super::super::store::{Bytes, Store};
use super::super::{Depth, oracle};

/// The input is a program: a chain of valid files, what is changed in them, and in which order
/// they are offered as parents.
pub fn chain(data: &[u8]) -> Depth {
    let mut input = Input(data);
    let format = input.pick(&[Format::Vhd, Format::Vhdx]);
    let depth = 2 + input.below(3);
    let (files, changes) = match format {
        Format::Vhd => vhds(&mut input, depth),
        _ => vhdxs(&mut input, depth),
    };
    let (child, mut parents) = files.split_last().expect("at least two");
    let mut offered = parents.to_vec();
    if input.one_in(4) {
        offered.push(child.clone());
    }
    if input.one_in(4) {
        offered.reverse();
    }
    let is_whole = !input.one_in(8);
    if !is_whole {
        offered.truncate(input.below(depth) as usize);
    }
    parents = &offered;
    let gate = Offer(offered.iter().cloned().enumerate().map(named).collect());
    let options = super::vhd::options().with_gate(Arc::new(gate));
    let reference = || -> Option<Box<dyn Disk>> {
        Some(match format {
            Format::Vhd => Box::new(vhd::Vhd::open(child, parents, 20)?),
            _ => Box::new(vhdx::Vhdx::open(child, parents, 20)?),
        })
    };
    let found = oracle::image(child, format, &options, Some(&reference));
    if changes == 0 && is_whole {
        assert_eq!(found, Depth::Taken, "a valid chain was refused");
    }
    if format == Format::Vhdx && found == Depth::Taken {
        oracle::writing(child, format, &options, &mut input);
    }
    found
}

fn vhds(input: &mut Input<'_>, depth: u64) -> (Vec<Bytes>, u64) {
    let disk_len = super::vhd::disk_len(input);
    let (mut files, mut changes, mut parent) = (Vec::new(), 0, None);
    for image in 0..depth as u8 {
        let mut vhd = Vhd::build(input, image, disk_len, parent);
        parent = Some(vhd.id);
        if input.one_in(3) {
            changes += vhd.mutate(input);
        }
        files.push(vhd.file);
    }
    (files, changes)
}

fn vhdxs(input: &mut Input<'_>, depth: u64) -> (Vec<Bytes>, u64) {
    let (mut len, sector) = super::vhdx::shape(input);
    let (mut files, mut changes, mut parent) = (Vec::new(), 0, None);
    for image in 0..depth as u8 {
        let mut vhdx = Vhdx::build(input, image, (len, sector), parent);
        parent = Some(vhdx.id);
        if input.one_in(3) {
            changes += vhdx.mutate(input);
        }
        files.push(vhdx.file);
        if input.one_in(6) {
            // A child may be longer or shorter than its parent.
            len = (len / 2 * (1 + input.below(4)))
                .next_multiple_of(sector)
                .max(sector);
        }
    }
    (files, changes)
}

fn named((index, file): (usize, Bytes)) -> Arc<dyn Storage> {
    Arc::new(Store::new(&format!("parent {index}"), file))
}

/// Offers the same files whatever a child asks for.
struct Offer(Vec<Arc<dyn Storage>>);

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files", self.0.len())
    }
}

impl ParentGate for Offer {
    fn candidates(&self, _request: &ParentRequest<'_>) -> diskdelta::Result<Vec<Arc<dyn Storage>>> {
        Ok(self.0.clone())
    }
}

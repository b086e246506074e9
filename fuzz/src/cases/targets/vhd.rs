//! VHD without parents.

use diskdelta::image::{Format, ImageOptions, SizePolicy};

use super::super::craft::vhd::Vhd;
use super::super::input::Input;
use super::super::reference::{Disk, vhd};
use super::super::store::Bytes;
use super::super::{Depth, meter, oracle};

/// The input is the file.
pub fn raw(data: &[u8]) -> Depth {
    let file = Bytes::new(data);
    let depth = strict(&file);
    for lenient in [false, true] {
        for policy in [
            SizePolicy::CurrentSize,
            SizePolicy::QemuCompat,
            SizePolicy::Chs,
        ] {
            let options = options().with_lenient(lenient).with_size_policy(policy);
            oracle::image(&file, Format::Vhd, &options, None);
        }
    }
    depth
}

/// The input is a program: a valid file, what is changed in it, what is written to it then.
pub fn structured(data: &[u8]) -> Depth {
    let mut input = Input(data);
    let disk_len = disk_len(&mut input);
    let mut vhd = Vhd::build(&mut input, 0, disk_len, None);
    let changes = vhd.mutate(&mut input);
    let depth = strict(&vhd.file);
    assert!(
        changes > 0 || depth == Depth::Taken,
        "a valid file was refused"
    );
    let lenient = options().with_lenient(true);
    oracle::image(&vhd.file, Format::Vhd, &lenient, None);
    if depth == Depth::Taken {
        oracle::writing(&vhd.file, Format::Vhd, &options(), &mut input);
    }
    depth
}

/// A length of some sectors.
pub fn disk_len(input: &mut Input<'_>) -> u64 {
    let most = input.pick(&[20, 200, 4100, 20_000]);
    512 * (1 + input.below(most))
}

pub fn options() -> ImageOptions {
    ImageOptions::default().with_limits(meter::limits())
}

fn strict(file: &Bytes) -> Depth {
    let reference = || Some(Box::new(vhd::Vhd::open(file, &[], 0)?) as Box<dyn Disk>);
    oracle::image(file, Format::Vhd, &options(), Some(&reference))
}

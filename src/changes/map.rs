//! A change map.

use std::io::Read;
use std::ops::Range;

use super::input::Input;
use super::kind::ChangeMapKind;
use super::kinds;
use super::regions::Regions;
use crate::error::Result;
use crate::manifest::RangeSet;

/// The bytes of a disk that may have changed: ascending, disjoint. All else is unchanged, if the
/// program that wrote the map is right.
///
/// # Examples
/// ```
/// use diskdelta::{ChangeMap, ChangeMapKind};
///
/// # fn main() -> diskdelta::Result<()> {
/// let text = "[[65536, 4096], [0, 512]]";
/// let map = ChangeMap::parse(ChangeMapKind::Pairs, text.as_bytes(), 1 << 20)?;
/// assert_eq!(map.ranges(), [0..512, 65536..69632]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeMap(RangeSet);

impl ChangeMap {
    /// Reads a map of a disk of `disk_len` bytes to its end. More than two million ranges are
    /// rounded out, so that memory is bounded.
    ///
    /// # Errors
    /// `Malformed` for what is no map of this kind, is not complete, belongs to a disk of another
    /// length, or names a range beyond the end of the disk; of an Azure page list only the 512
    /// bytes of a VHD footer may lie there, and are left out. `LimitExceeded` for more than 4 GiB
    /// of input; `Io`.
    pub fn parse(kind: ChangeMapKind, reader: impl Read, disk_len: u64) -> Result<Self> {
        let input = Input::new(reader)?;
        let regions = match kind {
            ChangeMapKind::Diskdelta => kinds::diskdelta::read(input, disk_len),
            ChangeMapKind::Pairs => kinds::pairs::read(input, disk_len),
            ChangeMapKind::Nbdinfo => kinds::nbdinfo::read(input, disk_len),
            ChangeMapKind::Azure => kinds::azure::read(input, disk_len),
            ChangeMapKind::Ebs => kinds::ebs::read(input, disk_len),
            ChangeMapKind::Kubernetes => kinds::kubernetes::read(input, disk_len),
            ChangeMapKind::Rbd => kinds::rbd::read(input, disk_len),
            ChangeMapKind::HyperV => kinds::hyperv::read(input, disk_len),
            ChangeMapKind::Vmware => kinds::vmware::read(input, disk_len),
        };
        regions.map(Regions::into_set).map(ChangeMap)
    }

    /// The ranges: ascending, disjoint, none empty.
    pub fn ranges(&self) -> &[Range<u64>] {
        self.0.as_slice()
    }

    /// How many bytes they cover.
    pub fn changed_bytes(&self) -> u64 {
        self.ranges().iter().map(|it| it.end - it.start).sum()
    }
}

impl IntoIterator for ChangeMap {
    type Item = Range<u64>;
    type IntoIter = std::vec::IntoIter<Range<u64>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_vec().into_iter()
    }
}

//! Which of the lengths that a VHD states counts, by the program that made it.

use super::format::Footer;

/// Which of the lengths that a VHD states is the disk's.
///
/// The footer has the length in bytes and as cylinders, heads and sectors. The second is rounded
/// to what such a geometry can say, mostly down. Virtual PC itself goes by the geometry; everything
/// newer goes by the bytes, and bytes past the geometry's end are there in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SizePolicy {
    /// The length in bytes.
    #[default]
    CurrentSize,
    /// What QEMU does: the geometry for files made by Virtual PC and by QEMU's own older mode,
    /// unless it says no more than "at least 127.5 GiB"; otherwise the length in bytes.
    QemuCompat,
    /// The geometry, unless it says no more than "at least 127.5 GiB".
    Chs,
}

impl SizePolicy {
    pub(super) fn disk_len(self, footer: &Footer) -> u64 {
        let by_geometry = match self {
            SizePolicy::CurrentSize => false,
            SizePolicy::QemuCompat => goes_by_geometry(footer.creator),
            SizePolicy::Chs => true,
        };
        if by_geometry && !footer.geometry.is_saturated() {
            footer.geometry.disk_bytes()
        } else {
            footer.current_bytes
        }
    }
}

/// Whether QEMU takes the geometry for the length in files of this creator.
pub(super) fn goes_by_geometry(creator: [u8; 4]) -> bool {
    matches!(&creator, b"vpc " | b"qemu")
}

/// The creator that files and resized footers of this crate carry: the one QEMU writes when its
/// length in bytes counts, which every version of QEMU since 2.0 honours.
pub(super) const CREATOR: [u8; 4] = *b"qem2";

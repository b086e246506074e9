//! The formats of change maps.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// The format of a change map, by the program that writes it. It is never guessed: several formats
/// look alike and mean something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChangeMapKind {
    /// `diskdelta diff --json`: the extents of the comparison.
    Diskdelta,
    /// A JSON array of pairs of offset and length, as a controller of a failback answers.
    Pairs,
    /// `nbdinfo --json --map=qemu:dirty-bitmap:NAME`; only dirty stretches are changes.
    Nbdinfo,
    /// The page list (XML) of an Azure page blob since an older snapshot. Several lists may follow
    /// each other; the last one must not name a next marker.
    Azure,
    /// The answers of `aws ebs list-changed-blocks` or `list-snapshot-blocks`, one or several; the
    /// last one must not name a next token.
    Ebs,
    /// `snapshot-metadata-lister -o json` of Kubernetes' external-snapshot-metadata.
    Kubernetes,
    /// `rbd diff --from-snap SNAP --format json` of Ceph.
    Rbd,
    /// The answers of Hyper-V's `GetVirtualDiskChanges` as `ConvertTo-Json` writes them, one or
    /// several, which cover the disk together.
    HyperV,
    /// The answers of VMware's `QueryChangedDiskAreas` as JSON, one or several, which cover the
    /// disk together.
    Vmware,
}

impl ChangeMapKind {
    /// All of them.
    pub const ALL: [ChangeMapKind; 9] = [
        ChangeMapKind::Diskdelta,
        ChangeMapKind::Pairs,
        ChangeMapKind::Nbdinfo,
        ChangeMapKind::Azure,
        ChangeMapKind::Ebs,
        ChangeMapKind::Kubernetes,
        ChangeMapKind::Rbd,
        ChangeMapKind::HyperV,
        ChangeMapKind::Vmware,
    ];

    /// The name that [`from_str`](FromStr::from_str) reads.
    pub fn name(self) -> &'static str {
        match self {
            ChangeMapKind::Diskdelta => "diskdelta",
            ChangeMapKind::Pairs => "pairs",
            ChangeMapKind::Nbdinfo => "nbdinfo",
            ChangeMapKind::Azure => "azure",
            ChangeMapKind::Ebs => "ebs",
            ChangeMapKind::Kubernetes => "kubernetes",
            ChangeMapKind::Rbd => "rbd",
            ChangeMapKind::HyperV => "hyperv",
            ChangeMapKind::Vmware => "vmware",
        }
    }
}

impl fmt::Display for ChangeMapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ChangeMapKind {
    type Err = Error;

    /// Reads a name.
    ///
    /// # Errors
    /// `Unsupported` for `qemu-img`, whose map does not tell what changed from what is allocated;
    /// `InvalidInput` for other names.
    fn from_str(text: &str) -> Result<Self> {
        if let Some(kind) = Self::ALL.into_iter().find(|kind| kind.name() == text) {
            return Ok(kind);
        }
        if matches!(text, "qemu" | "qemu-img") {
            let what = "cannot use a map of `qemu-img map`: `data` means unchanged with \
                        x-dirty-bitmap, and allocated without it";
            return Err(Error::new(ErrorKind::Unsupported, what).advise(
                "have nbdinfo write the map of qemu:dirty-bitmap:NAME as JSON, or name the bitmap in \
                 the address of the source: nbd://…?bitmap=NAME",
            ));
        }
        let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
        let what = format!("`{text}` is no kind of change map");
        Err(Error::new(ErrorKind::InvalidInput, what)
            .advise(format!("use one of {}", names.join(", "))))
    }
}

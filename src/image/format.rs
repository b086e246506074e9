//! The formats of images, by name and by extension.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;

/// The formats this crate reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Format {
    /// Guest bytes and nothing else.
    Raw,
    /// Virtual PC's format: fixed, dynamic and differencing.
    Vhd,
    /// Hyper-V's format.
    Vhdx,
    /// QEMU's format. Only read, and only with the feature `imago`.
    Qcow2,
    /// VMware's format. Only read, and only with the feature `imago`.
    Vmdk,
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Format {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Format::parse(&name).map_err(serde::de::Error::custom)
    }
}

impl Format {
    /// The formats that can be read, by what this was built with.
    pub const ALL: &[Format] = &[
        Format::Raw,
        Format::Vhd,
        Format::Vhdx,
        #[cfg(feature = "imago")]
        Format::Qcow2,
        #[cfg(feature = "imago")]
        Format::Vmdk,
    ];

    /// The format that a path's extension chooses, also where this build cannot read it; anything
    /// unknown is raw.
    pub fn from_path(path: &Path) -> Format {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        match extension.to_str() {
            Some("vhd" | "avhd") => Format::Vhd,
            Some("vhdx" | "avhdx") => Format::Vhdx,
            Some("qcow2") => Format::Qcow2,
            Some("vmdk") => Format::Vmdk,
            _ => Format::Raw,
        }
    }

    /// The format that a location's name chooses; an export is the guest's bytes.
    pub fn of(location: &Location) -> Format {
        match location {
            Location::Path(path) => Format::from_path(path),
            Location::Remote(address) => Format::from_path(address.path()),
            Location::Nbd(_) => Format::Raw,
            Location::Web(address) => Format::from_path(Path::new(address.path())),
        }
    }

    /// Whether images of it can be written and created.
    pub fn is_writable(self) -> bool {
        matches!(self, Format::Raw | Format::Vhd | Format::Vhdx)
    }

    /// Reads the name of one of [`ALL`](Format::ALL).
    ///
    /// # Errors
    /// `InvalidInput` for anything else.
    pub fn parse(text: &str) -> Result<Format> {
        let found = Format::ALL.iter().find(|format| format.name() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Format::ALL.iter().map(|format| format.name()).collect();
            Error::new(
                ErrorKind::InvalidInput,
                format!("`{text}` is not a format; there are {}", names.join(", ")),
            )
        })
    }

    /// The name that [`parse`](Format::parse) reads.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Vhd => "vhd",
            Format::Vhdx => "vhdx",
            Format::Qcow2 => "qcow2",
            Format::Vmdk => "vmdk",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_chooses_the_format_and_anything_unknown_is_raw() {
        for (path, format) in [
            ("a.vhd", Format::Vhd),
            ("a.AVHD", Format::Vhd),
            ("a.vhdx", Format::Vhdx),
            ("a.b.avhdx", Format::Vhdx),
            ("a.qcow", Format::Raw),
            ("a.qcow2", Format::Qcow2),
            ("a.VMDK", Format::Vmdk),
            ("vhd", Format::Raw),
            ("/dev/sda", Format::Raw),
        ] {
            assert_eq!(Format::from_path(Path::new(path)), format, "{path}");
        }
        assert_eq!(Format::parse("vhdx").unwrap(), Format::Vhdx);
        assert!(Format::parse("VHD").is_err());
    }
}

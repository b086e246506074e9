//! The text that describes a VMDK, by VMware's *Virtual Disk Format 1.1*, "The Descriptor File".

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

use super::format::SECTOR;

/// What is looked at of a descriptor. Keys that are not known mean nothing to a reader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Descriptor {
    /// The kind of disk as the writer names it.
    pub create_type: Option<String>,
    pub extents: Vec<ExtentLine>,
    is_child: bool,
}

/// A stretch of the disk, in the order of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExtentLine {
    /// Its length in sectors.
    pub sectors: u64,
    pub content: ExtentContent,
}

/// Where the bytes of a stretch are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExtentContent {
    /// One after the other in a file, from this sector on.
    Flat {
        file: String,
        first_sector: u64,
    },
    /// In a sparse extent.
    Sparse {
        file: String,
    },
    Zero,
}

impl Descriptor {
    /// Reads the text of a descriptor.
    ///
    /// # Errors
    /// `Malformed`; `Unsupported` for a version or an extent that is not read.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut descriptor = Descriptor::default();
        for line in text.lines().map(str::trim) {
            if line.starts_with('#') {
                continue;
            }
            if let Some(extent) = extent_line(line)? {
                descriptor.extents.push(extent);
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "version" if !VERSIONS.contains(&value) => {
                    let what = format!("version {} of the descriptor", value.escape_debug());
                    return Err(Error::new(ErrorKind::Unsupported, what).in_field("version"));
                }
                "createtype" => descriptor.create_type = Some(value.to_owned()),
                "parentfilenamehint" => descriptor.is_child = true,
                "parentcid" => descriptor.is_child |= !value.eq_ignore_ascii_case(NO_PARENT),
                _ => {}
            }
        }
        Ok(descriptor)
    }

    /// Refuses an image that is only the difference to another one.
    ///
    /// # Errors
    /// `Unsupported`.
    pub(super) fn refuse_child(&self) -> Result<()> {
        if !self.is_child {
            return Ok(());
        }
        let what = "a VMDK that is the difference to another one";
        Err(Error::new(ErrorKind::Unsupported, what).advise("consolidate the snapshots first"))
    }

    /// Length of the disk in bytes; `None` where that is no number.
    pub(super) fn disk_len(&self) -> Option<u64> {
        let mut sectors = self.extents.iter();
        sectors
            .try_fold(0_u64, |sum, it| sum.checked_add(it.sectors))?
            .checked_mul(SECTOR as u64)
    }
}

/// `ACCESS SECTORS KIND "FILE" FIRST_SECTOR`; `None` for another line.
fn extent_line(line: &str) -> Result<Option<ExtentLine>> {
    let mut words = line.splitn(3, char::is_whitespace);
    let access = words.next().unwrap_or_default().to_ascii_uppercase();
    if !["RW", "RDONLY", "NOACCESS"].contains(&access.as_str()) {
        return Ok(None);
    }
    let wrong = || Error::malformed("a line of an extent does not parse").in_field("extent");
    let sectors = words.next().and_then(|word| word.parse().ok());
    let sectors = sectors.ok_or_else(wrong)?;
    let rest = words.next().unwrap_or_default().trim();
    let (kind, place) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let unread = |what: String, advice: &'static str| {
        Err(Error::new(ErrorKind::Unsupported, what)
            .in_field("extent")
            .advise(advice))
    };
    if access == "NOACCESS" {
        return unread(
            "an extent that must not be read (NOACCESS)".to_owned(),
            "open it for reading with its own tools",
        );
    }
    let content = match kind.to_ascii_uppercase().as_str() {
        "ZERO" => ExtentContent::Zero,
        "FLAT" | "VMFS" => {
            let (file, rest) = quoted(place).ok_or_else(wrong)?;
            let first_sector = match rest.trim() {
                "" => 0,
                number => number.parse().map_err(|_| wrong())?,
            };
            ExtentContent::Flat { file, first_sector }
        }
        "SPARSE" => ExtentContent::Sparse {
            file: quoted(place).ok_or_else(wrong)?.0,
        },
        "SESPARSE" | "VMFSSPARSE" => {
            return unread(
                format!("a snapshot of ESXi ({kind})"),
                "consolidate the snapshots first",
            );
        }
        _ => {
            return unread(
                format!("an extent of kind {}", kind.escape_debug()),
                "make a flat or sparse VMDK of it with its own tools",
            );
        }
    };
    Ok(Some(ExtentLine { sectors, content }))
}

/// A name in quotation marks, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (name, rest) = text.trim_start().strip_prefix('"')?.split_once('"')?;
    (!name.is_empty()).then(|| (name.to_owned(), rest))
}

/// The name that a descriptor next to the extent at `path` has by custom.
pub(super) fn described_by(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    let (disk, number) = stem.rsplit_once('-')?;
    let digits = number.trim_start_matches(['s', 'f']);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_extent = is_number || ["flat", "delta", "sesparse"].contains(&number);
    is_extent.then(|| format!("{disk}.vmdk"))
}

/// The error for an extent of a disk that another file describes.
pub(super) fn part_of_a_disk(what: &'static str, path: &Path) -> Error {
    Error::new(ErrorKind::Unsupported, what).advise(match described_by(path) {
        Some(name) => format!("name that file, {name}"),
        None => "name that file, the .vmdk that is a short text".to_owned(),
    })
}

/// How a descriptor begins.
pub(super) const SIGNATURE: &[u8] = b"# Disk DescriptorFile";
/// The versions that there are.
const VERSIONS: [&str; 3] = ["1", "2", "3"];
/// The parent's content id in the descriptor of a disk without a parent.
const NO_PARENT: &str = "ffffffff";

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# Disk DescriptorFile\nversion=1\nencoding=\"windows-1252\"\n\
        CID=123a4f5c\nparentCID=ffffffff\nisNativeSnapshot=\"no\"\nfuture.key = \"x\"\n\
        createType=\"custom\"\n\n# Extent description\n";

    fn parse(lines: &str) -> Result<Descriptor> {
        Descriptor::parse(&format!(
            "{HEAD}{lines}\n\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"21\"\n"
        ))
    }

    #[test]
    fn a_descriptor_of_vmware_is_read_whatever_keys_it_has() {
        let found = parse(
            "RW 4192256 SPARSE \"my disk-s001.vmdk\"\nRDONLY 63 FLAT \"boot.bin\" 2048\n\
             RW 7 VMFS \"d-flat.vmdk\"\nRW 10 ZERO",
        )
        .unwrap();
        assert_eq!(found.create_type.as_deref(), Some("custom"));
        assert_eq!(found.disk_len(), Some((4192256 + 63 + 7 + 10) * 512));
        let flat = |file: &str, first_sector| ExtentContent::Flat {
            file: file.to_owned(),
            first_sector,
        };
        let sparse = ExtentContent::Sparse {
            file: "my disk-s001.vmdk".to_owned(),
        };
        let contents: Vec<_> = found.extents.iter().map(|it| it.content.clone()).collect();
        let wanted = [
            sparse,
            flat("boot.bin", 2048),
            flat("d-flat.vmdk", 0),
            ExtentContent::Zero,
        ];
        assert_eq!(contents, wanted);
        found.refuse_child().unwrap();
    }

    #[test]
    fn what_is_not_read_is_named() {
        for (line, kind, word) in [
            ("RW 1 SESPARSE \"d.vmdk\"", ErrorKind::Unsupported, "ESXi"),
            ("RW 1 VMFSRDM \"d.vmdk\"", ErrorKind::Unsupported, "VMFSRDM"),
            (
                "NOACCESS 1 FLAT \"d\" 0",
                ErrorKind::Unsupported,
                "NOACCESS",
            ),
            ("version=9", ErrorKind::Unsupported, "version 9"),
            ("RW x FLAT \"d\" 0", ErrorKind::Malformed, "does not parse"),
            ("RW 1 FLAT d 0", ErrorKind::Malformed, "does not parse"),
            ("RW 1 FLAT \"d\" x", ErrorKind::Malformed, "does not parse"),
            ("RW 1 SPARSE \"\"", ErrorKind::Malformed, "does not parse"),
            ("RW 1", ErrorKind::Unsupported, "an extent of kind"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.kind(), kind, "{line}: {error}");
            assert!(error.to_string().contains(word), "{line}: {error}");
        }
        for line in ["parentCID=12345678", "parentFileNameHint=\"base.vmdk\""] {
            parse(line).unwrap().refuse_child().unwrap_err();
        }
        let endless = format!("RW {0} ZERO\nRW {0} ZERO", u64::MAX);
        assert_eq!(parse(&endless).unwrap().disk_len(), None);
    }
}

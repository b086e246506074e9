//! Refusing to read, or to overwrite, a container as if it were a raw disk.
//!
//! Contents never choose a format: the guest owns the bytes of a raw disk and could write any
//! header into it. But they may refuse. A container that is copied as if it were the disk inside it
//! is of no use, and one that is overwritten with a disk's bytes is lost. Partition tables and
//! file systems are no containers.

use std::path::Path;

use super::Format;
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// What is about to be done to storage that was taken as raw by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RawUse {
    /// It is read as a disk.
    Read,
    /// A disk is written to it.
    Write,
}

/// Refuses storage that was taken as raw by default but carries the signature of a container at
/// its head, or, with `tail`, at its end.
///
/// For reading, look at the tail of files only: the end of a device holds whatever was there
/// before. For writing look at both: a container that is lost is worse than an option to give.
///
/// # Errors
/// `InvalidInput`, naming the option that goes on; `Io`.
pub fn refuse_container(storage: &dyn Storage, tail: bool, raw_use: RawUse) -> Result<()> {
    let len = storage.len()?;
    let head_len = len.min(WINDOW_BYTES as u64);
    let mut window = [0; WINDOW_BYTES];
    // At most WINDOW_BYTES, so the narrowing keeps the value.
    let head = &mut window[..head_len as usize];
    storage.read_exact_at(head, 0)?;
    if let Some(found) = find_head(head) {
        return Err(looks_like(found, storage.path(), raw_use).at_offset(0));
    }
    if tail {
        let end = &mut window[..head_len as usize];
        storage.read_exact_at(end, len - head_len)?;
        // Distances in the table are from the end, so lay the bytes against it.
        if let Some((found, back)) = find_tail(end) {
            let error = looks_like(found, storage.path(), raw_use);
            return Err(error.at_offset(len - back as u64));
        }
    }
    Ok(())
}

/// Refuses a path that would be raw by default but whose extension is that of a container which is
/// neither read nor written here.
///
/// # Errors
/// `InvalidInput`, naming the option that goes on.
pub fn refuse_container_name(path: &Path, raw_use: RawUse) -> Result<()> {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    let found = NAMES
        .iter()
        .find(|(names, _)| names.iter().any(|name| *name == extension));
    let Some((_, what)) = found else {
        return Ok(());
    };
    let text = format!(
        "the name is that of {}, but the file would be {} a raw disk",
        what.article(),
        raw_use.verb()
    );
    Err(Error::new(ErrorKind::InvalidInput, text)
        .at_path(path)
        .advise_all(what.advice(raw_use)))
}

/// A kind of container.
#[derive(Debug, Clone, Copy)]
struct What {
    name: &'static str,
    suggestion: Suggestion,
}

/// What to do with a container.
#[derive(Debug, Clone, Copy)]
enum Suggestion {
    /// It is an image of this format.
    Name(Format),
    /// Another program makes a raw disk of it.
    Convert,
    /// A disk is inside once it is opened.
    Unlock,
    /// A file is inside once it is unpacked.
    Unpack,
    /// It is a file of this program.
    Ours,
}

impl RawUse {
    fn verb(self) -> &'static str {
        match self {
            RawUse::Read => "read as",
            RawUse::Write => "overwritten as",
        }
    }
}

impl What {
    fn article(self) -> String {
        let vowel = self
            .name
            .starts_with(['a', 'e', 'i', 'o', 'u', 'E', 'I', 'O']);
        let spelled = self.name.starts_with(['L', 'V']) && self.name != "LUKS disk";
        let article = if vowel && !spelled { "an" } else { "a" };
        format!("{article} {}", self.name)
    }

    fn advice(self, raw_use: RawUse) -> Vec<Advice> {
        if raw_use == RawUse::Write {
            let format = match self.suggestion {
                Suggestion::Name(format) if format.is_writable() => {
                    Some(Advice::TargetFormat(format.to_string().into()))
                }
                _ => None,
            };
            let other = "name another target".into();
            return format
                .into_iter()
                .chain([other, Advice::RawTarget])
                .collect();
        }
        let suggestion = match self.suggestion {
            Suggestion::Name(format) if Format::ALL.contains(&format) => {
                Advice::SourceFormat(format.to_string().into())
            }
            Suggestion::Name(_) => {
                "convert it with qemu-img (this build does not read it; one with the \
                             feature `imago` does)"
                    .into()
            }
            Suggestion::Convert => {
                "convert it to a raw disk first, with qemu-img for example".into()
            }
            Suggestion::Unlock => "open it and name the disk that is inside".into(),
            Suggestion::Unpack => "unpack it first".into(),
            Suggestion::Ours => "name a disk".into(),
        };
        vec![suggestion, Advice::RawSource]
    }
}

fn looks_like(what: What, path: &Path, raw_use: RawUse) -> Error {
    let text = format!(
        "looks like {}, but would be {} a raw disk",
        what.article(),
        raw_use.verb()
    );
    Error::new(ErrorKind::InvalidInput, text)
        .at_path(path)
        .advise_all(what.advice(raw_use))
}

fn find_head(head: &[u8]) -> Option<What> {
    let known = HEAD.iter().find(|it| {
        let rest = head.get(it.at..);
        rest.is_some_and(|rest| rest.starts_with(it.bytes))
    });
    match known {
        Some(it) => Some(it.what),
        None if is_zstd_skippable(head) => Some(unpack("zstd file")),
        None if is_descriptor(head) => Some(VMDK_DESCRIPTOR),
        None => None,
    }
}

fn find_tail(end: &[u8]) -> Option<(What, usize)> {
    let known = TAIL.iter().find(|it| {
        let start = end.len().checked_sub(it.at);
        let rest = start.and_then(|start| end.get(start..));
        rest.is_some_and(|rest| rest.starts_with(it.bytes))
    });
    known.map(|it| (it.what, it.at))
}

/// What a parallel packer begins with: a frame for other programs, of one of 16 kinds.
fn is_zstd_skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// A descriptor is text: comments, then its version.
fn is_descriptor(head: &[u8]) -> bool {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let mut lines = text.split(|byte| *byte == b'\n');
    let first = lines.find(|line| {
        let line = line.trim_ascii();
        !line.is_empty() && !line.starts_with(b"#")
    });
    let first = first.unwrap_or_default().trim_ascii().to_ascii_lowercase();
    matches!(first.strip_prefix(b"version="), Some([b'1'..=b'9', ..]))
}

struct Signature {
    what: What,
    /// From the start for heads, back from the end for tails.
    at: usize,
    bytes: &'static [u8],
}

const fn signature(what: What, at: usize, bytes: &'static [u8]) -> Signature {
    Signature { what, at, bytes }
}

const fn image(name: &'static str, format: Format) -> What {
    let suggestion = Suggestion::Name(format);
    What { name, suggestion }
}

const fn convert(name: &'static str) -> What {
    let suggestion = Suggestion::Convert;
    What { name, suggestion }
}

const fn unpack(name: &'static str) -> What {
    let suggestion = Suggestion::Unpack;
    What { name, suggestion }
}

const fn ours(name: &'static str) -> What {
    let suggestion = Suggestion::Ours;
    What { name, suggestion }
}

const fn unlock(name: &'static str) -> What {
    let suggestion = Suggestion::Unlock;
    What { name, suggestion }
}

const VHD: What = image("VHD container", Format::Vhd);
const VHDX: What = image("VHDX container", Format::Vhdx);
const QCOW2: What = image("qcow2 container", Format::Qcow2);
const VMDK: What = image("VMDK container", Format::Vmdk);
const VMDK_DESCRIPTOR: What = image("VMDK descriptor", Format::Vmdk);
const ENCASE: What = convert("EnCase image");

/// What is read of either end; every signature lies inside it.
const WINDOW_BYTES: usize = 512;

const HEAD: &[Signature] = &[
    signature(VHD, 0, b"conectix"),
    signature(VHDX, 0, b"vhdxfile"),
    signature(QCOW2, 0, b"QFI\xfb"),
    signature(convert("QED container"), 0, b"QED\0"),
    signature(VMDK, 0, b"KDMV"),
    signature(VMDK, 0, b"COWD"),
    signature(VMDK, 0, b"\xbe\xba\xfe\xca\0\0\0\0"),
    signature(VMDK_DESCRIPTOR, 0, b"# Disk DescriptorFile"),
    signature(convert("VDI container"), 0x40, b"\x7f\x10\xda\xbe"),
    signature(convert("Parallels container"), 0, b"WithoutFreeSpace"),
    signature(convert("Parallels container"), 0, b"WithouFreSpacExt"),
    signature(convert("Bochs container"), 0, b"Bochs Virtual HD Image"),
    signature(convert("cloop container"), 0, b"#!/bin/sh\n#V2.0 Format\n"),
    signature(convert("Proxmox archive"), 0, b"VMA\0\0\0\0\x01"),
    signature(convert("Windows image archive"), 0, b"MSWIM\0\0\0"),
    signature(ENCASE, 0, b"EVF\x09\x0d\x0a\xff\0"),
    signature(ENCASE, 0, b"EVF2\x0d\x0a\x81\0"),
    signature(convert("AFF image"), 0, b"AFF10\r\n\0"),
    signature(unlock("LUKS disk"), 0, b"LUKS\xba\xbe"),
    signature(
        unlock("file encrypted with age"),
        0,
        b"age-encryption.org/v1\n",
    ),
    signature(unpack("gzip file"), 0, b"\x1f\x8b\x08"),
    signature(unpack("xz file"), 0, b"\xfd7zXZ\0"),
    signature(unpack("zstd file"), 0, b"\x28\xb5\x2f\xfd"),
    signature(unpack("bzip2 file"), 4, b"1AY&SY"),
    signature(unpack("lz4 file"), 0, b"\x04\x22\x4d\x18"),
    signature(unpack("lz4 file"), 0, b"\x02\x21\x4c\x18"),
    signature(unpack("lzip file"), 0, b"LZIP\x01"),
    signature(unpack("lzop file"), 0, b"\x89LZO\0\r\n\x1a\n"),
    signature(unpack("zip archive"), 0, b"PK\x03\x04"),
    signature(unpack("7z archive"), 0, b"7z\xbc\xaf\x27\x1c"),
    signature(unpack("RAR archive"), 0, b"Rar!\x1a\x07"),
    signature(unpack("tar archive"), 257, b"ustar"),
    signature(ours("manifest of diskdelta"), 0, b"ddmanif\x1a"),
    signature(ours("delta file of diskdelta"), 0, b"DISKDELT"),
    signature(ours("journal of diskdelta"), 0, b"DDJRNL\r\n"),
];

const TAIL: &[Signature] = &[
    signature(VHD, 512, b"conectix"),
    // Virtual PC before 2004 left out the footer's last byte.
    signature(VHD, 511, b"conectix"),
    signature(convert("DMG image"), 512, b"koly"),
];

/// Extensions in lower case.
const NAMES: &[(&[&str], What)] = &[
    (&["vdi"], convert("VDI container")),
    (&["qed"], convert("QED container")),
    (&["qcow"], convert("qcow container")),
    (&["vhds", "vhdset"], convert("VHD set")),
    (&["dmg"], convert("DMG image")),
    (&["e01", "ex01"], ENCASE),
    (&["vma"], convert("Proxmox archive")),
    (&["wim"], convert("Windows image archive")),
    (&["ova", "tar"], unpack("tar archive")),
    (&["ovf"], convert("OVF descriptor")),
    (&["gz", "tgz"], unpack("gzip file")),
    (&["xz", "txz", "lzma"], unpack("xz file")),
    (&["zst", "zstd", "tzst"], unpack("zstd file")),
    (&["bz2", "tbz", "tbz2"], unpack("bzip2 file")),
    (&["lz4"], unpack("lz4 file")),
    (&["lz"], unpack("lzip file")),
    (&["lzo"], unpack("lzop file")),
    (&["zip"], unpack("zip archive")),
    (&["7z"], unpack("7z archive")),
    (&["rar"], unpack("RAR archive")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn refusal(bytes: Vec<u8>, tail: bool, raw_use: RawUse) -> Option<String> {
        let storage = MemoryStorage::new("disk.img", bytes);
        refuse_container(&storage, tail, raw_use)
            .err()
            .map(|error| error.to_string())
    }

    const USES: [(RawUse, Advice); 2] = [
        (RawUse::Read, Advice::RawSource),
        (RawUse::Write, Advice::RawTarget),
    ];

    #[test]
    fn every_known_signature_is_refused_and_the_way_on_is_named() {
        for (raw_use, suggestion) in USES {
            for it in HEAD {
                for len in [it.at + it.bytes.len(), 100_000] {
                    let mut bytes = vec![0; len];
                    bytes[it.at..it.at + it.bytes.len()].copy_from_slice(it.bytes);
                    let text = refusal(bytes.clone(), false, raw_use).unwrap();
                    assert!(
                        text.contains(it.what.name) && text.contains(&suggestion.to_string()),
                        "{text}"
                    );
                    bytes[it.at] ^= 1;
                    assert_eq!(refusal(bytes, true, raw_use), None);
                }
            }
            for it in TAIL {
                for len in [it.at, 512, 100_000] {
                    let mut bytes = vec![0; len];
                    bytes[len - it.at..][..it.bytes.len()].copy_from_slice(it.bytes);
                    let text = refusal(bytes.clone(), true, raw_use).unwrap();
                    assert!(
                        text.contains(it.what.name) && text.contains(&suggestion.to_string()),
                        "{text}"
                    );
                    let head_says_so = len == it.at && it.bytes == b"conectix";
                    assert_eq!(refusal(bytes, false, raw_use).is_some(), head_says_so);
                }
            }
        }
    }

    #[test]
    fn texts_that_describe_a_vmdk_are_known_and_others_are_not() {
        let is_refused = |text: &str| refusal(text.into(), false, RawUse::Read).is_some();
        for text in [
            "# a comment\nversion=1\nCID=fffffffe\n",
            "#\r\n\r\nversion=3\r\n",
            "\u{feff}# Disk DescriptorFile\nversion=1\n",
        ] {
            assert!(is_refused(text), "{text}");
        }
        for text in [
            "# a comment\nname=1\n",
            "version",
            "#!/bin/sh\nexit\n",
            "#\n#\n",
        ] {
            assert!(!is_refused(text), "{text}");
        }
        assert!(refusal(vec![0x5a, 0x2a, 0x4d, 0x18], false, RawUse::Read).is_some());
    }

    #[test]
    fn names_of_containers_are_refused_and_those_of_disks_are_not() {
        let text = |name: &str, raw_use| {
            let refused = refuse_container_name(Path::new(name), raw_use);
            refused.err().map(|error| error.to_string())
        };
        for (raw_use, suggestion) in USES {
            for (names, what) in NAMES {
                for name in *names {
                    for name in [format!("/a/d.{name}"), format!("d.{}", name.to_uppercase())] {
                        let text = text(&name, raw_use).unwrap();
                        assert!(
                            text.contains(what.name) && text.contains(&suggestion.to_string()),
                            "{text}"
                        );
                    }
                }
            }
            for name in [
                "d.raw", "d.img", "d.iso", "d", "gz", ".gz", "d.vhd", "d.gz.img",
            ] {
                assert_eq!(text(name, raw_use), None, "{name}");
            }
        }
    }

    #[test]
    fn disks_of_any_length_without_a_signature_pass() {
        for (raw_use, _) in USES {
            for len in [0, 1, 511, 512, 513, 5000] {
                assert_eq!(refusal(vec![0; len], true, raw_use), None, "{len}");
                assert_eq!(refusal(vec![0xeb; len], true, raw_use), None, "{len}");
            }
        }
    }
}

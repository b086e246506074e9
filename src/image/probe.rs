//! Refusing to read a container as a raw disk by mistake.

use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// Refuses storage that was taken as raw by default but carries the signature of a container
/// format at its head, or, with `tail`, at its end.
///
/// Contents never choose a format: the guest owns the bytes of a raw disk and could write any
/// header into it. But they may refuse: a container copied as if it were the disk inside it is
/// of no use, and said too late. Look at the tail of files only: the end of a device holds
/// whatever was there before.
///
/// # Errors
/// `InvalidInput`, naming `--source-format raw`; `Io`.
pub fn refuse_container(storage: &dyn Storage, tail: bool) -> Result<()> {
    let len = storage.len()?;
    let head_len = len.min(WINDOW_BYTES as u64);
    let mut window = [0; WINDOW_BYTES];
    // At most WINDOW_BYTES, so the narrowing keeps the value.
    let head = &mut window[..head_len as usize];
    storage.read_exact_at(head, 0)?;
    if let Some(name) = find(HEAD, head) {
        return Err(refused(storage, name, 0));
    }
    if tail {
        let end = &mut window[..head_len as usize];
        storage.read_exact_at(end, len - head_len)?;
        // Distances in the table are from the end, so lay the bytes against it.
        if let Some((name, back)) = find_back(TAIL, end) {
            return Err(refused(storage, name, len - back as u64));
        }
    }
    Ok(())
}

fn find(signatures: &[Signature], head: &[u8]) -> Option<&'static str> {
    signatures
        .iter()
        .find(|it| {
            head.get(it.at..)
                .is_some_and(|rest| rest.starts_with(it.bytes))
        })
        .map(|it| it.name)
}

fn find_back(signatures: &[Signature], end: &[u8]) -> Option<(&'static str, usize)> {
    signatures
        .iter()
        .find(|it| {
            end.len()
                .checked_sub(it.at)
                .and_then(|start| end.get(start..))
                .is_some_and(|rest| rest.starts_with(it.bytes))
        })
        .map(|it| (it.name, it.at))
}

fn refused(storage: &dyn Storage, name: &str, offset: u64) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("looks like a {name} container, but would be read as a raw disk"),
    )
    .at_path(storage.path())
    .at_offset(offset)
    .advise("say --source-format raw if these bytes are the disk, or name its format")
}

struct Signature {
    name: &'static str,
    /// From the start for heads, back from the end for tails.
    at: usize,
    bytes: &'static [u8],
}

const fn signature(name: &'static str, at: usize, bytes: &'static [u8]) -> Signature {
    Signature { name, at, bytes }
}

/// What is read of either end; every signature lies inside it.
const WINDOW_BYTES: usize = 512;

const HEAD: &[Signature] = &[
    signature("VHD", 0, b"conectix"),
    signature("VHDX", 0, b"vhdxfile"),
    signature("qcow2", 0, b"QFI\xfb"),
    signature("QED", 0, b"QED\0"),
    signature("VMDK", 0, b"KDMV"),
    signature("VMDK", 0, b"COWD"),
    signature("VMDK", 0, b"\xbe\xba\xfe\xca\0\0\0\0"),
    signature("VMDK descriptor", 0, b"# Disk DescriptorFile"),
    signature("VDI", 0x40, b"\x7f\x10\xda\xbe"),
    signature("Parallels", 0, b"WithoutFreeSpace"),
    signature("Parallels", 0, b"WithouFreSpacExt"),
    signature("Bochs", 0, b"Bochs Virtual HD Image"),
    signature("EnCase", 0, b"EVF\x09\x0d\x0a\xff\0"),
    signature("EnCase", 0, b"EVF2\x0d\x0a\x81\0"),
];

const TAIL: &[Signature] = &[
    signature("VHD", 512, b"conectix"),
    // Virtual PC before 2004 left out the footer's last byte.
    signature("VHD", 511, b"conectix"),
    signature("DMG", 512, b"koly"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn refusal(bytes: Vec<u8>, tail: bool) -> Option<String> {
        let storage = MemoryStorage::new("disk.img", bytes);
        refuse_container(&storage, tail)
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn every_known_signature_is_refused_and_the_way_on_is_named() {
        for it in HEAD {
            for len in [it.at + it.bytes.len(), 100_000] {
                let mut bytes = vec![0; len];
                bytes[it.at..it.at + it.bytes.len()].copy_from_slice(it.bytes);
                let text = refusal(bytes.clone(), false).unwrap();
                assert!(text.contains(it.name) && text.contains("--source-format raw"));
                bytes[it.at] ^= 1;
                assert_eq!(refusal(bytes, true), None);
            }
        }
        for it in TAIL {
            for len in [it.at, 512, 100_000] {
                let mut bytes = vec![0; len];
                bytes[len - it.at..][..it.bytes.len()].copy_from_slice(it.bytes);
                let text = refusal(bytes.clone(), true).unwrap();
                assert!(text.contains(it.name) && text.contains("--source-format raw"));
                let head_says_so = len == it.at && it.bytes == b"conectix";
                assert_eq!(refusal(bytes, false).is_some(), head_says_so);
            }
        }
    }

    #[test]
    fn disks_of_any_length_without_a_signature_pass() {
        for len in [0, 1, 511, 512, 513, 5000] {
            assert_eq!(refusal(vec![0; len], true), None, "{len}");
            assert_eq!(refusal(vec![0xeb; len], true), None, "{len}");
        }
    }
}

//! What binds the links of a replica to the key of its owner.
//!
//! A public key is enough to seal an age file. So the newest manifest of a chain ends, encrypted
//! with it, with a code over all links that only the holder of the secret key can make:
//!
//! ```text
//! 0      magic
//! 8      which key made the code
//! 24     keyed BLAKE3 of chain, count of links, head and length of each link, and the manifest
//! ```
//! The head of a link is its age header and nonce. It decides the key of all that follows, which
//! is not known without having sealed that header; so the rest of the link need not be read.
#![cfg_attr(
    not(feature = "encryption"),
    allow(dead_code, reason = "without a key nothing is bound")
)]

use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// What stands behind a manifest.
pub(super) const BINDING_LEN: usize = 56;

/// A key that makes codes, and what it is called in them.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct BindingKey {
    id: [u8; 16],
    key: [u8; 32],
}

/// What tells a encrypted link apart from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    hash: [u8; 32],
    len: u64,
}

/// What a binding covers.
pub(super) struct Bound<'a> {
    pub chain: u32,
    /// The heads of its links, in order.
    pub heads: &'a [Head],
    /// The hash of the manifest's bytes.
    pub manifest: [u8; 32],
}

impl BindingKey {
    /// The key of an age identity.
    pub(super) fn of_identity(identity: &str) -> Self {
        Self::new(blake3::derive_key(OF_IDENTITY, identity.as_bytes()))
    }

    /// What stands for a passphrase, without which there is no encrypted manifest at all. It is not
    /// made from it: that would make guessing cheap.
    pub(super) fn of_passphrase() -> Self {
        Self::new(blake3::derive_key(OF_PASSPHRASE, &[]))
    }

    fn new(key: [u8; 32]) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::derive_key(ID, &key)[..16]);
        BindingKey { id, key }
    }

    /// The bytes that bind.
    pub(super) fn bind(&self, bound: &Bound<'_>) -> [u8; BINDING_LEN] {
        let mut bytes = [0; BINDING_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(&self.id);
        bytes[24..].copy_from_slice(self.code(bound).as_bytes());
        bytes
    }

    fn code(&self, bound: &Bound<'_>) -> blake3::Hash {
        let mut hash = blake3::Hasher::new_keyed(&self.key);
        hash.update(&bound.chain.to_le_bytes());
        hash.update(&(bound.heads.len() as u64).to_le_bytes());
        for head in bound.heads {
            hash.update(&head.hash).update(&head.len.to_le_bytes());
        }
        hash.update(&bound.manifest);
        hash.finalize()
    }
}

/// Whether one of `keys` binds: `None` where the code was made with another key.
///
/// # Errors
/// `Untrusted` where the code of one of them does not fit, or there is no code.
pub(super) fn check(
    bytes: &[u8; BINDING_LEN],
    keys: &[BindingKey],
    bound: &Bound<'_>,
) -> Result<Option<()>> {
    if bytes[..8] != MAGIC {
        return Err(forged(
            "the newest manifest does not say which links there are",
        ));
    }
    let Some(key) = keys.iter().find(|key| key.id == bytes[8..24]) else {
        return Ok(None);
    };
    let mut code = [0; 32];
    code.copy_from_slice(&bytes[24..]);
    // Compared in constant time.
    match blake3::Hash::from_bytes(code) == key.code(bound) {
        true => Ok(Some(())),
        false => Err(forged(
            "the links are not those that the newest manifest was made for",
        )),
    }
}

/// The error for a replica that was made, or changed, without its key.
pub(super) fn forged(why: &'static str) -> Error {
    Error::new(ErrorKind::Untrusted, why).advise(
        "put back a copy of the directory that you trust, or remove it to begin a new replica",
    )
}

/// The head of an age file.
///
/// # Errors
/// `Malformed` for what is no age file; `Io`.
pub(super) fn head_of(file: &dyn Storage) -> Result<Head> {
    let len = file.len()?;
    let mut bytes = Vec::new();
    loop {
        let end = header_end(&bytes).map(|end| end + NONCE_LEN);
        if let Some(end) = end.filter(|end| *end <= bytes.len()) {
            let hash = *blake3::hash(&bytes[..end]).as_bytes();
            return Ok(Head { hash, len });
        }
        let at = bytes.len();
        let left = usize::try_from(len).unwrap_or(usize::MAX).min(HEADER_MOST) - at;
        if left == 0 {
            return Err(Error::malformed("a damaged age file").at_path(file.path()));
        }
        bytes.resize(at + left.min(STEP), 0);
        file.read_exact_at(&mut bytes[at..], at as u64)?;
    }
}

/// Where the header's last line ends.
fn header_end(bytes: &[u8]) -> Option<usize> {
    let last = bytes
        .windows(LAST_LINE.len())
        .position(|it| it == LAST_LINE)?
        + LAST_LINE.len();
    let end = bytes[last..].iter().position(|byte| *byte == b'\n')?;
    Some(last + end + 1)
}

const MAGIC: [u8; 8] = *b"DDBIND1\n";
const OF_IDENTITY: &str = "diskdelta 2026-11-30 binding of a replica by an age identity v1";
const OF_PASSPHRASE: &str = "diskdelta 2026-11-30 binding of a replica by a passphrase v1";
const ID: &str = "diskdelta 2026-11-30 name of a key that binds a replica v1";
const LAST_LINE: &[u8] = b"\n--- ";
const NONCE_LEN: usize = 16;
const STEP: usize = 4096;
/// Some thousand recipients.
const HEADER_MOST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn head(bytes: &[u8]) -> Result<Head> {
        head_of(&MemoryStorage::new("x", bytes.to_vec()))
    }

    #[test]
    fn a_head_is_header_and_nonce_and_the_length() {
        let header = b"age-encryption.org/v1\n-> X25519 a\nb\n--- mac\n";
        let file = |nonce: u8, rest: &[u8]| [&header[..], &[nonce; 16], rest].concat();
        let one = head(&file(1, b"rest")).unwrap();
        assert_eq!(one, head(&file(1, b"tser")).unwrap());
        assert_ne!(one, head(&file(2, b"rest")).unwrap());
        assert_ne!(one, head(&file(1, b"longer")).unwrap());
        let long = [&b"x\n".repeat(5000)[..], &file(1, b"")].concat();
        assert!(head(&long).is_ok());
        for len in 0..header.len() + 16 {
            assert!(head(&file(1, b"")[..len]).is_err(), "{len}");
        }
        assert!(head(&b"x\n".repeat(1 << 20)).is_err());
    }

    #[test]
    fn a_code_binds_everything_and_only_its_key_makes_it() {
        let keys = ["one", "two"].map(BindingKey::of_identity);
        let head = |hash| Head {
            hash: [hash; 32],
            len: 7,
        };
        let heads = [head(1), head(2)];
        let bound = |chain, heads, manifest| Bound {
            chain,
            heads,
            manifest: [manifest; 32],
        };
        let good = keys[0].bind(&bound(1, &heads[..], 3));
        assert!(matches!(
            check(&good, &keys, &bound(1, &heads, 3)),
            Ok(Some(()))
        ));
        assert!(matches!(
            check(&good, &keys[1..], &bound(1, &heads, 3)),
            Ok(None)
        ));
        let swapped = [head(2), head(1)];
        for other in [
            bound(2, &heads[..], 3),
            bound(1, &heads[..1], 3),
            bound(1, &swapped[..], 3),
            bound(1, &heads[..], 4),
        ] {
            let error = check(&good, &keys, &other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted);
        }
        assert!(check(&[0; BINDING_LEN], &keys, &bound(1, &heads, 3)).is_err());
    }
}

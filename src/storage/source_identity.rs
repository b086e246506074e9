//! What tells one state of a source from every other.

/// One state of a source that no longer changes: equal identities mean equal bytes.
///
/// It is a hash over the server, the path, the snapshot, the length and the `ETag`; over nothing
/// that is secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceIdentity(pub [u8; 32]);

#[cfg(feature = "http")]
impl SourceIdentity {
    /// The identity of what `parts` name together.
    pub(in crate::storage) fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        SourceIdentity(hasher.finalize().into())
    }
}

#[cfg(feature = "http")]
const CONTEXT: &str = "diskdelta 2026-12 identity of a source";

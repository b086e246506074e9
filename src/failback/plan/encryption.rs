//! What a plan says of encryption.

use std::path::PathBuf;

use serde::Deserialize;

use super::values::{AllFilled, HostPath, checked};
use crate::replica::KeyFile;

/// How a site's replicas are encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "EncryptionFile")]
#[non_exhaustive]
pub struct Encryption {
    /// Opens and seals them.
    pub key: KeyFile,
    /// Where they are kept; `None`: each beside its disk.
    pub directory: Option<PathBuf>,
    /// Who else can open them, as `age1...`.
    pub recipients: Vec<String>,
}

/// As a plan has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EncryptionFile {
    identity: Option<HostPath>,
    passphrase_file: Option<HostPath>,
    directory: Option<HostPath>,
    #[serde(default, deserialize_with = "checked::<AllFilled, _, _>")]
    recipients: Vec<String>,
}

impl TryFrom<EncryptionFile> for Encryption {
    type Error = &'static str;

    fn try_from(file: EncryptionFile) -> Result<Self, Self::Error> {
        let recipients = file.recipients;
        let key = match (file.identity, file.passphrase_file) {
            _ if !cfg!(feature = "encryption") => {
                return Err("this build cannot encrypt replicas (feature `encryption`)");
            }
            (Some(path), None) => KeyFile::Identity(path.0),
            (None, Some(path)) if recipients.is_empty() => KeyFile::Passphrase(path.0),
            (None, Some(_)) => return Err("a passphrase has no further recipients"),
            _ => return Err("names either an `identity` or a `passphrase_file`"),
        };
        Ok(Encryption {
            key,
            directory: file.directory.map(Into::into),
            recipients,
        })
    }
}

impl Encryption {
    /// Where the replica of a VM's disk is kept, where the plan names a directory for all of them.
    /// A device may have another name tomorrow, so it goes by what the plan calls it.
    pub fn directory_of(&self, vm: &str, identity: &str) -> Option<PathBuf> {
        let name = format!("{vm}+{}.replica", plain_name(identity));
        self.directory
            .as_ref()
            .map(|directory| directory.join(name))
    }
}

/// An identity as a part of a file's name: what might not be one is written as its bytes.
fn plain_name(identity: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let parts = identity.bytes().map(|byte| match plain(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02x}"),
    });
    parts.collect()
}

#[cfg(test)]
#[path = "../../../tests/inside/failback/encryption_names.rs"]
mod tests;

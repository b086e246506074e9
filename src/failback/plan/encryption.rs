//! Whether what a plan says of encryption makes sense.

use std::path::PathBuf;

use toml::Spanned;

use super::file::EncryptionFile;
use super::types::Encryption;
use super::validate::Check;
use crate::error::Result;
use crate::replica::KeyFile;

impl Check<'_> {
    pub(super) fn encryption(
        &self,
        site: &str,
        file: Spanned<EncryptionFile>,
    ) -> Result<Encryption> {
        let at = file.span().start;
        let key = format!("{site}.encryption");
        let EncryptionFile {
            identity,
            passphrase_file,
            directory,
            recipients,
        } = file.into_inner();
        if !cfg!(feature = "encryption") {
            let why = "this build cannot encrypt replicas (feature `encryption`)";
            return Err(self.wrong(&key, at, why));
        }
        let key_file = match (identity, passphrase_file) {
            (Some(path), None) => KeyFile::Identity(path.0),
            (None, Some(path)) if recipients.is_empty() => KeyFile::Passphrase(path.0),
            (None, Some(_)) => {
                let why = "a passphrase has no further recipients";
                return Err(self.wrong(&key, at, why));
            }
            _ => {
                let why = "names either an `identity` or a `passphrase_file`";
                return Err(self.wrong(&key, at, why));
            }
        };
        Ok(Encryption {
            key: key_file,
            directory: directory.map(|path| path.0),
            recipients: recipients.into_iter().map(|it| it.0).collect(),
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

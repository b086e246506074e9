//! Whether what a plan says of encryption makes sense.

use toml::Spanned;

use super::Encryption;
use super::address::parse_path;
use super::file::EncryptionFile;
use super::validate::Check;
use crate::error::Result;
use crate::failback::replica::KeyFile;

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
            recipients,
        } = file.into_inner();
        let path = |name: &str, text: &Spanned<String>| {
            let key = format!("{key}.{name}");
            parse_path(text.get_ref())
                .map_err(|e| self.wrong(&key, text.span().start, e.to_string()))
        };
        let key_file = match (&identity, &passphrase_file) {
            (Some(text), None) => KeyFile::Identity(path("identity", text)?),
            (None, Some(text)) if recipients.is_empty() => {
                KeyFile::Passphrase(path("passphrase_file", text)?)
            }
            (None, Some(_)) => {
                let why = "a passphrase has no further recipients";
                return Err(self.wrong(&key, at, why));
            }
            _ => {
                let why = "names either an `identity` or a `passphrase_file`";
                return Err(self.wrong(&key, at, why));
            }
        };
        let name = format!("{key}.recipients");
        let recipients = recipients.iter().map(|text| self.filled(&name, text));
        Ok(Encryption {
            key: key_file,
            recipients: recipients.collect::<Result<_>>()?,
        })
    }
}

//! The key of a replica.

use std::fmt;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use age::secrecy::{ExposeSecret, SecretString};
use age::{Decryptor, Encryptor, Identity, IdentityFile, Recipient, scrypt, x25519};

use super::binding::BindingKey;
use super::key_file::KeyFile;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::read_private;

pub(super) use age::stream::{StreamReader, StreamWriter};

/// Opens and seals the files of a replica.
pub struct Key {
    path: PathBuf,
    secret: Secret,
    others: Vec<x25519::Recipient>,
}

enum Secret {
    /// The text of an identity file.
    Identities(SecretString),
    Passphrase(SecretString),
}

impl Key {
    /// Reads a key from a file that only its owner can read. `recipients` (`age1...`) can open
    /// what is encrypted with it too.
    ///
    /// # Errors
    /// `Untrusted` for a file that others can read or change; `NotFound`, `Io`; `InvalidInput` for
    /// what is no key, and for recipients beside a passphrase, which age does not have.
    pub fn load(file: &KeyFile, recipients: &[String]) -> Result<Self> {
        let path = match file {
            KeyFile::Identity(path) | KeyFile::Passphrase(path) => path,
        };
        let text = String::from_utf8(read_private(path)?)
            .map_err(|e| no_key("this is no text", path).caused_by(e))?;
        let others = recipients.iter().map(|text| recipient(text));
        let others: Vec<_> = others.collect::<Result<_>>()?;
        let secret = match file {
            KeyFile::Identity(_) => Secret::Identities(text.into()),
            KeyFile::Passphrase(_) => {
                let phrase = text.lines().next().unwrap_or_default();
                if phrase.is_empty() {
                    return Err(no_key("the passphrase is empty", path));
                }
                if !others.is_empty() {
                    return Err(no_key("a passphrase has no further recipients", path));
                }
                Secret::Passphrase(phrase.into())
            }
        };
        let key = Key {
            path: path.clone(),
            secret,
            others,
        };
        if key.identities()?.is_empty() {
            return Err(no_key("no identity in this file", path));
        }
        Ok(key)
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins an age file. It is whole once the returned stream is finished.
    pub(super) fn seal<W: Write>(&self, to: W, path: &Path) -> Result<StreamWriter<W>> {
        let mut recipients: Vec<Box<dyn Recipient + Send>> = match &self.secret {
            Secret::Passphrase(phrase) => vec![Box::new(scrypt::Recipient::new(phrase.clone()))],
            Secret::Identities(text) => self
                .parse(text)?
                .to_recipients()
                .map_err(|e| self.unusable(&e))?,
        };
        let others = self.others.iter().cloned();
        recipients.extend(others.map(|it| Box::new(it) as Box<dyn Recipient + Send>));
        Encryptor::with_recipients(recipients.iter().map(|it| &**it as &dyn Recipient))
            .map_err(|e| self.unusable(&e))?
            .wrap_output(to)
            .map_err(|e| Error::io("write", e).at_path(path))
    }

    /// Opens an age file.
    ///
    /// # Errors
    /// `InvalidInput` where it was encrypted for another key; `Malformed` where it is damaged.
    pub(super) fn open<R: Read + Seek>(&self, from: R, path: &Path) -> Result<StreamReader<R>> {
        let identities = self.identities()?;
        Decryptor::new(from)
            .and_then(|file| file.decrypt(identities.iter().map(|it| &**it as &dyn Identity)))
            .map_err(|cause| self.refused(cause, path))
    }

    /// What binds replicas to this key; the first one makes codes, all are known.
    pub(super) fn bindings(&self) -> Vec<BindingKey> {
        match &self.secret {
            Secret::Passphrase(_) => vec![BindingKey::of_passphrase()],
            Secret::Identities(text) => {
                let lines = text.expose_secret().lines().map(str::trim);
                let identities = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
                identities.map(BindingKey::of_identity).collect()
            }
        }
    }

    fn identities(&self) -> Result<Vec<Box<dyn Identity + Send + Sync>>> {
        match &self.secret {
            Secret::Passphrase(phrase) => {
                let mut identity = scrypt::Identity::new(phrase.clone());
                // This machine may be much slower than the one that encrypted; a hostile file must
                // not cost more than minutes, though.
                identity.set_max_work_factor(MOST_WORK);
                Ok(vec![Box::new(identity)])
            }
            Secret::Identities(text) => {
                let identities = self.parse(text)?.into_identities();
                identities.map_err(|e| self.unusable(&e))
            }
        }
    }

    fn parse(&self, text: &SecretString) -> Result<IdentityFile<age::NoCallbacks>> {
        IdentityFile::from_buffer(text.expose_secret().as_bytes())
            .map_err(|e| no_key("not a file of age identities", &self.path).caused_by(e))
    }

    fn unusable(&self, cause: &dyn fmt::Display) -> Error {
        no_key(format!("cannot be used: {cause}"), &self.path)
    }

    fn refused(&self, cause: age::DecryptError, path: &Path) -> Error {
        use age::DecryptError as Cause;
        let key = self.path.display();
        match cause {
            Cause::Io(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => {
                Error::io("read", e).at_path(path)
            }
            Cause::NoMatchingKeys | Cause::DecryptionFailed | Cause::KeyDecryptionFailed => {
                let text = format!("the key in {key} does not open this file");
                Error::new(ErrorKind::InvalidInput, text)
                    .at_path(path)
                    .advise("name the key that it was encrypted with")
            }
            cause => Error::new(ErrorKind::Malformed, "a damaged age file")
                .at_path(path)
                .caused_by(std::io::Error::other(cause.to_string())),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn recipient(text: &str) -> Result<x25519::Recipient> {
    text.parse().map_err(|why: &str| {
        let text = format!("`{text}` is not an age recipient: {why}");
        Error::new(ErrorKind::InvalidInput, text)
    })
}

fn no_key(text: impl Into<std::borrow::Cow<'static, str>>, path: &Path) -> Error {
    Error::new(ErrorKind::InvalidInput, text).at_path(path)
}

/// Two to this power is what a passphrase may cost: 1 GiB of memory, and some seconds. age writes
/// about 18.
const MOST_WORK: u8 = 20;

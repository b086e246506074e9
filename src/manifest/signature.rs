//! Signatures of manifests, in the format of minisign.

use std::path::Path;

use minisign::{PublicKeyBox, SecretKeyBox, SignatureBox};

use super::read::Manifest;
use super::release::Release;
use crate::error::{Error, ErrorKind, Result};

/// A key that manifests are signed with, as `minisign -G -W` makes it: without a password.
pub struct SigningKey(minisign::SecretKey);

opaque!(SigningKey);

impl SigningKey {
    /// Reads a key file's text.
    ///
    /// # Errors
    /// `InvalidInput` for what is no such key, and for one that a password protects.
    pub fn parse(text: &str) -> Result<Self> {
        let key =
            SecretKeyBox::from_string(text).and_then(SecretKeyBox::into_unencrypted_secret_key);
        key.map(SigningKey).map_err(|_| {
            let what = "not a secret key of minisign without a password";
            Error::new(ErrorKind::InvalidInput, what).advise("make one with `minisign -G -W`")
        })
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// Those of [`parse`](SigningKey::parse); `NotFound`, `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|cause| Error::io("read", cause));
        text.and_then(|text| Self::parse(&text))
            .map_err(|error| error.at_path(path))
    }
}

/// The public part of a key that manifests are signed with.
#[derive(Clone)]
pub struct PublicKey(minisign::PublicKey);

opaque!(PublicKey);

impl PublicKey {
    /// Reads the text of a key file, or the line of it that is the key.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let key = match text.contains('\n') {
            true => PublicKeyBox::from_string(text).and_then(PublicKeyBox::into_public_key),
            false => minisign::PublicKey::from_base64(text),
        };
        key.map(PublicKey).map_err(|_| {
            let what = "not a public key of minisign";
            Error::new(ErrorKind::InvalidInput, what)
        })
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// Those of [`parse`](PublicKey::parse); `NotFound`, `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|cause| Error::io("read", cause));
        text.and_then(|text| Self::parse(&text))
            .map_err(|error| error.at_path(path))
    }
}

impl Manifest {
    /// Signs the manifest as `release`: its root, with the length and block size, the serial and
    /// the name. The signature is put behind what the manifest's file holds.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn sign(&self, release: &Release, key: &SigningKey) -> Result<()> {
        let (statement, comment) = (release.statement(self), release.comment());
        let signed = minisign::sign(
            None,
            &key.0,
            statement.as_bytes(),
            Some(&comment),
            Some("signature of a diskdelta manifest"),
        );
        let signed = signed.map_err(|_| Error::new(ErrorKind::Io, "cannot make a signature"))?;
        self.append_signature(&signed.into_string())
    }

    /// Checks the signature against `key`; which edition of which image it states.
    ///
    /// # Errors
    /// `Untrusted` for a manifest without a signature, or with one that is not by `key` and of this
    /// manifest; `Io`.
    pub fn verify_signature(&self, key: &PublicKey) -> Result<Release> {
        let untrusted =
            |what: &'static str| Error::new(ErrorKind::Untrusted, what).at_path(self.path());
        let text = self
            .signature()?
            .ok_or_else(|| untrusted("the manifest is not signed"))?;
        let wrong = || untrusted("the signature is not by this key, or of another manifest");
        let release = Release::stated_by(&text).ok_or_else(wrong)?;
        let signature = SignatureBox::from_string(&text).map_err(|_| wrong())?;
        let statement = release.statement(self);
        let statement = std::io::Cursor::new(statement.as_bytes());
        minisign::verify(&key.0, &signature, statement, true, false, false).map_err(|_| wrong())?;
        // The comment that was verified, and not one that was read apart from it.
        let comment = signature.trusted_comment().map_err(|_| wrong())?;
        match comment == release.comment() {
            true => Ok(release),
            false => Err(wrong()),
        }
    }
}

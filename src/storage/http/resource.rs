//! What an address leads to, and whether it is still the same.

use super::checksum::Checksum;
use super::client::{Answer, Client, Query};
use super::failure::Failure;
use super::headers::ContentRange;
use super::options::HttpOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::location::{WebAddress, is_link_local};
use crate::progress::CancelToken;
use crate::storage::SourceIdentity;

/// Bytes at a web server, as the first answer described them.
pub(in crate::storage) struct Resource {
    client: Client,
    /// What the caller named.
    named: WebAddress,
    /// Where redirects led.
    address: WebAddress,
    identity: Identity,
    /// Sent with every request: conditions, and the version of the service.
    headers: Vec<(&'static str, String)>,
    checksum: Option<Checksum>,
    is_page_blob: bool,
    /// Whether it changes only by this program, so that a change is no error.
    is_own: bool,
}

/// What tells one state of a resource from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Identity {
    pub len: u64,
    pub etag: Option<String>,
    pub modified: Option<String>,
}

impl Resource {
    /// Asks for the first byte, and follows redirects. `HEAD` is never sent: presigned addresses
    /// are signed for one method.
    ///
    /// # Errors
    /// `Untrusted` for an address without encryption, a redirect to another scheme, and a refusal
    /// of the server; `NotFound`; `Unsupported` for a server that knows no ranges, states no
    /// length, or packs its answers; `Malformed`, `Io`, `Cancelled`.
    pub(in crate::storage) fn open(
        named: &WebAddress,
        options: &HttpOptions,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let client = Client::new(named, options, cancel)?;
        let mut address = named.clone();
        for _ in 0..=MOST_REDIRECTS {
            refuse_plain(&address, options)?;
            refuse_other(&address, options)?;
            match first_answer(&client, &address)? {
                First::Found(identity, is_page_blob) => {
                    let headers = conditions(&address, &identity);
                    return Ok(Resource {
                        client,
                        named: named.clone(),
                        address,
                        identity,
                        headers,
                        checksum: None,
                        is_page_blob,
                        is_own: false,
                    });
                }
                First::Redirect(target) => {
                    let next = address.redirected(&target);
                    address = next.map_err(|error| error.at_path(named.to_string()))?;
                }
            }
        }
        let what = "the server redirects more than five times";
        Err(Error::new(ErrorKind::Untrusted, what).at_path(named.to_string()))
    }

    pub(in crate::storage) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The identity for those who keep it, of what has a strong `ETag`.
    pub(in crate::storage) fn source_identity(&self) -> Option<SourceIdentity> {
        let etag = self.identity.strong_etag()?;
        let (place, len) = (self.named.place(), self.identity.len.to_le_bytes());
        let parts = [place.as_bytes(), &len, etag.as_bytes()];
        Some(SourceIdentity::of(&parts))
    }

    pub(in crate::storage) fn named(&self) -> &WebAddress {
        &self.named
    }

    /// Where redirects led.
    pub(in crate::storage) fn address(&self) -> &WebAddress {
        &self.address
    }

    pub(in crate::storage) fn client(&self) -> &Client {
        &self.client
    }

    /// Headers of every request.
    pub(in crate::storage) fn headers(&self) -> &[(&'static str, String)] {
        &self.headers
    }

    /// Whether the server calls it a page blob.
    pub(in crate::storage) fn is_page_blob(&self) -> bool {
        self.is_page_blob
    }

    /// Takes it for changed by this program alone: no answer is held against the first one but for
    /// its length.
    pub(in crate::storage) fn make_own(&mut self) {
        self.is_own = true;
        self.identity.etag = None;
        self.identity.modified = None;
    }

    /// Sends `headers` with every request, and asks for a checksum with every range.
    pub(in crate::storage) fn speak(
        &mut self,
        headers: Vec<(&'static str, String)>,
        checksum: Option<Checksum>,
    ) {
        self.headers = [conditions(&self.address, &self.identity), headers].concat();
        self.checksum = checksum;
    }

    /// Whether the service takes these headers.
    ///
    /// # Errors
    /// Those of [`read`](Resource::read).
    pub(in crate::storage) fn is_understood(&self) -> Result<bool> {
        let mut retries = self.client.retries();
        loop {
            let query = self.query(0, 0);
            let asked = self.client.attempt(&query, &[400, 416]).and_then(|answer| {
                match (answer.status, answer.header("x-ms-error-code")) {
                    (400, Some("InvalidHeaderValue" | "UnsupportedHeader")) => Ok(false),
                    (400, _) => Err(answer.refuse(ErrorKind::Io, "the server answers 400")),
                    _ => Ok(true),
                }
            });
            match asked {
                Ok(is_understood) => return Ok(is_understood),
                Err(failure) => retries.wait(failure)?,
            }
        }
    }

    /// A request for the bytes from `first` to `last`.
    fn query(&self, first: u64, last: u64) -> Query<'_> {
        let mut headers = self.headers.clone();
        headers.push(("range", format!("bytes={first}-{last}")));
        headers.extend(self.checksum.map(Checksum::request));
        Query {
            at: &self.named,
            url: self.address.with_secrets(),
            headers,
            body: None,
        }
    }

    /// Fills `buf` from byte `offset` on, in as many requests as the server makes of it. The range
    /// is inside the resource.
    ///
    /// # Errors
    /// `SourceChanged`; `Untrusted` for an address that has expired; `NotFound`, `Unsupported`,
    /// `Malformed`, `Io`, `Cancelled`.
    pub(in crate::storage) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut retries = self.client.retries();
        let (mut done, mut counted) = (0, 0);
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let read = self.read_some(rest, offset + done as u64, &mut done);
            if done - counted >= PROGRESS_BYTES {
                counted = done;
                retries.restart();
            }
            match read {
                Ok(()) => {}
                Err(failure) => retries.wait(failure).map_err(|error| {
                    error
                        .at_path(self.named.to_string())
                        .at_offset(offset + done as u64)
                })?,
            }
        }
        Ok(())
    }

    /// One request for `buf`, which may bring less.
    fn read_some(&self, buf: &mut [u8], offset: u64, done: &mut usize) -> Result<(), Failure> {
        let len = match self.checksum {
            Some(_) => buf.len().min(MOST_CHECKED_BYTES),
            None => buf.len(),
        };
        let last = offset + len as u64 - 1;
        let query = self.query(offset, last);
        let mut answer = self.client.attempt(&query, &[416])?;
        let range = self.check(&answer)?;
        match range.bytes {
            Some((first, end)) if first == offset && end <= last => {
                let len = usize::try_from(end - first + 1).unwrap_or(usize::MAX);
                let part = buf.get_mut(..len).unwrap_or_default();
                let Some(checksum) = self.checksum else {
                    return answer.read(part, done);
                };
                let stated = checksum.stated(&answer)?;
                // Only what has the right checksum counts.
                answer.read(part, &mut 0)?;
                checksum.check(part, &stated)?;
                *done += part.len();
                Ok(())
            }
            _ => Err(answer.refuse(
                ErrorKind::Malformed,
                "the server answers with other bytes than it was asked for",
            )),
        }
    }

    /// Holds an answer against the first one.
    fn check(&self, answer: &Answer<'_>) -> Result<ContentRange, Failure> {
        let changed = |what| Err(answer.refuse(ErrorKind::SourceChanged, what));
        let range = match described(answer)? {
            Described::Part(range) => range,
            Described::Redirect(_) => {
                return Err(answer.refuse(
                    ErrorKind::Untrusted,
                    "the server redirects where it did not before",
                ));
            }
        };
        let identity = Identity::of(answer, range.len.unwrap_or(self.identity.len));
        match () {
            () if identity.len != self.identity.len => changed("its length changed meanwhile"),
            () if self.is_own => Ok(range),
            () if identity.etag != self.identity.etag => changed("its ETag changed meanwhile"),
            () if identity.modified != self.identity.modified => {
                changed("it was modified meanwhile")
            }
            () => Ok(range),
        }
    }

    /// Asks whether the resource is still what it was.
    ///
    /// # Errors
    /// `SourceChanged`; those of [`read`](Resource::read).
    pub(in crate::storage) fn confirm(&self) -> Result<()> {
        match self.identity.len {
            0 => Ok(()),
            _ => self.read(&mut [0], 0),
        }
    }
}

impl Identity {
    fn of(answer: &Answer<'_>, len: u64) -> Self {
        let text = |name| answer.header(name).map(ToOwned::to_owned);
        Identity {
            len,
            etag: text("etag"),
            modified: text("last-modified"),
        }
    }

    /// An `ETag` that no other bytes have.
    fn strong_etag(&self) -> Option<&String> {
        self.etag.as_ref().filter(|etag| etag.starts_with('"'))
    }

    /// Whether a change that keeps the length can be noticed.
    pub(in crate::storage) fn shows_changes(&self) -> bool {
        self.etag.is_some() || self.modified.is_some()
    }
}

/// What the first answer says.
enum First {
    Found(Identity, bool),
    Redirect(String),
}

/// What an answer to a request for a range is.
enum Described {
    Part(ContentRange),
    Redirect(String),
}

fn first_answer(client: &Client, address: &WebAddress) -> Result<First> {
    let mut retries = client.retries();
    loop {
        let query = Query {
            at: address,
            url: address.with_secrets(),
            headers: vec![("range", "bytes=0-0".to_owned())],
            body: None,
        };
        let first = client.attempt(&query, &[416]).and_then(|mut answer| {
            let range = match described(&answer)? {
                Described::Redirect(target) => return Ok(First::Redirect(target)),
                Described::Part(range) => range,
            };
            let Some(len) = range.len else {
                let what = "the server does not state the length of the disk";
                return Err(answer.refuse(ErrorKind::Unsupported, what));
            };
            if range.bytes.is_some() {
                answer.read(&mut [0], &mut 0)?;
            }
            let is_page_blob = answer.header("x-ms-blob-type") == Some("PageBlob");
            Ok(First::Found(Identity::of(&answer, len), is_page_blob))
        });
        match first {
            Ok(first) => return Ok(first),
            Err(failure) => retries.wait(failure)?,
        }
    }
}

/// What an answer to a request for a range is.
fn described(answer: &Answer<'_>) -> Result<Described, Failure> {
    if matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
        let target = answer.header("location").map(ToOwned::to_owned);
        return target
            .map(Described::Redirect)
            .ok_or_else(|| answer.refuse(ErrorKind::Malformed, "the server redirects to nowhere"));
    }
    if answer
        .header("content-encoding")
        .is_some_and(|it| it != "identity")
    {
        let what = "the server packs its answers (Content-Encoding)";
        return Err(answer.refuse(ErrorKind::Unsupported, what));
    }
    let range = answer.header("content-range").and_then(ContentRange::parse);
    match (answer.status, range) {
        (206, Some(range)) if range.bytes.is_some() => Ok(Described::Part(range)),
        (416, Some(range)) if range.len == Some(0) => Ok(Described::Part(range)),
        (416, _) => Err(answer.refuse(
            ErrorKind::SourceChanged,
            "the server has no such range of it any more",
        )),
        (206, _) => Err(answer.refuse(
            ErrorKind::Malformed,
            "the server does not say which bytes it answers with (Content-Range)",
        )),
        _ => Err(answer.refuse(
            ErrorKind::Unsupported,
            "the server does not answer requests for a range with one",
        )),
    }
}

/// What makes the server refuse to answer with another state of the resource.
fn conditions(address: &WebAddress, identity: &Identity) -> Vec<(&'static str, String)> {
    match identity.strong_etag() {
        // The hosts of exported disks refuse all conditions.
        Some(etag) if !address.host().starts_with("md-") => vec![("if-match", etag.clone())],
        _ => Vec::new(),
    }
}

/// # Errors
/// `Untrusted` for a connection to another host that is not encrypted.
fn refuse_plain(address: &WebAddress, options: &HttpOptions) -> Result<()> {
    if !address.is_plain() || address.is_loopback() || options.allow_plain {
        return Ok(());
    }
    let what = "the connection would not be encrypted (http://)";
    Err(Error::new(ErrorKind::Untrusted, what)
        .at_path(address.to_string())
        .advise("use https://"))
}

/// # Errors
/// `Untrusted` for an address that is not among those that are allowed.
fn refuse_other(address: &WebAddress, options: &HttpOptions) -> Result<()> {
    let is_allowed = match &options.allowed {
        None => true,
        Some(prefixes) => {
            let is_far = !address.ip().is_some_and(is_link_local);
            is_far && prefixes.iter().any(|prefix| prefix.allows(address))
        }
    };
    match is_allowed {
        true => Ok(()),
        false => {
            let what = "this agent opens no such address";
            Err(Error::new(ErrorKind::Untrusted, what).at_path(address.to_string()))
        }
    }
}

/// The longest range for which a service states a checksum.
const MOST_CHECKED_BYTES: usize = 4 << 20;
const MOST_REDIRECTS: u32 = 5;
/// Bytes that make an attempt worth while, though its end was cut off.
const PROGRESS_BYTES: usize = 64 << 10;

//! Requests that change a page blob.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::version::{VERSION, VERSIONS, Version, refuses_version};
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::location::WebAddress;
use crate::progress::CancelToken;
use crate::storage::http::{Client, Failure, HttpOptions, Query};

/// Makes the requests that change one page blob. Each is repeated until it is answered: a page that
/// is written twice holds the same bytes.
pub(super) struct Writer {
    client: Client,
    address: WebAddress,
    version: Mutex<Version>,
    /// The id of the lease that all requests state.
    lease: Mutex<Option<String>>,
}

/// A refusal that the caller expects, by the service's code for it.
enum Put {
    Done,
    Refused(&'static str),
}

impl Writer {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// Those of [`Client::new`].
    pub(super) fn new(
        address: &WebAddress,
        options: &HttpOptions,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let [best, ..] = VERSIONS;
        Ok(Writer {
            client: Client::new(address, options, cancel)?,
            address: address.clone(),
            version: Mutex::new(best),
            lease: Mutex::default(),
        })
    }

    /// Speaks the version that the service was found to take.
    pub(super) fn speak(&self, version: Version) {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
    }

    fn version(&self) -> Version {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a blob of `len` bytes, all zeros; `false` where there is one.
    ///
    /// # Errors
    /// `Untrusted` for an address that may not create; `Unsupported`, `Io`, `Cancelled`.
    pub(super) fn create(&self, len: u64) -> Result<bool> {
        let headers = || {
            vec![
                ("x-ms-blob-type", "PageBlob".to_owned()),
                ("x-ms-blob-content-length", len.to_string()),
                ("if-none-match", "*".to_owned()),
            ]
        };
        for version in VERSIONS {
            self.speak(version);
            match self.put("", headers(), &[], &[EXISTS, OTHER_VALUE, OTHER_HEADER])? {
                Put::Done => return Ok(true),
                Put::Refused(code) if refuses_version(Some(code)) => {}
                Put::Refused(_) => return Ok(false),
            }
        }
        let what = "the blob service refuses to make a page blob of that length";
        Err(self.error(ErrorKind::Unsupported, what))
    }

    /// Writes whole pages, at most [`MOST_WRITTEN_BYTES`], with a checksum of theirs that the
    /// service holds against what arrives. Durable when it returns.
    ///
    /// # Errors
    /// `TargetChanged` where the lease was broken; `Untrusted`, `NotFound`, `Io`, `Cancelled`.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let checksum = self.version().checksum;
        let headers = vec![
            ("x-ms-page-write", "update".to_owned()),
            range(&(offset..offset + bytes.len() as u64)),
            (checksum.name(), checksum.of(bytes)),
        ];
        self.put("comp=page", headers, bytes, &[]).map(drop)
    }

    /// Makes whole pages read as zeros, and take no space. Durable when it returns.
    ///
    /// # Errors
    /// As [`write`](Writer::write).
    pub(super) fn clear(&self, pages: &Range<u64>) -> Result<()> {
        let headers = vec![("x-ms-page-write", "clear".to_owned()), range(pages)];
        self.put("comp=page", headers, &[], &[]).map(drop)
    }

    /// Takes the lease of the blob, without an end, under `id`; taking it again is harmless.
    ///
    /// # Errors
    /// `InUse` where another has it; those of [`write`](Writer::write).
    pub(super) fn acquire(&self, id: &str) -> Result<()> {
        let headers = vec![
            ("x-ms-lease-action", "acquire".to_owned()),
            ("x-ms-lease-duration", "-1".to_owned()),
            ("x-ms-proposed-lease-id", id.to_owned()),
        ];
        match self.put("comp=lease", headers, &[], &[LEASED])? {
            Put::Done => {}
            Put::Refused(_) => {
                let what = "another program has the lease of the page blob";
                return Err(self.error(ErrorKind::InUse, what).advise(
                    "run the interrupted sync again where its log is; where there is none, break \
                     the lease: az storage blob lease break",
                ));
            }
        }
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.to_owned());
        Ok(())
    }

    /// Gives the lease back.
    ///
    /// # Errors
    /// As [`write`](Writer::write).
    pub(super) fn release(&self, id: &str) -> Result<()> {
        let headers = vec![
            ("x-ms-lease-action", "release".to_owned()),
            ("x-ms-lease-id", id.to_owned()),
        ];
        self.put("comp=lease", headers, &[], &[]).map(drop)
    }

    /// Makes one request; one of the codes in `refusals` is an answer, any other an error.
    fn put(
        &self,
        parameters: &str,
        mut headers: Vec<(&'static str, String)>,
        body: &[u8],
        refusals: &[&'static str],
    ) -> Result<Put> {
        headers.push((VERSION, self.version().name.to_owned()));
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        headers.extend(lease.clone().map(|id| ("x-ms-lease-id", id)));
        drop(lease);
        let query = Query {
            at: &self.address,
            url: match parameters {
                "" => self.address.with_secrets(),
                _ => self.address.with_parameters(parameters),
            },
            headers,
            body: Some(body),
        };
        let mut retries = self.client.retries();
        loop {
            match self.attempt(&query, refusals) {
                Ok(put) => return Ok(put),
                Err(failure) => retries.wait(failure).map_err(|error| self.explain(error))?,
            }
        }
    }

    fn attempt(&self, query: &Query<'_>, refusals: &[&'static str]) -> Result<Put, Failure> {
        let answer = self.client.attempt(query, &[400, 409, 412])?;
        if (200..300).contains(&answer.status) {
            return Ok(Put::Done);
        }
        let code = answer.header("x-ms-error-code").unwrap_or_default();
        let refusal = refusals.iter().find(|refusal| **refusal == code);
        match (answer.status, refusal) {
            (_, Some(refusal)) => Ok(Put::Refused(refusal)),
            (300..400, _) => Err(answer.refuse(
                ErrorKind::Untrusted,
                "the server redirects a request that would change a disk",
            )),
            (412, _) if code.contains("Lease") => Err(answer.refuse(
                ErrorKind::TargetChanged,
                "the lease of the page blob was broken: another program may have written to it",
            )),
            // Damaged on the way.
            (400, _) if code.ends_with("Mismatch") => {
                let what = "the bytes did not arrive with the checksum that they were sent with";
                Err(Failure::passing(self.error(ErrorKind::Io, what)))
            }
            _ => Err(answer.refusal()),
        }
    }

    /// Says of a refusal of a managed disk what can be done instead.
    fn explain(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Untrusted if self.address.host().starts_with(DISK_HOSTS) => {
                error.or_advise(Advice::DiskOfBlob)
            }
            _ => error,
        }
    }

    fn error(&self, kind: ErrorKind, what: &'static str) -> Error {
        Error::new(kind, what).at_path(self.address.to_string())
    }
}

fn range(range: &Range<u64>) -> (&'static str, String) {
    (
        "x-ms-range",
        format!("bytes={}-{}", range.start, range.end - 1),
    )
}

/// The most bytes of one write.
pub(super) const MOST_WRITTEN_BYTES: usize = 4 << 20;
/// What the names of hosts begin with that have managed disks.
pub(super) const DISK_HOSTS: &str = "md-";
const EXISTS: &str = "BlobAlreadyExists";
const LEASED: &str = "LeaseAlreadyPresent";
const OTHER_VALUE: &str = "InvalidHeaderValue";
const OTHER_HEADER: &str = "UnsupportedHeader";

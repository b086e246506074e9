//! A storage account whose page blobs are written, as strict as the service where a client could
//! go wrong.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use md5::Digest;

use crate::blob::{Blob, PAGE, Service, base64, refused};
use crate::server::{Request, Response};

/// The most bytes of one Put Page.
const MOST_WRITTEN: usize = 4 << 20;
/// The query of an address that may create, read and write every blob.
pub const QUERY: &str = "sv=2020-10-02&sr=c&sp=rcw&sig=S1GACCOUNT%2B";

/// Page blobs, by path.
pub struct Account(Mutex<Service>);

impl Account {
    pub fn new(blobs: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Account {
        let blobs = blobs.into_iter().map(|(path, bytes)| {
            let query = QUERY.to_owned();
            (
                path,
                Blob {
                    query,
                    ..Blob::new(bytes, 1)
                },
            )
        });
        Account(Mutex::new(Service::new(blobs)))
    }

    pub fn service(&self) -> MutexGuard<'_, Service> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the blob at `path`.
    pub fn blob(&self, path: &str) -> Option<Blob> {
        self.service().blobs.get(path).cloned()
    }

    pub fn answer(&self, request: &Request) -> Response {
        let mut service = self.service();
        match request.method.as_str() {
            "PUT" => put(&mut service, request),
            _ => service.answer(request),
        }
    }
}

fn put(service: &mut Service, request: &Request) -> Response {
    let Some(rest) = request.query.strip_prefix(QUERY) else {
        return refused(403, "AuthenticationFailed");
    };
    let version = request.headers.get("x-ms-version").map(String::as_str);
    let version = version.unwrap_or("2015-02-21");
    if !service.versions.contains(&version) {
        return refused(400, "InvalidHeaderValue");
    }
    let parameters: HashMap<&str, &str> = rest
        .trim_start_matches('&')
        .split('&')
        .filter_map(|part| part.split_once('='))
        .collect();
    let is_disk = request.headers["host"].starts_with("md-");
    let comp = parameters.get("comp").copied();
    // The hosts of managed disks take pages, and nothing else.
    if is_disk && comp != Some("page") {
        return refused(400, "UnsupportedHeader");
    }
    match comp {
        None if parameters.is_empty() => create(service, request),
        Some("page") => match service.blobs.get_mut(&request.path) {
            Some(blob) => page(blob, request, version),
            None => refused(404, "BlobNotFound"),
        },
        Some("lease") => match service.blobs.get_mut(&request.path) {
            Some(blob) => lease(blob, request),
            None => refused(404, "BlobNotFound"),
        },
        _ => refused(400, "InvalidQueryParameterValue"),
    }
}

fn create(service: &mut Service, request: &Request) -> Response {
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    if header("x-ms-blob-type") != Some("PageBlob") || !request.body.is_empty() {
        return refused(400, "InvalidHeaderValue");
    }
    let len = header("x-ms-blob-content-length").and_then(|len| len.parse::<usize>().ok());
    let Some(len) = len.filter(|len| len.is_multiple_of(PAGE)) else {
        return refused(400, "InvalidHeaderValue");
    };
    if let Some(there) = service.blobs.get(&request.path) {
        if header("if-none-match") == Some("*") {
            return refused(409, "BlobAlreadyExists");
        }
        if there.lease.is_some() {
            return refused(412, "LeaseIdMissing");
        }
    }
    let blob = Blob {
        query: QUERY.to_owned(),
        ..Blob::new(vec![0; len], 1)
    };
    let etag = blob.etag();
    service.blobs.insert(request.path.clone(), blob);
    Response::status(201).with("etag", etag)
}

fn page(blob: &mut Blob, request: &Request, version: &str) -> Response {
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    match (&blob.lease, header("x-ms-lease-id")) {
        (Some(_), None) => return refused(412, "LeaseIdMissing"),
        (None, Some(_)) => return refused(412, "LeaseNotPresentWithBlobOperation"),
        (Some(has), Some(states)) if has != states => {
            return refused(412, "LeaseIdMismatchWithBlobOperation");
        }
        _ => {}
    }
    let Some((first, last)) = request.range() else {
        return refused(400, "MissingRequiredHeader");
    };
    let end = last + 1;
    if first % PAGE != 0 || end % PAGE != 0 || end > blob.bytes.len() || first >= end {
        return refused(416, "InvalidPageRange");
    }
    let (crc, md5) = (header("x-ms-content-crc64"), header("content-md5"));
    match header("x-ms-page-write") {
        Some("update") => {
            if end - first > MOST_WRITTEN {
                return refused(413, "RequestBodyTooLarge");
            }
            if request.body.len() != end - first || crc.is_some() == md5.is_some() {
                return refused(400, "InvalidHeaderValue");
            }
            if crc.is_some() && version < "2019-02-02" {
                return refused(400, "UnsupportedHeader");
            }
            let mut digest = crc64fast_nvme::Digest::new();
            digest.write(&request.body);
            if crc.is_some_and(|crc| crc != base64(&digest.sum64().to_le_bytes())) {
                return refused(400, "Crc64Mismatch");
            }
            if md5.is_some_and(|md5| md5 != base64(&md5::Md5::digest(&request.body))) {
                return refused(400, "Md5Mismatch");
            }
            blob.bytes[first..end].copy_from_slice(&request.body);
            blob.written[first / PAGE..end / PAGE].fill(true);
        }
        Some("clear") => {
            if !request.body.is_empty() || crc.is_some() || md5.is_some() {
                return refused(400, "InvalidHeaderValue");
            }
            blob.bytes[first..end].fill(0);
            blob.written[first / PAGE..end / PAGE].fill(false);
        }
        _ => return refused(400, "InvalidHeaderValue"),
    }
    blob.writes += 1;
    Response::status(201).with("etag", blob.etag())
}

fn lease(blob: &mut Blob, request: &Request) -> Response {
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    let duration = header("x-ms-lease-duration").and_then(|it| it.parse::<i32>().ok());
    match header("x-ms-lease-action") {
        Some("acquire") => {
            let is_valid = |seconds: i32| seconds == -1 || (15..=60).contains(&seconds);
            let Some(id) = header("x-ms-proposed-lease-id").filter(|it| is_guid(it)) else {
                return refused(400, "InvalidHeaderValue");
            };
            if !duration.is_some_and(is_valid) {
                return refused(400, "InvalidHeaderValue");
            }
            if blob.lease.as_deref().is_some_and(|has| has != id) {
                return refused(409, "LeaseAlreadyPresent");
            }
            blob.lease = Some(id.to_owned());
            Response::status(201)
        }
        Some("release") => match blob.lease.as_deref() == header("x-ms-lease-id") {
            true => {
                blob.lease = None;
                Response::status(200)
            }
            false => refused(409, "LeaseIdMismatchWithLeaseOperation"),
        },
        Some("break") => {
            blob.lease = None;
            Response::status(202)
        }
        _ => refused(400, "InvalidHeaderValue"),
    }
}

fn is_guid(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12]
        && text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

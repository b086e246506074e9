//! The page blobs of the Azure blob service, as strict as the service where a client could go
//! wrong.

use std::collections::HashMap;
use std::ops::Range;

use md5::Digest;

use crate::server::{Request, Response};

pub const PAGE: usize = 512;
const MOST_CHECKED: usize = 4 << 20;

/// One state of a blob: a snapshot, behind an address of its own.
#[derive(Clone)]
pub struct Blob {
    pub bytes: Vec<u8>,
    /// Which pages were written.
    pub written: Vec<bool>,
    /// What the query must say, signature and all.
    pub query: String,
    /// Counts up with time.
    pub made: usize,
    /// How often it was written to.
    pub writes: usize,
    /// The id of the lease that it has.
    pub lease: Option<String>,
}

impl Blob {
    /// Holds `bytes`, written where they are not zeros.
    pub fn new(bytes: Vec<u8>, made: usize) -> Blob {
        let written = bytes
            .chunks(PAGE)
            .map(|page| page.iter().any(|byte| *byte != 0));
        Blob {
            written: written.collect(),
            bytes,
            query: format!("sv=2018-11-09&snapshot=2026-01-0{made}T00%3A00&sr=bs&sig=S1G{made}"),
            made,
            writes: 0,
            lease: None,
        }
    }

    pub fn etag(&self) -> String {
        format!("\"0x8D{}.{}\"", self.made, self.writes)
    }
}

/// The service.
#[derive(Clone)]
pub struct Service {
    /// By path; those of one disk begin alike up to the last slash.
    pub blobs: HashMap<String, Blob>,
    pub versions: Vec<&'static str>,
    /// Entries of one page of a list.
    pub page_entries: usize,
    /// Entries that a list without an answer in time has.
    pub most_entries: usize,
}

impl Service {
    pub fn new(blobs: impl IntoIterator<Item = (&'static str, Blob)>) -> Service {
        Service {
            blobs: blobs
                .into_iter()
                .map(|(path, blob)| (path.to_owned(), blob))
                .collect(),
            versions: vec!["2017-11-09", "2019-07-07", "2020-10-02"],
            page_entries: 10_000,
            most_entries: usize::MAX,
        }
    }

    pub fn answer(&self, request: &Request) -> Response {
        if request.method == "CONNECT" {
            return Response::status(200);
        }
        let Some(blob) = self.blobs.get(&request.path) else {
            return refused(404, "BlobNotFound");
        };
        // The query is signed as a whole; parameters of the request follow it.
        let rest = match request.query.strip_prefix(&blob.query) {
            Some(rest) if request.method == "GET" => rest.strip_prefix('&').unwrap_or(rest),
            _ => return refused(403, "AuthenticationFailed"),
        };
        let version = request.headers.get("x-ms-version").map(String::as_str);
        if version.is_some_and(|version| !self.versions.contains(&version)) {
            return refused(400, "InvalidHeaderValue");
        }
        let version = version.unwrap_or("2018-11-09");
        let host = request.headers.get("host").unwrap();
        let has_condition = ["if-match", "if-none-match", "if-unmodified-since"]
            .iter()
            .any(|name| request.headers.contains_key(*name));
        if has_condition && host.starts_with("md-") {
            return refused(400, "UnsupportedHeader");
        }
        let is_other = |etag: &String| *etag != blob.etag();
        if request.headers.get("if-match").is_some_and(is_other) {
            return refused(412, "ConditionNotMet");
        }
        let parameters: HashMap<&str, &str> = rest
            .split('&')
            .filter_map(|part| part.split_once('='))
            .collect();
        match parameters.get("comp") {
            Some(&"pagelist") => self.list(request, blob, version, &parameters),
            None if parameters.is_empty() => read(request, blob, version),
            _ => refused(400, "InvalidQueryParameterValue"),
        }
    }

    fn list(
        &self,
        request: &Request,
        blob: &Blob,
        version: &str,
        parameters: &HashMap<&str, &str>,
    ) -> Response {
        let is_paged = version >= "2020-10-02";
        if !is_paged && (parameters.contains_key("maxresults") || parameters.contains_key("marker"))
        {
            return refused(400, "InvalidQueryParameterValue");
        }
        let by_time = parameters.get("prevsnapshot").map(|time| {
            let older = self
                .blobs
                .values()
                .find(|it| it.query.contains(&format!("snapshot={time}&")));
            older.ok_or_else(|| refused(404, "PreviousSnapshotNotFound"))
        });
        let by_url = request
            .headers
            .get("x-ms-previous-snapshot-url")
            .map(|url| {
                let rest = url.split_once("://").unwrap().1;
                let (path, query) = rest[rest.find('/').unwrap()..].split_once('?').unwrap();
                let older = self.blobs.get(path).filter(|older| older.query == query);
                older.ok_or_else(|| refused(403, "AuthenticationFailed"))
            });
        let older = match (by_time, by_url) {
            (Some(Err(refusal)), _) | (_, Some(Err(refusal))) => return refusal,
            (Some(Ok(older)), _) | (_, Some(Ok(older))) => Some(older),
            (None, None) => None,
        };
        if older.is_some_and(|older| older.made >= blob.made) {
            return refused(409, "PreviousSnapshotCannotBeNewer");
        }
        let (first, last) = request.range().unwrap_or((0, blob.bytes.len() - 1));
        assert!(last < blob.bytes.len());
        let entries = entries(blob, older, first..last + 1);
        if entries.len() > self.most_entries {
            return refused(500, "OperationTimedOut");
        }
        // The marker has characters that have to be encoded.
        let from: usize = match parameters.get("marker") {
            Some(marker) => match marker.strip_prefix("2%21%26%2B") {
                Some(from) => from.parse().unwrap(),
                None => return refused(400, "InvalidQueryParameterValue"),
            },
            None => 0,
        };
        let most = parameters
            .get("maxresults")
            .map_or(usize::MAX, |most| most.parse().unwrap());
        let most = most.min(if is_paged {
            self.page_entries
        } else {
            usize::MAX
        });
        let to = from.saturating_add(most).min(entries.len());
        let mut body = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>".to_owned();
        for (kind, range) in &entries[from..to] {
            let (start, end) = (range.start, range.end - 1);
            body += &format!("<{kind}><Start>{start}</Start><End>{end}</End></{kind}>");
        }
        if to < entries.len() {
            body += &format!("<NextMarker>2!&amp;+{to}</NextMarker></PageList>");
        } else {
            body += "<NextMarker/></PageList>";
        }
        Response {
            body: body.into_bytes(),
            ..described(200, blob).with("x-ms-blob-content-length", blob.bytes.len().to_string())
        }
    }
}

/// Page ranges and cleared ranges, as one sorted list.
fn entries(
    blob: &Blob,
    older: Option<&Blob>,
    part: Range<usize>,
) -> Vec<(&'static str, Range<usize>)> {
    let mut found: Vec<(&'static str, Range<usize>)> = Vec::new();
    for (index, page) in blob.bytes.chunks(PAGE).enumerate() {
        let range = (index * PAGE).max(part.start)..((index + 1) * PAGE).min(part.end);
        if range.is_empty() {
            continue;
        }
        let kind = match (older, blob.written[index]) {
            (None, true) => "PageRange",
            (None, false) => continue,
            (Some(older), true) => {
                let old = &older.bytes[index * PAGE..(index + 1) * PAGE];
                if older.written[index] && old == page {
                    continue;
                }
                "PageRange"
            }
            (Some(older), false) if older.written[index] => "ClearRange",
            (Some(_), false) => continue,
        };
        match found.last_mut() {
            Some((last, joined)) if *last == kind && joined.end == range.start => {
                joined.end = range.end
            }
            _ => found.push((kind, range)),
        }
    }
    found
}

fn read(request: &Request, blob: &Blob, version: &str) -> Response {
    let len = blob.bytes.len();
    let (first, last) = request.range().unwrap_or((0, len - 1));
    if first >= len {
        return refused(416, "InvalidRange").with("content-range", format!("bytes */{len}"));
    }
    let last = last.min(len - 1);
    let body = blob.bytes[first..=last].to_vec();
    let asks = |name: &str| request.headers.get(name).is_some_and(|it| it == "true");
    let (crc, md5) = (
        asks("x-ms-range-get-content-crc64"),
        asks("x-ms-range-get-content-md5"),
    );
    if (crc || md5) && (body.len() > MOST_CHECKED || (crc && md5)) {
        return refused(400, "OutOfRangeInput");
    }
    if crc && version < "2019-02-02" {
        return refused(400, "UnsupportedHeader");
    }
    let mut answer =
        described(206, blob).with("content-range", format!("bytes {first}-{last}/{len}"));
    if crc {
        let mut digest = crc64fast_nvme::Digest::new();
        digest.write(&body);
        answer = answer.with("x-ms-content-crc64", base64(&digest.sum64().to_le_bytes()));
    }
    if md5 {
        answer = answer.with("content-md5", base64(&md5::Md5::digest(&body)));
    }
    Response { body, ..answer }
}

fn described(status: u16, blob: &Blob) -> Response {
    Response::status(status)
        .with("etag", blob.etag())
        .with("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        .with("x-ms-blob-type", "PageBlob")
}

pub fn refused(status: u16, code: &str) -> Response {
    Response::status(status)
        .with("x-ms-error-code", code)
        .with("x-ms-request-id", "b1-0001")
}

pub fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let digit =
        |six: &[u8]| six.iter().fold(0, |sum, bit| sum << 1 | usize::from(*bit)) << (6 - six.len());
    let mut text: String = bits
        .chunks(6)
        .map(|six| char::from(digits[digit(six)]))
        .collect();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

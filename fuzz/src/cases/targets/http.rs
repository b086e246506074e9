//! Headers of a web server's answers.

use diskdelta::storage::{ContentRange, retry_after};

use super::super::Depth;
use super::super::meter::within;

/// The first line is the value of `Content-Range`, the second that of `Retry-After`.
pub fn http_headers(data: &[u8]) -> Depth {
    let text = String::from_utf8_lossy(data);
    let (range, pause) = text.split_once('\n').unwrap_or((&text, ""));
    let (range, pause) = within(64 << 10, || {
        (ContentRange::parse(range), retry_after(pause))
    });
    if let Some(pause) = pause {
        assert_eq!(pause.subsec_nanos(), 0);
    }
    let Some(range) = range else {
        return Depth::Refused;
    };
    let len = range.len.unwrap_or(u64::MAX);
    match range.bytes {
        Some((first, last)) => assert!(first <= last && last < len),
        None => assert!(range.len.is_some()),
    }
    // What is understood means the same when it is written again.
    let len = range.len.map_or("*".to_owned(), |len| len.to_string());
    let bytes = range.bytes.map(|(first, last)| format!("{first}-{last}"));
    let again = format!("bytes {}/{len}", bytes.as_deref().unwrap_or("*"));
    assert_eq!(ContentRange::parse(&again), Some(range));
    Depth::Taken
}

/// Headers that are understood.
pub fn seeds() -> [Vec<u8>; 3] {
    let texts = [
        "bytes 0-0/512\n7",
        "bytes 5-9/*\nWed, 21 Oct 2015 07:28:00 GMT",
        "bytes */18446744073709551615\n",
    ];
    texts.map(|text| text.as_bytes().to_vec())
}

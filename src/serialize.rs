//! How reports serialize, where a derived form would not do: paths, byte ranges, durations.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A path; what is not Unicode in it is replaced.
pub(crate) fn path<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

/// As [`path`], where there is one.
pub(crate) fn optional_path<S: Serializer>(
    path: &Option<PathBuf>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => to.collect_str(&path.display()),
        None => to.serialize_none(),
    }
}

/// Byte ranges as objects of offset and length.
pub(crate) fn ranges<S: Serializer>(ranges: &[Range<u64>], to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Object {
        offset: u64,
        length: u64,
    }
    to.collect_seq(ranges.iter().map(|range| Object {
        offset: range.start,
        length: range.end - range.start,
    }))
}

/// A duration in seconds.
pub(crate) fn seconds<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

/// Facts of an image as one object; blanks in keys become underscores, and a key that stands more
/// than once (`parent`) holds a list.
pub(crate) fn facts<S: Serializer>(
    facts: &[(&'static str, String)],
    to: S,
) -> Result<S::Ok, S::Error> {
    let mut object: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (key, value) in facts {
        object.entry(key.replace(' ', "_")).or_default().push(value);
    }
    to.collect_map(object.into_iter().map(|(key, values)| match values[..] {
        [value] => (key, Fact::One(value)),
        _ => (key, Fact::Many(values)),
    }))
}

#[derive(Serialize)]
#[serde(untagged)]
enum Fact<'a> {
    One(&'a str),
    Many(Vec<&'a str>),
}

//! What a person may want to know of a footer.

use super::format::{EPOCH_SECONDS, Footer};
use crate::image::gate::ImageId;
use crate::units::{format_size, format_utc};

/// A name in a field that is filled up with spaces or NULs.
fn without_padding(mut name: &[u8]) -> &[u8] {
    while let [rest @ .., 0 | b' '] = name {
        name = rest;
    }
    name
}

/// The facts of an image with this footer.
pub(super) fn footer_facts(footer: &Footer) -> Vec<(&'static str, String)> {
    let chs = footer.geometry;
    vec![
        ("unique id", ImageId(footer.unique_id).to_string()),
        (
            "creator",
            format!(
                "{} {}.{}",
                without_padding(&footer.creator).escape_ascii(),
                footer.creator_version >> 16,
                footer.creator_version & 0xffff
            ),
        ),
        (
            "created",
            format_utc(EPOCH_SECONDS + u64::from(footer.timestamp)),
        ),
        (
            "original size",
            format!(
                "{} ({} bytes)",
                format_size(footer.original_bytes),
                footer.original_bytes
            ),
        ),
        (
            "geometry",
            format!(
                "{}/{}/{} ({} bytes)",
                chs.cylinders,
                chs.heads,
                chs.sectors,
                chs.disk_bytes()
            ),
        ),
    ]
}

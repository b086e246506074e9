//! Versions of the blob service.

use crate::error::{Error, ErrorKind, Result};
use crate::storage::http::{Checksum, Resource};

/// A version of the service, and what it can do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version {
    /// As the header states it.
    pub name: &'static str,
    /// The best checksum that it knows.
    pub checksum: Checksum,
    /// Whether it hands page lists out in pages.
    pub is_paged: bool,
}

/// The versions that are spoken, the best first. Azure Stack takes the older ones.
pub(super) const VERSIONS: [Version; 3] = [
    Version {
        name: "2020-10-02",
        checksum: Checksum::Crc64,
        is_paged: true,
    },
    Version {
        name: "2019-07-07",
        checksum: Checksum::Crc64,
        is_paged: false,
    },
    Version {
        name: "2017-11-09",
        checksum: Checksum::Md5,
        is_paged: false,
    },
];

/// The header that names the version.
pub(super) const VERSION: &str = "x-ms-version";

/// Finds out which version the service takes, and speaks it from then on.
///
/// # Errors
/// `Unsupported` where it takes no version that is known here; those of reading.
pub(super) fn agree(blob: &mut Resource) -> Result<Version> {
    for version in VERSIONS {
        blob.speak(
            vec![(VERSION, version.name.to_owned())],
            Some(version.checksum),
        );
        if blob.is_understood()? {
            return Ok(version);
        }
    }
    let what = "the blob service understands none of the versions 2017-11-09 to 2020-10-02";
    Err(Error::new(ErrorKind::Unsupported, what).at_path(blob.named().to_string()))
}

/// Whether an error code refuses the version of a request.
pub(super) fn refuses_version(code: Option<&str>) -> bool {
    matches!(code, Some("InvalidHeaderValue" | "UnsupportedHeader"))
}

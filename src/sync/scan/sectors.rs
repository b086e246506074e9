//! Sectors of different lengths on the two sides of a sync.

use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::image::ImageInfo;

/// What a person should be told when a target with sectors of `target` bytes is to hold what
/// `source` describes; an unknown size fits any.
///
/// # Errors
/// `InvalidInput` when the source would end inside a sector of the target.
pub(in crate::sync) fn compare(source: &ImageInfo, target: Option<u64>) -> Result<Option<String>> {
    let Some(target) = target else {
        return Ok(None);
    };
    let len = source.disk_bytes;
    if !len.is_multiple_of(target) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{len} bytes of the source end inside a sector of {target} of the target"),
        )
        .advise(Advice::Align(target)));
    }
    Ok(source
        .sector_bytes
        .filter(|from| *from != target)
        .map(|from| {
            format!(
                "the source has sectors of {from} bytes, the target of {target}: the bytes are the \
             same, but partition tables and file systems count in sectors of {from}"
            )
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(len: u64, sector: Option<u64>) -> ImageInfo {
        ImageInfo {
            sector_bytes: sector,
            ..ImageInfo::raw(len)
        }
    }

    #[test]
    fn other_sectors_are_told_of_and_partial_ones_refused() {
        let said = |len, from, to| compare(&disk(len, from), to).map(|note| note.is_some());
        assert!(!said(1001, None, None).unwrap());
        assert!(!said(512, Some(512), None).unwrap());
        assert!(!said(4096, None, Some(4096)).unwrap());
        assert!(!said(512, Some(512), Some(512)).unwrap());
        assert!(said(4096, Some(4096), Some(512)).unwrap());
        assert!(said(4096, Some(512), Some(4096)).unwrap());
        for from in [None, Some(512)] {
            let error = said(4096 + 512, from, Some(4096)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
}

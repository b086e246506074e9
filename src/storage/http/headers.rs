//! What headers of answers mean. Their text is hostile.

use std::time::Duration;

/// The bytes of a resource that an answer carries, by `Content-Range`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte and last byte; `None` where the range was not satisfiable.
    pub bytes: Option<(u64, u64)>,
    /// Length of the whole, where it is known.
    pub len: Option<u64>,
}

impl ContentRange {
    /// Reads `bytes FIRST-LAST/LEN`, `bytes FIRST-LAST/*` or `bytes */LEN`.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.trim().strip_prefix("bytes")?.strip_prefix(' ')?.trim();
        let (range, len) = rest.split_once('/')?;
        let len = match len {
            "*" => None,
            len => Some(number(len)?),
        };
        let bytes = match range {
            "*" => None,
            range => {
                let (first, last) = range.split_once('-')?;
                Some((number(first)?, number(last)?))
            }
        };
        let is_sound = match (bytes, len) {
            (Some((first, last)), Some(len)) => first <= last && last < len,
            (Some((first, last)), None) => first <= last,
            (None, len) => len.is_some(),
        };
        is_sound.then_some(ContentRange { bytes, len })
    }
}

/// The pause that `Retry-After` asks for, where it is given in seconds.
pub fn retry_after(text: &str) -> Option<Duration> {
    number(text.trim()).map(Duration::from_secs)
}

/// Digits and nothing else.
pub(super) fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn whatever_a_header_says_it_is_sound_or_nothing(text in "(bytes )?[-0-9*/ +]{0,44}|.*") {
            if let Some(range) = ContentRange::parse(&text)
                && let Some((first, last)) = range.bytes
            {
                proptest::prop_assert!(first <= last);
                proptest::prop_assert!(range.len.is_none_or(|len| last < len));
            }
            let _ = retry_after(&text);
        }
    }

    #[test]
    fn content_ranges_are_read_and_unsound_ones_refused() {
        let range = |text| ContentRange::parse(text).map(|it| (it.bytes, it.len));
        assert_eq!(range("bytes 0-0/512"), Some((Some((0, 0)), Some(512))));
        assert_eq!(range("bytes 5-9/*"), Some((Some((5, 9)), None)));
        assert_eq!(range("bytes */0"), Some((None, Some(0))));
        for wrong in [
            "",
            "bytes",
            "bytes 0-0",
            "bytes 1-0/5",
            "bytes 0-5/5",
            "bytes */*",
            "bytes +0-0/5",
            "bytes 0-0/-5",
            "bytes 0-18446744073709551616/*",
            "items 0-0/5",
            "bytes=0-0/5",
        ] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
        assert_eq!(retry_after(" 7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
    }
}

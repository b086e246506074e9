//! Lengths of time as an operator writes them, and what time it is.

use std::time::Duration;
#[cfg(feature = "failback")]
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, ErrorKind, Result};

/// Reads `90s`, `5m`, `2h` or `1d`.
///
/// # Errors
/// `InvalidInput` for anything else, and for more than ten years.
pub(crate) fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::new(
            ErrorKind::InvalidInput,
            format!("`{text}` is not a length of time; write 90s, 5m, 2h or 1d"),
        )
    };
    let seconds = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86400,
        _ => return Err(wrong()),
    };
    let digits = text.get(..text.len() - 1).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count
        .checked_mul(seconds)
        .filter(|seconds| *seconds <= TEN_YEARS)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

const TEN_YEARS: u64 = 3650 * 86400;

/// Milliseconds since 1970.
#[cfg(feature = "failback")]
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_has_a_number_and_a_unit_and_nothing_else() {
        assert_eq!(parse_duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("5m").unwrap(), Duration::from_secs(300));
        assert_eq!(parse_duration("2h").unwrap(), Duration::from_secs(7200));
        assert_eq!(parse_duration("1d").unwrap(), Duration::from_secs(86400));
        for wrong in [
            "", "5", "m", "5 m", "-5m", "+5m", "5min", "1.5h", "99999d", "5é",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}

//! Moments and lengths of time, and lines as wide as the terminal.

use std::io;

/// A moment in UTC, to the second; milliseconds since 1970.
pub(super) fn date(at_ms: u64) -> String {
    let (days, seconds) = (at_ms / 86_400_000, at_ms / 1000 % 86_400);
    let (year, month, day) = civil(days);
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!(
        "{year}-{month:02}-{day:02} {hours:02}:{minutes:02}:{:02}Z",
        seconds % 60
    )
}

/// A moment in UTC, to the millisecond.
pub(super) fn exact_date(at_ms: u64) -> String {
    let date = date(at_ms);
    format!("{}.{:03}Z", date.trim_end_matches('Z'), at_ms % 1000)
}

/// A length of time in its two largest units.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..10 => format!("{:.1} s", ms as f64 / 1000.0),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// How long ago a moment was.
pub(super) fn ago(at_ms: u64, now_ms: u64) -> String {
    format!("{} ago", span(now_ms.saturating_sub(at_ms)))
}

/// Year, month and day of a number of days since 1970 (Gregorian, by eras of 400 years).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The lines broken between words, to the width of the terminal of standard output, or `$COLUMNS`;
/// what continues a line is indented further than the line.
pub(super) fn wrapped(lines: Vec<String>) -> Vec<String> {
    let set = std::env::var("COLUMNS").ok().and_then(|it| it.parse().ok());
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let width = set.or(size
        .map(|size| usize::from(size.ws_col))
        .filter(|it| *it > 0));
    match width {
        Some(width) => lines.iter().flat_map(|line| wrap(line, width)).collect(),
        None => lines,
    }
}

fn wrap(line: &str, width: usize) -> Vec<String> {
    let indent = line.len() - line.trim_start().len();
    let mut out = vec![" ".repeat(indent)];
    let mut used = indent;
    for word in line.split_whitespace() {
        let len = word.chars().count();
        let is_first =
            used == indent && out.len() == 1 || used == indent + FURTHER && out.len() > 1;
        if !is_first && used + 1 + len > width {
            out.push(" ".repeat(indent + FURTHER));
            used = indent + FURTHER;
        }
        if let Some(last) = out.last_mut() {
            if !last.ends_with(' ') && !last.is_empty() {
                last.push(' ');
                used += 1;
            }
            last.push_str(word);
            used += len;
        }
    }
    out
}

const FURTHER: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_lengths_read_as_people_write_them() {
        assert_eq!(date(0), "1970-01-01 00:00:00Z");
        assert_eq!(date(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(exact_date(1_796_058_131_042), "2026-11-30 17:02:11.042Z");
        for (ms, text) in [
            (900, "0.9 s"),
            (59_000, "59 s"),
            (61_000, "1 min 1 s"),
            (7_260_000, "2 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(ms), text);
        }
        assert_eq!(ago(5_000, 8_000), "3.0 s ago");
    }

    #[test]
    fn lines_break_between_words_and_go_on_indented() {
        let lines = wrap("  one two three four", 11);
        assert_eq!(lines, ["  one two", "    three", "    four"]);
        let lines = wrap("a-word-that-is-longer-than-the-line short", 10);
        assert_eq!(lines, ["a-word-that-is-longer-than-the-line", "  short"]);
        assert_eq!(wrap("fits", 80), ["fits"]);
    }
}

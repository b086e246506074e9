//! Names of the files that are made next to others: one rule, so that no two files share one.

use std::ffi::{OsStr, OsString};

/// The name of a file that belongs to the file `name`: `.NAME.SUFFIX`, at most 255 bytes long.
///
/// Different names lead to different ones. Where there is no room for all of `name`, the first part
/// of it stands there with a hash of the whole.
pub(in crate::storage) fn side_name(name: &OsStr, suffix: &str) -> OsString {
    [
        OsStr::new("."),
        &stem(name, suffix),
        OsStr::new("."),
        OsStr::new(suffix),
    ]
    .into_iter()
    .collect()
}

/// The name of a file that belongs to the file `name` and to the one run `id`, 32 hexadecimal
/// digits: `.NAME.ID.SUFFIX`.
pub(in crate::storage) fn run_name(name: &OsStr, id: &str, suffix: &str) -> OsString {
    side_name(name, &format!("{id}.{suffix}"))
}

/// The id in a name that [`run_name`] makes of `name` and `suffix`; `None` for every other name.
pub(in crate::storage) fn run_id<'n>(
    found: &'n OsStr,
    name: &OsStr,
    suffix: &str,
) -> Option<&'n str> {
    let sample = run_name(name, &"0".repeat(ID_LEN), suffix);
    let sample = sample.as_encoded_bytes();
    let found = found.as_encoded_bytes();
    let at = sample.len().checked_sub(suffix.len() + 1 + ID_LEN)?;
    let id = found.get(at..at + ID_LEN)?;
    let is_same = found.len() == sample.len()
        && found[..at] == sample[..at]
        && found[at + ID_LEN..] == sample[at + ID_LEN..];
    (is_same && is_hex(id)).then(|| str::from_utf8(id).ok())?
}

/// Whether a name may be one of this program's own files, on file systems too that take names which
/// differ in case for one: what is written under such a name by others would be trusted.
pub(crate) fn is_side_name(name: &OsStr) -> bool {
    let name = folded(name);
    let is_hidden = name.starts_with('.');
    let ends = |suffix: &&str| name.ends_with(*suffix);
    name.contains(OWN) || (is_hidden && PLAIN_SUFFIXES.iter().any(ends))
}

/// As [`is_side_name`], for a directory's name.
pub(crate) fn is_side_directory(name: &OsStr) -> bool {
    folded(name).starts_with(OWN)
}

/// The ASCII that is left of a name where case makes no difference: some letters beyond ASCII have
/// their other case in it, and others count for nothing.
fn folded(name: &OsStr) -> String {
    let folded = name.to_string_lossy().to_lowercase().to_uppercase();
    folded.chars().filter(char::is_ascii).collect()
}

/// What stands for `name`: itself where it fits, and is not what another one is made into.
fn stem(name: &OsStr, suffix: &str) -> OsString {
    let bytes = name.as_encoded_bytes();
    let fits = bytes.len() + suffix.len() + 2 <= NAME_MOST;
    if fits && !is_hashed(bytes) {
        return name.to_owned();
    }
    let hash = blake3::hash(bytes).to_hex();
    let mut stem = OsString::new();
    if let Some(text) = name.to_str() {
        // Whole characters, because some file systems take nothing else.
        let end = (0..=HEAD_LEN).rev().find(|at| text.is_char_boundary(*at));
        stem.push(&text[..end.unwrap_or(0).min(text.len())]);
    }
    stem.push("~");
    stem.push(&hash[..HASH_LEN]);
    stem
}

/// Whether a name ends like one that was made from a longer one.
fn is_hashed(name: &[u8]) -> bool {
    let Some(at) = name.len().checked_sub(HASH_LEN + 1) else {
        return false;
    };
    name[at] == b'~' && is_hex(&name[at + 1..])
}

fn is_hex(bytes: &[u8]) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    bytes.iter().all(is_digit)
}

/// In the names of logs, of their directories, and of copies.
const OWN: &str = ".DISKDELTA-";
/// What the names of other side files end with, which are hidden.
const PLAIN_SUFFIXES: [&str; 5] = [".PART", ".NEW", ".FRESH", ".PREVIOUS", ".FETCHED"];
/// What file systems allow.
const NAME_MOST: usize = 255;
/// Bytes of a long name that are kept.
const HEAD_LEN: usize = 64;
/// 160 bits.
const HASH_LEN: usize = 40;
/// Digits of an id.
pub(in crate::storage) const ID_LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use proptest::prelude::*;

    fn side(name: &str, suffix: &str) -> String {
        side_name(name.as_ref(), suffix).into_string().unwrap()
    }

    #[test]
    fn a_hidden_file_and_its_twin_without_a_dot_share_no_name() {
        assert_eq!(side("disk.raw", "log"), ".disk.raw.log");
        assert_eq!(side(".disk.raw", "log"), "..disk.raw.log");
        assert_eq!(side(".disk.raw.log", "previous"), "..disk.raw.log.previous");
    }

    #[test]
    fn every_name_that_is_made_is_known_for_one_however_it_is_spelled() {
        let id = "0123456789abcdef0123456789abcdef";
        for name in ["disk.raw", ".disk.raw", &"y".repeat(250)] {
            for suffix in [
                "diskdelta-log",
                "diskdelta-log",
                "diskdelta-new",
                "part",
                "new",
                "fresh",
                "previous",
            ] {
                let name = OsStr::new(name);
                for made in [side_name(name, suffix), run_name(name, id, suffix)] {
                    assert!(is_side_name(&made), "{made:?}");
                    assert!(is_side_name(&made.to_ascii_uppercase()), "{made:?}");
                    assert!(is_side_name(&side_name(&made, "previous")), "{made:?}");
                }
            }
        }
        // A long s and a Kelvin sign are an s and a k in another case; a soft hyphen is nothing.
        for odd in [
            ".t.raw.di\u{17f}kdelta-log",
            ".t.raw.dis\u{212a}delta-log",
            ".t.raw.disk\u{ad}delta-log",
        ] {
            assert!(is_side_name(odd.as_ref()), "{odd}");
        }
        for disk in [
            "disk.raw",
            ".disk.raw",
            "disk.new",
            "a.part",
            "diskdelta.raw",
        ] {
            assert!(!is_side_name(disk.as_ref()), "{disk}");
        }
        assert!(is_side_directory(".diskdelta-failback".as_ref()));
        assert!(!is_side_directory("vm".as_ref()));
    }

    #[test]
    fn a_name_made_from_a_longer_one_is_no_other_files() {
        let long = "x".repeat(255);
        let made = side(&long, "log");
        let twin = made
            .strip_prefix('.')
            .unwrap()
            .strip_suffix(".log")
            .unwrap();
        assert_ne!(side(twin, "log"), made);
        assert_ne!(side(&"x".repeat(254), "log"), made);
    }

    #[test]
    fn the_id_is_read_from_the_names_of_its_file_alone() {
        let id = "0123456789abcdef0123456789abcdef";
        for name in ["disk.raw", ".disk.raw", &"y".repeat(250)] {
            let name = OsStr::new(name);
            let made = run_name(name, id, "part");
            assert_eq!(run_id(&made, name, "part"), Some(id));
            assert_eq!(run_id(&made, "other.raw".as_ref(), "part"), None);
            assert_eq!(run_id(&made, name, "new"), None);
        }
        for other in [
            ".disk.raw.part",
            ".disk.raw.0123456789ABCDEF0123456789ABCDEF.part",
        ] {
            assert_eq!(run_id(other.as_ref(), "disk.raw".as_ref(), "part"), None);
        }
    }

    #[cfg(unix)]
    proptest! {
        #[test]
        fn names_fit_and_differ_where_the_files_differ(
            one in prop::collection::vec(any::<u8>(), 1..256),
            two in prop::collection::vec(any::<u8>(), 1..256),
            chain in 0usize..4,
        ) {
            let made = |name: &Vec<u8>| {
                let mut name = crate::path_bytes::name_of(name).into_owned();
                for _ in 0..chain {
                    name = side_name(&name, "previous");
                }
                run_name(&name, "0123456789abcdef0123456789abcdef", "diskdelta-log")
            };
            prop_assert!(made(&one).len() <= 255);
            prop_assert_eq!(made(&one) == made(&two), one == two);
        }
    }
}

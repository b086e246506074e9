//! Texts that name where an address is kept, so that no secret is on a command line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::path_bytes::{bytes_of, name_of, path_of};

/// Reads what `@FILE` or `env:NAME` stands for; `None` for any other text.
///
/// Spaces, line ends and one pair of quotes around the address are left out.
///
/// # Errors
/// `InvalidInput` where the file or variable is missing, cannot be read, is longer than 64 KiB, or
/// holds no address. The error does not repeat what it holds.
pub(super) fn resolve(text: &Path) -> Result<Option<String>> {
    let bytes = bytes_of(text);
    let held = match bytes {
        [b'@', name @ ..] => read(&path_of(name)),
        _ if is_variable(bytes) => bytes
            .get(VARIABLE.len()..)
            .and_then(|name| std::env::var_os(name_of(name)))
            .map(|value| bytes_of(&value).to_owned())
            .ok_or(None),
        _ => return Ok(None),
    };
    let refuse = |what: &'static str, cause: Option<std::io::Error>| {
        let error = Error::new(ErrorKind::InvalidInput, what).at_path(text);
        let shown = crate::text::EscapedPath(text);
        let error = error.advise(format!("write ./{shown} for a file of that name"));
        match cause {
            Some(cause) => error.caused_by(cause),
            None => error,
        }
    };
    let held = held.map_err(|cause| match is_variable(bytes) {
        true => refuse(
            "there is no such environment variable to take an address from",
            None,
        ),
        false => refuse("there is no file to take an address from", cause),
    })?;
    let held = String::from_utf8(held).unwrap_or_default();
    let held = held.trim();
    let bare = held.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let address = bare.unwrap_or(held);
    match address.split_once("://") {
        Some((scheme, _)) if is_scheme(scheme) => Ok(Some(address.to_owned())),
        _ => Err(refuse("does not hold one address, such as https://…", None)),
    }
}

/// Whether `text` begins as what names an environment variable.
fn is_variable(text: &[u8]) -> bool {
    let prefix = text.get(..VARIABLE.len());
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(VARIABLE))
}

fn is_scheme(text: &str) -> bool {
    let is_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    !text.is_empty() && text.bytes().all(is_of_scheme)
}

fn read(path: &Path) -> Result<Vec<u8>, Option<std::io::Error>> {
    let mut held = Vec::new();
    let file = File::open(path).map_err(Some)?;
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut held)
        .map_err(Some)?;
    match held.len() as u64 <= MOST_BYTES {
        true => Ok(held),
        false => Err(None),
    }
}

const VARIABLE: &[u8] = b"env:";
const MOST_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_address_and_its_name_is_all_that_errors_show() {
        let folder = tempfile::tempdir().unwrap();
        let at = |held: &str| {
            let path = folder.path().join("url");
            std::fs::write(&path, held).unwrap();
            resolve(Path::new(&format!("@{}", path.display())))
        };
        for held in [
            "https://h/a?sig=S",
            " https://h/a?sig=S\r\n",
            "\"https://h/a?sig=S\"\n",
        ] {
            assert_eq!(at(held).unwrap().unwrap(), "https://h/a?sig=S");
        }
        for held in [
            "",
            "sig=SECRET",
            "/a/SECRET",
            "@x://SECRET",
            &"x".repeat(70_000),
        ] {
            let error = at(held).unwrap_err();
            assert!(error.to_string().contains("/url"), "{error}");
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
        assert_eq!(resolve(Path::new("a@b")).unwrap(), None);
        assert_eq!(resolve(Path::new("./@b")).unwrap(), None);
    }
}

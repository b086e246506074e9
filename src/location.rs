//! Where an image is: the one parser of such texts.

mod nbd;
mod reference;
mod remote;
mod url_prefix;
mod web;

use std::borrow::Cow;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::path_bytes::{bytes_of, path_of};
use crate::text::EscapedPath;

pub use nbd::NbdAddress;
#[cfg(feature = "nbd")]
pub(crate) use nbd::{NAME_MAX, NbdServer};
pub use remote::RemoteAddress;
#[cfg(feature = "tls")]
pub(crate) use remote::split_port;
pub use url_prefix::UrlPrefix;
#[cfg(feature = "http")]
pub(crate) use url_prefix::is_link_local;
pub use web::WebAddress;
#[cfg(feature = "cli")]
pub(crate) use web::without_queries;

/// Where an image is.
///
/// A text from a user is parsed as a path or an address; a [`Path`] becomes a location as it is,
/// and is never taken for an address. A build that lacks the way to reach an address reads it all
/// the same, and refuses to open it.
///
/// # Examples
/// ```
/// use std::path::Path;
///
/// use diskdelta::Location;
///
/// # fn main() -> diskdelta::Result<()> {
/// let remote: Location = "ssh://backup@host/srv/web.vhdx".parse()?;
/// assert!(matches!(remote, Location::Remote(_)));
/// let file = Location::from(Path::new("ssh://host/a"));
/// assert!(matches!(file, Location::Path(_)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Location {
    /// A file or block device of this host.
    Path(PathBuf),
    /// An image at another host.
    Remote(RemoteAddress),
    /// An export of an NBD server: the guest's bytes, only read.
    Nbd(NbdAddress),
    /// A disk at a web server or in an object store, only read.
    Web(WebAddress),
}

impl Location {
    /// Reads a path or an address.
    ///
    /// | text | is |
    /// | --- | --- |
    /// | `ssh://[user@]host[:port]/path` | an image behind a shell; the scheme in any case |
    /// | `diskdelta://host[:port]/name` | an image at a service |
    /// | `nbd+unix:///EXPORT?socket=PATH` | an export of an NBD server behind a socket |
    /// | `nbd://host[:port]/EXPORT`, `nbds://…` | an export of an NBD server, over TLS |
    /// | `https://host[:port]/path[?query]` | a disk at a web server; `http://` too |
    /// | any other `scheme://…` | refused; the scheme may get a meaning |
    /// | `@FILE`, `env:NAME` | the address that the file or the environment variable holds |
    /// | `-` | refused: standard input and output are no disks |
    /// | `x:y`, no `/` before the colon | a path where a file of that name is there, else refused |
    /// | anything else | a path |
    ///
    /// What begins with `/`, `./` or `../` is always a path. Prefixes end at the first colon.
    ///
    /// # Errors
    /// `InvalidInput` for what is refused, naming the way to write it. What stands behind the
    /// question mark of an address is not repeated.
    pub fn parse(text: impl AsRef<Path>) -> Result<Location> {
        let text = text.as_ref();
        Self::parse_with(text, |path| path.symlink_metadata().is_ok())
    }

    /// As [`parse`](Location::parse); `is_there` says whether a file of a name is there.
    ///
    /// # Errors
    /// As [`parse`](Location::parse).
    pub fn parse_with(text: &Path, is_there: impl FnOnce(&Path) -> bool) -> Result<Location> {
        let bytes = bytes_of(text);
        let here = || Ok(Location::Path(text.to_owned()));
        let shown = without_query(text);
        let refuse = |what: String, advice: String| {
            Err(Error::new(ErrorKind::InvalidInput, what)
                .at_path(&shown)
                .advise(advice))
        };
        let as_path = format!("write ./{} for a file of that name", EscapedPath(&shown));
        match bytes {
            [] => {
                let what = "an empty path names nothing";
                return Err(Error::new(ErrorKind::InvalidInput, what)
                    .advise("name a file or a block device"));
            }
            _ if bytes.contains(&0) => {
                let what = "a path has no NUL byte in it".to_owned();
                return refuse(what, "name a file or a block device".to_owned());
            }
            b"-" => {
                let what = "standard input and output are no disks".to_owned();
                return refuse(what, as_path);
            }
            _ => {}
        }
        if let Some(address) = reference::resolve(text)? {
            let never: fn(&Path) -> bool = |_| false;
            return Self::parse_with(Path::new(&address), never).map_err(|error| {
                Error::new(error.kind(), HOLDS_NONE)
                    .at_path(text)
                    .advise(as_path)
            });
        }
        let Some((prefix, rest)) = split_prefix(bytes) else {
            return here();
        };
        let is_drive = matches!(prefix, [letter] if letter.is_ascii_alphabetic());
        if cfg!(windows) && is_drive {
            return here();
        }
        let lower = prefix.to_ascii_lowercase();
        if !prefix.is_empty() && rest.starts_with(b"//") {
            let address = [&lower[..], b":", rest].concat();
            let address = path_of(&address);
            if REMOTE.iter().any(|scheme| scheme.as_bytes() == lower) {
                return RemoteAddress::parse(&address).map(Location::Remote);
            }
            if NBD.iter().any(|scheme| scheme.as_bytes() == lower) {
                return NbdAddress::parse(&address).map(Location::Nbd);
            }
            if lower == b"https" || lower == b"http" {
                let parsed = WebAddress::parse(&address).map(Location::Web);
                return parsed.map_err(|error| error.at_path(&shown));
            }
            let scheme = String::from_utf8_lossy(prefix);
            let what = format!("no way to reach it: `{scheme}://` is not known here");
            let advice = match &lower[..] {
                b"file" => "write the path alone".to_owned(),
                _ => format!("{ADDRESSES}; {as_path}"),
            };
            return refuse(what, advice);
        }
        if is_there(text) {
            return here();
        }
        if is_drive && rest.starts_with(b"\\") {
            let what = "this is a path of Windows, and not of this host".to_owned();
            return refuse(what, format!("name a file of this host; {as_path}"));
        }
        let what = "a name with a colon, and no file of that name is there".to_owned();
        if lower == b"file" {
            return refuse(what, format!("write the path alone; {as_path}"));
        }
        match suggestion(bytes) {
            Some(meant) => refuse(what, format!("did you mean {meant}? {as_path}")),
            None if REMOTE.iter().any(|scheme| scheme.as_bytes() == lower) => {
                refuse(what, format!("{ADDRESSES}; {as_path}"))
            }
            None => refuse(what, as_path),
        }
    }

    /// Reads an absolute path without `..`, or an address, as plans and programs write them.
    ///
    /// # Errors
    /// `InvalidInput` for relative paths, paths with `..`, and what is no address.
    pub fn parse_absolute(text: &str) -> Result<Location> {
        let why = match Self::parse_with(Path::new(text), |_| false) {
            Ok(Location::Path(_)) => return absolute_path(text).map(Location::Path),
            Ok(Location::Remote(remote)) if !is_plain(text, remote.path()) => {
                format!("`{text}` does not name an image by a path without `..`")
            }
            Ok(location) => return Ok(location),
            Err(error) if text.contains("://") => error.to_string(),
            Err(_) => format!(
                "`{text}` is neither an absolute path nor an address \
                 (ssh://[user@]host[:port]/path, diskdelta://host[:port]/name)"
            ),
        };
        Err(Error::new(ErrorKind::InvalidInput, why))
    }

    /// The path, where it is one of this host.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Location::Path(path) => Some(path),
            _ => None,
        }
    }

    /// Whether it is reached over TLS, with a certificate of this end.
    pub fn needs_certificate(&self) -> bool {
        match self {
            Location::Path(_) | Location::Web(_) => false,
            Location::Remote(address) => address.is_service(),
            Location::Nbd(address) => address.is_secure(),
        }
    }

    /// The same text for two spellings of one location.
    pub fn place(&self) -> String {
        match self {
            Location::Path(path) => path.components().collect::<PathBuf>().display().to_string(),
            Location::Remote(address) => address.place(),
            Location::Nbd(address) => address.place(),
            Location::Web(address) => address.place(),
        }
    }

    /// Reads the path of a file or device of this host.
    ///
    /// # Errors
    /// As [`parse`](Location::parse); `InvalidInput` for an address.
    pub fn parse_here(text: impl AsRef<Path>) -> Result<PathBuf> {
        match Self::parse(text.as_ref())? {
            Location::Path(path) => Ok(path),
            other => Err(not_here(&other)),
        }
    }

    /// Reads the address of a disk at a web server.
    ///
    /// # Errors
    /// As [`parse`](Location::parse); `InvalidInput` for any other location.
    pub fn parse_web(text: impl AsRef<Path>) -> Result<WebAddress> {
        match Self::parse(text.as_ref())? {
            Location::Web(address) => Ok(address),
            other => {
                let what = "this must be the address of a disk at a web server";
                Err(Error::new(ErrorKind::InvalidInput, what)
                    .at_path(other.to_string())
                    .advise("write https://HOST/PATH, @FILE or env:NAME"))
            }
        }
    }

    /// Reads where a disk is whose bytes this host can read itself, without an agent.
    ///
    /// # Errors
    /// As [`parse`](Location::parse); `InvalidInput` for an image at an agent.
    pub fn parse_readable(text: impl AsRef<Path>) -> Result<Location> {
        match Self::parse(text.as_ref())? {
            other @ Location::Remote(_) => Err(not_here(&other)),
            location => Ok(location),
        }
    }
}

impl FromStr for Location {
    type Err = Error;

    /// As [`parse`](Location::parse).
    fn from_str(text: &str) -> Result<Self> {
        Location::parse(text)
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Location::Path(path.to_owned())
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Location::Path(path)
    }
}

/// As it is shown: without secrets.
#[cfg(feature = "serde")]
impl serde::Serialize for Location {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// As [`parse_absolute`](Location::parse_absolute) reads it.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Location {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Location::parse_absolute(&text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Path(path) => path.display().fmt(f),
            Location::Remote(address) => address.fmt(f),
            Location::Nbd(address) => address.fmt(f),
            Location::Web(address) => address.fmt(f),
        }
    }
}

fn not_here(location: &Location) -> Error {
    let what = "this must be a file or device of this host";
    Error::new(ErrorKind::InvalidInput, what)
        .at_path(location.to_string())
        .advise("only sync has a source or a target on another host")
}

/// Reads an absolute path of this host.
///
/// # Errors
/// `InvalidInput` for relative paths, paths with `..`, and what is no path.
pub(crate) fn absolute_path(text: &str) -> Result<PathBuf> {
    let path = Path::new(text);
    if !path.is_absolute() || !is_plain(text, path) {
        let text = format!("`{text}` is not an absolute path without `..`");
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    // Collected anew, `/a//b/./c` equals `/a/b/c`.
    Ok(path.components().collect())
}

/// Whether the path in a text names something and has no `..`.
pub(crate) fn is_plain(text: &str, path: &Path) -> bool {
    let plain = |part: Component<'_>| {
        matches!(
            part,
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) | Component::CurDir
        )
    };
    let odd = text.chars().any(char::is_control) || path.file_name().is_none();
    !odd && path.components().all(plain)
}

/// What stands before the first colon, and after it, where no slash comes first.
fn split_prefix(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = text.iter().position(|byte| matches!(byte, b':' | b'/'))?;
    match text.get(colon) {
        Some(b':') => Some((text.get(..colon)?, text.get(colon + 1..)?)),
        _ => None,
    }
}

/// The address that was perhaps meant by `host:path`, as other programs write it.
fn suggestion(text: &[u8]) -> Option<String> {
    let text = str::from_utf8(text).ok()?;
    let (host, path) = match text.starts_with('[') {
        true => {
            let (host, path) = text.split_once("]:")?;
            (format!("{host}]"), path)
        }
        false => {
            let (host, path) = text.split_once(':')?;
            (host.to_owned(), path)
        }
    };
    let inner = path.trim_start_matches('/');
    let mut schemes = REMOTE.iter();
    let scheme = schemes.find(|scheme| host.eq_ignore_ascii_case(scheme));
    let meant = match scheme {
        Some(scheme) => format!("{scheme}://{inner}"),
        None if path.starts_with("~/") => format!("ssh://{host}/{path}"),
        None => format!("ssh://{host}/{inner}"),
    };
    // Only what would be taken is worth naming.
    RemoteAddress::parse(&meant).ok()?;
    let is_whole = scheme.is_some() || path.starts_with('/') || path.starts_with("~/");
    Some(match is_whole {
        true => meant,
        false => format!("{meant}, or ssh://{host}/~/{path} below the home directory"),
    })
}

/// `text` up to the question mark of an address.
fn without_query(text: &Path) -> Cow<'_, Path> {
    let bytes = bytes_of(text);
    let question = bytes.iter().position(|byte| *byte == b'?');
    match question.and_then(|at| bytes.get(..at)) {
        Some(before) if before.windows(3).any(|it| it == b"://") => path_of(before),
        _ => Cow::Borrowed(text),
    }
}

const REMOTE: [&str; 2] = ["ssh", "diskdelta"];
const NBD: [&str; 3] = ["nbd+unix", "nbd", "nbds"];
/// The advice that names what addresses look like.
const ADDRESSES: &str = "write ssh://[user@]host[:port]/path, diskdelta://host[:port]/name, \
                         https://host/path, nbd+unix:///EXPORT?socket=PATH or \
                         nbd://host[:port]/EXPORT";
const HOLDS_NONE: &str = "does not hold an address that is known here";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, is_there: bool) -> Result<Location> {
        Location::parse_with(Path::new(text), |_| is_there)
    }

    #[test]
    fn paths_are_paths_whatever_is_in_them() {
        for text in [
            "a",
            "a b",
            "./a:b",
            "../a:b",
            "/a:b",
            "dir/a:b",
            "./-",
            "./env:x",
            "./@x",
            "./a://b",
            "/ssh://h/x",
            "dir/ssh://h/x",
            "a@b",
            "--",
            "-a",
            "a-",
            "./C:\\x",
            "./",
            "a\\b",
            ".",
        ] {
            for is_there in [false, true] {
                let found = parse(text, is_there).unwrap();
                assert_eq!(found, Location::Path(text.into()), "{text}");
            }
        }
    }

    #[test]
    fn what_is_reserved_is_refused_also_where_a_file_of_that_name_is_there() {
        for (text, part) in [
            ("", "empty"),
            ("-", "./-"),
            ("a\0b", "NUL"),
            ("@a", "./@a"),
            ("@", "./@"),
            ("@a:b", "no file"),
            ("env:A", "./env:A"),
            ("ENV:A", "no such environment variable"),
            ("env:a:b", "no such environment variable"),
            ("file:///a", "write the path alone"),
            ("FILE:///a", "write the path alone"),
            ("https://me@h/a", "without a user"),
            ("ftp://h/a", "ssh://[user@]host"),
            ("s3://b/a", "./s3://b/a"),
            ("nbd+unix:///a", "nbd+unix:///EXPORT?socket=PATH"),
            ("nbd://", "nbds://host[:port]/EXPORT"),
            ("nbd+vsock://h/a", "not known"),
            ("a b://c", "not known"),
            ("x://", "not known"),
            ("ssh://h", "ssh://[user@]host[:port]/path"),
            ("ssh://", "ssh://[user@]host[:port]/path"),
        ] {
            for is_there in [false, true] {
                let error = parse(text, is_there).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
                assert!(error.to_string().contains(part), "{text}: {error}");
            }
        }
    }

    #[test]
    fn a_colon_is_an_address_of_another_program_unless_a_file_has_that_name() {
        for (text, part) in [
            ("host:web.img", "did you mean ssh://host/web.img"),
            ("host:web.img", "ssh://host/~/web.img"),
            ("host:/srv/web.img", "did you mean ssh://host/srv/web.img?"),
            ("me@host:a", "did you mean ssh://me@host/a"),
            ("a:b:c", "did you mean ssh://a/b:c"),
            ("[::1]:/a", "did you mean ssh://[::1]/a?"),
            ("ssh:/h/a", "did you mean ssh://h/a?"),
            ("SSH:h/a", "did you mean ssh://h/a"),
            ("host:~/a", "did you mean ssh://host/~/a?"),
            ("ssh:x", "write ssh://[user@]host[:port]/path"),
            ("file:a", "write the path alone"),
            ("FILE:/a", "write the path alone"),
            ("host:", "./host:"),
            (":a", "./:a"),
            ("C:\\a.vhd", "Windows"),
            ("c:\\a", "./c:\\a"),
            ("C:/a", "ssh://C/a"),
            ("x:y", "./x:y"),
        ] {
            let error = parse(text, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert_eq!(parse(text, true).unwrap(), Location::Path(text.into()));
        }
    }

    #[test]
    fn addresses_are_read_with_their_scheme_in_any_case() {
        for text in ["ssh://h/a", "SSH://h/a", "Ssh://h/a"] {
            let Location::Remote(remote) = parse(text, true).unwrap() else {
                panic!("{text}");
            };
            assert_eq!(remote.to_string(), "ssh://h/a");
        }
        assert!(matches!(
            parse("DiskDelta://h/a", false).unwrap(),
            Location::Remote(_)
        ));
        let nbd = parse("NBD+unix:///a?socket=/b", false).unwrap();
        assert_eq!(nbd, Location::Nbd(NbdAddress::new("/b", "a")));
    }

    proptest::proptest! {
        #[test]
        fn any_text_with_a_dot_and_a_slash_before_it_is_that_path(text in "[^\0]*") {
            let path = format!("./{text}");
            proptest::prop_assert_eq!(parse(&path, false).unwrap(), Location::Path(path.into()));
        }

        #[test]
        fn any_text_is_a_path_an_address_or_refused_with_a_way_to_write_it(
            text in "[-@:/\\\\a-z.\0]{0,12}",
            is_there: bool,
        ) {
            match parse(&text, is_there) {
                Ok(Location::Path(path)) => proptest::prop_assert_eq!(path, PathBuf::from(&text)),
                Ok(location) => {
                    let address = location.to_string();
                    let scheme = address.split('/').next().unwrap();
                    proptest::prop_assert!(text.starts_with(scheme));
                }
                Err(error) => proptest::prop_assert!(!error.advice().is_empty()),
            }
        }
    }
}

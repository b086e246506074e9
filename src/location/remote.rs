//! The address of an image on another host.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::path_bytes::{bytes_of, path_of};

/// An image on another host: `ssh://[user@]host[:port]/path` behind a remote shell, or
/// `diskdelta://host[:port]/name` at a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteAddress {
    scheme: Scheme,
    user: Option<String>,
    host: String,
    /// `None` for the port that the scheme has by default.
    port: Option<u16>,
    path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scheme {
    Ssh,
    Service,
}

impl RemoteAddress {
    /// The port of a service whose address has none.
    pub const SERVICE_PORT: u16 = 8730;

    /// Reads an address; what follows `/~/` behind a shell is relative to the home directory.
    ///
    /// # Errors
    /// `InvalidInput` for another scheme, for an address without host or path, with a password, or
    /// with a host that a shell would take for an option.
    pub fn parse(text: impl AsRef<Path>) -> Result<RemoteAddress> {
        let text = text.as_ref();
        let bytes = bytes_of(text);
        let (scheme, rest) = match bytes.strip_prefix(b"ssh://") {
            Some(rest) => (Scheme::Ssh, Some(rest)),
            None => (Scheme::Service, bytes.strip_prefix(b"diskdelta://")),
        };
        let wrong = || {
            Error::new(ErrorKind::InvalidInput, "not an address of an image")
                .at_path(text)
                .advise(match scheme {
                    Scheme::Ssh => "write ssh://[user@]host[:port]/path",
                    Scheme::Service => "write diskdelta://host[:port]/name",
                })
        };
        let rest = rest.ok_or_else(wrong)?;
        let slash = rest.iter().position(|byte| *byte == b'/');
        let (authority, path) = rest.split_at(slash.ok_or_else(wrong)?);
        let authority = str::from_utf8(authority).map_err(|_| wrong())?;
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            let what = "an address must not contain a password";
            return Err(Error::new(ErrorKind::InvalidInput, what)
                .advise("log in with a key, or let the remote shell ask for the password"));
        }
        let (host, port) = split_port(host).ok_or_else(wrong)?;
        let is_odd = |name: &str| {
            let odd = |c: char| c.is_whitespace() || c.is_control();
            name.is_empty() || name.starts_with('-') || name.contains(odd)
        };
        let path = match scheme {
            Scheme::Ssh => path.strip_prefix(b"/~/").unwrap_or(path),
            Scheme::Service => path,
        };
        let has_odd_user = match scheme {
            Scheme::Ssh => user.is_some_and(is_odd),
            Scheme::Service => user.is_some(),
        };
        if is_odd(host) || has_odd_user || path.is_empty() || path == b"/" {
            return Err(wrong());
        }
        let default = match scheme {
            Scheme::Ssh => None,
            Scheme::Service => Some(Self::SERVICE_PORT),
        };
        Ok(RemoteAddress {
            scheme,
            user: user.map(str::to_owned),
            host: host.to_owned(),
            port: port.filter(|port| Some(*port) != default),
            path: path_of(path).into_owned(),
        })
    }

    /// Reads the address of an agent alone: `ssh://[user@]host[:port]` or
    /// `diskdelta://host[:port]`.
    ///
    /// # Errors
    /// As [`parse`](RemoteAddress::parse); `InvalidInput` for one with a path.
    pub fn parse_agent(text: &str) -> Result<RemoteAddress> {
        let bare = text.strip_suffix('/').unwrap_or(text);
        let is_bare = bare
            .split_once("://")
            .is_some_and(|(_, rest)| !rest.contains('/'));
        let parsed = RemoteAddress::parse(format!("{bare}/-"));
        parsed.ok().filter(|_| is_bare).ok_or_else(|| {
            let what = format!("`{text}` is not the address of an agent");
            Error::new(ErrorKind::InvalidInput, what)
                .advise("write ssh://[user@]host[:port] or diskdelta://host[:port]")
        })
    }

    /// Whether it is at a service, which accepts only clients with a certificate.
    pub fn is_service(&self) -> bool {
        self.scheme == Scheme::Service
    }

    /// The user to log in as.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host: a name, an address, or an alias of the remote shell's configuration.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; `None` where the remote shell chooses it.
    pub fn port(&self) -> Option<u16> {
        match self.scheme {
            Scheme::Ssh => self.port,
            Scheme::Service => Some(self.port.unwrap_or(Self::SERVICE_PORT)),
        }
    }

    /// The image's path there; behind a shell, a relative one begins in the home directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same text for two spellings of one address: of host, port and path. The user makes no
    /// difference but to a path that begins in a home directory.
    pub fn place(&self) -> String {
        let host = plain_host(&self.host);
        // Collected anew, `/a//b/./c` equals `/a/b/c`.
        let path: PathBuf = self.path.components().collect();
        let place = RemoteAddress {
            user: match self.path.is_absolute() {
                true => None,
                false => Some(self.user.clone().unwrap_or_default()),
            },
            host,
            port: self
                .port
                .filter(|port| *port != SSH_PORT || self.is_service()),
            path,
            scheme: self.scheme,
        };
        place.to_string()
    }

    /// The user, host and port of a remote shell, the same text for two spellings; `None` for a
    /// service.
    pub fn login(&self) -> Option<String> {
        if self.is_service() {
            return None;
        }
        let user = self.user.as_ref().map(|user| format!("{user}@"));
        let host = plain_host(&self.host);
        let port = self.port.filter(|port| *port != SSH_PORT);
        Some(format!(
            "ssh://{}{}{}",
            user.unwrap_or_default(),
            bracketed(&host),
            port.map_or(String::new(), |port| format!(":{port}"))
        ))
    }
}

impl fmt::Display for RemoteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.scheme {
            Scheme::Ssh => "ssh://",
            Scheme::Service => "diskdelta://",
        })?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&bracketed(&self.host))?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if !self.path.is_absolute() {
            f.write_str("/~/")?;
        }
        self.path.display().fmt(f)
    }
}

pub(super) fn plain_host(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

pub(super) fn bracketed(host: &str) -> Cow<'_, str> {
    match host.contains(':') {
        true => Cow::Owned(format!("[{host}]")),
        false => Cow::Borrowed(host),
    }
}

/// A host, in brackets where it contains colons, and a port.
pub(crate) fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']')? {
            (host, "") => (host, None),
            (host, port) => (host, Some(port.strip_prefix(':')?)),
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    match port {
        Some(port) => Some((host, Some(port.parse().ok()?))),
        None => Some((host, None)),
    }
}

const SSH_PORT: u16 = 22;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RemoteAddress {
        RemoteAddress::parse(text).unwrap()
    }

    #[test]
    fn addresses_are_read_and_odd_ones_refused() {
        let full = parse("ssh://me@host:22/srv/a.vhd");
        assert_eq!((full.user(), full.is_service()), (Some("me"), false));
        assert_eq!((full.host(), full.port()), ("host", Some(22)));
        assert_eq!(full.path(), Path::new("/srv/a.vhd"));
        let home = parse("ssh://host/~/disk");
        assert_eq!((home.user(), home.port()), (None, None));
        assert_eq!(home.path(), Path::new("disk"));
        let six = parse("ssh://[fe80::1%eth0]:2222/d");
        assert_eq!((six.host(), six.port()), ("fe80::1%eth0", Some(2222)));
        for wrong in [
            "/a/b",
            "host:/a/b",
            "http://host/a",
            "ssh://",
            "ssh://host",
            "ssh://host/",
            "ssh:///path",
            "ssh://-oProxyCommand=x/p",
            "ssh://-l@host/p",
            "ssh://host:x/p",
            "ssh://host:70000/p",
            "ssh://[::1/p",
            "ssh://a b/p",
            "ssh://@host/p",
        ] {
            assert!(RemoteAddress::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_of_services_are_read_and_odd_ones_refused() {
        let full = parse("diskdelta://host:77/web/a.vhd");
        assert_eq!((full.host(), full.port()), ("host", Some(77)));
        assert_eq!(
            (full.path(), full.is_service()),
            (Path::new("/web/a.vhd"), true)
        );
        let short = parse("diskdelta://10.0.0.1/a");
        assert_eq!((short.host(), short.port()), ("10.0.0.1", Some(8730)));
        let six = parse("diskdelta://[fe80::1%eth0]:2/d");
        assert_eq!((six.host(), six.port()), ("fe80::1%eth0", Some(2)));
        for wrong in [
            "diskdelta://",
            "diskdelta://host",
            "diskdelta://host/",
            "diskdelta:///name",
            "diskdelta://:8/name",
            "diskdelta://host:x/p",
            "diskdelta://host:70000/p",
            "diskdelta://fe80::1/p",
            "diskdelta://[::1/p",
            "diskdelta://a b/p",
            "diskdelta://me@host/p",
        ] {
            assert!(RemoteAddress::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        let error = RemoteAddress::parse("ssh://me:secret@host/a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in [
            "ssh://host/a",
            "ssh://me@host:2222/a b//c",
            "ssh://host/~/disk.raw",
            "ssh://[fe80::1%eth0]:2222/d",
            "diskdelta://host/a",
            "diskdelta://[::1]:77/a",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
    }

    #[test]
    fn two_spellings_of_an_address_are_one_place() {
        let same = |one: &str, other: &str| parse(one).place() == parse(other).place();
        assert!(same("ssh://me@HOST:22/a//b/./c", "ssh://host/a/b/c"));
        assert!(same("ssh://[0:0::1]/a", "ssh://[::1]/a"));
        assert!(!same("ssh://host:2222/a", "ssh://host/a"));
        assert!(!same("ssh://me@host/~/a", "ssh://you@host/~/a"));
        assert!(!same("ssh://host/~/a", "ssh://host/a"));
        let login = |text: &str| parse(text).login();
        assert_eq!(login("ssh://me@Host:22/a"), login("ssh://me@host/~/b"));
        assert_ne!(login("ssh://me@host/a"), login("ssh://you@host/a"));
        assert_eq!(login("ssh://host:77/a").unwrap(), "ssh://host:77");
        assert!(same("diskdelta://Host/a", "diskdelta://host:8730//a"));
        assert!(!same("diskdelta://host/a", "ssh://host/a"));
    }
}

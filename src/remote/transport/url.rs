//! The address of an image on another host.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::ssh::SshPath;
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "tls")]
use crate::remote::tls::ServicePath;

/// An image on another host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RemoteAddress {
    /// Behind a shell.
    Shell(SshPath),
    /// At a service.
    #[cfg(feature = "tls")]
    Service(ServicePath),
}

impl RemoteAddress {
    /// Reads what may be an address; `None` for what begins like none.
    ///
    /// # Errors
    /// `InvalidInput` for one that makes no sense; `Unsupported` for a way of reaching hosts that
    /// is not known.
    pub fn parse(text: &Path) -> Result<Option<RemoteAddress>> {
        if let Some(shell) = SshPath::parse(text)? {
            return Ok(Some(RemoteAddress::Shell(shell)));
        }
        #[cfg(feature = "tls")]
        if let Some(service) = ServicePath::parse(text)? {
            return Ok(Some(RemoteAddress::Service(service)));
        }
        if !is_url(text) {
            return Ok(None);
        }
        Err(
            Error::new(ErrorKind::Unsupported, "no way to reach that is known")
                .at_path(text)
                .advise("write ssh://[user@]host[:port]/path or diskdelta://host[:port]/name"),
        )
    }

    /// The image's path there.
    pub fn path(&self) -> &Path {
        let path = match self {
            RemoteAddress::Shell(shell) => &shell.path,
            #[cfg(feature = "tls")]
            RemoteAddress::Service(service) => &service.path,
        };
        Path::new(OsStr::from_bytes(path))
    }

    /// The host.
    pub fn host(&self) -> &str {
        match self {
            RemoteAddress::Shell(shell) => &shell.host,
            #[cfg(feature = "tls")]
            RemoteAddress::Service(service) => &service.host,
        }
    }

    /// Whether it is at a service, which takes only who has a certificate.
    pub fn is_service(&self) -> bool {
        match self {
            RemoteAddress::Shell(_) => false,
            #[cfg(feature = "tls")]
            RemoteAddress::Service(_) => true,
        }
    }

    /// The same text for two spellings of one address: of host, port and path. Who logs in makes
    /// no difference but to a path that begins in a home directory.
    pub fn place(&self) -> String {
        let host = plain_host(self.host());
        let host = bracketed(&host);
        // Collected anew, `/a//b/./c` equals `/a/b/c`.
        let path: std::path::PathBuf = self.path().components().collect();
        let path = path.display();
        match self {
            RemoteAddress::Shell(shell) => {
                let port = port_of(shell);
                match (shell.path.starts_with(b"/"), &shell.user) {
                    (true, _) => format!("ssh://{host}{port}{path}"),
                    (false, user) => {
                        let user = user.as_deref().unwrap_or_default();
                        format!("ssh://{user}@{host}{port}/~/{path}")
                    }
                }
            }
            #[cfg(feature = "tls")]
            RemoteAddress::Service(service) => format!("diskdelta://{host}:{}{path}", service.port),
        }
    }

    /// Who logs in where, the same text for two spellings; `None` for a service.
    pub fn login(&self) -> Option<String> {
        match self {
            RemoteAddress::Shell(shell) => {
                let host = plain_host(&shell.host);
                let user = shell.user.as_ref().map(|user| format!("{user}@"));
                let user = user.unwrap_or_default();
                Some(format!(
                    "ssh://{user}{}{}",
                    bracketed(&host),
                    port_of(shell)
                ))
            }
            #[cfg(feature = "tls")]
            RemoteAddress::Service(_) => None,
        }
    }
}

impl fmt::Display for RemoteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = bracketed(self.host());
        let path = self.path().display();
        match self {
            RemoteAddress::Shell(shell) => {
                f.write_str("ssh://")?;
                if let Some(user) = &shell.user {
                    write!(f, "{user}@")?;
                }
                f.write_str(&host)?;
                if let Some(port) = shell.port {
                    write!(f, ":{port}")?;
                }
                match shell.path.starts_with(b"/") {
                    true => write!(f, "{path}"),
                    false => write!(f, "/~/{path}"),
                }
            }
            #[cfg(feature = "tls")]
            RemoteAddress::Service(service) if service.port == ServicePath::PORT => {
                write!(f, "diskdelta://{host}{path}")
            }
            #[cfg(feature = "tls")]
            RemoteAddress::Service(service) => {
                write!(f, "diskdelta://{host}:{}{path}", service.port)
            }
        }
    }
}

fn plain_host(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

fn port_of(shell: &SshPath) -> String {
    let port = shell.port.filter(|port| *port != SSH_PORT);
    port.map_or(String::new(), |port| format!(":{port}"))
}

fn bracketed(host: &str) -> Cow<'_, str> {
    match host.contains(':') {
        true => Cow::Owned(format!("[{host}]")),
        false => Cow::Borrowed(host),
    }
}

/// The beginning of an address.
fn is_url(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.split_once("://").is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric())
    })
}

const SSH_PORT: u16 = 22;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RemoteAddress {
        RemoteAddress::parse(Path::new(text)).unwrap().unwrap()
    }

    #[test]
    fn an_address_reads_back_as_it_was_written() {
        for text in [
            "ssh://host/a",
            "ssh://me@host:2222/a b//c",
            "ssh://host/~/disk.raw",
            "ssh://[fe80::1%eth0]:2222/d",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
        #[cfg(feature = "tls")]
        for text in ["diskdelta://host/a", "diskdelta://[::1]:77/a"] {
            assert_eq!(parse(text).to_string(), text);
        }
        assert_eq!(RemoteAddress::parse(Path::new("/a/b")).unwrap(), None);
        assert!(RemoteAddress::parse(Path::new("http://host/a")).is_err());
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
        #[cfg(feature = "tls")]
        {
            assert!(same("diskdelta://Host/a", "diskdelta://host:8730//a"));
            assert!(!same("diskdelta://host/a", "ssh://host/a"));
        }
    }
}

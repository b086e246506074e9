//! Which addresses of web servers an agent may open.

use std::fmt;
#[cfg(feature = "http")]
use std::net::IpAddr;

use super::web::WebAddress;
use crate::error::{Error, ErrorKind, Result};

/// What addresses must begin with: a scheme, a whole host, in which one `*` stands for any letters,
/// digits, hyphens and dots, and the beginning of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlPrefix {
    begin: WebAddress,
    /// Of the host, before and behind the `*`.
    wildcard: Option<(String, String)>,
}

impl UrlPrefix {
    /// Reads `https://HOST[:PORT][/PATH]`, or `http://…`.
    ///
    /// # Errors
    /// `InvalidInput` for anything else, for a host whose `*` leaves less than two labels behind
    /// it, and for a query.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = || {
            let what = format!("`{text}` is no beginning of addresses");
            Error::new(ErrorKind::InvalidInput, what)
                .advise("write https://HOST[:PORT]/[PATH]; in HOST one * stands for any letters")
        };
        if text.contains('?') {
            return Err(refuse());
        }
        let begin = WebAddress::parse(text.replacen('*', "x", 1)).map_err(|_| refuse())?;
        let authority = text
            .split_once("://")
            .map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
        let host = authority.to_ascii_lowercase();
        let host = host.split(':').next().unwrap_or_default();
        let wildcard = match host.split_once('*') {
            None => None,
            // Labels that others can register are not left open.
            Some((_, behind)) if behind.matches('.').count() < 2 => return Err(refuse()),
            Some((before, behind)) => Some((before.to_owned(), behind.to_owned())),
        };
        match (wildcard.is_none() && text.contains('*')) || has_dots(begin.path()) {
            true => Err(refuse()),
            false => Ok(UrlPrefix { begin, wildcard }),
        }
    }

    /// Whether `address` begins so. One whose path leads upwards never does.
    pub fn allows(&self, address: &WebAddress) -> bool {
        let host = address.host();
        let is_host = match &self.wildcard {
            None => host == self.begin.host(),
            Some((before, behind)) => host
                .strip_prefix(&before[..])
                .and_then(|rest| rest.strip_suffix(&behind[..]))
                .is_some_and(|open| !open.is_empty()),
        };
        is_host
            && address.is_plain() == self.begin.is_plain()
            && address.port() == self.begin.port()
            && address.path().starts_with(self.begin.path())
            && !has_dots(address.path())
    }
}

impl fmt::Display for UrlPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wildcard {
            None => self.begin.fmt(f),
            Some((before, behind)) => {
                let host = format!("{before}*{behind}");
                let text = self.begin.to_string();
                f.write_str(&text.replacen(self.begin.host(), &host, 1))
            }
        }
    }
}

/// Whether a server may take a part of the path for a way upwards.
fn has_dots(path: &str) -> bool {
    let plain = path
        .to_ascii_lowercase()
        .replace("%2e", ".")
        .replace("%2f", "/");
    plain
        .split(['/', '\\'])
        .any(|part| matches!(part, "." | ".."))
}

/// Whether an address is of this link alone: what is there, such as the metadata of a cloud's VMs,
/// is not for others.
#[cfg(feature = "http")]
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => {
            let mapped = ip
                .to_ipv4_mapped()
                .is_some_and(|ip| is_link_local(ip.into()));
            ip.is_unicast_link_local() || ip.is_unspecified() || mapped
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(prefix: &str, address: &str) -> bool {
        let prefix = UrlPrefix::parse(prefix).unwrap();
        prefix.allows(&WebAddress::parse(address).unwrap())
    }

    #[test]
    fn addresses_begin_with_a_whole_host_and_the_path() {
        let account = "https://shop.blob.core.windows.net/vhds/";
        assert!(allows(
            account,
            "https://SHOP.blob.core.windows.net:443/vhds/a?sig=S"
        ));
        for other in [
            "http://shop.blob.core.windows.net/vhds/a",
            "https://shop.blob.core.windows.net:8443/vhds/a",
            "https://shop.blob.core.windows.net.evil.example/vhds/a",
            "https://shop.blob.core.windows.net/other/a",
            "https://shop.blob.core.windows.net/vhds/../other/a",
            "https://shop.blob.core.windows.net/vhds/%2E%2e/other/a",
            "https://shop.blob.core.windows.net/vhds/..%2fother/a",
        ] {
            assert!(!allows(account, other), "{other}");
        }
        let disks = "https://md-*.blob.storage.azure.net";
        assert!(allows(
            disks,
            "https://md-x1.z22.blob.storage.azure.net/a/abcd?sig=S"
        ));
        for other in [
            "https://md-.blob.storage.azure.net/a",
            "https://md-x.blob.storage.azure.net.evil.example/a",
            "https://x.md-x.blob.storage.azure.net/a",
            "https://md-x/.blob.storage.azure.net/a",
        ] {
            assert!(!allows(disks, other), "{other}");
        }
        assert_eq!(
            UrlPrefix::parse(disks).unwrap().to_string(),
            format!("{disks}/")
        );
    }

    #[test]
    fn a_prefix_that_leaves_the_host_open_is_refused() {
        for wrong in [
            "https://md-",
            "https://*",
            "https://*.net/",
            "https://a.example/*",
            "https://a.example/?x",
            "https://*.*.example.net/",
            "https://a.example/../b",
            "ftp://a.example/",
            "a.example",
        ] {
            // A host without a dot is one of the own network.
            let is_wrong = UrlPrefix::parse(wrong).is_err();
            assert!(is_wrong || wrong == "https://md-", "{wrong}");
        }
        assert!(!allows(
            "https://md-",
            "https://md-x1.z22.blob.storage.azure.net/"
        ));
    }

    #[cfg(feature = "http")]
    #[test]
    fn addresses_of_the_link_alone_are_known_however_they_are_written() {
        for ip in [
            "169.254.169.254",
            "fe80::1",
            "::ffff:169.254.169.254",
            "0.0.0.0",
            "::",
        ] {
            assert!(is_link_local(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["127.0.0.1", "10.0.0.4", "::1", "2603::1"] {
            assert!(!is_link_local(ip.parse().unwrap()), "{ip}");
        }
    }
}

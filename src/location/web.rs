//! The address of a disk at a web server.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// A disk at a web server or in an object store: `https://HOST[:PORT]/PATH[?QUERY]`.
///
/// The query is kept byte for byte, since it may be signed. It is a secret: neither `Display` nor
/// `Debug` shows it, but for the parameter `snapshot`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WebAddress {
    is_plain: bool,
    /// In lower case; an IPv6 address in brackets.
    host: String,
    port: Option<u16>,
    path: String,
    query: Option<String>,
}

impl WebAddress {
    /// Reads an address of the scheme `https`, or `http`.
    ///
    /// # Errors
    /// `InvalidInput` for another scheme, a user, a fragment, a bad host or port, characters that
    /// no address has, and more than 16 KiB. The error does not repeat the address.
    pub fn parse(text: impl AsRef<Path>) -> Result<Self> {
        let text = text.as_ref().to_str();
        text.and_then(Self::parts).ok_or_else(|| {
            let what = "not an address of a disk at a web server";
            Error::new(ErrorKind::InvalidInput, what).advise(
                "write https://HOST[:PORT]/PATH[?QUERY], without a user, spaces or a fragment",
            )
        })
    }

    fn parts(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_plain = match scheme {
            _ if scheme.eq_ignore_ascii_case("https") => false,
            _ if scheme.eq_ignore_ascii_case("http") => true,
            _ => return None,
        };
        if text.len() > MOST_BYTES || !rest.bytes().all(is_of_address) {
            return None;
        }
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, "/"),
        };
        let (host, port) = split_host(authority)?;
        Some(WebAddress {
            is_plain,
            host: host.to_ascii_lowercase(),
            port: port.filter(|port| *port != if is_plain { 80 } else { 443 }),
            path: path.to_owned(),
            query,
        })
    }

    /// Whether the connection is not encrypted: the scheme is `http`.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The host, in lower case; an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, where it is not the scheme's.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The path, which begins with a slash, as it was written.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What the query says of the snapshot that is meant.
    pub fn snapshot(&self) -> Option<&str> {
        let mut parameters = self.query.as_deref()?.split('&');
        parameters.find_map(|it| it.strip_prefix("snapshot="))
    }

    /// Whether the host is this one.
    pub fn is_loopback(&self) -> bool {
        self.ip()
            .map_or(self.host == "localhost", |ip| ip.is_loopback())
    }

    /// The host, where it is named by its IP address.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare.parse().ok()
    }

    /// The same text for two spellings of one address; what may be secret is left out.
    pub fn place(&self) -> String {
        self.to_string()
    }

    /// The whole address, with its secrets, for the server itself and for an agent that opens it.
    pub(crate) fn with_secrets(&self) -> String {
        let query = self.query.as_deref();
        format!("{}{}{}", self.origin(), self.path, question(query))
    }

    /// The whole address, with its secrets, and `parameters` behind its query.
    #[cfg(feature = "http")]
    pub(crate) fn with_parameters(&self, parameters: &str) -> String {
        let query = match self.query.as_deref() {
            Some(query) if !query.is_empty() => format!("{query}&{parameters}"),
            _ => parameters.to_owned(),
        };
        format!("{}{}{}", self.origin(), self.path, question(Some(&query)))
    }

    /// Where a redirect to `target` leads from here.
    ///
    /// # Errors
    /// `Untrusted` for another scheme; `Malformed` for what is no address.
    #[cfg(feature = "http")]
    pub(crate) fn redirected(&self, target: &str) -> Result<WebAddress> {
        let target = target.split('#').next().unwrap_or_default();
        let whole = match target {
            _ if target.contains("://") => target.to_owned(),
            _ if target.starts_with("//") => format!("{}:{target}", self.scheme()),
            _ if target.starts_with('/') => format!("{}{target}", self.origin()),
            _ => {
                let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{}{folder}/{target}", self.origin())
            }
        };
        let next = Self::parse(&whole).map_err(|_| {
            Error::malformed("the server redirects to what is no address of a disk")
        })?;
        match next.is_plain == self.is_plain {
            true => Ok(next),
            false => Err(Error::new(
                ErrorKind::Untrusted,
                "the server redirects to an address of another scheme",
            )),
        }
    }

    fn scheme(&self) -> &'static str {
        match self.is_plain {
            true => "http",
            false => "https",
        }
    }

    /// Scheme, host and port.
    pub(crate) fn origin(&self) -> String {
        let port = self.port.map_or(String::new(), |port| format!(":{port}"));
        format!("{}://{}{port}", self.scheme(), self.host)
    }
}

impl fmt::Display for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)?;
        match self.snapshot() {
            Some(snapshot) => write!(f, "?snapshot={snapshot}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebAddress({self})")
    }
}

/// `text` without what stands behind the question marks of addresses in it.
#[cfg(feature = "cli")]
pub(crate) fn without_queries(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let end = rest
            .get(at..)
            .and_then(|tail| tail.find(ends_address))
            .map_or(rest.len(), |len| at + len);
        let (address, tail) = rest.split_at(end);
        match address.split_once('?') {
            Some((before, _)) => {
                shown.push_str(before);
                shown.push_str("?…");
            }
            None => shown.push_str(address),
        }
        rest = tail;
    }
    shown.push_str(rest);
    shown
}

/// A host, in brackets where it is an IPv6 address, and a port.
fn split_host(authority: &str) -> Option<(&str, Option<u16>)> {
    let bare_end = match authority.starts_with('[') {
        true => authority.find(']')? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(bare_end);
    let port = match port {
        "" => None,
        port => Some(port.strip_prefix(':')?.parse().ok()?),
    };
    let is_valid = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')?
            .parse::<std::net::Ipv6Addr>()
            .is_ok(),
        None => {
            let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !host.is_empty() && host.len() <= 255 && host.bytes().all(is_of_name)
        }
    };
    is_valid.then_some((host, port))
}

fn question(query: Option<&str>) -> String {
    query.map_or(String::new(), |query| format!("?{query}"))
}

/// Whether an address may have this byte; others are written as `%XX`.
fn is_of_address(byte: u8) -> bool {
    byte.is_ascii_graphic() && !br#""<>\^`{|}#"#.contains(&byte)
}

#[cfg(feature = "cli")]
fn ends_address(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\'' | '"' | '`')
}

/// The longest address: a presigned one with a session's token has 2 to 3 KiB.
const MOST_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> WebAddress {
        WebAddress::parse(text).unwrap()
    }

    #[test]
    fn an_address_shows_its_snapshot_and_no_other_secret() {
        let text = "https://MD-x.z22.blob.storage.azure.net:443/a/abcd\
                    ?sv=1&snapshot=2023-12-24T19%3A01&sig=SECRET%2B";
        let address = parse(text);
        let shown = "https://md-x.z22.blob.storage.azure.net/a/abcd?snapshot=2023-12-24T19%3A01";
        assert_eq!(address.to_string(), shown);
        assert_eq!(format!("{address:?}"), format!("WebAddress({shown})"));
        assert!(
            address
                .with_secrets()
                .ends_with("/a/abcd?sv=1&snapshot=2023-12-24T19%3A01&sig=SECRET%2B")
        );
        let longer = address.with_parameters("comp=pagelist");
        assert!(longer.ends_with("&sig=SECRET%2B&comp=pagelist"));
        let bare = parse("http://[::1]:80").with_parameters("a=b");
        assert_eq!(bare, "http://[::1]/?a=b");
        assert!(parse("http://[::1]/").is_loopback() && parse("http://127.0.0.9:8/").is_loopback());
        assert!(!parse("http://localhost.example/").is_loopback());
    }

    #[test]
    fn what_is_no_web_address_is_refused_and_not_repeated() {
        for wrong in [
            "ftp://h/a?sig=SECRET",
            "https://me:SECRET@h/a",
            "https://h/a?sig=SECRET#f",
            "https://h/a b?sig=SECRET",
            "https://h:70000/a?sig=SECRET",
            "https:///a?sig=SECRET",
            "https://[::1/a?sig=SECRET",
            "https://[x]/a?sig=SECRET",
            "https://h\u{e4}/a?sig=SECRET",
        ] {
            let error = WebAddress::parse(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}");
            assert!(!error.to_string().contains("SECRET"), "{error}");
        }
        let long = format!("https://h/{}", "a".repeat(MOST_BYTES));
        assert!(WebAddress::parse(long).is_err());
    }

    proptest::proptest! {
        #[test]
        fn wherever_a_redirect_leads_it_keeps_the_scheme_and_no_secret(
            target in "(https?:)?(//)?[-a-z:/?#.@\\[\\]%]{0,30}|.*",
        ) {
            let from = parse("https://h:8/a/b?sig=SECRET");
            if let Ok(to) = from.redirected(&target) {
                let whole = to.with_secrets();
                proptest::prop_assert!(!to.is_plain() && !whole.contains("SECRET"));
                proptest::prop_assert_eq!(WebAddress::parse(&whole).unwrap(), to);
            }
        }
    }

    #[test]
    fn redirects_are_resolved_and_never_carry_the_query_along() {
        let from = parse("https://h:8/a/b?sig=SECRET");
        let to = |target| from.redirected(target).unwrap().with_secrets();
        assert_eq!(to("https://other/x?sig=2"), "https://other/x?sig=2");
        assert_eq!(to("//other/x"), "https://other/x");
        assert_eq!(to("/x#f"), "https://h:8/x");
        assert_eq!(to("c?d"), "https://h:8/a/c?d");
        let plain = from.redirected("http://h/x").unwrap_err();
        assert_eq!(plain.kind(), ErrorKind::Untrusted);
        assert_eq!(
            from.redirected("https://").unwrap_err().kind(),
            ErrorKind::Malformed
        );
    }

    #[test]
    fn texts_lose_the_queries_of_addresses_in_them() {
        let shown = without_queries("bad 'https://h/a?sig=S' and nbd+unix:///x?socket=S a?b");
        assert_eq!(shown, "bad 'https://h/a?…' and nbd+unix:///x?… a?b");
        assert_eq!(without_queries("https://h/?S"), "https://h/?…");
    }
}

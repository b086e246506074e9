//! How an attempt of a request fails.

use std::io;
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::location::WebAddress;

/// How an attempt of a request fails.
#[derive(Debug)]
pub(in crate::storage) enum Failure {
    /// Another attempt would fail as well.
    Final(Error),
    /// Another attempt may succeed.
    Passing {
        error: Error,
        /// How long the server asks to wait.
        wait: Option<Duration>,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

impl Failure {
    /// A broken connection, or an answer that ended early.
    pub(in crate::storage) fn passing(error: Error) -> Self {
        Failure::Passing { error, wait: None }
    }

    /// What the client made of a request that got no answer. Texts of the client may repeat
    /// addresses and headers, and are left out.
    pub(super) fn of_client(error: ureq::Error, at: &WebAddress) -> Self {
        let io = |what: String| Error::new(ErrorKind::Io, what).at_path(at.to_string());
        match error {
            ureq::Error::Rustls(cause) => Failure::Final(
                Error::new(ErrorKind::Untrusted, "cannot establish a TLS connection")
                    .at_path(at.to_string())
                    .caused_by(cause),
            ),
            ureq::Error::Io(cause) => {
                // The texts of handshakes stand in the inner error.
                let tls = cause
                    .get_ref()
                    .and_then(|it| it.downcast_ref::<rustls::Error>())
                    .cloned();
                match tls {
                    Some(tls) => Self::of_client(ureq::Error::Rustls(tls), at),
                    None => Self::passing(io("the connection broke".into()).caused_by(cause)),
                }
            }
            ureq::Error::Timeout(_) => {
                Self::passing(io("the server did not answer in time".into()))
            }
            ureq::Error::HostNotFound => {
                let what = format!("there is no host `{}`", at.host());
                Self::passing(io(what))
            }
            ureq::Error::ConnectionFailed => Self::passing(io("cannot connect".into())),
            ureq::Error::ConnectProxyFailed(_) => {
                Self::passing(io("the proxy did not connect to the server".into()))
            }
            ureq::Error::LargeResponseHeader(..) => Failure::Final(
                Error::malformed("the header of the server's answer is too long")
                    .at_path(at.to_string()),
            ),
            _ => Self::passing(io("the server does not answer as HTTP asks".into())),
        }
    }

    /// What a body's read came to.
    pub(super) fn of_body(error: io::Error, at: &WebAddress) -> Self {
        match error.get_ref().is_some_and(|it| it.is::<ureq::Error>()) {
            true => Self::of_client(error.into(), at),
            false => Self::of_client(ureq::Error::Io(error), at),
        }
    }
}

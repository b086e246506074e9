//! What a failed handshake means.

use std::path::Path;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

use super::identity::Identity;
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};

/// Whom a handshake is with, and what this end showed of itself.
#[derive(Debug, Clone)]
pub(in crate::remote) struct Peers {
    /// What errors call the other end.
    pub peer: String,
    /// This end.
    pub ours: Identity,
}

impl Peers {
    /// What went wrong, and with which certificate.
    pub(in crate::remote) fn explain(&self, error: rustls::Error) -> Error {
        use rustls::Error as Tls;
        let peer = &self.peer;
        match error {
            Tls::InvalidCertificate(what) => self.refuse(&what),
            Tls::NoCertificatesPresented => {
                untrusted(format!("{peer} showed no certificate, and one is required"))
            }
            Tls::AlertReceived(why) => self.refused(why),
            Tls::NoApplicationProtocol => self.no_protocol(),
            Tls::InvalidMessage(_) | Tls::InappropriateMessage { .. } => {
                Error::malformed(format!("{peer} does not speak TLS"))
                    .advise("it may be another program's port; nothing is ever sent in the clear")
            }
            Tls::PeerIncompatible(_) => self.no_version(),
            other => Error::malformed(format!("{peer} broke the rules of TLS")).caused_by(other),
        }
    }

    /// Whether what was agreed on is this protocol.
    pub(in crate::remote) fn check_protocol(&self, agreed: Option<&[u8]>) -> Result<()> {
        match agreed {
            Some(super::config::PROTOCOL) => Ok(()),
            _ => Err(self.no_protocol()),
        }
    }

    /// The other end's certificate is no good.
    fn refuse(&self, what: &CertificateError) -> Error {
        use CertificateError as Bad;
        let whose = format!("the certificate of {}", self.peer);
        let ca = shown(&self.ours.ca);
        match what {
            Bad::Expired => untrusted(format!("{whose} has expired")),
            Bad::ExpiredContext { time, not_after } => {
                let ago = span(*not_after, *time);
                untrusted(format!("{whose} expired {ago} ago"))
            }
            Bad::NotValidYet => untrusted(format!("{whose} is not valid yet")),
            Bad::NotValidYetContext { time, not_before } => {
                let left = span(*time, *not_before);
                untrusted(format!("{whose} is not valid yet, for another {left}"))
                    .advise("look at the clocks of both hosts")
            }
            Bad::UnknownIssuer | Bad::BadSignature => {
                untrusted(format!("{whose} was not signed by an authority in {ca}"))
            }
            Bad::NotValidForNameContext {
                expected,
                presented,
            } => {
                let names = match presented.as_slice() {
                    [] => "no name at all (it has no subjectAltName)".to_owned(),
                    names => names
                        .iter()
                        .map(|it| bare(it))
                        .collect::<Vec<_>>()
                        .join(", "),
                };
                let expected = expected.to_str();
                untrusted(format!("{whose} is not for {expected}, but for {names}"))
                    .advise("a name in a certificate's subject does not count")
                    .or_advise(Advice::TlsName)
            }
            Bad::NotValidForName => untrusted(format!("{whose} is for another name")),
            Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => untrusted(format!(
                "{whose} is not meant for that end of a line"
            ))
            .advise(
                "its extended key usage must name serverAuth for a service, clientAuth for a client",
            ),
            other => untrusted(format!("{whose} is no good")).caused_by(other.to_string()),
        }
    }

    /// The other end has refused this one.
    fn refused(&self, why: AlertDescription) -> Error {
        use AlertDescription as Alert;
        let peer = &self.peer;
        let cert = shown(&self.ours.cert);
        match why {
            Alert::CertificateRequired => untrusted(format!(
                "{peer} wants a certificate of this end, and got none"
            )),
            Alert::UnknownCA | Alert::DecryptError => untrusted(format!(
                "{peer} does not trust the authority that signed {cert}"
            )),
            Alert::CertificateExpired => untrusted(format!(
                "{peer} refuses {cert}: by its clock it has expired, or is not valid yet"
            )),
            Alert::BadCertificate => untrusted(format!(
                "{peer} refuses {cert}: it is damaged, or not for the name that was asked for"
            )),
            Alert::UnsupportedCertificate => untrusted(format!(
                "{peer} refuses {cert}: it is not meant for this end of a line"
            )),
            Alert::CertificateRevoked | Alert::CertificateUnknown | Alert::AccessDenied => {
                untrusted(format!("{peer} refuses {cert}"))
            }
            Alert::NoApplicationProtocol => self.no_protocol(),
            Alert::ProtocolVersion => self.no_version(),
            other => Error::malformed(format!("{peer} gave up the handshake: {other:?}")),
        }
    }

    fn no_protocol(&self) -> Error {
        let text = format!("{} speaks TLS, but not diskdelta's protocol", self.peer);
        Error::new(ErrorKind::Unsupported, text)
    }

    fn no_version(&self) -> Error {
        let text = format!("{} and this end share no version of TLS", self.peer);
        Error::new(ErrorKind::Unsupported, text).advise("only TLS 1.3 is spoken")
    }
}

fn untrusted(text: String) -> Error {
    Error::new(ErrorKind::Untrusted, text)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A name without what rustls puts around it: `DnsName("a")`, `IpAddress(1.2.3.4)`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|it| it.1.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn span(from: UnixTime, to: UnixTime) -> String {
    let seconds = to.as_secs().saturating_sub(from.as_secs());
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} minutes", seconds / 60),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

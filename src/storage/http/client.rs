//! Requests to one web server.

use std::io::Read;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use ureq::config::AutoHeaderValue;
use ureq::http::header::{HeaderMap, HeaderName};
use ureq::http::{Method, Request};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use super::failure::Failure;
use super::headers::retry_after;
use super::options::HttpOptions;
use super::request_limit::{Permit, RequestLimit};
use super::resolver::BeyondLink;
use super::retries::Retries;
use super::token::Token;
use crate::error::{Error, ErrorKind, Result};
use crate::location::WebAddress;
use crate::progress::CancelToken;

/// Makes requests from any number of threads, as many at once as the server takes, until it is
/// cancelled.
pub(in crate::storage) struct Client {
    agent: Agent,
    limit: RequestLimit,
    attempts: u32,
    token: Token,
    cancel: CancelToken,
    /// Ends the thread that watches for a cancel.
    _alive: Arc<()>,
}

/// One request: all of it but the host.
pub(in crate::storage) struct Query<'a> {
    /// What errors show.
    pub at: &'a WebAddress,
    /// The whole address, with its secrets.
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    /// What to send by `PUT`; `None` for `GET`.
    pub body: Option<&'a [u8]>,
}

/// An answer whose body is still to be read.
pub(in crate::storage) struct Answer<'a> {
    at: &'a WebAddress,
    pub status: u16,
    headers: HeaderMap,
    body: Body,
    permit: Permit<'a>,
}

impl Client {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// `Untrusted` for a connection without encryption to another host; `Io` where no thread can
    /// be started.
    pub(in crate::storage) fn new(
        at: &WebAddress,
        options: &HttpOptions,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("diskdelta/", env!("CARGO_PKG_VERSION")))
            .accept_encoding(AutoHeaderValue::None)
            .max_response_header_size(HEADER_BYTES)
            .max_idle_connections(MOST_IDLE)
            .max_idle_connections_per_host(MOST_IDLE)
            .timeout_resolve(Some(options.silence))
            .timeout_connect(Some(options.silence))
            .timeout_per_read(Some(options.silence))
            .timeout_per_write(Some(options.silence));
        // A proxy has another idea of which host is this one.
        let config = match at.is_loopback() {
            true => config.proxy(None),
            false => config,
        };
        let agent = match &options.allowed {
            None => Agent::new_with_config(config.build()),
            Some(_) => {
                let connector = DefaultConnector::default();
                Agent::with_parts(config.build(), connector, BeyondLink)
            }
        };
        let alive = Arc::new(());
        watch(agent.clone(), cancel.clone(), Arc::downgrade(&alive))?;
        Ok(Client {
            agent,
            limit: RequestLimit::new(),
            attempts: options.attempts,
            token: Token::new(options.token_command.as_deref(), at.origin())?,
            cancel: cancel.clone(),
            _alive: alive,
        })
    }

    /// The attempts of one request.
    pub(in crate::storage) fn retries(&self) -> Retries<'_> {
        Retries::new(self.attempts, &self.cancel)
    }

    /// At most `most` attempts of one request.
    pub(in crate::storage) fn retries_of(&self, most: u32) -> Retries<'_> {
        Retries::new(self.attempts.min(most), &self.cancel)
    }

    /// Makes one attempt. An answer is one of success, of a redirect, or of a status in `expected`.
    pub(in crate::storage) fn attempt<'a>(
        &'a self,
        query: &Query<'a>,
        expected: &[u16],
    ) -> Result<Answer<'a>, Failure> {
        let permit = self.limit.acquire(&self.cancel)?;
        let method = query.body.map_or(Method::GET, |_| Method::PUT);
        let mut request = Request::builder().method(method).uri(&query.url);
        for (name, value) in &query.headers {
            request = request.header(*name, value);
        }
        let token = self.token.of(&query.url);
        if let Some(token) = &token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let no_request = |_| {
            let what = "not an address that a web server can be asked for";
            Failure::Final(Error::new(ErrorKind::InvalidInput, what).at_path(query.at.to_string()))
        };
        let sent = match query.body {
            Some(body) => self.agent.run(request.body(body).map_err(no_request)?),
            None => self.agent.run(request.body(()).map_err(no_request)?),
        };
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                self.cancel.check()?;
                return Err(Failure::of_client(error, query.at));
            }
        };
        let (parts, body) = response.into_parts();
        let answer = Answer {
            at: query.at,
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
            permit,
        };
        if answer.status == 401 && self.token.renew(token.as_deref(), &self.cancel)? {
            let what = "the server asks for a token";
            let error = Error::new(ErrorKind::Untrusted, what).at_path(query.at.to_string());
            return Err(Failure::passing(error));
        }
        let is_expected = parts.status.is_success()
            || parts.status.is_redirection()
            || expected.contains(&answer.status);
        match is_expected {
            true => {
                answer.permit.answered();
                Ok(answer)
            }
            false => Err(answer.refusal()),
        }
    }
}

impl Answer<'_> {
    /// A header's text, where it has one of sensible length.
    pub(in crate::storage) fn header(&self, name: &str) -> Option<&str> {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let text = self.headers.get(name)?.to_str().ok()?;
        (text.len() <= VALUE_BYTES).then_some(text)
    }

    /// Reads a body of at most `most` bytes.
    pub(in crate::storage) fn reader(&mut self, most: u64) -> impl Read + '_ {
        self.body.as_reader().take(most)
    }

    /// Reads `buf.len()` bytes of the body, and counts them in `done` as they come.
    pub(in crate::storage) fn read(
        &mut self,
        buf: &mut [u8],
        done: &mut usize,
    ) -> Result<(), Failure> {
        let mut reader = self.body.as_reader();
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match reader.read(rest) {
                Ok(0) => {
                    let what = "the answer ended early";
                    let error = Error::new(ErrorKind::Io, what).at_path(self.at.to_string());
                    return Err(Failure::passing(error));
                }
                Ok(count) => {
                    filled += count;
                    *done += count;
                }
                Err(error) => return Err(Failure::of_body(error, self.at)),
            }
        }
        // The end of the body gives the connection back; what follows is not of this answer.
        let _ = reader.read(&mut [0; 1]);
        Ok(())
    }

    /// An error for an answer that is not to be had by another attempt.
    pub(in crate::storage) fn refuse(&self, kind: ErrorKind, what: &'static str) -> Failure {
        Failure::Final(Error::new(kind, what).at_path(self.at.to_string()))
    }

    /// The failure that its status stands for.
    pub(in crate::storage) fn refusal(&self) -> Failure {
        let code = self
            .header("x-ms-error-code")
            .map_or(String::new(), |code| format!(" {code}"));
        let id = self
            .header("x-ms-request-id")
            .or(self.header("x-amz-request-id"));
        let id = id.map_or(String::new(), |id| format!(" (request {id})"));
        let what = format!("the server answers {}{code}{id}", self.status);
        let error = |kind| Error::new(kind, what.clone()).at_path(self.at.to_string());
        match self.status {
            401 | 403 => Failure::Final(error(ErrorKind::Untrusted).advise(
                "the address may have expired: make a new one and run the same command again, \
                 which goes on where this one stopped",
            )),
            404 | 410 => Failure::Final(error(ErrorKind::NotFound)),
            412 => Failure::Final(error(ErrorKind::SourceChanged)),
            429 | 503 => {
                self.permit.throttled();
                Failure::Passing {
                    error: error(ErrorKind::Io),
                    wait: self.header("retry-after").and_then(retry_after),
                }
            }
            408 | 500 | 502 | 504 => Failure::Passing {
                error: error(ErrorKind::Io),
                wait: self.header("retry-after").and_then(retry_after),
            },
            _ => Failure::Final(error(ErrorKind::Io)),
        }
    }
}

/// Interrupts the requests of `agent` once `cancel` is set, as long as `alive` is.
fn watch(agent: Agent, cancel: CancelToken, alive: Weak<()>) -> Result<()> {
    let watch = move || {
        while alive.strong_count() > 0 {
            if cancel.is_cancelled() {
                return agent.shutdown();
            }
            thread::sleep(Duration::from_millis(50));
        }
    };
    let started = thread::Builder::new()
        .name("diskdelta-http".into())
        .spawn(watch);
    started
        .map(drop)
        .map_err(|cause| Error::io("start a thread", cause))
}

const HEADER_BYTES: usize = 64 << 10;
/// The longest text of a header that is used.
const VALUE_BYTES: usize = 16 << 10;
/// As many as requests are under way at most.
const MOST_IDLE: usize = 40;

//! How web servers are reached.

use std::time::Duration;

use crate::location::UrlPrefix;
use crate::setters::setters;

/// How web servers are reached.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpOptions {
    /// How long a connection may be silent, 60 s by default.
    pub silence: Duration,
    /// How often one request is made before its error is final, 8 times by default.
    pub attempts: u32,
    /// Reads over connections that are not encrypted from other hosts too, and not only from this
    /// one.
    pub allow_plain: bool,
    /// What addresses must begin with, redirects too; then addresses of this link alone, such as
    /// the metadata of a cloud's VMs, are not connected to. `None`: all are opened.
    pub allowed: Option<Vec<UrlPrefix>>,
    /// A program, with its arguments, that prints a bearer token; it is run where the server asks
    /// for one (401).
    pub token_command: Option<Vec<String>>,
}

setters! {
    HttpOptions:
    /// Replaces [`HttpOptions::silence`].
    with_silence, silence: Duration;
    /// Replaces [`HttpOptions::attempts`].
    with_attempts, attempts: u32;
    /// Replaces [`HttpOptions::allow_plain`].
    with_allow_plain, allow_plain: bool;
    /// Replaces [`HttpOptions::allowed`].
    with_allowed, allowed: Option<Vec<UrlPrefix>>;
    /// Replaces [`HttpOptions::token_command`].
    with_token_command, token_command: Option<Vec<String>>;
}

impl Default for HttpOptions {
    fn default() -> Self {
        HttpOptions {
            silence: Duration::from_secs(60),
            attempts: 8,
            allow_plain: false,
            allowed: None,
            token_command: None,
        }
    }
}

//! How web servers are reached.

use std::time::Duration;

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
    /// Replaces [`HttpOptions::token_command`].
    with_token_command, token_command: Option<Vec<String>>;
}

impl Default for HttpOptions {
    fn default() -> Self {
        HttpOptions {
            silence: Duration::from_secs(60),
            attempts: 8,
            allow_plain: false,
            token_command: None,
        }
    }
}

//! How a line is watched, and how fast it may be.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::throttle::Throttle;
use crate::setters::setters;

/// How a line is watched, and how fast it may be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LineOptions {
    /// How long the other end may be silent, 60 s unless said otherwise.
    ///
    /// Each end shows a sign of life every 5 s, or three times in this span where it is shorter
    /// than 15 s; so where it is, both ends must be told.
    pub silence: Duration,
    /// How long nothing but signs of life may come while something is awaited, 12 h unless said
    /// otherwise; `None` is for ever.
    pub idle: Option<Duration>,
    /// How long the line may be used in all; `None` is for ever. What has begun to be written to
    /// a target then is written to its end.
    pub longest: Option<Duration>,
    /// What errors call the other end.
    pub peer: Option<String>,
    pub(in crate::remote) sending: Option<Arc<Throttle>>,
    pub(in crate::remote) receiving: Option<Arc<Throttle>>,
}

setters! {
    LineOptions:
    /// Replaces [`LineOptions::silence`].
    with_silence, silence: Duration;
    /// Replaces [`LineOptions::idle`].
    with_idle, idle: Option<Duration>;
    /// Replaces [`LineOptions::longest`].
    with_longest, longest: Option<Duration>;
    /// Replaces [`LineOptions::peer`].
    with_peer, peer: Option<String>;
}

impl LineOptions {
    /// Sends at most `bytes_per_second` on average, framing counted, and takes no more; 0 lifts
    /// the limit. Lines made of clones of these options are held to it together.
    #[must_use]
    pub fn with_limit_rate(self, bytes_per_second: u64) -> Self {
        let throttle = || (bytes_per_second > 0).then(|| Arc::new(Throttle::new(bytes_per_second)));
        self.with_throttles(throttle(), throttle())
    }

    pub(in crate::remote) fn with_throttles(
        mut self,
        sending: Option<Arc<Throttle>>,
        receiving: Option<Arc<Throttle>>,
    ) -> Self {
        self.sending = sending;
        self.receiving = receiving;
        self
    }

    /// The same, with a name for the other end if it has none.
    pub(in crate::remote) fn or_peer(mut self, name: &str) -> Self {
        self.peer.get_or_insert_with(|| name.to_owned());
        self
    }

    pub(in crate::remote) fn peer_name(&self) -> Cow<'static, str> {
        match &self.peer {
            Some(name) => Cow::Owned(name.clone()),
            None => Cow::Borrowed("the other end"),
        }
    }

    /// After what time with nothing to send a sign of life is due.
    pub(in crate::remote) fn sign(&self) -> Duration {
        (self.silence / 3).min(SIGN)
    }
}

impl Default for LineOptions {
    fn default() -> Self {
        LineOptions {
            silence: Duration::from_secs(60),
            idle: Some(IDLE),
            longest: None,
            peer: None,
            sending: None,
            receiving: None,
        }
    }
}

/// The other end may apply a large redo log meanwhile.
const IDLE: Duration = Duration::from_secs(12 * 3600);
const SIGN: Duration = Duration::from_secs(5);

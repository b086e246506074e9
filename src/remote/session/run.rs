//! What both ends of a session do alike: greeting, and giving up.

use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::CancelToken;
use crate::random::random;
use crate::remote::compare::keys::Keys;
use crate::remote::shown_paths::ShownPaths;
use crate::remote::wire::codec::wrong;
use crate::remote::wire::connection::Line;
use crate::remote::wire::format::{
    FEATURE_ADDRESSES, FEATURE_COUNTS, FEATURE_DISK_AGENT, FEATURE_GAPS, FEATURE_HOLES,
    FEATURE_LIVE, FEATURE_MANIFESTS, FEATURE_MARKERS, FEATURE_ZSTD, FEATURES, VERSION,
    VERSION_LEAST,
};
use crate::remote::wire::message::{Hello, Message};
use crate::sync::Traffic;

/// A line whose ends have greeted each other.
pub struct Session {
    line: Line,
    key: [u8; 32],
    features: u32,
    /// What the other end is shown of paths.
    shown: ShownPaths,
}

opaque!(Session);

/// Which end has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This one.
    Client,
    /// The other one.
    Agent,
}

impl Session {
    /// Greets the other end of `line`.
    ///
    /// # Errors
    /// `Unsupported` where there is no version that both speak; `Malformed` where the other end is
    /// something else; `Io`, `Cancelled`.
    pub fn greet(line: Line, side: Side, cancel: &CancelToken) -> Result<Session> {
        Self::greet_with(line, side, FEATURES, cancel)
    }

    /// Shows the other end paths as `shown` does.
    pub(crate) fn show_paths(&mut self, shown: ShownPaths) {
        self.shown = shown;
    }

    /// What the other end is shown of paths.
    pub(crate) fn shown_paths(&self) -> &ShownPaths {
        &self.shown
    }

    /// As [`greet`](Session::greet), with these features at most.
    pub(in crate::remote) fn greet_with(
        line: Line,
        side: Side,
        features: u32,
        cancel: &CancelToken,
    ) -> Result<Session> {
        line.set_cancel(cancel);
        let random = random()?;
        line.send(&Message::Hello(Hello {
            version_least: VERSION_LEAST,
            version_most: VERSION,
            features,
            random,
        }))?;
        let theirs = match line.receive("its greeting", cancel)? {
            Message::Hello(hello) => hello,
            _ => return Err(wrong("something before its greeting")),
        };
        if theirs.version_least > VERSION || theirs.version_most < VERSION_LEAST {
            let (least, most) = (theirs.version_least, theirs.version_most);
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the other end speaks versions {least} to {most} of the protocol, this one \
                     {VERSION_LEAST} to {VERSION}"
                ),
            )
            .advise(Advice::SameVersion));
        }
        let (client, agent) = match side {
            Side::Client => (random, theirs.random),
            Side::Agent => (theirs.random, random),
        };
        let mut hasher = blake3::Hasher::new_derive_key("diskdelta remote 2026: session");
        hasher.update(&client).update(&agent);
        Ok(Session {
            line,
            key: hasher.finalize().into(),
            features: features & theirs.features,
            shown: ShownPaths::default(),
        })
    }

    /// The line.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// What went over the line.
    pub fn traffic(&self) -> Traffic {
        self.line.traffic()
    }

    /// The keys of comparison `number`.
    pub fn keys(&self, number: u64, hash_len: usize) -> Keys {
        Keys::new(&self.key, number, hash_len)
    }

    /// Whether payloads may be compressed.
    pub fn packs(&self) -> bool {
        self.features & FEATURE_ZSTD != 0
    }

    /// Whether manifests may stand for reading.
    pub fn takes_manifests(&self) -> bool {
        self.features & FEATURE_MANIFESTS != 0
    }

    /// Whether data messages may come without bytes.
    pub fn counts(&self) -> bool {
        self.features & FEATURE_COUNTS != 0
    }

    /// Whether a source may pass over what it cannot read.
    pub fn takes_gaps(&self) -> bool {
        self.features & FEATURE_GAPS != 0
    }

    /// Whether a source may be looked at while others write to it.
    pub fn looks(&self) -> bool {
        self.features & FEATURE_LIVE != 0
    }

    /// Whether a source may be declared to begin with a marker of its guest.
    pub fn reads_markers(&self) -> bool {
        self.features & FEATURE_MARKERS != 0
    }

    /// Whether the agent reads holes where a job asks for it.
    pub fn reads_holes(&self) -> bool {
        self.features & FEATURE_HOLES != 0
    }

    /// Whether the agent may open addresses of web servers.
    pub fn opens_addresses(&self) -> bool {
        self.features & FEATURE_ADDRESSES != 0
    }

    /// Whether the agent does what it is asked for beside syncs.
    pub fn has_disk_agent(&self) -> bool {
        self.features & FEATURE_DISK_AGENT != 0
    }

    /// Writes what was sent, and closes the line.
    pub fn finish(self) {
        self.line.finish();
    }
}

//! The end with the source: answers what the other end asks, until that is done.

use std::ops::Range;
use std::sync::Arc;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::run::Session;
use crate::advice::Advice;
use crate::error::{ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{Image, Resized};
use crate::manifest::Manifest;
use crate::progress::{Phase, Work};
use crate::remote::compare::driver::drive;
use crate::remote::compare::known::Known;
use crate::remote::compare::source::SourcePeer;
use crate::remote::compare::source_worker::SourceWorker;
use crate::remote::compare::tree::children_of;
use crate::remote::compare::view::View;
use crate::remote::compare::windows::{Windows, too_many};
use crate::remote::wire::codec::wrong;
use crate::remote::wire::format::{BLOCK, LONG_HASH_LEN, SHORT_HASH_LEAST, WINDOWS_MOST};
use crate::remote::wire::message::{Claims, Compare, Message};
use crate::remote::wire::outcome::RemoteOutcome;
use crate::remote::wire::request::Opened;
use crate::sync::{CachedSource, Claim};

/// What is answered from. It is only read.
pub struct SourceServer<'a> {
    /// The source.
    pub image: Arc<dyn Image>,
    /// Whether it is what it was.
    pub check: &'a (dyn Fn() -> Result<()> + Sync),
    /// Dangers that are no errors.
    pub warnings: Vec<String>,
    /// What a cache knows of it.
    pub cached: Option<CachedSource>,
}

opaque!(SourceServer<'_>);

impl SourceServer<'_> {
    /// Describes the source, and answers until the other end is done; returns what it said then.
    ///
    /// # Errors
    /// Those of the image and of `check`; `Malformed` for what makes no sense; any, from the other
    /// end; `Io`, `Cancelled`.
    pub fn answer(&self, session: &Session, work: &Work) -> Result<Option<Box<RemoteOutcome>>> {
        let info = self.image.info();
        session.line().send(&Message::Opened(Box::new(Opened {
            disk_len: self.image.disk_len(),
            format: info.format,
            sector_bytes: info.sector_bytes,
            block_bytes: info.block_bytes,
            warnings: self.warnings.clone(),
            has_manifest: session.takes_manifests() && self.manifest().is_some(),
        })))?;
        let mut windows = Vec::new();
        let mut number = 0;
        loop {
            match session.line().receive("its next request", work.cancel())? {
                Message::Windows(some) if windows.len() + some.len() <= WINDOWS_MOST => {
                    windows.extend(some);
                }
                Message::Windows(_) => return Err(too_many()),
                Message::Compare(compare) => {
                    let windows = std::mem::take(&mut windows);
                    self.compare(session, &compare, windows, number, work)?;
                    number += 1;
                }
                Message::Claims(claims) => {
                    let answers = self.confirm(&claims, work)?;
                    session.line().send(&Message::Answers(answers))?;
                }
                Message::Tree(tree) => {
                    let known = self.known(tree.disk_len);
                    let root = known.map(|known| *known.manifest().root().as_bytes());
                    session.line().send(&Message::TreeIs(root))?;
                }
                Message::Nodes(nodes) => {
                    let manifest = self.manifest();
                    let manifest = manifest.ok_or_else(|| wrong("nodes of nothing"))?;
                    let keys = session.keys(number, LONG_HASH_LEN);
                    let children = children_of(manifest, &keys, &nodes)?;
                    session.line().send(&Message::NodesAre(children))?;
                }
                Message::Check => {
                    (self.check)()?;
                    session.line().send(&Message::Checked)?;
                }
                Message::Complete(outcome) => return Ok(outcome),
                _ => return Err(wrong("a message that is no request")),
            }
        }
    }

    fn compare(
        &self,
        session: &Session,
        compare: &Compare,
        windows: Vec<Range<u64>>,
        number: u64,
        work: &Work,
    ) -> Result<()> {
        let hash_len = usize::from(compare.hash_len);
        if !(SHORT_HASH_LEAST..=LONG_HASH_LEN).contains(&hash_len)
            || compare.window_count != windows.len() as u64
        {
            return Err(wrong("an invalid comparison"));
        }
        let image = self.padded(compare.disk_len)?;
        let seen = match windows.is_empty() {
            true => Windows::whole(compare.disk_len),
            false => Windows::of(&windows, compare.disk_len)?,
        };
        let is_whole = windows.is_empty();
        drop(windows);
        let known = self
            .known(compare.disk_len)
            .filter(|_| compare.from_manifest);
        let recording = match &self.cached {
            // The comparison's blocks are those of the manifest.
            Some(cached) if cached.block_size().bytes() != BLOCK => None,
            // What is passed over is in no manifest.
            Some(_) if compare.skips => None,
            Some(cached) if is_whole && known.is_none() && self.is_as_long(compare.disk_len) => {
                cached.record()?
            }
            _ => None,
        };
        let view = View::new(&*image, seen)
            .with_known(known)
            .with_skips(compare.skips);
        let keys = session.keys(number, hash_len);
        let worker = SourceWorker::new(&view, keys.clone(), session.packs())
            .with_counts_only(compare.counts_only);
        let writer = recording.as_ref().map(|it| it.writer(compare.disk_len));
        let mut end = SourcePeer::new(&view, keys)?.with_writer(writer.transpose()?);
        work.progress().begin(Phase::Diff, Some(view.len()));
        let mut told = 0;
        let mut look = |end: &SourcePeer<'_>| {
            work.progress()
                .advance(end.finished_bytes().saturating_sub(told));
            told = told.max(end.finished_bytes());
        };
        let awaited = "its answer to hashes";
        let line = session.line();
        drive(&mut end, &worker, line, hash_len, awaited, work, &mut look)
            .map_err(|error| self.or_change(error))?;
        if let (Some(recording), Some(cached)) = (recording, &self.cached) {
            recording.finish(cached.storage())?;
        }
        Ok(())
    }

    fn is_as_long(&self, disk_len: u64) -> bool {
        self.image.disk_len() == disk_len
    }

    fn manifest(&self) -> Option<&Manifest> {
        self.cached.as_ref().and_then(CachedSource::manifest)
    }

    /// What stands for reading a source that is seen with `disk_len` bytes.
    fn known(&self, disk_len: u64) -> Option<Known> {
        self.manifest().and_then(|it| Known::whole(it, disk_len))
    }

    fn confirm(&self, claims: &Claims, work: &Work) -> Result<Vec<bool>> {
        let image = self.padded(claims.disk_len)?;
        let is_true = |(ranges, digest): &(Vec<Range<u64>>, [u8; 32])| {
            let mut claims = Vec::with_capacity(ranges.len());
            for range in ranges {
                if range.end > image.disk_len() {
                    return Ok(false);
                }
                work.cancel().check()?;
                let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
                let mut bytes = vec![0; len];
                match image.read_exact_at(&mut bytes, range.start) {
                    // The comparison says where, or passes over it.
                    Err(error) if error.kind() == ErrorKind::Io => return Ok(false),
                    read => read?,
                }
                claims.push(Claim {
                    range: range.clone(),
                    hash: Hash::of(&bytes),
                });
            }
            Ok(Claims::digest(&claims) == *digest)
        };
        work.pool()
            .install(|| claims.groups.par_iter().map(is_true).collect())
    }

    /// The image as long as the other end wants to see it.
    fn padded(&self, disk_len: u64) -> Result<Arc<dyn Image>> {
        let own = self.image.disk_len();
        match disk_len.checked_sub(own) {
            Some(0) => Ok(self.image.clone()),
            Some(more) if more <= PADDING_MOST => {
                Ok(Arc::new(Resized::new(self.image.clone(), disk_len)))
            }
            _ => Err(wrong("a length that the source does not have")),
        }
    }

    /// The source's change, where that is what lies behind a failed read.
    fn or_change(&self, error: crate::Error) -> crate::Error {
        match error.kind() {
            ErrorKind::Unreadable => (self.check)()
                .err()
                .unwrap_or_else(|| error.advise(Advice::SkipUnreadable)),
            _ => error,
        }
    }
}

/// Alignments of targets are not larger.
const PADDING_MOST: u64 = 1 << 30;

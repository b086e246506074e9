//! What a sync asks of a source at the other end.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::remote_source::RemoteSource;
use super::search::{Descent, everything, find};
use crate::diff::{CompareOptions, CompareReport};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{Image, ImageInfo};
use crate::progress::{CancelToken, Phase, Work};
use crate::remote::compare::driver::drive;
use crate::remote::compare::root::{NoWorker, RootPeer};
use crate::remote::compare::target_worker::Visit;
use crate::remote::wire::codec::wrong;
use crate::remote::wire::format::{CLAIMED_MOST, LIST_MOST, LONG_HASH_LEN, SHORT_HASH_LEAST};
use crate::remote::wire::message::{Claims, Compare, Message};
use crate::remote::wire::outcome::Fault;
use crate::sync::{Claim, REMOTE_BLOCK_BYTES, Search, SourceBackend, Traffic};
use crate::units::BlockSize;

impl SourceBackend for RemoteSource {
    fn info(&self) -> ImageInfo {
        self.opened().info()
    }

    fn compare(
        &self,
        target: &dyn Image,
        disk_len: u64,
        options: &CompareOptions,
        work: &Work,
        visit: &Visit<'_>,
    ) -> Result<CompareReport> {
        options.check(disk_len)?;
        let map = options.change_map.as_ref();
        let windows = map.map(|_| options.windows(disk_len));
        let descent = Descent::read(target, disk_len, windows);
        let descent = descent.with_skips(options.skip_unreadable);
        descent.run(self, &*self.ask()?, work, visit)
    }

    fn find(
        &self,
        search: Search<'_>,
        work: &Work,
        visit: &Visit<'_>,
    ) -> Result<(CompareReport, Option<Hash>)> {
        find(self, search, work, visit)
    }

    fn everything(
        &self,
        disk_len: u64,
        _block_size: BlockSize,
        work: &Work,
        visit: &Visit<'_>,
    ) -> Result<(CompareReport, Hash)> {
        everything(self, disk_len, work, visit)
    }

    /// What comes over the line is a hundred bytes for each 64 MiB.
    fn root(&self, disk_len: u64, block_size: BlockSize, work: &Work) -> Result<Hash> {
        if Some(block_size) != self.block_size() {
            let what = "a root over other blocks does not go with a disk on another host";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        let session = self.ask()?;
        session.line().send(&Message::Compare(Compare {
            disk_len,
            hash_len: u8::try_from(SHORT_HASH_LEAST).unwrap_or(u8::MAX),
            window_count: 0,
            from_manifest: false,
            counts_only: false,
            skips: false,
        }))?;
        self.comparisons.fetch_add(1, Ordering::Relaxed);
        work.progress().begin(Phase::Hash, Some(disk_len));
        let mut end = RootPeer::new(disk_len);
        let mut told = 0;
        let mut look = |end: &RootPeer| {
            work.progress()
                .advance(end.finished_bytes().saturating_sub(told));
            told = told.max(end.finished_bytes());
        };
        let awaited = "the root of its source";
        let line = session.line();
        drive(
            &mut end,
            &NoWorker,
            line,
            SHORT_HASH_LEAST,
            awaited,
            work,
            &mut look,
        )?;
        drop(session);
        self.check()?;
        let root = end.root().ok_or_else(|| wrong("no root"))?;
        Ok(Hash::from_bytes(root))
    }

    fn confirm(&self, disk_len: u64, claims: &[Claim], work: &Work) -> Result<Vec<bool>> {
        let session = self.ask()?;
        let line = session.line();
        let groups = groups_of(claims);
        let mut messages = messages_of(&groups, disk_len).into_iter();
        let mut asked = VecDeque::new();
        let mut is_true = vec![false; claims.len()];
        let mut groups = groups.into_iter();
        loop {
            // The other end answers in order; few answers are ever under way.
            while asked.len() < CLAIMS_AHEAD
                && let Some(message) = messages.next()
            {
                asked.push_back(message.groups.len());
                line.send(&Message::Claims(message))?;
            }
            let Some(count) = asked.pop_front() else {
                break;
            };
            let answers = match line.receive("its answer to claims", work.cancel())? {
                Message::Answers(answers) if answers.len() == count => answers,
                _ => return Err(wrong("something other than answers to all claims")),
            };
            for (answer, group) in answers.into_iter().zip(groups.by_ref().take(count)) {
                for index in group.indices {
                    if let Some(slot) = is_true.get_mut(index) {
                        *slot = answer;
                    }
                }
            }
        }
        Ok(is_true)
    }

    fn check(&self) -> Result<()> {
        let session = self.ask()?;
        session.line().send(&Message::Check)?;
        match session
            .line()
            .receive("its check of the source", &CancelToken::new())?
        {
            Message::Checked => Ok(()),
            _ => Err(wrong("something other than the answer to a check")),
        }
    }

    fn block_size(&self) -> Option<BlockSize> {
        BlockSize::new(REMOTE_BLOCK_BYTES).ok()
    }

    fn trusts_manifests(&self) -> bool {
        self.trusts.load(Ordering::Relaxed)
    }

    /// Where a short hash has hidden a difference, long ones will not.
    fn compares_with_more_care(&self, work: &Work) -> bool {
        if !self.has_missed.swap(false, Ordering::Relaxed) {
            return false;
        }
        work.progress()
            .note("the roots differ; comparing again, with longer hashes and no manifests");
        self.hash_len.store(LONG_HASH_LEN, Ordering::Relaxed);
        self.trusts.store(false, Ordering::Relaxed);
        self.is_wary.store(true, Ordering::Relaxed);
        true
    }

    fn finish(&self) -> Result<Option<Traffic>> {
        match self.is_client {
            true => self
                .finish_with(&Message::Complete(None))
                .map_err(|error| self.explain(error)),
            false => Ok(None),
        }
    }

    fn fail(&self, error: Error) -> Error {
        if self.is_client {
            // If the line is down, the other end cannot be notified.
            let _ = self.finish_with(&Message::Fail(Box::new(Fault::of(&error, false))));
        }
        self.explain(error)
    }
}

/// Claims that are answered as one.
#[derive(Default)]
struct Group {
    indices: Vec<usize>,
    claims: Vec<Claim>,
    bytes: u64,
}

/// Puts ascending claims into groups; one that overlaps others, or is very long, is in none.
fn groups_of(claims: &[Claim]) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut group = Group::default();
    let mut at = 0;
    for (index, claim) in claims.iter().enumerate() {
        let bytes = claim.range.end.saturating_sub(claim.range.start);
        if claim.range.start < at || bytes == 0 || bytes > GROUP_BYTES {
            continue;
        }
        at = claim.range.end;
        if group.bytes + bytes > GROUP_BYTES || group.claims.len() >= GROUP_CLAIMS {
            groups.push(std::mem::take(&mut group));
        }
        group.indices.push(index);
        group.claims.push(claim.clone());
        group.bytes += bytes;
    }
    if !group.claims.is_empty() {
        groups.push(group);
    }
    groups
}

fn messages_of(groups: &[Group], disk_len: u64) -> Vec<Claims> {
    let mut messages = Vec::new();
    for some in groups.chunks(GROUPS_TOGETHER) {
        let encode = |group: &Group| {
            let ranges: Vec<Range<u64>> = group.claims.iter().map(|it| it.range.clone()).collect();
            (ranges, Claims::digest(&group.claims))
        };
        messages.push(Claims {
            disk_len,
            groups: some.iter().map(encode).collect(),
        });
    }
    messages
}

const GROUP_CLAIMS: usize = 64;
const GROUP_BYTES: u64 = 1 << 20;
const GROUPS_TOGETHER: usize = 16;
/// Messages that are sent before the first of them is answered.
const CLAIMS_AHEAD: usize = 16;
const _: () = assert!(GROUP_BYTES * GROUPS_TOGETHER as u64 <= CLAIMED_MOST);
const _: () = assert!(GROUP_CLAIMS * GROUPS_TOGETHER <= LIST_MOST);

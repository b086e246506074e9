//! One comparison, seen from the end with the target: what is read, and what a manifest tells.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::remote_source::RemoteSource;
use super::run::Session;
use crate::advice::Advice;
use crate::diff::{CompareReport, Difference};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::Image;
use crate::manifest::{ManifestUpdater, RangeSet, Sink};
use crate::progress::{Phase, Work};
use crate::remote::compare::driver::drive;
use crate::remote::compare::full::{Blank, Zeros};
use crate::remote::compare::known::{Known, OntoDisk};
use crate::remote::compare::target::TargetPeer;
use crate::remote::compare::target_worker::{TargetWorker, Visit};
use crate::remote::compare::tree::TreePeer;
use crate::remote::compare::view::View;
use crate::remote::compare::windows::Windows;
use crate::remote::wire::codec::wrong;
use crate::remote::wire::format::{LIST_MOST, LONG_HASH_LEN, WINDOWS_MOST};
use crate::remote::wire::message::{Compare, Message};
use crate::remote::wire::nodes::Tree;
use crate::sync::{Search, TargetCheck};

/// Finds what moves; manifests stand for reading wherever they may.
///
/// # Errors
/// Those of [`SourceBackend::find`](crate::sync::SourceBackend::find).
pub(in crate::remote) fn find(
    remote: &RemoteSource,
    search: Search<'_>,
    work: &Work,
    visit: &Visit<'_>,
) -> Result<(CompareReport, Option<Hash>)> {
    let disk_len = search.disk_len;
    search.options.check(disk_len)?;
    let session = remote.ask()?;
    let is_wary = remote.is_wary.load(Ordering::Relaxed) || search.reads_all;
    let theirs = remote.opened().has_manifest
        && remote.opened().disk_len == disk_len
        && session.takes_manifests()
        && !is_wary
        && !search.options.skip_unreadable;
    let kept = search.kept.filter(|_| !is_wary);
    let known = kept.and_then(|kept| Known::of_target(kept, disk_len));
    let mut descent = Descent {
        target: search.target,
        disk_len,
        windows: search
            .options
            .change_map
            .as_ref()
            .map(|_| search.options.windows(disk_len)),
        from_manifest: theirs,
        counts_only: search.counts_only && session.counts(),
        skips: search.options.skip_unreadable,
        known: known.clone(),
        sink: None,
        everything: false,
    };
    remote.trusts.fetch_or(theirs, Ordering::Relaxed);
    // In place, what was written hides what the manifest was wrong about.
    let check = search
        .kept
        .filter(|_| search.reads_all && search.is_logged)
        .map(|kept| TargetCheck::new(search.target, kept));
    let visit = &|difference: Difference<'_>| {
        if let Some(check) = &check {
            check.check(&difference.range())?;
        }
        visit(difference)
    };
    let mut their_root = None;
    if let Some(known) = known
        .as_ref()
        .filter(|_| theirs && descent.windows.is_none())
        && let Some((root, windows)) = compare_trees(remote, &session, known, disk_len, work)?
    {
        descent.windows = Some(windows);
        their_root = Some(root);
    }
    let Some(writer) = search.next else {
        return Ok((descent.run(remote, &session, work, visit)?, None));
    };
    let is_narrow = descent.windows.is_some();
    let (report, root) = match known.as_ref().filter(|_| is_narrow) {
        Some(known) => {
            let mut sink = ManifestUpdater::new(known.manifest(), writer)?;
            descent.sink = Some(&mut sink);
            let report = descent.run(remote, &session, work, visit)?;
            (report, sink.into_writer()?.finish()?)
        }
        None => {
            let mut sink = writer;
            descent.sink = Some(&mut sink);
            let report = descent.run(remote, &session, work, visit)?;
            (report, sink.finish()?)
        }
    };
    if their_root.is_some_and(|theirs| theirs != *root.as_bytes()) {
        remote.has_missed.store(true, Ordering::Relaxed);
        let what = "what the manifests say does not make up the source";
        return Err(Error::new(ErrorKind::VerifyFailed, what)
            .advise("run it again; where that does not help:")
            .or_advise(Advice::VerifyAll));
    }
    Ok((report, Some(root)))
}

/// Emits all that the source holds; also returns the root of its blocks.
///
/// # Errors
/// Those of [`SourceBackend::everything`](crate::sync::SourceBackend::everything).
pub(in crate::remote) fn everything(
    remote: &RemoteSource,
    disk_len: u64,
    work: &Work,
    visit: &Visit<'_>,
) -> Result<(CompareReport, Hash)> {
    let blank = Blank(disk_len);
    let mut zeros = Zeros::new(disk_len, visit)?;
    let mut descent = Descent::read(&blank, disk_len, None);
    descent.everything = true;
    descent.sink = Some(&mut zeros);
    let mut report = descent.run(remote, &*remote.ask()?, work, visit)?;
    let (emitted, root) = zeros.finish()?;
    report.changed_bytes += emitted.changed_bytes;
    report.zeroed_bytes += emitted.zeroed_bytes;
    Ok((report, root))
}

/// The source's root, and where the two disks may differ.
type Trees = ([u8; 32], Vec<Range<u64>>);

/// The source's root, and where it and what is known of the target may differ; `None` where the
/// source has no manifest after all.
fn compare_trees(
    remote: &RemoteSource,
    session: &Session,
    known: &Known,
    disk_len: u64,
    work: &Work,
) -> Result<Option<Trees>> {
    let line = session.line();
    let root = *known.manifest().root().as_bytes();
    line.send(&Message::Tree(Tree { disk_len, root }))?;
    let theirs = match line.receive("the source's root", work.cancel())? {
        Message::TreeIs(Some(theirs)) => theirs,
        Message::TreeIs(None) => return Ok(None),
        _ => return Err(wrong("something other than its root")),
    };
    let mut differing: Vec<Range<u64>> = known.unsure().collect();
    if theirs != root {
        let number = remote.comparisons.load(Ordering::Relaxed);
        let keys = session.keys(number, LONG_HASH_LEN);
        let mut end = TreePeer::new(known.manifest(), keys);
        while !end.is_finished() {
            while end.has_room()
                && let Some(message) = end.next_output()
            {
                line.send(&message)?;
            }
            end.receive(line.receive("nodes of a manifest", work.cancel())?)?;
        }
        differing.extend(end.into_differing());
    }
    let differing = RangeSet::of(differing).coarsened_to(WINDOWS_MOST);
    // Rounding out knows nothing of the end.
    let inside = differing.inside(0..disk_len).collect();
    Ok(Some((theirs, inside)))
}

/// One comparison.
pub(in crate::remote) struct Descent<'a> {
    target: &'a dyn Image,
    disk_len: u64,
    /// `None` for all of the disk.
    windows: Option<Vec<Range<u64>>>,
    from_manifest: bool,
    counts_only: bool,
    skips: bool,
    known: Option<Known>,
    sink: Option<&'a mut dyn Sink>,
    /// Whether all of what comes is emitted, and not only what differs.
    everything: bool,
}

impl<'a> Descent<'a> {
    /// One for which both disks are read.
    pub(crate) fn read(
        target: &'a dyn Image,
        disk_len: u64,
        windows: Option<Vec<Range<u64>>>,
    ) -> Self {
        Descent {
            target,
            disk_len,
            windows,
            from_manifest: false,
            counts_only: false,
            skips: false,
            known: None,
            sink: None,
            everything: false,
        }
    }

    /// Passes over what the source cannot read, if it `skips` that.
    #[must_use]
    pub(crate) fn with_skips(mut self, skips: bool) -> Self {
        self.skips = skips;
        self
    }

    /// Asks for it, and goes on until it is done.
    ///
    /// # Errors
    /// Those of [`SourceBackend::compare`](crate::sync::SourceBackend::compare).
    pub(crate) fn run(
        self,
        remote: &RemoteSource,
        session: &Session,
        work: &Work,
        visit: &Visit<'_>,
    ) -> Result<CompareReport> {
        let disk_len = self.disk_len;
        if self.skips && !session.takes_gaps() {
            let what = "the other end cannot pass over what it cannot read";
            return Err(Error::new(ErrorKind::Unsupported, what).advise(Advice::SameVersion));
        }
        // Looking at more than was asked for does no harm.
        let windows = self
            .windows
            .map(|windows| match windows.len() > WINDOWS_MOST {
                // Rounding out knows nothing of the end.
                true => RangeSet::of(windows)
                    .coarsened_to(WINDOWS_MOST)
                    .inside(0..disk_len)
                    .collect(),
                false => windows,
            });
        let seen = match &windows {
            Some(windows) => Windows::of(windows, disk_len)?,
            None => Windows::whole(disk_len),
        };
        let phase = match self.everything {
            true => Phase::Copy,
            false => Phase::Diff,
        };
        work.progress().begin(phase, Some(seen.len()));
        if seen.is_empty() {
            return Ok(CompareReport::default());
        }
        let windows = windows.unwrap_or_default();
        for some in windows.chunks(LIST_MOST) {
            session.line().send(&Message::Windows(some.to_vec()))?;
        }
        let hash_len = remote.hash_len.load(Ordering::Relaxed);
        session.line().send(&Message::Compare(Compare {
            disk_len,
            hash_len: u8::try_from(hash_len).unwrap_or(u8::MAX),
            window_count: windows.len() as u64,
            from_manifest: self.from_manifest,
            counts_only: self.counts_only,
            skips: self.skips,
        }))?;
        drop(windows);
        let view = View::new(self.target, seen).with_known(self.known);
        let number = remote.comparisons.fetch_add(1, Ordering::Relaxed);
        let keys = session.keys(number, hash_len);
        let worker = TargetWorker::new(&view, keys.clone(), visit)
            .with_counts_only(self.counts_only)
            .with_everything(self.everything);
        let mut onto = OntoDisk::new(view.windows());
        let mut sink = self.sink;
        let mut end = TargetPeer::new(&view, keys)?
            .with_counts_only(self.counts_only)
            .with_skips(self.skips);
        if let Some(sink) = &mut sink {
            let onto = &mut onto;
            end = end.with_blocks(Box::new(move |first, blocks| {
                onto.data(&mut **sink, first, blocks)
            }));
        }
        let mut told = 0;
        let mut look = |end: &TargetPeer<'_>| {
            work.progress()
                .advance(end.finished_bytes().saturating_sub(told));
            told = told.max(end.finished_bytes());
        };
        let awaited = "its next message of hashes or data";
        let line = session.line();
        drive(&mut end, &worker, line, hash_len, awaited, work, &mut look)?;
        let report = end.report();
        let missed = report
            .as_ref()
            .is_err_and(|it| it.kind() == ErrorKind::VerifyFailed);
        remote.has_missed.fetch_or(missed, Ordering::Relaxed);
        if let (Ok(_), Some(sink)) = (&report, sink) {
            onto.finish(sink)?;
        }
        report
    }
}

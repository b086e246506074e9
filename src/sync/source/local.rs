//! A source that is read here.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::backend::{Claim, Search, SourceBackend, Visit};
use super::checked::CheckedPass;
use super::pass::Pass;
use crate::diff::{
    CompareOptions, CompareReport, Content, ManifestDifference, against_manifest, against_within,
    compare, manifests, target_manifest,
};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{Image, ImageInfo, Resized};
use crate::manifest::{HashPass, Manifest, ManifestUpdater, ManifestWriter, build_to, root_of};
use crate::progress::{Phase, Work};
use crate::storage::scratch;
use crate::units::BlockSize;

/// An image that can be read directly.
pub(in crate::sync) struct LocalSource(pub Arc<dyn Image>);

impl LocalSource {
    /// The image with zeros behind it, `disk_len` bytes long.
    fn padded(&self, disk_len: u64) -> Arc<dyn Image> {
        Resized::at_least(self.0.clone(), disk_len)
    }
}

impl LocalSource {
    /// Reads what differs by the published manifest; the target is hashed, unless its own manifest
    /// stands for that.
    fn find_by(
        &self,
        published: &Manifest,
        search: Search<'_>,
        work: &Work,
        visit: &Visit<'_>,
    ) -> Result<(CompareReport, Option<Hash>)> {
        let (old, disk_len, size) = (search.target, search.disk_len, published.block_size());
        let other_size = search
            .next
            .as_ref()
            .is_some_and(|it| it.block_size() != size);
        if published.disk_len() != disk_len || other_size {
            let what = "the published manifest has another length, or other blocks than the target \
                        manifest";
            return Err(Error::new(ErrorKind::Unsupported, what).at_path(published.path()));
        }
        let source = &*self.padded(disk_len);
        let pass = Pass::new(disk_len, size, Some(old), visit);
        match search.kept.filter(|_| !search.reads_all) {
            Some(kept) => {
                pass.between(source, target_manifest(kept, published)?, published, work)?
            }
            None => {
                let now = build_to(old, size, work, scratch(Path::new(""))?)?;
                pass.between(source, manifests(&now, published)?, published, work)?;
            }
        }
        let finish = |next| {
            ManifestUpdater::new(published, next)?
                .into_writer()?
                .finish()
        };
        let root = search.next.map(finish).transpose()?;
        Ok((pass.report(), root))
    }
}

impl SourceBackend for LocalSource {
    fn info(&self) -> ImageInfo {
        self.0.info()
    }

    fn compare(
        &self,
        target: &dyn Image,
        disk_len: u64,
        options: &CompareOptions,
        work: &Work,
        visit: &Visit<'_>,
    ) -> Result<CompareReport> {
        compare(&*self.padded(disk_len), target, options, work, visit)
    }

    /// Reads the source once, unless manifests stand for both disks: then only where they differ;
    /// or a change map and what is kept of the target: then only what the map names.
    fn find(
        &self,
        search: Search<'_>,
        work: &Work,
        visit: &Visit<'_>,
    ) -> Result<(CompareReport, Option<Hash>)> {
        if let Some(published) = search.published {
            return self.find_by(published, search, work, visit);
        }
        let (old, disk_len) = (search.target, search.disk_len);
        let Some(mut sink) = search.next else {
            let report = self.compare(old, disk_len, search.options, work, visit)?;
            return Ok((report, None));
        };
        let source = &*self.padded(disk_len);
        let block_size = sink.block_size();
        let pass = Pass::new(disk_len, block_size, Some(old), visit);
        work.progress().begin(Phase::Hash, Some(disk_len));
        let theirs = search
            .manifest
            .filter(|it| it.disk_len() == disk_len && it.block_size() == block_size);
        match (search.kept, theirs) {
            (Some(kept), _) if search.reads_all => {
                let checked = CheckedPass::new(&pass, kept, theirs);
                HashPass::new(source, block_size, work).run(&checked, &mut sink)?;
            }
            (Some(kept), Some(theirs)) if search.options.change_map.is_none() => {
                pass.between(source, target_manifest(kept, theirs)?, theirs, work)?;
                sink = ManifestUpdater::new(theirs, sink)?.into_writer()?;
            }
            (Some(kept), _) => {
                let on_block = |it: ManifestDifference<'_>| match it.new {
                    Content::Bytes(_) => pass.refine(old, it.offset, it.new),
                    Content::Zeros(len) => pass.clear(old, it.offset..it.offset + len),
                };
                let read = match &search.options.change_map {
                    None => against_manifest(source, kept, work, &mut sink, &on_block)?,
                    Some(map) => {
                        let mut updater = ManifestUpdater::new(kept.manifest(), sink)?;
                        let within = map.iter().chain(kept.intents()).cloned();
                        let within = within.chain(updater.unshared()).collect();
                        let read =
                            against_within(source, kept, within, work, &mut updater, &on_block)?;
                        sink = updater.into_writer()?;
                        read
                    }
                };
                pass.compared_bytes.fetch_add(read, Ordering::Relaxed);
            }
            (None, _) => HashPass::new(source, block_size, work).run(&pass, &mut sink)?,
        }
        Ok((pass.report(), Some(sink.finish()?)))
    }

    fn everything(
        &self,
        disk_len: u64,
        block_size: BlockSize,
        work: &Work,
        visit: &Visit<'_>,
    ) -> Result<(CompareReport, Hash)> {
        let source = &*self.padded(disk_len);
        let pass = Pass::new(disk_len, block_size, None, visit);
        work.progress().begin(Phase::Copy, Some(disk_len));
        let mut sink = ManifestWriter::root_only(disk_len, block_size);
        HashPass::new(source, block_size, work).run(&pass, &mut sink)?;
        Ok((pass.report(), sink.finish()?))
    }

    fn root(&self, disk_len: u64, block_size: BlockSize, work: &Work) -> Result<Hash> {
        root_of(&*self.padded(disk_len), block_size, work)
    }

    fn confirm(&self, disk_len: u64, claims: &[Claim], work: &Work) -> Result<Vec<bool>> {
        let source = &*self.padded(disk_len);
        let is_true = |claim: &Claim| {
            work.cancel().check()?;
            let len = claim.range.end - claim.range.start;
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            match source.read_exact_at(&mut bytes, claim.range.start) {
                // The comparison tells where, or passes over it.
                Err(error) if error.kind() == ErrorKind::Io => return Ok(false),
                read => read?,
            }
            Ok(Hash::of(&bytes) == claim.hash)
        };
        work.pool()
            .install(|| claims.par_iter().map(is_true).collect())
    }

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn image(&self) -> Option<&Arc<dyn Image>> {
        Some(&self.0)
    }
}

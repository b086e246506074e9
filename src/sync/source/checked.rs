//! Readings that check the manifests that would have stood for them.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::pass::{Pass, source_manifest_is_wrong};
use crate::diff::{Content, Difference, Known};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::Image;
use crate::manifest::{HashedRun, Manifest, RangeSet, TargetManifest, Visit};
use crate::target_state::TargetState;

/// One reading of source and target that trusts no manifest: blocks that manifests take for equal
/// are compared, and must be.
pub(in crate::sync) struct CheckedPass<'a> {
    /// Takes blocks that differ by the manifest.
    pass: &'a Pass<'a>,
    /// Takes the others, and fails where they differ after all.
    equal: Pass<'a>,
    kept: Known<'a>,
    /// Blocks about which the manifest is not trusted anyway.
    in_doubt: RangeSet,
    /// What would have stood for reading the source.
    theirs: Option<Known<'a>>,
}

impl<'a> CheckedPass<'a> {
    /// A reading by `pass` of a source that is compared with a disk for which `kept` would have
    /// stood, and `theirs` for the source.
    pub(crate) fn new(
        pass: &'a Pass<'a>,
        kept: &'a TargetManifest,
        theirs: Option<&'a Manifest>,
    ) -> Self {
        CheckedPass {
            pass,
            equal: Pass::new(pass.disk_len, pass.block_size, pass.old, &refuse),
            kept: Known::new(kept.manifest()),
            in_doubt: kept.intent_blocks(pass.disk_len),
            theirs: theirs.map(Known::new),
        }
    }

    fn is_sure(&self, block: u64, hash: Option<crate::hash::Hash>) -> Result<bool> {
        Ok(self.kept.hash(block)? == hash && !self.in_doubt.touches(block..block + 1))
    }

    fn clear(&self, pass: &Pass<'_>, blocks: Range<u64>) -> Result<()> {
        match blocks.is_empty() {
            true => Ok(()),
            false => pass.zeros(blocks),
        }
    }

    /// Clears blocks that are zeros by the manifest, but for those in doubt.
    fn clear_sure(&self, blocks: Range<u64>) -> Result<()> {
        let mut at = blocks.start;
        for in_doubt in self.in_doubt.inside(blocks.clone()) {
            self.clear(&self.equal, at..in_doubt.start)?;
            at = in_doubt.end;
            self.clear(self.pass, in_doubt)?;
        }
        self.clear(&self.equal, at..blocks.end)
    }
}

impl Visit for CheckedPass<'_> {
    fn data(&self, context: &HashedRun<'_>) -> Result<()> {
        let size = context.block_size.bytes();
        let Some(old) = self.pass.old else {
            return Ok(());
        };
        self.pass
            .compared_bytes
            .fetch_add(context.bytes.len() as u64, Ordering::Relaxed);
        for (block, bytes, hash) in context.blocks() {
            let offset = block * size;
            if let Some(theirs) = &self.theirs
                && theirs.hash(block)? != hash
            {
                return Err(source_manifest_is_wrong(offset));
            }
            let pass = match self.is_sure(block, hash)? {
                true => &self.equal,
                false => self.pass,
            };
            pass.refine(old, offset, Content::Bytes(bytes))?;
        }
        Ok(())
    }

    fn zeros(&self, blocks: Range<u64>) -> Result<()> {
        let theirs = self.theirs.iter();
        for group in theirs.flat_map(|it| it.manifest().groups(blocks.clone())) {
            if let Some((block, _)) = group?.entries().find(|(block, _)| blocks.contains(block)) {
                return Err(source_manifest_is_wrong(
                    block * self.pass.block_size.bytes(),
                ));
            }
        }
        let mut at = blocks.start;
        for group in self.kept.manifest().groups(blocks.clone()) {
            for (block, _) in group?.entries().filter(|(block, _)| blocks.contains(block)) {
                self.clear_sure(at..block)?;
                self.clear(self.pass, block..block + 1)?;
                at = block + 1;
            }
        }
        self.clear_sure(at..blocks.end)
    }
}

/// What checks a target against its target manifest where a comparison finds that it differs.
pub(crate) struct TargetCheck<'a> {
    target: &'a dyn Image,
    kept: Known<'a>,
    /// Blocks about which the manifest is not trusted anyway.
    in_doubt: RangeSet,
}

impl<'a> TargetCheck<'a> {
    /// For `target`, for which `kept` would have stood.
    pub(crate) fn new(target: &'a dyn Image, kept: &'a TargetManifest) -> Self {
        TargetCheck {
            kept: Known::new(kept.manifest()),
            in_doubt: kept.intent_blocks(target.disk_len()),
            target,
        }
    }

    /// Compares the blocks of the target that `range` touches with its manifest.
    ///
    /// # Errors
    /// `VerifyFailed` where the manifest is wrong; `Io`, `Malformed`.
    pub(crate) fn check(&self, range: &Range<u64>) -> Result<()> {
        let size = self.kept.manifest().block_size();
        let disk_len = self.target.disk_len();
        for block in range.start / size.bytes()..range.end.div_ceil(size.bytes()) {
            let inside = size.range(block, disk_len);
            if inside.is_empty() || self.in_doubt.touches(block..block + 1) {
                continue;
            }
            let len = usize::try_from(inside.end - inside.start).unwrap_or(usize::MAX);
            let mut bytes = vec![0; len];
            self.target.read_exact_at(&mut bytes, inside.start)?;
            let hash = (!crate::units::is_zero(&bytes)).then(|| Hash::of(&bytes));
            if self.kept.hash(block)? != hash {
                return Err(manifest_is_wrong(inside.start));
            }
        }
        Ok(())
    }
}

fn refuse(difference: Difference<'_>) -> Result<()> {
    Err(manifest_is_wrong(difference.offset))
}

fn manifest_is_wrong(offset: u64) -> Error {
    let what = "the target does not hold what its target manifest says";
    Error::new(ErrorKind::VerifyFailed, what)
        .at_offset(offset)
        .leaving(TargetState::Untouched)
        .advise("the target is untouched; sync again without that manifest, which makes it anew")
}

//! A source that is not read here.

use std::sync::Arc;

use diskdelta::Hash;
use diskdelta::diff::{CompareOptions, CompareReport, Difference, compare};
use diskdelta::image::{Image, ImageInfo, Raw};
use diskdelta::manifest::root_of;
use diskdelta::storage::MemoryStorage;
use diskdelta::sync::{
    Claim, Mode, Outcome, REMOTE_BLOCK_BYTES, Safety, Search, Source, SourceBackend, Verified,
    Verify, sync,
};
use diskdelta::{BlockSize, Work};

use crate::case::{TARGET, work};
use crate::cases;
use crate::medium::REDO_LOG;

/// A source that is asked as if it lay on another host.
pub struct FakeRemote {
    image: Raw,
    trusts: bool,
}

impl FakeRemote {
    pub fn source(bytes: &[u8], trusts: bool) -> Source {
        let storage = Arc::new(MemoryStorage::new("remote", bytes.to_vec()));
        let image = Raw::open(storage).unwrap();
        Source::from_backend(Arc::new(FakeRemote { image, trusts }))
    }
}

impl SourceBackend for FakeRemote {
    fn info(&self) -> ImageInfo {
        self.image.info()
    }

    fn compare(
        &self,
        target: &dyn Image,
        disk_len: u64,
        options: &CompareOptions,
        work: &Work,
        visit: &(dyn Fn(Difference<'_>) -> diskdelta::Result<()> + Sync),
    ) -> diskdelta::Result<CompareReport> {
        assert_eq!(disk_len, self.image.disk_len());
        compare(&self.image, target, options, work, visit)
    }

    fn find(
        &self,
        search: Search<'_>,
        work: &Work,
        visit: &(dyn Fn(Difference<'_>) -> diskdelta::Result<()> + Sync),
    ) -> diskdelta::Result<(CompareReport, Option<Hash>)> {
        let (len, options) = (search.disk_len, search.options);
        Ok((
            self.compare(search.target, len, options, work, visit)?,
            None,
        ))
    }

    fn everything(
        &self,
        disk_len: u64,
        _block_size: BlockSize,
        work: &Work,
        visit: &(dyn Fn(Difference<'_>) -> diskdelta::Result<()> + Sync),
    ) -> diskdelta::Result<(CompareReport, Hash)> {
        // All of it differs from its opposite.
        let mut bytes = vec![0; disk_len as usize];
        self.image.read_exact_at(&mut bytes, 0)?;
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
        let opposite = Raw::open(Arc::new(MemoryStorage::new("opposite", bytes)))?;
        let options = CompareOptions::default();
        let report = self.compare(&opposite, disk_len, &options, work, visit)?;
        let block = BlockSize::new(REMOTE_BLOCK_BYTES)?;
        Ok((report, root_of(&self.image, block, work)?))
    }

    fn root(&self, _: u64, block_size: BlockSize, work: &Work) -> diskdelta::Result<Hash> {
        root_of(&self.image, block_size, work)
    }

    fn trusts_manifests(&self) -> bool {
        self.trusts
    }

    fn block_size(&self) -> Option<BlockSize> {
        BlockSize::new(REMOTE_BLOCK_BYTES).ok()
    }

    fn confirm(
        &self,
        _disk_len: u64,
        claims: &[Claim],
        _work: &Work,
    ) -> diskdelta::Result<Vec<bool>> {
        let is_true = |claim: &Claim| {
            let mut bytes = vec![0; (claim.range.end - claim.range.start) as usize];
            self.image.read_exact_at(&mut bytes, claim.range.start)?;
            Ok(claim.hash == Hash::from_bytes(blake3::hash(&bytes).into()))
        };
        claims.iter().map(is_true).collect()
    }

    fn check(&self) -> diskdelta::Result<()> {
        Ok(())
    }
}

#[test]
fn a_remote_manifest_that_stood_for_reading_is_named_as_the_evidence() {
    let case = cases::atomic_under_the_marker_only();
    for (trusts, verify, verified) in [
        (false, Verify::Written, Verified::Written),
        (true, Verify::Written, Verified::Cached),
        (true, Verify::None, Verified::No),
        (true, Verify::All, Verified::All),
    ] {
        let disk = case.disk();
        let options = case.options.clone().with_verify(verify);
        let remote = FakeRemote::source(&case.new, trusts);
        let report = sync(&remote, &case.target(&disk), &options, &work()).unwrap();
        assert_eq!(report.verified, verified, "{trusts} {verify:?}");
    }
}

#[test]
fn the_root_of_a_full_copy_from_elsewhere_is_told_in_the_blocks_that_were_asked_for_only() {
    let case = cases::held_after_a_full_sync_of_a_device();
    for (block_size, is_told) in [
        (BlockSize::new(REMOTE_BLOCK_BYTES), true),
        (Ok(BlockSize::MIN), false),
    ] {
        let disk = case.disk();
        let block_size = block_size.unwrap();
        let options = case.options.clone().with_block_size(block_size);
        let remote = FakeRemote::source(&case.new, false);
        let report = sync(&remote, &case.target(&disk), &options, &work()).unwrap();
        let image = Raw::open(Arc::new(MemoryStorage::new("new", case.new.clone()))).unwrap();
        let root = root_of(&image, block_size, &work()).unwrap();
        assert_eq!(report.root, is_told.then_some(root));
    }
}

#[test]
fn a_damaged_redo_log_is_no_cache_of_a_remote_source_and_no_error() {
    let case = cases::atomic_under_the_marker_only();
    let disk = case.disk();
    disk.put(REDO_LOG, vec![0x5a; 8192]);
    disk.make_durable();
    let remote = FakeRemote::source(&case.new, false);
    let report = sync(&remote, &case.target(&disk), &case.options, &work()).unwrap();
    assert_eq!((report.outcome, report.resumed_bytes), (Outcome::Synced, 0));
    assert!(disk.contents(TARGET).unwrap().to_vec() == case.new);
    assert_eq!(disk.names("/img"), ["t"]);
}

#[test]
fn whatever_is_asked_of_a_remote_source_the_target_becomes_equal() {
    let file = cases::atomic_under_the_marker_only();
    let device = file.clone().on_device();
    for case in [&file, &device, &cases::creating()] {
        for mode in [Mode::Auto, Mode::Delta, Mode::Full] {
            for safety in [Safety::Atomic, Safety::InPlace] {
                let disk = case.disk();
                let options = case.options.clone().with_mode(mode).with_safety(safety);
                let remote = FakeRemote::source(&case.new, false);
                let report = sync(&remote, &case.target(&disk), &options, &work()).unwrap();
                let what = format!("{} {mode:?} {safety:?}", case.name);
                assert_eq!(report.outcome, Outcome::Synced, "{what}");
                assert!(
                    disk.contents(TARGET).unwrap().to_vec() == case.new,
                    "{what}"
                );
            }
        }
    }
}

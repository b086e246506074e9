//! Manifest files.

use std::path::Path;
use std::sync::Arc;

use diskdelta::Hash;
use diskdelta::manifest::{Manifest, ManifestWriter, Sink, TargetManifest};
use diskdelta::storage::{MemoryStorage, Storage};
use diskdelta::{BlockSize, Result};

use super::super::input::Input;
use super::super::meter::{bound, limits, within};
use super::super::{Depth, oracle};

/// The first byte says whether the rest is the file, or a program: a valid file, what is changed
/// in it, whether its checksums are mended then.
pub fn manifest(data: &[u8]) -> Depth {
    let mut input = Input(data);
    let (file, is_valid) = match input.u8() % 4 {
        0 => (input.0.to_vec(), false),
        _ => structured(&mut input),
    };
    let depth = within(bound(file.len() as u64), || check(&file));
    assert!(
        !is_valid || depth == Depth::Taken,
        "a valid file was refused"
    );
    depth
}

fn check(file: &[u8]) -> Depth {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new("manifest", file.to_vec()));
    let mapped: Arc<dyn Storage> = Arc::new(Mapped(
        MemoryStorage::new("map", file.to_vec()),
        file.to_vec(),
    ));
    let manifest = match (
        Manifest::from_storage(store.clone(), &limits()),
        Manifest::from_storage(mapped, &limits()),
    ) {
        (Ok(manifest), Ok(mapped)) => {
            agree(&manifest, &mapped);
            manifest
        }
        (Err(error), Err(other)) => {
            oracle::refusal(&error);
            assert_eq!(error.kind(), other.kind());
            return Depth::Refused;
        }
        (read, mapped) => panic!("{:?} but {:?}", read.err(), mapped.err()),
    };
    kept(&manifest, store);
    let entries = entries(&manifest);
    match (manifest.verify(), entries) {
        (Ok(()), Ok(entries)) => {
            assert_eq!(entries.len() as u64, manifest.data_blocks());
            again(&manifest, &entries);
            Depth::Taken
        }
        (Err(error), entries) => {
            oracle::refusal(&error);
            // Only the count may be wrong where all rows are right.
            assert!(entries.is_err() || error.field() == Some("data_blocks"));
            Depth::Refused
        }
        (Ok(()), Err(error)) => panic!("verified, but {error}"),
    }
}

/// All blocks that are not zero, each asked for in two ways.
fn entries(manifest: &Manifest) -> Result<Vec<(u64, Hash)>> {
    let mut all: Vec<(u64, Hash)> = Vec::new();
    for group in manifest.groups(0..u64::MAX) {
        let group = group?;
        for (block, hash) in group.entries() {
            assert!(all.last().is_none_or(|(last, _)| *last < block), "order");
            assert!(group.blocks().contains(&block));
            assert_eq!(group.hash(block), Some(hash));
            all.push((block, hash));
        }
    }
    for (block, hash) in all.iter().step_by(all.len() / 16 + 1) {
        assert_eq!(manifest.hash(*block)?, Some(*hash));
        let part: Result<Vec<_>> = manifest.groups(*block..block + 1).collect();
        assert_eq!(part?.len(), 1);
    }
    Ok(all)
}

/// Writing the same hashes gives the same root, in a file that reads as this one.
fn again(manifest: &Manifest, entries: &[(u64, Hash)]) {
    let store = Arc::new(MemoryStorage::new("again", Vec::new()));
    let (len, size) = (manifest.disk_len(), manifest.block_size());
    let mut writer = ManifestWriter::create(store.clone(), len, size).unwrap();
    for (block, hash) in entries {
        writer.data(*block, &[Some(*hash)]).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), manifest.root());
    let written = Manifest::from_storage(store, &limits()).unwrap();
    assert!(self::entries(&written).unwrap() == entries);
    assert_eq!(written.data_blocks(), manifest.data_blocks());
}

fn agree(manifest: &Manifest, mapped: &Manifest) {
    assert_eq!(manifest.root(), mapped.root());
    match (entries(manifest), entries(mapped)) {
        (Ok(read), Ok(mapped)) => assert!(read == mapped),
        (Err(_), Err(_)) => {}
        (read, mapped) => panic!("{:?} but {:?}", read.err(), mapped.err()),
    }
}

/// Intents only grow, and survive opening again.
fn kept(manifest: &Manifest, store: Arc<dyn Storage>) {
    let mut kept = TargetManifest::open(store.clone(), &limits()).unwrap();
    let before = kept.intents().to_vec();
    assert!(before.windows(2).all(|pair| pair[0].end < pair[1].start));
    kept.record_intent([7..9, 4096..8192]).unwrap();
    let reopened = TargetManifest::open(store, &limits()).unwrap();
    for range in before.iter().chain(&[7..9, 4096..8192]) {
        assert!(
            range.is_empty() || reopened.has_intent(range.clone()),
            "{range:?}"
        );
    }
    assert_eq!(reopened.manifest().root(), manifest.root());
}

fn structured(input: &mut Input<'_>) -> (Vec<u8>, bool) {
    let blocks = input.pick(&[0u64, 1, 3, 256, 257, 600, 70_000]);
    let short = input.below(4096);
    let len = (blocks * 4096).saturating_sub(short);
    let store = Arc::new(MemoryStorage::new("new", Vec::new()));
    let mut writer = ManifestWriter::create(store.clone(), len, BlockSize::MIN).unwrap();
    let mut block = input.below(300);
    for _ in 0..input.below(200) {
        if block >= blocks {
            break;
        }
        let hash = blake3::hash(&block.to_le_bytes());
        writer.push(block, &Hash::from_bytes(hash.into())).unwrap();
        block += 1 + input.pick(&[0, 0, 1, 255, 256, 60_000]);
    }
    writer.finish().unwrap();
    if input.one_in(4) {
        let mut kept = TargetManifest::open(store.clone(), &limits()).unwrap();
        kept.record_intent(Some(input.below(1 << 30)..1 << 30))
            .unwrap();
    }
    let mut file = store.to_vec();
    let count = input.below(5);
    for _ in 0..count {
        let at = match input.u8() % 3 {
            0 => input.pick(&[8, 10, 12, 16, 24, 56, 64, 72, 80, 112, 144]) as usize,
            1 => input.below(file.len().max(1) as u64) as usize,
            _ => {
                let len = input.nasty(file.len() as u64, &[256]).min(1 << 17);
                file.resize(len as usize, 0);
                continue;
            }
        };
        let mut field = [0; 8];
        let at = at.min(file.len());
        let there = (file.len() - at).min(8);
        field[..there].copy_from_slice(&file[at..at + there]);
        let anchors = [256, file.len() as u64, 4096, len];
        let value = input.nasty(u64::from_le_bytes(field), &anchors);
        let width = input.pick(&[8, 4, 1]).min(there);
        file[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
    if input.u8() % 4 != 3 {
        mend(&mut file);
    }
    (file, count == 0)
}

/// Makes node hashes, root and checksum right, as far as the file leads to its nodes.
fn mend(file: &mut [u8]) {
    if file.len() < 256 {
        return;
    }
    let number = |file: &[u8], at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let block = u32::from_le_bytes(file[12..16].try_into().unwrap());
    let len = number(file, 16);
    let mut nodes = len.div_ceil(u64::from(block.max(1))).div_ceil(256);
    let mut level = 1;
    while nodes > 1 {
        nodes = nodes.div_ceil(256);
        level += 1;
    }
    let occupancy: [u8; 32] = file[80..112].try_into().unwrap();
    let mut budget = 2000;
    let top = number(file, 72);
    if let Some(hash) = mend_node(file, top, &occupancy, level, &mut budget) {
        file[112..144].copy_from_slice(&hash);
    }
    let mut root = blake3::Hasher::new_derive_key("diskdelta 2025-11-22 manifest root, version 1");
    root.update(&len.to_le_bytes());
    root.update(&u64::from(block).to_le_bytes());
    if occupancy != [0; 32] {
        root.update(&file[112..144]);
    }
    file[24..56].copy_from_slice(root.finalize().as_bytes());
    let crc = crc32fast::hash(&file[..252]);
    file[252..256].copy_from_slice(&crc.to_le_bytes());
}

fn mend_node(
    file: &mut [u8],
    at: u64,
    occupancy: &[u8; 32],
    level: u32,
    budget: &mut u32,
) -> Option<[u8; 32]> {
    *budget = budget.checked_sub(1)?;
    let count: usize = occupancy.iter().map(|it| it.count_ones() as usize).sum();
    let at = usize::try_from(at).ok()?;
    let len = count * if level == 1 { 32 } else { 72 };
    file.get(at..at.checked_add(len)?)
        .filter(|it| !it.is_empty())?;
    for child in 0..if level == 1 { 0 } else { count } {
        let own: [u8; 32] = file[at + count * 32 + child * 32..][..32].try_into().ok()?;
        let offset: [u8; 8] = file[at + count * 64 + child * 8..][..8].try_into().ok()?;
        let offset = u64::from_le_bytes(offset);
        if let Some(hash) = mend_node(file, offset, &own, level - 1, budget) {
            file[at + child * 32..][..32].copy_from_slice(&hash);
        }
    }
    let context = "diskdelta 2025-11-22 manifest tree node, version 1";
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(occupancy).update(&file[at..at + count * 32]);
    Some(*hasher.finalize().as_bytes())
}

/// Storage whose bytes can be looked at in place, as a mapped file's can.
struct Mapped(MemoryStorage, Vec<u8>);

impl Storage for Mapped {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, _buf: &[u8], _offset: u64) -> Result<()> {
        unreachable!("for reading only")
    }

    fn set_len(&self, _len: u64) -> Result<()> {
        unreachable!("for reading only")
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn punch_hole(&self, _range: std::ops::Range<u64>) -> Result<()> {
        unreachable!("for reading only")
    }

    fn next_data(&self, offset: u64) -> Result<Option<std::ops::Range<u64>>> {
        self.0.next_data(offset)
    }

    fn mapped(&self) -> Option<&[u8]> {
        Some(&self.1)
    }
}

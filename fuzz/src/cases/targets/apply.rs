//! Applying deltas, whole and damaged, to targets that are their base and to others.

use std::sync::Arc;

use diskdelta::Hash;
use diskdelta::delta::{Base, Delta, DeltaOptions, FrameKind, Old, create};
use diskdelta::image::{self, CreateFormat, CreateOptions, ImageOptions, Raw};
use diskdelta::storage::{Directory, FileRef, MemoryStorage, Storage};
use diskdelta::sync::{
    BaseCheck, Marker, Outcome, Recovered, Target, Verify, apply_delta, recover,
};
use diskdelta::{BlockSize, manifest};

use super::super::craft::delta::DeltaFile;
use super::super::input::Input;
use super::super::meter::{bound, limits, within};
use super::super::store::{Bytes, Fixture, Store};
use super::super::{Depth, work};

/// The input is a program: two disks, the target's format, what is changed in the delta between
/// them before and after it is mended, and what the target really holds.
pub fn apply(data: &[u8]) -> Depth {
    let mut input = Input(data);
    let format = some_format(&mut input);
    let (old, new) = (disk(&mut input), disk(&mut input));
    let Some((file, changes)) = some_delta(&mut input, &old, &new) else {
        return Depth::Refused;
    };
    let held = match input.u8() % 4 {
        3 => disk(&mut input),
        2 => new.clone(),
        _ => old.clone(),
    };
    let check = input.pick(&[BaseCheck::Whole, BaseCheck::Touched]);
    let fixture = Fixture::new();
    fixture.insert("t", container(format, &held));
    let before = fixture.bytes("t").unwrap();
    let target = target(&fixture, format);
    let store = Arc::new(MemoryStorage::new("delta", file.clone()));
    let most = bound(before.stored() + file.len() as u64);
    let said = within(most, || {
        let delta = Delta::from_storage(store, &limits())?;
        apply_delta(&delta, &target, check, Verify::Written, work())
    });
    let after = fixture.bytes("t").unwrap();
    let found = content(&after, format);
    let report = match said {
        Err(error) => {
            assert!(after.same_as(&before), "refused, and changed: {error}");
            let whole = changes == 0
                && held == old
                && (check == BaseCheck::Whole || knows_its_base(&file))
                && !cuts(format, &new, &old);
            assert!(!whole, "a good delta was refused: {error}");
            return Depth::Refused;
        }
        Ok(report) => report,
    };
    assert!(
        Marker::find(&Store::new("t", after.clone()))
            .unwrap()
            .is_none()
    );
    assert_eq!(recover(&target, work()).unwrap(), Recovered::Nothing);
    assert_eq!(fixture.list(), ["t"]);
    let file = DeltaFile::parse(&file).unwrap();
    if report.outcome == Outcome::Identical {
        assert!(after.same_as(&before), "identical, and changed");
    }
    // Under the root of the result nothing else is asked.
    if report.outcome != Outcome::Identical || check == BaseCheck::Touched {
        let promised = overlaid(&held, &file);
        assert!(
            found == promised,
            "{:?}: not what was promised",
            report.outcome
        );
    }
    // A root that a delta names falsely is found by whoever compares roots, not by applying.
    let is_true = |it: &Hash| held == old && *it == root_of(&overlaid(&old, &file));
    let root = file.trailer.and_then(|it| it.result_root);
    if let Some(root) = root.filter(is_true) {
        assert_eq!(
            root_of(&found),
            root,
            "the result's root is not the delta's"
        );
    }
    if changes == 0 && held == old && check == BaseCheck::Whole {
        assert!(found == new);
    }
    Depth::Taken
}

pub fn some_format(input: &mut Input<'_>) -> CreateFormat {
    input.pick(&[
        CreateFormat::Raw,
        CreateFormat::Raw,
        CreateFormat::VhdDynamic,
        CreateFormat::VhdFixed,
        CreateFormat::VhdxDynamic,
    ])
}

/// A disk of some pages, whole sectors long.
pub fn disk(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for page in 0..2 + input.below(10) as usize {
        let kind = input.u8() % 4;
        bytes.extend((0..4096).map(|at| match kind {
            0 => 0,
            kind => ((at + page * 3) % 251) as u8 ^ kind,
        }));
    }
    bytes.truncate(bytes.len() - 512 * input.below(8) as usize);
    bytes
}

/// An image that holds `bytes`.
pub fn container(format: CreateFormat, bytes: &[u8]) -> Bytes {
    if format == CreateFormat::Raw {
        return Bytes::new(bytes);
    }
    let store = Arc::new(Store::new("new", Bytes::default()));
    let options = CreateOptions::new(format, bytes.len() as u64);
    image::create(&*store, &options).unwrap();
    let image =
        image::open_storage_mut(store.clone(), format.format(), &ImageOptions::default()).unwrap();
    for (index, page) in (0u64..).zip(bytes.chunks(4096)) {
        if page.iter().any(|byte| *byte != 0) {
            image.write_all_at(page, index * 4096).unwrap();
        }
    }
    image.sync().unwrap();
    store.bytes()
}

/// The guest bytes of an image, which must open; the first ones of a long one.
pub fn content(file: &Bytes, format: CreateFormat) -> Vec<u8> {
    let store = Arc::new(Store::new("t", file.clone()));
    let image = image::open_storage(store, format.format(), &ImageOptions::default()).unwrap();
    let mut bytes = vec![0; image.disk_len().min(MOST_COMPARED) as usize];
    image.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

pub fn target(fixture: &Fixture, format: CreateFormat) -> Target {
    let directory: Arc<dyn Directory> = Arc::new(fixture.clone());
    let options = ImageOptions::default().with_limits(limits());
    Target::file(FileRef::new(directory, "t"), format.format()).with_image_options(options)
}

pub fn raw(bytes: &[u8]) -> Raw {
    Raw::open(Arc::new(MemoryStorage::new("disk", bytes.to_vec()))).unwrap()
}

/// Whether a delta says of all bytes what they were.
fn knows_its_base(file: &[u8]) -> bool {
    let file = DeltaFile::parse(file).unwrap();
    file.frames
        .iter()
        .all(|(frame, _)| frame.old != Old::Unknown)
}

/// Whether the format refuses the change of length.
fn cuts(format: CreateFormat, new: &[u8], old: &[u8]) -> bool {
    format != CreateFormat::Raw && new.len() != old.len()
}

fn root_of(bytes: &[u8]) -> Hash {
    manifest::root_of(&raw(bytes), BlockSize::MIN, work()).unwrap()
}

fn some_delta(input: &mut Input<'_>, old: &[u8], new: &[u8]) -> Option<(Vec<u8>, u64)> {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new("delta", Vec::new()));
    let options = DeltaOptions::default()
        .with_block_size(BlockSize::MIN)
        .with_level(input.pick(&[None, Some(1)]));
    let (old_image, new_image) = (raw(old), raw(new));
    let base_manifest = manifest::build(&old_image, BlockSize::MIN, work()).unwrap();
    let base = match input.u8() % 3 {
        0 => Base::Manifest(&base_manifest),
        _ => Base::Image(&old_image),
    };
    create(base, &new_image, store.clone(), &options, work()).unwrap();
    let mut bytes = vec![0; store.len().unwrap() as usize];
    store.read_exact_at(&mut bytes, 0).unwrap();
    let mut file = DeltaFile::parse(&bytes)?;
    let mut changes = file.mutate(input);
    let short = file.header.result_len < 1 << 20;
    if changes > 0 && short && input.u8() % 4 != 3 {
        // What it then leads to, so that frames that nobody made are met with the right root.
        let root = root_of(&overlaid(old, &file));
        if let Some(trailer) = &mut file.trailer {
            trailer.result_root = Some(root);
        }
    }
    let mut bytes = file.encode();
    for _ in 0..input.below(3) {
        let at = input.below(bytes.len() as u64) as usize;
        bytes[at] = input.u8();
        changes += 1;
    }
    Some((bytes, changes))
}

/// What a delta makes of a disk, done plainly.
pub fn overlaid(old: &[u8], file: &DeltaFile) -> Vec<u8> {
    let mut bytes = old.to_vec();
    bytes.resize(file.header.result_len.min(MOST_COMPARED) as usize, 0);
    for (frame, payload) in &file.frames {
        let start = frame.offset.min(bytes.len() as u64) as usize;
        let end = frame.offset.saturating_add(frame.len);
        let end = end.min(bytes.len() as u64) as usize;
        if start >= end {
            continue;
        }
        match frame.kind {
            FrameKind::Zero => bytes[start..end].fill(0),
            FrameKind::Data => {
                let plain = match frame.compressed {
                    true => zstd_plain(payload, frame.len),
                    false => payload.clone(),
                };
                let len = plain.len().min(end - start);
                bytes[start..start + len].copy_from_slice(&plain[..len]);
            }
            _ => {}
        }
    }
    bytes
}

fn zstd_plain(payload: &[u8], len: u64) -> Vec<u8> {
    let most = len.min(1 << 20) as usize;
    zstd::bulk::decompress(payload, most).unwrap_or_default()
}

const MOST_COMPARED: u64 = 4 << 20;

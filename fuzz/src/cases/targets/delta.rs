//! Delta files.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use diskdelta::Hash;
use diskdelta::delta::{
    Delta, DeltaWriter, Frame, FrameHeader, FrameKind, Header, JobId, Old, Purpose, VerifiedFrame,
    for_each_intact, merge,
};
use diskdelta::storage::{MemoryStorage, Storage};
use diskdelta::{BlockSize, Result};

use super::super::craft::delta::DeltaFile;
use super::super::input::Input;
use super::super::meter::{bound, limits, within};
use super::super::{Depth, oracle, work};

/// The first byte says whether the rest is the file, or a program: a valid file, what is changed
/// in it before everything in it is mended, what is changed afterwards.
pub fn delta(data: &[u8]) -> Depth {
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

type Frames = BTreeMap<u64, (FrameHeader, Vec<u8>)>;

fn check(file: &[u8]) -> Depth {
    let store: Arc<dyn Storage> = Arc::new(MemoryStorage::new("delta", file.to_vec()));
    let opened = Delta::from_storage(store.clone(), &limits());
    let (intact, result) = gathered(|visit| for_each_intact(&store, &limits(), work(), visit));
    if let Err(error) = &result {
        oracle::refusal(error);
        assert!(opened.is_err());
    }
    let delta = match opened {
        Ok(delta) => delta,
        Err(error) => {
            oracle::refusal(&error);
            return Depth::Refused;
        }
    };
    let (frames, verified) = gathered(|visit| delta.verify(work(), visit));
    let (walked, result) = gathered(|visit| delta.for_each(work(), visit));
    if let Err(error) = verified {
        oracle::refusal(&error);
        return Depth::Refused;
    }
    result.expect("what was verified can be walked");
    assert!(frames == walked && frames == intact);
    assert_eq!(frames.len() as u64, delta.trailer().frame_count);
    for (frame, bytes) in frames.values() {
        if !bytes.is_empty() {
            assert_eq!(bytes.len() as u64, frame.len);
            assert_eq!(frame.new_hash, Hash::from_bytes(blake3::hash(bytes).into()));
        }
    }
    again(&delta, file, &frames);
    merged(&delta, &frames);
    Depth::Taken
}

fn gathered<T>(
    walk: impl FnOnce(&(dyn Fn(&VerifiedFrame<'_>) -> Result<()> + Sync)) -> Result<T>,
) -> (Frames, Result<T>) {
    let frames = Mutex::new(Frames::new());
    let result = walk(&|frame| {
        let copy = (*frame.header(), frame.bytes().to_vec());
        frames.lock().unwrap().insert(copy.0.sequence, copy);
        Ok(())
    });
    (frames.into_inner().unwrap(), result)
}

/// Writing what was read gives the same file, unless frames were compressed, and the same frames
/// in any case.
fn again(delta: &Delta, file: &[u8], frames: &Frames) {
    if delta.header().purpose == Purpose::RedoLog || delta.header().purpose == Purpose::Sidecar {
        return;
    }
    let store = Arc::new(MemoryStorage::new("again", Vec::new()));
    let mut writer = DeltaWriter::create(store.clone(), *delta.header()).unwrap();
    for (frame, bytes) in frames.values() {
        let frame = match frame.kind {
            FrameKind::Data => Frame::data(frame.offset, bytes, frame.old, None),
            _ => Frame::zero(frame.offset, frame.len, frame.old),
        };
        writer.push(&frame).unwrap();
    }
    let trailer = delta.trailer();
    writer
        .finish(trailer.base_root, trailer.result_root)
        .unwrap();
    if frames.values().all(|(frame, _)| !frame.compressed) {
        assert!(
            store.to_vec() == file,
            "decoding and encoding changed the file"
        );
    }
    let written = Delta::from_storage(store, &limits()).unwrap();
    let (same, result) = gathered(|visit| written.verify(work(), visit));
    result.unwrap();
    for (one, other) in frames.values().zip(same.values()) {
        let (one, other) = ((one.0.offset, &one.1), (other.0.offset, &other.1));
        assert!(one == other);
    }
}

/// A chain of one link does what the link does.
fn merged(delta: &Delta, frames: &Frames) {
    let store = Arc::new(MemoryStorage::new("merged", Vec::new()));
    let links = [delta.clone()];
    let Ok(_) = merge(&links, store.clone(), &limits(), None, work()) else {
        return;
    };
    let merged = Delta::from_storage(store, &limits()).unwrap();
    let (found, result) = gathered(|visit| merged.verify(work(), visit));
    result.unwrap();
    assert!(
        painted(frames) == painted(&found),
        "merging changed a delta"
    );
}

/// What frames put where, within the first MiB.
pub fn painted(frames: &Frames) -> Vec<Option<u8>> {
    let mut canvas = vec![None; 1 << 20];
    for (frame, bytes) in frames.values() {
        let start = frame.offset.min(1 << 20) as usize;
        let end = frame.offset.saturating_add(frame.len).min(1 << 20) as usize;
        for at in start..end {
            canvas[at] = match frame.kind {
                FrameKind::Data => Some(bytes[at - start]),
                FrameKind::Zero => Some(0),
                _ => canvas[at],
            };
        }
    }
    canvas
}

fn structured(input: &mut Input<'_>) -> (Vec<u8>, bool) {
    let result_len = 4096 * input.below(400) + input.below(4096);
    let header = Header {
        purpose: input.pick(&[Purpose::Portable, Purpose::Portable, Purpose::Undo]),
        job: JobId([7; 16]),
        base_len: input.below(1 << 21),
        result_len,
        block_size: BlockSize::MIN,
    };
    let store = Arc::new(MemoryStorage::new("new", Vec::new()));
    let mut writer = DeltaWriter::create(store.clone(), header).unwrap();
    let mut at = 0;
    for _ in 0..input.below(12) {
        let start = at + input.below(3) * 4096;
        let len = (1 + input.below(9000)).min(result_len.saturating_sub(start));
        if len == 0 {
            break;
        }
        let old = input.pick(&[
            Old::Unknown,
            Old::Zeros,
            Old::Hash(Hash::from_bytes([9; 32])),
        ]);
        let bytes: Vec<u8> = (0..len).map(|it| ((it + start) % 251) as u8 | 1).collect();
        let level = input.pick(&[None, Some(1)]);
        let frame = match input.u8() % 3 {
            0 => Frame::zero(start, len, old),
            _ => Frame::data(start, &bytes, old, level),
        };
        writer.push(&frame).unwrap();
        at = start + len;
    }
    let roots = [None, Some([1; 32]), Some([2; 32])].map(|root| root.map(Hash::from_bytes));
    writer
        .finish(input.pick(&roots), input.pick(&roots))
        .unwrap();
    let mut file = DeltaFile::parse(&store.to_vec()).unwrap();
    assert!(
        file.encode() == store.to_vec(),
        "parts do not make up the file"
    );
    let mut count = file.mutate(input);
    let mut bytes = file.encode();
    for _ in 0..input.below(3) {
        let at = input.below(bytes.len() as u64) as usize;
        bytes[at] = input.u8();
        count += 1;
    }
    if input.one_in(8) {
        bytes.truncate(input.below(1 + bytes.len() as u64) as usize);
        count += 1;
    }
    (bytes, count == 0)
}

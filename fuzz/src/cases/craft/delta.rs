//! Delta files taken apart, changed, and put together again with everything mended.

use diskdelta::Hash;
use diskdelta::delta::{FrameHeader, FrameKind, Header, Old, Purpose, Trailer};

use super::super::input::Input;

const HEADER_LEN: usize = 128;
const FRAME_LEN: usize = 112;
const TRAILER_LEN: usize = 160;

/// A delta file's parts.
#[derive(Debug, Clone)]
pub struct DeltaFile {
    pub header: Header,
    pub frames: Vec<(FrameHeader, Vec<u8>)>,
    pub trailer: Option<Trailer>,
}

impl DeltaFile {
    /// Takes a file apart as far as it is whole; decoding and encoding are held together here.
    pub fn parse(file: &[u8]) -> Option<Self> {
        let bytes: [u8; HEADER_LEN] = file.get(..HEADER_LEN)?.try_into().ok()?;
        let header = Header::decode(&bytes).ok()?;
        assert_eq!(header.encode(), bytes);
        let mut delta = DeltaFile {
            header,
            frames: Vec::new(),
            trailer: None,
        };
        let mut rest = &file[HEADER_LEN..];
        while let Some((head, tail)) = rest.split_first_chunk::<FRAME_LEN>() {
            let Ok(frame) = FrameHeader::decode(head) else {
                break;
            };
            let Some((payload, tail)) = tail.split_at_checked(frame.stored_len as usize) else {
                break;
            };
            if frame.kind == FrameKind::Trailer {
                let payload: [u8; TRAILER_LEN] = payload.try_into().ok()?;
                delta.trailer = Trailer::decode(&payload).ok();
                break;
            }
            delta.frames.push((frame, payload.to_vec()));
            rest = tail;
        }
        Some(delta)
    }

    /// The file, with sequence numbers, lengths, seals, digest and counts right.
    pub fn encode(&self) -> Vec<u8> {
        let mut file = self.header.encode().to_vec();
        let context = "diskdelta 2026-11-22 digest of the frames of a delta file v1";
        let mut digest = blake3::Hasher::new_derive_key(context);
        digest.update(&file);
        let (mut data_bytes, mut zero_bytes) = (0u64, 0u64);
        for (sequence, (frame, payload)) in (0u64..).zip(&self.frames) {
            let mut frame = *frame;
            frame.sequence = sequence;
            frame.stored_len = payload.len() as u32;
            match frame.kind {
                FrameKind::Data => data_bytes = data_bytes.saturating_add(frame.len),
                FrameKind::Zero => zero_bytes = zero_bytes.saturating_add(frame.len),
                _ => {}
            }
            let head = frame.encode(self.header.job, payload);
            digest.update(&head);
            file.extend(head);
            file.extend(payload);
        }
        if let Some(trailer) = &self.trailer {
            let payload = Trailer {
                frame_count: self.frames.len() as u64,
                data_bytes,
                zero_bytes,
                digest: Hash::from_bytes(digest.finalize().into()),
                ..*trailer
            }
            .encode();
            let frame = FrameHeader {
                kind: FrameKind::Trailer,
                compressed: false,
                sequence: self.frames.len() as u64,
                offset: 0,
                len: TRAILER_LEN as u64,
                stored_len: TRAILER_LEN as u32,
                new_hash: Hash::from_bytes(blake3::hash(&payload).into()),
                old: Old::Unknown,
            };
            file.extend(frame.encode(self.header.job, &payload));
            file.extend(payload);
        }
        file
    }

    /// Changes parts as `input` says; returns how many.
    pub fn mutate(&mut self, input: &mut Input<'_>) -> u64 {
        let count = input.below(5);
        for _ in 0..count {
            let some = input.below(self.frames.len().max(1) as u64) as usize;
            match input.u8() % 12 {
                0 => self.header.base_len = input.nasty(self.header.base_len, &[1 << 46]),
                1 => self.header.result_len = input.nasty(self.header.result_len, &[1 << 46]),
                2 => {
                    let purposes = [
                        Purpose::Portable,
                        Purpose::RedoLog,
                        Purpose::Undo,
                        Purpose::Sidecar,
                    ];
                    self.header.purpose = input.pick(&purposes);
                }
                3 if !self.frames.is_empty() => {
                    let copy = self.frames[some].clone();
                    self.frames.push(copy);
                }
                4 if !self.frames.is_empty() => drop(self.frames.remove(some)),
                5 if !self.frames.is_empty() => {
                    let other = input.below(self.frames.len() as u64) as usize;
                    self.frames.swap(some, other);
                }
                6 => self.frames.push(new_frame(input, &self.header)),
                7 => match &mut self.trailer {
                    Some(trailer) if input.one_in(2) => trailer.base_root = None,
                    Some(trailer) => trailer.result_root = Some(Hash::from_bytes([input.u8(); 32])),
                    None => {}
                },
                _ => {
                    let anchors = [self.header.base_len, self.header.result_len, 4096, 1 << 20];
                    if let Some((frame, payload)) = self.frames.get_mut(some) {
                        change(frame, payload, input, &anchors);
                    }
                }
            }
        }
        count
    }
}

fn change(frame: &mut FrameHeader, payload: &mut Vec<u8>, input: &mut Input<'_>, anchors: &[u64]) {
    match input.u8() % 7 {
        0 => frame.kind = input.pick(&KINDS),
        1 => frame.offset = input.nasty(frame.offset, anchors),
        2 => frame.len = input.nasty(frame.len, anchors),
        3 => frame.old = some_old(input),
        4 => frame.compressed = !frame.compressed,
        5 if !payload.is_empty() => {
            let at = input.below(payload.len() as u64) as usize;
            payload[at] = input.u8();
        }
        _ => {
            let len = input.nasty(payload.len() as u64, &[4096]).min(70_000);
            payload.resize(len as usize, input.u8());
        }
    }
    if input.u8() % 4 != 3 && !frame.compressed && !payload.is_empty() {
        frame.new_hash = Hash::from_bytes(blake3::hash(payload).into());
        if input.u8() % 4 != 3 {
            frame.len = payload.len() as u64;
        }
    }
}

fn new_frame(input: &mut Input<'_>, header: &Header) -> (FrameHeader, Vec<u8>) {
    let kind = input.pick(&KINDS);
    let bare = matches!(
        kind,
        FrameKind::Zero | FrameKind::ZeroTable | FrameKind::Length | FrameKind::Commit
    );
    let payload = match bare {
        true => Vec::new(),
        false => vec![input.u8(); input.below(9000) as usize],
    };
    let len = match bare {
        true => input.nasty(4096, &[header.result_len]),
        false => payload.len() as u64,
    };
    let frame = FrameHeader {
        kind,
        compressed: false,
        sequence: 0,
        offset: input.below(header.result_len.clamp(1, 1 << 30)) / 512 * 512,
        len,
        stored_len: payload.len() as u32,
        new_hash: match bare {
            true => Hash::from_bytes([0; 32]),
            false => Hash::from_bytes(blake3::hash(&payload).into()),
        },
        old: some_old(input),
    };
    (frame, payload)
}

fn some_old(input: &mut Input<'_>) -> Old {
    match input.u8() % 3 {
        0 => Old::Unknown,
        1 => Old::Zeros,
        _ => Old::Hash(diskdelta::Hash::from_bytes(
            blake3::hash(&[input.u8(); 4096]).into(),
        )),
    }
}

const KINDS: [FrameKind; 11] = [
    FrameKind::Data,
    FrameKind::Zero,
    FrameKind::Table,
    FrameKind::LastTable,
    FrameKind::ZeroTable,
    FrameKind::Length,
    FrameKind::Saved,
    FrameKind::Job,
    FrameKind::Commit,
    FrameKind::Final,
    FrameKind::Trailer,
];

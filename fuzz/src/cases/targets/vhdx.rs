//! VHDX without parents.

use std::sync::Arc;

use diskdelta::image::vhdx::{Vhdx as Opened, VhdxMut};
use diskdelta::image::{Format, Image};

use super::super::craft::vhdx::{MIB, Vhdx};
use super::super::craft::vhdx_log;
use super::super::input::Input;
use super::super::meter::{bound, within};
use super::super::reference::{Disk, vhdx};
use super::super::store::{Bytes, Store};
use super::super::{Depth, oracle};
use super::vhd::options;

/// The input is the file: as it is, or as pieces of it with their places, so that what has to lie
/// MiB apart fits a short input.
pub fn raw(data: &[u8]) -> Depth {
    let file = match data.starts_with(b"vhdxfile") {
        true => Bytes::new(data),
        false => unpack(data),
    };
    strict(&file)
}

/// The input is a program: a valid file, what is changed in it, what is written to it then.
pub fn structured(data: &[u8]) -> Depth {
    let mut input = Input(data);
    let shape = shape(&mut input);
    let mut vhdx = Vhdx::build(&mut input, 0, shape, None);
    let changes = vhdx.mutate(&mut input);
    let depth = strict(&vhdx.file);
    assert!(
        changes > 0 || depth == Depth::Taken,
        "a valid file was refused"
    );
    if depth == Depth::Taken {
        oracle::writing(&vhdx.file, Format::Vhdx, &options(), &mut input);
    }
    depth
}

/// The input is a program: a valid file and the entries of its log.
pub fn log(data: &[u8]) -> Depth {
    let mut input = Input(data);
    let shape = shape(&mut input);
    let mut vhdx = Vhdx::build(&mut input, 0, shape, None);
    vhdx_log::write(&mut vhdx, &mut input);
    let depth = strict(&vhdx.file);
    replaying(&vhdx.file);
    if depth == Depth::Taken {
        oracle::writing(&vhdx.file, Format::Vhdx, &options(), &mut input);
    }
    depth
}

/// Disk length and sector size.
pub fn shape(input: &mut Input<'_>) -> (u64, u64) {
    let sector = input.pick(&[512, 512, 512, 4096]);
    let len = match input.u8() % 4 {
        0 => MIB * (1 + input.below(8)),
        1 => 4096 * (1 + input.below(4000)),
        2 => 64 * MIB * (1 + input.below(80)),
        _ => sector * (1 + input.below(60_000)),
    };
    (len, sector)
}

/// A file as its length in KiB and pieces: where in units of 64 bytes, how many bytes, bytes.
pub fn unpack(data: &[u8]) -> Bytes {
    let mut input = Input(data);
    let mut file = Bytes::default();
    let len = u64::from(input.u32()) << 10;
    while !input.is_empty() {
        let at = u64::from(input.u32()) * 64;
        let count = input.u16();
        file.put(at, input.bytes(usize::from(count)));
    }
    file.set_len(len);
    file
}

/// The input that [`unpack`] makes `file` of, but for stretches of zeros longer than 64 bytes.
pub fn pack(file: &Bytes) -> Vec<u8> {
    let mut data = ((file.len() >> 10) as u32).to_le_bytes().to_vec();
    let mut at = 0;
    while let Some(found) = file.next_data(at) {
        let mut start = found.start / 64 * 64;
        while start < found.end {
            let mut piece = Vec::new();
            while piece.len() < 60_000 {
                let next: [u8; 64] = file.array(start + piece.len() as u64);
                if next == [0; 64] {
                    break;
                }
                piece.extend(next);
            }
            let len = piece.len() as u64;
            if len > 0 {
                data.extend(((start / 64) as u32).to_le_bytes());
                data.extend((len as u16).to_le_bytes());
                data.extend(piece);
            }
            start += len.max(64);
        }
        at = found.end;
    }
    data
}

fn strict(file: &Bytes) -> Depth {
    let reference = || Some(Box::new(vhdx::Vhdx::open(file, &[], 0)?) as Box<dyn Disk>);
    oracle::image(file, Format::Vhdx, &options(), Some(&reference))
}

/// Replaying into memory and replaying into the file come to the same, and the second leaves a
/// file that needs no replay.
fn replaying(file: &Bytes) {
    let store = Arc::new(Store::new("image", file.clone()));
    let reading = Opened::open(store.clone(), &options());
    let writing = within(bound(file.stored()), || {
        VhdxMut::open(store.clone(), &options())
    });
    match (reading, writing) {
        (Ok(reading), Ok(writing)) => {
            let clean = store.bytes();
            assert!(!vhdx_log::is_dirty(&clean), "the log still counts");
            let again = Opened::open(Arc::new(Store::new("again", clean)), &options());
            let again = again.expect("a replayed file opens");
            for probe in oracle::probes(&reading) {
                let wanted = oracle::read(&reading, &probe).ok();
                assert!(wanted == oracle::read(&writing, &probe).ok(), "{probe:?}");
                assert!(wanted == oracle::read(&again, &probe).ok(), "{probe:?}");
            }
            assert_eq!(reading.disk_len(), writing.disk_len());
        }
        (Err(_), Err(_)) => assert!(store.bytes().same_as(file), "a refused file was changed"),
        // No room for the file that the log wants, no place for a log: then nothing is lost.
        (Ok(_), Err(_)) => {
            let left = Opened::open(store, &options());
            assert!(left.is_ok(), "refused for writing, and unreadable since");
        }
        (Err(error), Ok(_)) => panic!("opens for writing, but not for reading: {error}"),
    }
}

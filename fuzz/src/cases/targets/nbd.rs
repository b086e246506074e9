//! Servers of NBD.

use std::io::{self, Read, Write};

use diskdelta::image::nbd::Client;
use diskdelta::{Error, ErrorKind};

use super::super::Depth;
use super::super::meter::within;

const DISK_LEN: u64 = 1 << 20;
const ASKED: usize = 8192;

/// What a server sends, after an honest handshake where the first byte is odd: an answer to a
/// request for bytes, and to one for the status.
pub fn nbd_replies(data: &[u8]) -> Depth {
    let [is_shaken, rest @ ..] = data else {
        return Depth::Refused;
    };
    let before = match is_shaken % 2 {
        0 => Vec::new(),
        _ => handshake(),
    };
    within(32 << 20, || check([&before, rest].concat()))
}

fn check(says: Vec<u8>) -> Depth {
    let client = Client::new(Script(io::Cursor::new(says)), "disk", Some("b"));
    let mut client = match client {
        Ok(client) => client,
        Err(error) => {
            refusal(&error);
            return Depth::Refused;
        }
    };
    let read = client.read(&mut [0; ASKED], 0);
    let status = read.and_then(|()| client.status(0..ASKED as u64));
    match status {
        Err(error) => {
            refusal(&error);
            Depth::Refused
        }
        Ok(status) => {
            for runs in [status.zero, status.dirty] {
                assert!(runs.iter().all(|run| run.len > 0));
                assert!(runs.iter().map(|run| run.len).sum::<u64>() <= client.info().disk_len);
            }
            Depth::Taken
        }
    }
}

/// What a server can be refused for: nonsense, its end, what it says itself.
fn refusal(error: &Error) {
    let kinds = [
        ErrorKind::Malformed,
        ErrorKind::Io,
        ErrorKind::NotFound,
        ErrorKind::Unsupported,
        // What it states makes the requests of this target impossible.
        ErrorKind::InvalidInput,
    ];
    assert!(kinds.contains(&error.kind()), "{error}");
}

/// A whole session, and one without the handshake.
pub fn seeds() -> [Vec<u8>; 2] {
    let bytes = [&0u64.to_be_bytes()[..], &[7; 4096]].concat();
    let hole = [&4096u64.to_be_bytes()[..], &4096u32.to_be_bytes()].concat();
    let status = |id: u32, flags: u32| [id, 4096, flags, 65536, 0].map(u32::to_be_bytes).concat();
    let replies = [
        chunk(1, 0, 1, &bytes),
        chunk(1, 1, 2, &hole),
        chunk(2, 0, 5, &status(9, 1)),
        chunk(2, 1, 5, &status(7, 2)),
    ]
    .concat();
    [
        [&[1], &replies[..]].concat(),
        [&[0], &handshake()[..], &replies[..]].concat(),
    ]
}

fn handshake() -> Vec<u8> {
    let mut says = [&b"NBDMAGICIHAVEOPT"[..], &3u16.to_be_bytes()].concat();
    says.extend(option(8, 1, &[]));
    for (id, name) in [(9u32, "qemu:dirty-bitmap:b"), (7, "base:allocation")] {
        says.extend(option(
            10,
            4,
            &[&id.to_be_bytes()[..], name.as_bytes()].concat(),
        ));
    }
    says.extend(option(10, 1, &[]));
    let export = [&[0, 0][..], &DISK_LEN.to_be_bytes(), &[0, 1]].concat();
    says.extend(option(7, 3, &export));
    says.extend(option(7, 1, &[]));
    says
}

fn option(option: u32, kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut reply = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
    for number in [option, kind, payload.len() as u32] {
        reply.extend(number.to_be_bytes());
    }
    [&reply[..], payload].concat()
}

fn chunk(cookie: u64, flags: u16, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut chunk = 0x668e_33ef_u32.to_be_bytes().to_vec();
    chunk.extend(flags.to_be_bytes());
    chunk.extend(kind.to_be_bytes());
    chunk.extend(cookie.to_be_bytes());
    chunk.extend((payload.len() as u32).to_be_bytes());
    [&chunk[..], payload].concat()
}

struct Script(io::Cursor<Vec<u8>>);

impl Read for Script {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Script {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! A server that lies: whatever it says is an error, and never more.

use std::io::{self, Cursor, Read, Write};

use diskdelta::ErrorKind;
use diskdelta::image::nbd::Client;
use proptest::prelude::*;

const DISK: u64 = 1 << 20;

#[test]
fn an_honest_server_is_trusted() {
    let mut reply = data(1, 0, 0, &[7; 4096]);
    reply.extend(hole(1, DONE, 4096, 4096));
    let mut honest = client(&reply);
    assert_eq!(honest.info().disk_len, DISK);
    assert!(honest.info().multi_conn);
    let mut buf = [1; 8192];
    honest.read(&mut buf, 0).unwrap();
    assert!(buf[..4096] == [7; 4096] && buf[4096..] == [0; 4096]);

    let mut reply = status(1, 0, DIRTY, &[(65536, 1)]);
    reply.extend(status(
        1,
        DONE,
        ALLOCATION,
        &[(4096, 0), (4096, 0), (8192, 3)],
    ));
    let status = client(&reply).status(0..65536).unwrap();
    let lens = |runs: &[diskdelta::image::nbd::Run]| -> Vec<_> {
        runs.iter().map(|run| (run.len, run.holds)).collect()
    };
    assert_eq!(lens(&status.zero), [(8192, false), (8192, true)]);
    assert_eq!(lens(&status.dirty), [(65536, true)]);
}

#[test]
fn a_last_extent_that_reaches_beyond_the_disk_ends_with_it() {
    let reply = [
        status(1, 0, ALLOCATION, &[(u32::MAX, 0)]),
        status(1, DONE, DIRTY, &[(4096, 1), (u32::MAX, 0)]),
    ]
    .concat();
    let status = client(&reply).status(DISK - 65536..DISK).unwrap();
    assert_eq!(status.zero[0].len, 65536);
    assert_eq!(status.dirty[1].len, 65536 - 4096);
}

#[test]
fn each_lie_about_bytes_is_an_error() {
    let lies: [(&str, Vec<u8>); 12] = [
        ("before", data(1, DONE, 4096, &[1; 4096])),
        ("beyond", data(1, DONE, 8192, &[1; 8193])),
        ("far beyond", data(1, DONE, u64::MAX, &[1; 16])),
        ("less", data(1, DONE, 8192, &[1; 4096])),
        ("nothing", chunk(1, DONE, 0, &[])),
        (
            "twice",
            [
                data(1, 0, 8192, &[1; 4097]),
                data(1, DONE, 12288, &[1; 4096]),
            ]
            .concat(),
        ),
        ("an empty hole", hole(1, DONE, 8192, 0)),
        ("too long a hole", hole(1, DONE, 8192, u32::MAX)),
        ("a chunk without an offset", chunk(1, DONE, 1, &[0; 7])),
        ("an unknown chunk", chunk(1, DONE, 77, &[])),
        ("another's answer", data(2, DONE, 8192, &[1; 8192])),
        (
            "a simple reply",
            [&0x6744_6698_u32.to_be_bytes()[..], &[0; 12]].concat(),
        ),
    ];
    for (lie, reply) in lies {
        let mut buf = [0; 8192];
        let error = client(&reply).read(&mut buf, 8192).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{lie}: {error}");
    }
}

#[test]
fn each_lie_about_the_status_is_an_error() {
    let honest = status(1, DONE, DIRTY, &[(4096, 0)]);
    let lies: [(&str, Vec<u8>); 9] = [
        ("an empty extent", status(1, 0, ALLOCATION, &[(0, 0)])),
        ("half a block", status(1, 0, ALLOCATION, &[(100, 0)])),
        ("no extent", status(1, 0, ALLOCATION, &[])),
        (
            "more after the disk's end",
            status(1, 0, ALLOCATION, &[(u32::MAX, 0), (4096, 0)]),
        ),
        ("an unknown context", status(1, 0, 99, &[(4096, 0)])),
        ("a context twice", status(1, 0, DIRTY, &[(4096, 0)])),
        ("a context left out", Vec::new()),
        ("half an extent", chunk(1, 0, 5, &[0; 15])),
        ("without end", chunk_head(1, 0, 5, u32::MAX)),
    ];
    for (lie, reply) in lies {
        let reply = [reply, honest.clone()].concat();
        let error = client(&reply).status(0..8192).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{lie}: {error}");
    }
}

#[test]
fn each_lie_in_the_handshake_is_an_error() {
    let info = |info: &[u8]| [opening(), contexts(), option(7, 3, info)].concat();
    let lies: [(&str, Vec<u8>); 9] = [
        (
            "no server of NBD",
            b"SSH-2.0-x\r\n\r\n and more of it".to_vec(),
        ),
        ("another option", [first(), option(9, 1, &[])].concat()),
        (
            "a huge reply",
            [first(), option_head(8, 1, u32::MAX)].concat(),
        ),
        (
            "a context without a number",
            [opening(), option(10, 4, &[0; 3])].concat(),
        ),
        (
            "a context not asked for",
            [opening(), option(10, 4, b"\0\0\0\x01base:x")].concat(),
        ),
        (
            "a disk too long",
            info(&[&[0; 2][..], &[0xff; 8], &[1, 1]].concat()),
        ),
        ("an export cut short", info(&[0, 0, 1])),
        (
            "impossible blocks",
            info(&[&[0, 3][..], &[0, 0, 0, 3], &[0; 8]].concat()),
        ),
        (
            "nothing of the export",
            [opening(), contexts(), option(7, 1, &[])].concat(),
        ),
    ];
    for (lie, reply) in lies {
        let error = Client::new(Script::new(&reply), "disk", Some("b"))
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed, "{lie}: {error}");
    }
    let without_end = option(
        10,
        4,
        &[&7u32.to_be_bytes()[..], b"base:allocation"].concat(),
    );
    let reply = [opening(), without_end.repeat(1000)].concat();
    let error = Client::new(Script::new(&reply), "disk", Some("b"))
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Malformed);
}

#[test]
fn what_the_server_says_went_wrong_is_shown() {
    let mut said = 5u32.to_be_bytes().to_vec();
    said.extend(9u16.to_be_bytes());
    said.extend(b"it burns!");
    let reply = chunk(1, DONE, 0x8001, &said);
    let error = client(&reply).read(&mut [0; 4096], 0).unwrap_err();
    assert!(error.to_string().contains("error 5: it burns!"), "{error}");
    let cut = chunk(1, DONE, 0x8001, &said[..8]);
    let error = client(&cut).read(&mut [0; 4096], 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    let old = [first(), option(8, 0x8000_0001, &[])].concat();
    let error = Client::new(Script::new(&old), "disk", None).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_request_that_no_server_has_to_take_is_not_made() {
    for (offset, len) in [
        (1, 4096),
        (0, 100),
        (DISK, 4096),
        (DISK - 4096, 8192),
        (0, 0),
    ] {
        let error = client(&[]).read(&mut vec![0; len], offset).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{offset} {len}");
    }
}

proptest! {
    /// Neither a panic nor an endless wait: what is no answer ends as an error.
    #[test]
    fn noise_is_survived(
        noise in proptest::collection::vec(any::<u8>(), 0..400),
        cut in 0usize..400,
        kind in 0u16..8,
    ) {
        let _ = Client::new(Script::new(&noise), "disk", Some("b"));
        let mut shaken = handshake();
        let at = cut % shaken.len();
        shaken.splice(at..at, noise.iter().copied().take(3));
        let _ = Client::new(Script::new(&shaken), "disk", Some("b"));
        let reply = [chunk(1, 0, kind, &noise), noise.clone()].concat();
        let _ = client(&reply).read(&mut [0; 8192], 4096);
        let _ = client(&reply).status(0..65536);
    }
}

pub const DONE: u16 = 1;
const ALLOCATION: u32 = 7;
const DIRTY: u32 = 9;

/// Says what it has to say, whatever it is told.
struct Script(Cursor<Vec<u8>>);

impl Script {
    fn new(says: &[u8]) -> Self {
        Script(Cursor::new(says.to_vec()))
    }
}

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

/// A client whose server says this after an honest handshake.
fn client(reply: &[u8]) -> Client<Script> {
    let says = [handshake(), reply.to_vec()].concat();
    Client::new(Script::new(&says), "disk", Some("b")).unwrap()
}

fn handshake() -> Vec<u8> {
    handshake_with(1 | 1 << 8, &contexts())
}

/// The handshake of a server without bitmaps and with these flags.
pub fn handshake_of(flags: u16) -> Vec<u8> {
    let allocation = [&ALLOCATION.to_be_bytes()[..], b"base:allocation"].concat();
    let contexts = [option(10, 4, &allocation), option(10, 1, &[])].concat();
    handshake_with(flags, &contexts)
}

fn handshake_with(flags: u16, contexts: &[u8]) -> Vec<u8> {
    let mut export = vec![0, 0];
    export.extend(DISK.to_be_bytes());
    export.extend(flags.to_be_bytes());
    let mut blocks = vec![0, 3];
    for size in [4096u32, 4096, 1 << 25] {
        blocks.extend(size.to_be_bytes());
    }
    let go = [
        option(7, 3, &export),
        option(7, 3, &blocks),
        option(7, 1, &[]),
    ];
    [opening(), contexts.to_vec(), go.concat()].concat()
}

fn first() -> Vec<u8> {
    [&b"NBDMAGICIHAVEOPT"[..], &3u16.to_be_bytes()].concat()
}

fn opening() -> Vec<u8> {
    [first(), option(8, 1, &[])].concat()
}

fn contexts() -> Vec<u8> {
    let named = |id: u32, name: &[u8]| option(10, 4, &[&id.to_be_bytes()[..], name].concat());
    let contexts = [
        named(DIRTY, b"qemu:dirty-bitmap:b"),
        named(ALLOCATION, b"base:allocation"),
        option(10, 1, &[]),
    ];
    contexts.concat()
}

fn option(option: u32, kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut reply = option_head(option, kind, payload.len() as u32);
    reply.extend(payload);
    reply
}

fn option_head(option: u32, kind: u32, len: u32) -> Vec<u8> {
    let mut reply = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
    for number in [option, kind, len] {
        reply.extend(number.to_be_bytes());
    }
    reply
}

pub fn chunk(cookie: u64, flags: u16, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut chunk = chunk_head(cookie, flags, kind, payload.len() as u32);
    chunk.extend(payload);
    chunk
}

fn chunk_head(cookie: u64, flags: u16, kind: u16, len: u32) -> Vec<u8> {
    let mut chunk = 0x668e_33ef_u32.to_be_bytes().to_vec();
    chunk.extend(flags.to_be_bytes());
    chunk.extend(kind.to_be_bytes());
    chunk.extend(cookie.to_be_bytes());
    chunk.extend(len.to_be_bytes());
    chunk
}

pub fn data(cookie: u64, flags: u16, offset: u64, bytes: &[u8]) -> Vec<u8> {
    chunk(
        cookie,
        flags,
        1,
        &[&offset.to_be_bytes()[..], bytes].concat(),
    )
}

pub fn hole(cookie: u64, flags: u16, offset: u64, len: u32) -> Vec<u8> {
    let payload = [&offset.to_be_bytes()[..], &len.to_be_bytes()].concat();
    chunk(cookie, flags, 2, &payload)
}

fn status(cookie: u64, flags: u16, context: u32, extents: &[(u32, u32)]) -> Vec<u8> {
    let mut payload = context.to_be_bytes().to_vec();
    for (len, flags) in extents {
        payload.extend(len.to_be_bytes());
        payload.extend(flags.to_be_bytes());
    }
    chunk(cookie, flags, 5, &payload)
}

//! Answers to several requests on one connection, in any order, in parts, and to none.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use diskdelta::image::Image;
use diskdelta::image::nbd::NbdExport;
use diskdelta::{ErrorKind, NbdAddress};

use crate::malformed_server::{DONE, chunk, data, handshake_of, hole};

#[test]
fn answers_may_come_in_another_order_and_in_parts() {
    let server = Server::new(|requests, line| {
        let [first, second] = requests else {
            panic!("two requests at once");
        };
        // The parts of both answers alternate, the later one ends first.
        let half = |request: &Request, part: u64, flags| {
            let at = request.offset + part * 2048;
            data(request.cookie, flags, at, &[request.byte(); 2048])
        };
        for reply in [
            half(second, 1, 0),
            half(first, 0, 0),
            half(second, 0, DONE),
            hole(first.cookie, 0, first.offset + 2048, 2048),
            chunk(first.cookie, DONE, 0, &[]),
        ] {
            line.write_all(&reply).unwrap();
        }
    });
    let export = NbdExport::open(&server.address(), None).unwrap();
    for _ in 0..20 {
        let mut found = [[1; 4096]; 2];
        thread::scope(|scope| {
            for (number, found) in found.iter_mut().enumerate() {
                let export = &export;
                scope.spawn(move || export.read_exact_at(found, number as u64 * 4096).unwrap());
            }
        });
        for (number, found) in found.iter().enumerate() {
            let byte = number as u8 + 10;
            let second = if found[2048] == 0 { 0 } else { byte };
            assert!(found[..2048] == [byte; 2048] && found[2048..] == [second; 2048]);
        }
        // Which of the two was asked first is not known; one of them has the hole.
        assert!(found.iter().filter(|it| it[2048] == 0).count() == 1);
    }
}

#[test]
fn an_answer_to_no_request_ends_all_that_wait_and_the_next_read_connects_anew() {
    let server = Server::new(|requests, line| {
        let cookie = requests[0].cookie.max(requests[1].cookie) + 100;
        line.write_all(&data(cookie, DONE, 0, &[1; 4096])).unwrap();
    });
    let export = NbdExport::open(&server.address(), None).unwrap();
    for _ in 0..3 {
        let begun = Instant::now();
        thread::scope(|scope| {
            for number in 0..2 {
                let export = &export;
                scope.spawn(move || {
                    let error = export.read_exact_at(&mut [0; 4096], number * 4096);
                    assert_eq!(error.unwrap_err().kind(), ErrorKind::Malformed);
                });
            }
        });
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

struct Request {
    cookie: u64,
    offset: u64,
}

impl Request {
    /// What the disk holds there.
    fn byte(&self) -> u8 {
        (self.offset / 4096) as u8 + 10
    }
}

/// A server with one connection at a time, which answers two requests at once.
struct Server {
    directory: tempfile::TempDir,
}

impl Server {
    fn new(answer: impl Fn(&[Request], &mut UnixStream) + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server { directory };
        let listener = UnixListener::bind(server.socket()).unwrap();
        thread::spawn(move || {
            for line in listener.incoming() {
                let mut line = line.unwrap();
                if shake(&mut line).is_none() {
                    continue;
                }
                loop {
                    let requests: Vec<_> = (0..2).map_while(|_| request(&mut line)).collect();
                    if requests.len() < 2 {
                        break;
                    }
                    answer(&requests, &mut line);
                }
            }
        });
        server
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("nbd.sock")
    }

    fn address(&self) -> NbdAddress {
        NbdAddress::new(self.socket(), "disk")
    }
}

/// Says the server's part of the handshake, and takes the client's.
fn shake(line: &mut UnixStream) -> Option<()> {
    line.write_all(&handshake_of(1)).ok()?;
    line.read_exact(&mut [0; 4]).ok()?;
    for _ in 0..3 {
        let mut head = [0; 16];
        line.read_exact(&mut head).ok()?;
        let len = u32::from_be_bytes(head[12..].try_into().unwrap());
        line.read_exact(&mut vec![0; len as usize]).ok()?;
    }
    Some(())
}

/// The next read; `None` at the end.
fn request(line: &mut UnixStream) -> Option<Request> {
    let mut request = [0; 28];
    line.read_exact(&mut request).ok()?;
    let number = |at: usize| u64::from_be_bytes(request[at..at + 8].try_into().unwrap());
    (request[7] == 0).then(|| Request {
        cookie: number(8),
        offset: number(16),
    })
}

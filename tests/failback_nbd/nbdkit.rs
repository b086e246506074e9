//! What nbdkit exports, over Unix sockets, TCP and TLS, with its filters in between.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use std::sync::Arc;

use diskdelta::diff::{CompareOptions, compare};
use diskdelta::image::nbd::NbdExport;
use diskdelta::image::{Image, Raw};
use diskdelta::storage::MemoryStorage;
use diskdelta::{ErrorKind, Extent, Location, NbdAddress, Work};

const LEN: usize = 4 << 20;

#[test]
fn many_requests_are_under_way_on_one_connection() {
    let Some(at) = Fixture::new() else {
        return;
    };
    let filters = ["--filter=delay", "--filter=multi-conn"];
    let _server = at.serve(&filters, &["rdelay=100ms", "multi-conn-mode=disable"]);
    let export = NbdExport::open(&at.address(), None).unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for reader in 0..16 {
            let (export, bytes) = (&export, &at.bytes);
            scope.spawn(move || {
                for piece in 0..4 {
                    let offset = (reader * 4 + piece) << 16;
                    let mut found = vec![0; 1 << 16];
                    export.read_exact_at(&mut found, offset as u64).unwrap();
                    assert!(found == bytes[offset..offset + found.len()], "{offset}");
                }
            });
        }
    });
    // One after the other they take 6.4 s.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn one_thread_has_many_requests_under_way_at_another_host() {
    let Some(at) = Fixture::new() else {
        return;
    };
    let filters = ["--filter=delay", "--filter=multi-conn"];
    let (_server, port) =
        at.serve_port_with(&filters, &["rdelay=500ms", "multi-conn-mode=disable"]);
    let Ok(Location::Nbd(address)) = format!("nbd://127.0.0.1:{port}/").parse() else {
        panic!("this is an address");
    };
    let export = NbdExport::open(&address, None).unwrap();
    let expected = Raw::open(Arc::new(MemoryStorage::new("expected", at.bytes.clone()))).unwrap();
    let work = Work::with_threads(1).unwrap();
    let begun = Instant::now();
    let report = compare(
        &export,
        &expected,
        &CompareOptions::default(),
        &work,
        &|it| panic!("differs at {}", it.offset),
    );
    assert_eq!(report.unwrap().compared_bytes, LEN as u64);
    // One after the other they take 4 s and more.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");

    // What was announced and is never read keeps nothing waiting.
    export.will_read(0..LEN as u64);
    let begun = Instant::now();
    drop(export);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn holes_are_what_the_server_says_and_nothing_where_it_says_nothing() {
    let Some(at) = Fixture::new() else {
        return;
    };
    fs::write(
        at.path("list"),
        "0 65536\n65536 65536 hole,zero\n131072 65536\n",
    )
    .unwrap();
    let list = format!("extentlist={}", at.path("list").display());
    let server = at.serve(&["--filter=extentlist"], &[&list]);
    let export = NbdExport::open(&at.address(), None).unwrap();
    let next = |offset| export.next_extent(offset).unwrap().unwrap();
    assert_eq!(next(0), Extent::data(0..65536));
    assert_eq!(next(70_000), Extent::zero(70_000..131_072));
    assert_eq!(next(131_072), Extent::data(131_072..196_608));
    drop((export, server));

    let _server = at.serve(&["--filter=noextents"], &[]);
    let export = NbdExport::open(&at.address(), None).unwrap();
    let extent = export.next_extent(0).unwrap().unwrap();
    assert_eq!(extent, Extent::data(0..LEN as u64));
}

#[test]
fn a_request_that_fails_does_not_end_the_connection() {
    let Some(at) = Fixture::new() else {
        return;
    };
    let trigger = format!("error-file={}", at.path("trigger").display());
    let _server = at.serve(&["--filter=error"], &["error-rate=100%", &trigger]);
    let export = NbdExport::open(&at.address(), None).unwrap();
    let mut found = [0; 4096];
    for _ in 0..3 {
        export.read_exact_at(&mut found, 4096).unwrap();
        assert!(found == at.bytes[4096..8192]);
        fs::write(at.path("trigger"), "").unwrap();
        let error = export.read_exact_at(&mut found, 4096).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("error 5"), "{error}");
        fs::remove_file(at.path("trigger")).unwrap();
    }
}

#[test]
fn an_export_is_read_over_a_port() {
    let Some(at) = Fixture::new() else {
        return;
    };
    let (_server, port) = at.serve_port(&[]);
    let Ok(Location::Nbd(address)) = format!("nbd://127.0.0.1:{port}/").parse() else {
        panic!("this is an address");
    };
    let export = NbdExport::open(&address, None).unwrap();
    let mut found = vec![0; LEN];
    export.read_exact_at(&mut found, 0).unwrap();
    assert!(found == at.bytes);
}

#[cfg(feature = "tls")]
#[test]
fn an_export_is_read_over_tls_and_only_from_the_server_of_that_name() {
    use crate::certificates::{Authority, Valid};
    use diskdelta::Disk;
    use diskdelta::peer::{ConnectOptions, DialOptions, Identity};

    let Some(at) = Fixture::new() else {
        return;
    };
    let authority = Authority::at(&at.path("ca-cert.pem"));
    let directory = at.directory.path();
    authority.sign(directory, "server", &["127.0.0.1"], Valid::Now);
    authority.sign(directory, "client", &[], Valid::Now);
    fs::rename(at.path("server.pem"), at.path("server-cert.pem")).unwrap();
    fs::rename(at.path("server.key"), at.path("server-key.pem")).unwrap();
    let certificates = format!("--tls-certificates={}", directory.display());
    let (_server, port) = at.serve_port(&["--tls=require", "--tls-verify-peer", &certificates]);
    let identity = Identity::new(
        at.path("client.pem"),
        at.path("client.key"),
        at.path("ca-cert.pem"),
    );
    let work = Work::with_threads(4).unwrap();
    let open = |scheme: &str, tls: Option<DialOptions>| {
        let location: Location = format!("{scheme}://127.0.0.1:{port}/").parse().unwrap();
        Disk::connect(&location, &ConnectOptions::default().with_tls(tls), &work)
    };
    let options = DialOptions::new(identity);
    let disk = open("nbds", Some(options.clone())).unwrap();
    let expected = Disk::open(at.path("disk.raw")).unwrap();
    assert!(expected.diff_from(&disk, &work).unwrap().is_identical());

    let error = open("nbd", None).unwrap_err();
    assert!(error.to_string().contains("nbds://"), "{error}");
    let error = open("nbds", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let other = options.with_name(Some("another".to_owned()));
    let error = open("nbds", Some(other)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
}

struct Fixture {
    directory: tempfile::TempDir,
    bytes: Vec<u8>,
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Fixture {
    /// `None` where nbdkit is missing and may be.
    fn new() -> Option<Self> {
        if Command::new("nbdkit").arg("--version").output().is_err() {
            eprintln!("LEFT OUT: nbdkit is missing");
            let required = std::env::var_os("DISKDELTA_REQUIRE_ORACLES");
            assert!(required.is_none_or(|it| it != "1"), "nbdkit is missing");
            return None;
        }
        let mut bytes = vec![0; LEN];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("disk.raw"), &bytes).unwrap();
        Some(Fixture { directory, bytes })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn address(&self) -> NbdAddress {
        NbdAddress::new(self.path("nbd.sock"), "")
    }

    fn serve(&self, filters: &[&str], more: &[&str]) -> Server {
        let socket = self.path("nbd.sock");
        let _ = fs::remove_file(&socket);
        let process = Command::new("nbdkit")
            .args(["-f", "-r", "-U"])
            .arg(&socket)
            .args(filters)
            .arg("file")
            .arg(self.path("disk.raw"))
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server(process);
        until(|| UnixStream::connect(&socket).is_ok());
        server
    }

    fn serve_port(&self, options: &[&str]) -> (Server, u16) {
        self.serve_port_with(options, &[])
    }

    fn serve_port_with(&self, options: &[&str], more: &[&str]) -> (Server, u16) {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let process = Command::new("nbdkit")
            .args(["-f", "-r", "-i", "127.0.0.1", "-p", &port.to_string()])
            .args(options)
            .arg("file")
            .arg(self.path("disk.raw"))
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server(process);
        until(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        (server, port)
    }
}

fn until(is_there: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no server");
        std::thread::sleep(Duration::from_millis(10));
    }
}

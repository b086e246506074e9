//! What QEMU exports reads as QEMU itself reads it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use diskdelta::diff::{CompareOptions, compare};
use diskdelta::image::nbd::NbdExport;
use diskdelta::image::{Image, Raw};
use diskdelta::storage::MemoryStorage;
use diskdelta::{CancelToken, ErrorKind, ExtentKind, NbdAddress, Work};
use std::sync::Arc;

#[test]
fn an_export_holds_what_qemu_reads_in_the_image() {
    let Some(fixture) = Fixture::new("64M") else {
        return;
    };
    for (offset, len) in [(0, 5000), (1 << 20, 300_000), ((64 << 20) - 4096, 4096)] {
        fixture.write(offset, len);
    }
    let server = fixture.serve(&["-e", "8"]);
    let export = NbdExport::open(&server.address("disk"), None).unwrap();
    let expected = fixture.raw();
    assert_eq!(export.disk_len(), expected.len() as u64);
    for (offset, len) in [(0, 1), (4999, 2), (1_048_575, 70_001), ((64 << 20) - 1, 1)] {
        let mut found = vec![0xff; len];
        export.read_exact_at(&mut found, offset).unwrap();
        let offset = usize::try_from(offset).unwrap();
        assert!(found == expected[offset..offset + len], "{offset}");
    }
    let error = export.read_exact_at(&mut [0; 2], (64 << 20) - 1);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Io);

    // Many readers at once, as a sync has them.
    let memory = Raw::open(Arc::new(MemoryStorage::new("expected", expected))).unwrap();
    let work = Work::with_threads(4).unwrap();
    let report = compare(&export, &memory, &CompareOptions::default(), &work, &|it| {
        panic!("differs at {}", it.offset)
    });
    assert_eq!(report.unwrap().changed_bytes, 0);
}

#[test]
fn holes_of_a_large_export_cost_nothing() {
    let Some(fixture) = Fixture::new("8T") else {
        return;
    };
    fixture.write(3 << 40, 65536);
    let server = fixture.serve(&[]);
    let export = NbdExport::open(&server.address("disk"), None).unwrap();
    assert_eq!(export.allocated_bytes().unwrap(), 65536);
    let at = (3 << 40) + 4096;
    let extent = export.next_extent(at).unwrap().unwrap();
    assert_eq!((extent.offset, extent.len), (at, 65536 - 4096));
    assert_eq!(extent.kind, ExtentKind::Data);
    assert_eq!(export.next_extent(8 << 40).unwrap(), None);
}

#[test]
fn a_dirty_bitmap_tells_what_was_written_since_it_was_made() {
    let Some(fixture) = Fixture::new("64M") else {
        return;
    };
    fixture.write(0, 1 << 20);
    fixture.qemu_img(&["bitmap", "--add", "-g", "65536"], &["since"]);
    fixture.write(200_000, 10);
    fixture.write(50 << 20, 100_000);
    let server = fixture.serve(&["-B", "since", "-e", "2"]);
    let export = NbdExport::open(&server.address("disk"), Some("since")).unwrap();
    let changed = export.changed(&CancelToken::new()).unwrap();
    assert_eq!(
        changed,
        [196_608..262_144, 50 << 20..(50 << 20) + 131_072],
        "whole granules of 64 KiB"
    );
    let stopped = CancelToken::new();
    stopped.cancel();
    let error = export.changed(&stopped).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let plain = NbdExport::open(&server.address("disk"), None).unwrap();
    let error = plain.changed(&CancelToken::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn an_unknown_export_an_unknown_bitmap_and_no_server_are_told_apart() {
    let Some(fixture) = Fixture::new("1M") else {
        return;
    };
    let server = fixture.serve(&[]);
    let open = |export: &str, bitmap| match NbdExport::open(&server.address(export), bitmap) {
        Ok(_) => panic!("there is no such thing"),
        Err(error) => (error.kind(), error.to_string()),
    };
    let (kind, text) = open("other", None);
    assert!(
        kind == ErrorKind::NotFound && text.contains("no export `other`"),
        "{text}"
    );
    let (kind, text) = open("disk", Some("gone"));
    assert!(
        kind == ErrorKind::NotFound && text.contains("dirty-bitmap:gone"),
        "{text}"
    );
    let nowhere = NbdAddress::new(fixture.path("no.sock"), "disk");
    let error = NbdExport::open(&nowhere, None).err().unwrap();
    assert!(error.to_string().contains("no.sock"), "{error}");
}

#[test]
fn a_server_that_dies_fails_the_read() {
    let Some(fixture) = Fixture::new("16M") else {
        return;
    };
    fixture.write(0, 65536);
    let server = fixture.serve(&[]);
    let export = NbdExport::open(&server.address("disk"), None).unwrap();
    drop(server);
    for _ in 0..2 {
        let error = export.read_exact_at(&mut [0; 512], 0).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::NotFound));
    }
}

/// A qcow2 image that QEMU's tools write and export.
struct Fixture {
    directory: tempfile::TempDir,
}

struct Server {
    process: Child,
    socket: PathBuf,
}

impl Fixture {
    /// `None` where the tools are missing and may be.
    fn new(size: &str) -> Option<Self> {
        for tool in ["qemu-img", "qemu-io", "qemu-nbd"] {
            if Command::new(tool).arg("--version").output().is_err() {
                eprintln!("LEFT OUT: {tool} is missing, so nobody exports anything");
                let required = std::env::var_os("DISKDELTA_REQUIRE_ORACLES");
                assert!(required.is_none_or(|it| it != "1"), "{tool} is missing");
                return None;
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let fixture = Fixture { directory };
        let image = fixture.path("disk.qcow2");
        done(
            Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2"])
                .arg(image)
                .arg(size),
        );
        Some(fixture)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, offset: u64, len: u64) {
        // A period that is prime, so that swapped blocks show.
        let pattern = self.path("pattern");
        let bytes: Vec<u8> = (0..251).map(|it| it ^ (offset % 7) as u8).collect();
        std::fs::write(&pattern, bytes).unwrap();
        let write = format!("write -s {} {offset} {len}", pattern.display());
        done(
            Command::new("qemu-io")
                .args(["-f", "qcow2", "-c", &write])
                .arg(self.path("disk.qcow2")),
        );
    }

    fn qemu_img(&self, before: &[&str], after: &[&str]) {
        let image = self.path("disk.qcow2");
        done(Command::new("qemu-img").args(before).arg(image).args(after));
    }

    fn raw(&self) -> Vec<u8> {
        let raw = self.path("disk.raw");
        let convert = ["convert", "-q", "-f", "qcow2", "-O", "raw"];
        done(
            Command::new("qemu-img")
                .args(convert)
                .arg(self.path("disk.qcow2"))
                .arg(&raw),
        );
        std::fs::read(raw).unwrap()
    }

    fn serve(&self, more: &[&str]) -> Server {
        let socket = self.path("nbd.sock");
        let process = Command::new("qemu-nbd")
            .args(["-r", "-t", "-f", "qcow2", "-x", "disk", "-k"])
            .arg(&socket)
            .args(more)
            .arg(self.path("disk.qcow2"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { process, socket };
        let begin = Instant::now();
        while std::os::unix::net::UnixStream::connect(&server.socket).is_err() {
            assert!(begin.elapsed() < Duration::from_secs(60), "no server");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }
}

impl Server {
    fn address(&self, export: &str) -> NbdAddress {
        let socket: &Path = &self.socket;
        NbdAddress::new(socket, export)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

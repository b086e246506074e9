//! Whole sessions, over lines of this host.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use diskdelta::image::ImageOptions;
use diskdelta::remote::{
    Claims, Client, Fault, FrameEncoder, Hello, Line, LineOptions, Message, RemoteJob,
    RemoteSource, ServeOptions, Served, Session, Side, SourceServer, TargetJob, serve,
};
use diskdelta::storage::{Allocation, SourceOptions, TargetOptions};
use diskdelta::sync::{
    HostSource, HostTarget, HostTargetOptions, Mode, Outcome, Safety, Source, SyncOptions,
    SyncReport, Traffic, Verified, Verify, sync,
};
use diskdelta::{BlockSize, ErrorKind, Limits, Result, Work};

use crate::disks::{PAGE, next_random, noise};

pub struct Fixture {
    directory: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Fixture {
        Fixture {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn disk(&self, name: &str, pages: u64, seed: u64) {
        let bytes: Vec<u8> = (1..=pages)
            .flat_map(|page| noise(PAGE as usize, page * 1000 + seed))
            .collect();
        fs::write(self.path(name), bytes).unwrap();
    }

    /// A copy of which every so many pages are another's, and some are zero.
    pub fn changed(&self, from: &str, name: &str, every: u64) {
        let mut bytes = fs::read(self.path(from)).unwrap();
        for (page, chunk) in (0..).zip(bytes.chunks_mut(PAGE as usize)) {
            match page % every {
                0 => chunk.copy_from_slice(&noise(chunk.len(), page + 1)),
                1 if page % 3 == 0 => chunk.fill(0),
                _ => {}
            }
        }
        fs::write(self.path(name), bytes).unwrap();
    }

    pub fn same(&self, one: &str, other: &str) -> bool {
        fs::read(self.path(one)).unwrap() == fs::read(self.path(other)).unwrap()
    }

    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn serve(&self) -> ServeOptions {
        ServeOptions::default().with_root(Some(self.directory.path().to_owned()))
    }

    pub fn source(&self, name: &str) -> HostSource {
        let (image, open) = (ImageOptions::default(), SourceOptions::default());
        HostSource::open(self.path(name), &image, &open).unwrap()
    }

    pub fn target(&self, name: &str) -> HostTarget {
        HostTarget::open(self.path(name), &HostTargetOptions::default()).unwrap()
    }
}

pub fn work() -> Work {
    Work::with_threads(2).unwrap()
}

/// A stream that breaks once so many bytes have gone over it.
struct Fragile {
    stream: UnixStream,
    left: Arc<AtomicI64>,
}

impl Fragile {
    fn spend(&self, count: usize) -> io::Result<()> {
        if self.left.fetch_sub(count as i64, Ordering::SeqCst) < count as i64 {
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl Read for Fragile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buf)?;
        self.spend(count)?;
        Ok(count)
    }
}

impl Write for Fragile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = buf.len().min(1000);
        self.spend(count)?;
        self.stream.write(buf.get(..count).unwrap())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// An agent on a thread, and a line to it that breaks after `most` bytes.
fn dial(options: ServeOptions, most: i64) -> (Result<Client>, JoinHandle<Result<Served>>) {
    let (here, there) = UnixStream::pair().unwrap();
    let reader = there.try_clone().unwrap();
    let agent = std::thread::spawn(move || serve(reader, there, &options, &work()));
    let left = Arc::new(AtomicI64::new(most));
    let one = Fragile {
        stream: here.try_clone().unwrap(),
        left: left.clone(),
    };
    let other = Fragile { stream: here, left };
    let client = Client::new(one, other, &LineOptions::default(), &work());
    (client, agent)
}

pub fn job(path: &str, target: Option<TargetJob>) -> RemoteJob {
    RemoteJob {
        path: path.as_bytes().to_vec(),
        format: None,
        target,
        live: false,
        marker_is_data: false,
        read_holes: false,
        address: None,
    }
}

pub fn target_job() -> TargetJob {
    TargetJob {
        mode: Mode::Auto,
        safety: Safety::Atomic,
        verify: Verify::Written,
        allocation: Allocation::Keep,
        create: None,
        align_bytes: 1,
        block_size: BlockSize::default(),
        allow_shrink: false,
        allow_larger: false,
        dry_run: false,
        skip_unreadable: false,
    }
}

/// The image at `path` of an agent, as a source.
pub fn open(client: Client, path: &str) -> Result<Source> {
    let (image, options) = (ImageOptions::default(), SourceOptions::default());
    client.open(path, &image, &options, &work())
}

/// Has an agent make its target at `path` hold what `source` holds.
pub fn push_over(
    client: Client,
    source: &HostSource,
    path: &str,
    how: TargetJob,
) -> Result<(SyncReport, Traffic)> {
    let target = HostTargetOptions::default()
        .with_create(how.create)
        .with_align_bytes(how.align_bytes)
        .with_open(TargetOptions::default().with_allocation(how.allocation));
    let mut target = client.target(path, &target);
    let report = target.sync_from(&source.source(), None, &how.sync_options(), &work())?;
    Ok((report.clone(), report.traffic.unwrap()))
}

pub fn pull(
    fixture: &Fixture,
    from: &str,
    onto: &str,
    options: &SyncOptions,
    most: i64,
) -> Result<(SyncReport, Traffic)> {
    let (client, agent) = dial(fixture.serve().with_read_only(true), most);
    let target = fixture.target(onto);
    let source = client.and_then(|client| open(client, from));
    let report = source.and_then(|source| sync(&source, target.target(), options, &work()));
    let report = report.map(|report| (report.clone(), report.traffic.unwrap()));
    drop(agent.join().unwrap());
    report
}

pub fn push(
    fixture: &Fixture,
    from: &str,
    onto: &str,
    how: TargetJob,
    most: i64,
) -> Result<(SyncReport, Traffic)> {
    let (client, agent) = dial(fixture.serve(), most);
    let source = fixture.source(from);
    let report = push_over(client?, &source, onto, how);
    drop(agent.join().unwrap());
    report
}

#[test]
fn both_directions_and_both_safeties_make_the_target_equal() {
    for safety in [Safety::Atomic, Safety::InPlace] {
        for verify in [Verify::Written, Verify::All, Verify::None] {
            let fixture = Fixture::new();
            fixture.disk("new.raw", 1500, 1);
            fixture.changed("new.raw", "here.raw", 9);
            fixture.changed("new.raw", "there.raw", 7);
            let options = SyncOptions::default()
                .with_safety(safety)
                .with_verify(verify);
            let (report, traffic) =
                pull(&fixture, "new.raw", "here.raw", &options, i64::MAX).unwrap();
            assert!(fixture.same("new.raw", "here.raw"));
            assert_eq!((report.outcome, report.safety), (Outcome::Synced, safety));
            assert!(traffic.received_bytes > report.written_bytes);
            assert!(
                traffic.received_bytes < report.changed_bytes + 65_536,
                "{traffic:?}"
            );
            let mut how = target_job();
            (how.safety, how.verify) = (safety, verify);
            let (report, _) = push(&fixture, "new.raw", "there.raw", how, i64::MAX).unwrap();
            assert!(fixture.same("new.raw", "there.raw"));
            assert_eq!((report.outcome, report.safety), (Outcome::Synced, safety));
            let evidence = match verify {
                Verify::Written => Verified::Written,
                Verify::All => Verified::All,
                _ => Verified::No,
            };
            assert_eq!(report.verified, evidence);
            let (report, _) = push(&fixture, "new.raw", "there.raw", how, i64::MAX).unwrap();
            assert_eq!(report.outcome, Outcome::Identical);
            assert_eq!(fixture.names(), ["here.raw", "new.raw", "there.raw"]);
        }
    }
}

#[test]
fn a_missing_target_is_created_in_its_format_and_lengths_follow_the_source() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 700, 1);
    push(&fixture, "new.raw", "made.vhdx", target_job(), i64::MAX).unwrap();
    push(&fixture, "new.raw", "copy.raw", target_job(), i64::MAX).unwrap();
    assert!(fixture.same("new.raw", "copy.raw"));
    let (report, _) = pull(
        &fixture,
        "made.vhdx",
        "copy.raw",
        &SyncOptions::default(),
        i64::MAX,
    )
    .unwrap();
    assert_eq!(report.outcome, Outcome::Identical);
    // A disk of an odd length, onto a format of whole sectors and onto a longer file.
    let odd = fs::read(fixture.path("new.raw")).unwrap();
    fs::write(fixture.path("odd.raw"), odd.get(..1_000_001).unwrap()).unwrap();
    push(&fixture, "odd.raw", "odd.vhd", target_job(), i64::MAX).unwrap();
    let options = SyncOptions::default();
    let error = pull(&fixture, "odd.raw", "copy.raw", &options, i64::MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let options = options.with_allow_shrink(true);
    pull(&fixture, "odd.raw", "copy.raw", &options, i64::MAX).unwrap();
    assert!(fixture.same("odd.raw", "copy.raw"));
}

#[test]
fn a_dry_run_says_what_would_change_and_writes_nothing() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 800, 1);
    fixture.changed("new.raw", "old.raw", 9);
    let before = fs::read(fixture.path("old.raw")).unwrap();
    let options = SyncOptions::default().with_dry_run(true);
    let (report, _) = pull(&fixture, "new.raw", "old.raw", &options, i64::MAX).unwrap();
    assert_eq!(report.outcome, Outcome::DryRun);
    assert!(report.changed_bytes > 0);
    assert!(fs::read(fixture.path("old.raw")).unwrap() == before);
}

#[test]
fn a_line_cut_anywhere_leaves_an_atomic_target_old_and_the_next_run_goes_on() {
    let mut rng = 11;
    let mut resumed = 0;
    for round in 0..24 {
        let fixture = Fixture::new();
        fixture.disk("new.raw", 1200, 1);
        fixture.changed("new.raw", "old.raw", 3);
        let before = fs::read(fixture.path("old.raw")).unwrap();
        let most = (next_random(&mut rng) % 2_000_000) as i64;
        let cut = match round % 2 {
            0 => pull(
                &fixture,
                "new.raw",
                "old.raw",
                &SyncOptions::default(),
                most,
            ),
            _ => push(&fixture, "new.raw", "old.raw", target_job(), most),
        };
        if cut.is_err() {
            let is_old = fs::read(fixture.path("old.raw")).unwrap() == before;
            assert!(
                is_old || fixture.same("new.raw", "old.raw"),
                "cut after {most} bytes"
            );
        }
        let (report, traffic) = match round % 2 {
            0 => pull(
                &fixture,
                "new.raw",
                "old.raw",
                &SyncOptions::default(),
                i64::MAX,
            )
            .unwrap(),
            _ => push(&fixture, "new.raw", "old.raw", target_job(), i64::MAX).unwrap(),
        };
        assert!(fixture.same("new.raw", "old.raw"), "cut after {most} bytes");
        assert_eq!(fixture.names(), ["new.raw", "old.raw"]);
        let moved = traffic.sent_bytes + traffic.received_bytes;
        let fresh = report.written_bytes.saturating_sub(report.resumed_bytes);
        assert!(
            moved < fresh + 100_000,
            "{moved} bytes for {fresh}, cut after {most}"
        );
        resumed += report.resumed_bytes;
    }
    assert!(resumed > 0, "nothing was ever taken over");
}

#[test]
fn a_line_cut_while_a_target_is_written_in_place_leaves_it_marked_until_a_run_ends() {
    let mut rng = 12;
    let mut marked = 0;
    for _ in 0..12 {
        let fixture = Fixture::new();
        fixture.disk("new.raw", 1200, 1);
        fixture.changed("new.raw", "old.raw", 3);
        let mut how = target_job();
        how.safety = Safety::InPlace;
        let most = 200_000 + (next_random(&mut rng) % 1_500_000) as i64;
        if push(&fixture, "new.raw", "old.raw", how, most).is_err() {
            let is_marked = fixture.target("old.raw").marker().unwrap().is_some();
            marked += u32::from(is_marked);
        }
        push(&fixture, "new.raw", "old.raw", how, i64::MAX).unwrap();
        assert!(fixture.same("new.raw", "old.raw"), "cut after {most} bytes");
        assert_eq!(fixture.names(), ["new.raw", "old.raw"]);
    }
    assert!(marked > 0);
}

#[test]
fn an_agent_that_only_reads_writes_nothing_and_none_serves_what_lies_outside() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 100, 1);
    fixture.disk("old.raw", 100, 2);
    let before = fs::read(fixture.path("old.raw")).unwrap();
    let (client, agent) = dial(fixture.serve().with_read_only(true), i64::MAX);
    let source = fixture.source("new.raw");
    let error = push_over(client.unwrap(), &source, "old.raw", target_job()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("only reads"), "{error}");
    assert!(matches!(agent.join().unwrap().unwrap(), Served::Refused(_)));
    assert!(fs::read(fixture.path("old.raw")).unwrap() == before);
    assert_eq!(fixture.names(), ["new.raw", "old.raw"]);

    let outside = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(outside.path(), fixture.path("link.raw")).unwrap();
    let absolute = outside.path().to_str().unwrap();
    for wrong in ["link.raw", "../x", absolute, "/etc/passwd"] {
        let error = pull(
            &fixture,
            wrong,
            "old.raw",
            &SyncOptions::default(),
            i64::MAX,
        )
        .unwrap_err();
        let kinds = [ErrorKind::InvalidInput, ErrorKind::NotFound];
        assert!(kinds.contains(&error.kind()), "{wrong}: {error}");
        let error = push(&fixture, "new.raw", wrong, target_job(), i64::MAX).unwrap_err();
        assert!(kinds.contains(&error.kind()), "{wrong}: {error}");
    }
    assert_eq!(outside.as_file().metadata().unwrap().len(), 0);
}

#[test]
fn no_job_names_a_file_that_syncs_make_for_themselves() {
    let fixture = Fixture::new();
    fixture.disk("log.raw", 100, 1);
    fixture.disk("t.raw", 100, 2);
    std::fs::create_dir(fixture.path(".diskdelta-failback")).unwrap();
    std::fs::create_dir(fixture.path("own")).unwrap();
    std::fs::write(fixture.path("own/x.raw"), "x").unwrap();
    std::os::unix::fs::symlink("own", fixture.path("alias")).unwrap();
    std::os::unix::fs::symlink(".t.raw.diskdelta-log", fixture.path("link.raw")).unwrap();
    let before = fixture.names();
    for name in [
        ".t.raw.diskdelta-log",
        ".T.raw.DiskDelta-Log",
        ".t.raw.0123456789abcdef0123456789abcdef.diskdelta-log",
        ".t.raw.diskdelta-new",
        ".t.raw.part",
        ".m.new",
        "..t.raw.diskdelta-log.fresh",
        "..t.raw.diskdelta-log.previous",
        ".diskdelta-failback/t.token",
        "link.raw",
        "own/x.raw",
        "own/new.raw",
        "alias/x.raw",
    ] {
        for root in [Some(fixture.path("")), None] {
            let path = match root {
                Some(_) => name.to_owned(),
                None => fixture.path(name).to_str().unwrap().to_owned(),
            };
            let serve = fixture
                .serve()
                .with_root(root)
                .with_manifest_cache(Some(fixture.path("own")));
            let (client, agent) = dial(serve.clone(), i64::MAX);
            let source = fixture.source("log.raw");
            let error = push_over(client.unwrap(), &source, &path, target_job()).unwrap_err();
            // A link that leads nowhere yet is refused as one that leads outside.
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}: {error}");
            drop(agent.join().unwrap());
            let (client, agent) = dial(serve, i64::MAX);
            assert!(open(client.unwrap(), &path).is_err());
            drop(agent.join().unwrap());
        }
    }
    assert_eq!(fixture.names(), before);
}

#[test]
fn what_does_not_go_across_hosts_is_refused() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 100, 1);
    fixture.disk("old.raw", 100, 2);
    let kept = diskdelta::storage::FileRef::host(fixture.path("kept")).unwrap();
    let wrong = [
        // Blocks that are not the ones of a comparison.
        SyncOptions::default()
            .with_target_manifest(Some(kept))
            .with_block_size(BlockSize::MIN),
    ];
    for options in wrong {
        let error = pull(&fixture, "new.raw", "old.raw", &options, i64::MAX).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    assert!(!fixture.same("new.raw", "old.raw"));
}

/// Answers from `source` at the other end of a line, and passes the disk there to `with`.
fn with_remote<T>(source: HostSource, check: bool, with: impl FnOnce(RemoteSource) -> T) -> T {
    let (here, there) = UnixStream::pair().unwrap();
    let agent = std::thread::spawn(move || {
        let line = Line::new(there.try_clone().unwrap(), there, LineOptions::default()).unwrap();
        let session = Session::greet(line, Side::Agent, work().cancel()).unwrap();
        let source_server = SourceServer {
            image: source.image().clone(),
            check: &|| if check { source.check() } else { Ok(()) },
            warnings: Vec::new(),
            cached: None,
        };
        if let Err(error) = source_server.answer(&session, &work()) {
            let fault = Box::new(Fault::of(&error, false));
            drop(session.line().send(&Message::Fail(fault)));
        }
        session.finish();
    });
    let line = Line::new(here.try_clone().unwrap(), here, LineOptions::default()).unwrap();
    let session = Session::greet(line, Side::Client, work().cancel()).unwrap();
    let value = with(RemoteSource::open(session, &Limits::default(), work().cancel()).unwrap());
    agent.join().unwrap();
    value
}

#[test]
fn differences_that_short_hashes_hid_are_found_with_long_ones_in_the_same_run() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 1600, 1);
    fixture.disk("old.raw", 1600, 2);
    let report = with_remote(fixture.source("new.raw"), true, |remote| {
        let source = remote.for_client().with_hash_len(1).into_source();
        let target = fixture.target("old.raw");
        let options = SyncOptions::default().with_mode(Mode::Delta);
        sync(&source, target.target(), &options, &work()).unwrap()
    });
    assert!(fixture.same("new.raw", "old.raw"));
    assert!(report.resumed_bytes > 0, "nothing was missed at first");
}

#[test]
fn a_source_that_is_written_to_meanwhile_leaves_an_atomic_target_untouched() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 400, 1);
    fixture.disk("old.raw", 400, 2);
    let before = fs::read(fixture.path("old.raw")).unwrap();
    let source = fixture.source("new.raw");
    let file = fs::File::options()
        .write(true)
        .open(fixture.path("new.raw"))
        .unwrap();
    file.write_all_at(b"changed", 5000).unwrap();
    drop(file);
    let error = with_remote(source, true, |remote| {
        let source = remote.into_source();
        let target = fixture.target("old.raw");
        let done = sync(&source, target.target(), &SyncOptions::default(), &work());
        done.unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::SourceChanged, "{error}");
    assert!(fs::read(fixture.path("old.raw")).unwrap() == before);
}

#[test]
fn an_end_of_another_version_is_refused_and_so_is_a_shell_that_prints() {
    let greet = |bytes: Vec<u8>| {
        let (here, mut there) = UnixStream::pair().unwrap();
        there.write_all(&bytes).unwrap();
        let client = Client::new(
            here.try_clone().unwrap(),
            here,
            &LineOptions::default(),
            &work(),
        );
        client.map(drop).unwrap_err()
    };
    let frame = Message::Hello(Hello {
        version_least: 900,
        version_most: 901,
        features: 0,
        random: [1; 32],
    })
    .encode();
    let mut bytes = Vec::new();
    FrameEncoder::default()
        .encode(frame.kind, &frame.payload, &mut bytes)
        .unwrap();
    let error = greet(bytes);
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("900"), "{error}");
    let error = greet(b"Welcome! You have no new mail.\n".to_vec());
    assert!(error.to_string().contains("Welcome!"), "{error}");
}

#[test]
fn silence_is_an_error_that_says_what_was_awaited() {
    let (here, there) = UnixStream::pair().unwrap();
    let options = LineOptions::default().with_silence(Duration::from_millis(300));
    let client = Client::new(here.try_clone().unwrap(), here, &options, &work());
    let error = client.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(
        error
            .to_string()
            .starts_with("the agent said nothing for 0.3 s while its greeting was awaited; run it"),
        "{error}"
    );
    drop(there);
}

#[test]
fn signs_of_life_keep_a_slow_end_from_being_given_up() {
    let (here, there) = UnixStream::pair().unwrap();
    let options = LineOptions::default().with_silence(Duration::from_millis(600));
    let one = Line::new(here.try_clone().unwrap(), here, options.clone()).unwrap();
    let other = Line::new(there.try_clone().unwrap(), there, options).unwrap();
    let slow = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1500));
        other.send(&Message::Checked).unwrap();
        other.finish();
    });
    assert_eq!(
        one.receive("a check", work().cancel()).unwrap(),
        Message::Checked
    );
    slow.join().unwrap();
}

#[test]
fn signs_of_life_alone_do_not_hold_a_line_that_is_to_be_used() {
    let options = LineOptions::default().with_silence(Duration::from_secs(3));
    let limited = [
        (
            options.clone().with_idle(Some(Duration::from_secs(1))),
            "gave nothing but signs of life for 1 s while its job was awaited",
        ),
        (
            options.clone().with_longest(Some(Duration::from_secs(1))),
            "took more than 1 s, all that it is given",
        ),
    ];
    for (limited, text) in limited {
        let (here, there) = UnixStream::pair().unwrap();
        let one = Line::new(here.try_clone().unwrap(), here, limited).unwrap();
        let other = Line::new(there.try_clone().unwrap(), there, options.clone()).unwrap();
        let error = one.receive("its job", work().cancel()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(error.to_string().contains(text), "{error}");
        drop(other);
    }
}

#[test]
fn an_end_that_takes_nothing_is_told_from_one_that_only_says_nothing() {
    let (here, there) = UnixStream::pair().unwrap();
    let options = LineOptions::default().with_silence(Duration::from_millis(500));
    let line = Line::new(here.try_clone().unwrap(), here, options).unwrap();
    let bulk = Message::Claims(Claims {
        disk_len: 1 << 40,
        groups: (0..1000).map(|_| (Vec::new(), [7; 32])).collect(),
    });
    for _ in 0..100 {
        line.send(&bulk).unwrap();
    }
    let error = line.receive("its answer", work().cancel()).unwrap_err();
    assert!(
        error.to_string().contains("and took none of the"),
        "{error}"
    );
    drop(there);
}

#[test]
fn a_path_is_taken_from_the_root() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 50, 1);
    fixture.disk("old.raw", 50, 2);
    let whole = fixture.path("new.raw");
    let whole: &Path = &fs::canonicalize(whole).unwrap();
    for name in ["new.raw", "/new.raw", whole.to_str().unwrap()] {
        pull(&fixture, name, "old.raw", &SyncOptions::default(), i64::MAX).unwrap();
    }
    assert!(fixture.same("new.raw", "old.raw"));
}

//! The first page of the crate, as an embedder uses it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what fails here fails the test"
)]

use std::fs;
use std::iter;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diskdelta::peer::{ConnectOptions, Retry, ShellOptions};
use diskdelta::storage::MemoryStorage;
use diskdelta::sync::{Mode, Outcome, Recovered, Safety, Verified};
use diskdelta::{
    Allocation, Block, CancelToken, CreateFormat, Delta, Disk, ErrorKind, Extent, Format, Location,
    Manifest, Phase, Progress, SyncTarget, TargetState, Work,
};
use tempfile::TempDir;

const BLOCK: usize = 64 << 10;

struct Fixture {
    directory: TempDir,
    work: Work,
}

impl Fixture {
    /// `new.raw` differs from `old.raw` in its third block, and its second is zeros in both.
    fn new() -> Self {
        let fixture = Fixture {
            directory: tempfile::tempdir().unwrap(),
            work: Work::with_threads(2).unwrap(),
        };
        let mut disk = vec![7; 40 * BLOCK];
        disk[BLOCK..2 * BLOCK].fill(0);
        fs::write(fixture.path("old.raw"), &disk).unwrap();
        disk[2 * BLOCK..3 * BLOCK].fill(9);
        fs::write(fixture.path("new.raw"), &disk).unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn disk(&self, name: &str) -> Disk {
        Disk::open(self.path(name)).unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
}

fn changed() -> Vec<Extent> {
    vec![Extent::data(2 * BLOCK as u64..3 * BLOCK as u64)]
}

#[test]
fn a_manifest_tells_each_block_and_where_a_disk_differs() {
    let at = Fixture::new();
    let (old, new) = (at.disk("old.raw"), at.disk("new.raw"));
    old.save_manifest(at.path("old.manifest"), &at.work)
        .unwrap();
    let manifest = Manifest::open(at.path("old.manifest")).unwrap();
    assert_eq!(manifest.root(), old.root(&at.work).unwrap());
    assert_eq!(manifest.block(1).unwrap(), Block::Zero);
    assert_eq!(manifest.block(40).unwrap(), Block::PastEnd);
    let first = diskdelta::Hash::from_bytes(blake3::hash(&[7; BLOCK]).into());
    assert_eq!(manifest.block(0).unwrap(), Block::Hash(first));
    assert!(old.verify(&manifest, &at.work).unwrap().is_identical());
    assert_eq!(new.verify(&manifest, &at.work).unwrap().extents, changed());
    assert_eq!(new.diff_from(&old, &at.work).unwrap().extents, changed());
    let of_hash = manifest
        .root()
        .to_string()
        .parse::<diskdelta::Hash>()
        .unwrap();
    assert_eq!(of_hash, manifest.root());
}

#[test]
fn deltas_are_made_inspected_merged_applied_and_undone() {
    let at = Fixture::new();
    let (old, new) = (at.disk("old.raw"), at.disk("new.raw"));
    let info = new.delta_from(&old, at.path("d"), &at.work).unwrap();
    assert_eq!((info.data_bytes, info.zero_bytes), (BLOCK as u64, 0));
    assert_eq!(info.root, Some(new.root(&at.work).unwrap()));
    let delta = Delta::open(at.path("d")).unwrap();
    assert_eq!(delta.extents(&at.work).unwrap(), changed());

    old.delta_from(&new, at.path("back"), &at.work).unwrap();
    let back = Delta::open(at.path("back")).unwrap();
    let merged = Delta::merge(&[delta.clone(), back], at.path("merged"), &at.work).unwrap();
    assert_eq!(merged.root, info.base_root);

    fs::copy(at.path("old.raw"), at.path("t.raw")).unwrap();
    let apply = delta.apply_to(at.path("t.raw")).undo(at.path("t.undo"));
    let report = apply.run(&at.work).unwrap();
    assert_eq!(
        (report.outcome, report.changed_bytes),
        (Outcome::Synced, BLOCK as u64)
    );
    assert_eq!(at.bytes("t.raw"), at.bytes("new.raw"));
    diskdelta::undo(at.path("t.undo"), at.path("t.raw"), &at.work).unwrap();
    assert_eq!(at.bytes("t.raw"), at.bytes("old.raw"));
}

#[test]
fn what_has_no_meaning_for_a_delta_is_refused() {
    let at = Fixture::new();
    let (old, new) = (at.disk("old.raw"), at.disk("new.raw"));
    new.delta_from(&old, at.path("d"), &at.work).unwrap();
    drop((old, new));
    let delta = Delta::open(at.path("d")).unwrap();
    let apply = || delta.apply_to(at.path("old.raw"));
    for (sync, field) in [
        (apply().mode(Mode::Full), "mode"),
        (apply().only(iter::once(0..5)), "only"),
        (apply().dry_run(), "dry_run"),
    ] {
        let error = sync.run(&at.work).unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::InvalidInput, Some(field))
        );
    }
}

#[test]
fn a_sync_creates_changes_and_takes_back() {
    let at = Fixture::new();
    let (old, new) = (at.disk("old.raw"), at.disk("new.raw"));
    let target = at.path("t.raw");
    assert_eq!(
        old.sync_to(&target).run(&at.work).unwrap().outcome,
        Outcome::Synced
    );
    let dry = new.sync_to(&target).dry_run().run(&at.work).unwrap();
    assert_eq!(
        (dry.outcome, dry.changed_bytes),
        (Outcome::DryRun, BLOCK as u64)
    );
    let report = new
        .sync_to(&target)
        .mode(Mode::Delta)
        .undo(at.path("u"))
        .run(&at.work)
        .unwrap();
    assert_eq!(
        (report.outcome, report.verified),
        (Outcome::Synced, Verified::Written)
    );
    assert_eq!(at.bytes("t.raw"), at.bytes("new.raw"));
    assert_eq!(
        new.sync_to(&target).run(&at.work).unwrap().outcome,
        Outcome::Identical
    );
    diskdelta::undo(at.path("u"), &target, &at.work).unwrap();
    assert_eq!(at.bytes("t.raw"), at.bytes("old.raw"));
    assert_eq!(
        diskdelta::recover(&target, &at.work).unwrap(),
        Recovered::Nothing
    );
}

#[test]
fn a_change_map_is_the_evidence_and_a_reversed_range_is_refused() {
    let at = Fixture::new();
    let new = at.disk("new.raw");
    let changed = 2 * BLOCK as u64..3 * BLOCK as u64;
    let sync = new
        .sync_to(at.path("old.raw"))
        .only(iter::once(changed.clone()));
    assert_eq!(sync.run(&at.work).unwrap().verified, Verified::Tracked);
    assert_eq!(at.bytes("old.raw"), at.bytes("new.raw"));
    let reversed = std::ops::Range { start: 5, end: 4 };
    let error = new
        .sync_to(at.path("old.raw"))
        .only(iter::once(reversed))
        .run(&at.work)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_change_map_is_used_where_a_target_manifest_describes_the_target() {
    let at = Fixture::new();
    let run = |ranges: &[std::ops::Range<u64>]| {
        let new = at.disk("new.raw");
        let sync = new
            .sync_to(at.path("old.raw"))
            .only(ranges.iter().cloned())
            .target_manifest(at.path("kept"));
        sync.run(&at.work).unwrap()
    };
    let change = |name: &str, block: usize, value: u8| {
        let mut bytes = at.bytes(name);
        bytes[block * BLOCK] = value;
        fs::write(at.path(name), bytes).unwrap();
    };
    let block = |number: usize| (number * BLOCK) as u64..((number + 1) * BLOCK) as u64;

    // Nothing was kept yet: the map leaves all out, and nothing is left out.
    let report = run(&[]);
    assert_eq!(report.verified, Verified::Written);
    assert!(report.notes.iter().any(|note| note.contains("change map")));
    assert_eq!(at.bytes("old.raw"), at.bytes("new.raw"));

    // Of two changes the tracker knows one. The other is found by the next sync without a map.
    change("new.raw", 5, 1);
    change("new.raw", 9, 2);
    let report = run(&[block(5)]);
    assert_eq!(report.verified, Verified::Tracked);
    assert_eq!(report.compared_bytes, BLOCK as u64);
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    assert_eq!(at.bytes("old.raw")[5 * BLOCK], 1);
    assert_eq!(at.bytes("old.raw")[9 * BLOCK], 7);
    let kept = Manifest::open(at.path("kept")).unwrap();
    assert_eq!(kept.root(), at.disk("old.raw").root(&at.work).unwrap());
    let sync = at.disk("new.raw");
    let sync = sync
        .sync_to(at.path("old.raw"))
        .target_manifest(at.path("kept"));
    assert_eq!(sync.run(&at.work).unwrap().changed_bytes, 4096);
    assert_eq!(at.bytes("old.raw"), at.bytes("new.raw"));

    // Written to by another program: what the map leaves out is no longer known to be equal.
    change("old.raw", 20, 3);
    change("new.raw", 5, 4);
    let report = run(&[block(5)]);
    assert_eq!(report.verified, Verified::Written);
    assert_eq!(at.bytes("old.raw"), at.bytes("new.raw"));
}

#[test]
fn a_change_map_and_a_target_manifest_follow_a_disk_that_grows() {
    let at = Fixture::new();
    let grow = |len: usize| {
        let mut bytes = at.bytes("new.raw");
        bytes.resize(len, 8);
        fs::write(at.path("new.raw"), bytes).unwrap();
        let new = at.disk("new.raw");
        let sync = new.sync_to(at.path("old.raw")).only(iter::empty());
        let report = sync.target_manifest(at.path("kept")).run(&at.work).unwrap();
        assert_eq!(at.bytes("old.raw"), at.bytes("new.raw"));
        let root = new.root(&at.work).unwrap();
        let kept = Manifest::open(at.path("kept")).unwrap();
        assert_eq!(kept.root(), root, "{len}: {report:?}");
        assert_eq!(report.root, Some(root), "{len}: {report:?}");
    };
    grow(40 * BLOCK);
    grow(41 * BLOCK + 4608);
    grow(41 * BLOCK + 8192);
}

#[test]
fn a_disk_is_not_synced_onto_itself_under_any_name() {
    let at = Fixture::new();
    std::os::unix::fs::symlink(at.path("new.raw"), at.path("link.raw")).unwrap();
    fs::hard_link(at.path("new.raw"), at.path("second.raw")).unwrap();
    let new = at.disk("new.raw");
    for name in ["new.raw", "link.raw", "second.raw"] {
        let error = new.sync_to(at.path(name)).run(&at.work).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
        assert_eq!(
            error.target_state(),
            Some(TargetState::Untouched),
            "{error}"
        );
    }
}

#[test]
fn a_storage_of_the_callers_own_is_source_and_target() {
    let at = Fixture::new();
    let store = |name: &str| Arc::new(MemoryStorage::new(name, at.bytes(name)));
    let new = Disk::from_storage(store("new.raw"), Format::Raw).unwrap();
    let target = store("old.raw");
    let onto = SyncTarget::storage(target.clone(), Format::Raw, at.path("log"));
    let report = new.sync_to(onto).mode(Mode::Delta).run(&at.work).unwrap();
    assert_eq!(report.changed_bytes, BLOCK as u64);
    assert!(
        new.diff_from(&Disk::from_storage(target, Format::Raw).unwrap(), &at.work)
            .unwrap()
            .is_identical()
    );
    assert!(!at.path("log").exists());
}

#[test]
fn what_has_no_meaning_for_a_storage_of_the_callers_own_is_refused() {
    let at = Fixture::new();
    let new = at.disk("new.raw");
    let storage = Arc::new(MemoryStorage::new("mine", at.bytes("old.raw")));
    let onto = || {
        let target = SyncTarget::storage(storage.clone(), Format::Raw, at.path("log"));
        new.sync_to(target)
    };
    for (sync, field) in [
        (onto().create(CreateFormat::Raw), "create"),
        (onto().log_dir(at.path("logs")), "log_dir"),
        (onto().allocation(Allocation::Sparse), "allocation"),
        (onto().part_links(), "part_links"),
    ] {
        let error = sync.run(&at.work).unwrap_err();
        assert_eq!(
            (error.kind(), error.field()),
            (ErrorKind::InvalidInput, Some(field))
        );
    }
    assert_eq!(storage.to_vec(), at.bytes("old.raw"));
}

#[test]
fn a_sync_is_begun_again_where_its_connection_broke_and_a_client_does_one_sync() {
    let at = Fixture::new();
    let shell = at.path("shell");
    let script = format!(
        "#!/bin/sh\n[ -e {broken} ] || {{ touch {broken}; exit 1; }}\nexec {agent} serve --stdio\n",
        broken = at.path("broken").display(),
        agent = env!("CARGO_BIN_EXE_diskdelta"),
    );
    fs::write(&shell, script).unwrap();
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
    let options = ShellOptions::default().with_shell(shell.display().to_string());
    let connect = ConnectOptions::default().with_shell(options);
    let there = format!("ssh://host{}", at.path("old.raw").display());
    let new = at.disk("new.raw");
    let push = |connect: ConnectOptions| {
        let target: Location = there.parse().unwrap();
        new.sync_to(target).connect(connect).run(&at.work)
    };
    assert_eq!(push(connect.clone()).unwrap_err().kind(), ErrorKind::Io);
    fs::remove_file(at.path("broken")).unwrap();
    let retry = Retry::new(1).with_pause(Duration::ZERO);
    let report = push(connect.clone().with_retry(retry)).unwrap();
    assert_eq!(report.outcome, Outcome::Synced);
    assert_eq!(at.bytes("old.raw"), at.bytes("new.raw"));

    let Location::Remote(address) = there.parse().unwrap() else {
        panic!("an address");
    };
    let client = connect.connect(&address, &at.work).unwrap();
    let over = new.sync_to(at.path("old.raw")).over(client);
    assert_eq!(
        over.clone().run(&at.work).unwrap().outcome,
        Outcome::Identical
    );
    let again = over.run(&at.work).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::InvalidInput, "{again}");
}

#[test]
fn an_error_tells_what_became_of_the_target() {
    let at = Fixture::new();
    let new = at.disk("new.raw");
    let onto = || new.sync_to(at.path("old.raw"));
    let states = [
        (Safety::Atomic, Phase::Diff, TargetState::Untouched),
        (Safety::InPlace, Phase::Verify, TargetState::RunAgain),
    ];
    for (safety, phase, expected) in states {
        let cancel = CancelToken::new();
        let work = at.work.clone().with_cancel(cancel.clone());
        let work = work.with_progress(Arc::new(CancelAt(phase, cancel)));
        let sync = onto().mode(Mode::Delta).safety(safety);
        let error = sync.run(&work).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        assert_eq!(error.target_state(), Some(expected), "{error}");
    }
    let refused = diskdelta::discard(at.path("old.raw"), &at.work).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Incomplete);
    let error = onto().run(&at.work).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incomplete);
    assert_eq!(error.target_state(), Some(TargetState::RunAgain));
    onto().safety(Safety::InPlace).run(&at.work).unwrap();
    assert_eq!(at.bytes("old.raw"), at.bytes("new.raw"));
}

/// Cancels, twice, where a phase begins.
struct CancelAt(Phase, CancelToken);

impl Progress for CancelAt {
    fn begin(&self, phase: Phase, _total_bytes: Option<u64>) {
        if phase == self.0 {
            self.1.cancel();
            self.1.cancel();
        }
    }

    fn advance(&self, _bytes: u64) {}
}

#[test]
fn a_location_is_synced_like_a_path() {
    let at = Fixture::new();
    let locate = |name: &str| -> Location { at.path(name).to_str().unwrap().parse().unwrap() };
    let connect = ConnectOptions::default();
    let new = Disk::connect(&locate("new.raw"), &connect, &at.work).unwrap();
    let report = new.sync_to(locate("old.raw")).run(&at.work).unwrap();
    assert_eq!(report.outcome, Outcome::Synced);
    assert_eq!(at.bytes("old.raw"), at.bytes("new.raw"));
}

#[test]
fn progress_goes_to_the_end_of_each_phase() {
    let at = Fixture::new();
    let ticks = Arc::new(Mutex::new(Vec::new()));
    let seen = ticks.clone();
    let work = at
        .work
        .clone()
        .on_progress(move |tick| seen.lock().unwrap().push(tick));
    at.disk("new.raw").root(&work).unwrap();
    let ticks = ticks.lock().unwrap();
    let last = ticks.last().unwrap();
    assert_eq!(
        (last.phase, last.total_bytes),
        (Phase::Hash, Some(40 * BLOCK as u64))
    );
    assert_eq!(last.done_bytes, 40 * BLOCK as u64);
}

#[cfg(feature = "serde")]
#[test]
fn reports_serialize() {
    let fixture = Fixture::new();
    let source = fixture.disk("new.raw");
    let diff = source.diff_from(&fixture.disk("old.raw"), &fixture.work);
    let diff = serde_json::to_value(diff.unwrap()).unwrap();
    assert_eq!(diff["extents"][0]["kind"], "data");
    let target = fixture.path("old.raw");
    let report = source.sync_to(target).run(&fixture.work).unwrap();
    let length = report.changed_bytes;
    let report = serde_json::to_value(report).unwrap();
    assert_eq!(report["outcome"], "synced");
    assert_eq!(report["safety"], "atomic");
    assert_eq!(report["changed_bytes"], length);
    assert!(report["elapsed_seconds"].is_f64());
    let info = serde_json::to_value(source.info()).unwrap();
    assert_eq!(info["format"], "raw");
    assert_eq!(info["layout"], "flat");
    let root = source.root(&fixture.work).unwrap();
    assert_eq!(serde_json::to_value(root).unwrap(), root.to_string());
}

#[test]
fn the_examples_do_what_they_say() {
    let at = Fixture::new();
    let path = |name: &str| at.path(name).to_str().unwrap().to_owned();
    let (old, new) = (path("old.raw"), path("new.raw"));
    let directory = at.directory.path().to_str().unwrap().to_owned();
    let run = |name: &str, args: &[&str]| example(name, args);
    assert!(run("verify", &[&old, &path("m")]).contains("identical: true"));
    assert!(run("diff", &[&old, &new]).contains("65536 bytes differ"));
    assert!(run("delta", &[&old, &new, &directory]).contains("taken back: Synced"));
    assert!(run("own_storage", &[&new, &path("log")]).contains("bytes changed"));
    for (name, way) in [
        ("sync", None),
        ("async_runtime", None),
        ("errors", None),
        ("transport", Some("pull")),
        ("transport", Some("push")),
    ] {
        let target = path(&format!("{name}.raw"));
        fs::copy(&old, &target).unwrap();
        let args: Vec<_> = way.into_iter().chain([&*new, &*target]).collect();
        assert!(run(name, &args).contains("Synced"), "{name}");
        assert_eq!(fs::read(&target).unwrap(), at.bytes("new.raw"), "{name}");
    }
    assert!(run("change_map", &[&new, &old, "131072", "65536"]).contains("Tracked"));
    assert_eq!(at.bytes("old.raw"), at.bytes("new.raw"));
    assert!(run("errors", &[&path("none"), &old]).starts_with("missing"));
}

/// What an example prints; cargo builds them with the tests.
fn example(name: &str, args: &[&str]) -> String {
    let own = std::env::current_exe().unwrap();
    let built = own.parent().unwrap().parent().unwrap().join("examples");
    let output = Command::new(built.join(name))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("cargo build --examples makes it");
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

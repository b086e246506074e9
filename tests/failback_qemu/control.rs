//! The controller, verb by verb, on a real QEMU whose guest is nobody: what a guest would write is
//! written through the monitor.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use diskdelta::Location;
use diskdelta::failback::machine::{Action, Checkpoint, Side, Token, VmSeen};
use diskdelta::failback::vm::qemu::qmp::Qmp;
use diskdelta::failback::vm::{Call, Changes, DiskChanges, Facts, QemuController, VmController};
use diskdelta::image::Image;
use diskdelta::image::nbd::NbdExport;
use diskdelta::{CancelToken, ErrorKind};
use serde_json::json;

use super::guest::qemu_is_there;

#[test]
fn a_snapshot_holds_one_moment_of_all_disks_and_tells_what_was_written_before_it() {
    let Some(vm) = Machine::new() else { return };
    vm.begin();
    let since = vm.arm(1, None);
    vm.write(0, 0, 4096, 1);
    vm.write(1, 1 << 20, 65536, 2);
    vm.snapshot(2);
    vm.write(0, 0, 4096, 3);
    vm.write(1, 2 << 20, 4096, 4);

    let disks = vm.changes(3, Some(since), true);
    assert_eq!(disks[0].changed, only(0..65536));
    assert_eq!(disks[1].changed, only(1 << 20..(1 << 20) + 65536));
    assert_eq!(
        vm.read(&disks[0], 0..4096),
        [1; 4096],
        "what was overwritten since"
    );
    assert_eq!(vm.read(&disks[1], 2 << 20..(2 << 20) + 512), [0; 512]);
    // The same command again changes nothing; a newer one takes a new moment.
    vm.snapshot(3);
    let disks = vm.changes(3, Some(since), true);
    assert_eq!(vm.read(&disks[0], 0..4096), [3; 4096]);
    vm.snapshot(3);
    vm.write(0, 0, 512, 9);
    let disks = vm.changes(3, Some(since), true);
    assert_eq!(vm.read(&disks[0], 0..512), [3; 512]);
    assert_eq!(disks[1].changed.as_ref().unwrap().len(), 2);

    let next = vm.arm(4, Some(since));
    vm.snapshot(5);
    let before = vm.changes(5, Some(since), true);
    assert_eq!(
        before[1].changed.as_ref().unwrap().len(),
        2,
        "kept while it is needed"
    );
    let after = vm.changes(5, Some(next), true);
    assert_eq!(after[1].changed, Some(vec![]));
    for token in [6, 7] {
        vm.controller
            .execute(&vm.call(token), Action::Release)
            .unwrap();
        assert_eq!(vm.scratch_files(), 0);
    }
    let lost = vm
        .controller
        .changes_since(&vm.call(7), None, true)
        .unwrap();
    assert_eq!(lost, Changes::SnapshotLost);
}

#[test]
fn what_was_tracked_outlives_a_shutdown_and_goes_on_after_the_next_start() {
    let Some(vm) = Machine::new() else { return };
    vm.begin();
    let since = vm.arm(1, None);
    vm.write(0, 0, 4096, 1);
    // It has not run, so that it is off as it is.
    let seen = vm
        .controller
        .execute(&vm.call(2), Action::ShutDown)
        .unwrap();
    assert!(
        seen.fenced && !seen.running,
        "fenced before it lets its disks go"
    );
    assert!(vm.monitor().is_none(), "nobody holds the disks");
    let disks = vm.changes(3, Some(since), false);
    assert_eq!(disks[0].changed, only(0..65536));
    assert_eq!(disks[0].address.path(), Some(&*vm.disk(0)));

    let next = vm.arm(4, Some(since));
    let disks = vm.changes(5, Some(next), false);
    assert_eq!(disks[0].changed, Some(vec![]), "nobody wrote since");
    let seen = vm.controller.execute(&vm.call(6), Action::Start).unwrap();
    assert!(!seen.running, "a fence holds");
    for token in [7, 8] {
        let seen = vm
            .controller
            .execute(&vm.call(token), Action::Unfence)
            .unwrap();
        assert!(!seen.fenced && !seen.running);
    }
    assert!(
        vm.controller
            .execute(&vm.call(9), Action::Start)
            .unwrap()
            .running
    );
    vm.write(0, 1 << 20, 4096, 5);
    vm.snapshot(10);
    let far = vm.changes(10, Some(since), true);
    assert_eq!(
        far[0].changed,
        Some(vec![0..65536, 1 << 20..(1 << 20) + 65536])
    );
    let near = vm.changes(10, Some(next), true);
    assert_eq!(near[0].changed, only(1 << 20..(1 << 20) + 65536));
}

#[test]
fn a_record_with_a_gap_is_lost_and_said_to_be() {
    let Some(vm) = Machine::new() else { return };
    vm.begin();
    let since = vm.arm(1, None);
    vm.kill();
    // Off, and nothing is known of what its QEMU had recorded.
    let changes = |token: u64, since: Checkpoint, from_snapshot: bool| {
        let call = vm.call(token);
        vm.controller
            .changes_since(&call, Some(since), from_snapshot)
            .unwrap()
    };
    assert_eq!(changes(2, since, false), Changes::TrackingLost);
    assert_eq!(changes(2, since, true), Changes::SnapshotLost);
    // Started by somebody else meanwhile: a new QEMU has no bitmap of ours.
    vm.begin();
    vm.snapshot(3);
    assert_eq!(changes(3, since, true), Changes::TrackingLost);
    let next = vm.arm(4, Some(since));
    vm.snapshot(5);
    assert_eq!(changes(5, since, true), Changes::TrackingLost);
    assert!(matches!(changes(5, next, true), Changes::Tracked(_)));
    // A fence that somebody lifts behind our back: what was kept counts no more.
    vm.controller
        .execute(&vm.call(6), Action::ShutDown)
        .unwrap();
    assert!(matches!(changes(7, next, false), Changes::Tracked(_)));
    fs::remove_file(vm.path("fenced")).unwrap();
    assert_eq!(changes(8, next, false), Changes::TrackingLost);
}

#[test]
fn an_old_command_is_refused_by_whoever_asks_and_a_look_is_not() {
    let Some(vm) = Machine::new() else { return };
    vm.controller.execute(&vm.call(7), Action::Fence).unwrap();
    let other = vm.controller();
    let cancel = CancelToken::new();
    let old = Call {
        token: Token {
            epoch: 1,
            sequence: 6,
        },
        cancel: &cancel,
    };
    let error = other.execute(&old, Action::Unfence).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    let look = Call {
        token: Token::default(),
        cancel: &cancel,
    };
    let seen = other.execute(&look, Action::Inspect).unwrap();
    let expected = VmSeen {
        exists: true,
        running: false,
        fenced: true,
    };
    assert_eq!(seen, expected);
    fs::write(vm.path("token"), "nonsense").unwrap();
    let error = other.execute(&vm.call(8), Action::Fence).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
}

#[test]
fn a_guest_that_ignores_the_power_button_is_an_error_that_says_so() {
    let Some(vm) = Machine::new() else { return };
    vm.begin();
    vm.controller.execute(&vm.call(1), Action::Start).unwrap();
    let error = vm
        .controller
        .execute(&vm.call(2), Action::ShutDown)
        .unwrap_err();
    assert!(
        error.to_string().contains("may ignore the power button"),
        "{error}"
    );
    assert!(
        vm.controller
            .execute(&vm.call(3), Action::Inspect)
            .unwrap()
            .running
    );
    let stopped = CancelToken::new();
    stopped.cancel();
    let call = Call {
        token: Token {
            epoch: 1,
            sequence: 4,
        },
        cancel: &stopped,
    };
    let error = vm.controller.execute(&call, Action::ShutDown).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn a_vm_is_made_retired_and_made_again() {
    let Some(vm) = Machine::new() else { return };
    let seen = vm.controller.execute(&vm.call(1), retire(false)).unwrap();
    assert!(!seen.exists && vm.disk(0).exists());
    assert!(
        vm.controller
            .execute(&vm.call(2), Action::Create)
            .unwrap()
            .exists
    );
    let seen = vm.controller.execute(&vm.call(3), retire(true)).unwrap();
    assert!(!seen.exists && !vm.disk(0).exists() && !vm.disk(1).exists());
    fs::remove_dir_all(vm.path("")).unwrap();
    assert!(
        !vm.controller
            .execute(&vm.call(4), Action::Inspect)
            .unwrap()
            .exists
    );
    assert!(
        vm.controller
            .execute(&vm.call(5), Action::Create)
            .unwrap()
            .exists
    );
}

#[test]
fn a_disk_that_qemu_does_not_have_is_not_taken_for_another() {
    let Some(vm) = Machine::new() else { return };
    vm.begin();
    let mut facts = vm.facts();
    facts.disks[1].1 = "/elsewhere/disk.raw".to_owned();
    let other = QemuController::new(facts, vm.directory.path(), vm.start(), LIMIT);
    let error = other
        .execute(&vm.call(1), Action::ArmTracking { keep: None })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("the disk `two` nowhere"),
        "{error}"
    );
}

#[test]
fn a_start_program_that_fails_or_lets_the_guest_run_is_named() {
    let Some(vm) = Machine::new() else { return };
    let with = |script: &str| {
        let start = ["sh", "-c", script].map(str::to_owned).to_vec();
        QemuController::new(vm.facts(), vm.directory.path(), start, LIMIT)
    };
    let error = with("echo no room >&2; exit 1")
        .execute(&vm.call(1), Action::Start)
        .unwrap_err();
    assert!(error.to_string().contains("no room"), "{error}");
    let error = with("true")
        .execute(&vm.call(2), Action::Start)
        .unwrap_err();
    assert!(error.to_string().contains("no QEMU listens"), "{error}");
    let runs = format!("unset DISKDELTA_QMP; {} {}", START, vm.path("").display());
    let error = with(&runs).execute(&vm.call(3), Action::Start).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("start QEMU with -S"), "{error}");
}

/// What was written, where that is one range.
fn only(range: Range<u64>) -> Option<Vec<Range<u64>>> {
    Some(std::iter::once(range).collect())
}

/// A VM with two disks, and nobody in it.
struct Machine {
    directory: tempfile::TempDir,
    controller: QemuController,
    cancel: CancelToken,
}

impl Machine {
    fn new() -> Option<Self> {
        if !qemu_is_there() {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let controller = QemuController::new(facts(&path), &path, vec![START.to_owned()], LIMIT);
        let vm = Machine {
            directory,
            controller,
            cancel: CancelToken::new(),
        };
        fs::create_dir(vm.path("")).unwrap();
        let mut conf = "set -- -nodefaults -m 16 -machine q35,accel=tcg".to_owned();
        for disk in 0..2 {
            fs::File::create(vm.disk(disk))
                .unwrap()
                .set_len(DISK_BYTES)
                .unwrap();
            let file = vm.disk(disk);
            conf += &format!(" -drive file={},format=raw,if=virtio", file.display());
        }
        fs::write(vm.path("vm.conf"), conf).unwrap();
        Some(vm)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("vm1").join(name)
    }

    fn disk(&self, disk: usize) -> PathBuf {
        self.path(&format!("disk-{disk}.raw"))
    }

    fn facts(&self) -> Facts {
        facts(self.directory.path())
    }

    fn start(&self) -> Vec<String> {
        vec![START.to_owned()]
    }

    /// Another controller of the same VM.
    fn controller(&self) -> QemuController {
        QemuController::new(self.facts(), self.directory.path(), self.start(), LIMIT)
    }

    /// Its QEMU is there; the guest has not begun.
    fn begin(&self) {
        let mut start = Command::new(START);
        let status = start.env("DISKDELTA_QMP", self.path("qmp.sock")).status();
        assert!(status.unwrap().success());
    }

    fn call(&self, sequence: u64) -> Call<'_> {
        Call {
            token: Token { epoch: 1, sequence },
            cancel: &self.cancel,
        }
    }

    fn arm(&self, token: u64, keep: Option<Checkpoint>) -> Checkpoint {
        let call = self.call(token);
        for _ in 0..2 {
            let action = Action::ArmTracking { keep };
            self.controller.execute(&call, action).unwrap();
        }
        Checkpoint(call.token)
    }

    fn snapshot(&self, token: u64) {
        self.controller
            .execute(&self.call(token), Action::Snapshot)
            .unwrap();
    }

    fn changes(&self, token: u64, since: Option<Checkpoint>, snapshot: bool) -> Vec<DiskChanges> {
        let call = self.call(token);
        match self
            .controller
            .changes_since(&call, since, snapshot)
            .unwrap()
        {
            Changes::Tracked(disks) => disks,
            other => panic!("{other:?}"),
        }
    }

    fn read(&self, disk: &DiskChanges, range: Range<u64>) -> Vec<u8> {
        let Location::Nbd(address) = &disk.address else {
            panic!("{disk:?}");
        };
        let export = NbdExport::open(address, None).unwrap();
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        export.read_exact_at(&mut bytes, range.start).unwrap();
        bytes
    }

    fn monitor(&self) -> Option<Qmp> {
        Qmp::connect(&self.path("qmp.sock"), LIMIT).unwrap()
    }

    /// What a guest would write.
    fn write(&self, disk: usize, offset: u64, len: u64, byte: u8) {
        let mut qmp = self.monitor().unwrap();
        let line = format!("qemu-io virtio{disk} \"write -P {byte} {offset} {len}\"");
        let said = qmp.execute("human-monitor-command", json!({"command-line": line}));
        let said = said.unwrap();
        assert!(!said.as_str().unwrap().contains("rror"), "{said}");
    }

    fn scratch_files(&self) -> usize {
        let names = fs::read_dir(self.path("")).unwrap();
        let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("scratch")).count()
    }

    fn kill(&self) {
        let Ok(pid) = fs::read_to_string(self.path("qemu.pid")) else {
            return;
        };
        let pid = pid.trim();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(self.directory.path().to_str().unwrap()) {
            let _ = Command::new("kill").args(["-9", pid]).status();
            while PathBuf::from(format!("/proc/{pid}")).exists() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

fn retire(discard_disks: bool) -> Action {
    Action::Retire { discard_disks }
}

fn facts(directory: &std::path::Path) -> Facts {
    let disk = |name: &str, disk: usize| {
        let path = directory.join("vm1").join(format!("disk-{disk}.raw"));
        (name.to_owned(), path.to_str().unwrap().to_owned())
    };
    Facts {
        job: "shop".to_owned(),
        vm: "vm1".to_owned(),
        side: Side::Source,
        site: "recovery".to_owned(),
        host: "here".to_owned(),
        networks: Vec::new(),
        disks: vec![disk("one", 0), disk("two", 1)],
        blocked_disks: Vec::new(),
    }
}

const START: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/docs/examples/failback-qemu/start-vm"
);
const DISK_BYTES: u64 = 8 << 20;
const LIMIT: Duration = Duration::from_secs(5);

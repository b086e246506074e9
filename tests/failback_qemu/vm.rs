//! Two sites in a directory, as the worked example has them: VMs under QEMU, a plan, the command.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diskdelta::failback::vm::qemu::qmp::Qmp;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fixture::{CommandFixture, Runner};
use super::guest::{Guest, guest};
use super::host::LoopDevice;

/// Both sites; each QEMU that is left is killed at the end.
pub struct VmFixture {
    directory: TempDir,
    guest: &'static Guest,
    target_disk: &'static str,
    /// `delta`, `full` or `full-first`.
    mode: &'static str,
    /// The last word of the kernel's command line.
    word: &'static str,
    job: String,
    /// The disk at the primary site, where that is a block device.
    device: Option<LoopDevice>,
    _alone: MutexGuard<'static, ()>,
}

impl VmFixture {
    /// A VM that runs at the recovery site; its target holds what it held at first. `None` where
    /// no guest can be had.
    pub fn new(target_disk: &'static str) -> Option<Self> {
        // Emulated guests need a processor each.
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let fixture = VmFixture {
            directory: tempfile::tempdir().unwrap(),
            guest: guest()?,
            target_disk,
            mode: "delta",
            word: "hears",
            job: String::new(),
            device: None,
            _alone: alone,
        };
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/failback-qemu");
        let start = Path::new(example).join("start-vm");
        fs::copy(start, fixture.directory.path().join("start-vm")).unwrap();
        for site in ["primary", "recovery"] {
            fs::create_dir_all(fixture.site(site)).unwrap();
        }
        let disk = fixture.disk("recovery");
        fs::File::create(&disk)
            .unwrap()
            .set_len(DISK_BYTES)
            .unwrap();
        done(
            Command::new("mkfs.ext4")
                .args(["-q", "-F", "-E", "lazy_itable_init=0"])
                .arg(&disk),
        );
        let (target, format) = (fixture.disk("primary"), fixture.format("primary"));
        let convert = ["convert", "-q", "-f", "raw", "-O", format];
        let mut qemu_img = Command::new("qemu-img");
        qemu_img.args(convert);
        if format == "vpc" {
            qemu_img.args(["-o", "force_size=on"]);
        }
        done(qemu_img.arg(&disk).arg(target));
        fixture.configure();
        Some(fixture)
    }

    /// At the primary site the disk is a block device, which holds what its file held.
    pub fn with_device(mut self) -> Self {
        let backing = self.disk("primary");
        self.device = Some(LoopDevice::attach(&backing));
        self.job = "safety = \"in-place\"".to_owned();
        self.configure();
        self
    }

    /// Whether nobody takes the device for a disk.
    pub fn is_held(&self) -> bool {
        let mut head = [0; 16];
        let device = fs::File::open(self.disk("primary")).unwrap();
        device.read_exact_at(&mut head, 0).unwrap();
        &head == b"\0diskdelta mark1"
    }

    pub fn with_mode(mut self, mode: &'static str) -> Self {
        self.mode = mode;
        self
    }

    /// More lines for the plan's `[job]`.
    pub fn with_job(mut self, lines: &str) -> Self {
        self.job = lines.to_owned();
        self
    }

    /// The guest does not hear the power button.
    pub fn with_deaf_guest(mut self) -> Self {
        self.word = "deaf";
        self.configure();
        self
    }

    /// From its next boot on the guest hears it.
    pub fn with_hearing_guest(mut self) -> Self {
        self.word = "hears";
        self.configure();
        self
    }

    /// Nothing is there at the primary site.
    pub fn without_target(self) -> Self {
        fs::remove_file(self.disk("primary")).unwrap();
        self
    }

    fn configure(&self) {
        for site in ["primary", "recovery"] {
            let conf = format!(
                "set -- -nodefaults -no-user-config -machine q35,accel=tcg -m 192 \\\n\
                 -kernel '{}' -initrd '{}' -append 'console=ttyS0 quiet panic=0 -- {}' \\\n\
                 -chardev file,id=console,path='{}',append=on -serial chardev:console \\\n\
                 -drive file='{}',format={},if=virtio\n",
                self.guest.kernel.display(),
                self.guest.initrd.display(),
                self.word,
                self.console_file(site).display(),
                self.disk(site).display(),
                self.format(site),
            );
            fs::write(self.site(site).join("vm.conf"), conf).unwrap();
        }
    }

    pub fn site(&self, site: &str) -> PathBuf {
        self.directory.path().join(site).join("guest1")
    }

    pub fn disk(&self, site: &str) -> PathBuf {
        if let ("primary", Some(device)) = (site, &self.device) {
            return device.path().to_owned();
        }
        let name = if site == "primary" {
            self.target_disk
        } else {
            "disk.raw"
        };
        self.site(site).join(name)
    }

    fn format(&self, site: &str) -> &'static str {
        match self.disk(site).extension().and_then(|it| it.to_str()) {
            Some("vhd") => "vpc",
            Some("vhdx") => "vhdx",
            _ => "raw",
        }
    }

    /// Somebody starts the VM, outside of every job.
    pub fn boot(&self, site: &str) {
        let mut start = Command::new(self.directory.path().join("start-vm"));
        done(start.arg(self.site(site)));
    }

    /// Whether somebody outside of every job would be let.
    pub fn may_boot(&self, site: &str) -> bool {
        let mut start = Command::new(self.directory.path().join("start-vm"));
        start
            .arg(self.site(site))
            .output()
            .unwrap()
            .status
            .success()
    }

    /// Whether the guest runs.
    pub fn runs(&self, site: &str) -> bool {
        let socket = self.site(site).join("qmp.sock");
        let Some(mut qmp) = Qmp::connect(&socket, Duration::from_secs(60)).unwrap() else {
            return false;
        };
        let status = qmp.execute("query-status", json!({})).unwrap();
        status["status"] == "running"
    }

    /// Shuts the guest down from its host, outside of every job, and ends its QEMU.
    pub fn shut_down(&self, site: &str) {
        let socket = self.site(site).join("qmp.sock");
        let mut qmp = Qmp::connect(&socket, Duration::from_secs(60))
            .unwrap()
            .unwrap();
        qmp.execute("set-action", json!({"shutdown": "pause"}))
            .unwrap();
        qmp.execute("system_powerdown", json!({})).unwrap();
        let begin = Instant::now();
        while qmp.execute("query-status", json!({})).unwrap()["status"] != "shutdown" {
            assert!(begin.elapsed() < PATIENCE, "the guest does not shut down");
            std::thread::sleep(NAP);
        }
        qmp.quit().unwrap();
        while self.pid_lives(site) {
            std::thread::sleep(NAP);
        }
    }

    fn pid(&self, site: &str) -> Option<String> {
        let pid = fs::read_to_string(self.site(site).join("qemu.pid")).ok()?;
        Some(pid.trim().to_owned())
    }

    fn pid_lives(&self, site: &str) -> bool {
        self.pid(site)
            .is_some_and(|pid| Path::new("/proc").join(pid).exists())
    }

    /// The power goes.
    pub fn kill_vm(&self, site: &str) {
        let Some(pid) = self.pid(site) else { return };
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // A number that is another's by now is left alone.
        if String::from_utf8_lossy(&line).contains(self.directory.path().to_str().unwrap()) {
            let _ = Command::new("kill").args(["-9", &pid]).status();
            while self.pid_lives(site) {
                std::thread::sleep(NAP);
            }
        }
        let _ = fs::remove_file(self.site(site).join("qemu.pid"));
    }

    fn console_file(&self, site: &str) -> PathBuf {
        self.site(site).join("console")
    }

    fn console(&self, site: &str) -> String {
        let bytes = fs::read(self.console_file(site)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains("GUEST FAILED"), "{text}");
        text
    }

    /// The last number that a guest wrote after `what`, in full lines.
    fn last(&self, site: &str, what: &str) -> Option<u64> {
        let console = self.console(site);
        let whole = console.rsplit_once('\n').map_or("", |it| it.0);
        let mut numbers = whole
            .lines()
            .filter_map(|line| line.trim().strip_prefix(what));
        numbers
            .next_back()
            .and_then(|number| number.trim().parse().ok())
    }

    /// The last file that the guest has acknowledged.
    pub fn acknowledged(&self, site: &str) -> u64 {
        self.last(site, "ACK ").unwrap_or(0)
    }

    /// How many files the guest found, in a row, when it booted last.
    pub fn found(&self, site: &str) -> Option<u64> {
        self.last(site, "GUEST FOUND ")
    }

    pub fn boots(&self, site: &str) -> usize {
        self.console(site).matches("GUEST FOUND ").count()
    }

    /// Waits until the guest has acknowledged so many more files.
    pub fn wait_for_files(&self, site: &str, more: u64) {
        let goal = self.acknowledged(site) + more;
        self.until("files of the guest", || self.acknowledged(site) >= goal);
    }

    /// Waits until the guest has booted so often, and gives what it then found.
    pub fn wait_for_boot(&self, site: &str, times: usize) -> u64 {
        self.until("a boot", || {
            self.boots(site) >= times && self.found(site).is_some()
        });
        self.found(site).unwrap()
    }

    pub fn until(&self, what: &str, is: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is() {
            if begin.elapsed() > PATIENCE {
                let consoles = ["primary", "recovery"].map(|site| self.console(site));
                panic!("waited for {what}: {consoles:?}");
            }
            std::thread::sleep(NAP);
        }
    }

    /// The plan, as the worked example has it.
    pub fn plan(&self, active: &str) -> PathBuf {
        let example = include_str!("../../docs/examples/failback-qemu/plan.toml");
        let directory = self.directory.path().to_str().unwrap();
        let text = example
            .replace(
                "DIRECTORY/primary/guest1/disk.raw",
                self.disk("primary").to_str().unwrap(),
            )
            .replace("DIRECTORY", directory)
            .replace(
                "active = \"recovery\"",
                // A cutover that is to be met half way is slowed as passes are.
                &format!("active = \"{active}\"\nlimit_cutover = true\n{}", self.job),
            )
            .replace("mode = \"delta\"", &format!("mode = \"{}\"", self.mode));
        let path = self.directory.path().join("plan.toml");
        fs::write(&path, text).unwrap();
        path
    }

    pub fn start(&self, active: &str) -> Runner {
        let plan = self.plan(active);
        self.spawn(&["start", plan.to_str().unwrap(), "--yes"])
    }

    /// So slowly that it can be met in the middle of a copy.
    pub fn start_slowly(&self, active: &str) -> Runner {
        let plan = self.plan(active);
        self.spawn(&[
            "start",
            plan.to_str().unwrap(),
            "--yes",
            "--limit-rate",
            "512K",
        ])
    }

    /// Waits until the job is in a phase and does nothing.
    pub fn wait_for(&self, runner: &mut Runner, phase: &str) -> Value {
        self.wait(runner, phase, |vm| {
            vm["phase"] == phase && vm["doing"].is_null()
        })
    }

    pub fn wait(&self, runner: &mut Runner, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let output = self.run(&["status", "home"]);
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if is(&status["vms"][0]) {
                return status["vms"][0].clone();
            }
            let ended = runner.ended();
            if begin.elapsed() > PATIENCE || ended.is_some() {
                let log = String::from_utf8_lossy(&self.run(&["log", "home"]).stdout).into_owned();
                let log: Vec<_> = log.lines().rev().take(40).collect();
                panic!("waited for {what}, runner {ended:?}: {status:#} {log:#?}");
            }
            std::thread::sleep(NAP);
        }
    }

    /// All that is on record of the job.
    pub fn log(&self) -> String {
        self.ok(&["log", "home"]).to_string()
    }

    /// What the disk's file system check says of a VM that is off.
    pub fn check_files(&self, site: &str) {
        let raw = self.directory.path().join("checked.raw");
        let convert = ["convert", "-q", "-f", self.format(site), "-O", "raw"];
        done(
            Command::new("qemu-img")
                .args(convert)
                .arg(self.disk(site))
                .arg(&raw),
        );
        done(Command::new("e2fsck").args(["-f", "-n"]).arg(&raw));
        fs::remove_file(raw).unwrap();
    }
}

impl Drop for VmFixture {
    fn drop(&mut self) {
        for site in ["primary", "recovery"] {
            self.kill_vm(site);
        }
        if let Some(device) = &self.device {
            // One that is held has a sidecar, which would outlive it.
            let mut release = Command::new(env!("CARGO_BIN_EXE_diskdelta"));
            release.args(["recover", "--release"]).arg(device.path());
            let _ = release.output();
        }
    }
}

impl CommandFixture for VmFixture {
    fn state_dir(&self) -> PathBuf {
        self.directory.path().join("jobs")
    }
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

const DISK_BYTES: u64 = 48 << 20;
/// Long: emulated guests on a busy machine take their time.
const PATIENCE: Duration = Duration::from_secs(240);
const NAP: Duration = Duration::from_millis(50);

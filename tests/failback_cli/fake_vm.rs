//! Two sites in a directory: VMs that are shell scripts, disks that are real files.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use age::secrecy::ExposeSecret;
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::{CommandFixture, Runner};

pub const DISK_BYTES: usize = 4 << 20;

/// Both sites, the plan, and where jobs are kept.
pub struct FakeVms {
    directory: TempDir,
    vms: Vec<String>,
    pub target_disk: &'static str,
    /// More lines for the plan's `[job]`.
    pub job: String,
    pub create: bool,
    /// More lines for the plan's `[recovery]`.
    pub recovery: String,
    /// The plan's `[hooks]`.
    pub hooks: String,
    /// The sites whose disks lie on another host, both on the same; `ssh` is a script, see
    /// [`FakeVms::shell`].
    pub remote: Vec<&'static str>,
    /// More lines for how it is reached.
    pub connect: String,
    /// Where the disk at the recovery site is read instead.
    pub export: Option<String>,
}

impl FakeVms {
    pub fn new(vms: &[&str]) -> Self {
        let fake_vms = FakeVms {
            directory: tempfile::tempdir().unwrap(),
            vms: vms.iter().map(|vm| (*vm).to_owned()).collect(),
            target_disk: "disk.raw",
            job: String::new(),
            create: false,
            recovery: String::new(),
            hooks: String::new(),
            remote: Vec::new(),
            connect: String::new(),
            export: None,
        };
        for vm in vms {
            for site in ["recovery", "primary"] {
                let at = fake_vms.site(site, vm);
                fs::create_dir_all(&at).unwrap();
                fs::write(at.join("disk-name"), "disk.raw\n").unwrap();
            }
            let base = noise(DISK_BYTES, 1);
            let mut now = base.clone();
            now[1 << 20..(1 << 20) + 300_000].copy_from_slice(&noise(300_000, 2));
            fs::write(fake_vms.source(vm), now).unwrap();
            fs::write(fake_vms.site("primary", vm).join("disk.raw"), base).unwrap();
            fs::write(fake_vms.site("recovery", vm).join("running"), "").unwrap();
        }
        fake_vms
    }

    pub fn with_job(mut self, lines: &str) -> Self {
        self.job = lines.to_owned();
        self
    }

    /// The key that a plan's replicas are encrypted with, made where there is none.
    pub fn key(&self) -> PathBuf {
        let path = self.directory.path().join("key.txt");
        if !path.exists() {
            let identity = age::x25519::Identity::generate();
            fs::write(&path, identity.to_string().expose_secret()).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What stands in for ssh: a script that may say and do something before it runs an agent that
    /// only reads. All that the agent sends goes to the file `sent`, too; `asked` is how it was
    /// started, `agent` its process.
    pub fn shell(&self, before: &str) {
        self.agent(before, "--read-only");
    }

    /// As [`shell`](Self::shell), with an agent that also writes.
    pub fn writer(&self, before: &str) {
        self.agent(before, "");
    }

    /// As [`shell`](Self::shell), with more options for the agent.
    pub fn agent(&self, before: &str, options: &str) {
        let text = format!(
            "echo \"$@\" >> {asked}\n{before}\n\
             sh -c 'echo $$ > {agent}; exec {command} serve --stdio --state-dir {state} {options}' \
             | tee -a {sent}\n",
            state = self.agent_state().display(),
            command = env!("CARGO_BIN_EXE_diskdelta"),
            asked = self.path("asked").display(),
            agent = self.path("agent").display(),
            sent = self.path("sent").display(),
        );
        self.rsh(&text);
    }

    /// The first agent is gone once `file` holds so many bytes; the next one is left alone.
    pub fn cuts_once(&self, file: &Path, bytes: u64) {
        self.shell(&format!(
            "there() {{ stat -c %s {file} 2>/dev/null || echo 0; }}\n\
             if [ ! -e {cut} ]; then (\n\
             while [ $(there) -lt {bytes} ]; do kill -0 $$ || exit; sleep 0.02; done\n\
             : > {cut}; kill -9 $(cat {agent})) </dev/null >/dev/null 2>&1 & fi",
            file = file.display(),
            cut = self.path("cut").display(),
            agent = self.path("agent").display(),
        ));
    }

    /// That has happened, and the log says so.
    pub fn was_cut(&self) {
        assert!(self.path("cut").exists(), "the line was never cut");
        let log = self.ok(&["log", "shop"]).to_string();
        assert!(log.contains("closed the connection"), "{log}");
    }

    /// What stands in for ssh, put there at once.
    /// Where the agent of the other host keeps its state.
    pub fn agent_state(&self) -> PathBuf {
        self.path("agent-state")
    }

    /// What the agent remembers of the job's VM; there is one such file.
    pub fn agent_token(&self) -> PathBuf {
        let directories = fs::read_dir(self.agent_state()).unwrap();
        let tokens = directories.map(|it| it.unwrap().path().join("shop/db1/token"));
        let tokens: Vec<_> = tokens.filter(|it| it.exists()).collect();
        assert_eq!(tokens.len(), 1, "{tokens:?}");
        tokens.into_iter().next().unwrap()
    }

    pub fn rsh(&self, text: &str) {
        fs::write(self.path("rsh-new"), text).unwrap();
        fs::rename(self.path("rsh-new"), self.path("rsh")).unwrap();
    }

    /// How many bytes agents have sent since this was asked for the last time.
    pub fn sent(&self) -> u64 {
        let path = self.path("sent");
        let bytes = fs::metadata(&path).map_or(0, |it| it.len());
        // Whoever still writes there writes at its end.
        fs::File::create(path).unwrap();
        bytes
    }

    fn remote_prefix(&self, site: &str) -> String {
        match self.remote.contains(&site) {
            true if self.remote.len() > 1 => "ssh://me@away.example".to_owned(),
            true => format!("ssh://me@{site}.example"),
            false => String::new(),
        }
    }

    pub fn site(&self, site: &str, vm: &str) -> PathBuf {
        self.directory.path().join(site).join(vm)
    }

    pub fn source(&self, vm: &str) -> PathBuf {
        self.site("recovery", vm).join("disk.raw")
    }

    pub fn target(&self, vm: &str) -> PathBuf {
        self.site("primary", vm).join(self.target_disk)
    }

    /// The name that the target's disk has while it cannot be booted.
    pub fn blocked(&self, vm: &str) -> PathBuf {
        let name = self.target_disk;
        let extension = name.rsplit('.').next().unwrap();
        self.site("primary", vm)
            .join(format!("{name}.failback-shop.partial.{extension}"))
    }

    /// Neither the target's disk, a VHDX, nor its VM is there: the job makes them.
    pub fn makes_a_vhdx(&mut self) {
        self.target_disk = "disk.vhdx";
        self.create = true;
        let site = self.site("primary", "db1");
        fs::remove_file(site.join("disk.raw")).unwrap();
        fs::write(site.join("disk-name"), "disk.vhdx\n").unwrap();
        fs::write(site.join("gone"), "").unwrap();
    }

    /// Both disks hold the same, whatever their formats.
    pub fn holds_the_same(&self) {
        let mut diff = std::process::Command::new(env!("CARGO_BIN_EXE_diskdelta"));
        let diff = diff
            .arg("diff")
            .arg(self.source("db1"))
            .arg(self.target("db1"));
        assert!(diff.status().unwrap().success(), "both hold the same");
    }

    /// A job is asked to complete, and aborted in one of the phases that follow, which the VM at
    /// `site` draws out.
    pub fn aborts_the_cutover(&self, runner: &mut Runner, site: &str, phases: [&str; 2]) {
        let slow = self.site(site, "db1").join("slow");
        fs::write(&slow, "0.3").unwrap();
        self.ok(&["complete", "shop"]);
        self.wait(runner, "the cutover", |status| {
            let phase = status["vms"][0]["phase"].as_str();
            phase.is_some_and(|phase| phases.contains(&phase))
        });
        self.ok(&["abort", "shop"]);
        fs::remove_file(slow).unwrap();
    }

    /// A job that is begun is cancelled before it has written anything.
    pub fn cancels_at_the_beginning(&self, site: &str, start: impl FnOnce() -> Runner) {
        let slow = self.site(site, "db1").join("slow");
        fs::write(&slow, "1").unwrap();
        let mut runner = start();
        self.wait(&mut runner, "the beginning", |status| {
            status["vms"][0]["phase"] == "initial-sync"
        });
        self.ok(&["cancel", "shop", "--restore"]);
        fs::remove_file(&slow).unwrap();
        runner.end();
        assert_eq!(self.status()["vms"][0]["disposition"], "restored");
    }

    /// A job of these lines goes through; `ready` waits until its source may be shut down, where it
    /// begins with a pass.
    pub fn comes_home_whole(&self, job: &str, ready: impl FnOnce(&mut Runner)) {
        let mut runner = self.start();
        if !job.starts_with("mode = \"full\"") {
            ready(&mut runner);
            self.guest_writes("recovery", "db1", 2 << 20, &noise(9_000, 6));
            self.ok(&["complete", "shop"]);
        }
        let status = self.wait_for(&mut runner, 0, "commit-pending");
        assert_eq!(status["vms"][0]["proven"], true, "{job}");
        assert!(
            read(self.source("db1")) == read(self.target("db1")),
            "{job}"
        );
    }

    pub fn is(&self, site: &str, vm: &str, what: &str) -> bool {
        self.site(site, vm).join(what).exists()
    }

    /// The guest of a running VM writes to its disk.
    pub fn guest_writes(&self, site: &str, vm: &str, offset: u64, bytes: &[u8]) {
        let at = self.site(site, vm);
        assert!(at.join("running").exists(), "nobody writes: {vm} is off");
        let disk = at.join(fs::read_to_string(at.join("disk-name")).unwrap().trim());
        let mut file = fs::OpenOptions::new().write(true).open(disk).unwrap();
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(bytes).unwrap();
        if !at.join("recording").exists() {
            return;
        }
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("track.")
            {
                let mut track = fs::OpenOptions::new().append(true).open(path).unwrap();
                writeln!(track, "[{offset}, {}]", bytes.len()).unwrap();
            }
        }
    }

    pub fn plan(&self) -> PathBuf {
        self.plan_from("recovery")
    }

    /// A plan of which `active` is the site that the VMs run at.
    pub fn plan_from(&self, active: &str) -> PathBuf {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/failback_cli/vm.sh");
        let mut text = format!(
            "[job]\nname = \"shop\"\nactive = \"{active}\"\ndowntime_budget = \"1h\"\n{}\n",
            self.job
        );
        // Cutovers that a test is to meet half way are slowed as passes are.
        if !self.job.contains("limit_cutover") {
            text = text.replacen("[job]\n", "[job]\nlimit_cutover = true\n", 1);
        }
        for site in ["primary", "recovery"] {
            let wrapper = self.directory.path().join(format!("{site}.sh"));
            let root = self.directory.path().join(site);
            let remote = self.remote_prefix(site);
            let line = format!(
                "export REMOTE={remote}\nexec sh {script} {}/\"$DISKDELTA_VM\" \"$1\"\n",
                root.display()
            );
            fs::write(&wrapper, line).unwrap();
            text += &format!(
                "[{site}]\nhost = \"{site}.example\"\n[{site}.controller]\nkind = \"commands\"\n\
                 program = [\"sh\", \"{}\"]\ntime_limit = \"60s\"\n",
                wrapper.display()
            );
        }
        for site in &self.remote {
            let shell = self.path("rsh");
            text += &format!(
                "[{site}.connect]\nrsh = \"sh {}\"\ntimeout = \"15s\"\n{}",
                shell.display(),
                self.connect
            );
        }
        text += &self.recovery;
        text += &self.hooks;
        for vm in &self.vms {
            let at = |site, path: PathBuf| self.remote_prefix(site) + path.to_str().unwrap();
            let recovery = at("recovery", self.source(vm));
            text += &format!(
                "[[group]]\nname = \"g-{vm}\"\n[[group.vm]]\nname = \"{vm}\"\ncreate = {}\n\
                 [[group.vm.disk]]\nidentity = \"{vm}-system\"\nbytes = {DISK_BYTES}\n\
                 primary = \"{}\"\nrecovery = \"{}\"\n",
                self.create,
                at("primary", self.target(vm)),
                self.export.as_ref().unwrap_or(&recovery),
            );
        }
        let path = self.directory.path().join("plan.toml");
        fs::write(&path, text).unwrap();
        path
    }

    /// Runs a verb that must be refused, and gives what it says.
    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {complaint}");
        complaint
    }

    pub fn start(&self) -> Runner {
        let plan = self.plan();
        self.spawn(&["start", plan.to_str().unwrap(), "--yes"])
    }

    pub fn status(&self) -> Value {
        self.ok(&["status", "shop"])
    }

    pub fn phase(&self, vm: usize) -> String {
        self.status()["vms"][vm]["phase"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits until a VM's job is in a phase and does nothing.
    pub fn wait_for(&self, runner: &mut Runner, vm: usize, phase: &str) -> Value {
        self.wait(runner, phase, |status| {
            let vm = &status["vms"][vm];
            vm["phase"] == phase && vm["doing"].is_null()
        })
    }

    pub fn wait(&self, runner: &mut Runner, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let output = self.run(&["status", "shop"]);
            let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if is(&status) {
                return status;
            }
            let ended = runner.ended();
            assert!(
                begin.elapsed() < Duration::from_secs(60) && ended.is_none(),
                "waited for {what}, runner {ended:?}: {status:#}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl CommandFixture for FakeVms {
    fn state_dir(&self) -> PathBuf {
        self.directory.path().join("jobs")
    }
}

/// Bytes without a pattern, the same for one seed.
pub fn noise(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&[seed])
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path).unwrap()
}

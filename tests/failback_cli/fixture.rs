//! The command `failback` as an operator runs it, and the process that runs a job.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use serde_json::Value;

/// Where an operator sits.
pub trait CommandFixture {
    /// Where jobs are kept.
    fn state_dir(&self) -> PathBuf;

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_diskdelta"));
        command
            .arg("failback")
            .args(args)
            .arg("--state-dir")
            .arg(self.state_dir())
            .args(["--by", "operator", "--json"]);
        command
    }

    /// Runs a verb to its end.
    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a verb that must succeed, and reads what it prints.
    fn ok(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {complaint}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn spawn(&self, args: &[&str]) -> Runner {
        Runner::spawn(self.command(args))
    }
}

/// A process that runs a job; it is killed where a test ends before it does.
pub struct Runner(Child);

impl Runner {
    pub fn spawn(mut command: Command) -> Self {
        Runner(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// Waits for it to end, which it must do well.
    pub fn end(&mut self) {
        let status = self.wait();
        assert!(status.success(), "{status}");
    }

    /// Waits for it to end.
    pub fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }

    /// How often its threads have waited for something so far.
    #[allow(dead_code, reason = "not every user of this file counts waits")]
    pub fn waits(&self) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        let counts = tasks.filter_map(|task| {
            // A thread may end meanwhile.
            let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        });
        counts.sum()
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks it to end, as Ctrl-C does.
    #[allow(dead_code, reason = "not every user of this file asks for it")]
    pub fn interrupt(&self) {
        let pid = rustix::process::Pid::from_raw(self.0.id().try_into().unwrap());
        rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::INT).unwrap();
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

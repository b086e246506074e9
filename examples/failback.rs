//! Brings a VM home with a controller of its own: two small files stand for its disks.
//!
//! ```sh
//! cargo run --features failback --example failback
//! ```
#![allow(clippy::unwrap_used, reason = "an example")]

use std::path::Path;
use std::sync::{Arc, Mutex};

use diskdelta::failback::Job;
use diskdelta::failback::job::Event;
use diskdelta::failback::machine::{Action, Checkpoint, JobMode, Request, Token, VmSeen};
use diskdelta::failback::plan::{Plan, SiteName};
use diskdelta::failback::vm::{Call, Changes, DiskChanges, VmController};
use diskdelta::{Location, Result, Work};

/// A VM in memory; it does not track what it writes.
struct MemoryVm {
    seen: Mutex<VmSeen>,
    newest: Mutex<Token>,
    disk: String,
}

impl VmController for MemoryVm {
    fn execute(&self, call: &Call<'_>, action: Action) -> Result<VmSeen> {
        self.newest.lock().unwrap().admit(call.token)?;
        let mut vm = self.seen.lock().unwrap();
        match action {
            Action::Create => vm.exists = true,
            Action::Fence => vm.fenced = true,
            Action::Unfence => vm.fenced = false,
            Action::Start => vm.running = vm.exists && !vm.fenced,
            Action::ShutDown => vm.running = false,
            Action::Retire { .. } => vm.exists = false,
            _ => {}
        }
        Ok(*vm)
    }

    fn changes_since(
        &self,
        call: &Call<'_>,
        since: Option<Checkpoint>,
        _from_snapshot: bool,
    ) -> Result<Changes> {
        self.newest.lock().unwrap().admit(call.token)?;
        if since.is_some() {
            return Ok(Changes::TrackingLost);
        }
        Ok(Changes::Tracked(vec![DiskChanges {
            identity: "system".to_owned(),
            address: Location::parse_absolute(&self.disk)?,
            changed: None,
        }]))
    }
}

fn vm(running: bool, disk: &Path) -> Arc<dyn VmController> {
    let seen = VmSeen {
        exists: true,
        running,
        fenced: false,
    };
    Arc::new(MemoryVm {
        seen: Mutex::new(seen),
        newest: Mutex::default(),
        disk: disk.display().to_string(),
    })
}

fn main() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("failback-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (away, home) = (directory.join("away.raw"), directory.join("home.raw"));
    std::fs::write(&away, vec![2; 1 << 20]).unwrap();
    std::fs::write(&home, vec![1; 1 << 20]).unwrap();
    let plan = Plan::builder("shop", SiteName::Recovery)
        .mode(JobMode::Delta)
        .vm("db1")
        .disk("system", &home.to_string_lossy(), &away.to_string_lossy())
        .build()?;

    let (at_home, in_cloud) = (vm(false, &home), vm(true, &away));
    let work = Work::new()?;
    let job = Job::begin(directory.join("jobs"), &plan, "example", &work)?
        .controllers(move |site, _vm| {
            Some(match site {
                SiteName::Primary => at_home.clone(),
                SiteName::Recovery => in_cloud.clone(),
            })
        })
        .auto(&[Request::Complete, Request::Commit]);
    let mut phase = None;
    let status = job.run(
        &mut |event| {
            if let Event::Changed { vm, state } = event
                && phase.replace(state.phase) != Some(state.phase)
            {
                println!("{vm}: {}", state.phase);
            }
        },
        &work,
    )?;
    println!("{}: {}", status.vms[0].vm, status.vms[0].phase);
    assert_eq!(std::fs::read(&home).unwrap(), std::fs::read(&away).unwrap());
    std::fs::remove_dir_all(&directory).unwrap();
    Ok(())
}

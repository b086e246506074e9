//! The controller of VMs in Azure, with a stand-in for `az` that checks its arguments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use diskdelta::failback::machine::{Action, Checkpoint, Side, Token, VmSeen};
use diskdelta::failback::vm::{Call, CommandController, Facts, VmController};
use diskdelta::{CancelToken, Error};

const CONTROLLER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/azure/controller");

/// What the stand-in knows, and a controller that uses it.
struct Azure {
    directory: tempfile::TempDir,
    controller: CommandController,
}

impl Azure {
    fn new() -> Azure {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("az")).unwrap();
        std::fs::create_dir(path("bin")).unwrap();
        let stand_in = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cloud/az");
        std::os::unix::fs::symlink(stand_in, path("bin/az")).unwrap();
        let settings = format!(
            "# of the shop\ngroup = shop\nstate = {}\naccount = shopdisks\ncontainer = vhds\n\
             size = Standard_D2s_v5\nnetwork.lan = vnet1/default\nvm.db1 = shop-db1\n\
             disk.db1-system = shop-db1-os\nos.db1 = Linux\nwait = 0\n",
            path("state").display()
        );
        std::fs::write(path("azure.conf"), settings).unwrap();
        let script = format!(
            "export AZ_STATE='{}'; export PATH='{}':\"$PATH\"; exec '{CONTROLLER}' '{}' \"$1\"",
            path("az").display(),
            path("bin").display(),
            path("azure.conf").display(),
        );
        let argv = ["bash", "-c", &script, "bash"].map(str::to_owned).to_vec();
        let facts = Facts {
            job: "shop".into(),
            vm: "db1".into(),
            side: Side::Source,
            site: "recovery".into(),
            host: "azure".into(),
            networks: vec!["lan".into()],
            blocked_disks: Vec::new(),
            disks: vec![
                ("db1-system".into(), "/x".into()),
                ("data".into(), "/y".into()),
            ],
        };
        let limit = Duration::from_secs(60);
        let controller = CommandController::new(facts, BTreeMap::new(), Some(argv), limit);
        let azure = Azure {
            directory,
            controller,
        };
        for (name, text) in [
            ("subnet.vnet1.default", ""),
            ("disk.shop-db1-os", ""),
            ("disk.data", ""),
        ] {
            azure.put(name, text);
        }
        azure
    }

    fn with_vm() -> Azure {
        let azure = Azure::new();
        azure.put("vm.shop-db1", "PowerState/deallocated\n");
        azure
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join("az").join(name)
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    fn send(&self, sequence: u64, action: Action) -> Result<VmSeen, Error> {
        let (token, cancel) = (token(sequence), &CancelToken::new());
        self.controller.execute(&Call { token, cancel }, action)
    }

    /// Sends a command, and expects the VM to be off or running, and fenced or not.
    fn shows(&self, sequence: u64, action: Action, running: bool, fenced: bool) {
        let expected = VmSeen {
            exists: true,
            running,
            fenced,
        };
        assert_eq!(self.send(sequence, action).unwrap(), expected);
    }

    /// What the program answers itself, run as the job runs it.
    fn answer(&self, verb: &str, token: &str, request: &str) -> (bool, String) {
        let mut child = std::process::Command::new(CONTROLLER)
            .arg(self.directory.path().join("azure.conf"))
            .arg(verb)
            .env("AZ_STATE", self.at(""))
            .env("PATH", path_with(&self.directory.path().join("bin")))
            .envs([
                ("DISKDELTA_TOKEN", token),
                ("DISKDELTA_JOB", "shop"),
                ("DISKDELTA_VM", "db1"),
            ])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), request.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!text.contains("S1G"), "{text}");
        (output.status.success(), text)
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.at("calls")).unwrap_or_default()
    }

    fn snapshots(&self) -> usize {
        let names = std::fs::read_dir(self.at("")).unwrap();
        let names = names.map(|it| it.unwrap().file_name().into_string().unwrap());
        names.filter(|it| it.starts_with("snapshot.")).count()
    }
}

fn path_with(bin: &Path) -> String {
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

fn token(sequence: u64) -> Token {
    Token { epoch: 1, sequence }
}

const DISKS: &str = r#""networks":["lan"],"disks":[["db1-system","/x"],["data","/y"]]"#;

#[test]
fn a_vm_in_azure_is_looked_at_fenced_started_and_shut_down() {
    let azure = Azure::with_vm();
    azure.shows(1, Action::Inspect, false, false);
    azure.shows(2, Action::Fence, false, true);
    azure.shows(2, Action::Fence, false, true);
    azure.shows(3, Action::Start, false, true);
    azure.shows(4, Action::Unfence, false, false);
    azure.shows(5, Action::Start, true, false);
    azure.shows(6, Action::Start, true, false);
    let late = azure.send(5, Action::ShutDown).unwrap_err();
    assert!(late.to_string().contains("too late: 1.6"), "{late}");
    azure.shows(7, Action::ShutDown, false, false);
    azure.shows(8, Action::ShutDown, false, false);
    std::fs::remove_file(azure.at("subnet.vnet1.default")).unwrap();
    let error = azure.send(9, Action::Inspect).unwrap_err();
    assert!(error.to_string().contains("no network lan"), "{error}");
}

#[test]
fn passes_read_snapshots_and_name_those_that_they_differ_from() {
    let azure = Azure::with_vm();
    azure.shows(1, Action::Start, true, false);
    azure.shows(2, Action::ArmTracking { keep: None }, true, false);
    azure.shows(3, Action::Snapshot, true, false);
    assert_eq!(azure.snapshots(), 4);
    let ask = |since: &str, from_snapshot: bool, at: &str| {
        let request = format!("{{{since}\"from_snapshot\":{from_snapshot},{DISKS}}}");
        let (is_ok, text) = azure.answer("changes-since", at, &request);
        assert!(is_ok, "{text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let first = ask("", true, "1.4");
    assert!(first["disks"][0].get("since").is_none(), "{first}");
    let later = ask("\"since\":\"1.2\",", true, "1.5");
    assert_eq!(later["disks"][1]["identity"], "data");
    for key in ["address", "since"] {
        let named = later["disks"][0][key].as_str().unwrap();
        let file = Path::new(named.strip_prefix('@').unwrap());
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o077, 0);
        assert!(std::fs::read_to_string(file).unwrap().contains("S1G"));
    }
    azure.shows(6, Action::Release, true, false);
    let keep = Some(Checkpoint(token(2)));
    azure.shows(7, Action::ArmTracking { keep }, true, false);
    assert_eq!(azure.snapshots(), 4);
    let keep = Some(Checkpoint(token(7)));
    azure.shows(8, Action::ArmTracking { keep }, true, false);
    // The one of 1.2 is gone.
    assert_eq!(azure.snapshots(), 4);
    assert_eq!(
        ask("\"since\":\"1.2\",", false, "1.9")["tracking_lost"],
        true
    );
    assert_eq!(
        ask("\"since\":\"1.7\",", true, "1.10")["snapshot_lost"],
        true
    );
    azure.shows(11, Action::ShutDown, false, false);
    assert!(ask("\"since\":\"1.7\",", false, "1.12")["disks"][0]["since"].is_string());
    assert!(azure.calls().contains("--incremental true"));
}

#[test]
fn a_vm_is_made_of_page_blobs_at_its_first_start_and_removed_with_or_without_its_disks() {
    let azure = Azure::new();
    for disk in ["disk.shop-db1-os", "disk.data"] {
        std::fs::remove_file(azure.at(disk)).unwrap();
    }
    let nothing = azure.send(1, Action::Inspect).unwrap();
    assert!(!nothing.exists);
    azure.shows(2, Action::Create, false, false);
    azure.shows(3, Action::Fence, false, true);
    azure.shows(4, Action::Start, false, true);
    azure.shows(5, Action::Unfence, false, false);
    azure.shows(6, Action::Start, true, false);
    let source = std::fs::read_to_string(azure.at("disk.shop-db1-os")).unwrap();
    assert_eq!(
        source.trim(),
        "https://shopdisks.blob.core.windows.net/vhds/db1-system.vhd"
    );
    azure.shows(7, Action::ShutDown, false, false);
    azure.shows(8, Action::Fence, false, true);
    let gone = azure
        .send(
            9,
            Action::Retire {
                discard_disks: false,
            },
        )
        .unwrap();
    assert!(!gone.exists && azure.at("disk.data").exists());
    let gone = azure
        .send(
            10,
            Action::Retire {
                discard_disks: true,
            },
        )
        .unwrap();
    assert!(!gone.exists && !azure.at("disk.data").exists());
}

//! A VM comes home from Azure, and goes back: by the job, the controllers and the blob service of
//! the tests.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::account::{Account, QUERY};
use crate::blob::{Blob, Service};
use crate::fixture::{COMMAND, Fixture, noise, until};
use crate::server::{Request, Response, Server};

const MIB: usize = 1 << 20;
const SIGNED: &str = "sv=2020-10-02&sr=bs&sig=S1GSNAPSHOT";

/// Serves the snapshots that the stand-in for `az` has made, as files in `folder`.
fn snapshots(folder: &Path) -> impl Fn(&Request) -> Response + Send + Sync + 'static {
    let (folder, known) = (folder.to_owned(), Mutex::new(HashMap::new()));
    move |request| {
        let mut known = known.lock().unwrap();
        // The disk itself, as it is now; it is only read while its VM is off.
        let live = folder.join("bytes.shop-db1-os");
        let modified = fs::metadata(&live).unwrap().modified().unwrap();
        let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
        let made = usize::try_from(since.as_millis()).unwrap();
        known
            .entry(("disk".to_owned(), made))
            .or_insert_with(|| Blob {
                query: SIGNED.to_owned(),
                ..Blob::new(fs::read(&live).unwrap(), made)
            });
        for entry in fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(snapshot) = name.strip_prefix("bytes-of.") else {
                continue;
            };
            let made = fs::read_to_string(folder.join(format!("made.{snapshot}"))).unwrap();
            let made: usize = made.trim().parse().unwrap();
            known.entry((snapshot.to_owned(), made)).or_insert_with(|| {
                let query = SIGNED.to_owned();
                let bytes = fs::read(folder.join(&name)).unwrap();
                Blob {
                    query,
                    ..Blob::new(bytes, made)
                }
            });
        }
        let mut service = Service::new([]);
        let mut sorted: Vec<_> = known.iter().collect();
        sorted.sort_by_key(|((_, made), _)| *made);
        for ((snapshot, _), blob) in sorted {
            service
                .blobs
                .insert(format!("/{snapshot}/abcd"), blob.clone());
        }
        service.answer(request)
    }
}

struct Sites(Fixture);

impl Sites {
    fn failback(&self, words: &str) -> Output {
        Command::new(COMMAND)
            .arg("failback")
            .args(words.split_whitespace())
            .args(["--state-dir", "jobs", "--by", "operator", "--json"])
            .current_dir(self.0.path(""))
            .output()
            .unwrap()
    }

    fn ok(&self, words: &str) -> Value {
        let output = self.failback(words);
        assert!(output.status.success(), "{words}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What the guest in Azure does to its disk.
    fn guest_writes(&self, offset: usize, bytes: &[u8]) {
        let path = self.0.path("az/bytes.shop-db1-os");
        let mut disk = fs::read(&path).unwrap();
        disk[offset..offset + bytes.len()].copy_from_slice(bytes);
        fs::write(path, disk).unwrap();
    }
}

#[test]
fn a_vm_comes_home_from_azure_and_goes_back() {
    let fixture = Fixture::new();
    let path = |name: &str| fixture.path(name).to_str().unwrap().to_owned();
    for folder in ["az", "bin", "home"] {
        fs::create_dir(fixture.path(folder)).unwrap();
    }
    // The guest's disk, as Azure has it: a fixed VHD in a page blob.
    let mut guest = noise(8 * MIB, 1);
    guest[2 * MIB..5 * MIB].fill(0);
    fs::write(fixture.path("guest.raw"), &guest).unwrap();
    fixture.done("sync guest.raw az/disk.vhd --create vhd-fixed --target-format vhd");
    fs::rename(
        fixture.path("az/disk.vhd"),
        fixture.path("az/bytes.shop-db1-os"),
    )
    .unwrap();
    let server = Server::start(snapshots(&fixture.path("az")));
    let account = Arc::new(Account::new([]));
    let blobs = Server::start({
        let account = account.clone();
        move |request| account.answer(request)
    });
    fs::write(fixture.path("az/server"), server.at("")).unwrap();
    fs::write(fixture.path("az/query"), SIGNED).unwrap();
    for (name, text) in [
        ("disk.shop-db1-os", ""),
        ("subnet.vnet1.default", ""),
        ("vm.shop-db1", "PowerState/running\n"),
    ] {
        fs::write(fixture.path("az").join(name), text).unwrap();
    }
    let here = env!("CARGO_MANIFEST_DIR");
    std::os::unix::fs::symlink(format!("{here}/tests/cloud/az"), fixture.path("bin/az")).unwrap();
    let settings = format!(
        "group = shop\nstate = {}\naccount = shopdisks\ncontainer = vhds\nsize = Standard_D2s_v5\n\
         network.lan = vnet1/default\nvm.db1 = shop-db1\ndisk.db1-system = shop-db1-os\n\
         os.db1 = Linux\nwait = 0\n",
        path("state")
    );
    fs::write(fixture.path("azure.conf"), settings).unwrap();
    fs::write(fixture.path("home/disk-name"), "db1.vhdx\n").unwrap();
    fs::write(fixture.path("home/gone"), "").unwrap();
    let azure = format!(
        "export AZ_STATE='{}' PATH='{}':\"$PATH\"; exec '{here}/contrib/azure/controller' '{}' \"$1\"",
        path("az"),
        path("bin"),
        path("azure.conf")
    );
    let plan = format!(
        "[job]\nname = \"shop\"\nactive = \"recovery\"\nmode = \"delta\"\n\
         safety = \"atomic\"\npass_interval = \"1h\"\n\
         [primary]\nhost = \"hv1\"\n[primary.controller]\nkind = \"commands\"\n\
         program = [\"sh\", \"{here}/tests/failback_cli/vm.sh\", {home:?}]\n\
         [recovery]\nhost = \"azure\"\n[recovery.controller]\nkind = \"commands\"\n\
         program = [\"bash\", \"-c\", {azure:?}, \"bash\"]\n\
         [[group]]\nname = \"g\"\n[[group.vm]]\nname = \"db1\"\nnetworks = [\"lan\"]\n\
         create = true\n[[group.vm.disk]]\nidentity = \"db1-system\"\nprimary = {disk:?}\n\
         recovery = \"@{url}\"\n\
         recovery_format = \"vhd\"\n",
        home = path("home"),
        disk = path("home/db1.vhdx"),
        url = path("disk.url"),
    );
    fs::write(fixture.path("plan.toml"), plan).unwrap();
    fs::write(
        fixture.path("disk.url"),
        server.at(&format!("/disk/abcd?{SIGNED}")),
    )
    .unwrap();
    let sites = Sites(fixture);

    // Phase 1, while the guest writes.
    let mut runner = Command::new(COMMAND)
        .args([
            "failback",
            "start",
            "plan.toml",
            "--yes",
            "--state-dir",
            "jobs",
            "--by",
            "me",
        ])
        .current_dir(sites.0.path(""))
        .spawn()
        .unwrap();
    let phase = |wanted: &str| {
        let status = sites.failback("status shop");
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        status["vms"][0]["phase"] == wanted
    };
    until("the first pass", || phase("ready-to-cutover"));
    let (log, before) = (server.log().len(), server.sent_bytes());
    sites.guest_writes(MIB, &noise(8192, 3));
    sites.guest_writes(3 * MIB, &noise(4096, 4));
    sites.guest_writes(7 * MIB, &[0; 65_536]);

    // The final delta: what changed between two snapshots, and no more.
    sites.ok("complete shop");
    until("the cutover", || phase("commit-pending"));
    until("the proof", || {
        sites.ok("status shop")["vms"][0]["proven"] == true
    });
    let asked = server.log();
    let is_diff = |it: &&Request| it.headers.contains_key("x-ms-previous-snapshot-url");
    assert!(
        asked[log..].iter().any(|it| is_diff(&it)),
        "no list of changes was asked for"
    );
    // The proof reads what is allocated, once.
    assert!(
        server.sent_bytes() - before < 7 * MIB,
        "{}",
        server.sent_bytes() - before
    );
    sites.ok("commit shop");
    assert!(runner.wait().unwrap().success());
    guest[MIB..MIB + 8192].copy_from_slice(&noise(8192, 3));
    guest[3 * MIB..3 * MIB + 4096].copy_from_slice(&noise(4096, 4));
    guest[7 * MIB..7 * MIB + 65_536].fill(0);
    fs::write(sites.0.path("guest.raw"), &guest).unwrap();
    sites.0.done("diff home/db1.vhdx guest.raw");
    assert!(sites.0.path("home/running").exists() && !sites.0.path("az/vm.shop-db1").exists());

    // Nothing that the job leaves holds an address.
    let searched = Command::new("grep")
        .args(["-rlE", "S1G", "jobs", "home", "plan.toml"])
        .current_dir(sites.0.path(""))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&searched.stdout), "");

    // Back: a page blob, first all of it, then what the guest at home wrote.
    let address = blobs.at(&format!("/vhds/db1-system.vhd?{QUERY}"));
    fs::write(sites.0.path("blob.url"), address).unwrap();
    let back = "sync home/db1.vhdx @blob.url --log-dir logs --verify sent --target-manifest m";
    sites.0.done(back);
    guest[100_000..104_096].copy_from_slice(&noise(4096, 5));
    fs::write(sites.0.path("guest.raw"), &guest).unwrap();
    sites.0.done("sync guest.raw home/db1.vhdx --mode delta");
    blobs.reset();
    sites.0.done(back);
    let sent: usize = blobs.log().iter().map(|it| it.body.len()).sum();
    // The marker and what it covered at both ends, and the blocks that changed.
    assert!(sent < 5 * MIB, "{sent}");
    sites.0.done("diff guest.raw @blob.url");
    let blob = account.blob("/vhds/db1-system.vhd").unwrap();
    assert!(blob.bytes[..8 * MIB] == guest && blob.bytes[8 * MIB..].starts_with(b"conectix"));

    // A failover back: the controller makes the VM of the blob.
    for (sequence, verb) in ["create", "inspect", "unfence", "start"].iter().enumerate() {
        let request = "{\"networks\":[\"lan\"],\"disks\":[[\"db1-system\",\"/x\"]]}";
        fs::write(sites.0.path("request"), request).unwrap();
        let output = Command::new("bash")
            .args(["-c", &azure, "bash", verb])
            .env("DISKDELTA_TOKEN", format!("99.{}", sequence + 1))
            .envs([("DISKDELTA_JOB", "shop"), ("DISKDELTA_VM", "db1")])
            .stdin(fs::File::open(sites.0.path("request")).unwrap())
            .output()
            .unwrap();
        assert!(output.status.success(), "{verb}: {output:?}");
    }
    assert!(sites.0.path("az/vm.shop-db1").exists());
}

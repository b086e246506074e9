//! Plan files: what is right is understood, and everything that is wrong is named by line and key.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::time::Duration;

use diskdelta::ErrorKind;
use diskdelta::Location;
use diskdelta::failback::machine::{CommitPolicy, JobMode, ProofPolicy};
use diskdelta::failback::plan::{Controller, Direction, Plan, SiteName};
use diskdelta::image::Format;
use diskdelta::replica::KeyFile;
use diskdelta::sync::Safety;

#[test]
fn a_plan_says_what_it_means() {
    let plan = Plan::parse(PLAN).unwrap();
    assert_eq!(plan.name, "shop");
    assert_eq!(plan.direction(), Direction::RecoveryToPrimary);
    assert_eq!(plan.mode, Some(JobMode::Delta));
    assert_eq!(plan.safety, Safety::InPlace);
    assert_eq!(plan.proof, ProofPolicy::BeforeActivation);
    assert_eq!(plan.commit, (CommitPolicy::Auto, Duration::from_secs(7200)));
    assert_eq!(plan.downtime_budget, Duration::from_secs(120));
    assert_eq!(plan.pass_interval, Some(Duration::from_secs(3600)));
    assert_eq!(plan.max_passes, 5);
    assert!(!plan.keep_undo && plan.discard_baseline);
    assert!(
        matches!(&plan.primary.controller, Controller::Commands { verbs, time_limit, .. }
        if verbs["fence"] == ["/opt/fence", "--now"] && *time_limit == Duration::from_secs(60))
    );
    let names: Vec<_> = plan.vms().map(|vm| &vm.name[..]).collect();
    assert_eq!(names, ["db1", "web1"]);
    let disk = &plan.groups[0].vms[0].disks[0];
    assert_eq!(disk.bytes, Some(64 << 30));
    assert_eq!(
        disk.primary,
        Location::parse_absolute("/vm/db1.vhdx").unwrap()
    );
    assert_eq!(
        (disk.primary_format, disk.recovery_format),
        (Format::Vhdx, Format::Raw)
    );
    assert!(plan.groups[1].vms[0].create);
    let spec = plan.spec(&plan.groups[0].vms[0], JobMode::Full);
    assert_eq!(
        (spec.mode, spec.grouped, spec.max_passes),
        (JobMode::Delta, true, 5)
    );
}

#[test]
fn what_is_left_out_has_the_safe_default() {
    let plan = Plan::parse(&least("")).unwrap();
    assert_eq!(plan.mode, None);
    assert_eq!(plan.safety, Safety::Atomic);
    assert_eq!(plan.proof, ProofPolicy::AfterActivation);
    assert_eq!(plan.commit, (CommitPolicy::Manual, Duration::ZERO));
    assert!(!plan.keep_undo && !plan.discard_baseline);
    let spec = plan.spec(&plan.groups[0].vms[0], JobMode::Full);
    assert_eq!((spec.mode, spec.grouped), (JobMode::Full, false));
}

#[test]
fn everything_that_is_wrong_is_named_by_line_and_key() {
    for (from, to, line, key) in [
        ("name = \"shop\"", "nam = \"shop\"", 3, "nam"),
        ("name = \"shop\"", "name = \"../shop\"", 3, "job.name"),
        ("name = \"shop\"", "name = 5", 3, "name"),
        ("name = \"shop\"", "name = \"shop", 3, "name"),
        ("active = \"recovery\"", "active = \"cloud\"", 4, "active"),
        ("mode = \"delta\"", "mode = \"fast\"", 5, "job.mode"),
        (
            "safety = \"in-place\"",
            "safety = \"none\"",
            6,
            "job.safety",
        ),
        (
            "proof = \"before-activation\"",
            "proof = \"no\"",
            7,
            "job.proof",
        ),
        (
            "commit = \"auto\"",
            "commit = \"manual\"",
            9,
            "job.commit_after",
        ),
        ("commit_after = \"2h\"", "", 8, "job.commit"),
        (
            "commit_after = \"2h\"",
            "commit_after = \"2 hours\"",
            9,
            "job.commit_after",
        ),
        (
            "downtime_budget = \"2m\"",
            "downtime_budget = \"-2m\"",
            10,
            "job.downtime_budget",
        ),
        ("max_passes = 5", "max_passes = 0", 11, "job.max_passes"),
        ("max_passes = 5", "max_passes = -1", 11, "max_passes"),
        (
            "discard_baseline = true",
            "keep_undo = true",
            13,
            "job.keep_undo",
        ),
        ("host = \"hv1\"", "host = \"\"", 16, "primary.host"),
        ("host = \"hv1\"", "", 15, "host"),
        (
            "kind = \"commands\"",
            "kind = \"magic\"",
            18,
            "primary.controller",
        ),
        (
            "time_limit = \"60s\"",
            "time_limit = \"soon\"",
            21,
            "primary.controller.time_limit",
        ),
        (
            "fence = [",
            "fnece = [",
            24,
            "primary.controller.verbs.fnece",
        ),
        (
            "[\"/opt/fence\", \"--now\"]",
            "[]",
            24,
            "primary.controller.verbs.fence",
        ),
        ("program = [\"/opt/any\"]", "", 18, "primary.controller"),
        (
            "program = [\"/opt/cloud\"]",
            "program = [\"\"]",
            28,
            "recovery.controller.program",
        ),
        ("name = \"web\"", "name = \"databases\"", 47, "group.name"),
        ("name = \"web1\"", "name = \"db1\"", 50, "group.vm.name"),
        ("name = \"web1\"", "name = \"web1\"\nsize = 3", 51, "size"),
        (
            "bytes = \"64G\"",
            "bytes = \"64Q\"",
            40,
            "group.vm.disk.bytes",
        ),
        ("bytes = \"64G\"", "bytes = 0", 40, "group.vm.disk.bytes"),
        ("bytes = \"64G\"", "bytes = true", 40, "bytes"),
        (
            "identity = \"web1-system\"",
            "identity = \"db1-system\"",
            54,
            "group.vm.disk.identity",
        ),
        (
            "primary = \"/vm/web1.vhd\"",
            "primary = \"/vm//db1.vhdx\"",
            55,
            "group.vm.disk.primary",
        ),
        (
            "primary = \"/vm/web1.vhd\"",
            "primary = \"/vm/web1.qcow2\"",
            55,
            "group.vm.disk.primary",
        ),
        (
            "primary = \"/vm/web1.vhd\"",
            "primary = \"web1.vhd\"",
            55,
            "group.vm.disk.primary",
        ),
        (
            "recovery = \"/mnt/cloud/web1.raw\"",
            "recovery = \"/vm/web1.vhd\"",
            56,
            "group.vm.disk.recovery",
        ),
        (
            "recovery_format = \"raw\"",
            "recovery_format = \"floppy\"",
            43,
            "group.vm.disk.recovery_format",
        ),
    ] {
        assert!(PLAN.contains(from), "{from}");
        let error = Plan::parse(&PLAN.replacen(from, to, 1)).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        let start = format!("line {line}");
        let right =
            text.starts_with(&format!("{start},")) || text.starts_with(&format!("{start}:"));
        assert!(right && text.contains(key), "`{from}` made `{to}`: {text}");
    }
}

#[cfg(feature = "qemu")]
#[test]
fn a_site_of_qemu_names_a_directory_and_a_program_that_starts_vms_and_nothing_else() {
    let of = |controller: &str| {
        let text = least("").replacen("kind = \"commands\", program = [\"/any\"]", controller, 1);
        Plan::parse(&text)
    };
    let plan = of("kind = \"qemu\", directory = \"/vm\", start = [\"/start\", \"-x\"]").unwrap();
    let Controller::Qemu {
        directory, start, ..
    } = &plan.primary.controller
    else {
        panic!("{:?}", plan.primary.controller);
    };
    assert_eq!(directory, std::path::Path::new("/vm"));
    assert_eq!(start[..], ["/start", "-x"]);
    let long = "/x".repeat(50);
    for (wrong, said) in [
        ("kind = \"qemu\", start = [\"/start\"]", "needs `directory`"),
        ("kind = \"qemu\", directory = \"/vm\"", "needs `start`"),
        (
            "kind = \"qemu\", directory = \"/vm\", start = []",
            "needs `start`",
        ),
        (
            "kind = \"qemu\", directory = \"vm\", start = [\"/s\"]",
            "primary.controller.directory",
        ),
        (
            &format!("kind = \"qemu\", directory = \"{long}\", start = [\"/s\"]"),
            "longer than 80 bytes",
        ),
        (
            "kind = \"qemu\", directory = \"/vm\", start = [\"/s\"], program = [\"/x\"]",
            "go with `kind = \"commands\"`",
        ),
        (
            "kind = \"commands\", program = [\"/any\"], directory = \"/vm\"",
            "go with `kind = \"qemu\"`",
        ),
    ] {
        let error = of(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let text = error.to_string();
        assert!(text.contains("line 8") && text.contains(said), "{text}");
    }
}

#[test]
fn a_disk_that_is_read_may_lie_elsewhere_and_says_how_it_is_reached() {
    let remote = |lines: &str| {
        let text = least("")
            .replace(
                "recovery = \"/b\"",
                "recovery = \"ssh://me@Cloud/vm//b.vhdx\"",
            )
            .replace("[[group]]\n", &format!("{lines}\n[[group]]\n"));
        Plan::parse(&text)
    };
    let plan = remote("").unwrap();
    let disk = &plan.groups[0].vms[0].disks[0];
    assert_eq!(disk.recovery.to_string(), "ssh://me@Cloud/vm//b.vhdx");
    assert_eq!(disk.recovery.place(), "ssh://cloud/vm/b.vhdx");
    assert_eq!(
        (disk.recovery.path(), disk.recovery_format),
        (None, Format::Vhdx)
    );
    // Nobody sits there to be asked for a password.
    assert_eq!(plan.recovery.connect.rsh, "ssh -oBatchMode=yes");
    assert_eq!(plan.recovery.connect.timeout, Duration::from_secs(60));
    assert!(!plan.spec(&plan.groups[0].vms[0], JobMode::Delta).one_way);
    let plan = remote(concat!(
        "[recovery.connect]\nrsh = \"ssh -i /key\"\nremote_program = \"/opt/diskdelta\"\n",
        "tls_cert = \"/c\"\ntls_key = \"/k\"\ntls_ca = \"/a\"\ntls_name = \"backup\"\n",
        "timeout = \"20s\"\nlimit_rate = \"50M\"\nstate = \"/var/lib/home\""
    ));
    let connect = plan.unwrap().recovery.connect;
    assert_eq!(
        (&connect.rsh[..], &connect.remote_program[..]),
        ("ssh -i /key", "/opt/diskdelta")
    );
    assert_eq!(
        connect.state.as_deref(),
        Some(std::path::Path::new("/var/lib/home"))
    );
    assert_eq!(connect.tls.unwrap().ca, std::path::Path::new("/a"));
    assert_eq!(connect.tls_name.as_deref(), Some("backup"));
    assert_eq!(
        (connect.timeout, connect.limit_rate),
        (Duration::from_secs(20), 50 << 20)
    );
    for (lines, key) in [
        ("tls_cert = \"/c\"", "recovery.connect"),
        ("tls_name = \"x\"", "recovery.connect.tls_name"),
        (
            "tls_cert = \"c\"\ntls_key = \"/k\"\ntls_ca = \"/a\"",
            "recovery.connect.tls_cert",
        ),
        ("timeout = \"soon\"", "recovery.connect.timeout"),
        ("timeout = \"0s\"", "recovery.connect.timeout"),
        ("limit_rate = \"fast\"", "recovery.connect.limit_rate"),
        ("rsh = \"\"", "recovery.connect.rsh"),
        ("ssh = \"ssh\"", "ssh"),
    ] {
        let error = remote(&format!("[recovery.connect]\n{lines}")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let text = error.to_string();
        let line = if key == "recovery.connect" { 12 } else { 13 };
        let named = text.starts_with(&format!("line {line}")) && text.contains(key);
        assert!(named, "{lines}: {text}");
    }
}

#[test]
fn a_disk_that_is_written_lies_where_it_can_be_renamed() {
    let with = |from: &str, to: &str, more: &str| {
        let text = least("").replace(from, to);
        Plan::parse(&text.replace("[[group]]\n", &format!("{more}\n[[group]]\n")))
    };
    for address in ["diskdelta://host/a", "nbd+unix:///a?socket=/s"] {
        let to = format!("primary = \"{address}\"");
        let text = with("primary = \"/a\"", &to, "").unwrap_err().to_string();
        let start = "line 19, key `group.vm.disk.primary`";
        assert!(
            text.starts_with(start) && text.contains("run the job on the host"),
            "{text}"
        );
    }
    let recovery = "recovery = \"/b\"";
    let primary = "primary = \"/a\"";
    let away = "primary = \"ssh://me@host/a\"";
    with(primary, away, "").unwrap();
    let sealed = "[primary.encryption]\nidentity = \"/key\"";
    let text = with(primary, away, sealed).unwrap_err().to_string();
    let start = "line 20, key `group.vm.disk.primary`";
    assert!(
        text.starts_with(start) && text.contains("does not leave this one"),
        "{text}"
    );
    // Both at one host are both at home there; on two others they are not.
    let both = |other: &str| {
        let text = least("").replace(primary, away);
        Plan::parse(&text.replace(recovery, &format!("recovery = \"{other}\"")))
    };
    both("ssh://me@HOST:22/b").unwrap();
    for other in ["ssh://me@elsewhere/b", "ssh://you@host/b"] {
        let text = both(other).unwrap_err().to_string();
        let start = "line 18, key `group.vm.disk.primary`";
        assert!(
            text.starts_with(start) && text.contains("two other hosts"),
            "{text}"
        );
    }
    // All disks of a VM are written on one host, as one user; they may be read from several.
    let more = |primary: &str, recovery: &str| {
        let text = least("").replace("primary = \"/a\"", away);
        Plan::parse(&format!(
            "{text}[[group.vm.disk]]\nidentity = \"y\"\nprimary = \"{primary}\"\n\
             recovery = \"{recovery}\"\n"
        ))
    };
    more("ssh://me@host/c", "/d").unwrap();
    for other in ["/c", "ssh://me@elsewhere/c", "ssh://you@host/c"] {
        let text = more(other, "/d").unwrap_err().to_string();
        assert!(
            text.contains("key `group.vm.disk.primary`") && text.contains("lie on one host"),
            "{text}"
        );
    }
    let remote = "recovery = \"ssh://host/b\"";
    // Its replica may be kept encrypted.
    with(
        recovery,
        remote,
        "[primary.encryption]\nidentity = \"/key\"",
    )
    .unwrap();
    let service = "recovery = \"diskdelta://host/b\"";
    let export = "recovery = \"nbd+unix:///b?socket=/s\"\nrecovery_format = \"vhd\"";
    for (to, more, said) in [
        (service, "", "`[recovery.connect]` names none"),
        (export, "", "not vhd"),
        ("recovery = \"ftp://host/b\"", "", "no way to reach"),
        ("recovery = \"ssh://host/../b\"", "", "`..`"),
    ] {
        let text = with(recovery, to, more).unwrap_err().to_string();
        // What is added comes before, and an empty line where nothing is.
        let line = 19 + more.lines().count().max(1);
        let start = format!("line {line}, key `group.vm.disk.recovery`");
        assert!(text.starts_with(&start) && text.contains(said), "{text}");
    }
    let qemu = "kind = \"qemu\", directory = \"/vm\", start = [\"/s\"]";
    let text = least("").replace(recovery, remote);
    let (head, tail) = text.split_once("[recovery]").unwrap();
    let tail = tail.replacen("kind = \"commands\", program = [\"/any\"]", qemu, 1);
    let text = Plan::parse(&format!("{head}[recovery]{tail}"))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("line 19, key `group.vm.disk.recovery`") && text.contains("QEMU"),
        "{text}"
    );
}

#[test]
fn two_spellings_of_one_remote_disk_are_one_disk() {
    let two = |one: &str, other: &str| {
        let disk = |identity: &str, primary: &str, recovery: &str| {
            format!(
                "[[group.vm.disk]]\nidentity = \"{identity}\"\nprimary = \"{primary}\"\n\
                 recovery = \"{recovery}\"\n"
            )
        };
        let text = least("");
        let (head, _) = text.split_once("[[group.vm.disk]]").unwrap();
        Plan::parse(&format!(
            "{head}{}{}",
            disk("x", "/x", one),
            disk("y", "/y", other)
        ))
    };
    for (one, other) in [
        ("ssh://host/b", "ssh://me@HOST:22//./b"),
        ("ssh://[::1]/b", "ssh://[0::1]/b"),
        (
            "nbd+unix:///b?socket=/run/s",
            "nbd+unix:///b?socket=/run//s",
        ),
    ] {
        let text = two(one, other).unwrap_err().to_string();
        let start = "line 23, key `group.vm.disk.recovery`";
        assert!(
            text.starts_with(start) && text.contains("in line 19"),
            "{text}"
        );
    }
    let one_way = |one: &str, other: &str| {
        let plan = two(one, other).unwrap();
        plan.spec(&plan.groups[0].vms[0], JobMode::Delta).one_way
    };
    // Disks on several hosts are read; nothing is replicated back onto them.
    assert!(one_way("ssh://host/b", "ssh://host:2222/b"));
    assert!(one_way("ssh://host/b", "/b"));
    assert!(!one_way("ssh://host/b", "ssh://host/c"));
}

#[test]
fn a_plan_without_vms_or_a_vm_without_disks_is_refused() {
    let all = least("");
    let vm = all.find("[[group.vm]]").unwrap();
    let disk = all.find("[[group.vm.disk]]").unwrap();
    let group = all.find("[[group]]").unwrap();
    for (text, key) in [
        (&all[..group], "group"),
        (&all[..vm], "group.vm"),
        (&all[..disk], "disk"),
    ] {
        let error = Plan::parse(text).unwrap_err().to_string();
        assert!(error.starts_with("line ") && error.contains(key), "{error}");
    }
}

#[test]
fn a_plan_file_that_is_not_there_is_named() {
    let error = Plan::load("/no/such/plan.toml").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/no/such/plan.toml"));
}

#[test]
fn no_part_of_a_plan_is_taken_for_a_whole_one() {
    // Cut anywhere, it is refused or, at the end of a whole table, means less; never a panic.
    for end in 0..PLAN.len() {
        if PLAN.is_char_boundary(end) {
            let _ = Plan::parse(&PLAN[..end]);
        }
    }
}

#[test]
fn a_site_that_encrypts_names_one_key() {
    let with = |lines: &str, active: &str| {
        let text = least("")
            .replace(
                "[[group]]\n",
                &format!("[recovery.encryption]\n{lines}\n[[group]]\n"),
            )
            .replace("active = \"recovery\"", active);
        Plan::parse(&text)
    };
    let recovery = "active = \"recovery\"";
    let plan = with("identity = \"/key\"\nrecipients = [\"age1x\"]", recovery).unwrap();
    let encryption = plan.recovery.encryption.unwrap();
    assert_eq!(encryption.key, KeyFile::Identity("/key".into()));
    assert_eq!(encryption.recipients, ["age1x"]);
    let plan = with("passphrase_file = \"/phrase\"", recovery).unwrap();
    let encryption = plan.recovery.encryption.unwrap();
    assert_eq!(encryption.key, KeyFile::Passphrase("/phrase".into()));
    for (lines, key) in [
        ("", "recovery.encryption"),
        (
            "identity = \"/a\"\npassphrase_file = \"/b\"",
            "recovery.encryption",
        ),
        (
            "passphrase_file = \"/b\"\nrecipients = [\"age1x\"]",
            "recovery.encryption",
        ),
        ("identity = \"relative\"", "recovery.encryption.identity"),
        (
            "identity = \"/a\"\nrecipients = [\"\"]",
            "recovery.encryption.recipients",
        ),
    ] {
        let error = with(lines, recovery).unwrap_err().to_string();
        assert!(error.contains(&format!("key `{key}`")), "{lines}: {error}");
    }
    let written = "active = \"primary\"\nkeep_undo = true";
    let error = with("identity = \"/key\"", written)
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 5, key `job.keep_undo`"), "{error}");
}

#[test]
fn a_site_that_encrypts_says_where_replicas_of_devices_are_kept() {
    let with = |active: &str, directory: &str| {
        let text = least("")
            .replace(
                "[[group]]\n",
                &format!("[recovery.encryption]\nidentity = \"/key\"\n{directory}\n[[group]]\n"),
            )
            .replace("recovery = \"/b\"", "recovery = \"/dev/vg/b\"")
            .replace("active = \"recovery\"", &format!("active = \"{active}\""));
        Plan::parse(&text)
    };
    // It is written in either direction.
    for active in ["primary", "recovery"] {
        let error = with(active, "").unwrap_err().to_string();
        let start = "line 22, key `group.vm.disk.recovery`: `/dev/vg/b` is a block device";
        assert!(error.starts_with(start), "{error}");
        assert!(error.contains("`[recovery.encryption]` has to name a `directory`"));
        let plan = with(active, "directory = \"/replicas\"").unwrap();
        let encryption = plan.recovery.encryption.unwrap();
        let directory = encryption.directory_of("db1", "b/c").unwrap();
        assert_eq!(directory.to_str(), Some("/replicas/db1+b%2fc.replica"));
    }
    let error = with("primary", "directory = \"replicas\"")
        .unwrap_err()
        .to_string();
    let start = "line 14, key `recovery.encryption.directory`";
    assert!(error.starts_with(start), "{error}");
}

#[test]
fn a_plan_that_a_program_puts_together_is_one_that_a_file_could_hold() {
    let builder = Plan::builder("shop", SiteName::Recovery)
        .hosts("hv1", "cloud")
        .mode(JobMode::FullFirst)
        .safety(Safety::InPlace)
        .proof(ProofPolicy::Skip)
        .commit(CommitPolicy::Undo, Duration::from_millis(1500))
        .downtime_budget(Duration::from_secs(60))
        .pass_interval(Duration::from_secs(3600))
        .keep_undo(false)
        .group("databases")
        .vm("db1")
        .disk("system", "/vm/a.vhdx", "/cloud/a.raw")
        .disk("data", "/vm/b.vhdx", "ssh://me@cloud/b.raw")
        .group("web")
        .vm("web1")
        .disk("web1", "/vm/c.vhd", "/cloud/c.raw");
    let plan = builder.build().unwrap();
    assert_eq!(Plan::parse(plan.text()).unwrap(), plan);
    assert_eq!(plan.primary.controller, Controller::Own);
    assert_eq!(
        (&plan.primary.host[..], &plan.recovery.host[..]),
        ("hv1", "cloud")
    );
    assert_eq!(plan.commit, (CommitPolicy::Undo, Duration::from_secs(2)));
    assert_eq!(
        (plan.mode, plan.safety, plan.proof),
        (Some(JobMode::FullFirst), Safety::InPlace, ProofPolicy::Skip)
    );
    assert_eq!(plan.groups.len(), 2);
    assert_eq!(plan.groups[0].vms[0].disks.len(), 2);
    let wrong = builder.vm("web2").disk("x", "relative", "/d");
    let error = wrong.build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(
        error.to_string().contains("group.vm.disk.primary"),
        "{error}"
    );
    assert!(Plan::builder("../x", SiteName::Primary).build().is_err());
}

#[test]
fn a_site_whose_vms_the_program_controls_names_no_programs() {
    let own = |more: &str| {
        let controller = format!("kind = \"own\"{more}");
        let commands = "kind = \"commands\", program = [\"/any\"]";
        Plan::parse(&least("").replacen(commands, &controller, 1))
    };
    assert_eq!(own("").unwrap().primary.controller, Controller::Own);
    let error = own(", program = [\"/x\"]").unwrap_err().to_string();
    assert!(
        error.starts_with("line 8, key `primary.controller`"),
        "{error}"
    );
}

fn least(more: &str) -> String {
    format!(
        r#"
[job]
name = "small"
active = "recovery"
{more}
[primary]
host = "a"
controller = {{ kind = "commands", program = ["/any"] }}
[recovery]
host = "b"
controller = {{ kind = "commands", program = ["/any"] }}
[[group]]
name = "all"
[[group.vm]]
name = "vm"
[[group.vm.disk]]
identity = "system"
primary = "/a"
recovery = "/b"
"#
    )
}

const PLAN: &str = r#"
[job]
name = "shop"
active = "recovery"
mode = "delta"
safety = "in-place"
proof = "before-activation"
commit = "auto"
commit_after = "2h"
downtime_budget = "2m"
max_passes = 5
pass_interval = "1h"
discard_baseline = true

[primary]
host = "hv1"

[primary.controller]
kind = "commands"
program = ["/opt/any"]
time_limit = "60s"

[primary.controller.verbs]
fence = ["/opt/fence", "--now"]

[recovery]
host = "cloud"
controller = { kind = "commands", program = ["/opt/cloud"] }

[[group]]
name = "databases"

[[group.vm]]
name = "db1"
networks = ["lan"]

[[group.vm.disk]]
# Two names for one size.
identity = "db1-system"
bytes = "64G"
primary = "/vm/db1.vhdx"
recovery = "/mnt/cloud/db1.raw"
recovery_format = "raw"

[[group]]

name = "web"

[[group.vm]]
name = "web1"
create = true

[[group.vm.disk]]
identity = "web1-system"
primary = "/vm/web1.vhd"
recovery = "/mnt/cloud/web1.raw"
"#;

#[test]
fn disks_are_deleted_only_after_a_proof_and_chosen_vms_make_a_plan_of_their_own() {
    let plan = Plan::builder("shop", SiteName::Recovery)
        .vm("db1")
        .disk("db1-system", "/p/db1.raw", "/r/db1.raw")
        .group("web")
        .vm("web1")
        .disk("web1-system", "/p/web1.raw", "/r/web1.raw")
        .build()
        .unwrap();
    let discards = |proof: &str| {
        let job = format!("[job]\ndiscard_baseline = true\nproof = \"{proof}\"");
        Plan::parse(&plan.text().replace("[job]", &job))
    };
    assert!(discards("after-activation").unwrap().discard_baseline);
    let error = discards("skip").unwrap_err().to_string();
    assert!(error.contains("key `job.discard_baseline`"), "{error}");

    let chosen = plan.choose(&["web1".to_owned()], Some("shop-web")).unwrap();
    assert_eq!((&chosen.name[..], chosen.groups.len()), ("shop-web", 1));
    assert_eq!(chosen.vms().next().unwrap().name, "web1");
    assert_eq!(plan.choose(&[], None).unwrap(), plan);
}

//! What the command prints and hooks are told is what `docs/reference/failback.schema.json` says,
//! what programs are asked and answer what `controller.schema.json` says.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::fake_vm::{FakeVms, noise};
use crate::fixture::CommandFixture;

struct Schema(Value);

impl Schema {
    fn load(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
        let text = fs::read_to_string(path.join(name)).unwrap();
        let schema = serde_json::from_str(&text).unwrap();
        assert!(jsonschema::meta::is_valid(&schema), "{name}");
        Schema(schema)
    }

    /// Why a value is not as a definition says.
    fn errors(&self, definition: &str, value: &Value) -> Vec<String> {
        let mut one = self.0.clone();
        let object = one.as_object_mut().unwrap();
        object.remove("anyOf");
        object.insert("$ref".to_owned(), format!("#/$defs/{definition}").into());
        let validator = jsonschema::validator_for(&one).unwrap();
        let errors = validator.iter_errors(value).map(|it| it.to_string());
        errors.collect()
    }

    fn holds(&self, definition: &str, value: &Value) {
        let errors = self.errors(definition, value);
        assert!(errors.is_empty(), "{definition}: {errors:#?}\n{value:#}");
    }
}

/// The objects in a file, one a line.
fn objects(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn what_is_printed_told_and_asked_is_as_the_schemas_say() {
    let schema = Schema::load("failback.schema.json");
    let job = "keep_undo = true\nprotection_interval = \"1h\"";
    let mut fake_vms = FakeVms::new(&["db1"]).with_job(job);
    fake_vms.create = true;
    let gone = fake_vms.site("primary", "db1").join("gone");
    fs::write(gone, "").unwrap();
    for site in ["primary", "recovery"] {
        fs::write(fake_vms.site(site, "db1").join("record"), "").unwrap();
    }
    let (events, hook) = (fake_vms.path("events"), fake_vms.path("hook.sh"));
    let script = format!("cat >> {0}; echo >> {0}\n", events.display());
    fs::write(&hook, script).unwrap();
    fake_vms.hooks = format!("[hooks]\nprogram = [\"sh\", {hook:?}]\n");
    let plan = fake_vms.plan();
    let plan = plan.to_str().unwrap();
    schema.holds("plan", &fake_vms.ok(&["plan", plan]));
    let broken = fake_vms.site("recovery", "db1").join("broken");
    schema.holds("status", &fake_vms.ok(&["start", plan, "--yes", "--wait"]));
    let queued = fake_vms.ok(&["test", "shop", "--detach"]);
    schema.holds("queued", &queued);
    schema.holds("jobs", &fake_vms.ok(&["status"]));
    let mut runner = fake_vms.spawn(&["run", "shop"]);
    fake_vms.wait_for(&mut runner, 0, "testing");
    schema.holds("accepted", &fake_vms.ok(&["test", "shop", "--end"]));
    fake_vms.wait_for(&mut runner, 0, "ready-to-cutover");
    schema.holds("explanation", &fake_vms.ok(&["explain", "shop"]));
    fs::write(&broken, "").unwrap();
    fake_vms.ok(&["complete", "shop"]);
    let problem = fake_vms.wait(&mut runner, "a problem", |status| {
        !status["vms"][0]["problem"].is_null()
    });
    schema.holds("status", &problem);
    fs::remove_file(&broken).unwrap();
    fake_vms.wait_for(&mut runner, 0, "commit-pending");
    fake_vms.guest_writes("primary", "db1", 1 << 20, &noise(9_000, 4));
    // Back, and there again.
    fake_vms.ok(&["undo", "shop", "--accept-loss", "--restore", "--wait"]);
    runner.end();
    schema.holds("status", &fake_vms.status());
    fake_vms.ok(&["start", plan, "--yes", "--wait"]);
    for request in ["complete", "commit", "reverse"] {
        schema.holds("status", &fake_vms.ok(&[request, "shop", "--wait"]));
    }
    let events = objects(&events);
    events.iter().for_each(|event| schema.holds("event", event));
    let told: BTreeSet<_> = events
        .iter()
        .filter_map(|it| it["event"].as_str())
        .collect();
    let expected = [
        "waits",
        "stands_still",
        "cutover_done",
        "over",
        "committed",
        "pass_done",
    ];
    assert_eq!(told, expected.into());
    assert!(!schema.errors("status", &json!({"job": "shop"})).is_empty());

    // All verbs were asked; each request is asked again, with a token that only looks.
    let schema = Schema::load("controller.schema.json");
    let mut verbs = BTreeSet::new();
    for site in ["primary", "recovery"] {
        for request in objects(&fake_vms.site(site, "db1").join("requests")) {
            schema.holds("request", &request);
            let verb = request["verb"].as_str().unwrap();
            let answer = match verb {
                "changes-since" => "changes",
                _ => "answer",
            };
            schema.holds(answer, &answered(&fake_vms, site, verb, &request));
            verbs.insert(verb.to_owned());
        }
    }
    assert_eq!(verbs.len(), 13, "{verbs:?}");
}

fn answered(fake_vms: &FakeVms, site: &str, verb: &str, request: &Value) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/failback_cli/vm.sh");
    // Under whatever name it has by now.
    for disk in ["disk.raw", "disk.raw.failback-shop.partial.raw"] {
        fs::write(fake_vms.site(site, "db1").join(disk), "").unwrap();
    }
    let mut program = Command::new("sh")
        .arg(script)
        .arg(fake_vms.site(site, "db1"))
        .arg(verb)
        .envs([("DISKDELTA_TOKEN", "0.0"), ("DISKDELTA_VM", "db1")])
        .env("REMOTE", "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = program.stdin.take().unwrap();
    input.write_all(request.to_string().as_bytes()).unwrap();
    drop(input);
    let output = program.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_program_that_keeps_the_contract_passes_and_one_that_does_not_is_told_why() {
    let fake_vms = FakeVms::new(&["db1"]);
    fake_vms.plan();
    let script = fake_vms.path("primary.sh");
    let disk = format!("db1-system={}", fake_vms.target("db1").display());
    let trial = |script: &Path| {
        let script = script.to_str().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_diskdelta"));
        let args = ["failback", "controller", "test", "--json", "--vm", "db1"];
        let command = command.args(args).args(["--disk", &disk, "sh", script]);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let tried: Value = serde_json::from_slice(&output.stdout).expect(&text);
        Schema::load("failback.schema.json").holds("trial", &tried);
        (output.status.code(), tried)
    };
    let (status, tried) = trial(&script);
    assert_eq!(status, Some(0), "{tried:#}");

    // Without its fence, its tokens, its test.
    let whole = fs::read_to_string(&script).unwrap();
    let of = |kept: &str, broken: &str, sentence: &str| {
        let vm = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/failback_cli/vm.sh");
        let text = fs::read_to_string(vm).unwrap();
        assert!(text.contains(kept), "{kept}");
        let (vm_copy, wrapper) = (fake_vms.path("broken-vm.sh"), fake_vms.path("broken.sh"));
        fs::write(&vm_copy, text.replace(kept, broken)).unwrap();
        fs::write(&wrapper, whole.replace(vm, vm_copy.to_str().unwrap())).unwrap();
        fs::remove_file(fake_vms.site("primary", "db1").join("token")).unwrap();
        let (status, tried) = trial(&wrapper);
        assert_eq!(status, Some(2), "{tried:#}");
        let sentences = tried["sentences"].as_array().unwrap().iter();
        let failed: Vec<_> = sentences.filter(|it| it["holds"] == false).collect();
        let is_named = failed.iter().any(|it| it["sentence"] == sentence);
        assert!(is_named, "{sentence}: {failed:#?}");
    };
    of(
        "[ ! -e fenced ] &&",
        "",
        "a VM that is fenced does not start",
    );
    of(
        "too late: $newest was seen already\" >&2\n        exit 1",
        "\"",
        "a command that comes late is refused",
    );
    of(
        "[ ! -e mistaken ] || : > running",
        ": > running",
        "a test runs from copies of them, apart from the VM, and is removed",
    );
    of(
        "release) rm -f \"snapshot-$disk\" ;;",
        "release) ;;",
        "a snapshot of a VM that runs is read, let go, and lost then",
    );
}

//! What the command prints with `--json` is what `docs/reference/report.schema.json` says.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::pages::top;
use crate::sandbox::{COMMAND, Sandbox};

/// Commands, the status that they end with, and the definition of what they print.
const COMMANDS: &[(&str, i32, &str)] = &[
    ("info web.vhd", 0, "info"),
    ("info web.vhdx", 0, "info"),
    ("info web.raw", 0, "info"),
    ("map web.vhdx", 0, "map"),
    ("map web.vhd old.vhd", 0, "map"),
    ("manifest web.vhd -o web.manifest", 0, "manifest"),
    ("verify web.vhd web.manifest", 0, "verify"),
    ("verify old.vhd web.manifest", 1, "verify"),
    ("diff web.vhd old.vhd", 1, "diff"),
    ("diff web.vhd web.vhd", 0, "diff"),
    ("delta create old.vhd web.vhd -o week.delta", 0, "delta"),
    ("delta show week.delta", 0, "delta"),
    (
        "delta export week.delta --parent old.vhd --to child.vhd",
        0,
        "export",
    ),
    ("delta apply week.delta old.vhd", 0, "sync"),
    ("sync web.vhd standby.raw --dry-run", 0, "sync"),
    ("sync web.vhd standby.raw --undo before.undo", 0, "sync"),
    ("sync web.vhd standby.raw", 0, "sync"),
    ("undo before.undo standby.raw", 0, "sync"),
    (
        "sync web.vhd standby.raw --safety in-place --hold",
        0,
        "sync",
    ),
    ("recover --list .", 0, "pending"),
    ("recover standby.raw", 0, "recover"),
    ("recover --all .", 0, "recovered"),
    ("recover --release standby.raw", 0, "recover"),
    ("info none.vhd", 2, "error"),
    ("undo week.delta standby.raw", 2, "error"),
    ("sync", 2, "error"),
    ("sync web.vhd --frob", 2, "error"),
];

#[test]
fn reports_are_as_the_schema_says() {
    let text = fs::read_to_string(top().join("docs/reference/report.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let sandbox = Sandbox::new();
    let mut seen = Vec::new();
    for (line, status, definition) in COMMANDS {
        let ran = Command::new(COMMAND)
            .args(line.split_whitespace())
            .arg("--json")
            .current_dir(sandbox.path())
            .output()
            .unwrap();
        assert_eq!(ran.status.code(), Some(*status), "{line}: {ran:?}");
        let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
        holds(&schema, definition, &report, line);
        seen.push(*definition);
    }
    // What needs a lost log or a plan is shown by tests of its own; the schema is held whole.
    let all = schema["$defs"].as_object().unwrap();
    assert!(all.len() > 12, "{}", all.len());
    assert!(jsonschema::meta::is_valid(&schema));
}

fn holds(schema: &Value, definition: &str, report: &Value, line: &str) {
    let mut one = schema.clone();
    let object = one.as_object_mut().unwrap();
    object.remove("anyOf");
    object.insert("$ref".to_owned(), format!("#/$defs/{definition}").into());
    let validator = jsonschema::validator_for(&one).unwrap();
    let errors: Vec<_> = validator
        .iter_errors(report)
        .map(|it| it.to_string())
        .collect();
    assert!(errors.is_empty(), "{line}: {errors:#?}\n{report:#}");
}

//! Messages of a disk agent, from inside.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn request() -> Value {
    json!({
        "job": "shop", "vm": "db1", "instance": "0".repeat(32), "side": "target",
        "state": null, "create": false, "in_place": false,
        "token": {"epoch": 1, "sequence": 2},
        "disks": [{
            "identity": "a", "bytes": 4096, "path": "/vm/a.raw", "format": "raw",
            "other": null, "other_format": "vhdx",
        }],
        "task": {"execute": {
            "action": {"copy": {"amount": "everything", "from_snapshot": true}},
            "keep_undo": false, "other": null,
            "changes": [{"identity": "a", "here": null, "ranges": 3}],
        }},
    })
}

fn baseline(other: Value) -> Value {
    let action = json!({"check_baseline": {"expected": "0".repeat(64)}});
    json!({"execute":
        {"action": action, "keep_undo": false, "changes": null, "other": other}})
}

fn decoded(request: &Value) -> Result<AgentRequest> {
    AgentRequest::decode(&serde_json::to_vec(request).unwrap())
}

#[test]
fn a_request_is_understood_as_it_was_meant() {
    let read = decoded(&request()).unwrap();
    assert_eq!(AgentRequest::decode(&read.encode().unwrap()).unwrap(), read);
    assert_eq!(read.sources().len(), 1);
}

#[test]
fn a_request_that_makes_no_sense_is_refused() {
    for (at, with) in [
        ("/job", json!("../etc")),
        ("/vm", json!("a/b")),
        ("/vm", json!(".hidden")),
        ("/instance", json!("")),
        ("/instance", json!("A".repeat(32))),
        ("/instance", json!("../".repeat(11))),
        ("/state", json!("/var/lib")),
        ("/disks", json!([])),
        ("/disks/0/path", json!("/vm/../etc/shadow")),
        ("/disks/0/path", json!("/vm/a\u{0}")),
        ("/disks/0/path", json!("/")),
        ("/disks/0/path", json!("")),
        ("/disks/0/path", json!("a".repeat(5000))),
        ("/disks/0/other", json!("/vm/a.raw")),
        ("/disks/0/identity", json!("")),
        ("/disks/0/format", json!("nonsense")),
        ("/side", json!("both")),
        ("/token", json!({"epoch": -1, "sequence": 0})),
        ("/task", json!("format_everything")),
        ("/task/execute/action", json!("start")),
        ("/task/execute/action", json!("prove")),
        ("/task/execute/action", json!("verify")),
        ("/task/execute/changes/0/identity", json!("b")),
        ("/task/execute/changes/0/here", json!("../x")),
        ("/task/execute/changes/0/ranges", json!(u64::MAX)),
        ("/task", baseline(json!([]))),
        (
            "/task",
            baseline(json!([{"disk_len": u64::MAX, "block_bytes": 65536}])),
        ),
        (
            "/task",
            baseline(json!([{"disk_len": 1, "block_bytes": 3}])),
        ),
    ] {
        let mut wrong = request();
        *wrong.pointer_mut(at).unwrap() = with.clone();
        assert!(decoded(&wrong).is_err(), "{at} {with}");
    }
    let mut more = request();
    more["also"] = json!(1);
    assert!(decoded(&more).is_err(), "an unknown field");
    let mut twice = request();
    let disk = twice["disks"][0].clone();
    twice["disks"] = json!([disk, disk]);
    assert!(decoded(&twice).is_err(), "a disk twice");
}

#[test]
fn a_reply_steers_no_terminal_and_has_no_odd_numbers() {
    let looked = json!({"looked": [
        {"check": "\u{1b}[2J", "disk": "a", "text": "line\nbreak", "holds": true}
    ]});
    let Ok(AgentReply::Looked(looked)) = AgentReply::decode(looked.to_string().as_bytes()) else {
        panic!("not understood");
    };
    assert_eq!(looked[0].check, " [2J");
    assert_eq!(looked[0].text, "line break");
    let estimated = |seconds: f64| {
        json!({"estimated": [{
            "disk": "a", "disk_bytes": 1, "data_bytes": 1, "changed_bytes": null,
            "read_seconds": seconds, "line_seconds": 0.0, "write_seconds": 0.0, "back_seconds": seconds,
            "written_per_second": null,
        }]})
        .to_string()
    };
    assert!(AgentReply::decode(estimated(1.0).as_bytes()).is_ok());
    assert!(AgentReply::decode(estimated(-1.0).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_words_or_errors(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = AgentRequest::decode(&bytes);
        let _ = AgentReply::decode(&bytes);
    }

    #[test]
    fn a_damaged_request_is_refused_or_a_request(
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        let mut bytes = serde_json::to_vec(&request()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(read) = AgentRequest::decode(&bytes) {
            prop_assert_eq!(AgentRequest::decode(&read.encode().unwrap()).unwrap(), read);
        }
    }
}

//! A build without encryption.

use diskdelta::ErrorKind;
use diskdelta::failback::plan::Plan;

#[test]
fn a_plan_with_encryption_is_refused_in_words() {
    let text = r#"
[job]
name = "shop"
active = "recovery"
[primary]
host = "a"
controller = { kind = "own" }
[primary.encryption]
identity = "/key"
[recovery]
host = "b"
controller = { kind = "own" }
[[group]]
name = "all"
[[group.vm]]
name = "vm"
[[group.vm.disk]]
identity = "system"
primary = "/a"
recovery = "/b"
"#;
    let error = Plan::parse(text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(
        error.to_string(),
        "line 8, key `primary.encryption`: this build cannot encrypt replicas (feature `encryption`)"
    );
}

//! The directory of a VM under QEMU, from inside.

use std::os::unix::fs::symlink;

use super::*;
use crate::progress::CancelToken;

#[test]
fn what_a_qemu_that_was_taken_over_plants_in_its_directory_is_neither_followed_nor_believed() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join("vm").join(name);
    fs::create_dir(temporary.path().join("vm")).unwrap();
    let precious = temporary.path().join("precious");
    fs::write(&precious, "7.7").unwrap();
    let cancel = CancelToken::new();
    let call = |epoch: u64| Call {
        token: Token { epoch, sequence: 1 },
        cancel: &cancel,
    };
    let all = ["fenced", "retired", "token", "tracking.json", "lock"];
    let directory = VmDirectory::new(temporary.path().join("vm"));
    for plant in [
        &|name: &str| symlink(&precious, at(name)).unwrap(),
        &|name: &str| symlink("/no/such", at(name)).unwrap(),
        &|name: &str| fs::hard_link(&precious, at(name)).unwrap(),
    ] as [&dyn Fn(&str); 3]
    {
        for name in all {
            plant(&format!("{name}.new"));
        }
        plant("lock");
        drop(directory.admit(&call(1)).unwrap());
        directory.fence().unwrap();
        assert!(directory.is_fenced().unwrap());
        directory.unfence().unwrap();
        directory.retire().unwrap();
        assert!(!directory.exists().unwrap());
        directory.create().unwrap();
        directory.keep(&Tracking::default()).unwrap();
        assert_eq!(directory.tracking().unwrap(), Tracking::default());
        for name in ["token", "tracking.json"] {
            fs::remove_file(at(name)).unwrap();
            plant(name);
        }
        let error = directory.admit(&call(9)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        let error = directory.tracking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        // A fence that leads nowhere is a fence.
        plant("fenced");
        assert!(directory.is_fenced().unwrap());
        assert_eq!(fs::read(&precious).unwrap(), b"7.7");
        for name in fs::read_dir(temporary.path().join("vm")).unwrap() {
            fs::remove_file(name.unwrap().path()).unwrap();
        }
    }
}

#[test]
fn one_command_to_a_vm_at_a_time_and_none_that_comes_late() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = VmDirectory::new(temporary.path().to_owned());
    let cancel = CancelToken::new();
    let call = |epoch: u64| Call {
        token: Token { epoch, sequence: 1 },
        cancel: &cancel,
    };
    let first = directory.admit(&call(2)).unwrap();
    let error = directory.admit(&call(3)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InUse);
    drop(first);
    let error = directory.admit(&call(1)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(directory.admit(&call(3)).is_ok());
}

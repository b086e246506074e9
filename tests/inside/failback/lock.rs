//! The lock of a job, from inside.

use super::*;

#[test]
fn a_job_has_one_executor_at_a_time_and_says_who_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shop.lock");
    let held = JobLock::take(&path).unwrap();
    let error = JobLock::take(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    let holder = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&holder), "{error}");
    assert_eq!(JobLock::holder(&path).unwrap(), Some(holder));
    drop(held);
    assert_eq!(JobLock::holder(&path).unwrap(), None);
    assert!(JobLock::take(&path).is_ok());
}

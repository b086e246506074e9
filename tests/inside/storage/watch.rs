//! The watch over a directory, from inside.

use std::time::{Duration, Instant};

use super::*;

#[test]
fn a_name_that_is_taken_rings_the_bell_and_nothing_does_after_the_watch() {
    let directory = tempfile::tempdir().unwrap();
    let bell = Bell::new();
    let watch = Watch::of(directory.path(), &bell).unwrap();
    let put = |name: &str| {
        std::fs::write(directory.path().join("new"), "x").unwrap();
        std::fs::rename(directory.path().join("new"), directory.path().join(name)).unwrap();
    };
    let begin = Instant::now();
    put("a");
    bell.wait(Duration::from_secs(600));
    put("b");
    bell.wait(Duration::from_secs(600));
    assert!(begin.elapsed() < Duration::from_secs(600));
    drop(watch);
    assert!(Watch::of(Path::new("/no/such/directory"), &bell).is_none());
}

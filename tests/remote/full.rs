//! Full copies of a source elsewhere: all of it moves, and the target is not looked at.

use std::fs;

use diskdelta::manifest::root_of;
use diskdelta::sync::{Mode, Outcome, Safety, SyncOptions};
use diskdelta::{BlockSize, ErrorKind};

use crate::disks::PAGE;
use crate::lines::{Fixture, pull, push, target_job, work};

/// A disk with data, single pages of zeros, and holes at its end and within; and another disk.
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.disk("full.raw", 3000, 1);
    fixture.changed("full.raw", "new.raw", 9);
    let mut bytes = fs::read(fixture.path("new.raw")).unwrap();
    bytes[500 * PAGE as usize..900 * PAGE as usize].fill(0);
    bytes[2900 * PAGE as usize..].fill(0);
    bytes.truncate(2999 * PAGE as usize + 1234);
    fs::write(fixture.path("new.raw"), &bytes).unwrap();
    fixture.disk("here.raw", 3000, 2);
    let other = fs::read(fixture.path("here.raw")).unwrap();
    for name in ["here.raw", "there.raw"] {
        fs::write(fixture.path(name), &other[..bytes.len()]).unwrap();
    }
    fixture
}

#[test]
fn a_full_copy_in_place_puts_all_of_the_source_where_anything_was_zeros_too() {
    let fixture = fixture();
    let options = SyncOptions::default()
        .with_mode(Mode::Full)
        .with_safety(Safety::InPlace);
    let (pulled, _) = pull(&fixture, "new.raw", "here.raw", &options, i64::MAX).unwrap();
    let mut how = target_job();
    (how.mode, how.safety) = (Mode::Full, Safety::InPlace);
    let (pushed, _) = push(&fixture, "new.raw", "there.raw", how, i64::MAX).unwrap();
    let bytes = fs::read(fixture.path("new.raw")).unwrap();
    let pages = bytes.chunks(PAGE as usize);
    let zeroed_bytes: usize = pages
        .filter(|page| page.iter().all(|byte| *byte == 0))
        .map(<[u8]>::len)
        .sum();
    for (name, report) in [("here.raw", &pulled), ("there.raw", &pushed)] {
        assert!(fixture.same("new.raw", name));
        assert_eq!((report.outcome, report.mode), (Outcome::Synced, Mode::Full));
        assert_eq!(report.changed_bytes, bytes.len() as u64);
        assert_eq!(report.zeroed_bytes, zeroed_bytes as u64);
        assert_eq!(report.written_bytes, (bytes.len() - zeroed_bytes) as u64);
    }
    let source = fixture.source("new.raw");
    let root = root_of(&**source.image(), BlockSize::default(), &work()).unwrap();
    assert_eq!(pulled.root, Some(root));
    assert_eq!(
        fixture.names(),
        ["full.raw", "here.raw", "new.raw", "there.raw"]
    );
}

#[test]
fn a_full_copy_whose_line_is_cut_leaves_the_target_marked_until_a_run_ends() {
    let fixture = fixture();
    let options = SyncOptions::default()
        .with_mode(Mode::Full)
        .with_safety(Safety::InPlace);
    let error = pull(&fixture, "new.raw", "here.raw", &options, 4_000_000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(fixture.target("here.raw").marker().unwrap().is_some());
    pull(&fixture, "new.raw", "here.raw", &options, i64::MAX).unwrap();
    assert!(fixture.same("new.raw", "here.raw"));
}

#[test]
fn a_full_copy_onto_a_file_replaces_it() {
    let fixture = fixture();
    let options = SyncOptions::default().with_mode(Mode::Full);
    let (report, _) = pull(&fixture, "new.raw", "here.raw", &options, i64::MAX).unwrap();
    assert!(fixture.same("new.raw", "here.raw"));
    assert_eq!((report.mode, report.safety), (Mode::Full, Safety::Atomic));
}

//! The names of a disk, from inside.

use super::*;

fn disk_path(directory: &Path) -> DiskPath {
    DiskPath::new(&directory.join("a.vhdx"), Format::Vhdx, "shop").unwrap()
}

#[test]
fn a_blocked_disk_has_another_name_with_the_same_extension_and_gets_its_own_back() {
    let directory = tempfile::tempdir().unwrap();
    let disk_path = disk_path(directory.path());
    assert_eq!(disk_path.found_name().unwrap(), FoundName::Missing);
    assert!(!disk_path.block().unwrap());
    fs::write(&disk_path.own, "disk").unwrap();
    for _ in 0..2 {
        assert!(disk_path.block().unwrap());
        assert!(!exists(&disk_path.own).unwrap());
    }
    assert_eq!(
        disk_path.there().unwrap(),
        directory.path().join("a.vhdx.failback-shop.partial.vhdx")
    );
    for _ in 0..2 {
        assert!(disk_path.unblock().unwrap());
        assert_eq!(fs::read(&disk_path.own).unwrap(), b"disk");
    }
}

#[test]
fn a_device_that_is_missing_is_not_taken_for_a_file() {
    let path = Path::new("/dev/there-is-no-such-disk");
    let disk_path = DiskPath::new(path, Format::Raw, "shop").unwrap();
    assert!(disk_path.is_device && disk_path.blocked == path);
    assert_eq!(disk_path.found_name().unwrap(), FoundName::Missing);
    assert_eq!(disk_path.there().unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_an_earlier_job_left_blocked_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let left = directory.path().join("a.vhdx.failback-older.partial.vhdx");
    fs::write(&left, "disk").unwrap();
    let disk_path = disk_path(directory.path());
    assert_eq!(disk_path.found_name().unwrap(), FoundName::Left(left));
    assert!(disk_path.block().unwrap());
    assert_eq!(disk_path.found_name().unwrap(), FoundName::Blocked);
}

#[test]
fn a_disk_under_two_names_is_not_guessed_at() {
    let directory = tempfile::tempdir().unwrap();
    let disk_path = disk_path(directory.path());
    fs::write(&disk_path.own, "one").unwrap();
    fs::write(&disk_path.blocked, "two").unwrap();
    let error = disk_path.block().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&disk_path.own).unwrap(), b"one");
    assert_eq!(fs::read(&disk_path.blocked).unwrap(), b"two");
}

#[test]
fn a_file_that_takes_a_name_meanwhile_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let disk_path = disk_path(directory.path());
    fs::write(&disk_path.own, "one").unwrap();
    // As it is when the other one comes between the look and the rename.
    for plant in [
        &|| fs::write(&disk_path.blocked, "two").unwrap() as (),
        &|| std::os::unix::fs::symlink("/etc/passwd", &disk_path.blocked).unwrap(),
    ] as [&dyn Fn(); 2]
    {
        plant();
        let error = move_to(&disk_path.own, &disk_path.blocked).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&disk_path.own).unwrap(), b"one");
        fs::remove_file(&disk_path.blocked).unwrap();
    }
}

#[test]
fn a_rename_in_two_steps_that_was_cut_off_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    let disk_path = disk_path(directory.path());
    fs::write(&disk_path.own, "disk").unwrap();
    fs::hard_link(&disk_path.own, &disk_path.blocked).unwrap();
    assert_eq!(disk_path.found_name().unwrap(), FoundName::Blocked);
    assert!(disk_path.block().unwrap());
    assert!(!exists(&disk_path.own).unwrap() && exists(&disk_path.blocked).unwrap());
    fs::hard_link(&disk_path.blocked, &disk_path.own).unwrap();
    assert!(disk_path.unblock().unwrap());
    assert!(exists(&disk_path.own).unwrap() && !exists(&disk_path.blocked).unwrap());
}

#[test]
fn ways_back_are_numbered_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let disk_path = disk_path(directory.path());
    for _ in 0..12 {
        fs::write(disk_path.next_undo().unwrap(), "undo").unwrap();
    }
    fs::write(directory.path().join("a.vhdx.failback-shop.undo-x"), "").unwrap();
    let numbers: Vec<_> = disk_path.undos().unwrap().iter().map(|it| it.0).collect();
    assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
}

#[test]
fn nothing_is_written_to_a_device_to_see_how_fast_it_is() {
    let disk_path = DiskPath::new(Path::new("/dev/no-such-disk"), Format::Raw, "shop").unwrap();
    let work = crate::progress::Work::with_threads(1).unwrap();
    let throughput = crate::sync::Throughput::at(disk_path.medium(), 0.5, &work).unwrap();
    assert_eq!((throughput.write, throughput.back), (0.5, 0.5));
}

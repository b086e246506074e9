//! What every directory promises of the files that are made next to others, and what a directory of
//! the host refuses.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use diskdelta::storage::fault::{FaultDisk, OpKind};
use diskdelta::storage::{
    Access, Directory, FileRef, HostDirectory, HostFile, MemoryDirectory, Privacy,
};
use diskdelta::{Advice, Error, ErrorKind, Result};

use crate::host::{Mount, has_program, left_out, run};

fn each_directory(check: impl Fn(Arc<dyn Directory>)) {
    let home = tempfile::tempdir().unwrap();
    check(Arc::new(HostDirectory::open(home.path()).unwrap()));
    check(Arc::new(MemoryDirectory::new()));
    check(Arc::new(FaultDisk::new().directory("/d")));
    let disk = FaultDisk::new();
    disk.link_to_rename();
    check(Arc::new(disk.directory("/d")));
}

fn kind<T>(outcome: Result<T>) -> ErrorKind {
    outcome.err().unwrap().kind()
}

#[test]
fn a_file_that_this_program_made_is_its_own_and_its_name_leads_to_it() {
    each_directory(|directory| {
        let place = FileRef::new(directory, "log");
        assert!(!place.is_there().unwrap());
        assert!(place.open_own_if_there(Access::Read).unwrap().is_none());
        let made = place.create_new().unwrap();
        made.write_all_at(b"log", 0).unwrap();
        assert!(place.leads_to(&*made).unwrap());
        drop(made);
        let found = place.open_own(Access::Write).unwrap();
        assert_eq!(found.len().unwrap(), 3);
        place.remove_if_there().unwrap();
        let other = place.create_new().unwrap();
        assert!(!place.leads_to(&*found).unwrap() && place.leads_to(&*other).unwrap());
    });
}

#[test]
fn a_file_takes_a_name_only_where_nothing_has_it() {
    each_directory(|directory| {
        let [one, two] = ["one", "two"].map(|name| FileRef::new(directory.clone(), name));
        let file = one.create_new().unwrap();
        one.rename_new(&two).unwrap();
        assert!(!one.is_there().unwrap() && two.leads_to(&*file).unwrap());
        one.create_new().unwrap();
        assert_eq!(kind(one.rename_new(&two)), ErrorKind::AlreadyExists);
        assert!(two.leads_to(&*file).unwrap() && one.is_there().unwrap());
        one.remove_if_there().unwrap();
        let three = FileRef::new(directory, "three");
        assert_eq!(kind(one.rename_new(&three)), ErrorKind::NotFound);
    });
}

#[test]
fn two_that_write_one_file_at_once_never_share_a_temporary_one() {
    each_directory(|directory| {
        let place = FileRef::new(directory.clone(), "out");
        let second = place.clone();
        let first = place.create_whole(Privacy::PRIVATE, |mine| {
            mine.write_all_at(b"first", 0)?;
            second.create_whole(Privacy::PRIVATE, |theirs| theirs.write_all_at(b"second", 0))?;
            mine.write_all_at(b"FIRST", 0)
        });
        assert_eq!(kind(first), ErrorKind::AlreadyExists);
        assert_eq!(directory.names().unwrap(), ["out"]);
        let mut bytes = vec![0; 6];
        let file = place.open(Access::Read).unwrap();
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, b"second");
    });
}

#[test]
fn what_crashes_left_is_removed_and_what_is_in_use_is_not() {
    each_directory(|directory| {
        let place = FileRef::new(directory.clone(), "out");
        let (left, file) = place.create_temporary("part", Privacy::PRIVATE).unwrap();
        let (used, _used) = place.create_temporary("part", Privacy::PRIVATE).unwrap();
        drop(file);
        let other = FileRef::new(directory.clone(), "out.2");
        let (others, file) = other.create_temporary("part", Privacy::PRIVATE).unwrap();
        drop(file);
        place.create_whole(Privacy::PRIVATE, |_| Ok(())).unwrap();
        assert!(!left.is_there().unwrap());
        assert!(used.is_there().unwrap() && others.is_there().unwrap());
    });
}

#[test]
fn a_file_that_could_not_be_written_leaves_nothing() {
    each_directory(|directory| {
        let place = FileRef::new(directory.clone(), "out");
        let failed = place.create_whole::<()>(Privacy::PRIVATE, |_| {
            Err(Error::new(ErrorKind::NoSpace, "full"))
        });
        assert_eq!(kind(failed), ErrorKind::NoSpace);
        assert!(directory.names().unwrap().is_empty());
    });
}

#[test]
fn a_crash_while_a_file_takes_its_name_leaves_it_whole_and_is_cleaned_up() {
    for must_link in [false, true] {
        let disk = FaultDisk::new();
        if must_link {
            disk.link_to_rename();
        }
        let whole = b"whole".to_vec();
        let write = |disk: &FaultDisk| {
            let place = FileRef::new(Arc::new(disk.directory("/d")), "out");
            place.create_whole(Privacy::PRIVATE, |file| file.write_all_at(&whole, 0))
        };
        write(&disk).unwrap();
        disk.note("done");
        let check = disk.crashes().check(|state| {
            let disk = state.disk();
            let found = disk.contents("/d/out").map(|row| row.to_vec());
            if found.is_none() && !state.noted("done") {
                write(disk).map_err(|error| error.to_string())?;
            } else if found != Some(whole.clone()) {
                return Err(format!("{found:?}"));
            } else {
                assert_eq!(kind(write(disk)), ErrorKind::AlreadyExists);
            }
            let place = FileRef::new(Arc::new(disk.directory("/d")), "out");
            place
                .remove_leftovers("part")
                .map_err(|error| error.to_string())?;
            match disk.names("/d").len() {
                1 => Ok(()),
                _ => Err(format!("left: {:?}", disk.names("/d"))),
            }
        });
        check.unwrap();
        assert!(disk.log().ops().any(|op| op.kind() == OpKind::Rename) != must_link);
    }
}

// ---- the host ----

/// Another user: 65534 is nobody everywhere.
const OTHER: u32 = 65534;

fn is_root() -> bool {
    rustix::process::geteuid().is_root() || {
        left_out("files of other users: not root");
        false
    }
}

fn planted(plant: impl Fn(&Path)) -> (tempfile::TempDir, FileRef) {
    let home = tempfile::tempdir().unwrap();
    plant(&home.path().join("log"));
    let place = FileRef::host(home.path().join("log")).unwrap();
    (home, place)
}

fn write(path: &Path, mode: u32) {
    fs::write(path, "planted").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What it is called, whether it takes root, and how it is made.
type Plant = (&'static str, bool, fn(&Path));

#[test]
fn a_planted_file_is_not_opened_as_one_of_ours() {
    let plants: [Plant; 9] = [
        ("link", false, |path| {
            write(&path.with_file_name("real"), 0o600);
            symlink("real", path).unwrap();
        }),
        ("dangling", false, |path| symlink("none", path).unwrap()),
        ("names", false, |path| {
            write(path, 0o600);
            fs::hard_link(path, path.with_file_name("second")).unwrap();
        }),
        ("group", false, |path| write(path, 0o620)),
        ("others", false, |path| write(path, 0o602)),
        ("directory", false, |path| fs::create_dir(path).unwrap()),
        ("pipe", false, |path| {
            run("mkfifo", &[path.to_str().unwrap()]);
        }),
        ("owner", true, |path| {
            write(path, 0o600);
            chown(path, Some(OTHER), None).unwrap();
        }),
        ("device", true, |path| {
            run("mknod", &[path.to_str().unwrap(), "c", "1", "3"]);
        }),
    ];
    for (what, wants_root, plant) in plants {
        if wants_root && !is_root() {
            continue;
        }
        let (_home, place) = planted(plant);
        for access in [Access::Read, Access::Write] {
            let error = place.open_own(access).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Untrusted, "{what}");
            let is_named =
                |it: &Advice| matches!(it, Advice::TrustLog(log) if log.ends_with("log"));
            assert!(error.to_string().contains("/log: "), "{error}");
            assert!(error.advice().iter().any(is_named), "{error}");
        }
        assert!(
            !place.directory().remove_unused(place.name()).unwrap(),
            "{what}"
        );
        assert!(place.is_there().unwrap(), "{what}");
    }
}

#[test]
fn a_file_that_the_caller_answers_for_is_opened_whoever_owns_it() {
    if !is_root() {
        return;
    }
    let (_home, place) = planted(|path| {
        write(path, 0o666);
        chown(path, Some(OTHER), None).unwrap();
    });
    place.directory().trust(place.name()).unwrap();
    place.open_own(Access::Write).unwrap();
    place.remove_if_there().unwrap();
    let path = place.path();
    write(&path, 0o666);
    chown(&path, Some(OTHER), None).unwrap();
    assert_eq!(kind(place.open_own(Access::Write)), ErrorKind::Untrusted);
}

#[test]
fn a_copy_is_taken_over_only_from_ourselves_or_as_its_model_is() {
    if !is_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let [model, copy] = ["disk", "copy"].map(|name| home.path().join(name));
    write(&model, 0o640);
    chown(&model, Some(7), Some(7)).unwrap();
    let directory = HostDirectory::open(home.path()).unwrap();
    let narrow = HostFile::at(&model).unwrap().privacy();
    for (owner, mode, with_model, alone) in [
        (0, 0o600, true, true),
        (7, 0o640, true, false),
        (7, 0o600, false, false),
        (7, 0o660, false, false),
        (0, 0o640, false, false),
        (0, 0o604, false, false),
        (OTHER, 0o640, false, false),
    ] {
        let _ = fs::remove_file(&copy);
        write(&copy, mode);
        chown(&copy, Some(owner), Some(owner)).unwrap();
        for (model, is_taken) in [(Some(OsStr::new("disk")), with_model), (None, alone)] {
            let opened = directory.open_copy("copy".as_ref(), model, narrow);
            assert_eq!(opened.is_ok(), is_taken, "{owner} {mode:o} {model:?}");
        }
    }
}

#[test]
fn a_new_file_is_never_wider_than_its_model() {
    let home = tempfile::tempdir().unwrap();
    let directory = HostDirectory::open(home.path()).unwrap();
    let model = home.path().join("model");
    let new = home.path().join("new");
    for mode in [0o600, 0o640, 0o644, 0o664, 0o666, 0o604, 0o4755] {
        write(&model, mode);
        let privacy = HostFile::at(&model).unwrap().privacy();
        drop(directory.create("new".as_ref(), privacy).unwrap());
        let made = fs::metadata(&new).unwrap();
        assert_eq!(made.mode() & 0o7777 & !(mode & 0o666), 0, "{mode:o}");
        assert_eq!(made.mode() & 0o600, 0o600);
        if mode == 0o640 {
            assert_eq!(
                made.mode() & 0o7777,
                0o640,
                "what its own group may do is kept"
            );
        }
        fs::remove_file(&new).unwrap();
        if is_root() {
            chown(&model, None, Some(7)).unwrap();
            let privacy = HostFile::at(&model).unwrap().privacy();
            drop(directory.create("new".as_ref(), privacy).unwrap());
            let made = fs::metadata(&new).unwrap().mode() & 0o7777;
            let others = mode & 0o006 & (mode >> 3);
            assert_eq!(
                made & 0o077 & !(others << 3 | others),
                0,
                "{mode:o} of another group"
            );
            fs::remove_file(&new).unwrap();
            chown(&model, None, Some(0)).unwrap();
        }
    }
}

#[test]
fn a_lock_that_was_waited_for_is_of_the_file_that_has_the_name() {
    let home = tempfile::tempdir().unwrap();
    let directory: Arc<dyn Directory> = Arc::new(HostDirectory::open(home.path()).unwrap());
    let place = FileRef::new(directory.clone(), "copy");
    let first = place.create_new().unwrap();
    let waiting = {
        let place = place.clone();
        thread::spawn(move || place.open_own(Access::Write).map(|_| ()))
    };
    thread::sleep(Duration::from_millis(60));
    directory.rename("copy".as_ref(), "disk".as_ref()).unwrap();
    drop(first);
    assert_eq!(kind(waiting.join().unwrap()), ErrorKind::NotFound);
    let first = place.create_new().unwrap();
    let waiting = {
        let place = place.clone();
        thread::spawn(move || {
            place
                .open_own(Access::Write)
                .map(|file| file.len().unwrap())
        })
    };
    thread::sleep(Duration::from_millis(60));
    let second = FileRef::new(directory.clone(), "second");
    second
        .create_new()
        .unwrap()
        .write_all_at(b"second", 0)
        .unwrap();
    directory
        .rename("second".as_ref(), "copy".as_ref())
        .unwrap();
    drop(first);
    assert_eq!(waiting.join().unwrap().unwrap(), 6);
}

#[test]
fn a_directory_that_another_user_may_change_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let open = |mode: u32| {
        fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
        HostDirectory::open(home.path()).unwrap().refuse_shared()
    };
    for mode in [0o700, 0o755, 0o1777] {
        open(mode).unwrap();
    }
    for mode in [0o777, 0o770] {
        assert_eq!(kind(open(mode)), ErrorKind::Untrusted, "{mode:o}");
    }
    if is_root() {
        chown(home.path(), Some(OTHER), None).unwrap();
        assert_eq!(kind(open(0o700)), ErrorKind::Untrusted);
    }
}

#[test]
fn a_link_is_not_taken_for_a_directory_that_was_to_be_made() {
    let home = tempfile::tempdir().unwrap();
    let [real, link] = ["real", "link"].map(|name| home.path().join(name));
    fs::create_dir(&real).unwrap();
    symlink("real", &link).unwrap();
    assert_eq!(kind(HostDirectory::make(&link)), ErrorKind::AlreadyExists);
    HostDirectory::make(&link.join("below")).unwrap();
    if is_root() {
        rustix::fs::chownat(
            rustix::fs::CWD,
            &link,
            Some(rustix::fs::Uid::from_raw(OTHER)),
            None,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .unwrap();
        assert_eq!(
            kind(HostDirectory::make(&link.join("more"))),
            ErrorKind::Untrusted
        );
        assert!(!real.join("more").exists());
    }
}

#[test]
fn a_file_that_was_made_here_is_ours_where_the_file_system_shows_another_owner() {
    if !is_root() || !has_program("bindfs") {
        return left_out("a mount with a fixed owner: no bindfs, or not root");
    }
    let home = tempfile::tempdir().unwrap();
    let [below, above] = ["below", "above"].map(|name| home.path().join(name));
    for path in [&below, &above] {
        fs::create_dir(path).unwrap();
    }
    let options = [
        "--force-user=nobody",
        "--perms=a+rw",
        "--chown-ignore",
        "--chmod-ignore",
    ];
    let mut args = options.to_vec();
    args.extend([below.to_str().unwrap(), above.to_str().unwrap()]);
    run("bindfs", &args);
    let _mounted = Mount::made(&above);
    let made = FileRef::host(above.join("log")).unwrap();
    made.create_new().unwrap().write_all_at(b"log", 0).unwrap();
    assert_eq!(fs::metadata(made.path()).unwrap().uid(), OTHER);
    made.open_own(Access::Write).unwrap();
    let to = FileRef::new(made.directory().clone(), "kept");
    made.rename_new(&to).unwrap();
    to.open_own(Access::Read).unwrap();
    let later = FileRef::host(above.join("kept")).unwrap();
    assert_eq!(kind(later.open_own(Access::Read)), ErrorKind::Untrusted);
    later.directory().trust(later.name()).unwrap();
    later.open_own(Access::Read).unwrap();
    let whole = FileRef::host(above.join("out")).unwrap();
    whole.create_whole(Privacy::USUAL, |_| Ok(())).unwrap();
    let found = whole.create_whole(Privacy::USUAL, |_| Ok(()));
    assert_eq!(kind(found), ErrorKind::AlreadyExists);
}

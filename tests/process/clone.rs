//! Files that are cloned, on file systems that can: XFS and btrfs in loop devices.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use crate::fixture::{Fixture, PAGE, noise};
use crate::repeated::kill;
use crate::rng::Rng;
use crate::room::{Kind, Small};

/// A target `small/t` of noise, and sources next to it and on another file system.
struct Clones {
    // Unmounted before its directory goes.
    small: Small,
    fixture: Fixture,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Clones {
    fn new(kind: Kind) -> Option<Clones> {
        let fixture = Fixture::new();
        let small = Small::new(&fixture, kind, 320)?;
        let old = noise(PAGES * PAGE, 1);
        let mut new = old.clone();
        for page in (0..PAGES).step_by(37) {
            new[page * PAGE..(page + 1) * PAGE].copy_from_slice(&noise(PAGE, page as u64));
        }
        new[5 * PAGE..9 * PAGE].fill(0);
        for (path, bytes) in [("s", &new), ("small/s", &new), ("small/t", &old)] {
            fs::write(fixture.path(path), bytes).unwrap();
        }
        Some(Clones {
            small,
            fixture,
            old,
            new,
        })
    }

    fn target(&self) -> Vec<u8> {
        fs::read(self.small.path("t")).unwrap()
    }

    fn inode(&self) -> u64 {
        fs::metadata(self.small.path("t")).unwrap().ino()
    }

    fn reset(&self) {
        fs::write(self.small.path("t"), &self.old).unwrap();
    }

    /// Syncs, and expects the source's bytes and nothing left; the report.
    fn sync(&self, words: &str) -> serde_json::Value {
        let (status, report) = self.fixture.json(&format!("sync {words}"));
        assert_eq!(status, 0, "{words}: {report}");
        assert!(self.target() == self.new, "{words}: {report}");
        let left = self.small.others(&["s", "t", "other", "u"]);
        assert!(left.is_empty(), "{words}: {left:?}");
        report
    }
}

#[test]
fn what_differs_is_written_into_a_clone_that_takes_the_name() {
    for kind in KINDS {
        let Some(clones) = Clones::new(kind) else {
            return;
        };
        let path = clones.small.path("t");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let inode = clones.inode();
        let report = clones.sync("s small/t --mode delta");
        assert_eq!(report["cloned"], true, "{kind:?}: {report}");
        assert_eq!(report["verified"], "written");
        assert_eq!(
            (&report["outcome"], &report["logged_bytes"]),
            (&"synced".into(), &0.into())
        );
        assert_ne!(clones.inode(), inode);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);

        let inode = clones.inode();
        let report = clones.sync("s small/t --mode delta");
        assert_eq!(report["outcome"], "identical");
        assert_eq!(clones.inode(), inode);

        clones.reset();
        let report = clones.sync("s small/t --mode delta --clone never");
        assert_eq!(report["cloned"], false);
        assert!(report["logged_bytes"].as_u64() > Some(0));
        assert_eq!(clones.inode(), inode);

        clones.reset();
        let report = clones.sync("s small/t --mode delta --verify all");
        assert_eq!(
            (&report["cloned"], &report["verified"]),
            (&true.into(), &"all".into())
        );

        clones.reset();
        fs::hard_link(&path, clones.small.path("other")).unwrap();
        let report = clones.sync("s small/t --mode delta");
        assert_eq!(report["cloned"], false, "its names are not parted");
        assert!(fs::read(clones.small.path("other")).unwrap() == clones.new);
    }
}

#[test]
fn a_link_is_followed_to_the_file_that_is_cloned() {
    for kind in KINDS {
        let Some(clones) = Clones::new(kind) else {
            return;
        };
        let link = clones.fixture.path("link");
        std::os::unix::fs::symlink("small/t", &link).unwrap();
        let report = clones.sync("s link --mode delta");
        assert_eq!(report["cloned"], true);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}

#[test]
fn the_way_back_from_a_clone_leads_back() {
    for kind in KINDS {
        let Some(mut clones) = Clones::new(kind) else {
            return;
        };
        // Longer, shorter and as long as before.
        let longer = [noise(PAGES * PAGE, 9), noise(40 * PAGE + 512, 8)].concat();
        for new in [clones.new.clone(), longer, noise(PAGES / 2 * PAGE, 7)] {
            clones.reset();
            clones.new = new;
            fs::write(clones.fixture.path("s"), &clones.new).unwrap();
            let words = "s small/t --mode delta --allow-shrink --undo u";
            assert_eq!(clones.sync(words)["cloned"], true);
            clones.fixture.done("undo u small/t");
            assert!(clones.target() == clones.old);
            fs::remove_file(clones.fixture.path("u")).unwrap();
        }
    }
}

#[test]
fn a_target_manifest_goes_on_with_the_clone() {
    for kind in KINDS {
        let Some(mut clones) = Clones::new(kind) else {
            return;
        };
        let words = "s small/t --mode delta --target-manifest m --block-size 4K";
        assert_eq!(clones.sync(words)["cloned"], true);
        clones.new[1000] ^= 1;
        fs::write(clones.fixture.path("s"), &clones.new).unwrap();
        let report = clones.sync(words);
        assert_eq!(
            (&report["cloned"], &report["verified"]),
            (&true.into(), &"cached".into())
        );
        assert_eq!(report["changed_bytes"], PAGE);
    }
}

#[test]
fn a_full_copy_on_one_file_system_is_a_clone_of_the_source() {
    for kind in KINDS {
        let Some(clones) = Clones::new(kind) else {
            return;
        };
        for (words, cloned, verified) in [
            ("small/s small/t --mode full", true, "no"),
            ("small/s small/t", true, "no"),
            ("small/s small/t --mode full --verify all", true, "all"),
            ("small/s small/t --mode full --clone never", false, "all"),
            ("s small/t --mode full", false, "all"),
        ] {
            clones.reset();
            let report = clones.sync(words);
            let found = (&report["cloned"], &report["verified"]);
            assert_eq!(
                found,
                (&cloned.into(), &verified.into()),
                "{kind:?} {words}"
            );
        }
        fs::remove_file(clones.small.path("t")).unwrap();
        assert_eq!(clones.sync("small/s small/t")["cloned"], true);
        let source = File::options().write(true).open(clones.small.path("s"));
        source.unwrap().write_all_at(b"apart", 0).unwrap();
        assert!(clones.target() == clones.new, "the two are no longer one");
    }
}

#[test]
fn containers_are_cloned_as_files_are() {
    for kind in KINDS {
        let Some(clones) = Clones::new(kind) else {
            return;
        };
        for target in ["small/d.vhd", "small/d.vhdx"] {
            clones.fixture.done(&format!("sync small/t {target}"));
            let (_, report) = clones
                .fixture
                .json(&format!("sync s {target} --mode delta"));
            assert_eq!(report["cloned"], true, "{report}");
            let (_, report) = clones
                .fixture
                .json(&format!("sync s {target} --mode delta"));
            assert_eq!(report["outcome"], "identical");
        }
    }
}

#[test]
fn no_room_for_what_differs_leaves_the_target_as_it_was() {
    for kind in KINDS {
        let Some(clones) = Clones::new(kind) else {
            return;
        };
        // All of it changes.
        fs::write(clones.fixture.path("s"), noise(PAGES * PAGE, 5)).unwrap();
        clones.small.leave(2 << 20);
        let run = clones.fixture.run("sync s small/t --mode delta");
        run.fails(2, "the target is untouched, and its clone was removed");
        assert!(clones.target() == clones.old);
        assert_eq!(clones.small.others(&["s", "t", "ballast"]), [""; 0]);
    }
}

#[test]
fn a_sync_onto_a_clone_may_be_killed() {
    for kind in KINDS {
        let Some(mut clones) = Clones::new(kind) else {
            return;
        };
        let mut rng = Rng::of(&format!("clone {kind:?}"));
        let started = Instant::now();
        clones.sync("s small/t --mode delta");
        let usual = started.elapsed().as_micros() as u64;
        let (mut old, mut new) = (0, 0);
        for _ in 0..rounds() {
            std::mem::swap(&mut clones.old, &mut clones.new);
            fs::write(clones.fixture.path("s"), &clones.new).unwrap();
            let child = clones.fixture.start("sync s small/t --mode delta");
            std::thread::sleep(Duration::from_micros(rng.below(usual * 5 / 4)));
            let done = kill(child);
            let now = clones.target();
            let is_new = now == clones.new;
            assert!(
                is_new || (!done && now == clones.old),
                "{kind:?}: a mixture"
            );
            clones.fixture.done("recover small/t");
            assert!(
                clones.target() == now,
                "{kind:?}: recovery has nothing to do"
            );
            (old, new) = (old + u64::from(!is_new), new + u64::from(is_new));
            if !is_new || rng.once_in(3) {
                clones.sync("s small/t --mode delta");
            }
        }
        eprintln!("{kind:?}: {old} old, {new} new");
    }
}

fn rounds() -> u64 {
    match std::env::var("DISKDELTA_KILL_ROUNDS") {
        Ok(text) => text.parse().unwrap(),
        Err(_) if std::env::var_os("DISKDELTA_LONG").is_some() => 400,
        Err(_) => 12,
    }
}

const KINDS: [Kind; 2] = [Kind::Xfs, Kind::Btrfs];
const PAGES: usize = 2048;

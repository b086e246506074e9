//! The marker as a boot guard: nothing mounts, activates or opens a disk between the first and the
//! last change, and recovery gives it back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use diskdelta::Work;
use diskdelta::image::{Format, Raw};
use diskdelta::storage::fault::{CrashState, FaultDisk, FileBytes};
use diskdelta::storage::{Directory, FileRef, MemoryStorage};
use diskdelta::sync::{Mode, Safety, Source, SyncOptions, Target, sync};

use crate::fixture::{Fixture, noise};
use crate::host::{LoopDevice, Mount, has_loop_devices, has_program, run};

/// What lies on a disk that real tools look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    Ext4,
    Gpt,
    Mbr,
    Lvm,
    /// An image file with an ext4 disk in it.
    Image(&'static str, &'static str),
}

impl Disk {
    /// Makes one that says which generation it is of.
    fn make(self, fixture: &Fixture, generation: &str) -> Vec<u8> {
        let (raw, raw_path) = (format!("{generation}.raw"), fixture.path(generation));
        let raw_path = raw_path.with_extension("raw");
        let path = raw_path.to_str().unwrap();
        File::create(&raw_path)
            .unwrap()
            .set_len(DISK_BYTES)
            .unwrap();
        match self {
            Disk::Ext4 | Disk::Image(..) => ext4(fixture, path, generation, 0),
            Disk::Gpt => {
                run("sgdisk", &["-n", "1:2048:0", "-c", "1:data", path]);
                ext4(fixture, path, generation, START_BYTES);
            }
            Disk::Mbr => {
                run(
                    "parted",
                    &[
                        "-s", path, "mklabel", "msdos", "mkpart", "primary", "1MiB", "100%",
                    ],
                );
                ext4(fixture, path, generation, START_BYTES);
            }
            Disk::Lvm => {
                // Something to change behind the tables.
                let file = File::options().write(true).open(&raw_path).unwrap();
                let salt = generation.len() as u64 + u64::from(generation.as_bytes()[0]);
                file.write_all_at(&noise(9 << 20, salt), 5 << 20).unwrap();
                let device = LoopDevice::attach(&raw_path);
                let name = device.path().to_str().unwrap();
                lvm("pvcreate", &["--devices", name, name]);
                lvm("vgcreate", &["--devices", name, &group(generation), name]);
            }
        }
        if let Disk::Image(format, subformat) = self {
            let image = fixture.path("image");
            let option = format!("subformat={subformat}");
            let image_path = image.to_str().unwrap();
            let size = if format == "vpc" {
                ",force_size=on"
            } else {
                ""
            };
            run(
                "qemu-img",
                &[
                    "convert",
                    "-O",
                    format,
                    "-o",
                    &format!("{option}{size}"),
                    path,
                    image_path,
                ],
            );
            return fs::read(image).unwrap();
        }
        let bytes = fixture.bytes(&raw);
        fs::remove_file(raw_path).unwrap();
        bytes
    }

    /// The generation that tools find there; `None` where they find nothing.
    fn found(self, fixture: &Fixture, path: &Path) -> Option<String> {
        match self {
            Disk::Ext4 => {
                let forced = mounted(fixture, &["-t", "ext4", "-o", "ro,loop"], path);
                let probed = mounted(fixture, &["-o", "ro,loop"], path);
                assert_eq!(forced, probed);
                assert_eq!(known(path), forced.is_some());
                probed
            }
            Disk::Gpt | Disk::Mbr => {
                let device = LoopDevice::attach(path);
                assert_eq!(mounted(fixture, &["-o", "ro"], device.path()), None);
                let added = Command::new("partx").arg("-a").arg(device.path()).output();
                let part = format!("{}p1", device.path().display());
                assert_eq!(added.unwrap().status.success(), Path::new(&part).exists());
                assert_eq!(known(device.path()), Path::new(&part).exists());
                match Path::new(&part).exists() {
                    true => mounted(fixture, &["-o", "ro"], part.as_ref()),
                    false => None,
                }
            }
            Disk::Lvm => {
                let device = LoopDevice::attach(path);
                let name = device.path().to_str().unwrap();
                let groups = lvm_output("vgs", &["--devices", name, "--noheadings", "-o", "name"]);
                let volumes = lvm_output("pvs", &["--devices", name, "--noheadings", "-o", "name"]);
                assert_eq!(volumes.contains(name), !groups.is_empty());
                let all = ["old", "new"];
                let mut all = all.into_iter();
                let found = all.find(|it| groups.contains(&group(it)));
                found.map(str::to_owned)
            }
            Disk::Image(format, _) => {
                let raw = fixture.path("converted.raw");
                let _ = fs::remove_file(&raw);
                let converted = Command::new("qemu-img")
                    .args(["convert", "-f", format, "-O", "raw"])
                    .args([path, &raw])
                    .output()
                    .unwrap();
                if !converted.status.success() {
                    return None;
                }
                Some(mounted(fixture, &["-o", "ro,loop"], &raw).unwrap_or(OPENED.to_owned()))
            }
        }
    }

    /// Whether the file system is whole, where there is one.
    fn is_clean(self, path: &Path) -> bool {
        let (program, arguments): (_, &[&str]) = match self {
            Disk::Ext4 => ("e2fsck", &["-fn"]),
            Disk::Gpt => ("sgdisk", &["-v"]),
            Disk::Mbr => ("sfdisk", &["--verify"]),
            _ => return true,
        };
        let output = Command::new(program).args(arguments).arg(path).output();
        output.unwrap().status.success()
    }

    fn name(self) -> &'static str {
        match self {
            Disk::Image("vpc", _) => "t.vhd",
            Disk::Image(..) => "t.vhdx",
            _ => "t.raw",
        }
    }

    fn format(self) -> Format {
        Format::from_path(self.name().as_ref())
    }

    fn is_possible(self) -> bool {
        let needed: &[&str] = match self {
            Disk::Ext4 => &["mkfs.ext4", "e2fsck"],
            Disk::Gpt => &["mkfs.ext4", "sgdisk", "partx"],
            Disk::Mbr => &["mkfs.ext4", "parted", "sfdisk", "partx"],
            Disk::Lvm => &["pvcreate", "vgcreate", "vgs"],
            Disk::Image(..) => &["mkfs.ext4", "qemu-img"],
        };
        has_loop_devices() && needed.iter().all(|program| has_program(program))
    }
}

/// Crashes a sync and shows every tool what it left.
fn guards(disk: Disk, safety: Safety) {
    if !disk.is_possible() {
        return;
    }
    let fixture = Fixture::new();
    let (old, new) = (disk.make(&fixture, "old"), disk.make(&fixture, "new"));
    let path = fixture.path(disk.name());
    for (bytes, generation) in [(&old, "old"), (&new, "new")] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(disk.found(&fixture, &path).as_deref(), Some(generation));
    }
    // A source for the syncs that run again.
    let source = disk.name().replace('t', "source");
    fs::write(fixture.path(&source), &new).unwrap();
    let crashed = crash(&fixture, disk, safety, old.clone());
    let mut shown = 0;
    let crashes = crashed.crashes();
    let between = crashes
        .sample(2000)
        .filter(|state| is_marked(&head(state, &path)));
    for state in between.take(count()) {
        shown += 1;
        put_down(&fixture, &state);
        let found = disk.found(&fixture, &path);
        if found.is_some() && disk == FIXED_VHD && has_its_footer(&state, &crashed, &path) {
            // The footer comes back before the last write of all. Inside, the disk is marked still.
            assert_eq!(found.as_deref(), Some(OPENED), "{state}");
        } else {
            assert_eq!(found, None, "{disk:?} {safety:?}: {state}");
        }
        let info = fixture.run(&format!("info {}", disk.name()));
        info.fails(3, "incomplete");
        let copied = fixture.run(&format!("sync {} copy.raw", disk.name()));
        copied.fails(3, "incomplete");
        match safety {
            Safety::InPlace => {
                let words = "--mode delta --safety in-place --allow-shrink";
                fixture.done(&format!("sync {source} {} {words}", disk.name()))
            }
            _ => fixture.done(&format!("recover {}", disk.name())),
        };
        let found = disk.found(&fixture, &path);
        assert_eq!(found.as_deref(), Some("new"), "{disk:?}: {state}");
        assert!(disk.is_clean(&path), "{disk:?} {safety:?}: {state}");
    }
    eprintln!("{disk:?} {safety:?}: {shown} marked states shown to real tools");
    assert_eq!(shown, count());
}

/// Runs the sync on a disk whose log tells what a crash may leave.
fn crash(fixture: &Fixture, disk: Disk, safety: Safety, old: Vec<u8>) -> FaultDisk {
    let path = fixture.path(disk.name());
    let fault = FaultDisk::new();
    fault.put(&path, old);
    fault.make_durable();
    let directory: Arc<dyn Directory> = Arc::new(fault.directory(path.parent().unwrap()));
    let target = Target::file(FileRef::new(directory, disk.name()), disk.format());
    let source = fs::read(fixture.path(&disk.name().replace('t', "source"))).unwrap();
    let storage = Arc::new(MemoryStorage::new("source", source));
    let image = match disk.format() {
        Format::Raw => Arc::new(Raw::open(storage).unwrap()),
        format => diskdelta::image::open_storage(storage, format, &Default::default()).unwrap(),
    };
    let options = SyncOptions::default()
        .with_mode(Mode::Delta)
        .with_safety(safety)
        .with_allow_shrink(true);
    let work = Work::with_threads(1).unwrap();
    sync(&Source::new(image), &target, &options, &work).unwrap();
    fault
}

/// Makes the fixture's files those of a crash state.
fn put_down(fixture: &Fixture, state: &CrashState) {
    for name in fixture.names() {
        // The disk too: a loop device that is about to go may still know its bytes.
        if name.contains("diskdelta") || name.starts_with("t.") {
            fs::remove_file(fixture.path(&name)).unwrap();
        }
    }
    let directory = fixture.path("x").parent().unwrap().to_owned();
    for name in state.disk().names(&directory) {
        let row = state.disk().contents(directory.join(&name)).unwrap();
        fs::write(directory.join(&name), row.to_vec()).unwrap();
    }
}

fn head(state: &CrashState, path: &Path) -> Vec<u8> {
    state
        .disk()
        .contents(path)
        .map_or(Vec::new(), |row: FileBytes| row.slice(0..4096))
}

fn has_its_footer(state: &CrashState, done: &FaultDisk, path: &Path) -> bool {
    let footer = |disk: &FaultDisk| {
        let row = disk.contents(path).unwrap();
        row.slice(row.len() - 512..row.len())
    };
    footer(state.disk()) == footer(done)
}

/// Whether all of the first page is marked: from the first sync of the marker to its last write.
fn is_marked(page: &[u8]) -> bool {
    !page.is_empty()
        && page
            .chunks(512)
            .all(|it| it.starts_with(b"\0diskdelta mark1"))
}

fn ext4(fixture: &Fixture, path: &str, generation: &str, offset: u64) {
    let tree = fixture.path("tree");
    fs::create_dir_all(&tree).unwrap();
    fs::write(tree.join("generation"), generation).unwrap();
    let salt = u64::from(generation.as_bytes()[0]);
    fs::write(tree.join("ballast"), noise(3 << 20, salt)).unwrap();
    let offset_option = format!("offset={offset}");
    let blocks = format!("{}k", (DISK_BYTES - 2 * offset) >> 10);
    let tree = tree.to_str().unwrap();
    let arguments = ["-q", "-F", "-E", &offset_option, "-d", tree, path, &blocks];
    run("mkfs.ext4", &arguments);
}

/// The generation of what mounts there.
fn mounted(fixture: &Fixture, arguments: &[&str], what: &Path) -> Option<String> {
    let point = fixture.path("point");
    fs::create_dir_all(&point).unwrap();
    let tried = Command::new("mount")
        .args(arguments)
        .arg(what)
        .arg(&point)
        .output();
    if !tried.unwrap().status.success() {
        return None;
    }
    let _mount = Mount::made(&point);
    Some(fs::read_to_string(point.join("generation")).unwrap())
}

/// Whether a program that asks what a disk holds knows it.
fn known(path: &Path) -> bool {
    let output = Command::new("blkid").arg("-p").arg(path).output().unwrap();
    output.status.success()
}

/// Runs a program of LVM on our device alone.
fn lvm(program: &str, arguments: &[&str]) {
    let output = Command::new(program)
        .arg("-q")
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}

fn lvm_output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn group(generation: &str) -> String {
    format!("diskdelta_{}_{generation}", std::process::id())
}

fn count() -> usize {
    match std::env::var_os("DISKDELTA_LONG") {
        Some(_) => 60,
        None => 2,
    }
}

const FIXED_VHD: Disk = Disk::Image("vpc", "fixed");
/// An image that opens and holds nothing that mounts.
const OPENED: &str = "opened";
const DISK_BYTES: u64 = 16 << 20;
const START_BYTES: u64 = 1 << 20;

macro_rules! guarded {
    ($($name:ident: $disk:expr;)*) => {
        $(#[test]
        fn $name() {
            guards($disk, Safety::Atomic);
            guards($disk, Safety::InPlace);
        })*
    };
}

guarded! {
    a_marked_file_system_does_not_mount: Disk::Ext4;
    a_marked_gpt_disk_shows_no_partition: Disk::Gpt;
    a_marked_mbr_disk_shows_no_partition: Disk::Mbr;
    a_marked_physical_volume_is_no_volume: Disk::Lvm;
    a_marked_fixed_vhd_does_not_open: FIXED_VHD;
    a_marked_dynamic_vhd_does_not_open: Disk::Image("vpc", "dynamic");
    a_marked_vhdx_does_not_open: Disk::Image("vhdx", "dynamic");
}

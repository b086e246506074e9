//! Who is kept out by whom: QEMU and us, two of us, and other users of a target.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod host;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use diskdelta::ErrorKind;
use diskdelta::storage::{
    HostFile, Opened, SourceOptions, TargetOptions, open_source, open_target, refuse_in_use,
    refuse_overlap,
};
use host::{LoopDevice, Mount, QemuIo, has_loop_devices, has_program, run};

fn image(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    File::create(&path).unwrap().set_len(8 << 20).unwrap();
    path
}

fn target(path: &Path) -> diskdelta::Result<Opened> {
    open_target(path, &TargetOptions::default())
}

fn source(path: &Path) -> diskdelta::Result<Opened> {
    open_source(path, &SourceOptions::default())
}

/// The kind of the refusal; panics if there was none.
fn refusal(outcome: diskdelta::Result<Opened>) -> ErrorKind {
    match outcome {
        Ok(_) => panic!("was not refused"),
        Err(error) => error.kind(),
    }
}

/// Files in two file systems: the temporary directory's, and memory.
fn directories() -> Vec<tempfile::TempDir> {
    let mut directories = vec![tempfile::tempdir().unwrap()];
    if Path::new("/dev/shm").is_dir() {
        directories.push(tempfile::tempdir_in("/dev/shm").unwrap());
    }
    directories
}

#[test]
fn an_image_that_qemu_writes_to_is_neither_target_nor_source() {
    if !has_program("qemu-io") {
        return;
    }
    for directory in directories() {
        let path = image(directory.path(), "disk.raw");
        let qemu = QemuIo::open(&["-f", "raw"], &path).unwrap();
        assert_eq!(refusal(target(&path)), ErrorKind::InUse);
        assert_eq!(refusal(source(&path)), ErrorKind::InUse);
        let live = SourceOptions::default().with_allow_writers(true);
        let opened = open_source(&path, &live).unwrap();
        assert!(opened.warnings.iter().any(|text| text.contains("qemu-io")));
        drop((qemu, opened));
        target(&path).unwrap();
        source(&path).unwrap();
    }
}

#[test]
fn an_image_that_qemu_reads_is_no_target_but_may_be_a_source() {
    if !has_program("qemu-io") {
        return;
    }
    for directory in directories() {
        let path = image(directory.path(), "disk.raw");
        let qemu = QemuIo::open(&["-r", "-f", "raw"], &path).unwrap();
        assert_eq!(refusal(target(&path)), ErrorKind::InUse);
        source(&path).unwrap();
        drop(qemu);
        target(&path).unwrap();
    }
}

#[test]
fn qemu_cannot_write_to_what_we_write_to_or_read() {
    if !has_program("qemu-io") {
        return;
    }
    for directory in directories() {
        let path = image(directory.path(), "disk.raw");
        let ours = target(&path).unwrap();
        assert!(QemuIo::open(&["-f", "raw"], &path).is_none());
        drop(ours);
        let ours = source(&path).unwrap();
        assert!(QemuIo::open(&["-f", "raw"], &path).is_none());
        assert!(QemuIo::open(&["-r", "-f", "raw"], &path).is_some());
        drop(ours);
        let live = SourceOptions::default().with_allow_writers(true);
        let ours = open_source(&path, &live).unwrap();
        assert!(QemuIo::open(&["-f", "raw"], &path).is_some());
        drop(ours);
        assert!(QemuIo::open(&["-f", "raw"], &path).is_some());
    }
}

#[test]
fn qemu_cannot_read_an_image_with_metadata_while_we_write_to_it() {
    if !has_program("qemu-img") || !has_program("qemu-io") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.vhd");
    let name = path.to_str().unwrap();
    run("qemu-img", &["create", "-q", "-f", "vpc", name, "8M"]);
    let ours = target(&path).unwrap();
    assert!(QemuIo::open(&["-r", "-f", "vpc"], &path).is_none());
    drop(ours);
    let theirs = QemuIo::open(&["-r", "-f", "vpc"], &path).unwrap();
    source(&path).unwrap();
    assert_eq!(refusal(target(&path)), ErrorKind::InUse);
    drop(theirs);
    target(&path).unwrap();
}

#[test]
fn locks_hold_on_block_devices_too() {
    if !has_loop_devices() || !has_program("qemu-io") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let device = LoopDevice::attach(&image(directory.path(), "disk.raw"));
    let ours = target(device.path()).unwrap();
    assert!(QemuIo::open(&["-f", "raw"], device.path()).is_none());
    assert_eq!(refusal(target(device.path())), ErrorKind::InUse);
    assert_eq!(refusal(source(device.path())), ErrorKind::InUse);
    drop(ours);
    let qemu = QemuIo::open(&["-f", "raw"], device.path()).unwrap();
    assert_eq!(refusal(target(device.path())), ErrorKind::InUse);
    assert_eq!(refusal(source(device.path())), ErrorKind::InUse);
    drop(qemu);
    target(device.path()).unwrap();
}

#[test]
fn a_target_has_one_handle_and_sources_have_many() {
    for directory in directories() {
        let path = image(directory.path(), "disk.raw");
        let first = target(&path).unwrap();
        assert_eq!(refusal(target(&path)), ErrorKind::InUse);
        assert_eq!(refusal(source(&path)), ErrorKind::InUse);
        drop(first);
        let readers = [source(&path).unwrap(), source(&path).unwrap()];
        assert_eq!(refusal(target(&path)), ErrorKind::InUse);
        drop(readers);
        target(&path).unwrap();
    }
}

#[test]
fn a_target_that_another_process_of_ours_holds_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path(), "disk.raw");
    let mut holder = Holder::start(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holds_a_target_when_told_to", "--nocapture"])
            .env(HOLD, &path),
    );
    assert_eq!(refusal(target(&path)), ErrorKind::InUse);
    assert_eq!(refusal(source(&path)), ErrorKind::InUse);
    holder.end();
    target(&path).unwrap();
}

/// The other process of the test above; alone it does nothing.
#[test]
fn holds_a_target_when_told_to() {
    if let Some(path) = std::env::var_os(HOLD) {
        let _held = target(Path::new(&path)).unwrap();
        println!("\nready");
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}

#[test]
fn a_file_open_for_writing_elsewhere_is_no_target() {
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path(), "disk.raw");
    let mut holder = Holder::start(
        Command::new("sh")
            .args(["-c", "exec 3<>\"$0\"; echo ready; read x"])
            .arg(&path),
    );
    let error = target(&path).map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(
        error.to_string().contains("(sh) has it open for writing"),
        "{error}"
    );
    let opened = source(&path).unwrap();
    assert!(opened.warnings[0].contains("(sh)"), "{:?}", opened.warnings);
    drop(opened);
    holder.end();
    target(&path).unwrap();
    // Reading does not matter.
    let _reader = Holder::start(
        Command::new("sh")
            .args(["-c", "exec 3<\"$0\"; echo ready; read x"])
            .arg(&path),
    );
    target(&path).unwrap();
}

#[test]
fn a_mounted_device_and_the_file_behind_it_are_no_targets() {
    if !has_loop_devices() || !has_program("mkfs.ext4") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path(), "disk.raw");
    run("mkfs.ext4", &["-q", "-F", path.to_str().unwrap()]);
    let device = LoopDevice::attach(&path);
    let text = refuse_in_use(&HostFile::at(&path).unwrap())
        .unwrap_err()
        .to_string();
    assert!(text.contains("attached to loop"), "{text}");
    target(device.path()).unwrap();

    let point = directory.path().join("point of mount");
    let mount = Mount::new(&[device.path().to_str().unwrap()], &point);
    for held in [device.path(), &path] {
        let error = target(held).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        let text = error.to_string();
        assert!(
            text.contains("is mounted on") && text.contains("point of mount"),
            "{text}"
        );
        // Reading it is the caller's risk, and told.
        assert!(source(held).unwrap().warnings[0].contains("is mounted on"));
    }
    drop(mount);
    target(device.path()).unwrap();
    drop(device);
    target(&path).unwrap();
}

#[test]
fn a_disk_with_a_mounted_partition_is_no_target() {
    if !has_loop_devices() || !has_program("sfdisk") || !has_program("mkfs.ext4") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path(), "disk.raw");
    let table = directory.path().join("table");
    fs::write(
        &table,
        "label: dos\nstart=2048, size=4096\nstart=8192, size=2048\n",
    )
    .unwrap();
    let partition = format!("sfdisk -q {} < {}", path.display(), table.display());
    run("sh", &["-c", &partition]);
    let device = LoopDevice::attach(&path);
    // Not left to the kernel, which may be built without partition tables.
    run("partx", &["--add", device.path().to_str().unwrap()]);
    let part = |number: u32| PathBuf::from(format!("{}p{number}", device.path().display()));
    run("mkfs.ext4", &["-q", "-F", part(1).to_str().unwrap()]);
    let mount = Mount::new(
        &[part(1).to_str().unwrap()],
        &directory.path().join("point"),
    );
    for held in [device.path(), &part(1), &path] {
        let text = target(held).map(drop).unwrap_err().to_string();
        assert!(text.contains("is mounted on"), "{text}");
    }
    target(&part(2)).unwrap();
    drop(mount);
    let ours = target(device.path()).unwrap();
    assert_eq!(refusal(target(&part(2))), ErrorKind::InUse);
    drop(ours);

    let [disk, first, second] =
        [device.path().to_owned(), part(1), part(2)].map(|path| HostFile::at(path).unwrap());
    refuse_overlap(&first, &second).unwrap();
    let file = HostFile::at(&path).unwrap();
    for (one, other) in [(&disk, &first), (&first, &file), (&file, &disk)] {
        assert_eq!(
            refuse_overlap(one, other).unwrap_err().kind(),
            ErrorKind::InUse
        );
        assert_eq!(
            refuse_overlap(other, one).unwrap_err().kind(),
            ErrorKind::InUse
        );
    }
}

#[test]
fn the_source_under_another_name_is_no_target() {
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path(), "disk.raw");
    let other = image(directory.path(), "other.raw");
    let [linked, hard] = ["linked", "hard"].map(|name| directory.path().join(name));
    symlink(&path, &linked).unwrap();
    fs::hard_link(&path, &hard).unwrap();
    let from = source(&path).unwrap();
    let options = TargetOptions::default().with_source(from.host);
    for name in [&path, &linked, &hard] {
        let error = open_target(name, &options).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.to_string().contains("share their bytes"), "{error}");
    }
    open_target(&other, &options).unwrap();
}

#[test]
fn a_loop_device_is_no_target_for_its_own_file() {
    if !has_loop_devices() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = image(directory.path(), "disk.raw");
    let device = LoopDevice::attach(&path);
    // A second node for the same device.
    let twin = directory.path().join("node");
    let facts = fs::metadata(device.path()).unwrap();
    let number = std::os::unix::fs::MetadataExt::rdev(&facts);
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let node = twin.to_str().unwrap();
    run(
        "mknod",
        &[node, "b", &major.to_string(), &minor.to_string()],
    );
    for (from, to) in [
        (&*path, device.path()),
        (&twin, device.path()),
        (device.path(), &twin),
    ] {
        let from = open_source(from, &SourceOptions::default()).unwrap();
        let options = TargetOptions::default().with_source(from.host.clone());
        let error = open_target(to, &options).map(drop).unwrap_err();
        assert!(error.to_string().contains("share their bytes"), "{error}");
    }
}

/// A child that says when it is ready, and ends when its input does.
struct Holder {
    child: Child,
    _output: BufReader<ChildStdout>,
}

impl Holder {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line.trim_end() != "ready" {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0);
        }
        Holder {
            child,
            _output: output,
        }
    }

    fn end(&mut self) {
        self.child.stdin.take();
        self.child.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
    }
}

const HOLD: &str = "DISKDELTA_TEST_HOLD";

//! A marker that is given up, because its log is lost: at every moment of a crash the target is
//! marked, with a way on, or finished.

use std::sync::Arc;

use diskdelta::image::Format;
use diskdelta::storage::fault::{Failure, Fault, FaultDisk};
use diskdelta::storage::{Access, Directory, FileRef};
use diskdelta::sync::{GuardedBytes, Marker, Recovered, Target, forget, hold, recover};
use diskdelta::{Advice, Error, ErrorKind};

use crate::case::work;
use crate::cases::{MIB, bytes};

const TARGET: &str = "/d/t";
const SECTOR: usize = 512;

/// A target whose log is lost, what is given for it, and what it should hold.
struct Lost {
    name: &'static str,
    is_device: bool,
    format: Format,
    marked: Vec<u8>,
    given: GuardedBytes,
    wanted: Vec<u8>,
}

impl Lost {
    /// A target marked all over, and what is under its marker given.
    fn given(name: &'static str, content: &[u8], is_device: bool) -> Lost {
        let tail = content.len().saturating_sub(MIB).max(MIB) / SECTOR * SECTOR;
        let part = |bytes: &[u8]| Some(bytes.to_vec()).filter(|it| !it.is_empty());
        let given = GuardedBytes::default()
            .with_head(part(&content[..content.len().min(MIB)]))
            .with_tail(part(content.get(tail..).unwrap_or_default()))
            .with_held(true);
        Lost {
            name,
            is_device,
            format: Format::Raw,
            marked: marked(content),
            given,
            wanted: content.to_vec(),
        }
    }

    /// One where all markers become zeros.
    fn zeroed(name: &'static str, marked: Vec<u8>) -> Lost {
        let sectors = marked.chunks(SECTOR).map(|sector| match is_marker(sector) {
            true => vec![0; sector.len()],
            false => sector.to_vec(),
        });
        Lost {
            name,
            is_device: false,
            format: Format::Raw,
            wanted: sectors.flatten().collect(),
            marked,
            given: GuardedBytes::default().with_zeros(true).with_held(true),
        }
    }

    fn disk(&self) -> FaultDisk {
        let disk = FaultDisk::new();
        match self.is_device {
            true => disk.put_device(TARGET, self.marked.clone()),
            false => disk.put(TARGET, self.marked.clone()),
        }
        disk
    }

    fn target(&self, disk: &FaultDisk) -> Target {
        let directory: Arc<dyn Directory> = Arc::new(disk.directory("/d"));
        match self.is_device {
            true => {
                let storage = Arc::new(disk.open(TARGET, Access::Write).unwrap());
                let logs: Arc<dyn Directory> = Arc::new(disk.directory("/logs"));
                Target::device(storage, self.format, FileRef::new(logs, "t.diskdelta-log"))
            }
            false => Target::file(FileRef::new(directory, "t"), self.format),
        }
    }

    /// Goes on from what a crash or an error left, as its errors advise, to the end.
    fn end(&self, disk: &FaultDisk) -> Result<(), Error> {
        let was_marked = marker(disk).is_some();
        match recover(&self.target(disk), &work()) {
            Ok(Recovered::Forgotten | Recovered::Nothing) => Ok(()),
            Ok(other) => panic!("{}: {other:?}", self.name),
            Err(error) if error.kind() == ErrorKind::Incomplete && was_marked => {
                assert!(
                    error.advice().contains(&Advice::Forget)
                        || error.advice().contains(&Advice::ForgetHeld),
                    "{error}"
                );
                forget(&self.target(disk), &self.given, &work()).map(drop)
            }
            Err(error) => Err(error),
        }
    }

    fn is_ended(&self, disk: &FaultDisk) -> Result<(), String> {
        if marker(disk).is_some() || disk.contents(TARGET).unwrap().to_vec() != self.wanted {
            return Err(format!("{}: not what was given", self.name));
        }
        let names = [disk.names("/d"), disk.names("/logs")].concat();
        match names == if self.is_device { &[][..] } else { &["t"] } {
            true => Ok(()),
            false => Err(format!("{}: something is left: {names:?}", self.name)),
        }
    }
}

fn marker(disk: &FaultDisk) -> Option<Marker> {
    Marker::find(&disk.open(TARGET, Access::Read).unwrap()).unwrap()
}

fn is_marker(sector: &[u8]) -> bool {
    sector.starts_with(b"\0diskdelta mark1")
}

/// `content` under the marker of a hold.
fn marked(content: &[u8]) -> Vec<u8> {
    let disk = FaultDisk::new();
    disk.put(TARGET, content.to_vec());
    let directory: Arc<dyn Directory> = Arc::new(disk.directory("/d"));
    hold(
        &Target::file(FileRef::new(directory, "t"), Format::Raw),
        &work(),
    )
    .unwrap();
    disk.contents(TARGET).unwrap().to_vec()
}

/// `content` with those sectors of its marker that are named.
fn with_markers(content: &[u8], sectors: &[usize]) -> Vec<u8> {
    let whole = marked(content);
    let mut out = content.to_vec();
    for sector in sectors {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        out[range.clone()].copy_from_slice(&whole[range]);
    }
    out
}

/// Not a zero in it.
fn content(len: usize) -> Vec<u8> {
    bytes(len, 5).into_iter().map(|byte| byte | 1).collect()
}

fn cases() -> Vec<Lost> {
    let long = content((5 << 19) + 700);
    let short = &long[..(40 << 10) + 300];
    let grown = {
        let more = content(6 * MIB / 2);
        let mut lost = Lost::given("grown", &long, false);
        lost.marked.extend_from_slice(&more);
        lost.wanted.extend_from_slice(&more);
        lost
    };
    let cut = {
        let mut lost = Lost::given("cut", &long, false);
        let len = 2 * MIB;
        lost.marked.truncate(len);
        lost.wanted.truncate(len);
        let tail = lost.given.tail.take().unwrap();
        let start = (long.len() - MIB) / SECTOR * SECTOR;
        lost.given.tail = Some(tail[..len - start].to_vec());
        lost
    };
    let container = Lost {
        format: Format::Vhdx,
        ..Lost::given("a container that does not open", short, false)
    };
    let grown_and_lost = {
        let mut lost = Lost::zeroed("zeros, grown", marked(&long));
        lost.marked.extend_from_slice(&content(MIB));
        lost.wanted.extend_from_slice(&content(MIB));
        lost
    };
    vec![
        Lost::given("a file", &long, false),
        Lost::given("a device", &short[..32 << 10], true),
        Lost::given("short", &short[..5000], false),
        grown,
        cut,
        container,
        Lost::zeroed("zeros", marked(&long)),
        grown_and_lost,
        Lost::zeroed("one sector", with_markers(short, &[3])),
        Lost::zeroed("the first sector", with_markers(short, &[0])),
        Lost::zeroed("the last of the page", with_markers(short, &[7, 9, 77])),
        Lost::zeroed("two sectors", with_markers(short, &[2, 6])),
    ]
}

#[test]
fn a_marker_is_given_up_wholly_or_the_target_is_marked_with_a_way_on() {
    for lost in cases() {
        let disk = lost.disk();
        let report = forget(&lost.target(&disk), &lost.given, &work()).unwrap();
        assert_eq!(report.opens, lost.format == Format::Raw);
        disk.note("acknowledged");
        lost.is_ended(&disk).unwrap();
        let (mut old, mut ended) = (0, 0);
        let crashes = disk.crashes().with_limit(14).with_samples(5);
        let check = |state: &diskdelta::storage::fault::CrashState| {
            let disk = state.disk();
            let found = marker(disk);
            let is_done = disk.contents(TARGET).unwrap().to_vec() == lost.wanted;
            if found.is_none() && !is_done && !is_torn_only(&lost, disk) {
                return Err("a mixture without a marker".to_owned());
            }
            if state.noted("acknowledged") && !is_done {
                return Err("acknowledged, and not done".to_owned());
            }
            old += u64::from(found.is_some());
            ended += u64::from(found.is_none());
            lost.end(disk).map_err(|error| error.to_string())?;
            lost.is_ended(disk)?;
            if state.number().is_multiple_of(6) {
                let again = disk.crashes().with_limit(8).with_samples(4);
                again
                    .check(|state| {
                        lost.end(state.disk()).map_err(|error| error.to_string())?;
                        lost.is_ended(state.disk())
                    })
                    .map_err(|violation| format!("again: {violation}"))?;
            }
            Ok(())
        };
        crashes
            .check(check)
            .unwrap_or_else(|violation| panic!("{}: {violation}", lost.name));
        assert!(old > 0 && ended > 0, "{}: {old} {ended}", lost.name);
    }
}

/// Only the first page differs, whose last write a crash tore: recovery mends it.
fn is_torn_only(lost: &Lost, disk: &FaultDisk) -> bool {
    disk.contents(TARGET).unwrap().to_vec()[4096..] == lost.wanted[4096..]
}

#[test]
fn whatever_fails_while_a_marker_is_given_up_the_target_has_a_way_on() {
    for lost in cases() {
        for failure in [Failure::Io, Failure::NoSpace, Failure::Lossy] {
            for nth in 1.. {
                let disk = lost.disk();
                disk.fail(Fault::nth(nth).with_failure(failure));
                let done = forget(&lost.target(&disk), &lost.given, &work());
                if disk.fired().is_empty() {
                    done.unwrap();
                    assert!(nth > 10, "{}", lost.name);
                    break;
                }
                disk.heal();
                if let Err(error) = done {
                    assert!(!error.advice().is_empty(), "{}: {error}", lost.name);
                }
                let name = lost.name;
                lost.end(&disk)
                    .unwrap_or_else(|error| panic!("{name}: {failure:?} {nth}: {error}"));
                lost.is_ended(&disk)
                    .unwrap_or_else(|error| panic!("{failure:?} {nth}: {error}"));
            }
        }
    }
}

#[test]
fn the_log_of_another_disk_is_kept_when_a_marker_is_given_up() {
    let lost = &cases()[0];
    let disk = lost.disk();
    let directory: Arc<dyn Directory> = Arc::new(disk.directory("/d"));
    // Of another target, which was moved away from this name.
    disk.put("/d/moved", content(MIB));
    let moved = Target::file(FileRef::new(directory.clone(), "moved"), Format::Raw)
        .with_redo_log(lost.target(&disk).redo_log().clone());
    hold(&moved, &work()).unwrap();
    disk.make_durable();
    let report = forget(&lost.target(&disk), &lost.given, &work()).unwrap();
    assert_eq!(report.notes.len(), 1);
    let names = disk.names("/d");
    assert_eq!(names.len(), 3, "{names:?}");
    let log = names
        .iter()
        .find(|name| name.to_str().unwrap().ends_with(".diskdelta-log"));
    let moved = moved.with_redo_log(FileRef::new(directory, log.unwrap()));
    diskdelta::sync::release(&moved, &work()).unwrap();
    assert!(disk.contents("/d/moved").unwrap().to_vec() == content(MIB));
}

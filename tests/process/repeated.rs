//! A target that is synced again and again, and what became of it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use diskdelta::image::{self, Format, ImageOptions};
use diskdelta::storage::{SourceOptions, open_source};

use crate::fixture::{Fixture, PAGE, ended, noise};
use crate::host::{LoopDevice, has_loop_devices};
use crate::rng::Rng;

/// What a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Raw,
    Vhd,
    Device,
}

/// How it is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncKind {
    Atomic,
    InPlace,
    Full,
    /// The target is not there before.
    Create,
}

/// A target, three disks that it is to hold in turn, and which of them it holds.
pub struct RepeatedTarget {
    pub fixture: Fixture,
    kind: Kind,
    sync_kind: SyncKind,
    device: Option<LoopDevice>,
    target: String,
    options: String,
    holds: usize,
    /// How long an undisturbed sync takes.
    usual: Duration,
}

/// One sync that does not get to its end undisturbed.
pub struct Round {
    old: usize,
    new: usize,
    words: String,
}

/// How often what came about.
#[derive(Debug, Default)]
pub struct Tally {
    pub rounds: u64,
    pub old: u64,
    pub marked: u64,
    pub new: u64,
    pub recoveries_killed: u64,
}

impl RepeatedTarget {
    /// A repeated that holds the first disk; `None`, loudly, where such targets cannot be had.
    pub fn new(kind: Kind, sync_kind: SyncKind, kept: bool) -> Option<RepeatedTarget> {
        if kind == Kind::Device && !has_loop_devices() {
            return None;
        }
        let fixture = Fixture::new();
        // A device cannot grow, nor can a VHD beyond the room of its table.
        let longer = if kind == Kind::Raw { 130 } else { 0 };
        for (index, pages) in [PAGES, PAGES, PAGES + longer].into_iter().enumerate() {
            fs::write(fixture.path(&disk_name(index)), disk(pages, index as u64)).unwrap();
        }
        let (mut device, mut options) = (None, format!("--allow-shrink {}", sync_kind.words()));
        let target = match kind {
            Kind::Raw => "t.raw".to_owned(),
            Kind::Vhd => "t.vhd".to_owned(),
            Kind::Device => {
                File::create(fixture.path("under"))
                    .unwrap()
                    .set_len((PAGES * PAGE) as u64)
                    .unwrap();
                let attached = device.insert(LoopDevice::attach(&fixture.path("under")));
                options += " --log-dir logs";
                attached.path().to_str().unwrap().to_owned()
            }
        };
        if kept {
            options += " --target-manifest kept --block-size 4K";
        }
        let mut repeated = RepeatedTarget {
            fixture,
            kind,
            sync_kind,
            device,
            target,
            options,
            holds: 0,
            usual: Duration::ZERO,
        };
        for index in [1, 0] {
            let started = Instant::now();
            repeated.fixture.done(&repeated.words(index));
            repeated.usual = started.elapsed();
            repeated.expect(index);
        }
        Some(repeated)
    }

    /// Starts a sync onto a target that holds another disk.
    pub fn start(&mut self, rng: &mut Rng) -> (Round, Child) {
        if self.sync_kind == SyncKind::Create && self.path().exists() {
            fs::remove_file(self.path()).unwrap();
        }
        let new = (self.holds + 1 + rng.below(2) as usize) % 3;
        let words = self.words(new);
        let child = self.fixture.start(&words);
        let round = Round {
            old: self.holds,
            new,
            words,
        };
        (round, child)
    }

    /// Waits for a moment: any, or one in the work on the redo log, or under the marker. Ends early
    /// with the process.
    pub fn wait(&self, child: &mut Child, rng: &mut Rng) {
        let usual = self.usual.as_micros() as u64;
        let mut until = |holds: &dyn Fn() -> bool| {
            while !holds() && child.try_wait().unwrap().is_none() {}
        };
        let more = match rng.below(8) {
            0..=2 => usual * 5 / 4,
            3..=4 => {
                until(&|| self.has_redo_log());
                usual / 2
            }
            5 => {
                until(&|| self.is_marked());
                usual / 4
            }
            6 => {
                until(&|| self.is_marked());
                2000
            }
            _ => {
                until(&|| self.is_marked());
                until(&|| !self.is_marked());
                1000
            }
        };
        std::thread::sleep(Duration::from_micros(rng.below(more)));
    }

    /// Recovers, kills recoveries, resumes; expects the target old or new, as was promised.
    pub fn finish(&mut self, round: &Round, done: bool, rng: &mut Rng, tally: &mut Tally) {
        tally.rounds += 1;
        let marked = self.is_marked();
        tally.marked += u64::from(marked);
        let what = format!("{:?} {:?} {}", self.kind, self.sync_kind, round.words);
        assert!(!(done && marked), "{what}: done, but marked");
        if marked {
            self.refuses(&what);
        }
        while rng.once_in(3) {
            let child = self.fixture.start(&self.recovery());
            std::thread::sleep(Duration::from_micros(
                rng.below(self.usual.as_micros() as u64),
            ));
            kill(child);
            tally.recoveries_killed += 1;
        }
        let run = self.fixture.run(&format!("{} --json", self.recovery()));
        let said: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let mut is_new = done;
        match (run.status, said["outcome"].as_str()) {
            (0, Some("nothing" | "old")) => {}
            (0, Some("new")) => is_new = true,
            (3, Some("rerun")) if self.sync_kind == SyncKind::InPlace => {
                self.refuses(&what);
                while rng.once_in(3) {
                    let child = self.fixture.start(&round.words);
                    std::thread::sleep(Duration::from_micros(
                        rng.below(self.usual.as_micros() as u64),
                    ));
                    kill(child);
                    tally.recoveries_killed += 1;
                }
                self.fixture.done(&round.words);
                is_new = true;
            }
            (2, _)
                if self.sync_kind == SyncKind::Create && said["error"]["kind"] == "not_found" => {}
            _ => panic!("{what}: {run:?}"),
        }
        if self.sync_kind == SyncKind::Create && !self.path().exists() {
            assert!(!is_new, "{what}: not there, but: {run:?}");
            tally.old += 1;
            return;
        }
        assert!(!self.is_marked(), "{what}: marked after recovery: {run:?}");
        let now = self.content();
        let found = [round.new, round.old]
            .into_iter()
            .find(|index| now == self.fixture.bytes(&disk_name(*index)));
        let found = found.unwrap_or_else(|| panic!("{what}: neither old nor new: {run:?}"));
        assert!(found == round.new || !is_new, "{what}: old, but: {run:?}");
        self.holds = found;
        tally.new += u64::from(found == round.new);
        tally.old += u64::from(found == round.old);
        if rng.once_in(5) {
            // Whatever lies around, the next sync gets to the end and leaves nothing.
            self.fixture.done(&round.words);
            self.expect(round.new);
            self.holds = round.new;
            let left: Vec<String> = self.fixture.names();
            let of_sync = |name: &String| name.contains("diskdelta");
            assert!(!left.iter().any(of_sync), "{what}: left behind: {left:?}");
        }
    }

    pub fn is_marked(&self) -> bool {
        let mut head = [0; 15];
        let read = File::open(self.path()).and_then(|file| file.read_exact_at(&mut head, 0));
        read.is_ok() && head == *b"\0diskdelta mark"
    }

    /// The target as it was before the round.
    pub fn expect_old(&self, round: &Round) {
        match self.sync_kind {
            SyncKind::Create => assert!(!self.path().exists()),
            _ => self.expect(round.old),
        }
    }

    pub fn expect_new(&self, round: &Round) {
        self.expect(round.new);
    }

    /// Nothing of ours takes the marked target for a disk.
    fn refuses(&self, what: &str) {
        let info = self.fixture.run(&format!("info {}", self.target));
        assert_eq!(info.status, 3, "{what}: {info:?}");
        assert!(info.stderr.contains("incomplete"), "{what}: {info:?}");
    }

    fn has_redo_log(&self) -> bool {
        let directory = match self.kind {
            Kind::Device => self.fixture.path("logs"),
            _ => self.fixture.path("."),
        };
        let names = fs::read_dir(directory).into_iter().flatten();
        names
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().contains("diskdelta-"))
    }

    fn expect(&self, index: usize) {
        let now = self.content();
        assert!(
            now == self.fixture.bytes(&disk_name(index)),
            "not disk {index}"
        );
    }

    fn content(&self) -> Vec<u8> {
        if self.kind != Kind::Vhd {
            return fs::read(self.path()).unwrap();
        }
        let opened = open_source(self.path(), &SourceOptions::default()).unwrap();
        let options = ImageOptions::default();
        let image = image::open_storage(opened.storage, Format::Vhd, &options).unwrap();
        let mut bytes = vec![0; image.disk_len() as usize];
        image.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn path(&self) -> PathBuf {
        match &self.device {
            Some(device) => device.path().to_owned(),
            None => self.fixture.path(&self.target),
        }
    }

    fn words(&self, index: usize) -> String {
        let source = disk_name(index);
        format!("sync {source} {} {}", self.target, self.options)
    }

    fn recovery(&self) -> String {
        match self.kind {
            Kind::Device => format!("recover {} --log-dir logs", self.target),
            _ => format!("recover {}", self.target),
        }
    }
}

impl SyncKind {
    fn words(self) -> &'static str {
        match self {
            SyncKind::Atomic => "--mode delta",
            SyncKind::InPlace => "--mode delta --safety in-place",
            SyncKind::Full => "--mode full",
            SyncKind::Create => "",
        }
    }
}

/// Ends a process as nothing else does; whether it had ended well before.
pub fn kill(mut child: Child) -> bool {
    // It may be gone already.
    let _ = child.kill();
    ended(child).status == 0
}

/// A disk that shares two pages of three with the others, and has zeros of its own.
fn disk(pages: usize, index: u64) -> Vec<u8> {
    let mut bytes = noise(pages * PAGE, 100);
    let own = noise(pages * PAGE, index);
    for page in 0..pages {
        let range = page * PAGE..(page + 1) * PAGE;
        match (page as u64 / 5 + index) % 7 {
            0 => bytes[range.clone()].copy_from_slice(&own[range]),
            1 if page % 5 > 2 => bytes[range].fill(0),
            _ => {}
        }
    }
    // Both ends, which the marker covers.
    let last = (pages - 1) * PAGE;
    bytes[..PAGE].copy_from_slice(&own[..PAGE]);
    bytes[last..].copy_from_slice(&own[last..]);
    bytes
}

fn disk_name(index: usize) -> String {
    format!("disk{index}.raw")
}

/// The marker covers a third of it.
const PAGES: usize = 1536;

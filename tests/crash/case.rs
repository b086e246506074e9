//! One kind of work on a target, small enough to be crashed everywhere.

use std::sync::{Arc, OnceLock};

use diskdelta::delta::{Base, Delta, DeltaOptions, create};
use diskdelta::image::{self, CreateFormat, CreateOptions, Format, ImageOptions, Raw};
use diskdelta::manifest;
use diskdelta::storage::fault::{Fault, FaultDisk};
use diskdelta::storage::{Access, Directory, FileRef, MemoryStorage, Storage};
use diskdelta::sync::{
    BaseCheck, Mode, Safety, Source, SyncOptions, Target, Verify, apply_delta, hold, release, sync,
    undo,
};
use diskdelta::{BlockSize, Limits, Result, Work};

use crate::held;

pub const TARGET: &str = "/img/t";

/// Owner, mode and the like of a target that is there.
pub const ATTRIBUTES: u64 = 7;

#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub old: Option<Vec<u8>>,
    pub new: Vec<u8>,
    pub options: SyncOptions,
    pub format: Format,
    pub create: Option<CreateFormat>,
    pub device: bool,
    pub job: Job,
    /// A manifest is kept of the target.
    pub kept: bool,
    /// The way back is written.
    pub way_back: bool,
    /// The disk's files can be cloned, and can exchange their names.
    pub clones: bool,
    /// What earlier runs have left beside the target.
    pub leftovers: fn(&Case, &FaultDisk),
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    Sync,
    /// An in-place sync that another run left half done.
    Resume,
    /// A delta file.
    Apply,
    /// The way back of an earlier sync.
    Undo,
    /// Holding a target.
    Hold,
    /// A sync onto a target that is held already.
    HeldSync,
    /// The same, where another run left it half done.
    HeldResume,
    /// Letting a held target go.
    Release,
}

impl Case {
    pub fn raw(name: &'static str, old: &[u8], new: &[u8]) -> Case {
        Case {
            name,
            old: Some(old.to_vec()),
            new: new.to_vec(),
            options: SyncOptions::default()
                .with_mode(Mode::Delta)
                .with_block_size(BlockSize::MIN)
                .with_allow_shrink(true),
            format: Format::Raw,
            create: None,
            device: false,
            job: Job::Sync,
            kept: false,
            way_back: false,
            clones: false,
            leftovers: |_, _| (),
        }
    }

    pub fn in_place(mut self) -> Case {
        self.options = self.options.with_safety(Safety::InPlace);
        self
    }

    /// In place, and the target stays held.
    pub fn holding(mut self) -> Case {
        self.options = self.options.with_hold(true);
        self.in_place()
    }

    pub fn full(mut self) -> Case {
        self.options = self.options.with_mode(Mode::Full);
        self
    }

    pub fn on_device(mut self) -> Case {
        self.device = true;
        self
    }

    pub fn container(mut self, create: CreateFormat) -> Case {
        self.format = create.format();
        self.create = Some(create);
        self
    }

    pub fn doing(mut self, job: Job) -> Case {
        self.job = job;
        self
    }

    pub fn with_target_manifest(mut self) -> Case {
        self.kept = true;
        self
    }

    pub fn with_way_back(mut self) -> Case {
        self.way_back = true;
        self
    }

    /// On a disk whose files can be cloned.
    pub fn on_clones(mut self) -> Case {
        self.clones = true;
        self
    }

    pub fn with_leftovers(mut self, leftovers: fn(&Case, &FaultDisk)) -> Case {
        self.leftovers = leftovers;
        self
    }

    /// Whether the target carries a marker all the time, or was written half already.
    pub fn begins_marked(&self) -> bool {
        let begins = [Job::Resume, Job::HeldSync, Job::HeldResume, Job::Release];
        begins.contains(&self.job)
    }

    /// Whether the target is half written when the work begins.
    pub fn resumes(&self) -> bool {
        matches!(self.job, Job::Resume | Job::HeldResume)
    }

    /// Whether the target is held when the work is done.
    pub fn ends_held(&self) -> bool {
        self.options.hold && self.job != Job::Release
    }

    pub fn is_in_place(&self) -> bool {
        self.options.safety == Safety::InPlace
    }

    /// Whether the target carries the marker while it changes.
    pub fn sets_marker(&self) -> bool {
        let is_new = self.clones || self.options.mode == Mode::Full;
        let replaced = is_new && !self.device && !self.is_in_place();
        self.old.is_some() && !replaced
    }

    /// A disk that holds the case's target, and nothing in doubt.
    pub fn disk(&self) -> FaultDisk {
        let disk = FaultDisk::new();
        disk.directory("/img");
        if self.clones {
            disk.clone_files();
        }
        match self.job {
            Job::Undo => {
                // What is undone is a sync from the old bytes to the new ones, turned round.
                self.put(&disk, &self.new);
                let there = self.clone().doing(Job::Sync).with_way_back();
                let old = self.old.as_deref().unwrap();
                there.sync_from(old, &disk).unwrap();
            }
            _ => {
                if let Some(old) = &self.old {
                    self.put(&disk, old);
                }
            }
        }
        if let (Job::HeldSync | Job::HeldResume | Job::Release, Some(old)) = (self.job, &self.old) {
            held::prepare(self, old, &disk);
        }
        match self.job {
            Job::Resume => self.interrupt(&disk, Job::Sync),
            Job::HeldResume => self.interrupt(&disk, Job::HeldSync),
            _ => {}
        }
        if self.kept {
            let old = Raw::open(memory(self.old.as_deref().unwrap())).unwrap();
            manifest::save(&self.manifest(&disk), |storage| {
                manifest::build_to(&old, BlockSize::MIN, &work(), storage)
            })
            .unwrap();
        }
        (self.leftovers)(self, &disk);
        if self.has_attributes() {
            disk.put_attributes(TARGET, ATTRIBUTES).unwrap();
        }
        disk.make_durable();
        disk
    }

    /// Whether the target is a file that is there, whose owner and mode must be kept.
    pub fn has_attributes(&self) -> bool {
        self.old.is_some() && !self.device
    }

    fn put(&self, disk: &FaultDisk, bytes: &[u8]) {
        let bytes = match self.create {
            Some(create) => container(create, bytes),
            None => bytes.to_vec(),
        };
        match self.device {
            true => disk.put_device(TARGET, bytes),
            false => disk.put(TARGET, bytes),
        }
    }

    /// Leaves the sync half done and the target marked.
    fn interrupt(&self, disk: &FaultDisk, job: Job) {
        let model = self.clone().doing(job);
        let whole = model.disk();
        model.work_on(&whole).unwrap();
        let middle = whole.log().len() as u64 / 2;
        disk.fail(Fault::nth(middle).and_all_later());
        model.work_on(disk).unwrap_err();
        disk.heal();
        disk.make_durable();
    }

    pub fn target(&self, disk: &FaultDisk) -> Target {
        let directory: Arc<dyn Directory> = Arc::new(disk.directory("/img"));
        if self.device {
            // Opening it is no part of the work.
            let storage = Arc::new(disk.open(TARGET, Access::Write).unwrap());
            let logs: Arc<dyn Directory> = Arc::new(disk.directory("/logs"));
            return Target::device(storage, self.format, FileRef::new(logs, "redo_log"));
        }
        let mut target = Target::file(FileRef::new(directory, "t"), self.format);
        if self.kept && !self.is_in_place() {
            // A recovery looks for the manifest here, too, before it looks on the host.
            let kept: Arc<dyn Directory> = Arc::new(disk.directory("/kept"));
            target = target.with_redo_log(FileRef::new(kept, "redo_log"));
        }
        match (self.create, &self.old) {
            (Some(create), None) => target.with_create(CreateOptions::new(create, 0)),
            _ => target,
        }
    }

    pub fn manifest(&self, disk: &FaultDisk) -> FileRef {
        FileRef::new(Arc::new(disk.directory("/kept")), "m")
    }

    pub fn undo_file(&self, disk: &FaultDisk) -> FileRef {
        FileRef::new(Arc::new(disk.directory("/undo")), "undo")
    }

    /// Does the work, and notes in the log that it was acknowledged.
    pub fn work_on(&self, disk: &FaultDisk) -> Result<()> {
        match self.job {
            Job::Hold => hold(&self.target(disk), &work())?,
            Job::Release => drop(release(&self.target(disk), &work())?),
            Job::Sync | Job::Resume | Job::HeldSync | Job::HeldResume => {
                self.sync_from(&self.new, disk)?
            }
            Job::Undo => drop(undo(&self.undo_file(disk), &self.target(disk), &work())?),
            Job::Apply => {
                let target = self.target(disk);
                let check = BaseCheck::Whole;
                apply_delta(&self.delta(), &target, check, Verify::Written, &work())?;
            }
        }
        disk.note("acknowledged");
        Ok(())
    }

    /// Does the work once more, as its user would after a crash.
    pub fn work_again(&self, disk: &FaultDisk) -> Result<()> {
        if self.way_back && self.undo_file(disk).open_if_there(Access::Read)?.is_some() {
            // It is never overwritten: one that is not wanted is removed first.
            self.undo_file(disk).remove_if_there()?;
        }
        self.work_on(disk)
    }

    pub fn sync_from(&self, new: &[u8], disk: &FaultDisk) -> Result<()> {
        let mut options = self.options.clone();
        if self.kept {
            options = options.with_target_manifest(Some(self.manifest(disk)));
        }
        if self.way_back {
            options = options.with_undo(Some(self.undo_file(disk)));
        }
        sync(&source(new), &self.target(disk), &options, &work()).map(drop)
    }

    fn delta(&self) -> Delta {
        let old = Raw::open(memory(self.old.as_deref().unwrap())).unwrap();
        let new = Raw::open(memory(&self.new)).unwrap();
        let file = memory(&[]);
        let options = DeltaOptions::default().with_block_size(BlockSize::MIN);
        create(Base::Image(&old), &new, file.clone(), &options, &work()).unwrap();
        Delta::from_storage(file, &Limits::default()).unwrap()
    }

    /// What a guest would find on the target; `None` where there is no target.
    pub fn content(&self, disk: &FaultDisk) -> Result<Option<Vec<u8>>, String> {
        let Some(row) = disk.contents(TARGET) else {
            return Ok(None);
        };
        if self.options.hold && held::marker(disk).is_some() {
            return held::content(self, disk).map_err(|error| error.to_string());
        }
        if self.format == Format::Raw {
            return Ok(Some(row.to_vec()));
        }
        let storage: Arc<dyn Storage> = Arc::new(disk.open(TARGET, Access::Read).unwrap());
        let image = image::open_storage(storage, self.format, &ImageOptions::default())
            .map_err(|error| format!("the image does not open: {error}"))?;
        let mut bytes = vec![0; image.disk_len() as usize];
        image
            .read_exact_at(&mut bytes, 0)
            .map_err(|error| error.to_string())?;
        Ok(Some(bytes))
    }
}

pub fn source(bytes: &[u8]) -> Source {
    Source::new(Arc::new(Raw::open(memory(bytes)).unwrap()))
}

fn memory(bytes: &[u8]) -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::new("memory", bytes.to_vec()))
}

/// One pool for all: thousands of states should not start a thread each.
pub fn work() -> Work {
    static WORK: OnceLock<Work> = OnceLock::new();
    WORK.get_or_init(|| Work::with_threads(1).unwrap()).clone()
}

fn container(create: CreateFormat, disk: &[u8]) -> Vec<u8> {
    const PAGE: usize = 4096;
    let storage = memory(&[]);
    let mut new = CreateOptions::new(create, disk.len() as u64);
    if create.format() == Format::Vhdx {
        // The smallest there are, so that the file is short.
        new = new.with_block_size(1 << 20);
    }
    image::create(&*storage, &new).unwrap();
    let options = ImageOptions::default();
    let format = create.format();
    let opened = image::open_storage_mut(storage.clone(), format, &options).unwrap();
    for (index, page) in disk.chunks(PAGE).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            opened.write_all_at(page, (index * PAGE) as u64).unwrap();
        }
    }
    opened.sync().unwrap();
    storage.to_vec()
}

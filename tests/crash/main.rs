//! Every state that a crash may leave, of every kind of sync: recovery makes the target entirely
//! old or entirely new, and new once that was acknowledged.
//!
//! `DISKDELTA_CRASH_STATES` sets how many states are tried at each cut where there are too many
//! to try all; the default keeps the suite short.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use diskdelta::image::{self, CreateFormat, CreateOptions, Format, ImageOptions, Raw};
use diskdelta::storage::fault::{
    Coverage, CrashState, Failure, Fault, FaultDisk, NoRewrite, Step, SyncCall,
};
use diskdelta::storage::{Access, Folder, MemoryStorage, Place, Storage};
use diskdelta::sync::{Mode, Recovered, Safety, Source, SyncOptions, Target, recover, sync};
use diskdelta::{ErrorKind, Work};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;

/// One kind of sync, small enough to be crashed everywhere.
#[derive(Clone)]
struct Case {
    name: &'static str,
    old: Option<Vec<u8>>,
    new: Vec<u8>,
    options: SyncOptions,
    format: Format,
    create: Option<CreateFormat>,
    device: bool,
}

impl Case {
    fn raw(name: &'static str, old: Vec<u8>, new: Vec<u8>) -> Case {
        Case {
            name,
            old: Some(old),
            new,
            options: SyncOptions::default()
                .with_mode(Mode::Delta)
                .with_allow_shrink(true),
            format: Format::Raw,
            create: None,
            device: false,
        }
    }

    fn in_place(mut self) -> Case {
        self.options = self.options.with_safety(Safety::InPlace);
        self
    }

    fn full(mut self) -> Case {
        self.options = self.options.with_mode(Mode::Full);
        self
    }

    fn on_device(mut self) -> Case {
        self.device = true;
        self
    }

    fn container(mut self, create: CreateFormat) -> Case {
        self.format = create.format();
        self.create = Some(create);
        self
    }

    /// A disk that holds the case's target, and nothing in doubt.
    fn disk(&self) -> FaultDisk {
        let disk = FaultDisk::new();
        if let Some(old) = &self.old {
            let bytes = match self.create {
                Some(create) => container(create, old),
                None => old.clone(),
            };
            match self.device {
                true => disk.put_device("/img/t", bytes),
                false => disk.put("/img/t", bytes),
            }
        }
        disk.settle();
        disk
    }

    fn target(&self, disk: &FaultDisk) -> Target {
        let folder: Arc<dyn Folder> = Arc::new(disk.folder("/img"));
        if self.device {
            let storage = Arc::new(disk.open("/img/t", Access::Write).unwrap());
            let stages: Arc<dyn Folder> = Arc::new(disk.folder("/stages"));
            return Target::device(storage, self.format, Place::new(stages, "stage"));
        }
        let target = Target::file(Place::new(folder, "t"), self.format);
        match (self.create, &self.old) {
            (Some(create), None) => target.with_create(CreateOptions::new(create, 0)),
            _ => target,
        }
    }

    fn source(&self) -> Source {
        let storage = MemoryStorage::new("source", self.new.clone());
        Source::new(Arc::new(Raw::open(Arc::new(storage)).unwrap()))
    }

    fn sync(&self, disk: &FaultDisk) -> diskdelta::Result<()> {
        sync(&self.source(), &self.target(disk), &self.options, &work())?;
        disk.note("acknowledged");
        Ok(())
    }

    /// What a guest would find on the target; `None` where there is no target.
    fn content(&self, disk: &FaultDisk) -> Result<Option<Vec<u8>>, String> {
        let Some(row) = disk.row("/img/t") else {
            return Ok(None);
        };
        if self.format == Format::Raw {
            return Ok(Some(row.to_vec()));
        }
        let storage: Arc<dyn Storage> = Arc::new(disk.open("/img/t", Access::Read).unwrap());
        let image = image::open_storage(storage, self.format, &ImageOptions::default())
            .map_err(|error| format!("the image does not open: {error}"))?;
        let mut bytes = vec![0; image.disk_len() as usize];
        image
            .read_exact_at(&mut bytes, 0)
            .map_err(|error| error.to_string())?;
        Ok(Some(bytes))
    }

    fn promise(&self, disk: &FaultDisk, acknowledged: bool) -> Result<bool, String> {
        let content = self.content(disk)?;
        let is_new = content.as_ref() == Some(&self.new);
        let is_old = content == self.old;
        match (is_new, is_old) {
            (true, _) => Ok(true),
            (_, true) if !acknowledged => Ok(false),
            (_, true) => Err("acknowledged, but old".to_owned()),
            _ => Err("neither old nor new".to_owned()),
        }
    }

    /// Recovers, and has an in-place sync run again where that is what recovery asks for.
    fn settle(&self, disk: &FaultDisk, acknowledged: bool) -> Result<(), String> {
        let said = recover(&self.target(disk), &work()).map_err(|error| error.to_string())?;
        match said {
            Recovered::Rerun if self.options.safety == Safety::InPlace => {
                refused(self, disk)?;
                self.sync(disk)
                    .map_err(|error| format!("running it again: {error}"))?;
                self.promise(disk, true).map(drop)
            }
            Recovered::Rerun => Err("an atomic sync that wants to run again".to_owned()),
            said => {
                let is_new = self.promise(disk, acknowledged)?;
                if acknowledged && said != Recovered::Nothing {
                    return Err(format!("acknowledged, but recovery had work: {said:?}"));
                }
                if said == Recovered::New && !is_new {
                    return Err("said to be new, but is old".to_owned());
                }
                Ok(())
            }
        }
    }

    /// Crashes the sync everywhere, and its recovery everywhere.
    fn survives(&self) -> Result<Coverage, String> {
        self.survives_without(None)
    }

    /// The same, with one sync that does not take effect.
    fn survives_without(&self, dropped: Option<SyncCall>) -> Result<Coverage, String> {
        let disk = self.disk();
        if let Some(dropped) = dropped {
            disk.drop_syncs(move |call| *call == dropped);
        }
        self.sync(&disk).map_err(|error| error.to_string())?;
        let crashes = disk
            .crashes()
            .with_limit(states())
            .with_samples(states() / 2);
        crashes
            .check(|state| self.survives_state(state))
            .map_err(|violation| violation.to_string())
    }

    fn survives_state(&self, state: &CrashState) -> Result<(), String> {
        let acknowledged = state.noted("acknowledged");
        self.settle(state.disk(), acknowledged)?;
        if state.number().is_multiple_of(7) {
            // Recovery is crashed too, at every operation of its own.
            let again = state
                .disk()
                .crashes()
                .with_seed(state.number())
                .with_limit(12);
            again
                .with_samples(6)
                .check(|nested| self.settle(nested.disk(), acknowledged))
                .map_err(|violation| format!("crash of the recovery: {violation}"))?;
        }
        if state.number().is_multiple_of(5) {
            // Whatever lies around now, the next sync gets to the end.
            self.sync(state.disk())
                .map_err(|error| format!("the next sync: {error}"))?;
            self.promise(state.disk(), true)?;
            let left = state.disk().names("/img").len() + state.disk().names("/stages").len();
            if left > 1 {
                return Err(format!(
                    "files left behind: {:?}",
                    state.disk().names("/img")
                ));
            }
        }
        Ok(())
    }
}

/// A marked target must not be taken for a disk by anything else of ours.
fn refused(case: &Case, disk: &FaultDisk) -> Result<(), String> {
    let atomic = SyncOptions::default()
        .with_mode(Mode::Delta)
        .with_allow_shrink(true);
    match sync(&case.source(), &case.target(disk), &atomic, &work()) {
        Err(error) if error.kind() == ErrorKind::Marked => Ok(()),
        other => Err(format!("a marked target was not refused: {other:?}")),
    }
}

fn work() -> Work {
    Work::new(1).unwrap()
}

fn states() -> u64 {
    let default = if cfg!(debug_assertions) { 8 } else { 40 };
    std::env::var("DISKDELTA_CRASH_STATES").map_or(default, |text| text.parse().unwrap())
}

/// Bytes of prime period, so that swapped pages show; `salt` 0 gives zeros.
fn bytes(len: usize, salt: u8) -> Vec<u8> {
    (0..len)
        .map(|at| {
            if salt == 0 {
                0
            } else {
                ((at % 251) as u8) ^ salt
            }
        })
        .collect()
}

/// `old`, changed at some pages: first and last, under both ends of the mark and between.
fn changed(old: &[u8]) -> Vec<u8> {
    let mut new = old.to_vec();
    let pages = new.len() / PAGE;
    for (index, page) in [0, 3, pages / 2, pages / 2 + 2, pages - 1]
        .into_iter()
        .enumerate()
    {
        let salt = if index == 2 { 0 } else { 0x80 | index as u8 };
        new[page * PAGE..(page + 1) * PAGE].copy_from_slice(&bytes(PAGE, salt));
    }
    new
}

fn container(create: CreateFormat, disk: &[u8]) -> Vec<u8> {
    let storage = Arc::new(MemoryStorage::new("t", Vec::new()));
    let mut new = CreateOptions::new(create, disk.len() as u64);
    if create.format() == Format::Vhdx {
        // The smallest there are, so that the file is short.
        new = new.with_block_size(MIB as u64);
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

fn cases() -> Vec<Case> {
    let small = bytes(16 * PAGE, 1);
    let large = bytes(2 * MIB + 24 * PAGE, 2);
    let grown = [changed(&large), bytes(5 * PAGE, 9), bytes(3 * PAGE, 0)].concat();
    let dynamic_old = [bytes(MIB, 3), bytes(3 * MIB, 0)].concat();
    let dynamic_new = [
        changed(&bytes(MIB, 3)),
        bytes(MIB, 0),
        bytes(MIB, 5),
        bytes(MIB, 0),
    ];
    let dynamic_new = dynamic_new.concat();
    vec![
        Case::raw(
            "atomic, under the mark only",
            small.clone(),
            changed(&small),
        ),
        Case::raw("atomic", large.clone(), changed(&large)),
        Case::raw("atomic, growing", large.clone(), grown.clone()),
        Case::raw("atomic, shrinking", grown.clone(), changed(&large)),
        Case::raw("atomic, device", large.clone(), changed(&large)).on_device(),
        Case::raw("full", small.clone(), changed(&small)).full(),
        Case::raw("full, growing", small.clone(), bytes(40 * PAGE + 77, 6)).full(),
        Case {
            old: None,
            ..Case::raw("creating", Vec::new(), changed(&small))
        },
        Case::raw(
            "in place, under the mark only",
            small.clone(),
            changed(&small),
        )
        .in_place(),
        Case::raw("in place", large.clone(), changed(&large)).in_place(),
        Case::raw("in place, growing", large.clone(), grown.clone()).in_place(),
        Case::raw("in place, shrinking", grown, changed(&large)).in_place(),
        Case::raw("in place, device", large.clone(), changed(&large))
            .in_place()
            .on_device(),
        Case::raw("atomic, fixed VHD", large.clone(), changed(&large))
            .container(CreateFormat::VhdFixed),
        Case::raw(
            "atomic, dynamic VHD",
            dynamic_old.clone(),
            dynamic_new.clone(),
        )
        .container(CreateFormat::VhdDynamic),
        Case::raw(
            "in place, dynamic VHD",
            dynamic_old.clone(),
            dynamic_new.clone(),
        )
        .container(CreateFormat::VhdDynamic)
        .in_place(),
        Case::raw("atomic, fixed VHDX", large.clone(), changed(&large))
            .container(CreateFormat::VhdxFixed),
        Case::raw(
            "atomic, dynamic VHDX",
            dynamic_old.clone(),
            dynamic_new.clone(),
        )
        .container(CreateFormat::VhdxDynamic),
        Case::raw("in place, dynamic VHDX", dynamic_old, dynamic_new)
            .container(CreateFormat::VhdxDynamic)
            .in_place(),
    ]
}

#[test]
fn recovery_keeps_the_promise_after_every_crash() {
    let mut states = 0;
    for case in cases() {
        let coverage = case
            .survives()
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        eprintln!("{}: {coverage:?}", case.name);
        states += coverage.states;
    }
    eprintln!("states: {states}");
}

#[test]
fn nothing_is_written_twice_between_two_syncs() {
    for case in cases() {
        let disk = case.disk();
        case.sync(&disk).unwrap();
        disk.log()
            .check(NoRewrite::new())
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    }
}

#[test]
fn every_sync_is_missed_when_it_does_not_take_effect() {
    let all = std::env::var_os("DISKDELTA_LONG").is_some();
    let (mut dropped, mut unnoticed) = (0, Vec::new());
    // A VHDX is renamed, durably, before it changes: a promise to its children, which no content
    // shows. The syncs of the format itself have a test of their own.
    let looked_at =
        |case: &Case| case.format != Format::Vhdx && (all || case.new.len() < 64 * PAGE);
    for case in cases().into_iter().filter(looked_at) {
        let disk = case.disk();
        case.sync(&disk).unwrap();
        for call in disk.log().syncs() {
            if is_needless(&case, &call) {
                continue;
            }
            dropped += 1;
            match case.survives_without(Some(call.clone())) {
                Ok(coverage) => unnoticed.push(format!("{}: {call}, {coverage:?}", case.name)),
                Err(error) => eprintln!("{}: without {call}: {}", case.name, first_line(&error)),
            }
        }
    }
    eprintln!("syncs dropped: {dropped}");
    assert!(
        unnoticed.is_empty(),
        "nothing noticed the loss of {unnoticed:#?}"
    );
}

/// Syncs of a marked target whose loss costs no byte: the second one makes the rest of the mark
/// durable (what that is for is shown by `the_mark_is_durable_before_anything_else_changes`), the
/// third one the data outside the mark, where there is any.
fn is_needless(case: &Case, call: &SyncCall) -> bool {
    let marked = case.old.is_some() && case.options.mode != Mode::Full;
    let all_covered = case.new.len() <= MIB;
    marked
        && call.path() == Path::new("/img/t")
        && (call.nth() == 2 || (call.nth() == 3 && all_covered))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[test]
fn the_mark_is_durable_before_anything_else_changes() {
    let marker = b"\0diskdelta mark1";
    let mut written = 0;
    for case in cases().into_iter().filter(|case| case.old.is_some()) {
        if case.options.mode == Mode::Full {
            continue;
        }
        let disk = case.disk();
        let len = disk.row("/img/t").unwrap().len();
        case.sync(&disk).unwrap();
        let checked = disk.log().check(|step: &Step<'_>| {
            let op = step.op();
            let covered = |range: &Range<u64>| {
                range.end <= MIB as u64 || range.start >= len.saturating_sub(MIB as u64) / 512 * 512
            };
            let outside = op.range().is_some_and(|range| !covered(&range));
            if op.path() != Path::new("/img/t") || !op.kind().changes() || !outside {
                return Ok(());
            }
            written += 1;
            let durable = step.durable("/img/t").ok_or("the target is not durable")?;
            for at in [0, 4096, len / 512 * 512 - 512] {
                if durable.slice(at..at + 16) != marker {
                    return Err(format!("no mark at {at:#x}"));
                }
            }
            Ok(())
        });
        checked.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert!(
            written > 0 || case.new.len() <= 2 * MIB,
            "{}: nothing was looked at",
            case.name
        );
    }
}

#[test]
fn any_operation_may_fail_and_the_promise_holds() {
    let mut failed = 0;
    for case in cases() {
        for failure in [
            Failure::Io,
            Failure::NoSpace,
            Failure::Short,
            Failure::Lossy,
        ] {
            for nth in 1.. {
                let disk = case.disk();
                disk.fail(Fault::nth(nth).with_failure(failure));
                let outcome = case.sync(&disk);
                if disk.fired().is_empty() {
                    outcome.unwrap();
                    break;
                }
                failed += 1;
                let what = format!("{}, {failure:?} at {nth}", case.name);
                let acknowledged = outcome.is_ok();
                if let Err(error) = outcome {
                    assert!(error.path().is_some(), "{what}: no path in `{error}`");
                    assert!(error.advice().is_some(), "{what}: no way on in `{error}`");
                }
                disk.heal();
                case.settle(&disk, acknowledged)
                    .unwrap_or_else(|e| panic!("{what}: {e}"));
                case.sync(&disk)
                    .unwrap_or_else(|error| panic!("{what}: again: {error}"));
                case.promise(&disk, true)
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
            }
        }
    }
    eprintln!("operations failed: {failed}");
}

#[test]
fn what_a_guest_writes_after_a_crash_is_never_mixed_with_the_stage() {
    for case in cases()
        .into_iter()
        .filter(|case| case.format == Format::Raw)
    {
        if case.old.is_none() || case.options.safety == Safety::InPlace {
            continue;
        }
        let disk = case.disk();
        case.sync(&disk).unwrap();
        for state in disk
            .crashes()
            .with_limit(states() / 2)
            .with_samples(states() / 4)
            .states()
        {
            let disk = state.disk();
            // A marked disk does not boot, so a guest only ever finds what recovery left.
            recover(&case.target(disk), &work()).unwrap();
            let storage = disk.open("/img/t", Access::Write).unwrap();
            let len = storage.len().unwrap() as usize;
            for page in [0, len / PAGE / 2, len / PAGE - 1] {
                storage
                    .write_all_at(&bytes(PAGE, 0x77), (page * PAGE) as u64)
                    .unwrap();
            }
            storage.sync().unwrap();
            drop(storage);
            let guest = disk.row("/img/t").unwrap();
            let said = recover(&case.target(disk), &work());
            assert!(
                disk.row("/img/t").unwrap() == guest,
                "{}: {said:?}\n{state}",
                case.name
            );
            case.sync(disk).unwrap();
            case.promise(disk, true)
                .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        }
    }
}

//! What must hold after a crash, and after the recovery from it.

use std::collections::HashSet;

use diskdelta::ErrorKind;
use diskdelta::Limits;
use diskdelta::image::{Format, Raw};
use diskdelta::manifest::{self, TargetManifest};
use diskdelta::storage::fault::{CrashState, FaultDisk, FileBytes};
use diskdelta::storage::{Access, MemoryStorage};
use diskdelta::sync::{Mode, Recovered, SyncOptions, recover, sync, undo};
use diskdelta::{BlockSize, Result as Done};

use crate::case::{ATTRIBUTES, Case, TARGET, source, work};
use crate::cases::MIB;
use crate::held;

/// A case under test: what was seen of it so far, and how its target looks before and after.
pub struct Check<'a> {
    pub case: &'a Case,
    before: Option<FileBytes>,
    after: FileBytes,
    old: Option<FileBytes>,
    new: FileBytes,
    seen: HashSet<([u8; 32], bool)>,
    pub counts: Counts,
}

/// How much was looked at.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// States of the work.
    pub states: u64,
    /// States of recoveries.
    pub nested: u64,
    /// Those among both that were no copy of one seen before.
    pub different: u64,
}

impl<'a> Check<'a> {
    /// For crashes of a run that began with `before` and left `done`.
    pub fn new(case: &'a Case, before: Option<FileBytes>, done: &FaultDisk) -> Self {
        Check {
            case,
            before,
            after: done.contents(TARGET).unwrap(),
            old: case.old.clone().map(FileBytes::from),
            new: FileBytes::from(&case.new[..]),
            seen: HashSet::new(),
            counts: Counts::default(),
        }
    }

    /// Does the case's work on a disk of its own, with a check of what a crash leaves of it.
    pub fn of(case: &'a Case) -> (FaultDisk, Check<'a>) {
        let disk = case.disk();
        let before = disk.contents(TARGET);
        case.work_on(&disk).unwrap();
        let check = Check::new(case, before, &disk);
        (disk, check)
    }

    /// Holds a state against the promise, recovers it, and crashes the recovery, `nested` states
    /// at each of its cuts.
    pub fn state(&mut self, state: &CrashState, nested: u64) -> Result<(), String> {
        self.counts.states += 1;
        let acknowledged = state.noted("acknowledged");
        if !self.is_new(state.disk(), acknowledged) {
            return Ok(());
        }
        if self.case.has_attributes() && state.disk().attributes(TARGET) != Some(ATTRIBUTES) {
            return Err("owner and mode are lost".to_owned());
        }
        self.guarded(state.disk())?;
        self.held(state.disk(), acknowledged)?;
        self.finish(state.disk(), acknowledged)?;
        // The same throws for all recoveries: where they run alike, their states are alike.
        let again = state.disk().crashes().with_limit(nested);
        let again = again.with_samples(nested / 2);
        let is_one = nested > 0 && state.number().is_multiple_of(7);
        for state in again.states().take_while(|_| is_one) {
            self.counts.nested += 1;
            if self.is_new(state.disk(), acknowledged) {
                self.finish(state.disk(), acknowledged)
                    .map_err(|error| format!("crash of the recovery: {error}\n  after {state}"))?;
            }
        }
        if state.number().is_multiple_of(10) {
            self.goes_on(state.disk())?;
        }
        Ok(())
    }

    /// Whether such a disk was not looked at yet: from the same bytes all goes the same way.
    fn is_new(&mut self, disk: &FaultDisk, acknowledged: bool) -> bool {
        let is_new = self.seen.insert((disk.digest(), acknowledged));
        self.counts.different += u64::from(is_new);
        is_new
    }

    /// Between the first and the last change the target is no disk: while anything outside the
    /// first page is neither all old nor all new, the first page is all marked; and while that is
    /// so outside of what the marker covers, all that it covers is marked.
    pub fn guarded(&self, disk: &FaultDisk) -> Result<(), String> {
        let (Some(before), Some(now)) = (&self.before, disk.contents(TARGET)) else {
            return Ok(());
        };
        let case = self.case;
        if case.begins_marked() && case.ends_held() && held::marker(disk).is_none() {
            return Err("the marker is lost".to_owned());
        }
        if case.resumes() {
            // It is guarded from the start.
            return Ok(());
        }
        let past = |start: u64, row: &FileBytes| row.slice(start..row.len().max(start));
        let same = |start, row: &FileBytes| {
            row.len() == now.len() && past(start, row) == past(start, &now)
        };
        let marked = |range: std::ops::Range<u64>| {
            let bytes = now.slice(range.start..range.end.min(now.len()));
            bytes.chunks(512).all(|sector| {
                let len = sector.len().min(MARKER.len());
                sector[..len] == MARKER[..len]
            })
        };
        if !case.sets_marker() {
            let is_whole = now == *before || now == self.after;
            return is_whole.then_some(()).ok_or("neither file".to_owned());
        }
        if !marked(0..4096) && !same(4096, before) && !same(4096, &self.after) {
            return Err("changed under a first page that is not all marked".to_owned());
        }
        // Of one that has grown since it was marked the old end is guarded.
        let len = match held::marker(disk) {
            Some(marker) if case.begins_marked() => marker.target_len,
            _ => before.len(),
        };
        let tail = len.saturating_sub(MIB as u64) / 512 * 512;
        let outside = (MIB as u64)..tail;
        let like = |row: &FileBytes| {
            outside.is_empty() || row.slice(outside.clone()) == now.slice(outside.clone())
        };
        let is_between = !like(before) && !like(&self.after);
        let is_covered = || marked(0..outside.start) && marked(tail..len);
        if is_between && !is_covered() {
            return Err("changed while its ends were not all marked".to_owned());
        }
        Ok(())
    }

    /// Once a hold was acknowledged it is there, and once its end was, nothing of it is.
    pub fn held(&self, disk: &FaultDisk, acknowledged: bool) -> Result<(), String> {
        let case = self.case;
        match acknowledged && case.options.hold {
            true if case.ends_held() => {
                held::guarded(disk)?;
                self.promise(disk, true).map(drop)
            }
            true => held::ended(disk),
            false => Ok(()),
        }
    }

    /// Recovers, and has an in-place sync run again where that is what recovery asks for.
    pub fn finish(&self, disk: &FaultDisk, acknowledged: bool) -> Result<(), String> {
        let case = self.case;
        let was_marked = disk.contents(TARGET).is_some() && held::marker(disk).is_some();
        let said = recover(&case.target(disk), &work()).map_err(|error| error.to_string())?;
        match said {
            Recovered::Held if case.options.hold => {
                refused(case, disk)?;
                let is_new = self.promise(disk, acknowledged)?;
                held::let_go(case, disk)?;
                if self.promise(disk, acknowledged)? != is_new {
                    return Err("another disk once it was let go".to_owned());
                }
            }
            Recovered::Held => return Err("held, and nobody wanted that".to_owned()),
            Recovered::Rerun if case.is_in_place() => {
                refused(case, disk)?;
                case.work_on(disk)
                    .map_err(|error| format!("running it again: {error}"))?;
                self.promise(disk, true)?;
                if case.options.hold {
                    held::guarded(disk)?;
                    held::refused(case, disk)?;
                    held::let_go(case, disk)?;
                    self.promise(disk, true)?;
                }
            }
            Recovered::Rerun => return Err("an atomic sync that wants to run again".to_owned()),
            said => {
                let is_redone = said == Recovered::New && was_marked;
                let is_new = self.promise(disk, acknowledged || is_redone)?;
                // A hold may have ended in a crash of its release.
                if case.options.hold {
                    return Ok(());
                }
                if acknowledged && said != Recovered::Nothing {
                    return Err(format!("acknowledged, but recovery had work: {said:?}"));
                }
                if said == Recovered::New && !is_new {
                    return Err("said to be new, but is old".to_owned());
                }
            }
        }
        Ok(())
    }

    /// The target is new, or old unless it was acknowledged; whether it is new.
    pub fn promise(&self, disk: &FaultDisk, acknowledged: bool) -> Result<bool, String> {
        let case = self.case;
        let (is_new, is_old) = match case.format {
            // What lies under a marker is in the contents of no file.
            _ if case.options.hold && held::marker(disk).is_some() => {
                let content = case.content(disk)?;
                (content.as_ref() == Some(&case.new), content == case.old)
            }
            // Rows that share pages compare without a look at their bytes.
            Format::Raw => {
                let row = disk.contents(TARGET);
                (row.as_ref() == Some(&self.new), row == self.old)
            }
            _ => {
                let content = case.content(disk)?;
                (content.as_ref() == Some(&case.new), content == case.old)
            }
        };
        let is_old = is_old && !case.resumes();
        if case.kept {
            stands(case, disk, acknowledged).map_err(|error| error.to_string())??;
        }
        match (is_new, is_old) {
            (true, _) if case.way_back && case.undo_file(disk).open(Access::Read).is_err() => {
                Err("new, without a way back".to_owned())
            }
            (true, _) => Ok(true),
            (_, true) if !acknowledged => Ok(false),
            (_, true) => Err("acknowledged, but old".to_owned()),
            _ => Err("neither old nor new".to_owned()),
        }
    }

    /// Whatever lies around now, the work gets to its end when it is done again; the way back of a
    /// target that is new leads back.
    fn goes_on(&self, disk: &FaultDisk) -> Result<(), String> {
        let case = self.case;
        if case.way_back && self.promise(disk, false)? {
            undo(&case.undo_file(disk), &case.target(disk), &work())
                .map_err(|error| format!("the way back: {error}"))?;
            if case.content(disk)? != case.old {
                return Err("the way back leads elsewhere".to_owned());
            }
        }
        case.work_again(disk)
            .map_err(|error| format!("the work, done again: {error}"))?;
        self.promise(disk, true)?;
        if case.options.hold {
            held::let_go(case, disk)?;
            held::held_again(case, disk)?;
            self.promise(disk, true)?;
        }
        let mut left = disk.names("/img");
        left.extend(disk.names("/logs"));
        left.extend(disk.names("/kept"));
        left.retain(|name| name != "t" && name != "m");
        match left.is_empty() {
            true => Ok(()),
            false => Err(format!("files left behind: {left:?}")),
        }
    }
}

/// A marked target must not be taken for a disk by anything else of ours.
fn refused(case: &Case, disk: &FaultDisk) -> Result<(), String> {
    if case.options.hold {
        held::refused(case, disk)?;
    }
    let atomic = SyncOptions::default()
        .with_mode(Mode::Delta)
        .with_allow_shrink(true);
    match sync(&source(&case.new), &case.target(disk), &atomic, &work()) {
        Err(error) if error.kind() == ErrorKind::Incomplete => Ok(()),
        other => Err(format!("a marked target was not refused: {other:?}")),
    }
}

/// A target manifest stands for nothing that the target does not hold.
fn stands(case: &Case, disk: &FaultDisk, acknowledged: bool) -> Done<Result<(), String>> {
    let content = case.content(disk).unwrap().unwrap_or_default();
    let Some(storage) = case.manifest(disk).open_if_there(Access::Write)? else {
        let there = (!acknowledged).then_some(());
        return Ok(there.ok_or("acknowledged, but there is no manifest".to_owned()));
    };
    let kept = TargetManifest::open(storage, &Limits::default())?;
    let len = content.len() as u64;
    let image = Raw::open(std::sync::Arc::new(MemoryStorage::new("now", content)))?;
    let now = manifest::build(&image, BlockSize::MIN, &work())?;
    if acknowledged && (kept.manifest().root() != now.root() || !kept.intents().is_empty()) {
        return Ok(Err(
            "acknowledged, but the new manifest is not in place".to_owned()
        ));
    }
    if kept.manifest().disk_len() != len {
        // It stands for nothing then.
        return Ok(Ok(()));
    }
    for block in 0..len.div_ceil(BLOCK) {
        let range = block * BLOCK..((block + 1) * BLOCK).min(len);
        if !kept.has_intent(range) && kept.manifest().hash(block)? != now.hash(block)? {
            return Ok(Err(format!("block {block} is not what the manifest says")));
        }
    }
    Ok(Ok(()))
}

const MARKER: &[u8] = b"\0diskdelta mark1";
const BLOCK: u64 = 4096;

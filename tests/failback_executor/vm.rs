//! VMs in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diskdelta::Location;
use diskdelta::failback::machine::{Action, Checkpoint, Token, VmSeen};
use diskdelta::failback::vm::{Call, Changes, DiskChanges, VmController, misdirected, verb};
use diskdelta::{Error, ErrorKind, Result};

/// A VM in memory. Clones are the same VM.
#[derive(Debug, Clone)]
pub struct SimulatedVm(Arc<Mutex<Simulation>>);

/// What a simulated VM is, for those who play its guest, its host or its operator.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// What a controller sees.
    pub seen: VmSeen,
    /// The disks' bytes, by identity.
    pub disks: BTreeMap<String, Vec<u8>>,
    /// The disks cannot be booted from.
    pub boot_blocked: bool,
    snapshot: Option<BTreeMap<String, Vec<u8>>>,
    recording: bool,
    checkpoints: Vec<(Checkpoint, Written)>,
    newest: Token,
}

/// What was written: disk and range.
type Written = Vec<(String, Range<u64>)>;

impl SimulatedVm {
    /// A VM that is there, and runs or not.
    pub fn new(running: bool) -> Self {
        SimulatedVm(Arc::new(Mutex::new(Simulation {
            seen: VmSeen {
                exists: true,
                running,
                fenced: false,
            },
            disks: BTreeMap::new(),
            boot_blocked: false,
            snapshot: None,
            recording: false,
            checkpoints: Vec::new(),
            newest: Token::default(),
        })))
    }

    /// Adds a disk.
    #[must_use]
    pub fn with_disk(self, identity: impl Into<String>, bytes: Vec<u8>) -> Self {
        self.look().disks.insert(identity.into(), bytes);
        self
    }

    /// The newest token that was seen.
    pub fn newest(&self) -> Token {
        self.look().newest
    }

    /// The VM itself; it stands still while this is held.
    pub fn look(&self) -> MutexGuard<'_, Simulation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The VM, for a command that does not come too late; `true` where the command is new.
    fn admit(&self, call: &Call<'_>) -> Result<(MutexGuard<'_, Simulation>, bool)> {
        call.cancel.check()?;
        let mut vm = self.look();
        let new = vm.newest.admit(call.token)?;
        Ok((vm, new))
    }

    fn once(&self, call: &Call<'_>, act: impl FnOnce(&mut Simulation)) -> Result<VmSeen> {
        let (mut vm, new) = self.admit(call)?;
        if new {
            act(&mut vm);
        }
        Ok(vm.seen)
    }
}

impl Simulation {
    /// The guest writes; whether it runs is up to the caller.
    ///
    /// # Errors
    /// `NotFound` for an unknown disk; `InvalidInput` past its end.
    pub fn write(&mut self, disk: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no disk `{disk}`"));
        let row = self.disks.get_mut(disk).ok_or_else(missing)?;
        let end = offset.saturating_add(bytes.len() as u64);
        let place = usize::try_from(offset)
            .ok()
            .and_then(|begin| row.get_mut(begin..)?.get_mut(..bytes.len()))
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "past the disk's end"))?;
        place.copy_from_slice(bytes);
        if self.recording {
            for (_, written) in &mut self.checkpoints {
                written.push((disk.to_owned(), offset..end));
            }
        }
        Ok(())
    }

    /// Somebody starts the VM, outside of every job.
    pub fn start(&mut self) {
        self.seen.running |= self.seen.exists && !self.seen.fenced && !self.boot_blocked;
    }

    /// The power goes: the VM is off, and what was tracked is lost.
    pub fn power_loss(&mut self) {
        self.seen.running = false;
        self.recording = false;
        self.checkpoints.clear();
        self.snapshot = None;
    }
}

impl VmController for SimulatedVm {
    fn execute(&self, call: &Call<'_>, action: Action) -> Result<VmSeen> {
        if verb(action).is_none() {
            return Err(misdirected(action));
        }
        self.once(call, |vm| match action {
            Action::Create => vm.seen.exists = true,
            Action::Fence => vm.seen.fenced = true,
            Action::Unfence => vm.seen.fenced = false,
            Action::Start => vm.start(),
            Action::ShutDown => vm.seen.running = false,
            Action::Retire { discard_disks } => {
                vm.seen.exists = false;
                vm.seen.running = false;
                if discard_disks {
                    vm.disks.clear();
                }
            }
            Action::ArmTracking { keep } => {
                vm.checkpoints
                    .retain(|(checkpoint, _)| Some(*checkpoint) == keep);
                vm.checkpoints.push((Checkpoint(call.token), Vec::new()));
                vm.recording = true;
            }
            Action::Snapshot => vm.snapshot = Some(vm.disks.clone()),
            Action::Release => vm.snapshot = None,
            _ => {}
        })
    }

    fn changes_since(
        &self,
        call: &Call<'_>,
        since: Option<Checkpoint>,
        from_snapshot: bool,
    ) -> Result<Changes> {
        let (mut vm, _) = self.admit(call)?;
        if from_snapshot && vm.snapshot.is_none() {
            return Ok(Changes::SnapshotLost);
        }
        // As with a bitmap: to be read while nothing runs, it is closed.
        vm.recording &= from_snapshot;
        let tracked = match since {
            None => None,
            Some(since) => match vm.checkpoints.iter().find(|(there, _)| *there == since) {
                Some((_, written)) => Some(written),
                None => return Ok(Changes::TrackingLost),
            },
        };
        let disks = vm.disks.keys().map(|identity| {
            let changed = tracked.map(|written| {
                let here = written.iter().filter(|(disk, _)| disk == identity);
                here.map(|(_, range)| range.clone()).collect()
            });
            Ok(DiskChanges {
                identity: identity.clone(),
                address: Location::parse_absolute(&format!("/simulated/{identity}"))?,
                changed,
            })
        });
        Ok(Changes::Tracked(disks.collect::<Result<_>>()?))
    }
}

impl Simulation {
    /// What a reader of the snapshot, or of the disks of a VM that is off, finds.
    pub fn readable(&self, from_snapshot: bool) -> &BTreeMap<String, Vec<u8>> {
        match &self.snapshot {
            Some(snapshot) if from_snapshot => snapshot,
            _ => &self.disks,
        }
    }
}

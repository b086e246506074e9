//! Two sites in memory: VMs, their disks, and a reaper that kills the executor where it is told to.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use diskdelta::failback::disk_work::{DiskCommand, DiskWork, Done};
use diskdelta::failback::executor::Resources;
use diskdelta::failback::machine::{
    Action, Amount, Answer, Checkpoint, Copy, PassReport, Side, Sides, Token, VmSeen,
};
use diskdelta::failback::vm::{Call, Changes, DiskChanges, VmController};
use diskdelta::{Hash, Result, Work};

use super::vm::SimulatedVm;

pub const DISK: &str = "system";

type Disks = BTreeMap<String, Vec<u8>>;

/// The model that outlives every executor.
#[derive(Clone)]
pub struct Model {
    pub vms: Sides<SimulatedVm>,
    pub reaper: Arc<Reaper>,
    rows: Sides<Arc<Mutex<Row>>>,
    /// Copies wait here until they are cancelled.
    pub slow_copies: bool,
    pub copies: Arc<Mutex<Vec<Amount>>>,
}

/// What is kept about one side's disks.
#[derive(Default)]
struct Row {
    newest: Token,
    before: Option<Disks>,
    expected: Disks,
    inconsistent: bool,
}

/// Ends the executor at the nth call, before or after the call takes effect.
pub struct Reaper {
    left: AtomicI64,
    calls: AtomicUsize,
}

/// What a killed executor dies of.
pub struct Killed;

impl Model {
    pub fn new() -> Self {
        let vm = |running, byte| SimulatedVm::new(running).with_disk(DISK, vec![byte; 16]);
        Model {
            vms: Sides {
                source: vm(true, 2),
                target: vm(false, 1),
            },
            reaper: Arc::new(Reaper {
                left: AtomicI64::new(i64::MAX),
                calls: AtomicUsize::new(0),
            }),
            rows: Sides::default(),
            slow_copies: false,
            copies: Arc::default(),
        }
    }

    pub fn resources(&self) -> Resources {
        let mortal = |side| -> Arc<dyn VmController> {
            Arc::new(MortalVm {
                model: self.clone(),
                side,
            })
        };
        Resources {
            vms: Sides {
                source: mortal(Side::Source),
                target: mortal(Side::Target),
            },
            disks: Arc::new(self.clone()),
            work: Work::with_threads(1).unwrap(),
        }
    }

    pub fn disk(&self, side: Side) -> Vec<u8> {
        self.vms
            .of(side)
            .look()
            .disks
            .get(DISK)
            .cloned()
            .unwrap_or_default()
    }

    /// The source's guest writes, if it runs.
    pub fn write(&self, side: Side, offset: u64, byte: u8) {
        let mut vm = self.vms.of(side).look();
        if vm.seen.running {
            vm.write(DISK, offset, &[byte]).unwrap();
        }
    }

    /// The rules that hold at every moment.
    pub fn check(&self) {
        let runs = |side| self.vms.of(side).look().seen.running;
        assert!(
            !(runs(Side::Source) && runs(Side::Target)),
            "both sides run"
        );
        let inconsistent = self.rows.target.lock().unwrap().inconsistent;
        let blocked = self.vms.target.look().boot_blocked;
        assert!(!inconsistent || blocked, "an inconsistent disk is bootable");
    }

    fn mortal<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        self.reaper.strike();
        let done = act();
        self.check();
        self.reaper.strike();
        done
    }

    /// Admits a command to a side's disks; `false` where it was done before.
    fn admit(&self, side: Side, token: Token) -> Result<bool> {
        self.rows.of(side).lock().unwrap().newest.admit(token)
    }

    fn root(disks: &Disks) -> Hash {
        let bytes: Vec<u8> = disks.values().flatten().copied().collect();
        Hash::from_bytes(*blake3::hash(&bytes).as_bytes())
    }
}

impl Reaper {
    /// The executor dies at the nth call from now, counted from 0, two for each command.
    pub fn kill_at(&self, call: i64) {
        self.left.store(call, Ordering::SeqCst);
    }

    pub fn spare(&self) {
        self.kill_at(i64::MAX);
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn strike(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            resume_unwind(Box::new(Killed));
        }
    }
}

/// A VM whose controller dies with the executor.
struct MortalVm {
    model: Model,
    side: Side,
}

impl MortalVm {
    fn vm(&self) -> &SimulatedVm {
        self.model.vms.of(self.side)
    }
}

impl VmController for MortalVm {
    fn execute(&self, call: &Call<'_>, action: Action) -> Result<VmSeen> {
        if let Action::Retire { .. } = action {
            let safe = self.model.disk(Side::Target)[..8] == self.model.disk(Side::Source)[..8];
            assert!(safe, "the source is retired, and the target lacks data");
        }
        let seen = self.model.mortal(|| self.vm().execute(call, action));
        if action == Action::Snapshot {
            // The guest goes on writing.
            self.model.write(Side::Source, 3, 9);
        }
        seen
    }

    fn changes_since(
        &self,
        call: &Call<'_>,
        since: Option<Checkpoint>,
        from_snapshot: bool,
    ) -> Result<Changes> {
        self.model
            .mortal(|| self.vm().changes_since(call, since, from_snapshot))
    }
}

impl DiskWork for Model {
    fn execute(&self, command: &DiskCommand<'_>, work: &Work) -> Result<Done> {
        let side = command.side;
        let answer = self.mortal(|| {
            let new = self.admit(side, command.token)?;
            let disks = || self.vms.of(side).look().disks.clone();
            Ok(match command.action {
                Action::Block | Action::Unblock => {
                    self.vms.of(side).look().boot_blocked = command.action == Action::Block;
                    Answer::Done
                }
                Action::Copy(_) if !new => Answer::Copied(PassReport::default()),
                Action::Copy(copy) => self.copy(command, copy, work)?,
                Action::Verify => Answer::Verified {
                    found: Model::root(&disks()),
                    expected: Model::root(&self.rows.of(side).lock().unwrap().expected),
                },
                Action::Prove => Answer::Proven(Model::root(&disks())),
                Action::CheckBaseline { expected } => {
                    self.rows.of(side).lock().unwrap().expected = disks();
                    Answer::Baseline(Some(Model::root(&disks())) == expected)
                }
                Action::Restore { .. } => {
                    let before = self.rows.of(side).lock().unwrap().before.clone();
                    if let Some(before) = before {
                        self.vms.of(side).look().disks = before;
                    }
                    Answer::Done
                }
                _ => Answer::Done,
            })
        });
        answer.map(Done::from)
    }
}

impl Model {
    fn copy(&self, command: &DiskCommand<'_>, copy: Copy, work: &Work) -> Result<Answer> {
        let side = command.side;
        if self.slow_copies {
            loop {
                work.cancel().check()?;
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        self.copies.lock().unwrap().push(copy.amount);
        let from = self.vms.of(side.other()).look();
        let content = from.readable(copy.from_snapshot).clone();
        drop(from);
        let mut row = self.rows.of(side).lock().unwrap();
        let mut to = self.vms.of(side).look();
        row.before.get_or_insert_with(|| to.disks.clone());
        row.inconsistent = true;
        drop(to);
        drop(row);
        // Half of it is written when the executor dies here.
        self.reaper.strike();
        let mut row = self.rows.of(side).lock().unwrap();
        to = self.vms.of(side).look();
        for disk in command.changes.unwrap() {
            write(&mut to.disks, &content, disk);
            write(&mut row.expected, &content, disk);
        }
        row.inconsistent = false;
        Ok(Answer::Copied(PassReport::default()))
    }
}

fn write(to: &mut Disks, content: &Disks, disk: &DiskChanges) {
    let bytes = &content[&disk.identity];
    let row = to
        .entry(disk.identity.clone())
        .or_insert_with(|| vec![0; bytes.len()]);
    match &disk.changed {
        None => row.clone_from(bytes),
        Some(ranges) => {
            for range in ranges {
                let range = range.start as usize..range.end as usize;
                row[range.clone()].copy_from_slice(&bytes[range]);
            }
        }
    }
}

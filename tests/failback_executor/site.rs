//! Two sites in memory: VMs, their disks, and a reaper that kills the executor where it is told to.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use diskdelta::failback::disk_work::{CopyOrder, DiskWork, Finding, Roots};
use diskdelta::failback::executor::Resources;
use diskdelta::failback::machine::{
    Amount, Checkpoint, PassReport, Root, Side, Sides, Token, VmSeen,
};
use diskdelta::failback::vm::{Call, Changes, DiskChanges, SimulatedVm, VmController};
use diskdelta::{Error, ErrorKind, Result, Work};

pub const DISK: &str = "system";

type Disks = BTreeMap<String, Vec<u8>>;

/// The world that outlives every executor.
#[derive(Clone)]
pub struct World {
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

impl World {
    pub fn new() -> Self {
        let vm = |running, byte| SimulatedVm::new(running).with_disk(DISK, vec![byte; 16]);
        World {
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
                world: self.clone(),
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
        let mut row = self.rows.of(side).lock().unwrap();
        if token < row.newest {
            return Err(Error::new(ErrorKind::InUse, "an old token"));
        }
        let new = token > row.newest;
        row.newest = token;
        Ok(new)
    }

    fn root(disks: &Disks) -> Root {
        let bytes: Vec<u8> = disks.values().flatten().copied().collect();
        Root(*blake3::hash(&bytes).as_bytes())
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
    world: World,
    side: Side,
}

impl MortalVm {
    fn vm(&self) -> &SimulatedVm {
        self.world.vms.of(self.side)
    }
}

impl VmController for MortalVm {
    fn inspect(&self, call: &Call<'_>) -> Result<VmSeen> {
        self.world.mortal(|| self.vm().inspect(call))
    }

    fn create(&self, call: &Call<'_>) -> Result<VmSeen> {
        self.world.mortal(|| self.vm().create(call))
    }

    fn fence(&self, call: &Call<'_>) -> Result<VmSeen> {
        self.world.mortal(|| self.vm().fence(call))
    }

    fn unfence(&self, call: &Call<'_>) -> Result<VmSeen> {
        self.world.mortal(|| self.vm().unfence(call))
    }

    fn start(&self, call: &Call<'_>) -> Result<VmSeen> {
        self.world.mortal(|| self.vm().start(call))
    }

    fn shut_down(&self, call: &Call<'_>) -> Result<VmSeen> {
        self.world.mortal(|| self.vm().shut_down(call))
    }

    fn retire(&self, call: &Call<'_>, discard_disks: bool) -> Result<VmSeen> {
        let safe = self.world.disk(Side::Target)[..8] == self.world.disk(Side::Source)[..8];
        assert!(safe, "the source is retired, and the target lacks data");
        self.world.mortal(|| self.vm().retire(call, discard_disks))
    }

    fn arm_tracking(&self, call: &Call<'_>, keep: Option<Checkpoint>) -> Result<VmSeen> {
        self.world.mortal(|| self.vm().arm_tracking(call, keep))
    }

    fn snapshot(&self, call: &Call<'_>) -> Result<VmSeen> {
        let seen = self.world.mortal(|| self.vm().snapshot(call));
        // The guest goes on writing.
        self.world.write(Side::Source, 3, 9);
        seen
    }

    fn release(&self, call: &Call<'_>) -> Result<VmSeen> {
        self.world.mortal(|| self.vm().release(call))
    }

    fn changes_since(
        &self,
        call: &Call<'_>,
        since: Option<Checkpoint>,
        from_snapshot: bool,
    ) -> Result<Changes> {
        self.world
            .mortal(|| self.vm().changes_since(call, since, from_snapshot))
    }
}

impl DiskWork for World {
    fn check(&self, token: Token, side: Side) -> Result<Vec<Finding>> {
        self.mortal(|| self.admit(side, token).map(|_| Vec::new()))
    }

    fn block(&self, token: Token, side: Side) -> Result<()> {
        self.mortal(|| {
            self.admit(side, token)?;
            self.vms.of(side).look().boot_blocked = true;
            Ok(())
        })
    }

    fn unblock(&self, token: Token, side: Side) -> Result<()> {
        self.mortal(|| {
            self.admit(side, token)?;
            self.vms.of(side).look().boot_blocked = false;
            Ok(())
        })
    }

    fn copy(&self, token: Token, order: &CopyOrder<'_>, work: &Work) -> Result<PassReport> {
        self.mortal(|| {
            if !self.admit(order.to, token)? {
                return Ok(PassReport::default());
            }
            if self.slow_copies {
                loop {
                    work.cancel().check()?;
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
            self.copies.lock().unwrap().push(order.amount);
            let from = self.vms.of(order.to.other()).look();
            let content = from.readable(order.from_snapshot).clone();
            drop(from);
            let mut row = self.rows.of(order.to).lock().unwrap();
            let mut to = self.vms.of(order.to).look();
            row.before.get_or_insert_with(|| to.disks.clone());
            row.inconsistent = true;
            drop(to);
            drop(row);
            // Half of it is written when the executor dies here.
            self.reaper.strike();
            let mut row = self.rows.of(order.to).lock().unwrap();
            to = self.vms.of(order.to).look();
            for disk in order.from {
                write(&mut to.disks, &content, disk);
                write(&mut row.expected, &content, disk);
            }
            row.inconsistent = false;
            Ok(PassReport::default())
        })
    }

    fn verify(&self, token: Token, side: Side, _work: &Work) -> Result<Option<Roots>> {
        self.mortal(|| {
            self.admit(side, token)?;
            let row = self.rows.of(side).lock().unwrap();
            Ok(Some(Roots {
                found: World::root(&self.vms.of(side).look().disks),
                expected: World::root(&row.expected),
            }))
        })
    }

    fn prove(&self, token: Token, side: Side, _work: &Work) -> Result<Root> {
        self.mortal(|| {
            self.admit(side, token)?;
            Ok(World::root(&self.vms.of(side).look().disks))
        })
    }

    fn check_baseline(
        &self,
        token: Token,
        side: Side,
        expected: Root,
        _work: &Work,
    ) -> Result<bool> {
        self.mortal(|| {
            self.admit(side, token)?;
            let root = World::root(&self.vms.of(side).look().disks);
            self.rows.of(side).lock().unwrap().expected = self.vms.of(side).look().disks.clone();
            Ok(root == expected)
        })
    }

    fn restore(
        &self,
        token: Token,
        side: Side,
        _written: Option<&[DiskChanges]>,
        _work: &Work,
    ) -> Result<()> {
        self.mortal(|| {
            self.admit(side, token)?;
            let before = self.rows.of(side).lock().unwrap().before.clone();
            if let Some(before) = before {
                self.vms.of(side).look().disks = before;
            }
            Ok(())
        })
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

//! The executor: killed before and after every write of its journal and every command, restarted,
//! it comes to the same decision; and nothing that it does breaks a rule on the way.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "failback_executor/model.rs"]
mod model;
#[path = "failback_executor/vm.rs"]
mod vm;

use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use diskdelta::failback::executor::{Asked, Bell, Executor, Intervals, Mailbox, NoMailbox};
use diskdelta::failback::machine::{
    Action, Amount, Checkpoint, Disposition, JobMode, JobPhase, Reason, Request, Side, Spec, Token,
    VmSeen,
};
use diskdelta::failback::record::{JobRecord, Record};
use diskdelta::failback::vm::{Call, Changes, VmController, try_controller};
use diskdelta::journal::Reader;
use diskdelta::storage::fault::{Fault, FaultDisk};
use diskdelta::storage::{Access, Directory};
use diskdelta::testing::controller_contract;
use diskdelta::{ErrorKind, Result};

use model::{Killed, Model};
use vm::SimulatedVm;

#[test]
fn a_controller_keeps_its_contract_or_the_sentence_that_it_breaks_is_named() {
    let vm = || SimulatedVm::new(false).with_disk("system", vec![0; 512]);
    controller_contract(&vm());
    let mut broken = Vec::new();
    try_controller(&Forgetful(vm()), &mut |sentence, held| {
        broken.extend(held.err().map(|_| sentence));
    });
    assert_eq!(broken, ["a command that comes late is refused"]);
    broken.clear();
    try_controller(&SimulatedVm::new(true), &mut |sentence, held| {
        broken.extend(held.err().map(|_| sentence));
    });
    assert_eq!(broken, ["a look shows a VM that exists and is off"]);
}

/// Takes every token for a new one.
struct Forgetful(SimulatedVm);

impl VmController for Forgetful {
    fn execute(&self, call: &Call<'_>, action: Action) -> Result<VmSeen> {
        let newest = self.0.newest();
        let token = Token {
            sequence: newest.sequence + 1,
            ..newest.max(call.token)
        };
        self.0.execute(&Call { token, ..*call }, action)
    }

    fn changes_since(
        &self,
        call: &Call<'_>,
        since: Option<Checkpoint>,
        from_snapshot: bool,
    ) -> Result<Changes> {
        self.0.changes_since(call, since, from_snapshot)
    }
}

#[test]
fn a_job_goes_all_the_way_and_only_what_changed_moves_after_the_first_pass() {
    let (model, disk) = (Model::new(), FaultDisk::new());
    let phase = run(&model, &disk, &COMMIT).unwrap();
    assert_eq!(phase, JobPhase::Protected);
    let copies = model.copies.lock().unwrap().clone();
    assert_eq!(copies[0], Amount::Differing(Reason::FirstPass));
    assert!(
        copies[1..]
            .iter()
            .all(|copy| matches!(copy, Amount::ChangedSince(_)))
    );
    assert_eq!(copies.len(), 3, "first pass, final pass, reverse pass");
    check_end(&model, phase);
}

#[test]
fn an_executor_killed_at_any_command_comes_to_the_same_decision() {
    for script in [&COMMIT[..], &UNDO, &CANCEL] {
        let expected = run(&Model::new(), &FaultDisk::new(), script).unwrap();
        let mut kills = 0;
        for call in 0.. {
            let (model, disk) = (Model::new(), FaultDisk::new());
            model.reaper.kill_at(call);
            if let Some(phase) = survive(&model, &disk, script) {
                assert_eq!(phase, expected);
                break;
            }
            kills += 1;
            // Killed again while it recovers, and then left in peace.
            for again in [None, Some(0), Some(1), Some(3)] {
                let (model, disk) = (Model::new(), FaultDisk::new());
                model.reaper.kill_at(call);
                assert!(survive(&model, &disk, script).is_none());
                if let Some(again) = again {
                    model.reaper.kill_at(again);
                    survive(&model, &disk, script);
                }
                model.reaper.spare();
                let phase = run(&model, &disk, script).unwrap();
                assert_eq!(phase, expected, "killed at call {call}, then at {again:?}");
                check_end(&model, phase);
            }
        }
        println!("killed at {kills} places of a job that ends {expected}");
        assert!(kills > 15);
    }
}

#[test]
fn an_executor_killed_at_any_write_of_its_journal_comes_to_the_same_decision() {
    for script in [&COMMIT[..], &UNDO, &CANCEL] {
        let expected = run(&Model::new(), &FaultDisk::new(), script).unwrap();
        let mut kills = 0;
        for nth in 1.. {
            let (model, disk) = (Model::new(), FaultDisk::new());
            disk.directory(DIRECTORY);
            disk.fail(Fault::nth(nth).and_all_later());
            let fate = run(&model, &disk, script);
            if let Ok(phase) = fate {
                assert_eq!(phase, expected);
                break;
            }
            kills += 1;
            disk.heal();
            let phase = run(&model, &disk, script).unwrap();
            assert_eq!(phase, expected, "killed at journal call {nth}");
            check_end(&model, phase);
        }
        println!("killed at {kills} journal calls of a job that ends {expected}");
        assert!(kills > 30);
    }
}

#[test]
fn every_step_stands_in_the_journal_before_its_command_is_sent() {
    let (model, disk) = (Model::new(), FaultDisk::new());
    run(&model, &disk, &COMMIT).unwrap();
    let storage = disk
        .directory(DIRECTORY)
        .open(name(), Access::Read)
        .unwrap();
    let entries = Reader::open(storage).unwrap().rest().unwrap();
    let records = entries
        .iter()
        .map(|entry| Record::decode(&entry.payload).unwrap());
    let mut steps = Vec::new();
    for record in records {
        match record {
            Record::Job(job) => assert_eq!((job.job, steps.len()), ("shop".to_owned(), 0)),
            Record::Step(step) => steps.push(step),
            _ => unreachable!("there are no other records"),
        }
    }
    for step in &steps {
        assert_eq!(
            step.intent, step.state.pending,
            "what is sent is what is waited for"
        );
    }
    let decided: Vec<_> = steps.iter().filter_map(|step| step.decide).collect();
    assert_eq!(decided, [Side::Target]);
    let sent = steps.iter().filter(|step| step.intent.is_some()).count();
    // Each command strikes twice, a copy more often: it asks for changes first.
    assert!(model.reaper.calls() >= 2 * sent);
}

#[test]
fn a_request_that_came_as_a_command_ended_is_heard_before_the_next_one_ends() {
    let (model, disk) = (Model::new(), FaultDisk::new());
    let mut executor = begin(&model, &disk).unwrap();
    executor.work(&mut NoMailbox).unwrap();
    executor.ask(Request::Start, "operator").unwrap();
    let (ask, asked) = channel();
    let (reply, replies) = channel();
    // It is there, and its ring was taken for that of the command.
    send(&ask, &reply, Request::Cancel { restore: false });
    let mut mailbox = Rung(Letters(asked), Bell::new());
    executor.run(&mut mailbox).unwrap();
    replies.recv().unwrap().unwrap();
    assert!(model.copies.lock().unwrap().is_empty());
}

#[test]
fn a_job_that_waits_for_nothing_but_requests_sleeps() {
    let (model, disk) = (Model::new(), FaultDisk::new());
    let mut executor = begin(&model, &disk).unwrap();
    executor.work(&mut NoMailbox).unwrap();
    executor.ask(Request::Start, "operator").unwrap();
    executor.work(&mut NoMailbox).unwrap();
    let mut mailbox = Counted {
        polls: 0,
        bell: Bell::new(),
        ends: Instant::now() + Duration::from_secs(3),
    };
    executor.run(&mut mailbox).unwrap();
    assert_eq!(executor.state().phase, JobPhase::ReadyToCutover);
    // One for each long wait, and some.
    assert!(mailbox.polls < 100, "asked {} times", mailbox.polls);
}

#[test]
fn a_request_reaches_a_job_that_is_copying_and_ends_the_copy() {
    let (mut model, disk) = (Model::new(), FaultDisk::new());
    model.slow_copies = true;
    let mut executor = begin(&model, &disk).unwrap();
    executor.work(&mut NoMailbox).unwrap();
    executor.ask(Request::Start, "operator").unwrap();
    let (ask, asked) = channel();
    let (reply, replies) = channel();
    send(&ask, &reply, Request::Commit);
    send(&ask, &reply, Request::Cancel { restore: true });
    executor.run(&mut Letters(asked)).unwrap();
    let refused = replies.recv().unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!(
        refused.to_string(),
        "commit is not possible in phase initial-sync"
    );
    assert!(replies.recv().unwrap().is_ok());
    let phase = executor.state().phase;
    assert_eq!(phase, JobPhase::Cancelled(Disposition::Restored));
    assert_eq!(model.disk(Side::Target), [1; 16]);
}

#[test]
fn a_source_that_loses_power_is_compared_and_the_reason_stands_in_the_journal() {
    let (model, disk) = (Model::new(), FaultDisk::new());
    let mut executor = begin(&model, &disk).unwrap();
    executor.work(&mut NoMailbox).unwrap();
    executor.ask(Request::Start, "operator").unwrap();
    executor.work(&mut NoMailbox).unwrap();
    model.vms.source.look().power_loss();
    model.vms.source.look().start();
    model.write(Side::Source, 5, 77);
    executor.ask(Request::Complete, "operator").unwrap();
    executor.work(&mut NoMailbox).unwrap();
    assert_eq!(executor.state().phase, JobPhase::CommitPending);
    assert_eq!(model.disk(Side::Target)[5], 77);
    let copies = model.copies.lock().unwrap().clone();
    assert_eq!(
        copies.last(),
        Some(&Amount::Differing(Reason::TrackingLost))
    );
}

#[test]
fn an_older_executor_is_refused_once_another_has_taken_over() {
    let (model, disk) = (Model::new(), FaultDisk::new());
    let mut older = begin(&model, &disk).unwrap();
    older.work(&mut NoMailbox).unwrap();
    let newer = Executor::resume(
        &disk.directory(DIRECTORY),
        name(),
        model.resources(),
        intervals(),
    );
    let mut newer = newer.unwrap();
    newer.ask(Request::Start, "operator").unwrap();
    newer.work(&mut NoMailbox).unwrap();
    assert_eq!(newer.state().phase, JobPhase::ReadyToCutover);
    let before = model.disk(Side::Target);
    // It has lost its lock, and does not know it.
    let _ = older.ask(Request::Start, "operator");
    let _ = older.work(&mut NoMailbox);
    assert_eq!(older.state().phase, JobPhase::Prepared);
    assert_eq!(model.disk(Side::Target), before);
}

#[test]
fn a_journal_that_was_cut_or_changed_stops_the_executor_before_it_does_anything() {
    let (model, disk) = (Model::new(), FaultDisk::new());
    run(&model, &disk, &COMMIT).unwrap();
    let path = format!("{DIRECTORY}/{}", name().to_str().unwrap());
    let whole = disk.contents(&path).unwrap().to_vec();
    let calls = model.reaper.calls();
    let mut changed = whole.clone();
    let middle = whole.len() / 2;
    changed[middle] ^= 1;
    for damaged in [changed, whole[..middle].to_vec()] {
        let disk = FaultDisk::new();
        disk.put(&path, damaged);
        let fate = Executor::resume(
            &disk.directory(DIRECTORY),
            name(),
            model.resources(),
            intervals(),
        );
        let error = fate.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.to_string().contains("record "), "{error}");
    }
    assert_eq!(model.reaper.calls(), calls);
}

const DIRECTORY: &str = "/jobs";

/// What the operator asks for, and in which phase.
type Script = [(JobPhase, Request)];

const COMMIT: [(JobPhase, Request); 4] = [
    (JobPhase::Prepared, Request::Start),
    (JobPhase::ReadyToCutover, Request::Complete),
    (JobPhase::CommitPending, Request::Commit),
    (JobPhase::Committed, Request::Reverse),
];
const UNDO: [(JobPhase, Request); 3] = [
    (JobPhase::Prepared, Request::Start),
    (JobPhase::ReadyToCutover, Request::Complete),
    (
        JobPhase::CommitPending,
        Request::Undo {
            accept_loss: true,
            restore: true,
        },
    ),
];
const CANCEL: [(JobPhase, Request); 2] = [
    (JobPhase::Prepared, Request::Start),
    (JobPhase::ReadyToCutover, Request::Cancel { restore: true }),
];

/// Runs a job, new or left behind, to the end of its script.
fn run(model: &Model, disk: &FaultDisk, script: &Script) -> Result<JobPhase> {
    let mut executor = begin(model, disk)?;
    loop {
        executor.work(&mut NoMailbox)?;
        let phase = executor.state().phase;
        assert_eq!(executor.state().problem, None, "in {phase}");
        let Some((_, request)) = script.iter().find(|(at, _)| *at == phase) else {
            return Ok(phase);
        };
        if *request == Request::Complete {
            // Written after the last pass, and so part of the final one.
            model.write(Side::Source, 7, 42);
        }
        if *request == Request::Reverse {
            model.write(Side::Target, 12, 24);
        }
        executor.ask(*request, "operator")?;
    }
}

/// As [`run`], where the executor may be killed: `None` if it was.
fn survive(model: &Model, disk: &FaultDisk, script: &Script) -> Option<JobPhase> {
    match catch_unwind(AssertUnwindSafe(|| run(model, disk, script))) {
        Ok(phase) => Some(phase.unwrap()),
        Err(cause) => {
            assert!(cause.is::<Killed>(), "died of something else");
            None
        }
    }
}

fn begin(model: &Model, disk: &FaultDisk) -> Result<Executor> {
    let directory = disk.directory(DIRECTORY);
    let job = JobRecord {
        job: "shop".to_owned(),
        vm: "db1".to_owned(),
        direction: "recovery-to-primary".to_owned(),
        spec: Spec::new(JobMode::Delta).with_keep_undo(true),
        after_epoch: 0,
    };
    let there = directory.names()?.iter().any(|there| there == name());
    let resumed = match there {
        true => Executor::resume(&directory, name(), model.resources(), intervals()),
        false => return Executor::create(&directory, name(), job, model.resources(), intervals()),
    };
    match resumed {
        // Killed before the journal said what the job is: nothing was done.
        Err(error) if error.to_string().contains("remove it and start again") => {
            directory.remove(name())?;
            directory.sync()?;
            Executor::create(&directory, name(), job, model.resources(), intervals())
        }
        resumed => resumed,
    }
}

fn check_end(model: &Model, phase: JobPhase) {
    let (source, target) = (model.disk(Side::Source), model.disk(Side::Target));
    let runs = |side: Side| model.vms.of(side).look().seen.running;
    match phase {
        JobPhase::Protected => {
            assert_eq!((target[3], target[7], target[12]), (9, 42, 24));
            assert_eq!(source, target, "the replica holds what the VM wrote");
            assert!(runs(Side::Target) && !model.vms.source.look().seen.exists);
        }
        JobPhase::RolledBack(Disposition::Restored) => {
            assert_eq!((source[3], source[7]), (9, 42));
            assert_eq!(target, [1; 16]);
            assert!(runs(Side::Source) && !runs(Side::Target));
        }
        JobPhase::Cancelled(Disposition::Restored) => {
            assert_eq!(target, [1; 16]);
            assert!(runs(Side::Source) && !runs(Side::Target));
        }
        other => panic!("ended {other:?}"),
    }
}

fn intervals() -> Intervals {
    Intervals::default().with_retry(Duration::from_millis(1))
}

fn name() -> &'static OsStr {
    OsStr::new("shop.journal")
}

struct Letters(Receiver<Asked>);

impl Mailbox for Letters {
    fn poll(&mut self) -> Result<Option<Asked>> {
        Ok(self.0.try_recv().ok())
    }

    fn leave(&self) -> bool {
        false
    }
}

/// Counts how often it is asked; nothing comes.
struct Counted {
    polls: u64,
    bell: Bell,
    ends: Instant,
}

impl Mailbox for Counted {
    fn poll(&mut self) -> Result<Option<Asked>> {
        self.polls += 1;
        Ok(None)
    }

    fn bell(&self) -> Option<Bell> {
        Some(self.bell.clone())
    }

    fn leave(&self) -> bool {
        Instant::now() >= self.ends
    }
}

/// Letters of which a bell tells.
struct Rung(Letters, Bell);

impl Mailbox for Rung {
    fn poll(&mut self) -> Result<Option<Asked>> {
        self.0.poll()
    }

    fn bell(&self) -> Option<Bell> {
        Some(self.1.clone())
    }

    fn leave(&self) -> bool {
        self.0.leave()
    }
}

fn send(ask: &Sender<Asked>, reply: &Sender<Result<()>>, request: Request) {
    let reply = reply.clone();
    let asked = Asked {
        request,
        by: "operator".to_owned(),
        reply: Box::new(move |fate| drop(reply.send(fate))),
    };
    ask.send(asked).unwrap();
}

//! What the machine does when nothing goes wrong, and what it refuses.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod job;

use std::collections::BTreeSet;

use diskdelta::Hash;
use diskdelta::failback::machine::{
    Action, Answer, CommitPolicy, Convergence, Disposition, Event, GroupAsked, JobMode, JobPhase,
    Machine, Problem, ProofPolicy, Refusal, Request, Side, Sides, Signal, Spec, State, Step, Token,
    signals,
};
use job::Job;

#[test]
fn a_delta_job_takes_its_steps_in_the_order_that_keeps_data_safe() {
    let mut job = Job::new(Spec::new(JobMode::Delta));
    assert_eq!(
        job.sent(),
        [
            "source VM Inspect",
            "target VM Inspect",
            "target disk Check"
        ]
    );
    assert_eq!(job.phase(), JobPhase::Prepared);
    job.ask(Request::Start);
    assert_eq!(
        job.sent(),
        [
            "target VM Inspect",
            "target VM Fence",
            "target disk Block",
            "source VM ArmTracking",
            "source VM Snapshot",
            "target disk Copy differing: FirstPass",
            "source VM Release",
        ]
    );
    assert_eq!(job.phase(), JobPhase::ReadyToCutover);
    job.ask(Request::Complete);
    assert_eq!(
        job.sent(),
        [
            "target VM Inspect",
            "target disk Check",
            "source VM ShutDown",
            "source VM Fence",
            "target disk Copy changes",
            "target disk Verify",
            "target disk Unblock",
            "target VM ArmTracking",
            "target VM Unfence",
            "target VM Start",
            "source disk Prove",
        ]
    );
    assert_eq!(job.phase(), JobPhase::CommitPending);
    assert_eq!(job.machine.state().active, Side::Target);
    job.ask(Request::Commit);
    assert_eq!(job.sent(), ["target VM Inspect", "source VM Retire"]);
    job.ask(Request::Reverse);
    assert_eq!(
        job.sent(),
        [
            "source disk Block",
            "source disk CheckBaseline",
            "target VM ArmTracking",
            "target VM Snapshot",
            "source disk Copy changes",
            "source disk Verify",
            "target VM Release",
        ]
    );
    assert_eq!(job.phase(), JobPhase::Protected);
}

#[test]
fn a_full_job_copies_nothing_before_the_source_is_off() {
    let mut job = Job::new(Spec::new(JobMode::Full));
    job.ask(Request::Start);
    let sent = job.sent();
    let copies: Vec<_> = sent.iter().filter(|sent| sent.contains("Copy")).collect();
    assert_eq!(copies, ["target disk Copy everything"]);
    let at = |what: &str| sent.iter().position(|sent| sent == what).unwrap();
    assert!(at("source VM Fence") < at("target disk Copy everything"));
    assert_eq!(job.phase(), JobPhase::CommitPending);
}

#[test]
fn a_full_first_job_copies_everything_once_and_then_changes() {
    let mut job = Job::new(Spec::new(JobMode::FullFirst));
    job.ask(Request::Start);
    job.ask(Request::Complete);
    let sent = job.sent();
    let copies: Vec<_> = sent.iter().filter(|sent| sent.contains("Copy")).collect();
    assert_eq!(
        copies,
        ["target disk Copy everything", "target disk Copy changes"]
    );
}

#[test]
fn a_discarded_baseline_makes_the_reverse_pass_a_full_copy() {
    let mut job = Job::new(Spec::new(JobMode::Delta).with_discard_baseline(true));
    for request in [
        Request::Start,
        Request::Complete,
        Request::Commit,
        Request::Reverse,
    ] {
        job.ask(request);
    }
    let sent = job.sent();
    assert!(
        sent.contains(&"source disk Copy everything".to_owned()),
        "{sent:?}"
    );
    assert!(
        !sent.contains(&"source disk CheckBaseline".to_owned()),
        "{sent:?}"
    );
}

#[test]
fn a_job_whose_source_can_only_be_read_is_not_reversed_and_says_where_to_go() {
    let mut job = Job::new(Spec::new(JobMode::Delta).with_one_way(true));
    for request in [Request::Start, Request::Complete, Request::Commit] {
        job.ask(request);
    }
    assert_eq!(job.phase(), JobPhase::Committed);
    let refusal = job.machine.allows(Request::Reverse, "me").unwrap_err();
    assert_eq!(refusal.reason, Refusal::OneWay);
    let text = refusal.to_string();
    assert!(text.contains("on the host that has them"), "{text}");
}

#[test]
fn a_job_that_may_not_write_in_place_is_not_reversed_onto_a_device() {
    let spec = Spec::new(JobMode::Delta).with_atomic_only(true);
    let told = spec.refuses_reverse().unwrap();
    let mut job = Job::new(spec);
    for request in [Request::Start, Request::Complete, Request::Commit] {
        job.ask(request);
    }
    assert_eq!(job.phase(), JobPhase::Committed);
    let refusal = job.machine.allows(Request::Reverse, "me").unwrap_err();
    assert_eq!(refusal, told, "what is said before is what comes");
    assert!(refusal.to_string().contains("safety = \"in-place\""));
    assert!(Spec::new(JobMode::Delta).refuses_reverse().is_none());
}

#[test]
fn a_baseline_that_changed_is_compared_and_the_reason_is_on_record() {
    let mut job = Job::new(Spec::new(JobMode::Delta));
    job.baseline = false;
    for request in [
        Request::Start,
        Request::Complete,
        Request::Commit,
        Request::Reverse,
    ] {
        job.ask(request);
    }
    assert!(
        job.sent()
            .contains(&"source disk Copy differing: BaselineDiffers".to_owned())
    );
}

#[test]
fn passes_are_repeated_until_one_fits_the_downtime_budget() {
    for (elapsed, passes, convergence) in [
        (&[90_000, 20_000, 4_000][..], 3, Convergence::Fits),
        (&[90_000, 88_000], 2, Convergence::Stalled),
        (
            &[900_000, 500_000, 200_000, 90_000],
            4,
            Convergence::Shrinking,
        ),
        (&[4_000], 1, Convergence::Fits),
    ] {
        let spec = Spec::new(JobMode::Delta)
            .with_max_passes(4)
            .with_downtime_budget_ms(5_000);
        let mut job = Job::new(spec);
        job.elapsed = elapsed.iter().rev().copied().collect();
        job.ask(Request::Start);
        assert_eq!(job.phase(), JobPhase::ReadyToCutover);
        let copies = job
            .sent()
            .iter()
            .filter(|sent| sent.contains("Copy"))
            .count();
        assert_eq!(copies, passes, "{elapsed:?}");
        let found = Convergence::of(job.machine.spec(), job.machine.state());
        assert_eq!(found, convergence, "{elapsed:?}");
    }
}

#[test]
fn complete_during_a_pass_is_done_after_the_pass() {
    let mut job = Job::new(Spec::new(JobMode::Delta).with_downtime_budget_ms(0));
    job.ask_only(Request::Start);
    while job.phase() != JobPhase::InitialSync {
        job.answer();
    }
    job.ask_only(Request::Complete);
    assert_eq!(job.phase(), JobPhase::InitialSync);
    job.calm();
    assert_eq!(job.phase(), JobPhase::CommitPending);
    let copies = job
        .sent()
        .iter()
        .filter(|sent| sent.contains("Copy"))
        .count();
    assert_eq!(copies, 2, "one pass, and the final one");
}

#[test]
fn an_abort_arms_tracking_before_it_lets_the_source_go_and_keeps_what_was_copied() {
    let mut job = ready();
    job.ask_only(Request::Complete);
    while job.phase() != JobPhase::Verifying {
        job.answer();
    }
    job.sent();
    job.ask(Request::Abort);
    assert_eq!(
        job.sent(),
        [
            "source VM ArmTracking",
            "source VM Unfence",
            "source VM Start"
        ]
    );
    assert_eq!(job.phase(), JobPhase::ReadyToCutover);
    job.ask(Request::Complete);
    assert!(job.sent().contains(&"target disk Copy changes".to_owned()));
}

#[test]
fn a_copy_that_does_not_read_back_right_goes_back_and_is_compared_next_time() {
    let mut job = ready();
    job.verifies = false;
    job.sent();
    job.ask(Request::Complete);
    assert_eq!(job.phase(), JobPhase::ReadyToCutover);
    job.verifies = true;
    // Not in the next cutover, but at once, while the source runs again.
    let sent = job.sent();
    let at = |what: &str| sent.iter().rposition(|it| it == what).unwrap();
    assert!(at("source VM Start") < at("target disk Copy differing: VerifyFailed"));
    job.ask(Request::Complete);
    assert!(job.sent().contains(&"target disk Copy changes".to_owned()));
    assert_eq!(job.phase(), JobPhase::CommitPending);
}

#[test]
fn commit_waits_for_the_proof_and_undo_stays_possible_when_it_fails() {
    let mut job = ready();
    job.proves = false;
    job.ask(Request::Complete);
    assert_eq!(job.machine.state().problem, Some(Problem::ProofFailed));
    assert_eq!(job.refused(Request::Commit), Refusal::ProofMissing);
    job.sent();
    job.ask(Request::Undo {
        accept_loss: true,
        restore: false,
    });
    assert_eq!(
        job.sent(),
        [
            "target VM Fence",
            "target VM ShutDown",
            "source VM ArmTracking",
            "source VM Unfence",
            "source VM Start",
            "target disk Block",
        ]
    );
    assert_eq!(
        job.phase(),
        JobPhase::RolledBack(Disposition::BlockedInconsistent)
    );
    assert_eq!(job.machine.state().active, Side::Source);
}

#[test]
fn a_skipped_proof_lets_commit_through_and_a_proof_before_activation_comes_first() {
    let mut job = Job::new(Spec::new(JobMode::Delta).with_proof(ProofPolicy::Skip));
    for request in [Request::Start, Request::Complete, Request::Commit] {
        job.ask(request);
    }
    assert_eq!(job.phase(), JobPhase::Committed);
    assert!(!job.sent().iter().any(|sent| sent.contains("Prove")));

    let mut job = Job::new(Spec::new(JobMode::Delta).with_proof(ProofPolicy::BeforeActivation));
    job.ask(Request::Start);
    job.ask(Request::Complete);
    let sent = job.sent();
    let at = |what: &str| sent.iter().position(|sent| sent == what).unwrap();
    assert!(at("source disk Prove") < at("target disk Unblock"));
}

#[test]
fn a_cancel_restores_the_target_only_where_the_way_back_was_kept() {
    let keep = Request::Cancel { restore: false };
    let restore = Request::Cancel { restore: true };
    let mut job = Job::new(Spec::new(JobMode::Delta));
    job.ask(keep);
    assert_eq!(
        job.phase(),
        JobPhase::Cancelled(Disposition::Restored),
        "nothing was touched"
    );

    let mut job = ready();
    assert_eq!(job.refused(restore), Refusal::NoUndoKept);
    job.ask(keep);
    assert_eq!(
        job.phase(),
        JobPhase::Cancelled(Disposition::BlockedInconsistent)
    );

    let mut job = Job::new(Spec::new(JobMode::Delta).with_keep_undo(true));
    job.ask(Request::Start);
    job.sent();
    job.ask(restore);
    assert_eq!(
        job.sent(),
        [
            "target disk Block",
            "target disk Restore",
            "target disk Unblock"
        ]
    );
    assert_eq!(job.phase(), JobPhase::Cancelled(Disposition::Restored));
}

#[test]
fn a_restore_that_fails_compares_and_where_that_fails_too_says_so_in_the_end() {
    for compares in [true, false] {
        let mut job = Job::new(Spec::new(JobMode::Delta).with_keep_undo(true));
        job.ask(Request::Start);
        job.ask(Request::Complete);
        job.ask_only(Request::Undo {
            accept_loss: true,
            restore: true,
        });
        let mut tried = 0;
        while let Some(command) = job.machine.state().pending {
            let Action::Restore { since, compare } = command.action else {
                job.answer();
                continue;
            };
            assert!(since.is_some() && compare == (tried > 0));
            tried += 1;
            if compare && compares {
                job.answer();
                continue;
            }
            job.event(Event::Answered {
                token: command.token,
                answer: Answer::TrackingLost,
            });
        }
        let disposition = match compares {
            true => Disposition::Restored,
            false => Disposition::BlockedInconsistent,
        };
        assert_eq!((job.phase(), tried), (JobPhase::RolledBack(disposition), 2));
    }
}

#[test]
fn a_cancel_restores_the_target_without_asking_what_its_vm_wrote_for_it_never_ran() {
    let mut job = Job::new(Spec::new(JobMode::Delta).with_keep_undo(true));
    job.ask(Request::Start);
    assert_eq!(job.phase(), JobPhase::ReadyToCutover);
    assert!(job.machine.state().base().is_some());
    job.ask_only(Request::Cancel { restore: true });
    job.answer();
    let restore = job.machine.state().pending.map(|command| command.action);
    let since_nothing = Action::Restore {
        since: None,
        compare: false,
    };
    assert_eq!(restore, Some(since_nothing));
}

#[test]
fn a_target_that_somebody_runs_is_left_alone() {
    let mut job = Job::new(Spec::new(JobMode::Delta));
    job.seen.target.running = true;
    job.sent();
    job.ask(Request::Start);
    assert_eq!(job.machine.state().problem, Some(Problem::TargetRuns));
    assert!(
        !job.sent()
            .iter()
            .any(|sent| sent.contains("ShutDown") || sent.contains("Block"))
    );
}

#[test]
fn what_is_answered_but_not_seen_to_be_so_is_tried_again() {
    let mut job = ready();
    job.ask_only(Request::Complete);
    // The target answers, and the prerequisites hold still.
    job.answer();
    job.answer();
    let command = job.machine.state().pending.unwrap();
    assert_eq!(command.action, Action::ShutDown);
    let still = Answer::Vm(job.seen.source);
    job.event(Event::Answered {
        token: command.token,
        answer: still,
    });
    assert_eq!(job.machine.state().problem, Some(Problem::NoEffect));
    job.event(Event::RetryDue);
    let again = job.machine.state().pending.unwrap();
    assert!(again.action == Action::Inspect || again.action == Action::ShutDown);
    assert!(again.token > command.token);
}

#[test]
fn a_late_answer_changes_nothing() {
    let mut job = ready();
    let before = *job.machine.state();
    let step = job.machine.apply(&Event::Answered {
        token: Token {
            epoch: 1,
            sequence: 1,
        },
        answer: Answer::Failed(Problem::Unavailable),
    });
    assert_eq!(step, Ok(Step::default()));
    assert_eq!(*job.machine.state(), before);
}

#[test]
fn a_takeover_forgets_what_was_seen_and_outranks_every_earlier_command() {
    let mut job = ready();
    job.ask_only(Request::Complete);
    let before = job.machine.state().pending.unwrap();
    job.event(Event::TakenOver { epoch: 2 });
    let after = job.machine.state().pending.unwrap();
    assert!(after.token > before.token);
    assert_eq!(job.machine.state().vms, Sides::default());
    job.calm();
    assert_eq!(job.phase(), JobPhase::CommitPending);
}

#[test]
fn each_phase_allows_its_requests_and_refuses_all_others_without_a_trace() {
    use JobPhase::*;
    let restore = false;
    let cases = [
        (Request::Start, &[Prepared][..]),
        (Request::Complete, &[InitialSync, ReadyToCutover]),
        (Request::Abort, &[Quiescing, FinalSync, Verifying]),
        (
            Request::Cancel { restore },
            &[Planned, Prepared, InitialSync, ReadyToCutover],
        ),
        (
            Request::Undo {
                accept_loss: true,
                restore,
            },
            &[Activating, CommitPending],
        ),
        (Request::Commit, &[CommitPending]),
        (Request::Reverse, &[Committed]),
    ];
    let mut phases = BTreeSet::new();
    for machine in walk_through() {
        phases.insert(machine.state().phase.name());
        for (request, allowed) in cases {
            let mut machine = machine.clone();
            let before = *machine.state();
            let by = "somebody".to_owned();
            let fate = machine.apply(&Event::Asked { request, by });
            let here = allowed.contains(&before.phase);
            match fate {
                Ok(_) => assert!(here, "{} in {}", request.name(), before.phase),
                Err(refusal) => {
                    let why = refusal.reason;
                    assert_eq!(
                        here,
                        why != Refusal::JobPhase,
                        "{} in {}",
                        request.name(),
                        before.phase
                    );
                    assert_eq!(*machine.state(), before);
                    assert!(refusal.to_string().starts_with(request.name()));
                }
            }
        }
    }
    assert!(phases.len() >= 15, "{phases:?}");
}

#[test]
fn undo_needs_the_loss_accepted_and_commit_needs_a_name() {
    let mut job = ready();
    job.ask(Request::Complete);
    let undo = Request::Undo {
        accept_loss: false,
        restore: false,
    };
    assert_eq!(job.refused(undo), Refusal::LossNotAccepted);
    let nobody = job.machine.allows(Request::Commit, "").unwrap_err();
    assert_eq!(nobody.reason, Refusal::OperatorMissing);
}

#[test]
fn policies_commit_or_go_back_by_themselves() {
    for (policy, phase) in [
        (CommitPolicy::Manual, JobPhase::CommitPending),
        (CommitPolicy::Auto, JobPhase::Committed),
        (
            CommitPolicy::Undo,
            JobPhase::RolledBack(Disposition::BlockedInconsistent),
        ),
    ] {
        let mut job = Job::new(Spec::new(JobMode::Delta).with_commit(policy));
        job.ask(Request::Start);
        job.ask(Request::Complete);
        job.event(Event::CommitDue);
        job.calm();
        assert_eq!(job.phase(), phase);
    }
}

#[test]
fn groups_stop_from_the_last_to_the_first_and_start_from_the_first_to_the_last() {
    let spec = || Spec::new(JobMode::Delta).with_grouped(true);
    let mut jobs: Vec<Vec<Job>> = (0..3)
        .map(|_| vec![Job::new(spec()), Job::new(spec())])
        .collect();
    jobs.iter_mut()
        .flatten()
        .for_each(|job| job.ask(Request::Start));
    let asked = GroupAsked {
        complete: true,
        commit: true,
    };
    let mut told = Vec::new();
    loop {
        let states: Vec<Vec<State>> = jobs
            .iter()
            .map(|group| group.iter().map(|job| *job.machine.state()).collect())
            .collect();
        let signals = signals(&states, asked);
        if signals.is_empty() {
            break;
        }
        for (group, vm, signal) in signals {
            told.push((group, signal));
            let job = &mut jobs[group][vm];
            match signal {
                Signal::Complete => job.ask(Request::Complete),
                Signal::ShutDown => job.event(Event::GroupShutsDown),
                Signal::Activate => job.event(Event::GroupActivates),
                Signal::Commit => job.ask(Request::Commit),
                other => panic!("{other:?}"),
            }
            job.calm();
        }
    }
    told.dedup();
    use Signal::{Activate, Commit, Complete, ShutDown};
    let order = [
        (0, Complete),
        (1, Complete),
        (2, Complete),
        (2, ShutDown),
        (1, ShutDown),
        (0, ShutDown),
        (0, Activate),
        (1, Activate),
        (2, Activate),
        (0, Commit),
        (1, Commit),
        (2, Commit),
    ];
    assert_eq!(told, order);
    assert!(
        jobs.iter()
            .flatten()
            .all(|job| job.phase() == JobPhase::Committed)
    );
}

#[test]
fn no_group_is_stopped_while_one_vm_is_not_ready() {
    let mut ready = ready();
    let waiting = Job::new(Spec::new(JobMode::Delta).with_grouped(true));
    ready.sent();
    let states = vec![vec![*ready.machine.state()], vec![*waiting.machine.state()]];
    let asked = GroupAsked {
        complete: true,
        commit: true,
    };
    assert_eq!(signals(&states, asked), []);
}

#[test]
fn no_vm_of_a_group_is_shut_down_before_all_were_looked_at_again() {
    let spec = || Spec::new(JobMode::Delta).with_grouped(true);
    let mut jobs = [Job::new(spec()), Job::new(spec())];
    for job in &mut jobs {
        job.ask(Request::Start);
    }
    let asked = GroupAsked {
        complete: true,
        commit: false,
    };
    let told = |jobs: &[Job; 2]| {
        let states: Vec<_> = jobs.iter().map(|job| vec![*job.machine.state()]).collect();
        signals(&states, asked)
    };
    jobs[0].sent();
    jobs[0].ask(Request::Complete);
    assert_eq!(jobs[0].phase(), JobPhase::Quiescing);
    assert!(!jobs[0].sent().contains(&"source VM ShutDown".to_owned()));
    assert_eq!(told(&jobs), [(1, 0, Signal::Complete)]);
    jobs[1].ask_only(Request::Complete);
    let token = jobs[1].machine.state().pending.unwrap().token;
    let answer = Answer::Failed(Problem::Unfit);
    jobs[1].event(Event::Answered { token, answer });
    assert_eq!(told(&jobs), [], "one of them does not fit");
    jobs[1].ask(Request::Retry);
    assert_eq!(told(&jobs), [(1, 0, Signal::ShutDown)]);
    jobs[1].event(Event::GroupShutsDown);
    jobs[1].calm();
    assert_eq!(told(&jobs), [(0, 0, Signal::ShutDown)]);
    // An abort takes it back.
    jobs[1].ask(Request::Abort);
    jobs[1].ask(Request::Complete);
    jobs[0].ask(Request::Abort);
    assert!(!told(&jobs).contains(&(1, 0, Signal::ShutDown)));
}

#[test]
fn a_state_comes_back_from_its_journal_form() {
    for machine in walk_through() {
        let text = serde_json::to_string(machine.state()).unwrap();
        let back: State = serde_json::from_str(&text).unwrap();
        assert_eq!(back, *machine.state(), "{text}");
    }
}

#[test]
fn a_root_is_64_hex_digits_and_nothing_else() {
    let root = Hash::from_bytes(std::array::from_fn(|index| index as u8));
    let text = String::from(root);
    assert_eq!(Hash::try_from(text.clone()).unwrap(), root);
    for wrong in ["", &text[1..], &format!("{text}0"), &text.replace('0', "g")] {
        assert!(Hash::try_from(wrong.to_owned()).is_err(), "{wrong}");
    }
}

fn ready() -> Job {
    let mut job = Job::new(Spec::new(JobMode::Delta));
    job.ask(Request::Start);
    assert_eq!(job.phase(), JobPhase::ReadyToCutover);
    job.sent();
    job
}

/// Every state of a job that is aborted once and then goes all the way, and of one that is undone.
fn walk_through() -> Vec<Machine> {
    let mut states = Vec::new();
    let undo = Request::Undo {
        accept_loss: true,
        restore: false,
    };
    let last = [&[Request::Commit, Request::Reverse][..], &[undo], &[]];
    for last in last {
        let mut job = Job::new(Spec::new(JobMode::Delta));
        job.machine = Machine::new(Spec::new(JobMode::Delta));
        job.event(Event::TakenOver { epoch: 1 });
        let mut requests = [Request::Start, Request::Complete].iter().chain(last);
        loop {
            while job.machine.state().pending.is_some() {
                states.push(job.machine.clone());
                if last.is_empty() && job.phase() == JobPhase::Verifying {
                    job.ask_only(Request::Abort);
                    states.push(job.machine.clone());
                }
                job.answer();
            }
            states.push(job.machine.clone());
            match requests.next() {
                Some(request) => job.ask_only(*request),
                None => break,
            }
        }
    }
    states
}

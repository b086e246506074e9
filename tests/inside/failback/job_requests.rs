//! Requests to a job and to its VMs, from inside.

use super::*;
use crate::failback::machine::{Disposition, JobMode};

fn meant(phases: &[JobPhase], request: Request) -> Result<Meaning> {
    let spec = Spec::new(JobMode::Delta).with_grouped(true);
    let members: Vec<_> = phases
        .iter()
        .map(|phase| {
            let mut state = State::new(&spec);
            state.phase = *phase;
            state.proven = true;
            Member {
                vm: "vm",
                spec: &spec,
                state,
            }
        })
        .collect();
    meaning(&members, GroupAsked::default(), request, "me")
}

const UNDO: Request = Request::Undo {
    accept_loss: true,
    restore: false,
};

#[test]
fn complete_and_commit_are_held_until_all_are_there() {
    use JobPhase::*;
    let complete = meant(&[InitialSync, ReadyToCutover], Request::Complete).unwrap();
    assert!(complete.tell.is_empty() && complete.asked.complete);
    assert!(meant(&[Prepared, ReadyToCutover], Request::Complete).is_err());
    let commit = meant(&[CommitPending, CommitPending], Request::Commit).unwrap();
    assert!(commit.tell.is_empty() && commit.asked.commit);
    assert!(meant(&[Verifying, CommitPending], Request::Commit).is_err());
}

#[test]
fn nothing_is_offered_to_a_group_that_is_beyond_it() {
    use JobPhase::*;
    for (phase, request) in [
        (CommitPending, Request::Complete),
        (Committed, Request::Complete),
        (Committed, Request::Commit),
        (Protected, Request::Complete),
        (Protected, Request::Commit),
    ] {
        assert!(
            meant(&[phase, phase], request).is_err(),
            "{request:?} {phase}"
        );
    }
    assert!(meant(&[Committed, CommitPending], Request::Commit).is_ok());
}

#[test]
fn a_single_vm_is_asked_itself_for_it_may_have_gone_on_since_it_was_seen() {
    let asked = GroupAsked::default();
    let spec = Spec::new(JobMode::Delta);
    let mut state = State::new(&spec);
    for (phase, is_asked) in [
        (JobPhase::Activating, true),
        (JobPhase::Cancelled(Disposition::Restored), false),
    ] {
        state.phase = phase;
        let members = [Member {
            vm: "vm",
            spec: &spec,
            state,
        }];
        assert!(meaning(&members, asked, Request::Commit, "me").is_err());
        let passed = passed_on(&members, asked, Request::Commit, "me");
        let tell = passed.map(|meant| meant.tell).unwrap_or_default();
        assert_eq!(tell == [(0, Request::Commit)], is_asked);
    }
}

#[test]
fn nobody_is_reversed_where_one_of_them_cannot_be() {
    let (one, other) = (
        Spec::new(JobMode::Delta).with_grouped(true),
        Spec::new(JobMode::Delta)
            .with_grouped(true)
            .with_one_way(true),
    );
    let members = [("a", &one), ("b", &other)].map(|(vm, spec)| {
        let mut state = State::new(spec);
        state.phase = JobPhase::Committed;
        Member { vm, spec, state }
    });
    let asked = GroupAsked::default();
    let error = meaning(&members, asked, Request::Reverse, "me").unwrap_err();
    assert!(
        error.to_string().starts_with("b: reverse would write"),
        "{error}"
    );
    assert!(meaning(&members[..1], asked, Request::Reverse, "me").is_ok());
}

#[test]
fn nobody_goes_back_alone() {
    use JobPhase::*;
    let abort = meant(&[ReadyToCutover, FinalSync], Request::Abort).unwrap();
    assert_eq!(abort.tell, [(1, Request::Abort)]);
    assert!(!abort.asked.complete);
    assert!(meant(&[Activating, Verifying], Request::Abort).is_err());
    let undo = meant(&[CommitPending, Verifying], UNDO).unwrap();
    assert_eq!(undo.tell, [(0, UNDO), (1, Request::Abort)]);
    assert!(meant(&[Committing, CommitPending], UNDO).is_err());
    let cancel = Request::Cancel { restore: false };
    assert_eq!(
        meant(&[ReadyToCutover, Prepared], cancel)
            .unwrap()
            .tell
            .len(),
        2
    );
    assert!(meant(&[ReadyToCutover, Quiescing], cancel).is_err());
}

//! What a request to a job as a whole means for each of its VMs.

use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::{GroupAsked, JobPhase, Machine, Request, Spec, State};

/// A VM of the job, as it stands.
pub(super) struct Member<'a> {
    pub vm: &'a str,
    pub spec: &'a Spec,
    pub state: State,
}

/// What follows from a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Meaning {
    /// Whom to ask for what, by number.
    pub tell: Vec<(usize, Request)>,
    /// What the job as a whole is asked from now on.
    pub asked: GroupAsked,
}

/// Takes a request apart for the VMs' executors. A single one says itself whether it may: what is
/// seen of it may be a moment old, and who asks may have read a later state in the journal.
pub(super) fn passed_on(
    members: &[Member<'_>],
    asked: GroupAsked,
    request: Request,
    by: &str,
) -> Result<Meaning> {
    match members {
        [one] if !one.is_over() => Ok(Meaning {
            tell: vec![(0, request)],
            asked,
        }),
        _ => meaning(members, asked, request, by),
    }
}

/// Takes a request apart.
///
/// # Errors
/// `InvalidInput` where one of the VMs stands against it; nothing is to be done then.
pub(super) fn meaning(
    members: &[Member<'_>],
    asked: GroupAsked,
    request: Request,
    by: &str,
) -> Result<Meaning> {
    if let [one] = members {
        one.allows(request, by)?;
        let tell = vec![(0, request)];
        return Ok(Meaning { tell, asked });
    }
    let all = |which: &dyn Fn(&Member<'_>) -> bool, what: Request| {
        let chosen = members.iter().enumerate().filter(|(_, one)| which(one));
        chosen.map(|(index, _)| (index, what)).collect::<Vec<_>>()
    };
    let unasked = GroupAsked::default();
    let meaning = match request {
        Request::Complete => {
            require(members, request, |one| {
                one.is_begun() && !one.is_over() && one.state.phase != JobPhase::Testing
            })?;
            // Those that are beyond it have nothing left to complete.
            let complete = asked.complete || members.iter().any(Member::is_before_cutover);
            Meaning {
                tell: Vec::new(),
                asked: GroupAsked { complete, ..asked },
            }
        }
        Request::Commit => {
            for one in members.iter().filter(|one| !one.is_committed()) {
                one.allows(request, by)?;
            }
            let commit = asked.commit || !members.iter().all(Member::is_committed);
            Meaning {
                tell: Vec::new(),
                asked: GroupAsked { commit, ..asked },
            }
        }
        Request::Abort => {
            require(members, request, |one| !one.is_decided())?;
            Meaning {
                tell: all(&|one| one.allows(request, by).is_ok(), request),
                asked: unasked,
            }
        }
        Request::Undo { .. } => {
            require(members, request, |one| !one.is_committed())?;
            let mut tell = all(&|one| one.is_decided(), request);
            for (index, _) in &tell {
                members[*index].allows(request, by)?;
            }
            // Those that were not activated yet go back, too.
            let abort = Request::Abort;
            tell.extend(all(&|one| one.allows(abort, by).is_ok(), abort));
            Meaning {
                tell,
                asked: unasked,
            }
        }
        Request::Cancel { .. } => {
            for one in members.iter().filter(|one| !one.is_over()) {
                one.allows(request, by)?;
            }
            Meaning {
                tell: all(&|one| !one.is_over(), request),
                asked: unasked,
            }
        }
        Request::Retry => Meaning {
            tell: all(&|one| one.state.problem.is_some(), request),
            asked,
        },
        Request::Reverse => {
            require(members, request, |one| one.is_committed())?;
            for one in members
                .iter()
                .filter(|one| one.state.phase == JobPhase::Committed)
            {
                one.allows(request, by)?;
            }
            Meaning {
                tell: all(&|one| one.allows(request, by).is_ok(), request),
                asked,
            }
        }
        _ => {
            for one in members {
                one.allows(request, by)?;
            }
            Meaning {
                tell: all(&|_| true, request),
                asked,
            }
        }
    };
    if meaning.tell.is_empty() && meaning.asked == asked {
        let already = request == Request::Complete && asked.complete
            || request == Request::Commit && asked.commit;
        let why = if already {
            "was asked already"
        } else {
            "has nothing to do here"
        };
        let text = format!("{} {why}", request.name());
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(meaning)
}

impl Member<'_> {
    fn allows(&self, request: Request, by: &str) -> Result<()> {
        let machine = Machine::resume(self.spec.clone(), self.state);
        machine.allows(request, by).map_err(|refusal| {
            let text = format!("{}: {refusal}", self.vm);
            Error::new(ErrorKind::InvalidInput, text)
        })
    }

    fn is_begun(&self) -> bool {
        !matches!(self.state.phase, JobPhase::Planned | JobPhase::Prepared)
    }

    fn is_before_cutover(&self) -> bool {
        matches!(
            self.state.phase,
            JobPhase::InitialSync | JobPhase::ReadyToCutover
        )
    }

    fn is_over(&self) -> bool {
        self.state.phase.is_final()
    }

    fn is_decided(&self) -> bool {
        matches!(
            self.state.phase,
            JobPhase::Activating | JobPhase::CommitPending
        ) || self.is_committed()
    }

    fn is_committed(&self) -> bool {
        matches!(
            self.state.phase,
            JobPhase::Committing
                | JobPhase::Committed
                | JobPhase::ReverseReplicating
                | JobPhase::Protected
        )
    }
}

fn require(
    members: &[Member<'_>],
    request: Request,
    holds: impl Fn(&Member<'_>) -> bool,
) -> Result<()> {
    let Some(against) = members.iter().find(|one| !holds(one)) else {
        return Ok(());
    };
    let (vm, phase, request) = (against.vm, against.state.phase, request.name());
    let text = format!("{request} is not possible: {vm} is in phase {phase}");
    Err(Error::new(ErrorKind::InvalidInput, text))
}

#[cfg(test)]
#[path = "../../../tests/inside/failback/job_requests.rs"]
mod tests;

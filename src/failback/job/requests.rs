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
    let all = |which: &dyn Fn(&Member<'_>) -> bool| {
        let chosen = members.iter().enumerate().filter(|(_, one)| which(one));
        chosen
            .map(|(index, _)| (index, request))
            .collect::<Vec<_>>()
    };
    let each_allows = |which: &dyn Fn(&Member<'_>) -> bool| {
        let mut chosen = members.iter().filter(|one| which(one));
        chosen.try_for_each(|one| one.allows(request, by))
    };
    let (mut tell, mut now) = (Vec::new(), asked);
    match request {
        Request::Complete => {
            require(members, request, |one| {
                one.is_begun() && !one.is_over() && one.state.phase != JobPhase::Testing
            })?;
            // Those that are beyond it have nothing left to complete.
            now.complete |= members.iter().any(Member::is_before_cutover);
        }
        Request::Commit => {
            each_allows(&|one| !one.is_committed())?;
            now.commit |= !members.iter().all(Member::is_committed);
        }
        Request::Abort => {
            require(members, request, |one| !one.is_decided())?;
            tell = all(&|one| one.allows(request, by).is_ok());
            now = GroupAsked::default();
        }
        Request::Undo { .. } => {
            require(members, request, |one| !one.is_committed())?;
            each_allows(&|one| one.is_decided())?;
            tell = all(&|one| one.is_decided());
            // Those that were not activated yet go back, too.
            let back = members.iter().enumerate();
            let back = back.filter(|(_, one)| one.allows(Request::Abort, by).is_ok());
            tell.extend(back.map(|(index, _)| (index, Request::Abort)));
            now = GroupAsked::default();
        }
        Request::Cancel { .. } => {
            each_allows(&|one| !one.is_over())?;
            tell = all(&|one| !one.is_over());
            now = GroupAsked::default();
        }
        Request::Retry => tell = all(&|one| one.state.problem.is_some()),
        Request::Reverse => {
            require(members, request, |one| one.is_committed())?;
            each_allows(&|one| one.state.phase == JobPhase::Committed)?;
            tell = all(&|one| one.allows(request, by).is_ok());
        }
        _ => {
            each_allows(&|_| true)?;
            tell = all(&|_| true);
        }
    }
    if tell.is_empty() && now == asked {
        let already = request == Request::Complete && asked.complete
            || request == Request::Commit && asked.commit;
        let why = if already {
            "was asked already"
        } else {
            "has nothing to do here"
        };
        let text = format!("{request} {why}");
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    Ok(Meaning { tell, asked: now })
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
        self.state.phase > JobPhase::Prepared
    }

    fn is_before_cutover(&self) -> bool {
        (JobPhase::InitialSync..=JobPhase::ReadyToCutover).contains(&self.state.phase)
    }

    fn is_over(&self) -> bool {
        self.state.phase.is_final()
    }

    fn is_decided(&self) -> bool {
        self.state.phase.has_reached(JobPhase::Activating)
    }

    fn is_committed(&self) -> bool {
        self.state.phase.has_reached(JobPhase::Committing)
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

//! The contract of [`VmController`], tried on one VM.

use super::{Call, Changes, VmController};
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::{Action, Token, VmSeen};
use crate::progress::CancelToken;

/// Tries each sentence of the contract of [`VmController`] on a VM that exists, is off and may run;
/// in the end it is so again. What a command needs of a hypervisor that tracks writes is not asked.
///
/// `found` is called with each sentence, and with why it does not hold. The trial ends with the
/// first command that fails where it should not.
pub fn try_controller(
    controller: &dyn VmController,
    found: &mut dyn FnMut(&'static str, Result<()>),
) {
    let mut trial = Trial {
        controller,
        cancel: CancelToken::new(),
        token: Token::default(),
        late: Token::default(),
    };
    let sentences: [Sentence; 12] = [
        (
            "a look shows a VM that exists and is off",
            |trial: &mut Trial<'_>| trial.shows(Action::Inspect, |vm| vm.exists && !vm.running),
        ),
        ("a fence is seen at once", |trial: &mut Trial<'_>| {
            trial.shows(Action::Fence, |vm| vm.fenced)
        }),
        (
            "the same token gives the same answer",
            |trial: &mut Trial<'_>| trial.again(Action::Fence, |vm| vm.fenced),
        ),
        (
            "a VM that is fenced does not start",
            |trial: &mut Trial<'_>| {
                // It may refuse as well.
                let _ = trial.send(Action::Start);
                trial.shows(Action::Inspect, |vm| vm.fenced && !vm.running)
            },
        ),
        ("a fence falls", |trial: &mut Trial<'_>| {
            trial.late = trial.token;
            trial.shows(Action::Unfence, |vm| !vm.fenced)
        }),
        (
            "a command that comes late is refused",
            |trial: &mut Trial<'_>| {
                let newest = std::mem::replace(&mut trial.token, trial.late);
                let late = trial.call(Action::Fence);
                trial.token = newest;
                refused(late, ErrorKind::InUse)?;
                trial.again(Action::Unfence, |vm| !vm.fenced)
            },
        ),
        ("a VM starts", |trial: &mut Trial<'_>| {
            trial.shows(Action::Start, |vm| vm.running)
        }),
        (
            "a VM that runs is started again",
            |trial: &mut Trial<'_>| trial.shows(Action::Start, |vm| vm.running),
        ),
        ("a VM is shut down", |trial: &mut Trial<'_>| {
            trial.shows(Action::ShutDown, |vm| vm.exists && !vm.running)
        }),
        (
            "the places of its disks are reported",
            |trial: &mut Trial<'_>| trial.tells_disks(),
        ),
        (
            "a newer executor begins to count anew",
            |trial: &mut Trial<'_>| {
                trial.token = Token {
                    epoch: trial.token.epoch + 1,
                    sequence: 0,
                };
                trial.shows(Action::Inspect, |vm| vm.exists && !vm.running)
            },
        ),
        ("an action of disks is refused", |trial: &mut Trial<'_>| {
            refused(trial.send(Action::Verify), ErrorKind::InvalidInput)
        }),
    ];
    for (sentence, holds) in sentences {
        let held = holds(&mut trial);
        let goes_on = held.is_ok();
        found(sentence, held);
        if !goes_on {
            return;
        }
    }
}

type Sentence = (&'static str, fn(&mut Trial<'_>) -> Result<()>);

struct Trial<'a> {
    controller: &'a dyn VmController,
    cancel: CancelToken,
    token: Token,
    /// One that is not the newest any more.
    late: Token,
}

impl Trial<'_> {
    /// Sends a command with the next token.
    fn send(&mut self, action: Action) -> Result<VmSeen> {
        self.token.sequence += 1;
        self.call(action)
    }

    fn call(&self, action: Action) -> Result<VmSeen> {
        let (token, cancel) = (self.token, &self.cancel);
        self.controller.execute(&Call { token, cancel }, action)
    }

    /// A new command, after which the VM should be seen so.
    fn shows(&mut self, action: Action, is: fn(VmSeen) -> bool) -> Result<()> {
        self.token.sequence += 1;
        self.again(action, is)
    }

    /// As [`shows`](Self::shows), with the token of the last command.
    fn again(&self, action: Action, is: fn(VmSeen) -> bool) -> Result<()> {
        let seen = self.call(action)?;
        match is(seen) {
            true => Ok(()),
            false => Err(Error::malformed(format!("after `{action}` it is {seen:?}"))),
        }
    }

    fn tells_disks(&mut self) -> Result<()> {
        self.token.sequence += 1;
        let (token, cancel) = (self.token, &self.cancel);
        let call = Call { token, cancel };
        match self.controller.changes_since(&call, None, false)? {
            Changes::Tracked(disks) if !disks.is_empty() => Ok(()),
            changes => Err(Error::malformed(format!(
                "of a VM that is off, without a checkpoint, it says {changes:?}"
            ))),
        }
    }
}

fn refused(done: Result<VmSeen>, kind: ErrorKind) -> Result<()> {
    match done {
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(error),
        Ok(seen) => Err(Error::malformed(format!("it was done: {seen:?}"))),
    }
}

//! The contract of [`VmController`], tried on one VM.

use std::path::PathBuf;
use std::time::Duration;

use super::{Call, Changes, VmController};
use crate::error::{Error, ErrorKind, Result};
use crate::failback::machine::{Action, Checkpoint, Token, VmSeen};
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
    let mut trial = Trial::new(controller, &[]);
    let disks: Sentence = ("an action of disks is refused", |trial| {
        refused(trial.send(Action::Verify), ErrorKind::InvalidInput)
    });
    for (sentence, holds) in COMMANDS.iter().chain([&disks]) {
        let held = holds(&mut trial);
        let goes_on = held.is_ok();
        found(sentence, held);
        if !goes_on {
            return;
        }
    }
}

/// As [`try_controller`], on an operator's program: with all that a job asks of one, whatever was
/// found before. `renamed` are the files of the VM's disks, and the names that they have while it
/// must not boot from them.
pub(in crate::failback) fn try_program(
    controller: &dyn VmController,
    renamed: &[(PathBuf, PathBuf)],
    found: &mut dyn FnMut(&'static str, Result<()>),
) {
    let mut trial = Trial::new(controller, renamed);
    trial.is_program = true;
    for (sentence, holds) in COMMANDS.iter().chain(OF_PROGRAMS) {
        found(sentence, holds(&mut trial));
    }
}

const COMMANDS: &[Sentence] = &[
    ("a look shows a VM that exists and is off", |trial| {
        trial.shows(Action::Inspect, |vm| vm.exists && !vm.running)
    }),
    ("a fence is seen at once", |trial| {
        trial.shows(Action::Fence, |vm| vm.fenced)
    }),
    ("the same token gives the same answer", |trial| {
        trial.again(Action::Fence, |vm| vm.fenced)
    }),
    ("a VM that is fenced does not start", |trial| {
        // It may refuse as well.
        let _ = trial.send(Action::Start);
        trial.shows(Action::Inspect, |vm| vm.fenced && !vm.running)
    }),
    ("a fence falls", |trial| {
        trial.late = trial.token;
        trial.shows(Action::Unfence, |vm| !vm.fenced)
    }),
    ("a command that comes late is refused", |trial| {
        let newest = std::mem::replace(&mut trial.token, trial.late);
        let late = trial.call(Action::Fence);
        trial.token = newest;
        match late {
            Err(_) if trial.is_program => {}
            late => refused(late, ErrorKind::InUse)?,
        }
        trial.again(Action::Unfence, |vm| !vm.fenced)
    }),
    ("a VM starts", |trial| {
        trial.shows(Action::Start, |vm| vm.running)
    }),
    ("a VM that runs is started again", |trial| {
        trial.shows(Action::Start, |vm| vm.running)
    }),
    ("a VM is shut down", |trial| {
        trial.shows(Action::ShutDown, |vm| vm.exists && !vm.running)
    }),
    ("the places of its disks are reported", |trial| {
        trial.tells_disks()
    }),
    ("a newer executor begins to count anew", |trial| {
        trial.token = Token {
            epoch: trial.token.epoch + 1,
            sequence: 0,
        };
        trial.shows(Action::Inspect, |vm| vm.exists && !vm.running)
    }),
];

const OF_PROGRAMS: &[Sentence] = &[
    (
        "a command that was cut off is done when it is sent again",
        |trial| {
            trial.token.sequence += 1;
            trial.cut_off(Action::Fence);
            trial.again(Action::Fence, |vm| vm.fenced)?;
            trial.shows(Action::Unfence, |vm| !vm.fenced)
        },
    ),
    (
        "writes since an unknown checkpoint were not tracked",
        |trial| {
            let unknown = Checkpoint(Token::default());
            trial.changes(Some(unknown), false, |it| *it == Changes::TrackingLost)
        },
    ),
    (
        "writes are tracked from a checkpoint on, or said not to be",
        |trial| {
            trial.shows(Action::ArmTracking { keep: None }, |vm| !vm.running)?;
            let since = Some(Checkpoint(trial.token));
            trial.changes(since, false, |it| match it {
                Changes::Tracked(disks) => disks.iter().all(|disk| disk.changed.is_some()),
                it => *it == Changes::TrackingLost,
            })
        },
    ),
    (
        "a snapshot of a VM that runs is read, let go, and lost then",
        |trial| {
            trial.shows(Action::Start, |vm| vm.running)?;
            trial.shows(Action::Snapshot, |vm| vm.running)?;
            trial.changes(None, true, |it| matches!(it, Changes::Tracked(_)))?;
            trial.shows(Action::Release, |vm| vm.running)?;
            trial.shows(Action::Release, |vm| vm.running)?;
            trial.changes(None, true, |it| *it == Changes::SnapshotLost)?;
            trial.shows(Action::ShutDown, |vm| !vm.running)
        },
    ),
    (
        "a VM whose disks have another name is looked at and fenced",
        |trial| {
            trial.shows(Action::Fence, |vm| vm.fenced)?;
            trial.with_renamed_disks(|trial| {
                trial.shows(Action::Inspect, |vm| vm.exists && vm.fenced)?;
                trial.shows(Action::Fence, |vm| vm.fenced && !vm.running)?;
                trial.changes(None, false, |_| true)
            })
        },
    ),
    (
        "a test runs from copies of them, apart from the VM, and is removed",
        |trial| {
            trial.with_renamed_disks(|trial| {
                let is_held = |vm: VmSeen| vm.fenced && !vm.running;
                trial.shows(Action::StartTest, is_held)?;
                trial.again(Action::StartTest, is_held)?;
                trial.shows(Action::StopTest, is_held)?;
                trial.shows(Action::StopTest, is_held)
            })?;
            trial.shows(Action::Unfence, |vm| !vm.fenced)
        },
    ),
    (
        "a VM is retired, its disks stay, and it is made again, switched off",
        |trial| {
            let retire = Action::Retire {
                discard_disks: false,
            };
            trial.shows(retire, |vm| !vm.exists)?;
            trial.shows(retire, |vm| !vm.exists)?;
            if let Some((disk, _)) = trial.renamed.iter().find(|(disk, _)| !disk.exists()) {
                return Err(Error::malformed("the disk is gone").at_path(disk));
            }
            trial.shows(Action::Create, |vm| vm.exists && !vm.running)?;
            trial.shows(Action::Create, |vm| vm.exists && !vm.running)
        },
    ),
];

type Sentence = (&'static str, fn(&mut Trial<'_>) -> Result<()>);

struct Trial<'a> {
    controller: &'a dyn VmController,
    cancel: CancelToken,
    token: Token,
    /// One that is not the newest any more.
    late: Token,
    renamed: &'a [(PathBuf, PathBuf)],
    /// All that fails is a refusal.
    is_program: bool,
}

impl<'a> Trial<'a> {
    fn new(controller: &'a dyn VmController, renamed: &'a [(PathBuf, PathBuf)]) -> Self {
        Trial {
            controller,
            cancel: CancelToken::new(),
            token: Token::default(),
            late: Token::default(),
            renamed,
            is_program: false,
        }
    }

    /// A command that is given up soon after it was sent.
    fn cut_off(&self, action: Action) {
        let (token, cancel) = (self.token, CancelToken::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(CUT_OFF_AFTER);
                cancel.cancel();
            });
            let cancel = &cancel;
            let _ = self.controller.execute(&Call { token, cancel }, action);
        });
    }

    fn with_renamed_disks(&mut self, run: impl Fn(&mut Self) -> Result<()>) -> Result<()> {
        let rename = |from: &PathBuf, to: &PathBuf| {
            std::fs::rename(from, to).map_err(|e| Error::io("rename", e).at_path(from))
        };
        let renamed = self.renamed;
        renamed
            .iter()
            .try_for_each(|(own, blocked)| rename(own, blocked))?;
        let held = run(self);
        renamed
            .iter()
            .try_for_each(|(own, blocked)| rename(blocked, own))?;
        held
    }

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
        self.changes(None, false, |it| match it {
            Changes::Tracked(disks) => !disks.is_empty(),
            _ => false,
        })
    }

    fn changes(
        &mut self,
        since: Option<Checkpoint>,
        from_snapshot: bool,
        is: fn(&Changes) -> bool,
    ) -> Result<()> {
        self.token.sequence += 1;
        let (token, cancel) = (self.token, &self.cancel);
        let call = Call { token, cancel };
        let changes = self.controller.changes_since(&call, since, from_snapshot)?;
        match is(&changes) {
            true => Ok(()),
            false => Err(Error::malformed(format!(
                "of changes since {since:?}, from a snapshot: {from_snapshot}, it says {changes:?}"
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

const CUT_OFF_AFTER: Duration = Duration::from_millis(30);

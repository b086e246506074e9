//! A job whose sites do all that they are told.

use diskdelta::Hash;
use diskdelta::failback::machine::{
    Action, Amount, Answer, Command, Event, JobPhase, Machine, PassReport, Refusal, Request,
    Resource, Side, Sides, Spec, VmSeen,
};

/// A job whose sites do all that they are told.
pub(crate) struct Job {
    pub(crate) machine: Machine,
    pub(crate) seen: Sides<VmSeen>,
    sent: Vec<String>,
    pub(crate) verifies: bool,
    pub(crate) proves: bool,
    pub(crate) baseline: bool,
    /// How long passes take, last first.
    pub(crate) elapsed: Vec<u64>,
}

impl Job {
    pub(crate) fn new(spec: Spec) -> Self {
        let vm = |running| VmSeen {
            exists: true,
            running,
            fenced: false,
        };
        let mut job = Job {
            machine: Machine::new(spec),
            seen: Sides {
                source: vm(true),
                target: vm(false),
            },
            sent: Vec::new(),
            verifies: true,
            proves: true,
            baseline: true,
            elapsed: Vec::new(),
        };
        job.event(Event::TakenOver { epoch: 1 });
        job.calm();
        job
    }

    pub(crate) fn phase(&self) -> JobPhase {
        self.machine.state().phase
    }

    /// What was sent since this was asked last.
    pub(crate) fn sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent)
    }

    pub(crate) fn refused(&self, request: Request) -> Refusal {
        self.machine.allows(request, "operator").unwrap_err().reason
    }

    pub(crate) fn ask(&mut self, request: Request) {
        self.ask_only(request);
        self.calm();
    }

    pub(crate) fn ask_only(&mut self, request: Request) {
        let by = "operator".to_owned();
        self.event(Event::Asked { request, by });
    }

    pub(crate) fn event(&mut self, event: Event) {
        let step = self.machine.apply(&event).unwrap();
        self.sent.extend(step.send.map(said));
    }

    /// Answers until nothing is under way.
    pub(crate) fn calm(&mut self) {
        while self.machine.state().pending.is_some() {
            self.answer();
        }
    }

    pub(crate) fn answer(&mut self) {
        let command = self.machine.state().pending.unwrap();
        let answer = match command.resource {
            Resource::Vm(side) => self.vm(side, command.action),
            Resource::Disk(_) => self.disk(command.action),
        };
        let token = command.token;
        self.event(Event::Answered { token, answer });
    }

    fn vm(&mut self, side: Side, action: Action) -> Answer {
        let vm = self.seen.of_mut(side);
        match action {
            Action::Fence => vm.fenced = true,
            Action::Unfence => vm.fenced = false,
            Action::Start => vm.running = true,
            Action::ShutDown => vm.running = false,
            Action::Retire { .. } => vm.exists = false,
            _ => {}
        }
        Answer::Vm(*vm)
    }

    fn disk(&mut self, action: Action) -> Answer {
        let root = |good: bool| Hash::from_bytes([u8::from(good); 32]);
        match action {
            Action::Copy(_) => Answer::Copied(PassReport {
                changed_bytes: 4096,
                elapsed_ms: self.elapsed.pop().unwrap_or(0),
            }),
            Action::Verify => Answer::Verified {
                found: root(self.verifies),
                expected: root(true),
            },
            Action::Prove => Answer::Proven(root(self.proves)),
            Action::CheckBaseline { .. } => Answer::Baseline(self.baseline),
            _ => Answer::Done,
        }
    }
}

fn said(command: Command) -> String {
    let what = match command.action {
        Action::Copy(copy) => match copy.amount {
            Amount::Everything => "Copy everything".to_owned(),
            Amount::Differing(reason) => format!("Copy differing: {reason:?}"),
            Amount::ChangedSince(_) => "Copy changes".to_owned(),
            other => panic!("{other:?}"),
        },
        action => {
            let text = format!("{action:?}");
            text.split(' ').next().unwrap().to_owned()
        }
    };
    format!("{} {what}", command.resource)
}

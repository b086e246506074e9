//! The model around the machine: two sites, a network that keeps no order, people who start VMs,
//! power that fails, executors that die.
//!
//! The machine is the real one. The model is finite: disks have a few blocks of one bit, tokens
//! are compared by order only, a resource has at most a few undelivered commands. Within these
//! bounds everything may happen at any time and any number of times.

use diskdelta::Hash;
use diskdelta::failback::machine::{
    Action, Amount, Answer, Command, Event, JobPhase, Machine, Mutation, PassReport, Problem,
    Request, Resource, Side, Sides, Spec, State, Token, VmSeen,
};

use super::table::{map_action, map_state};

/// What is explored: a job, the model's bounds, and what is broken on purpose.
#[derive(Clone)]
pub struct Setup {
    pub spec: Spec,
    pub mutation: Mutation,
    /// Blocks that the source's guest writes to, 1 to 7.
    pub blocks: u8,
    /// A copy may silently write wrong bytes, once.
    pub corruption: bool,
    /// The executor may give a command up that still arrives.
    pub give_up: bool,
    /// Commands that are no longer waited for, and may still arrive, at one time.
    pub late: usize,
    /// Resources accept old tokens.
    pub no_tokens: bool,
    /// After a crash, tracking answers as if it had not been interrupted.
    pub lying_tracking: bool,
    /// Commands are sent before the state is written down: a crash loses the last state.
    pub write_after_send: bool,
    /// Only this invariant is looked at.
    pub only: Option<&'static str>,
}

impl Setup {
    pub fn new(spec: Spec) -> Self {
        Setup {
            spec,
            mutation: Mutation::default(),
            blocks: 1,
            corruption: false,
            give_up: false,
            late: 1,
            no_tokens: false,
            lying_tracking: false,
            write_after_send: false,
            only: None,
        }
    }
}

/// Everything there is at one moment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Model {
    /// The executor's state; as the journal holds it, too, unless writing down comes too late.
    pub state: State,
    /// What a new executor would find in the journal.
    journal: State,
    pub sites: Sides<Site>,
    undelivered: Vec<Command>,
    answers: Vec<(Token, Answer)>,
    /// The target was started by a human before it was ever fenced.
    foreign: bool,
    /// The target was running at some time since the decision, and was seen so.
    target_seen: bool,
    corrupted: bool,
    /// A rule was broken by the last move itself.
    broken: Option<&'static str>,
}

/// A VM, its disk, and what keeps them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Site {
    pub vm: VmSeen,
    vm_token: Token,
    /// Writes are recorded.
    recording: bool,
    /// What was written since each checkpoint.
    checkpoints: Vec<(Token, u8)>,
    snapshot: Option<u8>,
    /// A copy of its disk runs in isolation, on top of the disk.
    pub tested: bool,
    /// One bit for each block: its contents.
    pub data: u8,
    /// What the copies were meant to leave there.
    tracked: u8,
    pub blocked: bool,
    /// It is some moment of the other disk, or of a guest's own writing.
    pub consistent: bool,
    /// The job has changed nothing that it did not restore.
    pub pristine: bool,
    disk_token: Token,
    disk_answer: Option<Answer>,
    copy: Option<Copying>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Copying {
    token: Token,
    mask: u8,
    /// The snapshot's bits, or `None` where the VM's disk is read as it is.
    snapshot: Option<u8>,
}

/// One thing that can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Deliver(Command),
    FinishCopy(Side),
    CorruptCopy(Side),
    Answer(Token, Answer),
    LoseAnswer(Token),
    Lose(Command),
    /// The executor gives a command up; it may still arrive, or have arrived.
    GiveUp(Token),
    TakeOver,
    RetryDue,
    PassDue,
    CommitDue,
    GroupShutsDown,
    GroupActivates,
    Ask(Request),
    /// A guest overwrites a block.
    Write(Side, u8),
    PowerLoss(Side),
    HumanStarts(Side),
}

impl Move {
    /// Whether it helps: nothing breaks, and nobody works against the job.
    pub fn is_calm(self) -> bool {
        !matches!(
            self,
            Move::CorruptCopy(_) | Move::LoseAnswer(_) | Move::PowerLoss(_) | Move::Write(..)
        )
    }

    /// Whether what is under way has to be begun again.
    pub fn is_relapse(self) -> bool {
        matches!(self, Move::GiveUp(_) | Move::TakeOver | Move::Lose(_))
    }
}

impl Move {
    /// The event that this is to the machine, where it is nothing else.
    fn event(self) -> Option<Event> {
        match self {
            Move::GiveUp(token) => Some(Event::Answered {
                token,
                answer: FAILED,
            }),
            Move::RetryDue => Some(Event::RetryDue),
            Move::PassDue => Some(Event::PassDue),
            Move::CommitDue => Some(Event::CommitDue),
            Move::GroupShutsDown => Some(Event::GroupShutsDown),
            Move::GroupActivates => Some(Event::GroupActivates),
            Move::Ask(request) => Some(Event::Asked {
                request,
                by: "operator".to_owned(),
            }),
            _ => None,
        }
    }

    /// What sort of thing it is.
    pub fn kind(self) -> Kind {
        match self {
            Move::Deliver(_) | Move::FinishCopy(_) | Move::Answer(..) | Move::RetryDue => {
                Kind::Work
            }
            Move::Ask(Request::Abort | Request::Cancel { .. } | Request::Undo { .. }) => Kind::Back,
            Move::Ask(_)
            | Move::PassDue
            | Move::CommitDue
            | Move::GroupShutsDown
            | Move::GroupActivates => Kind::Forward,
            _ => Kind::Fault,
        }
    }
}

/// What sort of thing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The job goes on by itself.
    Work,
    /// Somebody moves it on.
    Forward,
    /// Somebody goes back.
    Back,
    /// Something breaks or comes in between.
    Fault,
}

const ALL_BITS: u8 = 0xff;
/// The block that the target's guest writes to.
const TARGET_BLOCK: u8 = 0x80;
/// The blocks that the source's guest writes to.
const SOURCE_BLOCKS: u8 = 0x7f;
const SIDES: [Side; 2] = [Side::Source, Side::Target];

impl Model {
    pub fn new(setup: &Setup) -> Self {
        let machine = Machine::new(setup.spec.clone());
        let site = |running| Site {
            vm: VmSeen {
                exists: running || !setup.spec.create,
                running,
                fenced: false,
            },
            vm_token: Token::default(),
            recording: false,
            checkpoints: Vec::new(),
            snapshot: None,
            tested: false,
            // The target lacks what was written at the source since the failover.
            data: u8::from(running),
            tracked: 0,
            blocked: false,
            consistent: true,
            pristine: true,
            disk_token: Token::default(),
            disk_answer: None,
            copy: None,
        };
        let mut model = Model {
            state: *machine.state(),
            journal: *machine.state(),
            sites: Sides {
                source: site(true),
                target: site(false),
            },
            undelivered: Vec::new(),
            answers: Vec::new(),
            foreign: false,
            target_seen: false,
            corrupted: false,
            broken: None,
        };
        model.event(setup, &Event::TakenOver { epoch: 1 });
        model
    }

    /// All that can happen next.
    pub fn moves(&self, setup: &Setup) -> Vec<Move> {
        let mut moves: Vec<Move> = self.undelivered.iter().map(|c| Move::Deliver(*c)).collect();
        for (token, answer) in &self.answers {
            moves.push(Move::Answer(*token, *answer));
            moves.push(Move::LoseAnswer(*token));
        }
        for side in SIDES {
            let site = self.sites.of(side);
            if site.copy.is_some() {
                moves.push(Move::FinishCopy(side));
                if setup.corruption && !self.corrupted {
                    moves.push(Move::CorruptCopy(side));
                }
            }
            if site.vm.running {
                let blocks = match side {
                    Side::Source => (1 << setup.blocks) - 1,
                    Side::Target => TARGET_BLOCK,
                };
                let written = (0..8).map(|n| 1 << n).filter(|block| blocks & block != 0);
                moves.extend(written.map(|block| Move::Write(side, block)));
            }
            if site.vm.running || site.recording || site.snapshot.is_some() || site.copy.is_some() {
                moves.push(Move::PowerLoss(side));
            }
            if site.startable() {
                moves.push(Move::HumanStarts(side));
            }
        }
        let awaited = self.state.pending.filter(|_| setup.give_up);
        moves.extend(awaited.map(|command| Move::GiveUp(command.token)));
        moves.extend(self.late().map(|command| Move::Lose(*command)));
        moves.extend([
            Move::TakeOver,
            Move::RetryDue,
            Move::PassDue,
            Move::CommitDue,
            Move::GroupShutsDown,
            Move::GroupActivates,
        ]);
        moves.extend(REQUESTS.map(Move::Ask));
        moves
    }

    /// The model after a move; `None` where nothing comes of it.
    pub fn after(&self, setup: &Setup, happens: Move) -> Option<Model> {
        if let Some(event) = happens.event()
            && !self.heeds(setup, &event)
        {
            return None;
        }
        let mut next = self.clone();
        next.happen(setup, happens);
        (next.late().count() <= setup.late && next != *self).then_some(next)
    }

    fn happen(&mut self, setup: &Setup, happens: Move) {
        if let Some(event) = happens.event() {
            self.event(setup, &event);
        }
        match happens {
            Move::Deliver(command) => self.deliver(setup, command),
            Move::FinishCopy(side) => self.finish_copy(side, false),
            Move::CorruptCopy(side) => self.finish_copy(side, true),
            Move::Answer(token, answer) => {
                self.forget_answer(token);
                self.event(setup, &Event::Answered { token, answer });
            }
            // It is asked for again; the resource has done it and only answers.
            Move::LoseAnswer(token) => {
                self.forget_answer(token);
                self.event(setup, &Event::Unanswered { token });
            }
            Move::TakeOver => {
                // What the journal holds is all that a new executor knows.
                self.state = self.journal;
                let epoch = self.state.last.epoch.max(self.newest_epoch()) + 1;
                self.event(setup, &Event::TakenOver { epoch });
            }
            Move::Lose(command) => self.undelivered.retain(|c| *c != command),
            Move::Write(side, block) => self.sites.of_mut(side).write(block),
            Move::PowerLoss(side) => self.power_loss(setup, side),
            Move::HumanStarts(side) => {
                let target = side == Side::Target;
                let early = matches!(
                    self.state.phase,
                    JobPhase::Planned
                        | JobPhase::Prepared
                        | JobPhase::Cancelling
                        | JobPhase::Cancelled(_)
                );
                self.sites.of_mut(side).vm.running = true;
                self.foreign |= target && early;
            }
            _ => {}
        }
        if !self.sites.target.vm.running {
            self.foreign = false;
        }
    }

    /// Whether the machine does anything about an event.
    fn heeds(&self, setup: &Setup, event: &Event) -> bool {
        let mut machine =
            Machine::resume(setup.spec.clone(), self.state).with_mutation(setup.mutation.clone());
        machine.apply(event).is_ok_and(|step| step.changed)
    }

    /// Commands that may still arrive, although nobody waits for them any more.
    fn late(&self) -> impl Iterator<Item = &Command> {
        let awaited = self.state.pending;
        self.undelivered
            .iter()
            .filter(move |c| Some(**c) != awaited)
    }

    /// Feeds the machine, writes down what it becomes, and sends what it says.
    fn event(&mut self, setup: &Setup, event: &Event) {
        let mut machine =
            Machine::resume(setup.spec.clone(), self.state).with_mutation(setup.mutation.clone());
        let Ok(step) = machine.apply(event) else {
            return;
        };
        if machine.state().phase != self.state.phase {
            self.broken = self.broken.or(self.broken_guard(machine.state()));
        }
        self.journal = if setup.write_after_send {
            self.state
        } else {
            *machine.state()
        };
        self.state = *machine.state();
        if self.state.active == Side::Source {
            self.target_seen = false;
        } else if self.state.vms.target.is_some_and(|vm| vm.running) {
            self.target_seen = true;
        }
        if let Some(command) = step.send
            && !self.undelivered.contains(&command)
        {
            self.undelivered.push(command);
        }
        self.forget_the_dead(setup);
    }

    /// What does not hold in the model, although a phase begins that counts on it.
    fn broken_guard(&self, begins: &State) -> Option<&'static str> {
        let Sides { source, target } = &self.sites;
        let target_held = target.vm.fenced && !target.vm.running && target.blocked;
        let source_held = source.vm.fenced && !source.vm.running;
        if target.tested && begins.phase != JobPhase::Testing {
            return Some("T: a test is left behind");
        }
        match begins.phase {
            JobPhase::InitialSync if !target_held => Some("G: a sync begins onto a loose target"),
            JobPhase::FinalSync if !source_held => {
                Some("G: the final sync begins, the source is loose")
            }
            JobPhase::FinalSync if !target_held => {
                Some("G: the final sync begins onto a loose target")
            }
            JobPhase::Activating if !source_held => {
                Some("G: the target is decided, the source is loose")
            }
            JobPhase::Committing if !begins.vms.target.is_some_and(|vm| vm.running) => {
                Some("G: commit begins, the target was not seen running")
            }
            _ => None,
        }
    }

    /// Takes away what can have no effect any more, so that equal models look equal.
    fn forget_the_dead(&mut self, setup: &Setup) {
        let awaited = self.state.pending.map(|command| command.token);
        self.answers.retain(|(token, _)| Some(*token) == awaited);
        if !setup.no_tokens {
            let sites = self.sites.clone();
            self.undelivered.retain(|c| match c.resource {
                Resource::Vm(side) => c.token >= sites.of(side).vm_token,
                Resource::Disk(side) => c.token >= sites.of(side).disk_token,
            });
        }
    }

    fn deliver(&mut self, setup: &Setup, command: Command) {
        if !setup.no_tokens {
            self.undelivered.retain(|c| *c != command);
        }
        match command.resource {
            Resource::Vm(side) => self.deliver_vm(setup, side, command),
            Resource::Disk(side) => self.deliver_disk(setup, side, command),
        }
        self.forget_the_dead(setup);
    }

    fn deliver_vm(&mut self, setup: &Setup, side: Side, command: Command) {
        let token = command.token;
        let committing = self.state.phase == JobPhase::Committing;
        let holds_all = self.target_holds_all();
        let target_seen = self.target_seen;
        let site = self.sites.of_mut(side);
        if token < site.vm_token && !setup.no_tokens {
            return;
        }
        let again = token == site.vm_token;
        site.vm_token = token.max(site.vm_token);
        match command.action {
            // Done before; only the answer is given again.
            _ if again => {}
            Action::Create => site.vm.exists = true,
            Action::Fence => site.vm.fenced = true,
            Action::Unfence => site.vm.fenced = false,
            Action::Start => site.vm.running |= site.startable(),
            Action::ShutDown => site.vm.running = false,
            Action::Retire { .. } if site.vm.exists => {
                self.broken = match () {
                    () if !committing => Some("I5: the source is retired outside Committing"),
                    () if !holds_all => Some("I6: the source is retired, the target lacks data"),
                    () if !target_seen => {
                        Some("I7: the source is retired, the target was never seen running")
                    }
                    () => self.broken,
                };
                site.vm.exists = false;
                site.vm.running = false;
            }
            Action::ArmTracking { keep } => {
                site.checkpoints
                    .retain(|(token, _)| keep.is_some_and(|keep| keep.0 == *token));
                site.checkpoints.push((token, 0));
                site.recording = true;
            }
            Action::Snapshot => site.snapshot = Some(site.data),
            Action::Release => site.snapshot = None,
            Action::StartTest => site.tested = true,
            Action::StopTest => site.tested = false,
            _ => {}
        }
        let seen = self.sites.of(side).vm;
        self.answer(token, Answer::Vm(seen));
    }

    fn deliver_disk(&mut self, setup: &Setup, side: Side, command: Command) {
        let token = command.token;
        let site = self.sites.of_mut(side);
        if token < site.disk_token && !setup.no_tokens {
            return;
        }
        if token == site.disk_token {
            if let Some(answer) = site.disk_answer {
                self.answer(token, answer);
            }
            return;
        }
        if let Action::Copy(copy) = command.action {
            self.begin_copy(setup, side, token, copy.amount, copy.from_snapshot);
            return;
        }
        site.disk_token = token;
        site.copy = None;
        let checkpoints = &site.checkpoints;
        let answer = match command.action {
            Action::Block => {
                site.blocked = true;
                Answer::Done
            }
            Action::Unblock => {
                site.blocked = false;
                Answer::Done
            }
            Action::Restore {
                since,
                compare: false,
            } if since.is_some_and(|c| !checkpoints.iter().any(|(t, _)| *t == c.0)) => {
                Answer::TrackingLost
            }
            Action::Restore { .. } => {
                (site.data, site.tracked) = (0, 0);
                (site.consistent, site.pristine) = (true, true);
                Answer::Done
            }
            Action::Verify => Answer::Verified {
                found: root(site.data),
                expected: root(site.tracked),
            },
            Action::Prove => Answer::Proven(root(site.data)),
            Action::CheckBaseline { expected } => {
                Answer::Baseline(expected == Some(root(site.data)))
            }
            _ => Answer::Done,
        };
        site.disk_answer = Some(answer);
        self.answer(token, answer);
    }

    /// A copy reads one side and writes the other: both must accept its token.
    fn begin_copy(
        &mut self,
        setup: &Setup,
        side: Side,
        token: Token,
        amount: Amount,
        from_snapshot: bool,
    ) {
        let from = self.sites.of_mut(side.other());
        if token < from.vm_token && !setup.no_tokens {
            return;
        }
        from.vm_token = token.max(from.vm_token);
        let mask = match amount {
            Amount::ChangedSince(since) => {
                let found = from.checkpoints.iter().find(|(t, _)| *t == since.0);
                match found {
                    Some((_, written)) => Some(*written),
                    None if setup.lying_tracking => {
                        Some(from.checkpoints.last().map_or(0, |(_, written)| *written))
                    }
                    None => None,
                }
            }
            _ => Some(ALL_BITS),
        };
        // To be read consistently, the record of a VM that is off is closed.
        from.recording &= from_snapshot;
        let snapshot = from.snapshot;
        let to = self.sites.of_mut(side);
        to.disk_token = token;
        to.disk_answer = None;
        to.copy = None;
        let refused = match (mask, snapshot) {
            (None, _) => Some(Answer::TrackingLost),
            (_, None) if from_snapshot => Some(Answer::SnapshotLost),
            _ => None,
        };
        if let Some(answer) = refused {
            to.disk_answer = refused;
            self.answer(token, answer);
            return;
        }
        to.consistent = false;
        to.pristine = false;
        to.copy = Some(Copying {
            token,
            mask: mask.unwrap(),
            snapshot: snapshot.filter(|_| from_snapshot),
        });
    }

    fn finish_copy(&mut self, side: Side, corrupt: bool) {
        let from = self.sites.of(side.other()).clone();
        let to = self.sites.of_mut(side);
        let Some(copy) = to.copy.take() else {
            return;
        };
        let content = copy.snapshot.unwrap_or(from.data);
        to.data = to.data & !copy.mask | content & copy.mask;
        to.tracked = to.tracked & !copy.mask | content & copy.mask;
        if corrupt {
            self.corrupted = true;
            let wrong = copy.mask & (1 << copy.mask.trailing_zeros().min(7));
            to.data ^= wrong;
        }
        to.consistent = to.data == content;
        if copy.snapshot.is_none() && from.vm.running {
            // Read while it was written to: torn.
            to.consistent = false;
            to.disk_answer = Some(FAILED);
            self.answer(copy.token, FAILED);
            return;
        }
        let answer = Answer::Copied(PassReport::default());
        to.disk_answer = Some(answer);
        self.answer(copy.token, answer);
    }

    fn power_loss(&mut self, setup: &Setup, side: Side) {
        let lying = setup.lying_tracking;
        let site = self.sites.of_mut(side);
        site.vm.running = false;
        if lying {
            // The records are lost, but nothing says so.
            site.checkpoints
                .iter_mut()
                .for_each(|(_, written)| *written = 0);
        } else {
            site.recording = false;
            site.checkpoints.clear();
        }
        site.snapshot = None;
        site.tested = false;
        // A copy reads one side and writes the other: it ends.
        for copying in SIDES {
            let disk = self.sites.of_mut(copying);
            if let Some(copy) = disk.copy.take() {
                disk.disk_answer = Some(FAILED);
                self.answer(copy.token, FAILED);
            }
        }
    }

    fn answer(&mut self, token: Token, answer: Answer) {
        if self
            .state
            .pending
            .is_some_and(|command| command.token == token)
            && !self.answers.contains(&(token, answer))
        {
            self.answers.push((token, answer));
        }
    }

    fn forget_answer(&mut self, token: Token) {
        self.answers.retain(|(t, _)| *t != token);
    }

    fn target_holds_all(&self) -> bool {
        (self.sites.source.data ^ self.sites.target.data) & SOURCE_BLOCKS == 0
    }

    fn newest_epoch(&self) -> u64 {
        let sites = SIDES.map(|side| self.sites.of(side));
        let seen = sites
            .iter()
            .flat_map(|site| [site.vm_token, site.disk_token]);
        let sent = self.undelivered.iter().map(|command| command.token);
        seen.chain(sent).map(|token| token.epoch).max().unwrap_or(0)
    }

    /// Whether one side runs.
    pub fn somebody_runs(&self) -> bool {
        SIDES.iter().any(|side| self.sites.of(*side).vm.running)
    }

    /// The first invariant that does not hold.
    pub fn violation(&self, setup: &Setup) -> Option<&'static str> {
        let rule = self.broken_rule()?;
        setup
            .only
            .is_none_or(|only| rule.starts_with(only))
            .then_some(rule)
    }

    fn broken_rule(&self) -> Option<&'static str> {
        let Sides { source, target } = &self.sites;
        let phase = self.state.phase;
        if self.broken.is_some() {
            return self.broken;
        }
        if source.vm.running && target.vm.running && !self.foreign {
            return Some("I1: both sides run");
        }
        if target.vm.running && !target.consistent {
            return Some("I2: the target runs on inconsistent data");
        }
        let compared = target.vm.running && source.vm.exists && !self.foreign;
        if compared && !self.target_holds_all() {
            return Some("I3: the running target lacks an acknowledged write");
        }
        for site in [source, target] {
            // A copy that is silently wrong may be tested: that shows it.
            if site.tested && site.copy.is_some() {
                return Some("T: a test runs from a disk that is written");
            }
            if !site.consistent && !site.blocked {
                return Some("I4: an inconsistent disk is bootable");
            }
        }
        let bootable = !target.blocked && target.vm.exists;
        match phase {
            JobPhase::Cancelled(_) | JobPhase::RolledBack(_) if bootable && !target.pristine => {
                Some("I8: a job that went back leaves a changed disk bootable")
            }
            JobPhase::Committed | JobPhase::Protected if !target.consistent || target.blocked => {
                Some("I8: a finished job leaves a half-written target")
            }
            JobPhase::Protected if !source.consistent || !source.blocked => {
                Some("I8: the replica of a finished job is half-written or bootable")
            }
            JobPhase::Planned
            | JobPhase::Prepared
            | JobPhase::Cancelling
            | JobPhase::Cancelled(_) => None,
            _ if self.foreign => Some("G: the job went on beside a target that runs"),
            _ => None,
        }
    }

    /// The same model with its tokens numbered by order, so that models that differ only in how
    /// often something was tried are one.
    pub fn canonical(&self, setup: &Setup) -> Model {
        let mut canonical = self.clone();
        let mut tokens = vec![Token::default()];
        canonical.map_tokens(&mut |token| {
            tokens.push(token);
            token
        });
        tokens.sort_unstable();
        tokens.dedup();
        canonical.map_tokens(&mut |token| Token {
            epoch: 0,
            sequence: tokens.binary_search(&token).unwrap() as u64,
        });
        // Only ever compared with the most passes allowed.
        let most = setup.spec.max_passes;
        canonical.state.pass_count = canonical.state.pass_count.min(most);
        canonical.journal.pass_count = canonical.journal.pass_count.min(most);
        canonical.undelivered.sort_unstable();
        canonical
            .answers
            .sort_unstable_by_key(|(token, answer)| (*token, format_key(answer)));
        canonical
    }

    fn map_tokens(&mut self, map: &mut impl FnMut(Token) -> Token) {
        self.state = map_state(self.state, map);
        self.journal = map_state(self.journal, map);
        for side in SIDES {
            let site = self.sites.of_mut(side);
            site.vm_token = map(site.vm_token);
            site.disk_token = map(site.disk_token);
            site.checkpoints
                .iter_mut()
                .for_each(|(token, _)| *token = map(*token));
            if let Some(copy) = &mut site.copy {
                copy.token = map(copy.token);
            }
        }
        for command in &mut self.undelivered {
            command.token = map(command.token);
            command.action = map_action(command.action, map);
        }
        self.answers
            .iter_mut()
            .for_each(|(token, _)| *token = map(*token));
    }
}

impl Site {
    /// Whether a human, or an HA manager, can start it.
    fn startable(&self) -> bool {
        self.vm.exists && !self.vm.fenced && !self.vm.running && !self.blocked
    }

    fn write(&mut self, block: u8) {
        self.data ^= block;
        if self.recording {
            self.checkpoints
                .iter_mut()
                .for_each(|(_, written)| *written |= block);
        }
    }
}

const REQUESTS: [Request; 13] = [
    Request::Start,
    Request::Test { end: false },
    Request::Test { end: true },
    Request::Complete,
    Request::Abort,
    Request::Cancel { restore: false },
    Request::Cancel { restore: true },
    Request::Undo {
        accept_loss: true,
        restore: false,
    },
    Request::Undo {
        accept_loss: true,
        restore: true,
    },
    Request::Commit,
    Request::Reverse,
    Request::Retry,
    Request::Undo {
        accept_loss: false,
        restore: false,
    },
];

fn root(data: u8) -> Hash {
    let mut root = [0; 32];
    root[0] = data;
    Hash::from_bytes(root)
}

/// Answers to one token differ only in what a VM is seen to be.
fn format_key(answer: &Answer) -> (bool, bool, bool) {
    match answer {
        Answer::Vm(seen) => (seen.exists, seen.running, seen.fenced),
        _ => (false, false, false),
    }
}

const FAILED: Answer = Answer::Failed(Problem::Unavailable);

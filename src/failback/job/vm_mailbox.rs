//! Between the process that runs a job and the executor of each of its VMs.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::failback::executor::{Asked, Bell, Mailbox};
use crate::failback::machine::{Event, Request, State};
use crate::meter::Meter;
use crate::progress::CancelToken;

/// The runner's end.
pub(super) struct VmHandle {
    messages: Sender<Message>,
    shared: Arc<Shared>,
}

/// The executor's end.
pub(super) struct VmMailbox {
    messages: Receiver<Message>,
    shared: Arc<Shared>,
    group: Option<Event>,
    leave: CancelToken,
    /// Wakes the runner.
    noted: Bell,
    /// Begins anew with each command.
    meter: Arc<Meter>,
}

/// What both ends see.
struct Shared {
    state: Mutex<State>,
    /// Wakes the executor.
    bell: Bell,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Message {
    Asked(Asked),
    Group(Event),
}

/// Both ends for a VM that stands at `state`; `leave` ends its executor once it is
/// [woken](VmHandle::wake). `noted` is rung when the state changes.
pub(super) fn vm_mailbox(
    state: State,
    (leave, noted): (CancelToken, Bell),
    meter: Arc<Meter>,
) -> (VmHandle, VmMailbox) {
    let (ask, messages) = channel();
    let (state, bell) = (Mutex::new(state), Bell::new());
    let shared = Arc::new(Shared { state, bell });
    let handle = VmHandle {
        messages: ask,
        shared: shared.clone(),
    };
    let mailbox = VmMailbox {
        messages,
        shared,
        group: None,
        leave,
        noted,
        meter,
    };
    (handle, mailbox)
}

impl VmHandle {
    /// Where the VM's job stands.
    pub(super) fn state(&self) -> State {
        *self.shared.state()
    }

    /// Asks for something and waits until it is written down, or refused.
    ///
    /// # Errors
    /// `InvalidInput` where it is refused; `Io` where the executor has ended.
    pub(super) fn ask(&self, request: Request, by: &str) -> Result<()> {
        let (reply, told) = channel();
        let asked = Asked {
            request,
            by: by.to_owned(),
            reply: Box::new(move |fate| drop(reply.send(fate))),
        };
        let ended = |_| Error::new(ErrorKind::Io, "the executor has ended");
        self.messages
            .send(Message::Asked(asked))
            .map_err(|e| ended(e.to_string()))?;
        self.wake();
        told.recv().map_err(|e| ended(e.to_string()))?
    }

    /// Tells what the VM's group has come to.
    pub(super) fn tell(&self, event: Event) {
        // An executor that has ended is seen to have ended.
        let _ = self.messages.send(Message::Group(event));
        self.wake();
    }

    /// Has the executor look at once.
    pub(super) fn wake(&self) {
        self.shared.bell.ring();
    }
}

impl Mailbox for VmMailbox {
    fn poll(&mut self) -> Result<Option<Asked>> {
        match self.messages.try_recv() {
            Ok(Message::Asked(asked)) => Ok(Some(asked)),
            Ok(Message::Group(event)) => {
                self.group = Some(event);
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }

    fn bell(&self) -> Option<Bell> {
        Some(self.shared.bell.clone())
    }

    fn leave(&self) -> bool {
        self.leave.is_cancelled()
    }

    fn group(&mut self) -> Option<Event> {
        self.group.take()
    }

    fn note(&mut self, state: &State) {
        let mut known = self.shared.state();
        if *known != *state {
            if known.pending != state.pending {
                self.meter.reset();
            }
            *known = *state;
            self.noted.ring();
        }
    }
}

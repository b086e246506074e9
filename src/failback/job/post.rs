//! Between the process that carries a job and the executor of each of its VMs.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::control::CancelToken;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::executor::{Asked, Bell, Inbox};
use crate::failback::machine::{Gesture, State};

/// The carrier's end.
pub(super) struct Post {
    letters: Sender<Letter>,
    state: Arc<Mutex<State>>,
    /// Wakes the executor.
    bell: Bell,
}

/// The executor's end.
pub(super) struct Letterbox {
    letters: Receiver<Letter>,
    state: Arc<Mutex<State>>,
    activates: bool,
    leave: CancelToken,
    bell: Bell,
    /// Wakes the carrier.
    noted: Bell,
}

enum Letter {
    Asked(Asked),
    Activate,
}

/// Both ends for a VM that stands at `state`; `leave` ends its executor once it is
/// [woken](Post::wake). `noted` is rung when the state changes.
pub(super) fn post(state: State, leave: CancelToken, noted: Bell) -> (Post, Letterbox) {
    let bell = Bell::new();
    let (ask, asked) = channel();
    let state = Arc::new(Mutex::new(state));
    let letterbox = Letterbox {
        letters: asked,
        state: state.clone(),
        activates: false,
        leave,
        bell: bell.clone(),
        noted,
    };
    let post = Post {
        letters: ask,
        state,
        bell,
    };
    (post, letterbox)
}

impl Post {
    /// Where the VM's job stands.
    pub fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for something and waits until it is written down, or refused.
    ///
    /// # Errors
    /// `InvalidInput` where it is refused; `Io` where the executor has ended.
    pub fn ask(&self, gesture: Gesture, by: &str) -> Result<()> {
        let (reply, told) = channel();
        let asked = Asked {
            gesture,
            by: by.to_owned(),
            reply: Box::new(move |fate| drop(reply.send(fate))),
        };
        let ended = |_| Error::new(ErrorKind::Io, "the executor has ended");
        self.letters
            .send(Letter::Asked(asked))
            .map_err(|e| ended(e.to_string()))?;
        self.wake();
        told.recv().map_err(|e| ended(e.to_string()))?
    }

    /// Tells that the VM's group is to be activated.
    pub fn activate(&self) {
        // An executor that has ended is seen to have ended.
        let _ = self.letters.send(Letter::Activate);
        self.wake();
    }

    /// Has the executor look at once.
    pub fn wake(&self) {
        self.bell.ring();
    }
}

impl Inbox for Letterbox {
    fn poll(&mut self) -> Result<Option<Asked>> {
        match self.letters.try_recv() {
            Ok(Letter::Asked(asked)) => Ok(Some(asked)),
            Ok(Letter::Activate) => {
                self.activates = true;
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }

    fn bell(&self) -> Option<Bell> {
        Some(self.bell.clone())
    }

    fn leave(&self) -> bool {
        self.leave.is_cancelled()
    }

    fn activates(&mut self) -> bool {
        std::mem::take(&mut self.activates)
    }

    fn note(&mut self, state: &State) {
        let mut known = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != *state {
            *known = *state;
            self.noted.ring();
        }
    }
}

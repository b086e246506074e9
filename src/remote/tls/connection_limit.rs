//! How many may be there at a time.

use std::io;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::crowd::Crowd;

/// The places of a service.
///
/// Whoever has shown no certificate yet takes none of the sessions' places. Of such there are few
/// at a time as well, and fewer at one address: see [`Crowd`].
pub(super) struct ConnectionLimit {
    sessions_most: usize,
    state: Mutex<State>,
}

struct State {
    sessions: usize,
    strangers: Crowd<TcpStream>,
    is_closed: bool,
}

/// A session's place, until it is dropped.
pub(super) struct Slot<'a> {
    places: &'a ConnectionLimit,
    /// Counts the sessions from 1.
    pub number: u64,
}

/// The place of one who has shown no certificate yet, until it is dropped.
pub(super) struct Threshold<'a> {
    places: &'a ConnectionLimit,
    number: u64,
}

impl ConnectionLimit {
    pub fn new(sessions_most: usize, strangers: Crowd<TcpStream>) -> Self {
        ConnectionLimit {
            sessions_most,
            state: Mutex::new(State {
                sessions: 0,
                strangers,
                is_closed: false,
            }),
        }
    }

    /// A place for one at `address` who has shown no certificate.
    pub fn stranger(&self, socket: &TcpStream, address: IpAddr) -> io::Result<Threshold<'_>> {
        let socket = socket.try_clone()?;
        let mut state = self.lock();
        if state.is_closed {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let (number, gone) = state.strangers.add(address, socket);
        if let Some(gone) = gone {
            let _ = gone.shutdown(Shutdown::Both);
        }
        Ok(Threshold {
            places: self,
            number,
        })
    }

    /// A place for a session, where there is one.
    pub fn session(&self, number: u64) -> Option<Slot<'_>> {
        let mut state = self.lock();
        if state.sessions >= self.sessions_most || state.is_closed {
            return None;
        }
        state.sessions += 1;
        Some(Slot {
            places: self,
            number,
        })
    }

    /// Lets nobody in any more, and cuts off who has shown no certificate yet.
    pub fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        for stranger in state.strangers.clear() {
            let _ = stranger.shutdown(Shutdown::Both);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Threshold<'_> {
    /// Counts the connections from 1.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.places.lock().sessions -= 1;
    }
}

impl Drop for Threshold<'_> {
    fn drop(&mut self) {
        self.places.lock().strangers.remove(self.number);
    }
}

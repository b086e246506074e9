//! How many may be there at a time.

use std::io;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::crowd::Crowd;

/// The connection limit of a service.
///
/// An unauthenticated client takes no slot of a session. Their number is limited
/// as well, and fewer are allowed from one address: see [`Crowd`].
pub(in crate::remote) struct ConnectionLimit {
    sessions_most: usize,
    state: Mutex<State>,
}

struct State {
    sessions: usize,
    unauthenticated: Crowd<TcpStream>,
    is_closed: bool,
}

/// A session's slot, until it is dropped.
pub(in crate::remote) struct Slot<'a> {
    connection_limit: &'a ConnectionLimit,
    /// Counts the sessions from 1.
    pub number: u64,
}

/// The slot of an unauthenticated client, until it is dropped.
pub(in crate::remote) struct HandshakeSlot<'a> {
    connection_limit: &'a ConnectionLimit,
    number: u64,
}

impl ConnectionLimit {
    pub(in crate::remote) fn new(sessions_most: usize, unauthenticated: Crowd<TcpStream>) -> Self {
        ConnectionLimit {
            sessions_most,
            state: Mutex::new(State {
                sessions: 0,
                unauthenticated,
                is_closed: false,
            }),
        }
    }

    /// A slot for an unauthenticated client at `address`.
    pub(in crate::remote) fn unauthenticated(
        &self,
        socket: &TcpStream,
        address: IpAddr,
    ) -> io::Result<HandshakeSlot<'_>> {
        let socket = socket.try_clone()?;
        let mut state = self.lock();
        if state.is_closed {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let (number, gone) = state.unauthenticated.add(address, socket);
        if let Some(gone) = gone {
            let _ = gone.shutdown(Shutdown::Both);
        }
        Ok(HandshakeSlot {
            connection_limit: self,
            number,
        })
    }

    /// A place for a session, where there is one.
    pub(in crate::remote) fn session(&self, number: u64) -> Option<Slot<'_>> {
        let mut state = self.lock();
        if state.sessions >= self.sessions_most || state.is_closed {
            return None;
        }
        state.sessions += 1;
        Some(Slot {
            connection_limit: self,
            number,
        })
    }

    /// Admits no client any more, and cuts off those who have shown no certificate yet.
    pub(in crate::remote) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        for peer in state.unauthenticated.clear() {
            let _ = peer.shutdown(Shutdown::Both);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandshakeSlot<'_> {
    /// Counts the connections from 1.
    pub(in crate::remote) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.connection_limit.lock().sessions -= 1;
    }
}

impl Drop for HandshakeSlot<'_> {
    fn drop(&mut self) {
        self.connection_limit
            .lock()
            .unauthenticated
            .remove(self.number);
    }
}

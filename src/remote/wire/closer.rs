//! Shuts down the sockets under a line that has ended.

use std::any::Any;
use std::net::{Shutdown, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;

/// The sockets under a line, where its reader and writer are such.
///
/// A clone of a socket stays open as long as any of its clones: a reader that waits for the other
/// end keeps it open for good, and two ends in one process then wait for each other. Shutting it
/// down ends that. Other readers end when the other end closes its side, or says that it has
/// nothing more to send.
#[derive(Default)]
pub(in crate::remote) struct Closer(Vec<Socket>);

enum Socket {
    #[cfg(unix)]
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Closer {
    /// The sockets that `reader` and `writer` are.
    pub(crate) fn of(reader: &dyn Any, writer: &dyn Any) -> Self {
        Closer(
            [reader, writer]
                .into_iter()
                .filter_map(Socket::of)
                .collect(),
        )
    }

    /// Whether there is nothing that could be shut down.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Shuts both directions down; one that is down already is left as it is.
    pub(crate) fn close(&self) {
        for socket in &self.0 {
            let _ = match socket {
                #[cfg(unix)]
                Socket::Unix(socket) => socket.shutdown(Shutdown::Both),
                Socket::Tcp(socket) => socket.shutdown(Shutdown::Both),
            };
        }
    }
}

impl Socket {
    /// `None` also where there is no descriptor left for it.
    fn of(stream: &dyn Any) -> Option<Self> {
        #[cfg(unix)]
        if let Some(socket) = stream.downcast_ref::<UnixStream>() {
            return socket.try_clone().ok().map(Socket::Unix);
        }
        let socket = stream.downcast_ref::<TcpStream>()?;
        socket.try_clone().ok().map(Socket::Tcp)
    }
}

//! A service: many sessions at once, each with an end that has shown its certificate.

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::{Connection, ServerConfig, ServerConnection};

use super::session::serve::{ServeOptions, Served, serve_told};
use super::tls::config::{fingerprint, serving};
use super::tls::connection_limit::ConnectionLimit;
use super::tls::crowd::Crowd;
use super::tls::error::Peers;
use super::tls::handshake::{self, shake};
use super::tls::identity::Identity;
use super::tls::stream::TlsLine;
use super::tls::subject::common_name;
use super::wire::connection::Line;
use super::wire::message::Message;
use super::wire::outcome::Fault;
use super::wire::request::RemoteJob;
use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::location::{RemoteAddress, split_port};
use crate::progress::{Work, check_threads};
use crate::setters::setters;

/// What a service does for clients with a certificate that it takes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServiceOptions {
    /// What each session may do, and how its line is watched.
    pub serve: ServeOptions,
    /// How many sessions there may be at a time. Each takes at most 128 MiB of memory.
    pub sessions: usize,
    /// How long a handshake may take.
    pub patience: Duration,
    /// How many threads each session works on; 0 as in [`Work::with_threads`].
    pub threads: usize,
}

setters! {
    ServiceOptions:
    /// Replaces [`ServiceOptions::serve`].
    with_serve, serve: ServeOptions;
    /// Replaces [`ServiceOptions::sessions`].
    with_sessions, sessions: usize;
    /// Replaces [`ServiceOptions::patience`].
    with_patience, patience: Duration;
    /// Replaces [`ServiceOptions::threads`].
    with_threads, threads: usize;
}

impl Default for ServiceOptions {
    fn default() -> Self {
        ServiceOptions {
            serve: ServeOptions::default(),
            sessions: 8,
            patience: Duration::from_secs(10),
            threads: 0,
        }
    }
}

/// Something that happened at a service.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServiceEvent<'a> {
    /// A client was refused.
    Refused {
        /// Where from.
        address: SocketAddr,
        /// Why.
        error: &'a Error,
    },
    /// A session has its job.
    Begun {
        /// Counts the connections to this service.
        session: u64,
        /// Who it is.
        client: &'a Client,
        /// What is to be done.
        job: &'a RemoteJob,
    },
    /// A session is over.
    Ended {
        /// Which.
        session: u64,
        /// Who it was.
        client: &'a Client,
        /// What became of the job; an error where the other end could not be told of it.
        served: &'a Result<Served>,
        /// How long it took.
        elapsed: Duration,
    },
}

/// Who is at the other end of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Where from.
    pub address: SocketAddr,
    /// The common name in the subject of the certificate; it may be anything that the authority
    /// has signed.
    pub name: Option<String>,
    /// The SHA-256 of the certificate, in hex.
    pub fingerprint: String,
}

/// One who has connected, and was not spoken to yet.
struct Caller {
    socket: TcpStream,
    address: SocketAddr,
    begun: Instant,
}

impl Caller {
    /// The same, where something has come that is more than an end.
    fn speaks(self) -> Option<Self> {
        let came = self.socket.peek(&mut [0]);
        let speaks = came.is_ok_and(|count| count > 0);
        (speaks && self.socket.set_nonblocking(false).is_ok()).then_some(self)
    }
}

/// A service that listens.
pub struct Service {
    listener: TcpListener,
    config: Arc<ServerConfig>,
    identity: Identity,
    options: ServiceOptions,
}

opaque!(Service);

impl Service {
    /// Listens at `address`: `host:port`, `host` alone for port 8730, port 0 for any.
    ///
    /// # Errors
    /// Those of reading the identity's files; `InvalidInput` for an odd address, for a key
    /// that is not the certificate's, and for more threads than [`Work::with_threads`] starts;
    /// `Io`.
    pub fn bind(address: &str, identity: &Identity, options: ServiceOptions) -> Result<Service> {
        let odd = || {
            let text = format!("`{address}` is not an address to listen at");
            Error::new(ErrorKind::InvalidInput, text).advise("write 0.0.0.0:8730 or [::]:8730")
        };
        let failed = |cause: std::io::Error| {
            let text = format!("cannot listen at {address}");
            Error::new(ErrorKind::Io, text).caused_by(cause)
        };
        check_threads(options.threads)?;
        let (host, port) = split_port(address).ok_or_else(odd)?;
        let config = Arc::new(serving(identity)?);
        let connection_limit =
            (host, port.unwrap_or(RemoteAddress::SERVICE_PORT)).to_socket_addrs();
        let connection_limit: Vec<SocketAddr> = connection_limit.map_err(failed)?.collect();
        let listener = TcpListener::bind(connection_limit.as_slice()).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Service {
            listener,
            config,
            identity: identity.clone(),
            options,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// `Io`.
    pub fn address(&self) -> Result<SocketAddr> {
        let address = self.listener.local_addr();
        address.map_err(|cause| Error::io("inspect the listening socket", cause))
    }

    /// Serves until `work` is cancelled and all sessions have ended, which the same token stops;
    /// `watch` gets what happens, from any thread.
    ///
    /// # Errors
    /// `Io` where no client can connect any more.
    pub fn run(&self, work: &Work, watch: &(dyn Fn(&ServiceEvent<'_>) + Sync)) -> Result<()> {
        let unauthenticated = Crowd::new(MAX_UNAUTHENTICATED, MAX_UNAUTHENTICATED_PER_ADDRESS);
        let connection_limit = ConnectionLimit::new(self.options.sessions, unauthenticated);
        std::thread::scope(|scope| {
            let mut silent = Crowd::new(MAX_SILENT, MAX_SILENT_PER_ADDRESS);
            let ended = loop {
                if work.cancel().is_cancelled() {
                    break Ok(());
                }
                let speaking = match self.listen(&mut silent, watch) {
                    Ok(speaking) => speaking,
                    Err(error) => break Err(error),
                };
                for caller in speaking {
                    let (connection_limit, address) = (&connection_limit, caller.address);
                    let session = move || {
                        let receive = || self.receive(caller, connection_limit, work, watch);
                        if catch_unwind(AssertUnwindSafe(receive)).is_err() {
                            let text = "a fault of this program ended the session";
                            let error = &Error::new(ErrorKind::Io, text);
                            watch(&ServiceEvent::Refused { address, error });
                        }
                    };
                    // Where there is no thread for it, the client is cut off.
                    drop(Builder::new().spawn_scoped(scope, session));
                }
            };
            connection_limit.close();
            ended
        })
    }

    /// Waits a moment for those who connect, and for those who did to say something: until then
    /// they take no thread. Returns those who have.
    fn listen(
        &self,
        silent: &mut Crowd<Caller>,
        watch: &(dyn Fn(&ServiceEvent<'_>) + Sync),
    ) -> Result<Vec<Caller>> {
        let mut polled = vec![PollFd::new(&self.listener, PollFlags::IN)];
        polled.extend(
            silent
                .iter()
                .map(|(_, caller)| PollFd::new(&caller.socket, PollFlags::IN)),
        );
        match poll(&mut polled, Some(&NAP)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(cause) => return Err(Error::io("wait for connections", cause)),
        }
        let is_ready: Vec<bool> = polled.iter().map(|it| !it.revents().is_empty()).collect();
        drop(polled);
        let refused = |caller: &Caller, error: Error| {
            let (address, error) = (caller.address, &error);
            watch(&ServiceEvent::Refused { address, error });
        };
        let (mut speaking, mut late) = (Vec::new(), Vec::new());
        for ((number, caller), is_ready) in silent.iter().zip(is_ready.iter().skip(1)) {
            if *is_ready {
                speaking.push(number);
            } else if caller.begun.elapsed() >= self.options.patience {
                late.push(number);
            }
        }
        for caller in late.into_iter().filter_map(|number| silent.remove(number)) {
            let peer = format!("the client at {}", caller.address);
            refused(&caller, handshake::late(&peer, self.options.patience));
        }
        let speaking = speaking.into_iter();
        let speaking = speaking.filter_map(|number| silent.remove(number)?.speaks());
        let speaking: Vec<Caller> = speaking.collect();
        if is_ready.first() == Some(&true) {
            for _ in 0..ACCEPTED {
                let (socket, address) = match self.listener.accept() {
                    Ok(accepted) => accepted,
                    Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => break,
                    // It was gone again, or there are too many open files; that may pass.
                    Err(_) => {
                        std::thread::sleep(BREATH);
                        break;
                    }
                };
                if socket.set_nonblocking(true).is_err() {
                    continue;
                }
                let begun = Instant::now();
                let caller = Caller {
                    socket,
                    address,
                    begun,
                };
                if let (_, Some(gone)) = silent.add(address.ip(), caller) {
                    let text = "others came, and it had said nothing yet";
                    refused(&gone, Error::new(ErrorKind::Io, text));
                }
            }
        }
        Ok(speaking)
    }

    fn receive(
        &self,
        caller: Caller,
        connection_limit: &ConnectionLimit,
        work: &Work,
        watch: &(dyn Fn(&ServiceEvent<'_>) + Sync),
    ) {
        let address = caller.address;
        let refused = |error: &Error| {
            watch(&ServiceEvent::Refused { address, error });
        };
        let handshake_slot = match connection_limit.unauthenticated(&caller.socket, address.ip()) {
            Ok(handshake_slot) => handshake_slot,
            Err(cause) => return refused(&Error::io("admit a client", cause)),
        };
        let (line, client) = match self.shake(caller) {
            Ok(known) => known,
            Err(error) => return refused(&error),
        };
        let Some(place) = connection_limit.session(handshake_slot.number()) else {
            let error = self.full();
            refused(&error);
            return self.reject(line, &error);
        };
        drop(handshake_slot);
        let begun = Instant::now();
        let session = place.number;
        let served = self.serve(line, work, &client, &|job| {
            let client = &client;
            watch(&ServiceEvent::Begun {
                session,
                client,
                job,
            });
        });
        drop(place);
        watch(&ServiceEvent::Ended {
            session,
            client: &client,
            served: &served,
            elapsed: begun.elapsed(),
        });
    }

    fn shake(&self, caller: Caller) -> Result<(TlsLine, Client)> {
        let Caller {
            socket,
            address,
            begun,
        } = caller;
        let peers = Peers {
            peer: format!("the client at {address}"),
            ours: self.identity.clone(),
        };
        let failed = |cause| Error::io("set up the line", cause);
        socket.set_nodelay(true).map_err(failed)?;
        let connection = ServerConnection::new(self.config.clone());
        let mut connection: Connection = connection.map_err(|cause| peers.explain(cause))?.into();
        let within = (begun, self.options.patience);
        shake(&mut connection, &socket, within, &peers)?;
        peers.check_protocol(connection.alpn_protocol())?;
        let certificates = connection.peer_certificates().unwrap_or_default();
        let Some(certificate) = certificates.first() else {
            return Err(peers.explain(rustls::Error::NoCertificatesPresented));
        };
        let client = Client {
            address,
            name: common_name(certificate),
            fingerprint: fingerprint(certificate),
        };
        Ok((TlsLine::new(connection, socket, peers)?, client))
    }

    fn serve(
        &self,
        mut line: TlsLine,
        work: &Work,
        client: &Client,
        told: &dyn Fn(&RemoteJob),
    ) -> Result<Served> {
        // Threads of its own, so that no session waits for the work of another.
        let work = Work::with_threads(self.options.threads)?.with_cancel(work.cancel().clone());
        let (reader, writer) = line.streams()?;
        let mut options = self.options.serve.clone();
        options.line = options
            .line
            .or_peer(&format!("the client at {}", client.address));
        serve_told(reader, writer, &options, &work, None, told)
    }

    fn full(&self) -> Error {
        let most = self.options.sessions;
        let text = format!("this service has as many sessions as it may have ({most})");
        Error::new(ErrorKind::Io, text)
            .advise(Advice::RunAgain)
            .or_advise(Advice::Retry)
    }

    /// Says why; one that does not listen is cut off.
    fn reject(&self, mut line: TlsLine, error: &Error) {
        let Ok((reader, writer)) = line.streams() else {
            return;
        };
        let Ok(told) = Line::new(reader, writer, self.options.serve.line.clone()) else {
            return;
        };
        let _ = told.send(&Message::Fail(Box::new(Fault::of(error, false))));
        told.finish();
    }
}

/// Most who shake hands, and of those most at one address.
const MAX_UNAUTHENTICATED: usize = 64;
const MAX_UNAUTHENTICATED_PER_ADDRESS: usize = 32;
/// Most who have said nothing yet, and of those most at one address.
const MAX_SILENT: usize = 256;
const MAX_SILENT_PER_ADDRESS: usize = 192;
/// Most who are let in before it is looked who has spoken.
const ACCEPTED: usize = 64;
const NAP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
const BREATH: Duration = Duration::from_millis(100);

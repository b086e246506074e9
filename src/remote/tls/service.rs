//! A service: many sessions at once, each with an end that has shown its certificate.

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::Builder;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::{Connection, ServerConfig, ServerConnection};

use super::address::{ServicePath, split_port};
use super::config::{fingerprint, serving};
use super::handshake::shake;
use super::identity::Identity;
use super::places::Places;
use super::stream::TlsLine;
use super::subject::common_name;
use super::trouble::Parties;
use crate::control::{Work, check_threads};
use crate::error::{Error, ErrorKind, Result};
use crate::remote::job::{Fault, Job};
use crate::remote::line::Line;
use crate::remote::message::Message;
use crate::remote::serve::{ServeOptions, Served, serve_told};
use crate::setters::setters;

/// What a service does for whoever has a certificate that it takes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServiceOptions {
    /// What each session may do, and how its line is watched.
    pub serve: ServeOptions,
    /// How many sessions there may be at a time. Each takes at most 128 MiB of memory.
    pub sessions: usize,
    /// How long a handshake may take.
    pub patience: Duration,
    /// How many threads each session works on; 0 as in [`Work::new`].
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
    /// Somebody was not let in.
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
        job: &'a Job,
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

/// A service that listens.
pub struct Service {
    listener: TcpListener,
    config: Arc<ServerConfig>,
    identity: Identity,
    options: ServiceOptions,
}

impl Service {
    /// Listens at `address`: `host:port`, `host` alone for port 8730, port 0 for any.
    ///
    /// # Errors
    /// Those of reading the identity's files; `InvalidInput` for an odd address, for a key
    /// that is not the certificate's, and for more threads than [`Work::new`] starts; `Io`.
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
        let places = (host, port.unwrap_or(ServicePath::PORT)).to_socket_addrs();
        let places: Vec<SocketAddr> = places.map_err(failed)?.collect();
        let listener = TcpListener::bind(places.as_slice()).map_err(failed)?;
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
        address.map_err(|cause| Error::io("look at the listening socket", cause))
    }

    /// Serves until `work` is cancelled and all sessions have ended, which the same token stops;
    /// `watch` is told what happens, from any thread.
    ///
    /// # Errors
    /// `Io` where nobody can connect any more.
    pub fn run(&self, work: &Work, watch: &(dyn Fn(&ServiceEvent<'_>) + Sync)) -> Result<()> {
        let places = Places::new(self.options.sessions, STRANGERS);
        std::thread::scope(|scope| {
            let ended = loop {
                if work.cancel().is_cancelled() {
                    break Ok(());
                }
                match self.accept() {
                    Ok(None) => {}
                    Ok(Some((socket, address))) => {
                        let places = &places;
                        let session = move || {
                            let receive = || self.receive(socket, address, places, work, watch);
                            if catch_unwind(AssertUnwindSafe(receive)).is_err() {
                                let text = "a fault of this program ended the session";
                                let error = &Error::new(ErrorKind::Io, text);
                                watch(&ServiceEvent::Refused { address, error });
                            }
                        };
                        // Where there is no thread for it, whoever dialled is cut off.
                        drop(Builder::new().spawn_scoped(scope, session));
                    }
                    Err(error) => break Err(error),
                }
            };
            places.close();
            ended
        })
    }

    /// The next to connect within a moment.
    fn accept(&self) -> Result<Option<(TcpStream, SocketAddr)>> {
        let mut polled = [PollFd::new(&self.listener, PollFlags::IN)];
        let ready = match poll(&mut polled, Some(&NAP)) {
            Ok(count) => count > 0,
            Err(rustix::io::Errno::INTR) => false,
            Err(cause) => return Err(Error::io("wait for connections", cause)),
        };
        if !ready {
            return Ok(None);
        }
        match self.listener.accept() {
            Ok(accepted) => Ok(Some(accepted)),
            // It was gone again, or there are too many open files; that may pass.
            Err(_) => {
                std::thread::sleep(BREATH);
                Ok(None)
            }
        }
    }

    fn receive(
        &self,
        socket: TcpStream,
        address: SocketAddr,
        places: &Places,
        work: &Work,
        watch: &(dyn Fn(&ServiceEvent<'_>) + Sync),
    ) {
        let refused = |error: &Error| {
            watch(&ServiceEvent::Refused { address, error });
        };
        let threshold = match places.stranger(&socket) {
            Ok(threshold) => threshold,
            Err(cause) => return refused(&Error::io("let somebody in", cause)),
        };
        let (line, client) = match self.shake(socket, address) {
            Ok(known) => known,
            Err(error) => return refused(&error),
        };
        let Some(place) = places.session(threshold.number()) else {
            let error = self.full();
            refused(&error);
            return self.turn_away(line, &error);
        };
        drop(threshold);
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

    fn shake(&self, socket: TcpStream, address: SocketAddr) -> Result<(TlsLine, Client)> {
        let parties = Parties {
            peer: format!("the client at {address}"),
            ours: self.identity.clone(),
        };
        let failed = |cause| Error::io("set up the line", cause);
        socket.set_nodelay(true).map_err(failed)?;
        let connection = ServerConnection::new(self.config.clone());
        let mut connection: Connection = connection.map_err(|cause| parties.explain(cause))?.into();
        shake(&mut connection, &socket, self.options.patience, &parties)?;
        let certificates = connection.peer_certificates().unwrap_or_default();
        let Some(certificate) = certificates.first() else {
            return Err(parties.explain(rustls::Error::NoCertificatesPresented));
        };
        let client = Client {
            address,
            name: common_name(certificate),
            fingerprint: fingerprint(certificate),
        };
        Ok((TlsLine::new(connection, socket, parties)?, client))
    }

    fn serve(
        &self,
        mut line: TlsLine,
        work: &Work,
        client: &Client,
        told: &dyn Fn(&Job),
    ) -> Result<Served> {
        // Threads of its own, so that no session waits for the work of another.
        let work = Work::new(self.options.threads)?.with_cancel(work.cancel().clone());
        let (reader, writer) = line.streams()?;
        let mut options = self.options.serve.clone();
        options.line = options
            .line
            .or_peer(&format!("the dialler at {}", client.address));
        serve_told(reader, writer, &options, &work, None, told)
    }

    fn full(&self) -> Error {
        let most = self.options.sessions;
        let text = format!("this service has as many sessions as it may have ({most})");
        Error::new(ErrorKind::Io, text).advise("try again later, or with --retry")
    }

    /// Says why; one that does not listen is cut off.
    fn turn_away(&self, mut line: TlsLine, error: &Error) {
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

/// Most who have shown no certificate yet.
const STRANGERS: usize = 64;
const NAP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
const BREATH: Duration = Duration::from_millis(100);

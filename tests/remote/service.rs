//! A service that runs in this process, and what connects to it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use diskdelta::remote::tls::{
    DialOptions, Identity, Service, ServiceEvent, ServiceOptions, TlsLine,
};
use diskdelta::remote::{Client, LineOptions, ServeOptions, Served};
use diskdelta::sync::{SyncOptions, SyncReport, Traffic, sync};
use diskdelta::{CancelToken, RemoteAddress, Result};

use rcgen::CertificateParams;

use crate::certificates::{Authority, Valid};
use crate::lines::{Fixture, open, push_over, target_job, work};

/// Certificates of all kinds: those of `ca` are good, but for their dates.
pub struct Papers {
    directory: tempfile::TempDir,
}

impl Papers {
    pub fn new() -> Papers {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let here = ["localhost", "127.0.0.1"];
        let good = Authority::at(&path.join("ca.pem"));
        good.sign(path, "server", &here, Valid::Now);
        good.sign(path, "server-once", &here, Valid::Once);
        good.sign(path, "server-later", &here, Valid::Later);
        good.sign(path, "server-elsewhere", &["backup.example"], Valid::Now);
        good.sign(path, "alice", &[], Valid::Now);
        good.sign(path, "alice-once", &[], Valid::Once);
        good.sign(path, "alice-later", &[], Valid::Later);
        let other = Authority::at(&path.join("other-ca.pem"));
        other.sign(path, "server-other", &here, Valid::Now);
        other.sign(path, "mallory", &[], Valid::Now);
        Papers { directory }
    }

    /// Has the good authority sign one more, as `change` makes it.
    pub fn odd(&self, name: &str, hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let path = self.directory.path();
        let authority = Authority::at(&path.join("odd-ca.pem"));
        authority.sign_with(path, name, hosts, Valid::Now, change);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Who shows the certificate `name` and trusts `ca`.
    pub fn of(&self, name: &str, ca: &str) -> Identity {
        Identity::new(
            self.path(&format!("{name}.pem")),
            self.path(&format!("{name}.key")),
            self.path(&format!("{ca}.pem")),
        )
    }
}

/// A service on a thread; stopped when dropped.
pub struct Running {
    pub address: SocketAddr,
    pub cancel: CancelToken,
    thread: Option<JoinHandle<Result<()>>>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Running {
    pub fn start(identity: &Identity, options: ServiceOptions) -> Running {
        let service = Service::bind("127.0.0.1:0", identity, options).unwrap();
        let address = service.address().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let listed = said.clone();
        let work = work();
        let cancel = work.cancel().clone();
        let thread = std::thread::spawn(move || {
            service.run(&work, &|event| listed.lock().unwrap().push(text(event)))
        });
        Running {
            address,
            cancel,
            thread: Some(thread),
            said,
        }
    }

    /// Waits until an event says so.
    pub fn says(&self, part: &str) {
        for _ in 0..1500 {
            if self.said.lock().unwrap().iter().any(|it| it.contains(part)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("never said {part}: {:?}", self.said.lock().unwrap());
    }

    pub fn ended(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }

    /// What connects to it.
    pub fn service_client(&self, identity: Identity) -> ServiceClient {
        ServiceClient {
            address: self.address,
            options: DialOptions::new(identity),
            line: LineOptions::default(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
        if !std::thread::panicking() {
            self.ended();
        }
    }
}

fn text(event: &ServiceEvent<'_>) -> String {
    match event {
        ServiceEvent::Refused { error, .. } => format!("refused: {error}"),
        ServiceEvent::Begun { client, job, .. } => {
            let path = String::from_utf8_lossy(&job.path);
            let name = client.name.as_deref().unwrap_or_default();
            format!("begun: {name} {} {path}", client.fingerprint)
        }
        ServiceEvent::Ended { served, .. } => match served {
            Ok(Served::Done) => "ended: done".to_owned(),
            Ok(Served::Refused(error)) | Err(error) => format!("ended: {error}"),
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    }
}

/// Connects to a service, through whatever is at `address`.
#[derive(Clone)]
pub struct ServiceClient {
    pub address: SocketAddr,
    pub options: DialOptions,
    pub line: LineOptions,
}

impl ServiceClient {
    pub fn dial(&self) -> Result<(Client, TlsLine)> {
        let place = format!("diskdelta://{}/x", self.address);
        let place = RemoteAddress::parse(place).unwrap();
        let mut line = TlsLine::dial(&place, &self.options)?;
        let (reader, writer) = line.streams()?;
        let client = Client::new(reader, writer, &self.line, &work())?;
        Ok((client, line))
    }

    pub fn pull(&self, fixture: &Fixture, from: &str, onto: &str) -> Result<(SyncReport, Traffic)> {
        let target = fixture.target(onto);
        let (client, _line) = self.dial()?;
        let source = open(client, from)?;
        let report = sync(&source, target.target(), &SyncOptions::default(), &work())?;
        Ok((report.clone(), report.traffic.unwrap()))
    }

    pub fn push(&self, fixture: &Fixture, from: &str, onto: &str) -> Result<(SyncReport, Traffic)> {
        let source = fixture.source(from);
        let (client, _line) = self.dial()?;
        push_over(client, &source, onto, target_job())
    }
}

/// What serves the directory of a fixture.
pub fn serving(fixture: &Fixture) -> ServiceOptions {
    options(fixture.serve())
}

pub fn options(serve: ServeOptions) -> ServiceOptions {
    ServiceOptions::default().with_serve(serve).with_threads(2)
}

/// A fixture with a disk and two old copies of it.
pub fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 1500, 1);
    fixture.changed("new.raw", "here.raw", 9);
    fixture.changed("new.raw", "there.raw", 7);
    fixture
}

pub fn bytes(fixture: &Fixture, name: &str) -> Vec<u8> {
    fs::read(fixture.path(name)).unwrap()
}

//! Sessions over TLS, and who is let in.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use diskdelta::remote::tls::{Identity, Service};
use diskdelta::remote::{LineOptions, Retry};
use diskdelta::sync::{Outcome, sync};
use diskdelta::{Error, ErrorKind};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa};

use crate::lines::{Fixture, open, work};
use crate::service::{Papers, Running, ServiceClient, bytes, fixture, serving};

fn start(papers: &Papers, fixture: &Fixture) -> Running {
    Running::start(&papers.of("server", "ca"), serving(fixture))
}

#[test]
fn who_has_a_certificate_syncs_both_ways_and_is_named() {
    let (papers, fixture) = (Papers::new(), fixture());
    let service = start(&papers, &fixture);
    let alice = service.service_client(papers.of("alice", "ca"));
    let (report, traffic) = alice.pull(&fixture, "new.raw", "here.raw").unwrap();
    assert!(fixture.same("new.raw", "here.raw"));
    assert_eq!(report.outcome, Outcome::Synced);
    assert!(traffic.received_bytes > report.changed_bytes);
    let (report, _) = alice.push(&fixture, "new.raw", "there.raw").unwrap();
    assert!(fixture.same("new.raw", "there.raw"));
    assert_eq!(report.outcome, Outcome::Synced);
    let der = rustls_pem(&papers.of("alice", "ca"));
    let print: String = <sha2::Sha256 as sha2::Digest>::digest(der)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    service.says(&format!("begun: alice {print} new.raw"));
    service.says(&format!("begun: alice {print} there.raw"));
    service.says("ended: done");
    assert_eq!(fixture.names(), ["here.raw", "new.raw", "there.raw"]);
}

/// Usages, whether it is an authority, and whether it is good for a client and for a service.
type Odd = (Vec<ExtendedKeyUsagePurpose>, bool, [bool; 2]);

#[test]
fn a_certificate_is_good_only_for_what_it_is_meant_for() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    let fixture = fixture();
    let cases: [Odd; 8] = [
        (vec![ClientAuth], false, [true, false]),
        (vec![ServerAuth], false, [false, true]),
        (vec![ServerAuth, ClientAuth], false, [true, true]),
        (vec![], false, [false, false]),
        (vec![Any], false, [false, false]),
        (vec![CodeSigning], false, [false, false]),
        (vec![ClientAuth, ServerAuth], true, [false, false]),
        (vec![], true, [false, false]),
    ];
    for (usages, is_authority, [client, server]) in cases {
        let case = format!("{usages:?} {is_authority}");
        let papers = Papers::new();
        papers.odd("odd", &["localhost", "127.0.0.1"], |params| {
            params.extended_key_usages = usages;
            if is_authority {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
        });
        let good = std::fs::read_to_string(papers.path("ca.pem")).unwrap();
        let odd = std::fs::read_to_string(papers.path("odd-ca.pem")).unwrap();
        std::fs::write(papers.path("all.pem"), good + &odd).unwrap();
        let check = |service: &str, client: &str, is_good: bool| {
            let service = Running::start(&papers.of(service, "all"), serving(&fixture));
            let service_client = service.service_client(papers.of(client, "all"));
            match service_client.pull(&fixture, "new.raw", "here.raw") {
                Ok(_) => assert!(is_good, "{case}: {client} was taken"),
                Err(error) => {
                    assert!(!is_good, "{case}: {error}");
                    assert_eq!(error.kind(), ErrorKind::Untrusted, "{case}: {error}");
                }
            }
        };
        check("server", "odd", client);
        check("odd", "alice", server);
    }
}

fn rustls_pem(identity: &Identity) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    let der = rustls::pki_types::CertificateDer::from_pem_file(&identity.cert).unwrap();
    der.to_vec()
}

#[test]
fn many_sessions_go_on_at_once() {
    let (papers, fixture) = (Papers::new(), fixture());
    let service = start(&papers, &fixture);
    let alice = service.service_client(papers.of("alice", "ca"));
    for index in 0..6 {
        fixture.changed("new.raw", &format!("{index}.raw"), 5 + index);
    }
    std::thread::scope(|scope| {
        for index in 0..6 {
            let (alice, fixture) = (&alice, &fixture);
            scope.spawn(move || {
                let name = format!("{index}.raw");
                match index % 2 {
                    0 => alice.pull(fixture, "new.raw", &name).unwrap(),
                    _ => alice.push(fixture, "new.raw", &name).unwrap(),
                }
            });
        }
    });
    for index in 0..6 {
        assert!(fixture.same("new.raw", &format!("{index}.raw")), "{index}");
    }
}

#[test]
fn one_session_too_many_is_told_so_and_a_place_is_given_back() {
    let (papers, fixture) = (Papers::new(), fixture());
    let options = serving(&fixture).with_sessions(1);
    let service = Running::start(&papers.of("server", "ca"), options);
    let alice = service.service_client(papers.of("alice", "ca"));
    let first = alice.dial().unwrap();
    let error = alice.pull(&fixture, "new.raw", "here.raw").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(
        error
            .to_string()
            .contains("as many sessions as it may have (1)"),
        "{error}"
    );
    service.says("refused: this service has as many");
    drop(first);
    let again = Retry::new(20).with_pause(Duration::from_millis(100));
    let pull = || alice.pull(&fixture, "new.raw", "here.raw");
    again.run(&work(), |error: &Error| error, pull).unwrap();
    assert!(fixture.same("new.raw", "here.raw"));
}

#[test]
fn a_client_without_a_good_certificate_is_refused_and_both_ends_say_why() {
    let (papers, fixture) = (Papers::new(), fixture());
    let service = start(&papers, &fixture);
    let before = bytes(&fixture, "there.raw");
    let cases = [
        (
            "mallory",
            "ca",
            "does not trust the authority that signed",
            "was not signed by",
        ),
        (
            "alice-once",
            "ca",
            "it has expired, or is not valid yet",
            "expired",
        ),
        (
            "alice-later",
            "ca",
            "it has expired, or is not valid yet",
            "is not valid yet",
        ),
    ];
    for (name, ca, here, there) in cases {
        let client = service.service_client(papers.of(name, ca));
        let error = client.push(&fixture, "new.raw", "there.raw").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{name}: {error}");
        let text = error.to_string();
        assert!(
            text.contains(here) && text.contains(&format!("{name}.pem")),
            "{text}"
        );
        service.says(there);
    }
    assert!(bytes(&fixture, "there.raw") == before);
}

#[test]
fn a_client_that_shows_no_certificate_is_refused() {
    let (papers, fixture) = (Papers::new(), fixture());
    let service = start(&papers, &fixture);
    let mut config = bare_config(&papers, &rustls::version::TLS13);
    config.alpn_protocols = vec![b"diskdelta/1".to_vec()];
    let error = bare_dial(&service, config).unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    service.says("showed no certificate, and one is required");
}

#[test]
fn an_older_version_of_tls_and_another_protocol_are_refused() {
    let (papers, fixture) = (Papers::new(), fixture());
    let service = start(&papers, &fixture);
    let mut config = bare_config(&papers, &rustls::version::TLS12);
    config.alpn_protocols = vec![b"diskdelta/1".to_vec()];
    bare_dial(&service, config).unwrap_err();
    service.says("share no version of TLS; only TLS 1.3");
    let mut config = bare_config(&papers, &rustls::version::TLS13);
    config.alpn_protocols = vec![b"h2".to_vec()];
    bare_dial(&service, config).unwrap_err();
    service.says("speaks TLS, but not diskdelta's protocol");
}

fn bare_config(
    papers: &Papers,
    version: &'static rustls::SupportedProtocolVersion,
) -> rustls::ClientConfig {
    use rustls::pki_types::pem::PemObject;
    let ca = rustls::pki_types::CertificateDer::from_pem_file(papers.path("ca.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A client of rustls alone; reads until something is wrong.
fn bare_dial(service: &Running, config: rustls::ClientConfig) -> io::Result<Vec<u8>> {
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(service.address).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, socket);
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    Ok(all)
}

#[test]
fn a_service_without_a_good_certificate_is_refused_and_both_ends_say_why() {
    let (papers, fixture) = (Papers::new(), fixture());
    let before = bytes(&fixture, "here.raw");
    let cases = [
        (
            "server-other",
            "was not signed by an authority in",
            "does not trust the authority",
        ),
        (
            "server-once",
            "expired",
            "it has expired, or is not valid yet",
        ),
        (
            "server-later",
            "is not valid yet",
            "it has expired, or is not valid yet",
        ),
        (
            "server-elsewhere",
            "is not for 127.0.0.1, but for",
            "not for the name that was asked for",
        ),
    ];
    for (name, here, there) in cases {
        // It trusts both, so that only the client has something against the other.
        let service = Running::start(&papers.of(name, "ca"), serving(&fixture));
        let alice = service.service_client(papers.of("alice", "ca"));
        let error = alice.pull(&fixture, "new.raw", "here.raw").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{name}: {error}");
        assert!(error.to_string().contains(here), "{name}: {error}");
        service.says(there);
    }
    assert!(bytes(&fixture, "here.raw") == before);
    let service = Running::start(&papers.of("server-elsewhere", "ca"), serving(&fixture));
    let mut alice = service.service_client(papers.of("alice", "ca"));
    alice.options = alice.options.with_name(Some("backup.example".to_owned()));
    alice.pull(&fixture, "new.raw", "here.raw").unwrap();
    assert!(fixture.same("new.raw", "here.raw"));
}

#[test]
fn files_that_are_no_use_are_named() {
    let papers = Papers::new();
    std::fs::write(papers.path("empty.pem"), "").unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(papers.path("broken.pem"), broken).unwrap();
    let mode = |name: &str, mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(papers.path(name), mode).unwrap();
    };
    std::fs::copy(papers.path("alice.key"), papers.path("public.key")).unwrap();
    mode("public.key", 0o644);
    std::fs::copy(papers.path("alice.pem"), papers.path("odd.key")).unwrap();
    mode("odd.key", 0o600);
    let good = papers.of("alice", "ca");
    let with = |change: &dyn Fn(&mut Identity)| {
        let mut identity = good.clone();
        change(&mut identity);
        identity
    };
    let cases = [
        (
            with(&|it| it.key = papers.path("server.key")),
            ErrorKind::InvalidInput,
            "server.key: is not the key of the certificate in",
        ),
        (
            with(&|it| it.key = papers.path("none.key")),
            ErrorKind::NotFound,
            "none.key: No such file",
        ),
        (
            with(&|it| it.key = papers.path("public.key")),
            ErrorKind::Untrusted,
            "public.key: holds a secret that others can read or change (mode 0644)",
        ),
        (
            with(&|it| it.key = papers.path("odd.key")),
            ErrorKind::Malformed,
            "odd.key: holds no private key that can be read",
        ),
        (
            with(&|it| it.cert = papers.path("empty.pem")),
            ErrorKind::Malformed,
            "empty.pem: holds no certificate that can be read",
        ),
        (
            with(&|it| it.cert = papers.path("broken.pem")),
            ErrorKind::Malformed,
            "broken.pem: holds a certificate that cannot be read",
        ),
        (
            with(&|it| it.ca = papers.path("none.pem")),
            ErrorKind::NotFound,
            "none.pem: No such file",
        ),
        (
            with(&|it| it.ca = papers.path("broken.pem")),
            ErrorKind::Malformed,
            "broken.pem: holds a certificate that cannot be an authority's",
        ),
    ];
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    for (identity, kind, text) in cases {
        let service_client = ServiceClient {
            address: nobody.local_addr().unwrap(),
            options: diskdelta::remote::tls::DialOptions::new(identity.clone()),
            line: LineOptions::default(),
        };
        let client = service_client.dial().map(drop).unwrap_err();
        let bound = Service::bind("127.0.0.1:0", &identity, Default::default());
        for error in [client, bound.map(drop).unwrap_err()] {
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(text), "{text}: {error}");
        }
    }
    for odd in ["", "::1", "127.0.0.1:x", "127.0.0.1:99999"] {
        assert!(
            Service::bind(odd, &good, Default::default()).is_err(),
            "{odd}"
        );
    }
}

#[test]
fn silent_broken_and_plain_clients_hold_no_place_and_are_cut_off() {
    let (papers, fixture) = (Papers::new(), fixture());
    let options = serving(&fixture)
        .with_sessions(1)
        .with_patience(Duration::from_secs(3));
    let service = Running::start(&papers.of("server", "ca"), options);
    let mut silent = TcpStream::connect(service.address).unwrap();
    let mut half = TcpStream::connect(service.address).unwrap();
    // The head of a record of 512 bytes, and little of it.
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1]).unwrap();
    let mut gone = TcpStream::connect(service.address).unwrap();
    gone.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1]).unwrap();
    gone.shutdown(Shutdown::Both).unwrap();
    let mut plain = TcpStream::connect(service.address).unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        .unwrap();
    let alice = service.service_client(papers.of("alice", "ca"));
    alice.pull(&fixture, "new.raw", "here.raw").unwrap();
    assert!(fixture.same("new.raw", "here.raw"));
    service.says("did not shake hands within 3 s");
    service.says("closed the line during the handshake");
    service.says("does not speak TLS");
    for stream in [&mut silent, &mut half, &mut plain] {
        let mut all = Vec::new();
        // What it is sent, if anything, is the alert that ends the line.
        let _ = stream.read_to_end(&mut all);
        assert!(all.len() < 10, "{all:?}");
    }
}

#[test]
fn any_number_of_silent_clients_keeps_nobody_out() {
    let (papers, fixture) = (Papers::new(), fixture());
    let options = serving(&fixture).with_patience(Duration::from_secs(600));
    let service = Running::start(&papers.of("server", "ca"), options);
    let silent: Vec<TcpStream> = (0..220)
        .map(|_| TcpStream::connect(service.address).unwrap())
        .collect();
    let alice = service.service_client(papers.of("alice", "ca"));
    alice.pull(&fixture, "new.raw", "here.raw").unwrap();
    assert!(fixture.same("new.raw", "here.raw"));
    let mut first = silent.first().unwrap();
    assert_eq!(first.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn what_is_connected_to_and_is_no_service_is_named() {
    let papers = Papers::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let plain = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut some = [0; 100];
        stream.read_exact(&mut some).unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
        listener
    });
    let service_client = ServiceClient {
        address,
        options: diskdelta::remote::tls::DialOptions::new(papers.of("alice", "ca"))
            .with_patience(Duration::from_secs(2)),
        line: LineOptions::default(),
    };
    let error = service_client.dial().map(drop).unwrap_err();
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    let listener = plain.join().unwrap();
    let error = service_client.dial().map(drop).unwrap_err();
    let text = format!("the service at {address} did not shake hands within 2 s");
    assert!(error.to_string().contains(&text), "{error}");
    assert_eq!(error.kind(), ErrorKind::Io);
    drop(listener);
    let error = service_client.dial().map(drop).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("cannot connect to {address}")),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Io);
}

/// Carries bytes between a client and a service, and cuts every connection after so many.
fn cutting_proxy(service: SocketAddr, most: i64, connections: Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let carry = |mut from: TcpStream, mut to: TcpStream, left: Arc<AtomicI64>| {
        let mut buf = [0; 5000];
        while let Ok(count) = from.read(&mut buf) {
            let is_over = left.fetch_sub(count as i64, Ordering::SeqCst) < count as i64;
            let some = buf.get(..count).unwrap();
            if count == 0 || is_over || to.write_all(some).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    };
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            connections.fetch_add(1, Ordering::SeqCst);
            let there = TcpStream::connect(service).unwrap();
            let left = Arc::new(AtomicI64::new(most));
            let (one, other) = (client.try_clone().unwrap(), there.try_clone().unwrap());
            let shared = left.clone();
            std::thread::spawn(move || carry(one, other, shared));
            std::thread::spawn(move || carry(there, client, left));
        }
    });
    address
}

#[test]
fn a_line_that_is_cut_again_and_again_is_taken_up_until_all_is_done() {
    for pushes in [false, true] {
        let (papers, fixture) = (Papers::new(), Fixture::new());
        fixture.disk("new.raw", 1500, 1);
        fixture.disk("old.raw", 1500, 2);
        let before = bytes(&fixture, "old.raw");
        let service = start(&papers, &fixture);
        let mut alice = service.service_client(papers.of("alice", "ca"));
        let connections = Arc::new(AtomicU64::new(0));
        alice.address = cutting_proxy(service.address, 2_500_000, connections.clone());
        let again = Retry::new(30).with_pause(Duration::from_millis(200));
        let attempt = || {
            let done = match pushes {
                true => alice.push(&fixture, "new.raw", "old.raw"),
                false => alice.pull(&fixture, "new.raw", "old.raw"),
            };
            assert!(done.is_ok() || bytes(&fixture, "old.raw") == before);
            done
        };
        let done = again.run(&work(), |error: &Error| error, attempt);
        let (report, _) = done.unwrap();
        assert!(fixture.same("new.raw", "old.raw"));
        assert!(report.resumed_bytes > 1 << 20, "{report:?}");
        assert!(connections.load(Ordering::SeqCst) > 2);
        assert_eq!(fixture.names(), ["new.raw", "old.raw"]);
    }
}

#[test]
fn a_session_is_confined_and_one_that_only_reads_writes_nothing() {
    let (papers, fixture) = (Papers::new(), fixture());
    let before = bytes(&fixture, "there.raw");
    let mut options = serving(&fixture);
    options.serve = options.serve.with_read_only(true);
    let service = Running::start(&papers.of("server", "ca"), options);
    let alice = service.service_client(papers.of("alice", "ca"));
    let error = alice.push(&fixture, "new.raw", "there.raw").unwrap_err();
    assert!(error.to_string().contains("only reads"), "{error}");
    assert!(bytes(&fixture, "there.raw") == before);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(secret.path(), fixture.path("link.raw")).unwrap();
    let writing = Running::start(&papers.of("server", "ca"), serving(&fixture));
    let writer = writing.service_client(papers.of("alice", "ca"));
    for wrong in [
        "link.raw",
        "../x",
        "/etc/passwd",
        secret.path().to_str().unwrap(),
    ] {
        let error = alice.pull(&fixture, wrong, "here.raw").unwrap_err();
        let kinds = [ErrorKind::InvalidInput, ErrorKind::NotFound];
        assert!(kinds.contains(&error.kind()), "{wrong}: {error}");
        let error = writer.push(&fixture, "new.raw", wrong).unwrap_err();
        assert!(kinds.contains(&error.kind()), "{wrong}: {error}");
    }
    assert_eq!(secret.as_file().metadata().unwrap().len(), 0);
}

#[test]
fn a_service_that_is_stopped_ends_its_sessions() {
    let (papers, fixture) = (Papers::new(), fixture());
    let mut service = start(&papers, &fixture);
    let alice = service.service_client(papers.of("alice", "ca"));
    let (client, _line) = alice.dial().unwrap();
    let _silent = TcpStream::connect(service.address).unwrap();
    service.cancel.cancel();
    service.ended();
    service.says("ended: cancelled");
    assert!(open(client, "new.raw").is_err());
    assert!(alice.dial().is_err());
}

#[test]
fn a_session_that_takes_too_long_is_ended_and_told_so() {
    let (papers, fixture) = (Papers::new(), fixture());
    let mut options = serving(&fixture);
    options.serve.line = LineOptions::default().with_longest(Some(Duration::from_secs(3)));
    let service = Running::start(&papers.of("server", "ca"), options);
    let alice = service.service_client(papers.of("alice", "ca"));
    let (client, _line) = alice.dial().unwrap();
    let source = open(client, "new.raw").unwrap();
    service.says("ended: this session took more than 3 s");
    let target = fixture.target("here.raw");
    let done = sync(&source, target.target(), &Default::default(), &work());
    let error = done.unwrap_err().to_string();
    assert!(
        error.contains("took more than 3 s, all that it is given"),
        "{error}"
    );
}

#[test]
fn a_client_that_wants_nothing_is_sent_away_however_alive_it_is() {
    let (papers, fixture) = (Papers::new(), fixture());
    let mut options = serving(&fixture);
    let line = LineOptions::default().with_silence(Duration::from_secs(3));
    options.serve.line = line.clone();
    let service = Running::start(&papers.of("server", "ca"), options);
    let mut alice = service.service_client(papers.of("alice", "ca"));
    alice.line = line;
    let (client, _line) = alice.dial().unwrap();
    service.says("gave nothing but signs of life for 3 s while its job was awaited");
    let error = open(client, "new.raw").map(drop).unwrap_err();
    assert!(
        error.to_string().contains("nothing but signs of life"),
        "{error}"
    );
}

//! Page blobs as targets, behind a storage account of the tests' own.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diskdelta::remote::ConnectOptions;
use diskdelta::storage::{HttpOptions, MemoryStorage};
use diskdelta::sync::Marker;
use diskdelta::{Disk, ErrorKind, Location, Verify, Work};

use crate::account::{Account, QUERY};
use crate::blob::{PAGE, refused};
use crate::fixture::{COMMAND, Fixture, Run, noise};
use crate::server::{Request, Response, Server};

const PATH: &str = "/vhds/db1.vhd";
const MIB: usize = 1 << 20;

/// A disk with data, holes, and data again.
fn disk(seed: u64) -> Vec<u8> {
    let mut bytes = noise(6 * MIB, seed);
    bytes[2 * MIB..4 * MIB].fill(0);
    bytes
}

/// The fixed VHD that holds `bytes`.
fn vhd(bytes: &[u8]) -> Vec<u8> {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("disk.raw"), bytes).unwrap();
    fixture.done("sync disk.raw image.vhd --create vhd-fixed --target-format vhd");
    fixture.bytes("image.vhd")
}

/// Some pages of `old` written, cleared, and written where nothing was.
fn changed(old: &[u8]) -> Vec<u8> {
    let mut new = old.to_vec();
    new[8192..12_288].copy_from_slice(&noise(4096, 7));
    new[MIB..MIB + 65_536].fill(0);
    new[3 * MIB..3 * MIB + 4096].copy_from_slice(&noise(4096, 8));
    new[6 * MIB - 4096..].copy_from_slice(&noise(4096, 9));
    new
}

fn serving(
    account: &Arc<Account>,
    change: impl Fn(&Request, &Account) -> Response + Send + Sync + 'static,
) -> Server {
    let account = account.clone();
    Server::start(move |request| change(request, &account))
}

fn plain(account: &Arc<Account>) -> Server {
    serving(account, |request, account| account.answer(request))
}

/// Runs the command with the address of the blob in `blob.url`.
fn run(fixture: &Fixture, server: &Server, words: &str) -> Run {
    let address = server.at(&format!("{PATH}?{QUERY}"));
    std::fs::write(fixture.path("blob.url"), address).unwrap();
    let run = fixture.run(words);
    assert!(!format!("{run:?}").contains("S1G"), "{run:?}");
    run
}

fn done(fixture: &Fixture, server: &Server, words: &str) -> Run {
    let run = run(fixture, server, words);
    assert_eq!(run.status, 0, "{words}: {run:?}");
    run
}

fn bytes(account: &Account) -> Vec<u8> {
    account.blob(PATH).unwrap().bytes
}

/// Bytes of the bodies of all writes.
fn written(server: &Server) -> usize {
    let log = server.log();
    log.iter().map(|request| request.body.len()).sum()
}

#[test]
fn a_new_page_blob_is_a_fixed_vhd_with_its_footer_last_and_no_zeros_sent() {
    let (account, fixture) = (Arc::new(Account::new([])), Fixture::new());
    let server = plain(&account);
    std::fs::write(fixture.path("disk.raw"), disk(1)).unwrap();
    done(&fixture, &server, "sync disk.raw @blob.url --log-dir logs");
    let blob = account.blob(PATH).unwrap();
    assert_eq!(blob.bytes.len(), 6 * MIB + 512);
    assert!(blob.bytes[..6 * MIB] == disk(1) && &blob.bytes[6 * MIB..][..8] == b"conectix");
    assert!(blob.lease.is_none());
    assert!(
        !blob.written[2 * MIB / PAGE + 8..4 * MIB / PAGE]
            .iter()
            .any(|it| *it)
    );
    // Four MiB of data, and a marker and what it covered at either end.
    assert!(written(&server) < 9 * MIB, "{}", written(&server));
    let log = server.log();
    let puts: Vec<&Request> = log
        .iter()
        .filter(|it| it.query.ends_with("comp=page"))
        .collect();
    let is_footer = |request: &&Request| request.body.ends_with(&blob.bytes[6 * MIB..]);
    let footer_at = puts.iter().position(is_footer).unwrap();
    let sentinel = puts.last().unwrap().range().unwrap();
    assert_eq!((footer_at, sentinel), (puts.len() - 2, (0, 4095)));
    // The log and the lease are gone.
    assert_eq!(std::fs::read_dir(fixture.path("logs")).unwrap().count(), 0);
    let same = done(&fixture, &server, "sync disk.raw @blob.url --log-dir logs");
    assert!(same.stdout.contains("identical"), "{same:?}");
    done(&fixture, &server, "diff disk.raw @blob.url");
}

#[test]
fn a_disk_of_zeros_becomes_a_footer_and_an_odd_length_whole_mib() {
    let (account, fixture) = (Arc::new(Account::new([])), Fixture::new());
    let server = plain(&account);
    std::fs::write(fixture.path("disk.raw"), vec![0; 3 * MIB + 512]).unwrap();
    let dry = done(
        &fixture,
        &server,
        "sync disk.raw @blob.url --log-dir logs --dry-run",
    );
    assert!(account.blob(PATH).is_none(), "{dry:?}");
    done(&fixture, &server, "sync disk.raw @blob.url --log-dir logs");
    let blob = account.blob(PATH).unwrap();
    assert_eq!((blob.bytes.len(), blob.writes), (4 * MIB + 512, 1));
    assert!(blob.bytes[..4 * MIB].iter().all(|it| *it == 0));
    done(&fixture, &server, "sync disk.raw @blob.url --log-dir logs");
}

#[test]
fn what_differs_is_written_to_a_blob_and_can_be_undone() {
    let (old, fixture) = (disk(1), Fixture::new());
    let account = Arc::new(Account::new([(PATH, vhd(&old))]));
    let server = plain(&account);
    std::fs::write(fixture.path("new.raw"), changed(&old)).unwrap();
    let words = "sync new.raw @blob.url --log-dir logs --undo way.undo --target-manifest m";
    done(&fixture, &server, words);
    let blob = account.blob(PATH).unwrap();
    assert!(blob.bytes[..6 * MIB] == changed(&old) && blob.lease.is_none());
    assert!(
        !blob.written[MIB / PAGE + 8..MIB / PAGE + 100]
            .iter()
            .any(|it| *it)
    );
    // The marker at both ends, what it covered, and three pages.
    assert!(written(&server) < 5 * MIB, "{}", written(&server));
    server.reset();
    let report = done(
        &fixture,
        &server,
        "sync new.raw @blob.url --log-dir logs --target-manifest m --json",
    );
    assert!(report.stdout.contains("unchanged"), "{report:?}");
    assert!(server.sent_bytes() < 40_000, "{}", server.sent_bytes());
    done(&fixture, &server, "undo way.undo @blob.url --log-dir logs");
    assert!(bytes(&account) == vhd_like(&account, &old));
}

/// What the blob would hold with these bytes before its own footer.
fn vhd_like(account: &Account, disk: &[u8]) -> Vec<u8> {
    let footer = bytes(account)[disk.len()..].to_vec();
    [disk, &footer].concat()
}

#[test]
fn what_was_sent_under_a_checksum_need_not_be_read_back() {
    let (old, fixture) = (disk(1), Fixture::new());
    std::fs::write(fixture.path("new.raw"), changed(&old)).unwrap();
    for (blobs, words) in [
        (vec![(PATH, vhd(&old))], ""),
        (vec![(PATH, vhd(&old))], "--safety in-place"),
        (vec![], ""),
    ] {
        let read = ["written", "sent"].map(|verify| {
            let account = Arc::new(Account::new(blobs.clone()));
            let server = plain(&account);
            let words = format!("sync new.raw @blob.url --log-dir logs {words} --json");
            let report = done(&fixture, &server, &format!("{words} --verify {verify}"));
            assert!(
                report
                    .stdout
                    .contains(&format!("\"verified\":\"{verify}\"")),
                "{report:?}"
            );
            assert!(bytes(&account)[..6 * MIB] == changed(&old));
            server.sent_bytes()
        });
        assert!(read[1] < read[0], "{read:?}");
    }
    std::fs::write(fixture.path("target.raw"), &old).unwrap();
    let refused = fixture.run("sync new.raw target.raw --verify sent");
    refused.fails(2, "does not hold what it is sent against a checksum");
    assert!(fixture.bytes("target.raw") == old);
}

#[test]
fn writes_that_are_damaged_on_the_way_are_made_again_and_never_taken() {
    for versions in [vec!["2020-10-02"], vec!["2017-11-09"]] {
        let (account, fixture) = (Arc::new(Account::new([])), Fixture::new());
        account.service().versions = versions;
        let server = serving(&account, |request, account| {
            let mut request = request.clone();
            if request.number % 3 == 2 && request.body.len() > 100 {
                request.body[50] ^= 1;
            }
            account.answer(&request)
        });
        std::fs::write(fixture.path("disk.raw"), disk(1)).unwrap();
        done(
            &fixture,
            &server,
            "sync disk.raw @blob.url --log-dir logs --verify sent",
        );
        assert!(bytes(&account)[..6 * MIB] == disk(1));
    }
}

#[test]
fn a_lease_keeps_others_out_and_one_that_was_broken_ends_the_sync() {
    let (old, fixture) = (disk(1), Fixture::new());
    let account = Arc::new(Account::new([(PATH, vhd(&old))]));
    let set = |lease: Option<&str>| {
        account.service().blobs.get_mut(PATH).unwrap().lease = lease.map(ToOwned::to_owned);
    };
    std::fs::write(fixture.path("new.raw"), changed(&old)).unwrap();
    let server = plain(&account);
    set(Some("00000000-0000-0000-0000-00000000000a"));
    let refusal = run(&fixture, &server, "sync new.raw @blob.url --log-dir logs");
    refusal.fails(2, "another program has the lease");
    assert!(
        refusal.stderr.contains("az storage blob lease break"),
        "{refusal:?}"
    );
    assert!(bytes(&account) == vhd_like(&account, &old));
    set(None);
    let breaking = serving(&account, |request, account| {
        if request.query.ends_with("comp=page") {
            account.service().blobs.get_mut(PATH).unwrap().lease = None;
        }
        account.answer(request)
    });
    let broken = run(&fixture, &breaking, "sync new.raw @blob.url --log-dir logs");
    assert!(
        broken
            .stderr
            .contains("the lease of the page blob was broken"),
        "{broken:?}"
    );
    assert!(bytes(&account) == vhd_like(&account, &old));
    done(&fixture, &server, "sync new.raw @blob.url --log-dir logs");
    assert!(bytes(&account)[..6 * MIB] == changed(&old));
}

#[test]
fn a_server_that_dies_at_any_request_leaves_old_new_or_a_marked_blob_that_is_finished() {
    let old = disk(1);
    let work = Work::new().unwrap();
    let before = vhd(&old);
    let mut seen = BTreeSet::new();
    for (blobs, source) in [
        (vec![(PATH, before.clone())], changed(&old)),
        (vec![], disk(2)),
    ] {
        for lost_answer in [false, true] {
            for from in 0.. {
                let fixture = Fixture::new();
                std::fs::write(fixture.path("new.raw"), &source).unwrap();
                let account = Arc::new(Account::new(blobs.clone()));
                let dies_at = Arc::new(AtomicUsize::new(from));
                let death = dies_at.clone();
                let server = serving(&account, move |request, account| {
                    let dies_at = death.load(Ordering::SeqCst);
                    match request.number {
                        number if number < dies_at => account.answer(request),
                        number if number == dies_at && lost_answer => {
                            account.answer(request);
                            Response::status(0)
                        }
                        _ => Response::status(0),
                    }
                });
                let sync = || {
                    let at: Location = server.at(&format!("{PATH}?{QUERY}")).parse().unwrap();
                    let http = HttpOptions::default().with_attempts(1);
                    Disk::open(fixture.path("new.raw"))
                        .unwrap()
                        .sync_to(at)
                        .connect(ConnectOptions::default().with_http(http))
                        .log_dir(fixture.path("logs"))
                        .verify(Verify::Sent)
                        .run(&work)
                };
                let died = sync();
                let state = match account.blob(PATH).map(|it| it.bytes) {
                    None => "missing",
                    Some(bytes) if bytes.iter().all(|it| *it == 0) => "blank",
                    Some(bytes) if is_marked(&bytes) => "marked",
                    Some(bytes) if bytes == before => "old",
                    Some(bytes)
                        if bytes[..6 * MIB] == source
                            && bytes[6 * MIB..].starts_with(b"conectix") =>
                    {
                        "new"
                    }
                    Some(_) => panic!("request {from}, {lost_answer}: a mixture without a marker"),
                };
                seen.insert((blobs.len(), state));
                if let Err(error) = &died {
                    assert!(!format!("{error:?}").contains("S1G"), "{error:?}");
                }
                dies_at.store(usize::MAX, Ordering::SeqCst);
                if state == "marked" && !blobs.is_empty() {
                    let address = server.at(&format!("{PATH}?{QUERY}"));
                    std::fs::write(fixture.path("blob.url"), address).unwrap();
                    fixture.done("recover @blob.url --log-dir logs");
                }
                let again = sync().map(drop);
                again.unwrap_or_else(|error| panic!("request {from}, {lost_answer}: {error:?}"));
                let blob = account.blob(PATH).unwrap();
                assert!(blob.bytes[..6 * MIB] == source && blob.lease.is_none());
                assert!(blob.bytes[6 * MIB..].starts_with(b"conectix"));
                if died.is_ok() {
                    break;
                }
            }
        }
    }
    let all = [
        (0, "blank"),
        (0, "marked"),
        (0, "missing"),
        (0, "new"),
        (1, "marked"),
        (1, "new"),
        (1, "old"),
    ];
    assert_eq!(seen, all.into());
}

fn is_marked(bytes: &[u8]) -> bool {
    let storage = MemoryStorage::new("blob", bytes.to_vec());
    Marker::find(&storage).unwrap().is_some()
}

#[test]
fn what_cannot_be_a_target_is_refused_with_the_way_that_there_is() {
    let fixture = Fixture::new();
    let account = Arc::new(Account::new([(PATH, vhd(&disk(1)))]));
    std::fs::write(fixture.path("disk.raw"), disk(1)).unwrap();
    let server = plain(&account);
    for (words, part) in [
        ("--target-format vhdx", "a fixed VHD, or raw bytes"),
        ("--create vhdx", "a fixed VHD, or raw bytes"),
        ("--create vhd-fixed", "holds something"),
    ] {
        let words = format!("sync disk.raw @blob.url --log-dir logs {words}");
        run(&fixture, &server, &words).fails(2, part);
    }
    let block = serving(&account, |request, account| {
        account.answer(request).with("x-ms-blob-type", "BlockBlob")
    });
    let words = "sync disk.raw @blob.url --log-dir logs";
    run(&fixture, &block, words).fails(2, "must be a page blob");
    let read_only = serving(&account, |request, account| match request.method.as_str() {
        "PUT" => refused(403, "AuthorizationPermissionMismatch"),
        _ => account.answer(request),
    });
    run(&fixture, &read_only, words).fails(2, "403 AuthorizationPermissionMismatch");
    // Longer disks do not fit.
    std::fs::write(fixture.path("long.raw"), vec![1; 8 * MIB]).unwrap();
    run(&fixture, &server, "sync long.raw @blob.url --log-dir logs").fails(2, "source");
    assert!(bytes(&account) == vhd_like(&account, &disk(1)));
}

/// Runs the command with `server` as the proxy to a host of managed disks.
fn run_at(fixture: &Fixture, server: &Server, host: &str, words: &str) -> Run {
    let address = format!("http://{host}{PATH}?{QUERY}");
    std::fs::write(fixture.path("disk.url"), address).unwrap();
    let output = Command::new(COMMAND)
        .current_dir(fixture.path(""))
        .args(words.split_whitespace())
        .arg("--allow-http")
        .env("ALL_PROXY", server.at(""))
        .output()
        .unwrap();
    Run {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_managed_disk_is_uploaded_once_and_an_exported_one_is_only_read() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("disk.raw"), disk(1)).unwrap();
    let blank = Arc::new(Account::new([(PATH, vec![0; 6 * MIB + 512])]));
    let server = plain(&blank);
    let words = "sync disk.raw @disk.url --log-dir logs";
    let upload = "md-impexp-1.blob.core.windows.net";
    let done = run_at(&fixture, &server, upload, words);
    assert_eq!(done.status, 0, "{done:?}");
    assert!(bytes(&blank)[..6 * MIB] == disk(1));
    let revoked = serving(&blank, |request, account| match request.method.as_str() {
        "CONNECT" => Response::status(200),
        _ if request.number > 1 => refused(403, "AuthenticationFailed"),
        _ => account.answer(request),
    });
    let refusal = run_at(&fixture, &revoked, upload, words);
    assert_eq!(refusal.status, 2, "{refusal:?}");
    let exported = "md-x1.z22.blob.storage.azure.net";
    let refusal = run_at(&fixture, &server, exported, words);
    refusal.fails(2, "an exported disk is only read");
    assert!(
        refusal.stderr.contains("az disk create --source"),
        "{refusal:?}"
    );
    let short = Arc::new(Account::new([(PATH, vec![0; 5 * MIB + 512])]));
    let refusal = run_at(&fixture, &plain(&short), upload, words);
    refusal.fails(2, "cannot become");
    assert_eq!(short.blob(PATH).unwrap().writes, 0);
}

#[test]
fn a_target_in_the_library_tells_what_became_of_it() {
    let (account, fixture) = (Arc::new(Account::new([])), Fixture::new());
    let server = serving(&account, |request, account| match request.method.as_str() {
        "PUT" => refused(403, "AuthorizationFailure"),
        _ => account.answer(request),
    });
    std::fs::write(fixture.path("disk.raw"), disk(1)).unwrap();
    let at: Location = server.at(&format!("{PATH}?{QUERY}")).parse().unwrap();
    let disk = Disk::open(fixture.path("disk.raw")).unwrap();
    let work = Work::new().unwrap();
    let error = disk
        .sync_to(at)
        .log_dir(fixture.path("logs"))
        .run(&work)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    assert!(account.blob(PATH).is_none());
}

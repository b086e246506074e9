//! Images that were published with their manifests.

use std::io::Cursor;

use diskdelta::peer::ConnectOptions;
use diskdelta::{Disk, ErrorKind, Location, Manifest, PublicKey, Release, SigningKey, Work};

use crate::fixture::{Fixture, PAGE, noise};
use crate::server::{File, Response, SIGNATURE, Server};

const LEN: usize = 8 << 20;
const BLOCK: usize = 64 << 10;

/// A fixture with a key, and the next editions of an image.
struct Publisher {
    fixture: Fixture,
}

impl Publisher {
    fn new() -> Publisher {
        let fixture = Fixture::new();
        for (secret, public) in [("key", "key.pub"), ("other", "other.pub")] {
            let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
            let text = pair.sk.to_box(None).unwrap().into_string();
            std::fs::write(fixture.path(secret), text).unwrap();
            let text = pair.pk.to_box().unwrap().into_string();
            std::fs::write(fixture.path(public), text).unwrap();
        }
        Publisher { fixture }
    }

    /// Serves `bytes` as edition `serial`, as a VHDX and its manifest.
    fn serve(&self, bytes: &[u8], serial: u64) -> Server {
        self.serve_as(
            bytes,
            &format!("--sign key --name golden --serial {serial}"),
        )
    }

    fn serve_as(&self, bytes: &[u8], words: &str) -> Server {
        let fixture = &self.fixture;
        std::fs::write(fixture.path("golden.raw"), bytes).unwrap();
        let _ = std::fs::remove_file(fixture.path("golden.vhdx"));
        fixture.done("sync golden.raw golden.vhdx");
        fixture.done(&format!("manifest golden.vhdx -o golden.manifest {words}"));
        let [image, manifest] = ["golden.vhdx", "golden.manifest"].map(|it| fixture.bytes(it));
        serving(image, manifest)
    }
}

fn serving(image: Vec<u8>, manifest: Vec<u8>) -> Server {
    let (image, manifest) = (File::new(image), File::new(manifest));
    Server::start(move |request| match request.path.as_str() {
        "/golden.vhdx" => image.answer(request),
        "/golden.manifest" => manifest.answer(request),
        _ => Response::status(404),
    })
}

/// The words that pull from `server` onto `target`.
fn pull(server: &Server, target: &str) -> String {
    let at = |name| server.at(&format!("/{name}?sig={SIGNATURE}"));
    let (image, manifest) = (at("golden.vhdx"), at("golden.manifest"));
    format!("sync {image} {target} --source-manifest {manifest} --pubkey key.pub")
}

/// An edition of the image: one block in sixteen differs from the next edition's.
fn edition(number: u8) -> Vec<u8> {
    let mut bytes = noise(LEN, 1);
    bytes[LEN / 2..LEN / 2 + 20 * BLOCK].fill(0);
    for block in (0..LEN / BLOCK).step_by(16) {
        bytes[block * BLOCK + 77] = number;
    }
    bytes
}

#[test]
fn only_blocks_that_differ_by_the_manifest_are_fetched() {
    let publisher = Publisher::new();
    let fixture = &publisher.fixture;
    let (first, second) = (edition(1), edition(2));
    let server = publisher.serve(&second, 7);
    // A target without a manifest is hashed, and one with one is not read.
    for (target, words) in [
        ("t.raw", ""),
        ("t.vhdx", "--safety in-place"),
        ("u.vhdx", "--target-manifest u.manifest"),
    ] {
        std::fs::write(fixture.path("first.raw"), &first).unwrap();
        fixture.done(&format!(
            "sync first.raw {target} {}",
            match words.contains("manifest") {
                true => words,
                false => "",
            }
        ));
        server.reset();
        fixture.done(&format!("{} {words}", pull(&server, target)));
        fixture.done(&format!("diff {target} golden.raw --read-holes"));
        // Eight blocks, rows of the manifest, and what opening an image reads.
        let sent = server.sent_bytes();
        assert!(sent < 8 * BLOCK + 700_000, "{target}: {sent}");
    }
    // A target that is not there is copied.
    fixture.done(&format!(
        "{} --target-manifest new.manifest",
        pull(&server, "new.vhdx")
    ));
    fixture.done("diff new.vhdx golden.raw");
    // The next edition, by what was recorded.
    let third = edition(3);
    let server = publisher.serve(&third, 8);
    fixture.done(&format!(
        "{} --target-manifest new.manifest",
        pull(&server, "new.vhdx")
    ));
    fixture.done("diff new.vhdx golden.raw");
    assert!(
        server.sent_bytes() < 8 * BLOCK + 700_000,
        "{}",
        server.sent_bytes()
    );
    let key = fixture.bytes("key.pub");
    let line = String::from_utf8(key)
        .unwrap()
        .lines()
        .nth(1)
        .unwrap()
        .to_owned();
    fixture.done(&pull(&server, "new.vhdx").replace("key.pub", &line));
}

#[test]
fn an_image_that_is_not_what_its_manifest_states_is_refused() {
    let publisher = Publisher::new();
    let fixture = &publisher.fixture;
    let (first, second) = (edition(1), edition(2));
    drop(publisher.serve(&second, 7));
    let manifest = fixture.bytes("golden.manifest");
    let mut altered = second.clone();
    altered[16 * BLOCK + 5] ^= 1;
    drop(publisher.serve(&altered, 8));
    let server = serving(fixture.bytes("golden.vhdx"), manifest);
    std::fs::write(fixture.path("t.raw"), &first).unwrap();
    fixture
        .run(&pull(&server, "t.raw"))
        .fails(2, "does not hold what its manifest");
    assert!(fixture.bytes("t.raw") == first);
    for target in ["new.raw", "new.vhdx"] {
        fixture
            .run(&pull(&server, target))
            .fails(2, "published manifest");
        assert!(!fixture.path(target).exists());
    }
    fixture
        .run(&format!("{} --mode full", pull(&server, "t.raw")))
        .fails(2, "published manifest");
    assert!(fixture.bytes("t.raw") == first);
}

#[test]
fn a_signature_counts_only_by_the_key_and_of_the_manifest() {
    let publisher = Publisher::new();
    let fixture = &publisher.fixture;
    let (first, second) = (edition(1), edition(2));
    let server = publisher.serve(&second, 7);
    std::fs::write(fixture.path("t.raw"), &first).unwrap();
    let wrong = pull(&server, "t.raw").replace("key.pub", "other.pub");
    fixture.run(&wrong).fails(2, "not by this key");
    fixture
        .run(&pull(&server, "t.raw").replace("key.pub", "nonsense"))
        .fails(2, "not a public key");
    let signed = fixture.bytes("golden.manifest");
    let image = fixture.bytes("golden.vhdx");
    // Another serial, and the signature of another manifest.
    let at = signed.windows(8).position(|it| it == b"serial:7").unwrap();
    let mut raised = signed.clone();
    raised[at + 7] = b'9';
    let unsigned = publisher.serve_as(&second, "");
    let bare = fixture.bytes("golden.manifest");
    let tail = signed[bare.len()..].to_vec();
    drop(publisher.serve_as(&first, ""));
    let spliced = [fixture.bytes("golden.manifest"), tail].concat();
    for (manifest, part) in [(raised, "not signed"), (spliced, "not signed")] {
        let server = serving(image.clone(), manifest);
        fixture.run(&pull(&server, "t.raw")).fails(2, part);
    }
    fixture
        .run(&pull(&unsigned, "t.raw"))
        .fails(2, "not signed");
    assert!(fixture.bytes("t.raw") == first);
    // Without a key the manifest is trusted as its server is.
    fixture.done(&pull(&unsigned, "t.raw").replace("--pubkey key.pub", ""));
    assert!(fixture.bytes("t.raw") == second);
    for words in [
        "--sign key",
        "--name a",
        "--sign other.pub --name a --serial 1",
    ] {
        let run = fixture.run(&format!("manifest golden.vhdx -o x.manifest {words}"));
        assert_eq!(run.status, 2, "{run:?}");
    }
}

#[test]
fn a_target_never_goes_back_to_an_older_edition_or_another_image() {
    let publisher = Publisher::new();
    let fixture = &publisher.fixture;
    let older = publisher.serve(&edition(1), 6);
    let newer = publisher.serve(&edition(2), 7);
    let other = publisher.serve_as(&edition(3), "--sign key --name other --serial 9");
    let words = |server: &Server| format!("{} --target-manifest t.manifest", pull(server, "t.raw"));
    fixture.done(&words(&newer));
    let before = fixture.bytes("t.raw");
    fixture.run(&words(&older)).fails(2, "older serial 6");
    fixture
        .run(&words(&other))
        .fails(2, "made from the image `golden`");
    assert!(fixture.bytes("t.raw") == before);
    fixture.done(&words(&newer));
    fixture.run(&words(&older)).fails(2, "older serial 6");
    // Another program's change does not make it forget.
    std::fs::write(fixture.path("t.raw"), edition(4)).unwrap();
    fixture.run(&words(&older)).fails(2, "older serial 6");
    fixture.done(&words(&newer));
    std::fs::remove_file(fixture.path("t.manifest")).unwrap();
    fixture.done(&words(&older));
}

#[test]
fn what_does_not_go_with_a_published_manifest_is_refused() {
    let publisher = Publisher::new();
    let fixture = &publisher.fixture;
    let server = publisher.serve(&edition(2), 7);
    std::fs::write(fixture.path("t.raw"), edition(1)).unwrap();
    fixture.done("manifest t.raw -o map.manifest");
    std::fs::write(fixture.path("map.json"), "[[0,4096]]").unwrap();
    for (words, part) in [
        ("--skip-unreadable", "skipped"),
        ("--changes pairs:map.json --trust-target", "no change map"),
        (
            "--manifest-cache cache --target-manifest m",
            "--manifest-cache",
        ),
    ] {
        fixture
            .run(&format!("{} {words}", pull(&server, "t.raw")))
            .fails(2, part);
    }
    fixture
        .run(&pull(&server, "ssh://h/x"))
        .fails(2, "--source-manifest");
    // Blocks of another size.
    let words = "--target-manifest m";
    fixture.done(&format!("sync golden.raw t.raw {words} --block-size 4K"));
    fixture
        .run(&format!("{} {words}", pull(&server, "t.raw")))
        .fails(2, "other blocks");
    // A disk of another length.
    std::fs::write(fixture.path("short.raw"), noise(3 * PAGE, 1)).unwrap();
    fixture.done("manifest short.raw -o short.manifest");
    let words = "sync golden.raw t.raw --source-manifest short.manifest";
    fixture.run(words).fails(2, "12288 bytes");
}

#[test]
fn the_library_signs_and_checks_too() {
    let publisher = Publisher::new();
    let fixture = &publisher.fixture;
    let server = publisher.serve_as(&edition(2), "");
    let work = Work::new().unwrap();
    let key = SigningKey::open(fixture.path("key")).unwrap();
    let public = PublicKey::open(fixture.path("key.pub")).unwrap();
    let disk = Disk::open(fixture.path("golden.raw")).unwrap();
    let manifest = disk.manifest(&work).unwrap();
    let untrusted = manifest.verify_signature(&public).unwrap_err();
    assert_eq!(untrusted.kind(), ErrorKind::Untrusted);
    let release = Release::new("golden image", 7).unwrap();
    manifest.sign(&release, &key).unwrap();
    assert_eq!(manifest.verify_signature(&public).unwrap(), release);
    // What is signed is the text that the documentation gives.
    let text = format!(
        "diskdelta manifest 1\nroot {}\nlength {LEN}\nblock-size 65536\nserial 7\n\
         name golden image\n",
        manifest.root()
    );
    let signature = minisign::SignatureBox::from_string(&manifest.signature().unwrap().unwrap());
    let key = fixture.bytes("key.pub");
    let key = minisign::PublicKeyBox::from_string(str::from_utf8(&key).unwrap()).unwrap();
    let (key, signature) = (key.into_public_key().unwrap(), signature.unwrap());
    minisign::verify(&key, &signature, Cursor::new(text), true, false, false).unwrap();
    let at = server.at(&format!("/golden.vhdx?sig={SIGNATURE}"));
    let location = Location::parse(at).unwrap();
    let disk = Disk::connect(&location, &ConnectOptions::default(), &work).unwrap();
    std::fs::write(fixture.path("t.raw"), edition(1)).unwrap();
    let disk = disk.published(&manifest).unwrap();
    disk.sync_to(fixture.path("t.raw")).run(&work).unwrap();
    assert!(fixture.bytes("t.raw") == edition(2));
    let stored = Manifest::open(fixture.path("golden.manifest")).unwrap();
    assert_eq!(stored.signature().unwrap(), None);
}

//! Encrypted replicas: what the passes sent comes back, to whoever has the key and to nobody else,
//! and after any crash the chain gives what it gave before the pass or after it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use age::secrecy::ExposeSecret;
use diskdelta::image::{CreateFormat, CreateOptions, Format, Image, ImageOptions, Raw};
use diskdelta::remote::{Client, LineOptions, ServeOptions, Served, serve};
use diskdelta::replica::{Appended, Changed, Key, KeyFile, Replica};
use diskdelta::storage::fault::{CrashState, FaultDisk};
use diskdelta::storage::{
    Access, Directory, FileRef, MemoryDirectory, MemoryStorage, SourceOptions, Storage,
};
use diskdelta::sync::Source;
use diskdelta::{BlockSize, ErrorKind, ExtentKind, Result, Work, manifest};
use proptest::prelude::*;

const BLOCK: usize = 65536;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_chain_gives_what_the_last_pass_saw(
        states in prop::collection::vec(prop::collection::vec(0u8..4, 3), 1..6),
        mapped in any::<bool>(), compact in any::<bool>(),
    ) {
        let (directory, key) = (memory(), key());
        let replica = Replica::new(directory.clone(), key);
        let mut before: Option<Vec<u8>> = None;
        for state in states {
            let now = disk(&state);
            let map = before.as_ref().filter(|_| mapped).map(|before| changed(before, &now));
            let (appended, next) = append(&replica, &now, map).unwrap();
            prop_assert_eq!(appended.root, root(&now));
            prop_assert_eq!(next, replica.manifest().unwrap().unwrap().root());
            before = Some(now);
            if compact {
                replica.compact(2, &work()).unwrap();
            }
        }
        let last = before.unwrap();
        let image = replica.image(&work()).unwrap();
        prop_assert!(shown(&image) == last);
        prop_assert_eq!(replica.verify(&work()).unwrap(), root(&last));
        for format in [CreateFormat::Raw, CreateFormat::VhdDynamic, CreateFormat::VhdxDynamic] {
            prop_assert!(restored(&replica, format).unwrap() == last, "{format:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_chain_of_a_disk_on_another_host_gives_what_the_last_pass_saw(
        states in prop::collection::vec(
            (prop::collection::vec(0u8..4, 1..5), 0usize..3, any::<[bool; 3]>()), 1..6,
        ),
    ) {
        let replica = Replica::new(memory(), key());
        let mut before: Option<Vec<u8>> = None;
        for (kinds, cut, [remote, mapped, compact]) in states {
            let mut now = pages(&kinds);
            now.truncate(now.len() - cut * 5_000);
            let same = before.as_ref().filter(|before| mapped && before.len() == now.len());
            let map = same.map(|before| changed(before, &now));
            let (appended, next) = match remote {
                true => append_remote(&replica, &now, map).unwrap(),
                false => append(&replica, &now, map).unwrap(),
            };
            prop_assert_eq!(appended.root, root(&now));
            prop_assert_eq!(next, replica.manifest().unwrap().unwrap().root());
            prop_assert_eq!(replica.verify(&work()).unwrap(), root(&now));
            let image = replica.image(&work()).unwrap();
            prop_assert!(shown(&image) == now);
            before = Some(now);
            if compact {
                replica.compact(2, &work()).unwrap();
            }
        }
    }
}

#[test]
fn a_chain_of_a_disk_that_grew_or_shrank_is_whole_once_it_is_put_together() {
    let bytes = noise(6 * BLOCK);
    for lengths in [[2, 4, 6], [6, 4, 2]] {
        let replica = Replica::new(memory(), key());
        for blocks in lengths {
            append(&replica, &bytes[..blocks * BLOCK], None).unwrap();
        }
        assert!(replica.compact(2, &work()).unwrap());
        let last = &bytes[..lengths[2] * BLOCK];
        assert_eq!(replica.verify(&work()).unwrap(), root(last));
        append(&replica, &bytes[..3 * BLOCK], None).unwrap();
        assert_eq!(replica.verify(&work()).unwrap(), root(&bytes[..3 * BLOCK]));
    }
}

#[test]
fn a_pass_over_a_line_that_breaks_leaves_the_chain_as_it_was() {
    let (directory, key) = (memory(), key());
    let replica = Replica::new(directory.clone(), key);
    let bytes = noise(8 * BLOCK);
    append_remote(&replica, &bytes, None).unwrap();
    let names = directory.names().unwrap();
    let (link, next) = (Line::to(&noise(20 * BLOCK)[8 * BLOCK..]), next());
    link.cut.shutdown(std::net::Shutdown::Both).unwrap();
    let len = (12 * BLOCK) as u64;
    let remote = link.source.backend();
    let error = replica
        .append_remote(remote, len, None, &next, &work())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(replica.verify(&work()).unwrap(), root(&bytes));
    replica.tidy().unwrap();
    assert_eq!(directory.names().unwrap(), names);
}

#[test]
fn a_pass_without_changes_adds_nothing_and_one_with_few_little() {
    let (directory, key) = (memory(), key());
    let replica = Replica::new(directory.clone(), key);
    let mut bytes: Vec<u8> = noise(64 * BLOCK);
    append(&replica, &bytes, None).unwrap();
    let names = directory.names().unwrap();
    assert_eq!(names, ["0001-000001.delta.age", "0001-000001.manifest.age"]);
    let (nothing, _) = append(&replica, &bytes, None).unwrap();
    assert_eq!(nothing.changed_bytes, 0);
    assert_eq!(directory.names().unwrap(), names);
    bytes[BLOCK] ^= 1;
    append(&replica, &bytes, None).unwrap();
    let link = len(&directory, "0001-000002.delta.age");
    assert!(link < 2 * BLOCK as u64, "{link}");
}

#[test]
fn nothing_of_the_disk_is_readable_without_the_key() {
    let (directory, key) = (memory(), key());
    let replica = Replica::new(directory.clone(), key.clone());
    let text = b"what a guest would rather keep to itself";
    let mut bytes = vec![0; 4 * BLOCK];
    bytes[..text.len()].copy_from_slice(text);
    append(&replica, &bytes, None).unwrap();
    let hash = blake3::hash(&bytes[..BLOCK]);
    for name in directory.names().unwrap() {
        let held = read(&directory, &name.to_string_lossy());
        for secret in [&text[..], hash.as_bytes()] {
            let found = held.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "{name:?}");
        }
    }
    let stranger = Replica::new(directory, self::key());
    let errors = [
        stranger.manifest().map(drop),
        stranger.verify(&work()).map(drop),
        restored(&stranger, CreateFormat::Raw).map(drop),
        append(&stranger, &bytes, None).map(drop),
    ];
    for error in errors.map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("does not open"), "{error}");
    }
}

#[test]
fn further_recipients_open_it_too_and_a_passphrase_does() {
    let other = age::x25519::Identity::generate();
    let mine = Key::load(&identity(), &[other.to_public().to_string()]).unwrap();
    let theirs = Key::load(&KeyFile::Identity(written(&other)), &[]).unwrap();
    let directory = memory();
    let bytes = noise(3 * BLOCK);
    append(
        &Replica::new(directory.clone(), Arc::new(mine)),
        &bytes,
        None,
    )
    .unwrap();
    let replica = Replica::new(directory, Arc::new(theirs));
    assert_eq!(replica.verify(&work()).unwrap(), root(&bytes));

    let phrase = text_file("correct horse\n");
    let key = || Arc::new(Key::load(&KeyFile::Passphrase(phrase.clone()), &[]).unwrap());
    let directory = memory();
    append(&Replica::new(directory.clone(), key()), &bytes, None).unwrap();
    let replica = Replica::new(directory, key());
    assert!(restored(&replica, CreateFormat::Raw).unwrap() == bytes);
}

#[test]
fn what_is_no_key_is_refused() {
    for file in [
        KeyFile::Identity(text_file("no key at all\n")),
        KeyFile::Identity(text_file("# only a comment\n")),
        KeyFile::Passphrase(text_file("\n")),
    ] {
        let error = Key::load(&file, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let gone = KeyFile::Identity(PathBuf::from("/no/such/key"));
    assert_eq!(
        Key::load(&gone, &[]).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    let error = Key::load(&identity(), &["age1nobody".to_owned()]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let phrase = KeyFile::Passphrase(text_file("correct horse"));
    let other = age::x25519::Identity::generate().to_public().to_string();
    let error = Key::load(&phrase, &[other]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn no_flipped_byte_and_no_cut_goes_unnoticed() {
    let (whole, key) = (memory(), key());
    let replica = Replica::new(whole.clone(), key.clone());
    for state in [[1, 2, 0], [1, 3, 0]] {
        append(&replica, &disk(&state), None).unwrap();
    }
    let names = [
        "0001-000001.delta.age",
        "0001-000002.delta.age",
        "0001-000002.manifest.age",
    ];
    for name in names {
        let bytes = read(&whole, name);
        for at in (0..bytes.len()).step_by(bytes.len() / 40) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            for damaged in [flipped, bytes[..at].to_vec()] {
                let directory = copied(&whole);
                directory.insert(name, damaged);
                let replica = Replica::new(Arc::new(directory), key.clone());
                let error = replica.verify(&work()).unwrap_err();
                let kinds = [ErrorKind::Malformed, ErrorKind::InvalidInput, ErrorKind::Io];
                assert!(kinds.contains(&error.kind()), "{name} at {at}: {error:?}");
            }
        }
    }
}

#[test]
fn links_that_are_missing_exchanged_or_of_another_chain_are_no_chain() {
    let (whole, key) = (memory(), key());
    let replica = Replica::new(whole.clone(), key.clone());
    for state in [[1, 2, 0], [1, 3, 0], [2, 3, 1]] {
        append(&replica, &disk(&state), None).unwrap();
    }
    let verify = |change: &dyn Fn(&MemoryDirectory)| {
        let directory = copied(&whole);
        change(&directory);
        let replica = Replica::new(Arc::new(directory), key.clone());
        replica.verify(&work()).unwrap_err().kind()
    };
    let link = |number: u32| format!("0001-00000{number}.delta.age");
    let gap = verify(&|directory| directory.remove(link(2).as_ref()).unwrap());
    assert_eq!(gap, ErrorKind::NotFound);
    let exchanged = verify(&|directory| {
        directory.insert(link(2), read(&whole, &link(3)));
        directory.insert(link(3), read(&whole, &link(2)));
    });
    assert_eq!(exchanged, ErrorKind::BaseMismatch);
    let none = verify(&|directory| directory.remove(link(1).as_ref()).unwrap());
    assert_eq!(none, ErrorKind::NotFound);
}

/// Whoever can write there and knows the public key seals what he likes.
#[test]
fn links_that_were_forged_with_the_public_key_alone_are_refused_by_every_use() {
    let mine = age::x25519::Identity::generate();
    let file = KeyFile::Identity(written(&mine));
    let whole = memory();
    let load = |recipients: &[String]| Arc::new(Key::load(&file, recipients).unwrap());
    for state in [[1, 2, 0], [1, 3, 0]] {
        let replica = Replica::new(whole.clone(), load(&[])).only_own();
        append(&replica, &disk(&state), None).unwrap();
    }
    // The forger has an own key, and names the victim's as a further recipient.
    let forger = KeyFile::Identity(written(&age::x25519::Identity::generate()));
    let public = [mine.to_public().to_string()];
    let forger = Arc::new(Key::load(&forger, &public).unwrap());
    let evil = memory();
    for state in [[1, 2, 0], [3, 3, 3]] {
        let replica = Replica::new(evil.clone(), forger.clone());
        append(&replica, &disk(&state), None).unwrap();
    }
    let [first, second] = ["0001-000001.delta.age", "0001-000002.delta.age"];
    let manifest = "0001-000002.manifest.age";
    for forged in [
        &[first, second, manifest][..],
        &[first],
        &[second],
        &[manifest],
        &[second, manifest],
    ] {
        let directory = copied(&whole);
        for name in forged {
            directory.insert(name, read(&evil, name));
        }
        let before = copied(&directory);
        let replica = Replica::new(Arc::new(directory.clone()), load(&[])).only_own();
        let file_ref = FileRef::new(memory(), "out.raw");
        let uses = [
            ("manifest", replica.manifest().map(drop)),
            ("pass", append(&replica, &disk(&[1, 1, 1]), None).map(drop)),
            ("image", replica.image(&work()).map(drop)),
            ("compact", replica.compact(1, &work()).map(drop)),
            ("verify", replica.verify(&work()).map(drop)),
            (
                "restore",
                replica.restore(
                    &file_ref,
                    &CreateOptions::new(CreateFormat::Raw, 0),
                    &work(),
                ),
            ),
        ];
        for (what, used) in uses {
            let error = used.err().unwrap_or_else(|| panic!("{what} of {forged:?}"));
            let kinds = [ErrorKind::Untrusted, ErrorKind::BaseMismatch];
            assert!(
                kinds.contains(&error.kind()),
                "{what} of {forged:?}: {error}"
            );
        }
        for name in before.names().unwrap() {
            let name = name.to_string_lossy();
            assert!(read(&before, &name) == read(&directory, &name), "{name}");
        }
    }
    let replica = Replica::new(whole, load(&[])).only_own();
    assert_eq!(replica.verify(&work()).unwrap(), root(&disk(&[1, 3, 0])));
}

/// What is older is not wrong; whoever keeps the root of the last pass sees that it is older.
#[test]
fn a_chain_without_its_newest_link_gives_what_the_pass_before_saw() {
    let (directory, key) = (memory(), key());
    let replica = Replica::new(directory.clone(), key);
    for state in [[1, 2, 0], [1, 3, 0]] {
        append(&replica, &disk(&state), None).unwrap();
    }
    directory.remove("0001-000002.delta.age".as_ref()).unwrap();
    assert_eq!(replica.verify(&work()).unwrap(), root(&disk(&[1, 2, 0])));
}

#[test]
fn a_replica_that_was_removed_leaves_nothing_that_a_new_one_would_take_for_its_own() {
    let (directory, key) = (memory(), key());
    let replica = Replica::new(directory.clone(), key);
    for state in [[1, 2, 0], [1, 3, 0]] {
        append(&replica, &disk(&state), None).unwrap();
    }
    // As after a removal that was cut off behind the first link.
    directory.remove("0001-000001.delta.age".as_ref()).unwrap();
    assert!(!replica.exists().unwrap());
    let bytes = disk(&[3, 3, 3]);
    append(&replica, &bytes, None).unwrap();
    assert_eq!(replica.verify(&work()).unwrap(), root(&bytes));
    replica.remove().unwrap();
    assert!(directory.names().unwrap().is_empty());
    assert!(!replica.exists().unwrap());
}

#[test]
fn changes_since_something_else_than_the_chain_gives_are_not_believed() {
    let (directory, key) = (memory(), key());
    let replica = Replica::new(directory, key);
    let [first, second, third] = [[1, 2, 0], [1, 3, 0], [2, 3, 0]].map(|state| disk(&state));
    append(&replica, &first, None).unwrap();
    // The pass that the tracker counts from never reached the chain.
    append(&replica, &third, Some(changed(&second, &third))).unwrap();
    assert_eq!(replica.verify(&work()).unwrap(), root(&third));
}

#[test]
fn a_source_that_changes_meanwhile_adds_nothing() {
    let (directory, key) = (memory(), key());
    let replica = Replica::new(directory.clone(), key);
    append(&replica, &disk(&[1, 2, 3]), None).unwrap();
    let (other, next) = (image(&disk(&[2, 2, 3])), next());
    let changed = || Err(diskdelta::Error::new(ErrorKind::SourceChanged, "changed"));
    let error = replica
        .append(&other, None, &next, &changed, &work())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SourceChanged);
    assert_eq!(replica.verify(&work()).unwrap(), root(&disk(&[1, 2, 3])));
}

#[test]
fn a_pass_and_a_compaction_survive_every_crash() {
    let key = key();
    let states = [disk(&[1, 2, 0]), disk(&[1, 3, 0]), disk(&[2, 3, 1])];
    let roots = states.clone().map(|state| root(&state));
    let disk = FaultDisk::new();
    let replica = Replica::new(Arc::new(disk.directory(DIRECTORY)), key.clone());
    for (number, state) in states.iter().enumerate() {
        append(&replica, state, None).unwrap();
        disk.note(format!("pass {number}"));
    }
    replica.compact(2, &work()).unwrap();
    disk.note("compacted");
    let check = |state: &CrashState| {
        let directory = Arc::new(state.disk().directory(DIRECTORY));
        let replica = Replica::new(directory.clone(), key.clone());
        let acknowledged = (0..3)
            .rev()
            .find(|number| state.noted(&format!("pass {number}")));
        let found = match replica.exists().map_err(|e| e.to_string())? {
            false if acknowledged.is_none() => return Ok(()),
            false => return Err("an acknowledged pass is gone".to_owned()),
            true => replica.verify(&work()).map_err(|e| e.to_string())?,
        };
        let reached = roots
            .iter()
            .rposition(|root| *root == found)
            .ok_or("a mixture")?;
        match acknowledged {
            Some(at_least) if reached < at_least => Err("an acknowledged pass is gone".to_owned()),
            _ => {
                // The next pass goes on from there.
                append(&replica, &states[0], None).map_err(|e| e.to_string())?;
                replica.tidy().map_err(|e| e.to_string())?;
                let now = replica.verify(&work()).map_err(|e| e.to_string())?;
                (now == roots[0])
                    .then_some(())
                    .ok_or("the next pass".to_owned())
            }
        }
    };
    let coverage = disk
        .crashes()
        .with_limit(6)
        .with_samples(4)
        .check(check)
        .unwrap();
    println!("replica: {coverage:?}");
}

const DIRECTORY: &str = "/replica";

fn append(
    replica: &Replica,
    bytes: &[u8],
    changed: Option<Changed>,
) -> Result<(Appended, diskdelta::Hash)> {
    let next = next();
    let appended = replica.append(&image(bytes), changed, &next, &|| Ok(()), &work())?;
    let manifest = manifest::Manifest::from_storage(next, &diskdelta::Limits::default())?;
    Ok((appended, manifest.root()))
}

fn append_remote(
    replica: &Replica,
    bytes: &[u8],
    changed: Option<Changed>,
) -> Result<(Appended, diskdelta::Hash)> {
    let (line, next) = (Line::to(bytes), next());
    let len = bytes.len() as u64;
    let appended = replica.append_remote(line.source.backend(), len, changed, &next, &work())?;
    line.source.backend().finish()?;
    line.agent.join().unwrap().unwrap();
    let manifest = manifest::Manifest::from_storage(next, &diskdelta::Limits::default())?;
    Ok((appended, manifest.root()))
}

/// A disk at the other end of a line of this host.
struct Line {
    source: Source,
    agent: JoinHandle<Result<Served>>,
    cut: UnixStream,
    _file: tempfile::NamedTempFile,
}

impl Line {
    fn to(bytes: &[u8]) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let (here, there) = UnixStream::pair().unwrap();
        let (reader, cut) = (there.try_clone().unwrap(), there.try_clone().unwrap());
        let options = ServeOptions::default().with_read_only(true);
        let agent = std::thread::spawn(move || serve(reader, there, &options, &work()));
        let reader = here.try_clone().unwrap();
        let client = Client::new(reader, here, &LineOptions::default(), &work()).unwrap();
        let image = ImageOptions::default().with_format(Format::Raw);
        let source = client.open(file.path(), &image, &SourceOptions::default(), &work());
        Line {
            source: source.unwrap(),
            agent,
            cut,
            _file: file,
        }
    }
}

fn restored(replica: &Replica, format: CreateFormat) -> Result<Vec<u8>> {
    let directory = memory();
    let file_ref = FileRef::new(directory.clone(), "restored");
    replica.restore(&file_ref, &CreateOptions::new(format, 0), &work())?;
    let storage = directory.open("restored".as_ref(), Access::Read)?;
    let format: Format = format.format();
    let image = diskdelta::image::open_storage(storage, format, &ImageOptions::default())?;
    let mut bytes = vec![0; usize::try_from(image.disk_len()).unwrap()];
    image.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn next() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::new("next", Vec::new()))
}

fn memory() -> Arc<MemoryDirectory> {
    Arc::new(MemoryDirectory::new())
}

fn copied(directory: &MemoryDirectory) -> MemoryDirectory {
    let copy = MemoryDirectory::new();
    for name in directory.names().unwrap() {
        copy.insert(&name, directory.bytes(&name).unwrap());
    }
    copy
}

fn read(directory: &MemoryDirectory, name: &str) -> Vec<u8> {
    directory.bytes(name).unwrap()
}

fn len(directory: &MemoryDirectory, name: &str) -> u64 {
    read(directory, name).len() as u64
}

fn image(bytes: &[u8]) -> Raw {
    Raw::open(Arc::new(MemoryStorage::new("image", bytes.to_vec()))).unwrap()
}

/// All of an image, read in pieces that fit nothing, and where it says it is zero, zeros.
fn shown(image: &dyn Image) -> Vec<u8> {
    let len = image.disk_len();
    let mut bytes = vec![7; len as usize];
    for (at, piece) in (0..).step_by(10_007).zip(bytes.chunks_mut(10_007)) {
        image.read_exact_at(piece, at).unwrap();
    }
    let mut at = 0;
    while let Some(extent) = image.next_extent(at).unwrap() {
        assert!(extent.offset == at && extent.len > 0 && extent.end() <= len);
        let held = &bytes[at as usize..extent.end() as usize];
        let zeros = held.iter().all(|byte| *byte == 0);
        assert!(zeros || extent.kind == ExtentKind::Data, "{extent:?}");
        at = extent.end();
    }
    assert_eq!(at, len);
    assert!(image.read_exact_at(&mut [0; 2], len - 1).is_err());
    bytes
}

fn root(bytes: &[u8]) -> diskdelta::Hash {
    manifest::root_of(&image(bytes), BlockSize::default(), &work()).unwrap()
}

fn work() -> Work {
    Work::with_threads(2).unwrap()
}

/// One block of each kind; kind 0 is zeros.
fn disk(kinds: &[u8]) -> Vec<u8> {
    let byte = |at: usize, kind: u8| ((at % 251) as u8 * u8::from(kind > 0)) ^ kind;
    let block = |kind: u8| (0..BLOCK).map(move |at| byte(at, kind));
    kinds.iter().copied().flat_map(block).collect()
}

/// One block of each kind, of which some pages are zeros; all of kind 0.
fn pages(kinds: &[u8]) -> Vec<u8> {
    let page = |kind: u8, page: u8| match kind > 0 && !(page + kind).is_multiple_of(3) {
        true => vec![kind ^ (page << 2) | 1; 4096],
        false => vec![0; 4096],
    };
    let block = |kind: u8| (0..16).flat_map(move |number| page(kind, number));
    kinds.iter().copied().flat_map(block).collect()
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn changed(old: &[u8], new: &[u8]) -> Changed {
    let blocks = (0..new.len()).step_by(BLOCK);
    let ranges = blocks.map(|at| at..(at + BLOCK).min(new.len()));
    let differs = ranges.filter(|range| old[range.clone()] != new[range.clone()]);
    Changed {
        since: root(old),
        ranges: differs.map(|it| it.start as u64..it.end as u64).collect(),
    }
}

fn key() -> Arc<Key> {
    Arc::new(Key::load(&identity(), &[]).unwrap())
}

fn identity() -> KeyFile {
    KeyFile::Identity(written(&age::x25519::Identity::generate()))
}

fn written(identity: &age::x25519::Identity) -> PathBuf {
    text_file(&format!(
        "# a key\n{}\n",
        identity.to_string().expose_secret()
    ))
}

fn text_file(text: &str) -> PathBuf {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path: &Path = &file.into_temp_path().keep().unwrap();
    path.to_owned()
}

//! Recovery after a sync was cut off, with redo log or marker damaged since.

use std::sync::Arc;

use diskdelta::image::CreateFormat;
use diskdelta::storage::Storage;
use diskdelta::sync::{self, Marker, Mode, Recovered, Safety, Source, SyncOptions, Verify};
use diskdelta::{ErrorKind, Result};

use super::super::craft::delta::DeltaFile;
use super::super::input::Input;
use super::super::meter::{bound, within};
use super::super::store::{Bytes, Fixture, Store};
use super::super::{Depth, work};
use super::apply::{container, content, disk, overlaid, raw, some_format, target};

/// The input is a program: two disks, a format, how the sync is done and where it is cut off, and
/// what is done to the files that it left.
pub fn recover(data: &[u8]) -> Depth {
    let mut input = Input(data);
    let case = Case::new(&mut input);
    let fixture = Fixture::new();
    fixture.insert("t", container(case.format, &case.old));
    let power = match input.one_in(4) {
        true => i64::from(input.u16()),
        false => i64::from(input.u8() % 64),
    };
    if case.sync(&fixture.powered(power)).is_ok() {
        case.holds(&fixture, &[&case.new]);
        return Depth::Refused;
    }
    let left = fixture.snapshot();
    case.whole(&left.snapshot());
    let damage = damage(&fixture, &mut input);
    let damaged = fixture.snapshot();
    let stored: u64 = fixture
        .list()
        .iter()
        .map(|name| fixture.bytes(name).unwrap().stored())
        .sum();
    let said = within(bound(stored) + (8 << 20), || {
        sync::recover(&target(&fixture, case.format), work())
    });
    match damage {
        Damage::None => {}
        Damage::Seen => case.after_seen(&fixture, &left, &damaged, said),
        Damage::Mended(redo_log) => {
            case.after_mended(&fixture, &damaged, said, redo_log.as_deref())
        }
    }
    Depth::Taken
}

struct Case {
    format: CreateFormat,
    old: Vec<u8>,
    new: Vec<u8>,
    options: SyncOptions,
}

/// What was done to the files.
enum Damage {
    None,
    /// Something that checksums show.
    Seen,
    /// Something that they do not, and what the redo log then is.
    Mended(Option<Box<DeltaFile>>),
}

impl Case {
    fn new(input: &mut Input<'_>) -> Self {
        let format = some_format(input);
        let old = disk(input);
        let mut new = disk(input);
        if format != CreateFormat::Raw {
            new.resize(old.len(), 0);
        }
        let options = SyncOptions::default()
            .with_mode(input.pick(&[Mode::Delta, Mode::Delta, Mode::Full]))
            .with_safety(input.pick(&[Safety::Atomic, Safety::Atomic, Safety::InPlace]))
            .with_verify(input.pick(&[Verify::Written, Verify::None]))
            .with_allow_shrink(true);
        Case {
            format,
            old,
            new,
            options,
        }
    }

    fn sync(&self, fixture: &Fixture) -> Result<()> {
        let source = Source::new(Arc::new(raw(&self.new)));
        sync::sync(
            &source,
            &target(fixture, self.format),
            &self.options,
            work(),
        )
        .map(drop)
    }

    /// With nothing damaged, recovery makes the target old or new and says which.
    fn whole(&self, fixture: &Fixture) {
        match sync::recover(&target(fixture, self.format), work()).expect("nothing was damaged") {
            Recovered::New => self.holds(fixture, &[&self.new]),
            Recovered::Old => self.holds(fixture, &[&self.old]),
            Recovered::Rerun => {
                assert!(marker(fixture).is_some(), "to be run again, and not marked");
                self.sync(fixture).expect("the same sync runs again");
                self.holds(fixture, &[&self.new]);
            }
            _ => self.holds(fixture, &[&self.old, &self.new]),
        }
    }

    /// Damage that checksums show: what recovery says is true, and where it gives up the target
    /// can still be saved by the files as they were.
    fn after_seen(
        &self,
        fixture: &Fixture,
        left: &Fixture,
        damaged: &Fixture,
        said: Result<Recovered>,
    ) {
        match said {
            Ok(Recovered::New) => self.holds(fixture, &[&self.new]),
            Ok(Recovered::Rerun) => assert!(marker(fixture).is_some()),
            Ok(_) => self.holds(fixture, &[&self.old, &self.new]),
            Err(error) => {
                refusal(error.kind());
                let same = |name: &str| {
                    fixture
                        .bytes(name)
                        .unwrap()
                        .same_as(&damaged.bytes(name).unwrap())
                };
                assert!(same("t"), "gave up, and changed the target: {error}");
                for name in left.list() {
                    fixture.insert(&name, left.bytes(&name).unwrap());
                }
                self.whole(fixture);
            }
        }
    }

    /// A redo log that is whole but says something else is trusted; then all of it has to hold.
    fn after_mended(
        &self,
        fixture: &Fixture,
        damaged: &Fixture,
        said: Result<Recovered>,
        redo_log: Option<&DeltaFile>,
    ) {
        match (said, redo_log) {
            (Ok(Recovered::New), Some(redo_log)) => {
                assert!(marker(fixture).is_none(), "called new, and marked");
                if self.format == CreateFormat::Raw && marker(damaged).is_some() {
                    let found = content(&fixture.bytes("t").unwrap(), self.format);
                    let wanted = overlaid(&found, &{
                        let mut redo_log = redo_log.clone();
                        redo_log.header.result_len = found.len() as u64;
                        redo_log
                    });
                    assert!(
                        found == wanted,
                        "called new, and not what the redo log says"
                    );
                }
            }
            (Ok(Recovered::Rerun), _) => assert!(marker(fixture).is_some()),
            (Ok(_), _) => assert!(marker(fixture).is_none(), "called whole, and marked"),
            (Err(error), _) => refusal(error.kind()),
        }
    }

    fn holds(&self, fixture: &Fixture, wanted: &[&Vec<u8>]) {
        assert!(marker(fixture).is_none(), "a marker is left");
        let found = content(&fixture.bytes("t").unwrap(), self.format);
        assert!(wanted.iter().any(|it| **it == found), "neither old nor new");
    }
}

fn refusal(kind: ErrorKind) {
    let kinds = [
        ErrorKind::Malformed,
        ErrorKind::Incomplete,
        ErrorKind::BaseMismatch,
        ErrorKind::LimitExceeded,
        ErrorKind::Unsupported,
        ErrorKind::InvalidInput,
        ErrorKind::VerifyFailed,
        ErrorKind::NoSpace,
        ErrorKind::Io,
    ];
    assert!(kinds.contains(&kind), "{kind:?}");
}

fn marker(fixture: &Fixture) -> Option<Marker> {
    let store: Arc<dyn Storage> = Arc::new(Store::new("t", fixture.bytes("t")?));
    Marker::find(&*store).unwrap()
}

/// Damages the redo log or sidecar, or the marker, as `input` says.
fn damage(fixture: &Fixture, input: &mut Input<'_>) -> Damage {
    let redo_log = fixture.list().into_iter().find(|it| it.ends_with("-log"));
    let Some(name) = redo_log else {
        return Damage::None;
    };
    let file = fixture.bytes(&name).unwrap();
    let mut bytes = file.vec(0, file.len() as usize);
    match input.u8() % 4 {
        0 => {
            for _ in 0..1 + input.below(3) {
                let at = input.below(bytes.len().max(1) as u64) as usize;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 + input.u8() % 255;
                }
            }
            fixture.insert(&name, Bytes::new(&bytes));
            Damage::Seen
        }
        1 => {
            bytes.truncate(input.below(bytes.len().max(1) as u64) as usize);
            fixture.insert(&name, Bytes::new(&bytes));
            Damage::Seen
        }
        2 if marker(fixture).is_some() => {
            // Whole sectors of the first page: lost, or of another job.
            let mut target = fixture.bytes("t").unwrap();
            let sector = input.below(8) * 512;
            target.put(sector, &[input.u8(); 512]);
            fixture.insert("t", target);
            Damage::Mended(None)
        }
        _ => {
            let Some(mut redo_log) = DeltaFile::parse(&bytes) else {
                return Damage::None;
            };
            redo_log.mutate(input);
            fixture.insert(&name, Bytes::new(&redo_log.encode()));
            Damage::Mended(redo_log.trailer.is_some().then(|| Box::new(redo_log)))
        }
    }
}

//! What must hold of any image that opens, and of any that does not.

use std::ops::Range;
use std::sync::Arc;

use diskdelta::image::{self, Change, Format, Image, ImageMut, ImageOptions, Patch};
use diskdelta::storage::Storage;
use diskdelta::{Error, ErrorKind, Extent, ExtentKind};

use super::Depth;
use super::input::Input;
use super::meter::{bound, within};
use super::reference::Disk;
use super::store::{Bytes, Store};

/// What a plain decoder makes of a file that the real one took; `None` where it cannot say.
pub type Reference<'a> = &'a dyn Fn() -> Option<Box<dyn Disk>>;

/// Opens `file` and asks everything that can be asked of an image.
pub fn image(
    file: &Bytes,
    format: Format,
    options: &ImageOptions,
    reference: Option<Reference<'_>>,
) -> Depth {
    let store = Arc::new(Store::new("image", file.clone()));
    let opened = within(bound(file.stored()), || {
        image::open_storage(store.clone(), format, options)
    });
    let image = match opened {
        Ok(image) => image,
        Err(error) => {
            refusal(&error);
            return Depth::Refused;
        }
    };
    let reference = reference.and_then(|open| open());
    let reference = reference.as_deref();
    within(bound(file.stored()), || {
        assert_eq!(image.info().disk_bytes, image.disk_len());
        let _ = image.allocated_bytes();
        let probes = probes(&*image);
        for probe in &probes {
            reading(&*image, probe, reference);
        }
    });
    let end = image.disk_len();
    assert!(image.read_exact_at(&mut [0], end).is_err());
    assert!(image.read_exact_at(&mut [0; 2], u64::MAX).is_err());
    assert!(store.bytes().same_as(file), "reading wrote to the file");
    if let Some(reference) = reference {
        assert_eq!(Some(end), reference.disk_len(), "lengths disagree");
    }
    Depth::Taken
}

/// A file that is wrong gets an error that says so and names the file; nothing else went wrong
/// here.
pub fn refusal(error: &Error) {
    let kinds = [
        ErrorKind::Malformed,
        ErrorKind::Unsupported,
        ErrorKind::LimitExceeded,
        ErrorKind::Parent,
    ];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert!(error.path().is_some(), "which file? {error:?}");
}

/// Ranges worth reading: around the borders of extents, which are held against their contract.
pub fn probes(image: &dyn Image) -> Vec<Range<u64>> {
    let len = image.disk_len();
    let mut borders = vec![0, len / 2, len];
    let mut at = 0;
    for _ in 0..MOST_EXTENTS {
        let Ok(Some(extent)) = image.next_extent(at) else {
            break;
        };
        assert_eq!(extent.offset, at, "extents follow each other");
        assert!(extent.len > 0 && extent.end() <= len, "{extent:?} of {len}");
        at = extent.end();
        if borders.len() < MOST_PROBES {
            borders.push(at);
        }
    }
    assert!(image.next_extent(len).is_ok_and(|it| it.is_none()));
    borders.sort_unstable();
    borders.dedup();
    let around = |border: &u64| border.saturating_sub(1500)..(border + 3000).min(len);
    borders
        .iter()
        .map(around)
        .filter(|it| !it.is_empty())
        .collect()
}

/// Reads a range whole and in pieces, and holds it against extents and reference.
fn reading(image: &dyn Image, range: &Range<u64>, reference: Option<&dyn Disk>) {
    let whole = read(image, range);
    let mut pieces = Ok(Vec::new());
    let mut at = range.start;
    // Steps of no pattern meet every phase of sectors and blocks.
    for step in [1, 511, 7, 512, 613, 1024, u64::MAX] {
        let end = at.saturating_add(step).min(range.end);
        if let Ok(bytes) = &mut pieces {
            match read(image, &(at..end)) {
                Ok(more) => bytes.extend(more),
                Err(error) => pieces = Err(error),
            }
        }
        at = end;
    }
    let whole = match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => {
            assert!(whole == pieces, "{range:?} depends on how it is read");
            whole
        }
        (Err(error), Err(_)) => {
            assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
            return;
        }
        (whole, pieces) => panic!("{range:?}: {:?} but {:?}", whole.err(), pieces.err()),
    };
    if let Ok(Some(extent)) = image.next_extent(range.start)
        && extent.kind == ExtentKind::Zero
    {
        let zeros = (extent.end().min(range.end) - range.start) as usize;
        assert!(
            whole[..zeros].iter().all(|byte| *byte == 0),
            "a zero extent at {:#x} holds data",
            range.start
        );
    }
    if let Some(wanted) = reference.and_then(|it| it.read(range.start, whole.len())) {
        assert!(whole == wanted, "{range:x?} differs from the reference");
    }
}

pub fn read(image: &dyn Image, range: &Range<u64>) -> diskdelta::Result<Vec<u8>> {
    let mut bytes = vec![0xAA; (range.end - range.start) as usize];
    image.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

/// Opens `file` for writing, writes as `input` says, and checks that the image then holds that
/// and everything else unchanged, also when it is opened again.
pub fn writing(file: &Bytes, format: Format, options: &ImageOptions, input: &mut Input<'_>) {
    let store = Arc::new(Store::new("image", file.clone()));
    let Ok(before) = image::open_storage(store.clone(), format, options) else {
        return;
    };
    let mut model = Model::of(&*before);
    drop(before);
    let opened = within(bound(file.stored()), || {
        image::open_storage_mut(store.clone(), format, options)
    });
    let Ok(image) = opened else {
        model.check(&store, format, options);
        return;
    };
    let prepared = input.one_in(3);
    let writes: Vec<(Range<u64>, u8)> = (0..1 + input.below(5))
        .map(|_| model.some_write(input))
        .collect();
    let done = within(bound(file.stored() + (64 << 20)), || match prepared {
        true => write_prepared(&*image, &*store, &writes, &mut model),
        false => write_plain(&*image, &writes, &mut model),
    });
    match done {
        Ok(()) => {
            model.check_image(&*image);
            drop(image);
            model.check(&store, format, options);
        }
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::NoSpace
                    | ErrorKind::LimitExceeded
                    | ErrorKind::Unsupported
                    | ErrorKind::Malformed
            ),
            "{error:?}"
        ),
    }
}

fn write_plain(
    image: &dyn ImageMut,
    writes: &[(Range<u64>, u8)],
    model: &mut Model,
) -> diskdelta::Result<()> {
    for (range, fill) in writes {
        match fill {
            0 => image.write_zeroes_at(range.clone())?,
            fill => image.write_all_at(&vec![*fill; length(range)], range.start)?,
        }
        model.write(range, *fill);
    }
    image.sync()
}

fn write_prepared(
    image: &dyn ImageMut,
    storage: &dyn Storage,
    writes: &[(Range<u64>, u8)],
    model: &mut Model,
) -> diskdelta::Result<()> {
    let mut writes = writes.to_vec();
    writes.sort_by_key(|(range, _)| range.start);
    let mut end = 0;
    writes.retain(|(range, _)| {
        let apart = range.start >= end;
        end = end.max(range.end);
        apart
    });
    let extents: Vec<Extent> = writes
        .iter()
        .map(|(range, fill)| match fill {
            0 => Extent::zero(range.clone()),
            _ => Extent::data(range.clone()),
        })
        .collect();
    let change = Change {
        disk_len: model.disk_len,
        extents: &extents,
    };
    let patches = image.prepare(&change)?;
    apply(storage, &patches, false)?;
    for (range, fill) in &writes {
        match fill {
            0 => image.write_zeroes_at(range.clone())?,
            fill => image.write_all_at(&vec![*fill; length(range)], range.start)?,
        }
        model.write(range, *fill);
    }
    image.sync()?;
    apply(storage, &patches, true)
}

fn apply(storage: &dyn Storage, patches: &[Patch], want_last: bool) -> diskdelta::Result<()> {
    for patch in patches {
        match patch {
            Patch::Write {
                offset,
                bytes,
                last,
            } if *last == want_last => storage.write_all_at(bytes, *offset)?,
            Patch::SetLen(len) if !want_last => storage.set_len(*len)?,
            Patch::Zero(range) if !want_last => storage.punch_hole(range.clone())?,
            _ => {}
        }
    }
    Ok(())
}

/// What some ranges of a disk must hold.
struct Model {
    disk_len: u64,
    ranges: Vec<(Range<u64>, Vec<u8>)>,
}

impl Model {
    fn of(image: &dyn Image) -> Self {
        let known = probes(image)
            .into_iter()
            .filter_map(|range| Some((range.clone(), read(image, &range).ok()?)));
        Model {
            disk_len: image.disk_len(),
            ranges: known.collect(),
        }
    }

    fn some_write(&self, input: &mut Input<'_>) -> (Range<u64>, u8) {
        let fill = input.u8();
        let len = match input.u8() % 4 {
            0 => 512,
            1 => 1 + input.below(9000),
            2 => 4096,
            // Zeros may cover whole blocks.
            _ if fill == 0 => input.below(8 << 20),
            _ => 20_000,
        };
        let start = match self.ranges.is_empty() || input.one_in(3) {
            true => input.below(self.disk_len.max(1)),
            false => {
                let known = input.below(self.ranges.len() as u64) as usize;
                let near = self.ranges[known].0.start + input.below(4096);
                near.min(self.disk_len)
            }
        };
        (start..(start + len).min(self.disk_len), fill)
    }

    fn write(&mut self, range: &Range<u64>, fill: u8) {
        for (known, bytes) in &mut self.ranges {
            let start = range.start.max(known.start);
            let end = range.end.min(known.end);
            if start < end {
                let local = (start - known.start) as usize..(end - known.start) as usize;
                bytes[local].fill(fill);
            }
        }
        if range.end - range.start <= 1 << 16 {
            // Earlier entries overlap this one where later writes did; each is kept current.
            self.ranges.push((range.clone(), vec![fill; length(range)]));
        }
    }

    fn check(&self, store: &Store, format: Format, options: &ImageOptions) {
        let store = Arc::new(store.clone());
        match image::open_storage(store, format, options) {
            Ok(image) => self.check_image(&*image),
            Err(error) => panic!("what was written does not open again: {error}"),
        }
    }

    fn check_image(&self, image: &dyn Image) {
        assert_eq!(image.disk_len(), self.disk_len);
        for (range, wanted) in &self.ranges {
            match read(image, range) {
                Ok(found) => assert!(found == *wanted, "{range:x?} was changed or not written"),
                Err(error) => panic!("{range:x?} was readable before: {error}"),
            }
        }
    }
}

fn length(range: &Range<u64>) -> usize {
    (range.end - range.start) as usize
}

const MOST_EXTENTS: usize = 3000;
const MOST_PROBES: usize = 40;

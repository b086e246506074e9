//! A disk on another host, as it is reached from here.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::disk_state::nothing;
use crate::diff::CompareOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::failback::plan;
use crate::hash::Hash;
use crate::image::{Format, Image, ImageOptions};
use crate::location::RemoteAddress;
use crate::manifest::{RangeSet, TargetManifest};
use crate::progress::Work;
#[cfg(feature = "tls")]
use crate::remote::tls::{DialOptions, Identity};
use crate::remote::{ConnectOptions, LineOptions, ShellOptions};
use crate::replica::{Appended, Changed, Replica};
use crate::storage::{SourceOptions, Storage};
use crate::sync::{
    REMOTE_BLOCK_BYTES, Search, Source, SourceBackend, SyncOptions, SyncReport, Target, sync,
};
use crate::units::BlockSize;

/// A disk on another host, open there. One thing is done with it.
pub(super) struct RemoteDisk {
    pub source: Source,
    /// Where it is, for errors.
    place: Option<String>,
}

/// What a sample across the line has found.
pub(super) struct RemoteSample {
    /// Bytes that were looked at.
    pub looked: u64,
    /// How many of them the source holds as data.
    pub data: u64,
    /// How many of them differ; `None` where there was nothing to compare with.
    pub changed: Option<u64>,
    /// How long it took to compare what was looked at.
    pub compare_seconds: f64,
    /// How long it took to bring what of it is data over the line.
    pub move_seconds: f64,
}

impl RemoteDisk {
    /// Has the disk opened there; `live` where its VM may write to it meanwhile.
    pub fn open(
        at: &RemoteAddress,
        format: Format,
        connect: &ConnectOptions,
        live: bool,
        work: &Work,
    ) -> Result<Self> {
        let image = ImageOptions::default().with_format(format);
        let options = SourceOptions::default().with_allow_writers(live);
        let client = connect.connect(at, work);
        let source = client.and_then(|client| client.open(at.path(), &image, &options, work));
        Ok(RemoteDisk {
            source: source.map_err(|error| error.at_path(at.to_string()))?,
            place: Some(at.to_string()),
        })
    }

    /// A disk that the end which dialled a disk agent answers for.
    pub(super) fn over(source: Source) -> Self {
        RemoteDisk {
            source,
            place: None,
        }
    }

    /// Length of the disk in bytes.
    pub(super) fn disk_len(&self) -> u64 {
        self.source.disk_len()
    }

    /// Makes `target` hold what the disk holds.
    pub fn sync_onto(
        &self,
        target: &Target,
        options: &SyncOptions,
        work: &Work,
    ) -> Result<SyncReport> {
        sync(&self.source, target, options, work).map_err(|error| self.named(error))
    }

    /// Adds what the disk holds to a replica.
    pub fn append_to(
        &self,
        replica: &Replica,
        disk_len: u64,
        changed: Option<Changed>,
        next: &Arc<dyn Storage>,
        work: &Work,
    ) -> Result<Appended> {
        self.with(|source| replica.append_remote(source, disk_len, changed, next, work))
    }

    /// The root of all that the disk holds, which is read whole at its host.
    ///
    /// # Errors
    /// `Unsupported` for roots over other blocks; those of the disk and of the line.
    pub(super) fn root(&self, disk_len: u64, block_size: BlockSize, work: &Work) -> Result<Hash> {
        let disk_len = disk_len.max(self.disk_len());
        self.with(|source| source.root(disk_len, block_size, work))
    }

    /// Looks at blocks spread evenly over the disk, and compares them with those of `target`, for
    /// which `held` may stand.
    pub fn sample(
        &self,
        target: Option<&dyn Image>,
        held: Option<&TargetManifest>,
        work: &Work,
    ) -> Result<RemoteSample> {
        let ranges = spread(self.disk_len());
        let looked = ranges.iter().map(|range| range.end - range.start).sum();
        let options = CompareOptions::default().with_change_map(Some(ranges));
        let nothing = nothing(self.disk_len())?;
        self.with(|source| {
            let begun = Instant::now();
            let counted = source.find(
                Search {
                    kept: held,
                    counts_only: true,
                    ..Search::new(target.unwrap_or(&*nothing), self.disk_len(), &options)
                },
                work,
                &|_| Ok(()),
            )?;
            let compared = begun.elapsed();
            let begun = Instant::now();
            let data = AtomicU64::new(0);
            let moved = source.compare(&*nothing, self.disk_len(), &options, work, &|difference| {
                data.fetch_add(difference.new.len(), Ordering::Relaxed);
                Ok(())
            });
            match moved {
                // Its VM has written there meanwhile.
                Err(error) if error.kind() == ErrorKind::VerifyFailed => {}
                moved => drop(moved?),
            }
            Ok(RemoteSample {
                looked,
                data: data.into_inner(),
                changed: target.map(|_| counted.0.changed_bytes),
                compare_seconds: compared.as_secs_f64(),
                move_seconds: begun.elapsed().as_secs_f64(),
            })
        })
    }

    /// Closes the line, where nothing but opening the disk was wanted.
    pub fn close(&self) -> Result<()> {
        self.with(|_| Ok(()))
    }

    fn with<T>(&self, ask: impl FnOnce(&dyn SourceBackend) -> Result<T>) -> Result<T> {
        self.source.ask(ask).map_err(|error| self.named(error))
    }

    fn named(&self, error: Error) -> Error {
        match &self.place {
            Some(place) => error.at_path(place),
            None => error,
        }
    }
}

/// How the hosts of a site's disks are reached, as its plan says.
pub(super) fn connect_options(plan: &plan::SiteConnectOptions) -> ConnectOptions {
    let line = LineOptions::default()
        .with_silence(plan.timeout)
        .with_limit_rate(plan.limit_rate);
    let shell = ShellOptions::default()
        .with_shell(&plan.rsh)
        .with_program(&plan.remote_program)
        .with_keeps_errors(true);
    let connect = ConnectOptions::default().with_shell(shell).with_line(line);
    #[cfg(feature = "tls")]
    let connect = connect.with_tls(plan.tls.as_ref().map(|files| {
        let options = DialOptions::new(Identity::new(&files.cert, &files.key, &files.ca));
        options.with_name(plan.tls_name.clone())
    }));
    connect
}

/// The blocks of a disk in which ranges lie, or more where there are very many: what is compared
/// across a line at least.
pub(super) fn blocks_of(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let block = |range: &Range<u64>| {
        let start = range.start - range.start % REMOTE_BLOCK_BYTES;
        start
            ..range
                .end
                .div_ceil(REMOTE_BLOCK_BYTES)
                .saturating_mul(REMOTE_BLOCK_BYTES)
    };
    let filled = ranges.iter().filter(|range| !range.is_empty());
    let blocks = RangeSet::of(filled.map(block));
    blocks.coarsened_to(RANGES_MOST).into_vec()
}

/// At most 256 blocks, spread evenly.
fn spread(disk_len: u64) -> Vec<Range<u64>> {
    let step = disk_len
        .div_ceil(SAMPLES)
        .next_multiple_of(REMOTE_BLOCK_BYTES);
    let starts = (0..SAMPLES).map(|index| index.saturating_mul(step));
    starts
        .take_while(|start| *start < disk_len)
        .map(|start| start..(start + REMOTE_BLOCK_BYTES).min(disk_len))
        .collect()
}

const SAMPLES: u64 = 256;
/// A quarter of what a comparison takes.
const RANGES_MOST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_of_blocks_of_the_disk_and_of_few() {
        const BLOCK: u64 = REMOTE_BLOCK_BYTES;
        assert_eq!(spread(0), []);
        let ends = |len| {
            spread(len)
                .iter()
                .map(|it| (it.start, it.end))
                .collect::<Vec<_>>()
        };
        assert_eq!(ends(5), [(0, 5)]);
        assert_eq!(ends(BLOCK + 1), [(0, BLOCK), (BLOCK, BLOCK + 1)]);
        let many = spread((1 << 40) + 7);
        assert!(many.len() <= 256 && many.iter().all(|it| it.end - it.start <= BLOCK));
        assert!(many.last().unwrap().end > (1 << 40) - (8 << 30));
    }

    #[test]
    fn tracked_ranges_are_rounded_out_to_blocks() {
        let block = REMOTE_BLOCK_BYTES;
        let ranges = [5..6, 7..7, block - 1..block + 1, u64::MAX - 1..u64::MAX];
        let rounded = blocks_of(&ranges);
        assert_eq!(rounded[0], 0..2 * block);
        assert_eq!((rounded.len(), rounded[1].end), (2, u64::MAX));
    }
}

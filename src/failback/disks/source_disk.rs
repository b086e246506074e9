//! What is read of a disk, wherever it is: its file, an export of it, or what another host has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::blocks::spread;
use super::disk_state::{nothing, padded};
use crate::api::open_source;
use crate::diff::CompareOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{Format, Image, ImageOptions};
use crate::location::Location;
use crate::manifest::TargetManifest;
use crate::progress::Work;
use crate::remote::ConnectOptions;
use crate::replica::{Appended, Changed, Replica};
use crate::storage::{HostFile, SourceOptions, Storage};
use crate::sync::{Search, Source, SourceBackend, SyncOptions, SyncReport, Target, sync};
use crate::units::BlockSize;

/// A disk, open to be read. With one on another host one thing is done.
pub(super) struct SourceDisk {
    source: Source,
    /// Where it is, for errors of a connection that only reads it.
    place: Option<String>,
}

/// What a sample across the line has found.
pub(super) struct Sampled {
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

impl SourceDisk {
    /// Opens it; `format` is that of the disk's file, `live` says that its VM may write to it.
    pub(super) fn open(
        location: &Location,
        format: Format,
        connect: &ConnectOptions,
        live: bool,
        work: &Work,
    ) -> Result<Self> {
        let format = match location {
            // The guest's bytes, as they were at one moment.
            Location::Nbd(_) => Format::Raw,
            _ => format,
        };
        let place = matches!(location, Location::Remote(_)).then(|| location.to_string());
        let image = ImageOptions::default().with_format(format);
        let options = SourceOptions::default().with_allow_writers(live);
        match open_source(location, &image, &options, connect, work) {
            Ok(source) => Ok(SourceDisk { source, place }),
            Err(error) => Err(place.into_iter().fold(error, Error::at_path)),
        }
    }

    /// A disk that the client of a disk agent answers for.
    pub(super) fn over_callback(source: Source) -> Self {
        SourceDisk {
            source,
            place: None,
        }
    }

    /// Length of the disk in bytes.
    pub(super) fn disk_len(&self) -> u64 {
        self.source.disk_len()
    }

    /// The guest's bytes, where they can be read from here.
    pub(super) fn image(&self) -> Option<&Arc<dyn Image>> {
        self.source.image()
    }

    /// The guest's bytes, for what cannot do without.
    pub(super) fn local(&self) -> Result<&Arc<dyn Image>> {
        self.image().ok_or_else(|| {
            let text = "a disk on another host cannot be read from here";
            Error::new(ErrorKind::Unsupported, text).advise("run the job on the host that has it")
        })
    }

    /// Makes `target` hold what it holds.
    pub(super) fn sync_onto(
        &self,
        target: &Target,
        options: &SyncOptions,
        work: &Work,
    ) -> Result<SyncReport> {
        sync(&self.source, target, options, work).map_err(|error| self.named(error))
    }

    /// Adds what it holds to a replica, as a disk of that length.
    pub(super) fn append_to(
        &self,
        replica: &Replica,
        disk_len: u64,
        changed: Option<Changed>,
        next: &Arc<dyn Storage>,
        work: &Work,
    ) -> Result<Appended> {
        let Some(image) = self.image() else {
            return self.ask(|remote| replica.append_remote(remote, disk_len, changed, next, work));
        };
        let image = padded(image.clone(), disk_len);
        replica.append(&*image, changed, next, &|| self.check(), work)
    }

    /// The root of all that the disk holds, which is read whole where it is.
    pub(super) fn root(&self, disk_len: u64, block_size: BlockSize, work: &Work) -> Result<Hash> {
        let disk_len = disk_len.max(self.disk_len());
        let root = self.ask(|source| source.root(disk_len, block_size, work))?;
        self.check()?;
        Ok(root)
    }

    /// Whether it is what it was when it was opened; one on another host was asked by what was
    /// done with it.
    pub(super) fn check(&self) -> Result<()> {
        self.image().map_or(Ok(()), |_| self.source.check())
    }

    /// The files and devices of this host that are read.
    pub(super) fn files(&self) -> Result<Vec<HostFile>> {
        self.source.files()
    }

    /// Looks at blocks spread evenly over the disk, and compares them with those of `target`, for
    /// which `held` may stand.
    pub(super) fn sample(
        &self,
        target: Option<&dyn Image>,
        held: Option<&TargetManifest>,
        work: &Work,
    ) -> Result<Sampled> {
        let ranges = spread(self.disk_len());
        let looked = ranges.iter().map(|range| range.end - range.start).sum();
        let options = CompareOptions::default().with_change_map(Some(ranges));
        let nothing = nothing(self.disk_len())?;
        self.ask(|source| {
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
            Ok(Sampled {
                looked,
                data: data.into_inner(),
                changed: target.map(|_| counted.0.changed_bytes),
                compare_seconds: compared.as_secs_f64(),
                move_seconds: begun.elapsed().as_secs_f64(),
            })
        })
    }

    /// Closes the line, where nothing but opening the disk was wanted.
    pub(super) fn close(&self) -> Result<()> {
        self.ask(|_| Ok(()))
    }

    fn ask<T>(&self, ask: impl FnOnce(&dyn SourceBackend) -> Result<T>) -> Result<T> {
        self.source.ask(ask).map_err(|error| self.named(error))
    }

    fn named(&self, error: Error) -> Error {
        match &self.place {
            Some(place) => error.at_path(place),
            None => error,
        }
    }
}

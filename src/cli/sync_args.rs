//! The arguments of `diskdelta sync`.

use std::path::PathBuf;

use crate::image::{CreateFormat, Format, ImageOptions};
use crate::storage::{Allocation, FileRef, HostFile, TargetOptions, resolve, resolve_to_write};
use crate::sync::{HostTargetOptions, Mode, Safety, SyncOptions, Verify};
use crate::units::parse_size;
use crate::{BlockSize, Location};

use super::args::{self, Common, Holes, Parents};
use super::connect_args::ConnectArgs;

/// Makes TARGET hold what SOURCE holds, moving only what differs
///
/// A missing target is created, its format chosen by its extension (sparse raw, dynamic VHD or
/// VHDX) or by --create. TARGET may be a block device.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image to read; on another host ssh://[user@]host[:port]/path, or
    /// diskdelta://host[:port]/name at a service there; the export of an NBD server
    /// nbd+unix:///EXPORT?socket=PATH
    #[arg(value_parser = args::anywhere())]
    pub source: Location,
    /// The image or block device to write, or the address of one on another host
    #[arg(value_parser = args::anywhere())]
    pub target: Location,
    /// How changes are found: by comparing (delta), or not at all (full)
    #[arg(long, default_value = "auto", value_parser = args::mode())]
    pub mode: Mode,
    /// atomic: logged first, so the target is old or new at any moment. in-place: written at
    /// once; the target is marked as incomplete until the sync, run again if need be, is done
    #[arg(long, default_value = "atomic", value_parser = args::safety())]
    pub safety: Safety,
    /// Leaves the target marked when the sync is done, so that nothing uses it until `recover
    /// --release`; also goes on with one that is held. Goes with --safety in-place
    #[arg(long)]
    pub hold: bool,
    /// Creates the target in this format
    #[arg(long, value_name = "FORMAT", value_parser = args::create_format())]
    pub create: Option<CreateFormat>,
    /// Rounds the length of the target up to a multiple of SIZE (Azure wants 1M)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub align: Option<u64>,
    /// Writes the way back there before the target changes; `undo` takes it
    #[arg(long, value_name = "FILE", value_parser = args::here())]
    pub undo: Option<PathBuf>,
    /// Where the redo log lies: beside a file target by default, for a device in /var/lib/diskdelta
    #[arg(long, alias = "stage-dir", value_name = "DIR", value_parser = args::here())]
    pub log_dir: Option<PathBuf>,
    /// A manifest that stands for reading the target, and is kept current; begun if missing. It
    /// holds only as long as nothing but such syncs writes to the target
    #[arg(long, value_name = "FILE", value_parser = args::here())]
    pub target_manifest: Option<PathBuf>,
    /// Keeps the source's manifest in DIR, to stand for reading it as long as its file's identity,
    /// length and times, or its device's count of writes, are the same; a wrong one is found by
    /// --verify all only. Goes with --target-manifest, or a target on another host
    #[arg(long, value_name = "DIR", value_parser = args::here())]
    pub manifest_cache: Option<PathBuf>,
    /// Bytes a block of a manifest that is begun
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = args::block_size)]
    pub block_size: BlockSize,
    /// What is read back from the medium afterwards; `all` reads holes too, as --read-holes does
    #[arg(long, default_value = "written", value_parser = args::verify())]
    pub verify: Verify,
    /// How zeros that are written are stored: like the target, sparse, or allocated.
    /// Zeros that are there already stay as they are, but for --mode full
    #[arg(long, default_value = "keep", value_parser = args::allocation())]
    pub allocation: Allocation,
    /// Says what a sync would do, and writes nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Takes FILE, a log or sidecar or copy of an unfinished sync or a target manifest, for one
    /// that diskdelta made, where the file system does not show it; you answer for what it holds.
    /// May be given several times
    #[arg(long, value_name = "FILE", value_parser = args::here())]
    pub trust_log: Vec<PathBuf>,
    /// Goes on where the source cannot be read, leaves the target's bytes there (status 4); not
    /// with --target-manifest
    #[arg(long)]
    pub skip_unreadable: bool,
    /// Lets a file target become shorter
    #[arg(long)]
    pub allow_shrink: bool,
    /// Takes a device that is larger than the source; what lies beyond stays as it is
    #[arg(long)]
    pub allow_larger: bool,
    /// Reads the source as this format, whatever its name says
    #[arg(long, value_name = "FORMAT", value_parser = args::format())]
    pub source_format: Option<Format>,
    /// Writes the target as this format, whatever its name says
    #[arg(long, value_name = "FORMAT", value_parser = args::format())]
    pub target_format: Option<Format>,
    #[command(flatten)]
    pub parents: Parents,
    #[command(flatten)]
    pub holes: Holes,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl Args {
    /// How a source of this host is opened: what is verified as a whole is read as a whole.
    pub(super) fn source_image(&self) -> ImageOptions {
        let image = self.parents.options(self.source_format);
        image.with_read_holes(self.reads_holes())
    }

    /// Whether holes of the source are read; those of a target are by [`Verify::All`] itself.
    pub(super) fn reads_holes(&self) -> bool {
        self.holes.read_holes || self.verify == Verify::All
    }

    pub(super) fn target_options(
        &self,
        sources: &[HostFile],
        common: &Common,
    ) -> HostTargetOptions {
        let open = TargetOptions::default()
            .with_direct(common.direct)
            .with_allocation(self.allocation);
        HostTargetOptions::default()
            .with_image(self.holes.of(self.parents.options(self.target_format)))
            .with_create(self.create)
            .with_align_bytes(self.align.unwrap_or(1))
            .with_log_dir(self.log_dir.clone())
            .with_trusted(self.trust_log.clone())
            .with_target_manifest(
                self.target_manifest
                    .as_ref()
                    .and_then(|it| resolve_to_write(it).ok()),
            )
            .with_dry_run(self.dry_run)
            .with_open(open)
            .with_sources(sources.iter().cloned())
    }

    pub(super) fn sync_options(&self) -> crate::Result<SyncOptions> {
        let file_ref = |path: &PathBuf| FileRef::to_write(path);
        let manifest = self.target_manifest.as_ref().map(file_ref).transpose()?;
        if let Some(manifest) = &manifest {
            self.trust(manifest)?;
        }
        Ok(SyncOptions::default()
            .with_mode(self.mode)
            .with_safety(self.safety)
            .with_hold(self.hold)
            .with_verify(self.verify)
            .with_undo(self.undo.as_ref().map(file_ref).transpose()?)
            .with_target_manifest(manifest)
            .with_block_size(self.block_size)
            .with_allow_shrink(self.allow_shrink)
            .with_allow_larger(self.allow_larger)
            .with_skip_unreadable(self.skip_unreadable)
            .with_dry_run(self.dry_run))
    }

    /// Takes a file for ours that is opened apart from the target, where it is named as such.
    fn trust(&self, file_ref: &FileRef) -> crate::Result<()> {
        for path in &self.trust_log {
            if resolve(path)? == file_ref.path() {
                file_ref.directory().trust(file_ref.name())?;
            }
        }
        Ok(())
    }
}

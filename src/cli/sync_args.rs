//! The arguments of `diskdelta sync`.

use std::path::PathBuf;

use crate::image::{CreateFormat, Format, ImageOptions};
use crate::storage::{Allocation, FileRef, HostFile, TargetOptions, resolve, resolve_to_write};
use crate::sync::{Cloning, HostTargetOptions, Mode, Safety, SyncOptions, Verify};
use crate::units::parse_size;
use crate::{BlockSize, Location};

use super::args::{self, Common, Holes, Parents};
use super::changes::ChangesArg;
use super::connect_args::ConnectArgs;

const WHAT: &str = "What to sync";
const SAFETY: &str = "Safety";
const SPACE: &str = "Space";
const EXPERT: &str = "Expert";

/// Make TARGET hold what SOURCE holds, moving only what differs
///
/// SOURCE and TARGET are paths of images or block devices, or ssh://[user@]host[:port]/path, or
/// diskdelta://host[:port]/name at a service. A source may also be the export of an NBD server,
/// nbd+unix:///EXPORT?socket=PATH, nbd://host[:port]/EXPORT, or over TLS nbds://host[:port]/EXPORT;
/// ?bitmap=NAME takes a dirty bitmap as change map (as --changes does). A missing target is
/// created, in the format of its extension (sparse raw, dynamic VHD or VHDX) or of --create.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Image or device to read, on this host or another
    #[arg(value_parser = args::anywhere())]
    pub source: Location,
    /// Image or device to write, on this host or another
    #[arg(value_parser = args::anywhere())]
    pub target: Location,
    /// How changes are found: by comparing (delta), or not at all (full)
    #[arg(long, default_value = "auto", value_parser = args::mode(), help_heading = WHAT)]
    pub mode: Mode,
    /// Log changes first, or write them at once
    ///
    /// atomic: changes are logged first, so the target is old or new after any crash. in-place:
    /// nothing is logged; the target is marked as incomplete until the same sync, run again after
    /// a crash, is done.
    #[arg(long, default_value = "atomic", value_parser = args::safety(), help_heading = SAFETY)]
    pub safety: Safety,
    /// Clone files where the file system can, instead of logging or copying
    ///
    /// An atomic sync writes what differs to a clone of the target, which takes its name; a full
    /// copy of a raw file on one file system is a clone of the source. never: they share no space.
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = args::cloning())]
    #[arg(hide_short_help = true, help_heading = SPACE)]
    pub clone: Cloning,
    /// Keep the target marked after the sync until `recover --release`; needs --safety in-place
    #[arg(long, hide_short_help = true, help_heading = SAFETY)]
    pub hold: bool,
    /// Create the target in this format
    #[arg(long, help_heading = WHAT, value_name = "FORMAT", value_parser = args::create_format())]
    pub create: Option<CreateFormat>,
    /// Round the length of the target up to a multiple of SIZE (Azure needs 1M)
    #[arg(long, hide_short_help = true, help_heading = WHAT, value_name = "SIZE", value_parser = parse_size)]
    pub align: Option<u64>,
    /// Write an undo file before the target changes
    #[arg(long, help_heading = SAFETY, value_name = "FILE", value_parser = args::here())]
    pub undo: Option<PathBuf>,
    /// Directory of the redo log [next to a file, /var/lib/diskdelta for a device]
    #[arg(long, alias = "stage-dir", value_name = "DIR", value_parser = args::here())]
    #[arg(hide_short_help = true, help_heading = SPACE)]
    pub log_dir: Option<PathBuf>,
    /// Keep the target's hashes in FILE, and read the target only where they differ
    ///
    /// Created if missing. Valid as long as only such syncs write to the target.
    #[arg(long, hide_short_help = true, help_heading = EXPERT, value_name = "FILE", value_parser = args::here())]
    pub target_manifest: Option<PathBuf>,
    /// Keep the source's hashes in DIR, and do not read it while it is unchanged
    ///
    /// Unchanged means: the same file identity, length and times, or the same count of writes to a
    /// device. Only --verify all finds hashes that are wrong. Needs --target-manifest, or a target
    /// on another host.
    #[arg(long, hide_short_help = true, help_heading = EXPERT, value_name = "DIR", value_parser = args::here())]
    pub manifest_cache: Option<PathBuf>,
    /// Read only blocks that differ by MANIFEST, and refuse others than it states of SOURCE
    ///
    /// A file, or an address at a web server, of which only the rows that are needed are fetched.
    #[arg(long, hide_short_help = true, help_heading = EXPERT, value_name = "MANIFEST", value_parser = args::readable())]
    pub source_manifest: Option<Location>,
    /// Refuse a source manifest that is not signed with the key of minisign
    ///
    /// KEY is its public part, a file or the text itself. With --target-manifest an older serial
    /// than the last one, and another image, are refused.
    #[cfg(feature = "sign")]
    #[arg(long, hide_short_help = true, help_heading = EXPERT, value_name = "KEY", requires = "source_manifest")]
    pub pubkey: Option<String>,
    /// Look for changes only where a change map names them; `-` is standard input
    ///
    /// KIND is diskdelta, pairs, nbdinfo, azure, ebs, kubernetes, rbd, hyperv or vmware. Needs
    /// --target-manifest or --trust-target.
    #[arg(long, hide_short_help = true, help_heading = EXPERT, value_name = "KIND:FILE", value_parser = ChangesArg::parse)]
    pub changes: Option<ChangesArg>,
    /// Look only for what changed since OLD, the snapshot of which TARGET holds the disk
    ///
    /// OLD is the address of an earlier snapshot of SOURCE, https://… (also @FILE, env:NAME). The
    /// server's list is used where --target-manifest records that TARGET was made from OLD; else
    /// the disks are compared, and which snapshot TARGET holds is recorded.
    #[cfg(feature = "http")]
    #[arg(long, hide_short_help = true, help_heading = EXPERT, value_name = "OLD", value_parser = args::web_address())]
    pub since: Option<crate::WebAddress>,
    /// Use a change map although nothing tells whether the target is as the last sync left it
    #[arg(long, hide_short_help = true, help_heading = EXPERT)]
    pub trust_target: bool,
    /// Block size of a new target manifest
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = args::block_size)]
    #[arg(hide_short_help = true, help_heading = EXPERT)]
    pub block_size: BlockSize,
    /// What is read back from the medium afterwards; all includes holes
    #[arg(long, default_value = "written", value_parser = args::verify(), help_heading = SAFETY)]
    pub verify: Verify,
    /// How written zeros are stored: like the target, sparse, or allocated
    ///
    /// Zeros that are equal already stay as they are, except with --mode full.
    #[arg(long, default_value = "keep", value_parser = args::allocation(), hide_short_help = true, help_heading = SPACE)]
    pub allocation: Allocation,
    /// Report what a sync would do, and write nothing
    #[arg(long, help_heading = SAFETY)]
    pub dry_run: bool,
    /// Trust FILE, a log, copy or target manifest, though its owner or mode does not show that
    /// diskdelta made it; you vouch for its contents. May be repeated
    #[arg(long, hide_short_help = true, help_heading = EXPERT, value_name = "FILE", value_parser = args::here())]
    pub trust_log: Vec<PathBuf>,
    /// Skip source ranges that cannot be read; the target keeps its bytes there (status 4)
    #[arg(long, hide_short_help = true, help_heading = SAFETY)]
    pub skip_unreadable: bool,
    /// Let a file target become shorter
    #[arg(long, hide_short_help = true, help_heading = WHAT)]
    pub allow_shrink: bool,
    /// Accept a device that is larger than the source; the rest of it stays as it is
    #[arg(long, hide_short_help = true, help_heading = WHAT)]
    pub allow_larger: bool,
    /// Read the source as this format, whatever its name
    #[arg(long, hide_short_help = true, help_heading = WHAT, value_name = "FORMAT", value_parser = args::format())]
    pub source_format: Option<Format>,
    /// Write the target as this format, whatever its name
    #[arg(long, hide_short_help = true, help_heading = WHAT, value_name = "FORMAT", value_parser = args::format())]
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

    /// The snapshot of which the target holds the disk.
    pub(super) fn since(&self) -> Option<&crate::WebAddress> {
        #[cfg(feature = "http")]
        return self.since.as_ref();
        #[cfg(not(feature = "http"))]
        return None;
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
            .with_cloning(self.clone)
            .with_verify(self.verify)
            .with_undo(self.undo.as_ref().map(file_ref).transpose()?)
            .with_target_manifest(manifest)
            .with_block_size(self.block_size)
            .with_allow_shrink(self.allow_shrink)
            .with_allow_larger(self.allow_larger)
            .with_skip_unreadable(self.skip_unreadable)
            .with_since(self.since().cloned())
            .with_trust_target(self.trust_target)
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

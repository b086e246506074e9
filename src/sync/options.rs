//! What a caller chooses about a sync.

use std::ops::Range;

use crate::location::WebAddress;
use crate::setters::setters;
use crate::storage::FileRef;
use crate::units::BlockSize;

/// How changes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Mode {
    /// Samples both sides and chooses; the report says what and why.
    #[default]
    Auto,
    /// Finds what differs and moves that.
    Delta,
    /// Moves everything; the target is not read to find differences.
    Full,
}

/// What holds while a sync is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Safety {
    /// After a crash at any moment the target is entirely old, or recovery makes it entirely new.
    #[default]
    Atomic,
    /// Nothing is logged: the target carries the marker until the sync, run again if need be, ends.
    InPlace,
}

/// What is read back before a sync is called done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Verify {
    /// What was written, from the medium.
    #[default]
    Written,
    /// The whole target, against the source, before its marker is lifted; no change map, target
    /// manifest or hole of the target is trusted. A source is opened with
    /// [`DiskOptions::read_holes`](crate::DiskOptions::read_holes) to read its holes too.
    All,
    /// What was sent, by the other side: the storage of the target has held it against a checksum
    /// before it took it. Nothing is read back. Only for a target that does so, as a page blob.
    Sent,
    /// Nothing.
    None,
}

impl Verify {
    /// Whether what was written is read back.
    pub(super) fn reads_back(self) -> bool {
        matches!(self, Verify::Written | Verify::All)
    }
}

/// Whether files are cloned where the file system can do that: a clone shares the space of its
/// model until one of the two is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Cloning {
    /// An atomic sync writes what differs into a clone of the target, which takes its name; a full
    /// copy of a raw file onto the same file system is a clone of the source, which is neither
    /// compared nor read back unless with [`Verify::All`] or a target manifest.
    #[default]
    Auto,
    /// Source and target share no space, and what differs is logged.
    Never,
}

/// How a sync is done. All of it has defaults; see the `with_*` methods.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SyncOptions {
    /// How changes are found.
    pub mode: Mode,
    /// What holds while the sync is under way.
    pub safety: Safety,
    /// What is read back.
    pub verify: Verify,
    /// Whether files are cloned.
    pub cloning: Cloning,
    /// Where to write the way back, before the target changes.
    pub undo: Option<FileRef>,
    /// A manifest that stands for reading the target, and is kept current.
    pub target_manifest: Option<FileRef>,
    /// The only guest bytes in which source and target may differ, as a change tracker knows; all
    /// else is neither read nor moved, and is taken to be equal: the report's evidence is
    /// [`Verified::Tracked`](super::Verified::Tracked). With [`Verify::All`] all is read, and a
    /// difference that the map does not name is an error of kind `VerifyFailed`, found before an
    /// atomic target is touched. Only for a delta. A range that ends before it begins, or behind
    /// the end of the source, is an error of kind `InvalidInput`.
    ///
    /// With a target manifest the map is used where the manifest describes the target as the last
    /// sync left it, and that is known; otherwise the disks are compared, and a note of the
    /// report gives the reason.
    pub change_map: Option<Vec<Range<u64>>>,
    /// The snapshot at the source of which the target holds the disk: only what changed since is
    /// looked for, as the server knows it. Used where the [target
    /// manifest](SyncOptions::target_manifest) records that the target was made from it and is as
    /// the last sync left it; otherwise the disks are compared, and a note of the report gives the
    /// reason. Not with a change map, nor for a full copy.
    pub since: Option<WebAddress>,
    /// Whether a change map is used with a target manifest although nothing tells whether the
    /// target is as the last sync left it, as of a device.
    pub trust_target: bool,
    /// Blocks of manifests and roots.
    pub block_size: BlockSize,
    /// Whether a target may become shorter.
    pub allow_shrink: bool,
    /// Whether a device may be larger than the source; what lies beyond is left alone.
    pub allow_larger: bool,
    /// Whether source ranges that cannot be read are passed over and listed. Not with a manifest
    /// that is kept of the target.
    pub skip_unreadable: bool,
    /// Whether the target is held: it keeps its marker when the sync is done, until it is
    /// [released](super::release). Only in place, and onto what is there.
    pub hold: bool,
    /// Whether to stop after finding what differs.
    pub dry_run: bool,
}

setters! {
    SyncOptions:
    /// Replaces [`SyncOptions::mode`].
    with_mode, mode: Mode;
    /// Replaces [`SyncOptions::safety`].
    with_safety, safety: Safety;
    /// Replaces [`SyncOptions::verify`].
    with_verify, verify: Verify;
    /// Replaces [`SyncOptions::cloning`].
    with_cloning, cloning: Cloning;
    /// Replaces [`SyncOptions::undo`].
    with_undo, undo: Option<FileRef>;
    /// Replaces [`SyncOptions::target_manifest`].
    with_target_manifest, target_manifest: Option<FileRef>;
    /// Replaces [`SyncOptions::change_map`].
    with_change_map, change_map: Option<Vec<Range<u64>>>;
    /// Replaces [`SyncOptions::since`].
    with_since, since: Option<WebAddress>;
    /// Replaces [`SyncOptions::trust_target`].
    with_trust_target, trust_target: bool;
    /// Replaces [`SyncOptions::block_size`].
    with_block_size, block_size: BlockSize;
    /// Replaces [`SyncOptions::allow_shrink`].
    with_allow_shrink, allow_shrink: bool;
    /// Replaces [`SyncOptions::allow_larger`].
    with_allow_larger, allow_larger: bool;
    /// Replaces [`SyncOptions::skip_unreadable`].
    with_skip_unreadable, skip_unreadable: bool;
    /// Replaces [`SyncOptions::hold`].
    with_hold, hold: bool;
    /// Replaces [`SyncOptions::dry_run`].
    with_dry_run, dry_run: bool;
}

//! From an image to its manifest.

use std::ops::Range;
use std::sync::Arc;

use super::hash::HashPass;
use super::read::Manifest;
use super::target_manifest::{refuse_other, save_once};
use super::update::ManifestUpdater;
use super::write::ManifestWriter;
use crate::error::Result;
use crate::hash::Hash;
use crate::image::Image;
use crate::limits::Limits;
use crate::progress::{Phase, Work};
use crate::storage::{FileRef, MemoryStorage, Storage};
use crate::units::{BlockSize, check_change_map};

/// Builds the manifest of an image in memory: 32 bytes for each block that is not zero, 512 MiB
/// for a full TiB of 64 KiB blocks. For large disks use [`build_to`].
///
/// # Errors
/// `Unreadable` with the guest offset; `Cancelled`; others from the image.
pub fn build(image: &dyn Image, block_size: BlockSize, work: &Work) -> Result<Manifest> {
    let storage = Arc::new(MemoryStorage::new("manifest in memory", Vec::new()));
    build_to(image, block_size, work, storage)
}

/// Builds the manifest of an image into `storage`, which is emptied first.
///
/// Memory is bounded whatever the length of the disk. Nothing is durable until the storage is
/// synced; [`save`](super::save) does that, and the rename.
///
/// # Errors
/// As [`build`]; `Io`, `NoSpace` from the storage.
pub fn build_to(
    image: &dyn Image,
    block_size: BlockSize,
    work: &Work,
    storage: Arc<dyn Storage>,
) -> Result<Manifest> {
    let disk_len = image.disk_len();
    let mut writer = ManifestWriter::create(Arc::clone(&storage), disk_len, block_size)?;
    work.progress().begin(Phase::Hash, Some(disk_len));
    HashPass::new(image, block_size, work).run(&(), &mut writer)?;
    writer.finish()?;
    reopen(storage)
}

/// Builds the manifest of an image and puts it at `file_ref`, in place of an older manifest;
/// nothing else is replaced. `finish` is called once all is read: to ask whether the image stayed
/// as it was, and to sign.
///
/// Durable when it returns; after an error `file_ref` is what it was.
///
/// # Errors
/// As [`build_to`]; `AlreadyExists` where something else lies at `file_ref`; those of `finish`.
pub fn build_at(
    image: &dyn Image,
    block_size: BlockSize,
    work: &Work,
    file_ref: &FileRef,
    finish: &dyn Fn(&Manifest) -> Result<()>,
) -> Result<Manifest> {
    refuse_other(file_ref)?;
    save_once(file_ref, |storage| {
        let manifest = build_to(image, block_size, work, storage)?;
        finish(&manifest)?;
        Ok(manifest)
    })
}

/// Finds an image's root and keeps nothing else.
///
/// # Errors
/// As [`build`].
pub fn root_of(image: &dyn Image, block_size: BlockSize, work: &Work) -> Result<Hash> {
    let disk_len = image.disk_len();
    let mut writer = ManifestWriter::root_only(disk_len, block_size);
    work.progress().begin(Phase::Hash, Some(disk_len));
    HashPass::new(image, block_size, work).run(&(), &mut writer)?;
    writer.finish()
}

/// Builds the manifest of an image of which only the byte ranges `changed` differ from what `old`
/// says; all else is taken from `old` unread. Where the lengths differ, what only one of the two
/// disks has in full is read too.
///
/// The result is as true as `changed`. Durability as with [`build_to`].
///
/// # Errors
/// As [`build_to`]; `Malformed` where `old` is damaged; `InvalidInput` for a range in `changed`
/// that ends before it begins, or behind the end of the image.
pub fn update_to(
    old: &Manifest,
    image: &dyn Image,
    changed: impl IntoIterator<Item = Range<u64>>,
    work: &Work,
    storage: Arc<dyn Storage>,
) -> Result<Manifest> {
    let disk_len = image.disk_len();
    let changed: Vec<_> = changed.into_iter().collect();
    check_change_map(&changed, disk_len)?;
    let writer = ManifestWriter::create(Arc::clone(&storage), disk_len, old.block_size())?;
    let mut updater = ManifestUpdater::new(old, writer)?;
    let unshared = updater.unshared();
    work.progress().begin(Phase::Hash, None);
    HashPass::new(image, old.block_size(), work)
        .within(changed.into_iter().chain(unshared))
        .run(&(), &mut updater)?;
    updater.into_writer()?.finish()?;
    reopen(storage)
}

/// Opens a manifest that was just written: it is as long as its disk, whatever the limits are.
pub(crate) fn reopen(storage: Arc<dyn Storage>) -> Result<Manifest> {
    Manifest::from_storage(storage, &Limits::default().with_disk_bytes(u64::MAX))
}

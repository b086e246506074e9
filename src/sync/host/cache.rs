//! A directory of manifests of sources, each trusted only while its image is provably what it was.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::source::HostSource;
use crate::error::{ErrorKind, Result};
use crate::image::Format;
use crate::image::Layout;
use crate::limits::Limits;
use crate::manifest::{
    self, Manifest, ManifestWriter, PreparedFile, RangeSet, TargetManifest, refuse_other,
};
use crate::progress::Work;
use crate::storage::{
    Access, Directory, FileRef, HostDirectory, MemoryStorage, SourceStamp, Storage,
    resolve_to_write,
};
use crate::units::{BlockSize, check_change_map};

/// A directory of manifests that stand for reading images again.
///
/// A manifest is trusted where the image's file has the device, inode, length, modification time
/// and change time that it had while it was read; for a block device, where nothing was written to
/// it since in this run of the system. To name such a directory accepts that as proof, and
/// that writers of the directory decide what images hold. Only a sync that reads
/// everything (`Verify::All`) finds a wrong one.
#[derive(Debug, Clone)]
pub struct ManifestCache {
    directory: PathBuf,
}

/// What a cache knows of one source.
pub struct CachedSource {
    source: HostSource,
    block_size: BlockSize,
    file_ref: FileRef,
    manifest: Option<Manifest>,
    reason: &'static str,
}

opaque!(CachedSource);

/// A manifest of a source that is being read, for the cache.
pub struct Recording {
    prepared: PreparedFile,
    stamp: SourceStamp,
    block_size: BlockSize,
}

opaque!(Recording);

impl ManifestCache {
    /// Uses the directory at `path`, which is made if it is missing, for its owner alone.
    ///
    /// # Errors
    /// `Untrusted` for a directory that other users may write to, and for a symbolic link of
    /// another user; `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.exists() {
            HostDirectory::make(path)?;
        }
        let directory = resolve_to_write(path)?;
        HostDirectory::open_real(&directory)?.refuse_shared()?;
        Ok(ManifestCache { directory })
    }

    /// Looks up the manifest of `source` with blocks of `block_size`.
    ///
    /// # Errors
    /// `AlreadyExists` where something other than a manifest has its name; `Io`, `Poisoned`.
    pub fn look_up(&self, source: &HostSource, block_size: BlockSize) -> Result<CachedSource> {
        let name = name_of(source, block_size)?;
        let file_ref = self.file_ref(name.as_deref().unwrap_or(NO_IMAGE))?;
        let found = match name {
            None => Err("the system tells too little of it"),
            Some(_) if has_others(source) => Err("it may lie in other files too"),
            Some(_) => find(&file_ref, source, block_size)?,
        };
        Ok(CachedSource {
            source: source.clone(),
            block_size,
            file_ref,
            reason: found.as_ref().err().copied().unwrap_or(""),
            manifest: found.ok(),
        })
    }

    /// Where the manifest of the target in `storage`, of which `identity` is a lasting name, is
    /// kept from one sync to the next.
    ///
    /// # Errors
    /// `Io`.
    pub fn target_place(&self, identity: &[u8]) -> Result<FileRef> {
        let name = blake3::Hasher::new_derive_key(TARGETS)
            .update(identity)
            .finalize();
        self.file_ref(&format!("{}.target.manifest", name.to_hex()))
    }

    fn file_ref(&self, name: &str) -> Result<FileRef> {
        let directory = HostDirectory::open_real(&self.directory)?;
        Ok(FileRef::new(Arc::new(directory), name))
    }
}

impl CachedSource {
    /// The manifest, where it is trusted.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Bytes a block.
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// The file or device of the source.
    pub fn storage(&self) -> &dyn Storage {
        &**self.source.storage()
    }

    /// Why there is none.
    pub fn reason(&self) -> Option<&'static str> {
        self.manifest.is_none().then_some(self.reason)
    }

    /// Begins to keep a manifest of the source, all of which is about to be read; `None` where
    /// none would ever be trusted.
    ///
    /// # Errors
    /// `AlreadyExists`, `Io`, `NoSpace`.
    pub fn record(&self) -> Result<Option<Recording>> {
        let storage = self.storage();
        if has_others(&self.source) || self.source.stamp().is_none() {
            return Ok(None);
        }
        // Pages of a file that is mapped are clean from here on, so that a later write to
        // them shows in the times.
        storage.sync()?;
        let now = SystemTime::now();
        let Some(stamp) = SourceStamp::take(storage)? else {
            return Ok(None);
        };
        if !stamp.is_settled(now) || stamp.fingerprint().is_none() {
            return Ok(None);
        }
        refuse_other(&self.file_ref)?;
        Ok(Some(Recording {
            // Of two that record one image at once each writes a file of its own; the later one
            // takes the place.
            prepared: manifest::begin(&self.file_ref)?,
            stamp,
            block_size: self.block_size,
        }))
    }

    /// The manifest of the source: the one that is trusted, or one that is made, and kept where
    /// it will be trusted. Whether it was trusted.
    ///
    /// `changed`, where it is given, are all ranges that may have changed since the manifest was
    /// kept, as a change tracker knows them; then only these are read, whatever the times say.
    ///
    /// # Errors
    /// As [`manifest::build_to`] and [`HostSource::check`]; `InvalidInput` for a range in `changed`
    /// that ends before it begins, or behind the end of the source.
    pub fn manifest_or_read(
        &self,
        changed: Option<&[Range<u64>]>,
        work: &Work,
    ) -> Result<(Manifest, bool)> {
        if let Some(manifest) = &self.manifest {
            return Ok((manifest.clone(), true));
        }
        let image = &**self.source.image();
        check_change_map(changed.unwrap_or_default(), image.disk_len())?;
        let old = match changed {
            Some(_) => manifest_at(&self.file_ref)?,
            None => None,
        };
        let recording = self.record()?;
        let file: Arc<dyn Storage> = match &recording {
            // Read while it is written, so not through a map.
            Some(recording) => recording.prepared.storage().clone(),
            None => Arc::new(MemoryStorage::new("a manifest", Vec::new())),
        };
        let built = match (old, changed) {
            (Some(old), Some(changed)) if old.manifest().block_size() == self.block_size => {
                let len = image.disk_len();
                let in_doubt = RangeSet::of(old.intents().iter().cloned());
                let in_doubt: Vec<_> = in_doubt.inside(0..len).chain(changed.to_vec()).collect();
                manifest::update_to(old.manifest(), image, in_doubt, work, file)?
            }
            _ => manifest::build_to(image, self.block_size, work, file)?,
        };
        self.source.check()?;
        if let Some(recording) = recording {
            recording.finish(self.storage())?;
        }
        Ok((built, false))
    }
}

impl Recording {
    /// Takes the hashes.
    ///
    /// # Errors
    /// `Io`, `NoSpace`.
    pub fn writer(&self, disk_len: u64) -> Result<ManifestWriter> {
        ManifestWriter::create(self.prepared.storage().clone(), disk_len, self.block_size)
    }

    /// Keeps what the writer took, durably, unless the source, `storage`, was changed meanwhile;
    /// whether it did.
    ///
    /// # Errors
    /// `Io`, `NoSpace`, `Poisoned`.
    pub fn finish(self, storage: &dyn Storage) -> Result<bool> {
        if SourceStamp::take(storage)?.as_ref() != Some(&self.stamp) {
            return Ok(false);
        }
        self.prepared.commit_for(storage, &any_len())?;
        Ok(true)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // What is left of one that came to nothing is no manifest; once it is kept there is none.
        let _ = self.prepared.forget();
    }
}

/// The manifest at `file_ref`, or why it is not trusted.
fn find(
    file_ref: &FileRef,
    source: &HostSource,
    block_size: BlockSize,
) -> Result<std::result::Result<Manifest, &'static str>> {
    let Some(kept) = manifest_at(file_ref)? else {
        return Ok(Err("none is kept, or it is damaged"));
    };
    let manifest = kept.manifest();
    if manifest.block_size() != block_size || manifest.disk_len() != source.image().disk_len() {
        return Ok(Err("another disk was kept"));
    }
    let is_same = kept.is_noted() && kept.intents().is_empty();
    if !is_same || !kept.describes(&**source.storage())? {
        return Ok(Err("it was written to since"));
    }
    Ok(Ok(manifest.clone()))
}

fn manifest_at(file_ref: &FileRef) -> Result<Option<TargetManifest>> {
    let Some(file) = file_ref.open_own_if_there(Access::Read)? else {
        return Ok(None);
    };
    match TargetManifest::open(file, &any_len()) {
        Err(error) if error.kind() == ErrorKind::Malformed => Ok(None),
        kept => kept.map(Some),
    }
}

/// The name of a source's manifest; `None` where the system does not tell sources apart.
fn name_of(source: &HostSource, block_size: BlockSize) -> Result<Option<String>> {
    let Some(stamp) = source.stamp() else {
        return Ok(None);
    };
    let mut hasher = blake3::Hasher::new_derive_key(SOURCES);
    hasher
        .update(&stamp.identity())
        .update(&block_size.bytes().to_le_bytes())
        .update(source.image().info().format.name().as_bytes());
    if source.reads_holes() {
        // What was made from holes that were taken for zeros stands for no reading of them.
        hasher.update(b" holes are read");
    }
    Ok(Some(format!("{}.manifest", hasher.finalize().to_hex())))
}

/// Whether what the image shows may lie in other files too.
fn has_others(source: &HostSource) -> bool {
    let info = source.image().info();
    let is_own = matches!(info.format, Format::Raw | Format::Vhd | Format::Vhdx);
    !is_own || info.layout == Layout::Differencing
}

/// What was kept is as long as its disk.
fn any_len() -> Limits {
    Limits::default().with_disk_bytes(u64::MAX)
}

const SOURCES: &str = "diskdelta 2026-11 manifest cache: name of a source";
const TARGETS: &str = "diskdelta 2026-11 manifest cache: name of a target";
const NO_IMAGE: &str = "none.manifest";

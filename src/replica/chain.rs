//! The links of a replica.

use std::ops::Range;
use std::sync::Arc;

use super::binding::{self, BINDING_LEN, Bound, Head, head_of};
use super::encrypted::{EncryptedFile, EncryptedFileWriter};
use super::key::Key;
use super::link::{DELTA, Link, MANIFEST};
use super::remote_link::remote_link;
use crate::delta::{Delta, DeltaOptions, FrameKind, Stack, Trailer, create_link, merge};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::Hash;
use crate::image::{self, CreateOptions, Image, ImageOptions};
use crate::limits::Limits;
use crate::manifest::{Manifest, ManifestWriter, TargetManifest};
use crate::progress::Work;
use crate::storage::{Access, Directory, FileRef, MemoryStorage, Privacy, Storage};
use crate::sync::SourceBackend;
use crate::units::BlockSize;

/// A disk kept encrypted, in a directory of its own.
///
/// Links are read one after the other on the caller's threads; a link is decrypted on one.
pub struct Replica {
    directory: Arc<dyn Directory>,
    key: Arc<Key>,
    only_own: bool,
}

opaque!(Replica);

/// The links that count, open: what is checked of them is what is read.
struct Held {
    chain: Vec<Link>,
    files: Vec<Arc<dyn Storage>>,
    heads: Vec<Head>,
}

/// What a change tracker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The root of the disk that the changes were made to.
    pub since: Hash,
    /// The byte ranges that can differ from it.
    pub ranges: Vec<Range<u64>>,
}

/// What a pass added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// Bytes of the disk that changed, zeros among them.
    pub changed_bytes: u64,
    /// The root of what the chain gives now.
    pub root: Hash,
}

impl Held {
    fn last(&self) -> Link {
        // There is at least one.
        self.chain.last().copied().unwrap_or(Link::FIRST)
    }
}

impl Replica {
    /// The replica in `directory`, which exists; it may hold none yet.
    pub fn new(directory: Arc<dyn Directory>, key: Arc<Key>) -> Self {
        Replica {
            directory,
            key,
            only_own: false,
        }
    }

    /// Refuses chains that this very key did not make. Without it one that was made with another
    /// key is read where this key opens it, as that of a further recipient does: that it was not
    /// forged by someone who knows a recipient cannot be told then.
    #[must_use]
    pub fn only_own(mut self) -> Self {
        self.only_own = true;
        self
    }

    /// Whether there is a chain.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub fn exists(&self) -> Result<bool> {
        Ok(!self.chain()?.is_empty())
    }

    /// As [`manifest`](Self::manifest), to stand for reading the disk.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub fn target_manifest(&self) -> Result<Option<TargetManifest>> {
        match self.held()? {
            Some(held) => self.manifest_of(&held).map(Some),
            None => Ok(None),
        }
    }

    /// What the chain gives, block by block; `None` where there is none. Held in memory, 32 bytes
    /// a block of data.
    ///
    /// # Errors
    /// `InvalidInput` where the key does not open it; `NotFound` where a file is missing;
    /// `Untrusted` where the links are not those that the holder of the key made; `Malformed` for
    /// damaged ones; `Io`.
    pub fn manifest(&self) -> Result<Option<Manifest>> {
        let kept = self.target_manifest()?;
        Ok(kept.map(|kept| kept.manifest().clone()))
    }

    /// Adds the link that makes the chain give what `source` holds, and writes the manifest of
    /// that into `next`, which is not durable then. Where `changed` is since what the chain gives
    /// now, only these ranges are read, otherwise everything. `check` is asked once all is read,
    /// whether the source stayed as it was.
    ///
    /// The link is durable when this returns; after an error the chain is what it was. Where
    /// nothing differs no link is added.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest) and [`create_link`]; those of `check`.
    pub fn append(
        &self,
        source: &dyn Image,
        changed: Option<Changed>,
        next: &Arc<dyn Storage>,
        check: &dyn Fn() -> Result<()>,
        work: &Work,
    ) -> Result<Appended> {
        self.add(source.disk_len(), next, &|base, sealing| {
            let base = base.manifest();
            let changed = ranges_since(changed.as_ref(), base);
            let options = DeltaOptions::default();
            let (trailer, manifest) =
                create_link(base, source, changed, sealing, next.clone(), &options, work)?;
            check()?;
            Ok((trailer, manifest))
        })
    }

    /// As [`append`](Self::append) of the first `disk_len` bytes of a disk that is read where it
    /// lies: hashes are compared with those of the newest manifest, and only blocks that differ
    /// come over the line. That they make up the source was found by its hashes.
    ///
    /// # Errors
    /// Those of [`append`](Self::append), and of the line; `VerifyFailed` where what came does not
    /// make up the source.
    pub fn append_remote(
        &self,
        source: &dyn SourceBackend,
        disk_len: u64,
        changed: Option<Changed>,
        next: &Arc<dyn Storage>,
        work: &Work,
    ) -> Result<Appended> {
        self.add(disk_len, next, &|base, sealing| {
            let changed = ranges_since(changed.as_ref(), base.manifest());
            remote_link(base, source, disk_len, changed, sealing, next, work)
        })
    }

    /// Adds the link that `write` writes, from what the chain gives now.
    fn add(&self, disk_len: u64, next: &Arc<dyn Storage>, write: &Write<'_>) -> Result<Appended> {
        let held = self.held()?;
        let (base, link, mut heads) = match &held {
            Some(held) => (
                self.manifest_of(held)?,
                held.last().next(),
                held.heads.clone(),
            ),
            None => {
                // What is left of an older one would follow.
                self.tidy()?;
                (zeros(disk_len)?, Link::FIRST, Vec::new())
            }
        };
        let file_ref = self.file_ref(link, DELTA);
        let part = file_ref.hidden_sibling("part");
        part.remove_if_there()?;
        let sealing = Arc::new(EncryptedFileWriter::into(part.create_new()?, &self.key)?);
        let (trailer, manifest) = write(&base, sealing)?;
        let appended = Appended {
            changed_bytes: trailer.data_bytes + trailer.zero_bytes,
            root: manifest.root(),
        };
        if manifest.root() == base.manifest().root() && held.is_some() {
            part.remove_if_there()?;
            return Ok(appended);
        }
        heads.push(head_of(&*part.open(Access::Read)?)?);
        self.seal_manifest(link, &**next, &heads)?;
        // From here on it counts.
        self.directory.rename(part.name(), file_ref.name())?;
        self.directory.sync()?;
        Ok(appended)
    }

    /// Reads and authenticates every link, and holds them against each other. Returns the root of
    /// what the chain gives.
    ///
    /// # Errors
    /// `NotFound` where there is no chain; `BaseMismatch` where a link does not follow the one
    /// before it; as [`manifest`](Self::manifest); `Cancelled`.
    pub fn verify(&self, work: &Work) -> Result<Hash> {
        let held = self.held()?.ok_or_else(|| self.missing())?;
        let mut reached = None;
        self.each_link(&held, &mut |delta| {
            delta.verify(work, &|_| Ok(()))?;
            let trailer = delta.trailer();
            let before = match reached {
                Some(root) => root,
                None => {
                    // Not the result's: the disk may have grown before the chain was put together.
                    let zeros = zeros(delta.header().base_len)?;
                    zeros.manifest().root()
                }
            };
            let result = trailer
                .result_root
                .filter(|_| trailer.base_root == Some(before));
            reached = Some(result.ok_or_else(|| {
                Error::new(
                    ErrorKind::BaseMismatch,
                    "does not follow the link before it",
                )
                .at_path(delta.storage().path())
            })?);
            Ok(())
        })?;
        let root = reached.ok_or_else(|| self.missing())?;
        let kept = self.manifest_of(&held)?;
        let manifest = kept.manifest();
        manifest.verify()?;
        match manifest.root() == root {
            true => Ok(manifest.root()),
            false => Err(Error::new(
                ErrorKind::BaseMismatch,
                "the newest manifest is not that of the newest link",
            )
            .at_path(self.directory.path())),
        }
    }

    /// Writes what the chain gives to a new image at `to`. The image is whole and durable when it
    /// is there at all; what is at `to` already is an error. What was written is not read back.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` where there is no chain; `Unsupported` for a length that the
    /// format cannot have; as [`manifest`](Self::manifest); `NoSpace`, `Cancelled`.
    pub fn restore(&self, to: &FileRef, create: &CreateOptions, work: &Work) -> Result<()> {
        let held = self.held()?.ok_or_else(|| self.missing())?;
        self.plain_manifest(&held)?;
        let mut create = create.clone();
        let last = held.files.last().ok_or_else(|| self.missing())?;
        create.disk_len = self.delta(last)?.header().result_len;
        let format = create.format.format();
        to.create_whole(Privacy::PRIVATE, |storage| {
            image::create(&*storage, &create)?;
            let image = image::open_storage_mut(storage, format, &ImageOptions::default())?;
            self.each_link(&held, &mut |delta| {
                delta.for_each(work, &|frame| {
                    work.cancel().check()?;
                    let range = frame.range();
                    match frame.header().kind {
                        FrameKind::Data => image.write_all_at(frame.bytes(), range.start),
                        FrameKind::Zero => image.write_zeroes_at(range),
                        _ => Ok(()),
                    }
                })
            })?;
            image.sync()
        })
    }

    /// What the chain gives, as an image. An index of it is held in memory; links are read again,
    /// and authenticated, as it is.
    ///
    /// # Errors
    /// `NotFound` where there is no chain; as [`compact`](Self::compact).
    pub fn image(&self, work: &Work) -> Result<Stack> {
        let held = self.held()?.ok_or_else(|| self.missing())?;
        self.plain_manifest(&held)?;
        Stack::new(self.deltas(&held)?, &Limits::default(), work)
    }

    /// Puts a chain of more than `most` links together into a new one of one link; then the old
    /// one goes. Durable when it returns; after an error the chain is what it was. Returns whether
    /// there was anything to do.
    ///
    /// # Errors
    /// `LimitExceeded` where there are more changes than memory may hold an index of: the chain
    /// is good as it is; otherwise as [`manifest`](Self::manifest).
    pub fn compact(&self, most: usize, work: &Work) -> Result<bool> {
        if self.chain()?.len() <= most {
            return Ok(false);
        }
        let Some(held) = self.held()? else {
            return Ok(false);
        };
        let manifest = self.plain_manifest(&held)?;
        let links = self.deltas(&held)?;
        let fresh = held.last().next_chain();
        let file_ref = self.file_ref(fresh, DELTA);
        let part = file_ref.hidden_sibling("part");
        part.remove_if_there()?;
        let sealing = Arc::new(EncryptedFileWriter::into(part.create_new()?, &self.key)?);
        merge(
            &links,
            sealing,
            &Limits::default(),
            DeltaOptions::default().level,
            work,
        )?;
        let head = head_of(&*part.open(Access::Read)?)?;
        self.seal_manifest(fresh, &*manifest, &[head])?;
        self.directory.rename(part.name(), file_ref.name())?;
        self.directory.sync()?;
        self.tidy()?;
        Ok(true)
    }

    /// Removes the replica. Nothing of it is found any more when this returns.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(&self) -> Result<()> {
        self.tidy()?;
        if let Some(first) = self.chain()?.first() {
            // A chain without its first link is none.
            self.file_ref(*first, DELTA).remove_if_there()?;
            self.directory.sync()?;
        }
        self.tidy()
    }

    /// Removes what no chain needs: older chains, older manifests, what was not finished.
    ///
    /// # Errors
    /// `Io`.
    pub fn tidy(&self) -> Result<()> {
        let chain = self.chain()?;
        for name in self.directory.names()? {
            let text = name.to_string_lossy();
            let part = text
                .strip_prefix('.')
                .and_then(|text| text.strip_suffix(".part"));
            let is_needed = match (part, Link::parse(&text)) {
                (Some(inner), _) => Link::parse(inner).is_none(),
                (None, Some((link, DELTA))) => chain.contains(&link),
                (None, Some((link, _))) => chain.last() == Some(&link),
                (None, None) => true,
            };
            if !is_needed {
                FileRef::new(self.directory.clone(), name).remove_if_there()?;
            }
        }
        self.directory.sync()
    }

    /// The links that count, in order: those of the newest chain that has its first.
    fn chain(&self) -> Result<Vec<Link>> {
        let mut links = self.links()?;
        links.sort_unstable();
        let newest = links.iter().rev().find(|link| link.number == 1).copied();
        let Some(first) = newest else {
            return Ok(Vec::new());
        };
        links.retain(|link| link.chain == first.chain);
        let gap = (1..)
            .zip(&links)
            .find(|(number, link)| link.number != *number);
        match gap {
            None => Ok(links),
            Some((number, link)) => {
                let missing = Link { number, ..*link };
                Err(self.lost(missing, DELTA))
            }
        }
    }

    /// All deltas that are there, in no order.
    fn links(&self) -> Result<Vec<Link>> {
        let names = self.directory.names()?;
        let parsed = names.iter().filter_map(|name| Link::parse(name.to_str()?));
        Ok(parsed
            .filter(|(_, kind)| *kind == DELTA)
            .map(|(link, _)| link)
            .collect())
    }

    /// The links that count, open; `None` where there is no chain.
    fn held(&self) -> Result<Option<Held>> {
        let chain = self.chain()?;
        if chain.is_empty() {
            return Ok(None);
        }
        let files = chain.iter().map(|link| self.open(*link, DELTA));
        let files: Vec<_> = files.collect::<Result<_>>()?;
        let heads = files.iter().map(|file| head_of(&**file));
        Ok(Some(Held {
            heads: heads.collect::<Result<_>>()?,
            chain,
            files,
        }))
    }

    fn each_link(&self, held: &Held, visit: &mut dyn FnMut(&Delta) -> Result<()>) -> Result<()> {
        for file in &held.files {
            visit(&self.delta(file)?)?;
        }
        Ok(())
    }

    fn deltas(&self, held: &Held) -> Result<Vec<Delta>> {
        held.files.iter().map(|file| self.delta(file)).collect()
    }

    fn delta(&self, file: &Arc<dyn Storage>) -> Result<Delta> {
        let storage = EncryptedFile::open(file.clone(), &self.key)?;
        Delta::from_storage(Arc::new(storage), &Limits::default())
    }

    fn manifest_of(&self, held: &Held) -> Result<TargetManifest> {
        TargetManifest::open(self.plain_manifest(held)?, &Limits::default())
    }

    /// The newest manifest, once it is known that its links were made with the key.
    fn plain_manifest(&self, held: &Held) -> Result<Arc<dyn Storage>> {
        let encrypted = EncryptedFile::open(self.open(held.last(), MANIFEST)?, &self.key)?;
        let len = encrypted.len()?.checked_sub(BINDING_LEN as u64);
        let bound = len.ok_or_else(|| {
            binding::forged("the newest manifest is too short").at_path(encrypted.path())
        })?;
        let plain: Arc<dyn Storage> = Arc::new(MemoryStorage::new(encrypted.path(), Vec::new()));
        let manifest = copy(&encrypted, bound, &*plain)?;
        let mut bytes = [0; BINDING_LEN];
        encrypted.read_exact_at(&mut bytes, bound)?;
        let covered = Bound {
            chain: held.last().chain,
            heads: &held.heads,
            manifest,
        };
        let checked = binding::check(&bytes, &self.key.bindings(), &covered);
        match checked.map_err(|error| error.at_path(self.directory.path()))? {
            None if self.only_own => {
                let why = "this replica was made with another key, or forged";
                Err(binding::forged(why).at_path(self.directory.path()))
            }
            _ => Ok(plain),
        }
    }

    fn seal_manifest(&self, link: Link, manifest: &dyn Storage, heads: &[Head]) -> Result<()> {
        let file_ref = self.file_ref(link, MANIFEST);
        // Of a link that never came to count.
        file_ref.remove_if_there()?;
        let len = manifest.len()?;
        file_ref.create_whole(Privacy::PRIVATE, |storage| {
            let sealing = EncryptedFileWriter::into(storage, &self.key)?;
            let covered = Bound {
                chain: link.chain,
                heads,
                manifest: copy(manifest, len, &sealing)?,
            };
            if let Some(key) = self.key.bindings().first() {
                sealing.write_all_at(&key.bind(&covered), len)?;
            }
            sealing.sync()
        })
    }

    fn open(&self, link: Link, kind: &'static str) -> Result<Arc<dyn Storage>> {
        let there = self.file_ref(link, kind).open_if_there(Access::Read)?;
        there.ok_or_else(|| self.lost(link, kind))
    }

    fn file_ref(&self, link: Link, kind: &str) -> FileRef {
        FileRef::new(self.directory.clone(), link.name(kind))
    }

    fn lost(&self, link: Link, kind: &str) -> Error {
        Error::new(ErrorKind::NotFound, "a file of this replica is missing")
            .at_path(self.file_ref(link, kind).path())
            .advise("put it back, or remove the directory to begin a new replica")
    }

    fn missing(&self) -> Error {
        Error::new(ErrorKind::NotFound, "there is no replica in this directory")
            .at_path(self.directory.path())
    }
}

/// Writes a link from what a manifest describes, and the manifest that it leads to.
type Write<'a> = dyn Fn(&TargetManifest, Arc<dyn Storage>) -> Result<(Trailer, Manifest)> + 'a;

/// What can differ from `base`, where that is what the changes are since.
fn ranges_since(changed: Option<&Changed>, base: &Manifest) -> Option<Vec<Range<u64>>> {
    let changed = changed.filter(|changed| changed.since == base.root());
    changed.map(|changed| changed.ranges.clone())
}

/// The manifest of a disk that is all zeros.
fn zeros(disk_len: u64) -> Result<TargetManifest> {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new("zeros", Vec::new()));
    ManifestWriter::create(storage.clone(), disk_len, BlockSize::default())?.finish()?;
    TargetManifest::open(storage, &Limits::default())
}

/// Copies the first `len` bytes, and gives their hash.
fn copy(from: &dyn Storage, len: u64, to: &dyn Storage) -> Result<[u8; 32]> {
    let mut hash = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    while at < len {
        let left = usize::try_from(len - at).unwrap_or(usize::MAX);
        let piece = &mut buffer[..left.min(COPY_BYTES)];
        from.read_exact_at(piece, at)?;
        hash.update(piece);
        to.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(*hash.finalize().as_bytes())
}

const COPY_BYTES: usize = 1 << 20;

//! What a disk holds at one moment: files, their names, devices.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use super::contents::FileBytes;
use super::landing::Landing;
use super::noise::Residue;
use super::op::{Effect, FileId, Op};

/// Files, names and devices; clones are cheap and share everything.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    files: BTreeMap<FileId, Arc<FileBytes>>,
    directories: BTreeMap<Arc<Path>, Arc<BTreeMap<OsString, FileId>>>,
    devices: Arc<BTreeMap<Arc<Path>, FileId>>,
    /// Owner, mode and the rest of a file as one number; files without one have 0.
    attributes: Arc<BTreeMap<FileId, u64>>,
    /// Whether files can be cloned, and exchange their names.
    pub(super) clones: bool,
}

impl State {
    pub(super) fn contents(&self, file: FileId) -> Option<&FileBytes> {
        self.files.get(&file).map(|contents| &**contents)
    }

    pub(super) fn contents_mut(&mut self, file: FileId) -> &mut FileBytes {
        Arc::make_mut(self.files.entry(file).or_default())
    }

    pub(super) fn put_contents(&mut self, file: FileId, contents: FileBytes) {
        self.files.insert(file, Arc::new(contents));
    }

    pub(super) fn add_directory(&mut self, path: &Arc<Path>) {
        self.directories.entry(path.clone()).or_default();
    }

    pub(super) fn names(&self, directory: &Path) -> Vec<OsString> {
        let names = self.directories.get(directory).into_iter();
        names.flat_map(|names| names.keys().cloned()).collect()
    }

    pub(super) fn named(&self, directory: &Path, name: &OsStr) -> Option<FileId> {
        self.directories.get(directory)?.get(name).copied()
    }

    pub(super) fn set_name(&mut self, directory: &Path, name: OsString, file: FileId) {
        if let Some(names) = self.directories.get_mut(directory) {
            Arc::make_mut(names).insert(name, file);
        }
    }

    pub(super) fn device(&self, path: &Path) -> Option<FileId> {
        self.devices.get(path).copied()
    }

    pub(super) fn is_device(&self, file: FileId) -> bool {
        self.devices.values().any(|&device| device == file)
    }

    pub(super) fn add_device(&mut self, path: Arc<Path>, file: FileId) {
        Arc::make_mut(&mut self.devices).insert(path, file);
    }

    pub(super) fn attributes(&self, file: FileId) -> u64 {
        self.attributes.get(&file).copied().unwrap_or(0)
    }

    pub(super) fn set_attributes(&mut self, file: FileId, attributes: u64) {
        Arc::make_mut(&mut self.attributes).insert(file, attributes);
    }

    /// The file or device at a path.
    pub(super) fn find(&self, path: &Path) -> Option<FileId> {
        self.device(path).or_else(|| {
            let (directory, name) = (path.parent()?, path.file_name()?);
            self.named(directory, name)
        })
    }

    /// Lets an operation land as `landing` says.
    pub(super) fn apply(&mut self, op: &Op, landing: &Landing, residue: &Residue) {
        if *landing == Landing::LOST {
            return;
        }
        match &op.effect {
            Effect::Create {
                directory,
                name,
                file,
            } => {
                self.set_name(directory, name.clone(), *file);
            }
            Effect::Rename {
                directory,
                to,
                file,
                ..
            } => {
                if let Some(names) = self.directories.get_mut(directory) {
                    let names = Arc::make_mut(names);
                    // Where an earlier rename was lost, the file still has an older name: a
                    // rename never leaves it with two.
                    names.retain(|_, named| named != file);
                    names.insert(to.clone(), *file);
                }
            }
            Effect::Exchange {
                directory,
                one,
                other,
            } => {
                if let Some(names) = self.directories.get_mut(directory) {
                    let names = Arc::make_mut(names);
                    names.retain(|_, named| *named != one.1 && *named != other.1);
                    names.insert(one.0.clone(), other.1);
                    names.insert(other.0.clone(), one.1);
                }
            }
            Effect::Remove { directory, name } => {
                if let Some(names) = self.directories.get_mut(directory) {
                    Arc::make_mut(names).remove(name);
                }
            }
            Effect::Write {
                file,
                patch,
                len_before,
            } => landing.write(self.contents_mut(*file), patch, *len_before, residue),
            Effect::SetLen { file, after, .. } => {
                landing.set_len(self.contents_mut(*file), *after, residue);
            }
            Effect::Attributes { file, attributes } => self.set_attributes(*file, *attributes),
            Effect::Nothing
            | Effect::Reserve { .. }
            | Effect::Sync { .. }
            | Effect::SyncDirectory { .. }
            | Effect::Note(_) => {}
        }
    }

    /// A digest of all that a restart leaves: names, devices, their bytes, and what free space
    /// holds.
    pub(super) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut add = |path: &Path, name: &OsStr, file: FileId| {
            for text in [path.as_os_str(), name] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_encoded_bytes());
            }
            if let Some(contents) = self.files.get(&file) {
                contents.digest(&mut hasher);
            }
            if let Some(attributes) = self.attributes.get(&file) {
                hasher.update(&attributes.to_le_bytes());
            }
        };
        for (directory, names) in &self.directories {
            for (name, file) in names.iter() {
                add(directory, name, *file);
            }
        }
        for (device, file) in self.devices.iter() {
            add(device, OsStr::new("/"), *file);
        }
        if let Some(file) = self.newest_nameless() {
            add(Path::new("/"), OsStr::new("/"), file);
        }
        hasher.finalize()
    }

    /// Whether a name or a device refers to the file.
    pub(super) fn is_named(&self, file: FileId) -> bool {
        let mut names = self.directories.values().flat_map(|names| names.values());
        names.any(|&named| named == file) || self.is_device(file)
    }

    /// The newest file without a name that held anything: its space is free.
    pub(super) fn newest_nameless(&self) -> Option<FileId> {
        let mut held = self
            .files
            .iter()
            .rev()
            .filter(|(_, contents)| !contents.is_empty());
        held.find(|(file, _)| !self.is_named(**file))
            .map(|(file, _)| *file)
    }

    /// Forgets files without a name, as a restart does, but for what free space still holds.
    pub(super) fn restart(&mut self) {
        let named = self.directories.values().flat_map(|names| names.values());
        let mut kept: BTreeSet<FileId> = named.chain(self.devices.values()).copied().collect();
        if kept.len() < self.files.len() {
            kept.extend(self.newest_nameless());
            self.files.retain(|file, _| kept.contains(file));
        }
    }
}

//! The operations on a disk, and what each did.

use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::contents::Patch;

/// A file itself, whatever its name is or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileId(pub(super) u64);

/// What the code under test asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum OpKind {
    /// A file or device was opened.
    Open,
    /// The length was asked for.
    Len,
    /// Bytes were read.
    Read,
    /// Data was looked for behind holes.
    NextData,
    /// The names in a directory were listed.
    Names,
    /// A file was created.
    Create,
    /// A file was renamed.
    Rename,
    /// A file was removed.
    Remove,
    /// Mode, owner and extended attributes were copied.
    Attributes,
    /// Bytes were written.
    Write,
    /// A file became a clone of another one.
    Clone,
    /// The length was changed.
    SetLen,
    /// A range was made to read as zeros.
    PunchHole,
    /// Space was reserved.
    Reserve,
    /// Reserved space was given back.
    GiveBack,
    /// A file or device was synced.
    Sync,
    /// A directory was synced.
    SyncDirectory,
    /// Not an operation: what [`FaultDisk::note`](super::FaultDisk::note) wrote into the log.
    Note,
}

impl OpKind {
    /// Whether it changes something or makes a change durable; only these are logged.
    pub fn changes(self) -> bool {
        use OpKind::{Len, Names, NextData, Note, Open, Read};
        !matches!(self, Open | Len | Read | NextData | Names | Note)
    }

    /// Whether it makes earlier changes durable.
    pub fn syncs(self) -> bool {
        matches!(self, OpKind::Sync | OpKind::SyncDirectory)
    }

    pub(super) fn operation(self) -> &'static str {
        match self {
            OpKind::Open => "open",
            OpKind::Len => "get the length of",
            OpKind::Read => "read",
            OpKind::NextData => "look for data in",
            OpKind::Names => "list directory",
            OpKind::Create => "create",
            OpKind::Rename => "rename",
            OpKind::Remove => "remove",
            OpKind::Attributes => "copy the attributes of",
            OpKind::Write => "write",
            OpKind::Clone => "clone",
            OpKind::SetLen => "set the length of",
            OpKind::PunchHole => "punch a hole in",
            OpKind::Reserve => "reserve space for",
            OpKind::GiveBack => "give back space of",
            OpKind::Sync => "sync",
            OpKind::SyncDirectory => "sync directory",
            OpKind::Note => "note",
        }
    }
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It did what was asked, even where it then reported [`Failure::Late`](super::Failure::Late).
    Done,
    /// A sync that reported success and did nothing, as the test wished.
    Dropped,
    /// It reported an error, after doing nothing or a part.
    Failed,
    /// A sync that reported an error and threw away what it should have made durable.
    Lost,
}

/// One logged operation.
#[derive(Debug, Clone)]
pub struct Op {
    pub(super) number: usize,
    pub(super) kind: OpKind,
    pub(super) path: Arc<Path>,
    pub(super) effect: Effect,
    pub(super) outcome: Outcome,
}

impl Op {
    /// Its place in the log, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// What was asked for.
    pub fn kind(&self) -> OpKind {
        self.kind
    }

    /// The file, by the name its handle was opened under, or the directory; empty for a note.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The new name, for a rename that was done.
    pub fn renamed_to(&self) -> Option<PathBuf> {
        match &self.effect {
            Effect::Rename { directory, to, .. } => Some(directory.join(to)),
            Effect::Exchange {
                directory, other, ..
            } => Some(directory.join(&other.0)),
            _ => None,
        }
    }

    /// The bytes that it wrote, punched or reserved.
    pub fn range(&self) -> Option<Range<u64>> {
        match &self.effect {
            Effect::Write { patch, .. } => Some(patch.range.clone()),
            Effect::Reserve { range } => Some(range.clone()),
            _ => None,
        }
    }

    /// A copy of the bytes written; zeros for a hole, empty for all else.
    pub fn written(&self) -> Vec<u8> {
        match &self.effect {
            Effect::Write { patch, .. } => patch.to_vec(),
            _ => Vec::new(),
        }
    }

    /// The text of a note.
    pub fn note(&self) -> Option<&str> {
        match &self.effect {
            Effect::Note(text) => Some(text),
            _ => None,
        }
    }

    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub(super) fn file(&self) -> Option<FileId> {
        match &self.effect {
            Effect::Write { file, .. }
            | Effect::SetLen { file, .. }
            | Effect::Attributes { file, .. }
            | Effect::Sync { file } => Some(*file),
            _ => None,
        }
    }

    pub(super) fn directory(&self) -> Option<&Arc<Path>> {
        match &self.effect {
            Effect::Create { directory, .. }
            | Effect::Rename { directory, .. }
            | Effect::Exchange { directory, .. }
            | Effect::Remove { directory, .. }
            | Effect::SyncDirectory { directory } => Some(directory),
            _ => None,
        }
    }

    /// The file that it gives a name.
    pub(super) fn names_file(&self) -> Option<FileId> {
        match &self.effect {
            Effect::Create { file, .. } | Effect::Rename { file, .. } => Some(*file),
            Effect::Exchange { one, .. } => Some(one.1),
            _ => None,
        }
    }

    /// Whether a crash can lose it.
    pub(super) fn pends(&self) -> bool {
        use Effect::{Attributes, Create, Exchange, Remove, Rename, SetLen, Write};
        matches!(
            self.effect,
            Create { .. }
                | Rename { .. }
                | Exchange { .. }
                | Remove { .. }
                | Write { .. }
                | SetLen { .. }
                | Attributes { .. }
        )
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.operation();
        match &self.effect {
            Effect::Note(text) => return write!(f, "#{} note {text:?}", self.number),
            Effect::SetLen { before, after, .. } => write!(
                f,
                "#{} {kind} {} from {before:#x} to {after:#x}",
                self.number,
                self.path.display(),
            )?,
            _ => write!(f, "#{} {kind} {}", self.number, self.path.display())?,
        }
        if let Some(range) = self.range() {
            write!(f, " {:#x}..{:#x}", range.start, range.end)?;
        }
        if let Some(to) = self.renamed_to() {
            write!(f, " to {}", to.display())?;
        }
        match self.outcome {
            Outcome::Done => Ok(()),
            Outcome::Dropped => f.write_str(" (dropped)"),
            Outcome::Failed => f.write_str(" (failed)"),
            Outcome::Lost => f.write_str(" (failed, its writes thrown away)"),
        }
    }
}

/// What an operation did to the disk's contents.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    Nothing,
    Create {
        directory: Arc<Path>,
        name: OsString,
        file: FileId,
    },
    Rename {
        directory: Arc<Path>,
        to: OsString,
        file: FileId,
    },
    /// Each of two files takes the other one's name; the names are those from before.
    Exchange {
        directory: Arc<Path>,
        one: (OsString, FileId),
        other: (OsString, FileId),
    },
    Remove {
        directory: Arc<Path>,
        name: OsString,
    },
    Write {
        file: FileId,
        patch: Patch,
        len_before: u64,
    },
    SetLen {
        file: FileId,
        before: u64,
        after: u64,
    },
    Attributes {
        file: FileId,
        attributes: u64,
    },
    Reserve {
        range: Range<u64>,
    },
    Sync {
        file: FileId,
    },
    SyncDirectory {
        directory: Arc<Path>,
    },
    Note(String),
}

/// The path with `ID` in place of random numbers in its name, so that two runs of the same code
/// have the same log.
pub(super) fn without_ids(path: &Path) -> PathBuf {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return path.to_owned();
    };
    let is_id = |part: &&str| part.len() == 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts = name.split('.').map(|part| match is_id(&part) {
        true => "ID",
        false => part,
    });
    path.with_file_name(parts.collect::<Vec<_>>().join("."))
}

/// One sync, named so that the same one can be found in another run of the same code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SyncCall {
    pub(super) path: PathBuf,
    pub(super) nth: u64,
}

impl SyncCall {
    /// The file, by the name its handle was opened under, or the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which sync of this path it is, from 1.
    pub fn nth(&self) -> u64 {
        self.nth
    }
}

impl fmt::Display for SyncCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sync {} of {}", self.nth, self.path.display())
    }
}

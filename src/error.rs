//! The one error type: what went wrong, where, and what to do about it.

pub(crate) mod codes;

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};

use crate::advice::{self, Advice};
use crate::target_state::TargetState;
use crate::text::{EscapedPath, Escaper};

/// Result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong; decide on this, show the [`Error`] itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused or failed an operation.
    Io,
    /// A file, device or parent image is not there.
    NotFound,
    /// Something is there that would have to be overwritten.
    AlreadyExists,
    /// No space left, a quota or the longest length of a file reached, or not enough for what
    /// the work will need.
    NoSpace,
    /// Another program has the file or device open, locked or mounted.
    InUse,
    /// Bytes from outside break the rules of their format.
    Malformed,
    /// Well formed, but a feature that this crate does not handle.
    Unsupported,
    /// A number stated by a file exceeds the caller's [`Limits`](crate::Limits).
    LimitExceeded,
    /// The caller asked for something that makes no sense.
    InvalidInput,
    /// A delta is meant for other contents than the target holds; nothing was changed.
    BaseMismatch,
    /// What was written does not read back as it should.
    VerifyFailed,
    /// The target is incomplete: it carries the marker of an unfinished sync.
    Incomplete,
    /// A differencing image needs a parent that was not given, or that does not match.
    Parent,
    /// The source changed while it was read.
    SourceChanged,
    /// The target's name was removed, or given to another file or device, while it was written.
    TargetChanged,
    /// A range of the source cannot be read.
    Unreadable,
    /// The caller's cancel token was set.
    Cancelled,
    /// An earlier sync of this handle failed; nothing is known until it is reopened.
    Poisoned,
    /// Another host, or a file of this one, is not taken for what it should be.
    Untrusted,
    /// Guest data holds a marker of an unfinished sync where it would be taken for the target's
    /// own.
    MarkerInData,
}

/// An error: kind, operation, path, field, offset, advice and cause.
///
/// `Display` gives one line for a person, `cannot OPERATION PATH: MESSAGE (FIELD, OFFSET): CAUSE;
/// ADVICE`, of which each part may be missing. Characters that a terminal would
/// obey are escaped, wherever they come from. Offsets are bytes, in hex. The
/// cause, where there is one, is in [`source`](std::error::Error::source) and in the text.
#[derive(thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Inner>);

#[derive(Debug, thiserror::Error)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    operation: Option<&'static str>,
    path: Option<PathBuf>,
    field: Option<&'static str>,
    offset: Option<u64>,
    advice: Vec<Advice>,
    target_state: Option<TargetState>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`, said in lower case without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Inner {
            kind,
            message: message.into(),
            operation: None,
            path: None,
            field: None,
            offset: None,
            advice: Vec::new(),
            target_state: None,
            source: None,
        }))
    }

    /// A failed system call; out-of-space, missing and existing files get kinds of their own. Of
    /// `operation`, see [`during`](Self::during).
    pub fn io(operation: &'static str, cause: impl Into<io::Error>) -> Self {
        let cause = cause.into();
        let kind = match cause.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => ErrorKind::NoSpace,
            io::ErrorKind::ResourceBusy => ErrorKind::InUse,
            _ if cause
                .raw_os_error()
                .is_some_and(|it| codes::IN_USE.contains(&it)) =>
            {
                ErrorKind::InUse
            }
            _ => ErrorKind::Io,
        };
        Error::new(kind, "").during(operation).caused_by(cause)
    }

    /// Bytes from outside that break their format's rules.
    pub fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Error::new(ErrorKind::Malformed, message)
    }

    /// Names the operation that failed, unless one is named already: words that a path may follow,
    /// as `open` or `get the length of`.
    #[must_use]
    pub fn during(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Names the work that failed where a path is named, and no operation on it.
    #[must_use]
    pub(crate) fn during_work(self, work: &'static str) -> Self {
        match self.0.path {
            Some(_) => self.during(work),
            None => self,
        }
    }

    /// Names the file or device, unless one is named already.
    #[must_use]
    pub fn at_path(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path.get_or_insert_with(|| path.as_ref().to_owned());
        self
    }

    /// Names `path` where `other` is named: a file under another name until it was removed.
    pub(crate) fn instead_of(mut self, other: &Path, path: &Path) -> Self {
        if let Some(named) = self.0.path.as_mut().filter(|named| **named == other) {
            path.clone_into(named);
        }
        self
    }

    /// Names the field of an on-disk structure, unless one is named already.
    #[must_use]
    pub fn in_field(mut self, field: &'static str) -> Self {
        self.0.field.get_or_insert(field);
        self
    }

    /// Gives the byte offset, unless one is given already.
    #[must_use]
    pub fn at_offset(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Says what to do about it, replacing earlier advice.
    #[must_use]
    pub fn advise(mut self, advice: impl Into<Advice>) -> Self {
        self.0.advice.clear();
        self.or_advise(advice)
    }

    /// Says what else could be done about it.
    #[must_use]
    pub fn or_advise(mut self, advice: impl Into<Advice>) -> Self {
        self.0.advice.push(advice.into());
        self
    }

    /// Says what to do about it, replacing earlier advice.
    #[must_use]
    pub(crate) fn advise_all(mut self, advice: Vec<Advice>) -> Self {
        self.0.advice = advice;
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(cause.into());
        self
    }

    /// States what became of the target, unless that is stated already.
    #[must_use]
    pub(crate) fn leaving(mut self, state: TargetState) -> Self {
        self.0.target_state.get_or_insert(state);
        self
    }

    /// The same error of another kind.
    #[must_use]
    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed, where one is known.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The file or device, where one is known.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The field of the on-disk structure that is wrong.
    pub fn field(&self) -> Option<&'static str> {
        self.0.field
    }

    /// The byte offset, in the file or on the disk as the text says.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Whether a length was refused, and more room would not help.
    pub(crate) fn is_too_long(&self) -> bool {
        self.system_kind() == Some(io::ErrorKind::FileTooLarge)
    }

    /// Whether this process lacks the right to do it.
    pub(crate) fn is_forbidden(&self) -> bool {
        let kinds = [
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem,
        ];
        self.system_kind().is_some_and(|kind| kinds.contains(&kind))
    }

    /// Whether the system takes a name for none that a file can have: too long, or with bytes that
    /// no name holds there.
    pub(crate) fn is_no_file_name(&self) -> bool {
        self.has_code(codes::NO_FILE_NAME)
            || self.system_kind() == Some(io::ErrorKind::InvalidInput)
    }

    /// Whether this process, or the system, can open no more files, whatever they are.
    pub(crate) fn is_out_of_files(&self) -> bool {
        self.has_code(codes::OUT_OF_FILES)
    }

    fn system_kind(&self) -> Option<io::ErrorKind> {
        self.system_error().map(io::Error::kind)
    }

    fn has_code(&self, codes: &[i32]) -> bool {
        let code = self.system_error().and_then(io::Error::raw_os_error);
        code.is_some_and(|code| codes.contains(&code))
    }

    /// The error of the operating system that caused this one.
    fn system_error(&self) -> Option<&io::Error> {
        self.0.source.as_deref()?.downcast_ref()
    }

    /// What became of the target, where the work had one that it might have changed.
    pub fn target_state(&self) -> Option<TargetState> {
        self.0.target_state
    }

    /// What to do about it: facts, and the ways there are.
    pub fn advice(&self) -> &[Advice] {
        &self.0.advice
    }

    /// The text of `Display` with each advice, also those of causes, as `words` has it: in terms of
    /// a program's own settings.
    pub fn worded(&self, words: impl Fn(&Advice) -> String) -> String {
        let mut text = String::new();
        // A string takes everything.
        let _ = self.0.write(&self.0.advice, &words, &mut text);
        text
    }

    /// The text of `Display` without this error's own advice.
    pub(crate) fn without_advice(&self) -> String {
        let mut text = String::new();
        // A string takes everything.
        let _ = self.0.write(&[], &Advice::to_string, &mut text);
        text
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(&self.advice, &Advice::to_string, f)
    }
}

impl Inner {
    fn write(
        &self,
        advice: &[Advice],
        words: &dyn Fn(&Advice) -> String,
        f: &mut dyn Write,
    ) -> fmt::Result {
        // Every part may come from outside: names from directories, messages from peers and guests.
        let object = self.path.as_deref().map(EscapedPath);
        match (self.operation, object) {
            (Some(operation), Some(object)) => write!(f, "cannot {operation} {object}")?,
            (Some(operation), None) => write!(f, "cannot {}", alone(operation))?,
            (None, Some(object)) => write!(f, "{object}")?,
            (None, None) => {}
        }
        if !self.message.is_empty() && (self.operation.is_some() || self.path.is_some()) {
            f.write_str(": ")?;
        }
        let mut f = Escaper(f);
        f.write_str(&self.message)?;
        match (self.field, self.offset) {
            (Some(field), Some(offset)) => write!(f, " (field {field}, offset {offset:#x})")?,
            (Some(field), None) => write!(f, " (field {field})")?,
            (None, Some(offset)) => write!(f, " (offset {offset:#x})")?,
            (None, None) => {}
        }
        match self.source.as_deref().map(|it| (it, it.downcast_ref())) {
            Some((_, Some(Error(cause)))) => {
                f.write_str(": ")?;
                cause.write(&cause.advice, words, &mut f)?;
            }
            Some((cause, None)) => write!(f, ": {cause}")?,
            None => {}
        }
        if !advice.is_empty() {
            f.write_str("; ")?;
        }
        advice::write_all(advice, words, &mut f)
    }
}

/// An operation without the word that leads over to its object.
fn alone(operation: &str) -> &str {
    let words = [" of", " in", " for", " to"];
    let end = words.iter().find_map(|word| operation.strip_suffix(word));
    end.unwrap_or(operation)
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_and_what_to_do() {
        let error = Error::malformed("checksum is wrong")
            .in_field("checksum")
            .at_offset(0x224)
            .at_path("/a/b.vhd")
            .advise("restore the file from a copy");
        assert_eq!(
            error.to_string(),
            "/a/b.vhd: checksum is wrong (field checksum, offset 0x224); \
             restore the file from a copy"
        );
        assert_eq!(error.kind(), ErrorKind::Malformed);
    }

    #[test]
    #[cfg(unix)]
    fn an_error_stays_on_its_line_whatever_its_parts_hold() {
        let path = crate::path_bytes::path_of(b"/a/\x1b]0;x\x07\xff\nb");
        let cause = io::Error::other("cause\u{9b}31m\u{202e}");
        let error = Error::new(ErrorKind::Io, "message\r\nforged: line")
            .at_path(path)
            .caused_by(cause)
            .advise("remove a\nb");
        assert_eq!(
            error.to_string(),
            "/a/\\x1b]0;x\\x07\\xff\\nb: message\\r\\nforged: line: \
             cause\\u{9b}31m\\u{202e}; remove a\\nb"
        );
        let again = Error::new(ErrorKind::Io, "failed").caused_by(error);
        assert!(again.to_string().ends_with("; remove a\\nb"));
    }

    #[test]
    fn a_full_file_system_is_told_apart_from_other_io_errors() {
        let full = Error::io("write", codes::system_error(codes::NO_SPACE));
        assert_eq!(full.kind(), ErrorKind::NoSpace);
        let broken = Error::io("write", codes::system_error(codes::FAILED));
        assert_eq!(broken.kind(), ErrorKind::Io);
        assert!(std::error::Error::source(&broken).is_some());
    }
}

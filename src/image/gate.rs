//! Which files may be the parents of a differencing image: the caller decides, never the image.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::advice::Advice;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;
use crate::storage::{Dense, FileId, HostFile, SourceOptions, Storage, open_source};

/// Decides which files may be the parent of a differencing image.
///
/// What it offers is only tried: the image takes a file as its parent when the unique id is the
/// one that the child states, and no other; in a VHD the length too (a VHDX may have been resized
/// since, and has zeros where it is longer than its parent).
pub trait ParentGate: Send + Sync + fmt::Debug {
    /// The files to try, in this order.
    ///
    /// # Errors
    /// `NotFound`, `InUse`, `Io` where a file that the caller named cannot be opened.
    fn candidates(&self, request: &ParentRequest<'_>) -> Result<Vec<Arc<dyn Storage>>>;
}

/// What a child says of its parent.
#[derive(Debug)]
#[non_exhaustive]
pub struct ParentRequest<'a> {
    /// Where the child lies.
    pub child: &'a Path,
    /// The parent's id; zeros in formats that know their parents by name only.
    pub id: ImageId,
    /// The parent's guest-visible length in bytes.
    pub disk_len: u64,
    /// Paths and names as the child states them: text from outside, in any system's spelling.
    pub hints: &'a [String],
}

/// The 16 bytes by which a child knows its parent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageId(pub [u8; 16]);

/// The gate that offers nothing: differencing images are refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct Closed;

/// The gate for files of this host: those that the caller named first, then regular files that
/// the child's hints name in or under the child's own directory.
///
/// An absolute path in a hint is never followed, nor is `..`, nor a symbolic link that leads out
/// of the directory. Of any hint the last name is looked for beside the child.
#[derive(Debug, Clone, Default)]
pub struct FileGate {
    parents: Vec<PathBuf>,
}

impl FileGate {
    /// A gate to the child's own directory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers `path` too, wherever it lies.
    #[must_use]
    pub fn with_parent(mut self, path: impl Into<PathBuf>) -> Self {
        self.parents.push(path.into());
        self
    }
}

impl ParentGate for Closed {
    fn candidates(&self, _request: &ParentRequest<'_>) -> Result<Vec<Arc<dyn Storage>>> {
        Ok(Vec::new())
    }
}

impl ParentGate for FileGate {
    fn candidates(&self, request: &ParentRequest<'_>) -> Result<Vec<Arc<dyn Storage>>> {
        let open = |path: &Path| Ok(open_source(path, &SourceOptions::default())?.storage);
        let mut files: Vec<Arc<dyn Storage>> = Vec::new();
        for path in &self.parents {
            files.push(open(path)?);
        }
        // What a hint names may be closed to us; that matters if nothing else is there to try.
        let mut closed = None;
        for path in own_directory(request) {
            match open(&path) {
                Ok(file) => files.push(file),
                Err(error) => closed = closed.or(Some(error)),
            }
        }
        match closed {
            Some(error) if files.is_empty() => Err(error),
            _ => Ok(files),
        }
    }
}

/// What another gate offers, with its holes read.
#[derive(Debug)]
pub(super) struct DenseGate(pub Arc<dyn ParentGate>);

impl ParentGate for DenseGate {
    fn candidates(&self, request: &ParentRequest<'_>) -> Result<Vec<Arc<dyn Storage>>> {
        let files = self.0.candidates(request)?.into_iter();
        Ok(files
            .map(|file| Arc::new(Dense::new(file)) as Arc<dyn Storage>)
            .collect())
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What came of trying one candidate.
pub(crate) enum Tried<T> {
    /// It is the parent, opened.
    Parent(T),
    /// It is not, for this reason.
    Other(Cow<'static, str>),
}

/// Opens the first candidate that `check` takes as the parent.
///
/// # Errors
/// `Parent` when there is none; what the gate returns, and what `check` returns for a file that
/// is the parent but cannot be used.
pub(crate) fn open_parent<T>(
    gate: &dyn ParentGate,
    request: &ParentRequest<'_>,
    mut check: impl FnMut(Arc<dyn Storage>) -> Result<Tried<T>>,
) -> Result<T> {
    let mut tried = String::new();
    for file in gate.candidates(request)? {
        let path = file.path().to_owned();
        match check(file)? {
            Tried::Parent(parent) => return Ok(parent),
            Tried::Other(reason) => {
                let separator = if tried.is_empty() { "; tried " } else { ", " };
                tried.push_str(&format!("{separator}{} ({reason})", path.display()));
            }
        }
    }
    let hint = match request.hints.first() {
        Some(hint) => format!(" (said to be `{}`)", hint.replace(char::is_control, " ")),
        None => String::new(),
    };
    let id = match request.id {
        ImageId(id) if id == [0; 16] => String::new(),
        id => format!(" {id}"),
    };
    Err(Error::new(
        ErrorKind::Parent,
        format!("a differencing image, and its parent{id}{hint} was not found{tried}"),
    )
    .at_path(request.child)
    .advise(Advice::Parent))
}

/// The images that need a parent, from the one the caller opened down to the one being opened now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain {
    links: Vec<Link>,
}

/// One image of a chain: its id, and which file it is where it is one.
#[derive(Debug, Clone)]
struct Link {
    id: ImageId,
    file: Option<FileId>,
}

impl Chain {
    /// How many images are above the one being opened.
    pub(crate) fn depth(&self) -> usize {
        self.links.len()
    }

    /// An image's share of what caches of a whole chain may take: most for the first, and together
    /// no more than about twice as much.
    pub(crate) fn share(&self, whole: usize) -> usize {
        let place = self.depth() + 1;
        (whole / (place * place)).max(whole / SMALLEST_SHARE)
    }

    /// The chain with one more image at its end.
    ///
    /// # Errors
    /// `Malformed` when the image is in the chain already, `LimitExceeded` when the chain gets
    /// too long.
    pub(crate) fn join(&self, id: ImageId, storage: &dyn Storage, limits: &Limits) -> Result<Self> {
        let path = storage.path();
        let file = HostFile::at(path).ok().map(|it| it.id());
        if self
            .links
            .iter()
            .any(|link| link.id == id || (file.is_some() && link.file == file))
        {
            return Err(Error::malformed(
                "the chain of parents comes back to an image that is in it",
            )
            .in_field("parent unique id")
            .at_path(path));
        }
        // Each image in the chain stands for one parent: its own.
        if self.links.len() >= limits.chain_count {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("more than {} parents in a chain", limits.chain_count),
            )
            .at_path(path));
        }
        let mut longer = self.clone();
        longer.links.push(Link { id, file });
        Ok(longer)
    }
}

/// A cache is of use only from some size on: here is where it stops to shrink.
const SMALLEST_SHARE: usize = 64;

/// The regular files in or under the child's own directory that the hints name, each once.
fn own_directory(request: &ParentRequest<'_>) -> Vec<PathBuf> {
    let Some((child, directory)) = fs::canonicalize(request.child).ok().and_then(|child| {
        let directory = child.parent()?.to_owned();
        Some((child, directory))
    }) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = Vec::new();
    for name in request.hints.iter().flat_map(|hint| inner_paths(hint)) {
        // Resolving first means that what is checked is what is opened.
        let Ok(path) = fs::canonicalize(directory.join(name)) else {
            continue;
        };
        let regular = fs::metadata(&path).is_ok_and(|it| it.is_file());
        if regular && path.starts_with(&directory) && path != child && !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

/// A hint as relative paths that do not climb: the whole of it where it is one, and its last name.
fn inner_paths(hint: &str) -> Vec<PathBuf> {
    let parts: Vec<&str> = hint.split(['/', '\\']).collect();
    let plain = |part: &str| !part.is_empty() && part != ".." && !part.contains([':', '\0']);
    let mut paths = Vec::new();
    if parts.iter().all(|part| plain(part)) {
        paths.push(parts.iter().filter(|part| **part != ".").collect());
    }
    if let Some(name) = parts.last().filter(|name| plain(name) && **name != ".") {
        let name = PathBuf::from(name);
        if !paths.contains(&name) {
            paths.push(name);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    const ID: ImageId = ImageId([7; 16]);

    fn offered(gate: &FileGate, child: &Path, hints: &[&str]) -> Vec<PathBuf> {
        let hints: Vec<String> = hints.iter().map(|hint| hint.to_string()).collect();
        let request = ParentRequest {
            child,
            id: ID,
            disk_len: 0,
            hints: &hints,
        };
        let files = gate.candidates(&request).unwrap();
        files.iter().map(|file| file.path().to_owned()).collect()
    }

    #[test]
    fn hints_reach_files_in_and_under_the_childs_directory_and_nothing_else() {
        let outer = tempfile::tempdir().unwrap();
        let outer = outer.path().canonicalize().unwrap();
        let directory = outer.join("disks");
        fs::create_dir_all(directory.join("sub")).unwrap();
        for file in [
            "child.vhd",
            "p.vhd",
            "sub/q.vhd",
            "../outside.vhd",
            "ünï.vhd",
        ] {
            fs::write(directory.join(file), b"x").unwrap();
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            symlink(outer.join("outside.vhd"), directory.join("link.vhd")).unwrap();
            symlink(directory.join("p.vhd"), directory.join("inner.vhd")).unwrap();
        }
        fs::create_dir(directory.join("dir.vhd")).unwrap();
        let child = directory.join("child.vhd");
        let gate = FileGate::new();
        let p = vec![directory.join("p.vhd")];
        for hint in [
            "p.vhd",
            r".\p.vhd",
            r"C:\VMs\p.vhd",
            r"\\server\share\p.vhd",
            "file:///Users/me/p.vhd",
            "inner.vhd",
        ] {
            if cfg!(windows) && hint == "inner.vhd" {
                // Links need a right of their own there.
                continue;
            }
            assert_eq!(offered(&gate, &child, &[hint]), p, "{hint}");
        }
        assert_eq!(offered(&gate, &child, &["p.vhd", r".\p.vhd"]), p);
        assert_eq!(
            offered(&gate, &child, &[r".\sub\q.vhd", "ünï.vhd"]),
            [directory.join("sub/q.vhd"), directory.join("ünï.vhd")]
        );
        let outside = outer.join("outside.vhd");
        for hint in [
            r"..\outside.vhd",
            "../outside.vhd",
            "sub/../../outside.vhd",
            outside.to_str().unwrap(),
            "link.vhd",
            "dir.vhd",
            "child.vhd",
            "..",
            ".",
            "",
            "/",
            "a\0b",
            "missing.vhd",
        ] {
            assert!(offered(&gate, &child, &[hint]).is_empty(), "{hint:?}");
        }
        let gate = gate.with_parent(&outside);
        assert_eq!(offered(&gate, &child, &[]), [outside]);
        let gone = FileGate::new().with_parent(directory.join("gone.vhd"));
        let request = ParentRequest {
            child: &child,
            id: ID,
            disk_len: 0,
            hints: &[],
        };
        assert_eq!(
            gone.candidates(&request).err().unwrap().kind(),
            ErrorKind::NotFound
        );
    }

    #[test]
    fn a_chain_ends_at_its_limit_and_at_an_image_it_holds_already() {
        let limits = Limits::default().with_chain_count(2);
        let memory = MemoryStorage::new("memory only", Vec::new());
        let mut chain = Chain::default();
        for id in 0..2 {
            chain = chain.join(ImageId([id; 16]), &memory, &limits).unwrap();
        }
        let kind = |result: Result<Chain>| result.unwrap_err().kind();
        assert_eq!(
            kind(chain.join(ImageId([9; 16]), &memory, &limits)),
            ErrorKind::LimitExceeded
        );
        assert_eq!(
            kind(chain.join(ImageId([1; 16]), &memory, &limits)),
            ErrorKind::Malformed
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = crate::storage::FileStorage::open_read(file.path()).unwrap();
        let chain = Chain::default().join(ID, &file, &limits).unwrap();
        assert_eq!(
            kind(chain.join(ImageId([9; 16]), &file, &limits)),
            ErrorKind::Malformed
        );
    }
}

//! A delta as a differencing image beside its base, by their paths.

use std::path::Path;

use super::host::source::HostSource;
use crate::delta::{Delta, ExportBase, export};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Format, ImageOptions};
use crate::progress::Work;
use crate::storage::{FileRef, HostKind, resolve, resolve_to_write};

/// Makes the file `to`, which must not exist, a differencing image of `base` that holds what
/// `delta` leads to. Its format is that of `base`, and its name must say so; it names its parent
/// by the way from its own directory. `options` are those that `base` was opened with.
///
/// The file takes its name when it is complete, and is durable when this returns. It stands for
/// the base as it is now: it must not be written any more.
///
/// # Errors
/// Those of [`export`]; `Untrusted` for a symbolic link of another user; `InvalidInput` for a name
/// of another format, and for paths that a child cannot name; `SourceChanged` when it was written
/// meanwhile.
pub fn export_delta(
    delta: &Delta,
    base: &HostSource,
    to: impl AsRef<Path>,
    options: &ImageOptions,
    work: &Work,
) -> Result<()> {
    let to = resolve_to_write(to)?;
    let format = base.image().info().format;
    let refuse = |what: String| Err(Error::new(ErrorKind::InvalidInput, what).at_path(&to));
    if base.host().kind() == HostKind::Device {
        return refuse("a device is no parent that a file could name".to_owned());
    }
    if format != Format::Raw && Format::from_path(&to) != format {
        return refuse(format!(
            "the child of a {format} is a {format}, and its name has to end like one"
        ));
    }
    let directory = to.parent().unwrap_or(Path::new("/"));
    let parent = resolve(base.host().path())?;
    let Some(path) = way(directory, &parent) else {
        return refuse(format!(
            "{} cannot be named in a child: only names in UTF-8 without backslashes can",
            parent.display()
        ));
    };
    let over = ExportBase::new(base.storage().clone(), format, path).with_options(options.clone());
    let privacy = base.privacy()?.and(delta.storage().privacy()?);
    FileRef::to_write(&to)?.create_whole(privacy, |child| {
        export(delta, &over, child, work)?;
        base.check()
    })
}

/// The way from `directory` to `file` as Windows writes it; both are absolute, with links followed.
fn way(directory: &Path, file: &Path) -> Option<String> {
    let both = directory.components().zip(file.components());
    let shared = both.take_while(|(a, b)| a == b).count();
    let mut way = match directory.components().count() - shared {
        0 => vec!["."],
        up => vec![".."; up],
    };
    for part in file.components().skip(shared) {
        way.push(part.as_os_str().to_str().filter(|it| !it.contains('\\'))?);
    }
    Some(way.join("\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_names_its_parent_by_the_way_from_its_own_directory() {
        for (directory, file, expected) in [
            ("/vm", "/vm/base.vhdx", r".\base.vhdx"),
            ("/vm", "/vm/sub/base.vhdx", r".\sub\base.vhdx"),
            ("/vm/a/b", "/vm/base.vhdx", r"..\..\base.vhdx"),
            ("/vm/a", "/vm/b/base.vhdx", r"..\b\base.vhdx"),
            ("/", "/base.vhdx", r".\base.vhdx"),
            ("/a", "/b/c", r"..\b\c"),
        ] {
            let found = way(Path::new(directory), Path::new(file));
            assert_eq!(found.as_deref(), Some(expected));
        }
        assert_eq!(way(Path::new("/vm"), Path::new(r"/vm/a\b.vhdx")), None);
    }
}

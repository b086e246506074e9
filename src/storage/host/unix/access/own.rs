//! Which files are taken for ones that this program made.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::advice::Advice;
use crate::error::{Error, ErrorKind};
use crate::storage::Privacy;

/// Why a file is not taken for one of ours: anyone else could have written what it holds, or still
/// could. `None` for a file that is.
pub(in crate::storage) fn doubt(facts: &Metadata) -> Option<String> {
    shape(facts)
        .or_else(|| owner(facts))
        .or_else(|| writers(facts))
}

/// As [`doubt`], for a file that may have further names.
pub(in crate::storage) fn doubt_linked(facts: &Metadata) -> Option<String> {
    owner(facts).or_else(|| writers(facts))
}

/// As [`doubt`], for a file that will take the place of `model`, or of nothing, and may be used as
/// `privacy` says: it may have its model's owner and mode already.
pub(in crate::storage) fn doubt_copy(
    facts: &Metadata,
    model: Option<&Metadata>,
    privacy: Privacy,
) -> Option<String> {
    let grants = |facts: &Metadata| (facts.uid(), facts.gid(), facts.mode());
    if let Some(why) = shape(facts) {
        return Some(why);
    }
    if model.is_some_and(|model| grants(model) == grants(facts)) {
        return None;
    }
    owner(facts).or_else(|| {
        let admitted = privacy.admits(facts.mode(), facts.gid());
        (!admitted).then(|| format!("its mode, {:03o}, is too wide", facts.mode() & 0o7777))
    })
}

/// The error for a file that is not taken for one of ours.
pub(in crate::storage) fn refusal(why: impl std::fmt::Display, path: impl AsRef<Path>) -> Error {
    let what = format!("this file may not come from diskdelta: {why}");
    Error::new(ErrorKind::Untrusted, what)
        .at_path(&path)
        .advise(Advice::Remove)
        .or_advise(Advice::TrustLog(path.as_ref().to_owned()))
}

fn shape(facts: &Metadata) -> Option<String> {
    let kind = facts.file_type();
    if kind.is_symlink() {
        return Some("it is a symbolic link".into());
    }
    if !kind.is_file() {
        return Some("it is not a regular file".into());
    }
    (facts.nlink() != 1).then(|| format!("it has {} names", facts.nlink()))
}

fn owner(facts: &Metadata) -> Option<String> {
    let uid = facts.uid();
    (!is_own(uid)).then(|| format!("it belongs to user {uid}"))
}

/// Whether what `uid` owns is taken for ours: it is root's or this process's.
pub(in crate::storage) fn is_own(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// An access list that lets others write shows in the group's bits.
fn writers(facts: &Metadata) -> Option<String> {
    (facts.mode() & 0o022 != 0).then(|| "others may write to it".into())
}

//! Which files are taken for ones that this program made.

use std::path::Path;

use crate::advice::Advice;
use crate::error::{Error, ErrorKind};
use crate::storage::HostFile;

/// Why a file is not taken for one of ours; `None` for a file that is. Owners and access lists are
/// not looked at: who may write to the directory is trusted.
pub(in crate::storage) fn doubt(host: &HostFile) -> Option<String> {
    let names = host.link_count();
    (names != 1).then(|| format!("it has {names} names"))
}

/// The error for a file that is not taken for one of ours.
pub(in crate::storage) fn refusal(why: impl std::fmt::Display, path: impl AsRef<Path>) -> Error {
    let what = format!("this file may not come from diskdelta: {why}");
    Error::new(ErrorKind::Untrusted, what)
        .at_path(&path)
        .advise(Advice::Remove)
        .or_advise(Advice::TrustLog(path.as_ref().to_owned()))
}

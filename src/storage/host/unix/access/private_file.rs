//! Files with secrets: private keys and passphrases.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::geteuid;

use crate::error::{Error, ErrorKind, Result};

/// Reads a file with a secret, of at most 1 MiB. Symbolic links are followed; what is opened must
/// be a regular file that only its owner can read, and that owner this process's user. A file of
/// root's may be readable by its group, as key files of services are.
///
/// # Errors
/// `Untrusted` for a file that others can read or change, or that belongs to another user;
/// `Unsupported` for something other than a regular file; `LimitExceeded` for one that is too long;
/// `NotFound`, `Io`.
pub(crate) fn read_private(path: &Path) -> Result<Vec<u8>> {
    let failed = |cause: std::io::Error| Error::io("read", cause).at_path(path);
    // A FIFO or a terminal must not keep this process waiting before it is known for one.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    let mut file = File::from(file);
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        let text = "a secret is read from a regular file only";
        return Err(Error::new(ErrorKind::Unsupported, text).at_path(path));
    }
    check(facts.uid(), facts.mode(), geteuid().as_raw()).map_err(|error| error.at_path(path))?;
    let mut bytes = Vec::new();
    let mut within = (&mut file).take(MOST_BYTES + 1);
    within.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MOST_BYTES {
        let text = format!("a file with a secret has at most {MOST_BYTES} bytes");
        return Err(Error::new(ErrorKind::LimitExceeded, text).at_path(path));
    }
    Ok(bytes)
}

fn check(owner: u32, mode: u32, user: u32) -> Result<()> {
    let refused = |text: String, advice: &'static str| {
        Err(Error::new(ErrorKind::Untrusted, text).advise(advice))
    };
    if owner != user && owner != ROOT {
        let text = format!("holds a secret, and belongs to another user (uid {owner})");
        return refused(text, "give it to the user who runs this (chown), mode 0600");
    }
    let allowed = match owner == user {
        true => 0o700,
        false => 0o740,
    };
    match mode & 0o777 & !allowed {
        0 => Ok(()),
        _ => {
            let mode = mode & 0o777;
            let text = format!("holds a secret that others can read or change (mode {mode:04o})");
            refused(text, "remove that permission: chmod 600 FILE")
        }
    }
}

const ROOT: u32 = 0;
const MOST_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        for (owner, mode, user, is_good) in [
            (7, 0o600, 7, true),
            (7, 0o400, 7, true),
            (7, 0o700, 7, true),
            (7, 0o640, 7, false),
            (7, 0o604, 7, false),
            (7, 0o620, 7, false),
            (0, 0o640, 7, true),
            (0, 0o660, 7, false),
            (0, 0o644, 7, false),
            (0, 0o600, 0, true),
            (0, 0o640, 0, false),
            (8, 0o600, 7, false),
            (8, 0o600, 0, false),
        ] {
            let checked = check(owner, mode, user);
            assert_eq!(checked.is_ok(), is_good, "{owner} {mode:o} {user}");
        }
    }

    #[test]
    fn a_secret_is_read_from_a_short_regular_file_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read_private(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.to_string().contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_private(&path).unwrap(), b"secret");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read_private(&link).unwrap(), b"secret");
        fs::write(&path, vec![0; (1 << 20) + 1]).unwrap();
        let error = read_private(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        let error = read_private(directory.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let fifo = directory.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        let error = read_private(&fifo).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let error = read_private(&directory.path().join("none")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}

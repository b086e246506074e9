//! Owner, mode and extended attributes, carried from one file to another.

use std::ffi::OsString;
use std::fs::{File, Metadata, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{IFlags, XattrFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Gives `to` the owner, mode, extended attributes and flags of `from`; access lists that only `to`
/// has, inherited from its directory, are removed. Says what could not be kept.
pub(in crate::storage) fn copy_attributes(from: &File, to: &File) -> Result<Vec<String>> {
    // First, because some of them want an empty file.
    let lost = copy_flags(from, to);
    let failed = |cause| Error::io("inspect file", cause);
    let old = from.metadata().map_err(failed)?;
    let new = to.metadata().map_err(failed)?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        fchown(to, Some(old.uid()), Some(old.gid())).map_err(|cause| {
            Error::io("set the owner of", cause).advise("run as root, or work in place")
        })?;
    }
    let wanted = attribute_names(from)?;
    for name in attribute_names(to)? {
        if is_access_list(&name) && !wanted.contains(&name) {
            rustix::fs::fremovexattr(to, &name)
                .map_err(|e| Error::io("remove an extended attribute of", e))?;
        }
    }
    for name in wanted {
        if CONTENT_ATTRIBUTES.iter().any(|own| name == *own) {
            continue;
        }
        copy_attribute(from, to, &name)?;
    }
    // Last, because a change of owner takes bits away.
    to.set_permissions(Permissions::from_mode(old.mode() & 0o7777))
        .map_err(|e| Error::io("set the mode of", e))?;
    Ok(lost)
}

/// Whether `to` has what [`copy_attributes`] would give it, but for flags, some of which it may not
/// be able to take.
pub(in crate::storage) fn has_attributes_of(from: &File, to: &File) -> Result<bool> {
    let failed = |cause| Error::io("inspect file", cause);
    let (old, new) = (
        from.metadata().map_err(failed)?,
        to.metadata().map_err(failed)?,
    );
    let grants = |it: &Metadata| (it.uid(), it.gid(), it.mode() & 0o7777);
    if grants(&old) != grants(&new) {
        return Ok(false);
    }
    let wanted = attribute_names(from)?;
    if attribute_names(to)?
        .iter()
        .any(|it| is_access_list(it) && !wanted.contains(it))
    {
        return Ok(false);
    }
    let mut wanted = wanted
        .iter()
        .filter(|it| CONTENT_ATTRIBUTES.iter().all(|own| it != own));
    Ok(wanted.all(|name| attribute(from, name) == attribute(to, name)))
}

/// Gives `to` the flags of `from` that are a matter of choice; names those that it does not take.
fn copy_flags(from: &File, to: &File) -> Vec<String> {
    let (Ok(wanted), Ok(mut now)) = (ioctl_getflags(from), ioctl_getflags(to)) else {
        // No flags are known here.
        return Vec::new();
    };
    let mut lost = Vec::new();
    for (flag, name) in FLAGS {
        if wanted.contains(flag) == now.contains(flag) {
            continue;
        }
        let mut next = now;
        next.set(flag, wanted.contains(flag));
        // Some file systems take a flag and forget it.
        let is_set = ioctl_setflags(to, next)
            .and_then(|()| ioctl_getflags(to))
            .is_ok_and(|found| found.contains(flag) == wanted.contains(flag));
        match is_set {
            true => now = next,
            false if wanted.contains(flag) => {
                lost.push(format!("the flag {name} of the file could not be kept"));
            }
            // Inherited from the directory.
            false => lost.push(format!("the file has the flag {name} now")),
        }
    }
    lost
}

/// Whether the file has an access list beyond its mode.
pub(in crate::storage) fn has_access_list(file: &File) -> bool {
    rustix::fs::fgetxattr(file, ACCESS_LIST, &mut [0; 0]).is_ok()
}

/// As [`has_access_list`], for what a path leads to.
pub(in crate::storage) fn path_has_access_list(path: &Path) -> bool {
    rustix::fs::getxattr(path, ACCESS_LIST, &mut [0; 0]).is_ok()
}

fn copy_attribute(from: &File, to: &File, name: &OsString) -> Result<()> {
    let value = match attribute(from, name) {
        Ok(value) => value,
        // Gone since it was listed.
        Err(Errno::NODATA) => return Ok(()),
        Err(cause) => return Err(Error::io("read an extended attribute of", cause)),
    };
    if attribute(to, name).is_ok_and(|there| there == value) {
        return Ok(());
    }
    rustix::fs::fsetxattr(to, name, &value, XattrFlags::empty())
        .map_err(|e| Error::io("set an extended attribute of", e).advise("run as root"))
}

fn attribute(file: &File, name: &OsString) -> Result<Vec<u8>, Errno> {
    let mut value = Vec::with_capacity(VALUE_BYTES);
    rustix::fs::fgetxattr(file, name, spare_capacity(&mut value))?;
    Ok(value)
}

fn attribute_names(file: &File) -> Result<Vec<OsString>> {
    let mut list = Vec::with_capacity(LIST_BYTES);
    match rustix::fs::flistxattr(file, spare_capacity(&mut list)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(cause) => return Err(Error::io("list the extended attributes of", cause)),
    }
    Ok(list
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| OsString::from_vec(name.to_owned()))
        .collect())
}

fn is_access_list(name: &OsString) -> bool {
    name.as_bytes().starts_with(b"system.posix_acl_")
}

/// FS_NOCOMP_FL of linux/fs.h.
const NO_COMPRESSION: IFlags = IFlags::from_bits_retain(0x400);

const ACCESS_LIST: &str = "system.posix_acl_access";

/// Flags that a file may be given, as `chattr` names them. Those that keep a file from being
/// changed are not among them, nor are those that the file system sets by itself.
const FLAGS: [(IFlags, &str); 9] = [
    (IFlags::NOCOW, "C (no copy on write)"),
    (NO_COMPRESSION, "m (no compression)"),
    (IFlags::COMPRESSED, "c (compressed)"),
    (IFlags::NODUMP, "d (no dump)"),
    (IFlags::NOATIME, "A (no access times)"),
    (IFlags::SYNC, "S (synchronous)"),
    (IFlags::SECURE_REMOVAL, "s (wiped when removed)"),
    (IFlags::UNRM, "u (kept when removed)"),
    (DAX, "x (mapped directly)"),
];

/// `FS_DAX_FL` of `linux/fs.h`.
const DAX: IFlags = IFlags::from_bits_retain(0x0200_0000);

/// What these hold depends on the contents, which are another file's.
const CONTENT_ATTRIBUTES: [&str; 2] = ["security.ima", "security.evm"];

/// What the kernel allows at most.
const VALUE_BYTES: usize = 64 << 10;
const LIST_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_access_lists_are_taken_for_such() {
        assert!(is_access_list(&"system.posix_acl_access".into()));
        assert!(is_access_list(&"system.posix_acl_default".into()));
        for other in ["user.posix_acl_access", "security.selinux", "user.kept"] {
            assert!(!is_access_list(&other.into()), "{other}");
        }
    }

    /// A file with an attribute, where the temporary directory keeps them.
    fn file_with(name: &str, value: &str) -> Option<File> {
        let file = tempfile::tempfile().unwrap();
        let set = rustix::fs::fsetxattr(&file, name, value.as_bytes(), XattrFlags::empty());
        if set.is_err() {
            eprintln!("LEFT OUT: the temporary directory keeps no extended attributes");
        }
        set.ok().map(|()| file)
    }

    #[test]
    fn attributes_that_only_the_new_file_has_stay_unless_they_give_access() {
        let [Some(from), Some(to)] = ["user.theirs", "user.own"].map(|it| file_with(it, "x"))
        else {
            return;
        };
        copy_attributes(&from, &to).unwrap();
        for name in ["user.theirs", "user.own"] {
            assert_eq!(attribute(&to, &name.into()).unwrap(), b"x", "{name}");
        }
    }

    #[test]
    fn an_attribute_that_is_there_with_another_value_is_replaced() {
        let [Some(from), Some(to)] = ["new", "old"].map(|it| file_with("user.kept", it)) else {
            return;
        };
        let name = OsString::from("user.kept");
        for _ in 0..2 {
            copy_attribute(&from, &to, &name).unwrap();
            assert_eq!(attribute(&to, &name).unwrap(), b"new");
        }
    }
}

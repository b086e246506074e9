//! Owner, mode and extended attributes, carried from one file to another.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use rustix::buffer::spare_capacity;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Gives `to` the owner, mode and extended attributes of `from`; access lists that only `to` has,
/// inherited from its folder, are removed.
pub(super) fn copy_attributes(from: &File, to: &File) -> Result<()> {
    let failed = |cause| Error::io("look at file", cause);
    let old = from.metadata().map_err(failed)?;
    let new = to.metadata().map_err(failed)?;
    if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
        fchown(to, Some(old.uid()), Some(old.gid())).map_err(|cause| {
            Error::io("set the owner", cause).advise("run as root, or work in place")
        })?;
    }
    let wanted = attribute_names(from)?;
    for name in attribute_names(to)? {
        if is_access_list(&name) && !wanted.contains(&name) {
            rustix::fs::fremovexattr(to, &name)
                .map_err(|e| Error::io("remove an extended attribute", e))?;
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
        .map_err(|e| Error::io("set the mode", e))
}

fn copy_attribute(from: &File, to: &File, name: &OsString) -> Result<()> {
    let value = match attribute(from, name) {
        Ok(value) => value,
        // Gone since it was listed.
        Err(Errno::NODATA) => return Ok(()),
        Err(cause) => return Err(Error::io("read an extended attribute", cause)),
    };
    if attribute(to, name).is_ok_and(|there| there == value) {
        return Ok(());
    }
    rustix::fs::fsetxattr(to, name, &value, XattrFlags::empty())
        .map_err(|e| Error::io("set an extended attribute", e).advise("run as root"))
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
        Err(cause) => return Err(Error::io("list extended attributes", cause)),
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

    /// A file with an attribute, where the temporary folder keeps them.
    fn file_with(name: &str, value: &str) -> Option<File> {
        let file = tempfile::tempfile().unwrap();
        let set = rustix::fs::fsetxattr(&file, name, value.as_bytes(), XattrFlags::empty());
        if set.is_err() {
            eprintln!("LEFT OUT: the temporary folder keeps no extended attributes");
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

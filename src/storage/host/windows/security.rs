//! Access lists of files.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::windows::io::AsRawHandle;
use std::ptr;

use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::Win32::Security as security;
use windows_sys::Win32::Security::Authorization as authorization;

/// The access list of a file, as the system keeps it.
pub(super) struct AccessList {
    descriptor: security::PSECURITY_DESCRIPTOR,
    list: *mut security::ACL,
}

impl AccessList {
    /// That of `file`, which is open for reading its attributes (`READ_CONTROL`).
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let (mut list, mut descriptor) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the handle is open; the pointers are to places for what is asked for.
        let code = unsafe {
            authorization::GetSecurityInfo(
                file.as_raw_handle(),
                authorization::SE_FILE_OBJECT,
                security::DACL_SECURITY_INFORMATION,
                ptr::null_mut(),
                ptr::null_mut(),
                &raw mut list,
                ptr::null_mut(),
                &raw mut descriptor,
            )
        };
        checked(code).map(|()| AccessList { descriptor, list })
    }

    /// Gives it to `file`, which is open for that (`WRITE_DAC`).
    pub(super) fn give_to(&self, file: &File) -> io::Result<()> {
        let inherits = match self.is_protected() {
            true => security::PROTECTED_DACL_SECURITY_INFORMATION,
            false => security::UNPROTECTED_DACL_SECURITY_INFORMATION,
        };
        // SAFETY: the handle is open, and the list lives as long as its descriptor, which is
        // `self`'s.
        let code = unsafe {
            authorization::SetSecurityInfo(
                file.as_raw_handle(),
                authorization::SE_FILE_OBJECT,
                security::DACL_SECURITY_INFORMATION | inherits,
                ptr::null_mut(),
                ptr::null_mut(),
                self.list,
                ptr::null(),
            )
        };
        checked(code)
    }

    /// Whether both grant the same, entry by entry.
    pub(super) fn is_same(&self, other: &AccessList) -> bool {
        self.bytes() == other.bytes() && self.is_protected() == other.is_protected()
    }

    /// Whether nothing is inherited from the directory.
    fn is_protected(&self) -> bool {
        let (mut control, mut revision) = (0, 0);
        // SAFETY: the descriptor is one that the system made, and lives as long as `self`.
        let done = unsafe {
            security::GetSecurityDescriptorControl(
                self.descriptor,
                &raw mut control,
                &raw mut revision,
            )
        };
        done != 0 && control & security::SE_DACL_PROTECTED != 0
    }

    /// `None` for a file without a list, which all may use.
    fn bytes(&self) -> Option<&[u8]> {
        // SAFETY: the system made the list, whose header tells how many bytes it has.
        unsafe {
            let header = self.list.as_ref()?;
            let len = usize::from(header.AclSize);
            Some(std::slice::from_raw_parts(self.list.cast(), len))
        }
    }
}

impl Drop for AccessList {
    fn drop(&mut self) {
        // SAFETY: the system allocated it so that this frees it, once.
        unsafe { LocalFree(self.descriptor) };
    }
}

fn checked(code: u32) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.cast_signed())),
    }
}

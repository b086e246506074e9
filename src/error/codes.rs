//! The system's numbers of errors that its kinds do not tell apart.

#[cfg(unix)]
mod system {
    use rustix::io::Errno;

    pub(crate) const NO_FILE_NAME: &[i32] = &[
        Errno::INVAL.raw_os_error(),
        Errno::NAMETOOLONG.raw_os_error(),
        Errno::ILSEQ.raw_os_error(),
    ];
    pub(crate) const OUT_OF_FILES: &[i32] =
        &[Errno::MFILE.raw_os_error(), Errno::NFILE.raw_os_error()];
    /// Busy files have a kind of their own.
    pub(crate) const IN_USE: &[i32] = &[];
    pub(crate) const FAILED: i32 = Errno::IO.raw_os_error();
    pub(crate) const NO_SPACE: i32 = Errno::NOSPC.raw_os_error();
    pub(crate) const QUOTA: i32 = Errno::DQUOT.raw_os_error();
    pub(crate) const TOO_LONG: i32 = Errno::FBIG.raw_os_error();
    pub(crate) const READ_ONLY: i32 = Errno::ROFS.raw_os_error();
    pub(crate) const NOT_ALLOWED: i32 = Errno::PERM.raw_os_error();
    pub(crate) const NOT_OPEN_FOR_THAT: i32 = Errno::BADF.raw_os_error();
}

#[cfg(windows)]
mod system {
    use windows_sys::Win32::Foundation as codes;

    pub(crate) const NO_FILE_NAME: &[i32] = &[
        codes::ERROR_INVALID_NAME.cast_signed(),
        codes::ERROR_FILENAME_EXCED_RANGE.cast_signed(),
        codes::ERROR_BAD_PATHNAME.cast_signed(),
    ];
    pub(crate) const OUT_OF_FILES: &[i32] = &[codes::ERROR_TOO_MANY_OPEN_FILES.cast_signed()];
    pub(crate) const IN_USE: &[i32] = &[
        codes::ERROR_SHARING_VIOLATION.cast_signed(),
        codes::ERROR_LOCK_VIOLATION.cast_signed(),
        codes::ERROR_USER_MAPPED_FILE.cast_signed(),
    ];
    pub(crate) const FAILED: i32 = codes::ERROR_IO_DEVICE.cast_signed();
    pub(crate) const NO_SPACE: i32 = codes::ERROR_DISK_FULL.cast_signed();
    pub(crate) const QUOTA: i32 = codes::ERROR_DISK_QUOTA_EXCEEDED.cast_signed();
    pub(crate) const TOO_LONG: i32 = codes::ERROR_FILE_TOO_LARGE.cast_signed();
    pub(crate) const READ_ONLY: i32 = codes::ERROR_WRITE_PROTECT.cast_signed();
    pub(crate) const NOT_ALLOWED: i32 = codes::ERROR_ACCESS_DENIED.cast_signed();
    pub(crate) const NOT_OPEN_FOR_THAT: i32 = codes::ERROR_INVALID_HANDLE.cast_signed();
}

pub(crate) use system::*;

/// The error of the system with that number.
pub(crate) fn system_error(code: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(code)
}

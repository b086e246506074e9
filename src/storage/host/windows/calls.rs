//! Calls of the system that the standard library has no safe form of. All that is unsafe on Windows
//! is here and in `security.rs`.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::ops::Range;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsRawHandle, FromRawHandle};
use std::path::Path;
use std::ptr;

use windows_sys::Win32::Foundation::{ERROR_MORE_DATA, HANDLE, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Storage::FileSystem as fs;
use windows_sys::Win32::System::IO::DeviceIoControl;
use windows_sys::Win32::System::Ioctl as control;

/// What the system shows of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) volume: u64,
    pub(super) id: [u8; 16],
    pub(super) attributes: u32,
    pub(super) is_directory: bool,
    pub(super) links: u32,
    pub(super) len: u64,
    pub(super) allocated: u64,
    /// In units of 100 nanoseconds since 1601, as all times here.
    pub(super) written: i64,
    pub(super) changed: i64,
}

/// What the system shows of `file`.
pub(super) fn facts(file: &File) -> io::Result<Facts> {
    let basic: fs::FILE_BASIC_INFO = information(file, fs::FileBasicInfo)?;
    let standard: fs::FILE_STANDARD_INFO = information(file, fs::FileStandardInfo)?;
    let id: fs::FILE_ID_INFO = information(file, fs::FileIdInfo)?;
    Ok(Facts {
        volume: id.VolumeSerialNumber,
        id: id.FileId.Identifier,
        attributes: basic.FileAttributes,
        is_directory: standard.Directory,
        links: standard.NumberOfLinks,
        len: standard.EndOfFile.cast_unsigned(),
        allocated: standard.AllocationSize.cast_unsigned(),
        written: basic.LastWriteTime,
        changed: basic.ChangeTime,
    })
}

/// Has the file system give space to `file` up to byte `len`, which is at least its length.
pub(super) fn allocate(file: &File, len: u64) -> io::Result<()> {
    let info = fs::FILE_ALLOCATION_INFO {
        AllocationSize: len.cast_signed(),
    };
    // SAFETY: the handle is open for the call, and the pointer is to a structure of this class and
    // of that size.
    let done = unsafe {
        fs::SetFileInformationByHandle(
            handle(file),
            fs::FileAllocationInfo,
            (&raw const info).cast(),
            size_of::<fs::FILE_ALLOCATION_INFO>() as u32,
        )
    };
    checked(done)
}

/// Opens the file behind `file` once more, for reads that come from the medium.
pub(super) fn reopen_unbuffered(file: &File) -> io::Result<File> {
    let share = fs::FILE_SHARE_READ | fs::FILE_SHARE_WRITE | fs::FILE_SHARE_DELETE;
    // SAFETY: the handle is open for the call.
    let again = unsafe {
        fs::ReOpenFile(
            handle(file),
            fs::FILE_GENERIC_READ,
            share,
            fs::FILE_FLAG_NO_BUFFERING,
        )
    };
    if again == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the system has just given this handle to this function, which gives it on.
    Ok(unsafe { File::from_raw_handle(again) })
}

/// Lets `file` have holes.
pub(super) fn set_sparse(file: &File) -> io::Result<()> {
    control_file(file, control::FSCTL_SET_SPARSE, &[(); 0], &mut [(); 0]).map(drop)
}

/// Makes `range` read as zeros: a hole where the file may have some.
pub(super) fn zero_data(file: &File, range: &Range<u64>) -> io::Result<()> {
    let zero = control::FILE_ZERO_DATA_INFORMATION {
        FileOffset: range.start.cast_signed(),
        BeyondFinalZero: range.end.cast_signed(),
    };
    control_file(file, control::FSCTL_SET_ZERO_DATA, &[zero], &mut [(); 0]).map(drop)
}

/// The ranges in `range` that have space, the first of them; and whether there are more.
pub(super) fn allocated_ranges(
    file: &File,
    range: &Range<u64>,
) -> io::Result<(Vec<Range<u64>>, bool)> {
    let asked = control::FILE_ALLOCATED_RANGE_BUFFER {
        FileOffset: range.start.cast_signed(),
        Length: (range.end - range.start).cast_signed(),
    };
    let mut found = [control::FILE_ALLOCATED_RANGE_BUFFER::default(); 64];
    let (bytes, more) = control_file(
        file,
        control::FSCTL_QUERY_ALLOCATED_RANGES,
        &[asked],
        &mut found,
    )?;
    let count = bytes / size_of::<control::FILE_ALLOCATED_RANGE_BUFFER>();
    let ranges = found.iter().take(count).map(|it| {
        let start = it.FileOffset.cast_unsigned();
        start..start.saturating_add(it.Length.cast_unsigned())
    });
    Ok((ranges.collect(), more))
}

/// Gives `from` the name `to`, which is on the same volume; what has that name is replaced only
/// where it is to be. The system returns when the change is on the medium.
pub(super) fn move_file(from: &Path, to: &Path, replaces: bool) -> io::Result<()> {
    let (from, to) = (wide(from)?, wide(to)?);
    let flags = fs::MOVEFILE_WRITE_THROUGH
        | match replaces {
            true => fs::MOVEFILE_REPLACE_EXISTING,
            false => 0,
        };
    // SAFETY: both are texts that end with a NUL and live through the call.
    checked(unsafe { fs::MoveFileExW(from.as_ptr(), to.as_ptr(), flags) })
}

/// How many bytes this user can still write in `directory`.
pub(super) fn free_bytes(directory: &Path) -> io::Result<u64> {
    let (directory, mut free) = (wide(directory)?, 0);
    // SAFETY: a text that ends with a NUL, and a place for the number; the rest is not asked for.
    let done = unsafe {
        fs::GetDiskFreeSpaceExW(
            directory.as_ptr(),
            &raw mut free,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    checked(done).map(|()| free)
}

fn information<T: Default>(file: &File, class: fs::FILE_INFO_BY_HANDLE_CLASS) -> io::Result<T> {
    let mut info = T::default();
    // SAFETY: the callers ask for the class whose structure `T` is, all of whose bytes may have any
    // value; the size is that of the structure.
    let done = unsafe {
        fs::GetFileInformationByHandleEx(
            handle(file),
            class,
            (&raw mut info).cast(),
            size_of::<T>() as u32,
        )
    };
    checked(done).map(|()| info)
}

/// Sends a control code; how many bytes the answer has, and whether it would have more.
fn control_file<I, O>(
    file: &File,
    code: u32,
    input: &[I],
    output: &mut [O],
) -> io::Result<(usize, bool)> {
    let mut len = 0;
    let pointer = |is_empty: bool, at: *mut c_void| match is_empty {
        true => ptr::null_mut(),
        false => at,
    };
    let (in_bytes, out_bytes) = (size_of_val(input), size_of_val(output));
    // SAFETY: the lengths are those of the slices, which hold what the codes above take and give;
    // the handle was not opened for overlapped use, so that the call ends before the slices do.
    let done = unsafe {
        DeviceIoControl(
            handle(file),
            code,
            pointer(in_bytes == 0, input.as_ptr().cast_mut().cast()),
            in_bytes as u32,
            pointer(out_bytes == 0, output.as_mut_ptr().cast()),
            out_bytes as u32,
            &raw mut len,
            ptr::null_mut(),
        )
    };
    match checked(done) {
        Err(cause) if cause.raw_os_error() == Some(ERROR_MORE_DATA.cast_signed()) => {
            Ok((len as usize, true))
        }
        outcome => outcome.map(|()| (len as usize, false)),
    }
}

fn handle(file: &File) -> HANDLE {
    file.as_raw_handle()
}

fn wide(path: &Path) -> io::Result<Vec<u16>> {
    let mut wide: Vec<u16> = path.as_os_str().encode_wide().collect();
    if wide.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    wide.push(0);
    Ok(wide)
}

fn checked(done: i32) -> io::Result<()> {
    match done {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

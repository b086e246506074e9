//! Reads that bypass the cache (`FILE_FLAG_NO_BUFFERING`), with the alignment that they need.

use std::fs::File;
use std::io;
use std::os::windows::fs::FileExt;

use crate::storage::aligned::AlignedBuf;

/// Reads some bytes of `file`, which is open for such reads; 0 at the end of the file.
///
/// # Errors
/// Those of the system.
pub(super) fn read(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let skip = (offset % ALIGN as u64) as usize;
    let wanted = buf.len().min(BOUNCE_BYTES - skip);
    let mut bounce = AlignedBuf::new((skip + wanted).next_multiple_of(ALIGN));
    // Short only where the file ends.
    let count = file.seek_read(&mut bounce, offset - skip as u64)?;
    let count = count.saturating_sub(skip).min(wanted);
    buf[..count].copy_from_slice(&bounce[skip..skip + count]);
    Ok(count)
}

/// Enough for all disks that have sectors of 512 bytes or 4 KiB.
const ALIGN: usize = 4096;
const BOUNCE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::host::windows::calls::reopen_unbuffered;

    #[test]
    fn direct_reads_give_the_same_bytes_at_every_alignment() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        let bytes: Vec<u8> = (0..BOUNCE_BYTES + 777).map(|n| (n % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = reopen_unbuffered(&File::open(&path).unwrap()).unwrap();
        for offset in [0, 1, 511, 4096, 5000, bytes.len() - 1] {
            let mut buf = vec![0; bytes.len() + 9 - offset];
            let mut done = 0;
            loop {
                match read(&file, &mut buf[done..], (offset + done) as u64).unwrap() {
                    0 => break,
                    count => done += count,
                }
            }
            assert!(buf[..done] == bytes[offset..], "{offset}");
        }
    }
}

//! Decoders written for clarity alone, to hold the real ones against. They check nothing: what
//! they make of a file counts only where the real one took it.

pub mod vhd;
pub mod vhdx;

/// A disk as the plain reading of its format's specification has it.
pub trait Disk {
    /// Guest-visible length; `None` where the reference cannot say.
    fn disk_len(&self) -> Option<u64>;

    /// The 512 bytes of a sector; `None` where the reference cannot say.
    fn sector(&self, index: u64) -> Option<[u8; 512]>;

    /// `len` bytes from `offset` on.
    fn read(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        let end = offset + len as u64;
        let mut bytes = Vec::new();
        for index in offset / 512..end.div_ceil(512) {
            bytes.extend(self.sector(index)?);
        }
        let skip = (offset % 512) as usize;
        Some(bytes[skip..skip + len].to_vec())
    }
}

//! VHD, sector by sector.

use super::super::store::Bytes;
use super::Disk;

pub struct Vhd {
    file: Bytes,
    footer: [u8; 512],
    parent: Option<Box<Vhd>>,
}

impl Vhd {
    /// The disk in `file`; the parents of differencing files are looked for among `others`.
    pub fn open(file: &Bytes, others: &[Bytes], depth: usize) -> Option<Self> {
        let footer = find_footer(file)?;
        let mut disk = Vhd {
            file: file.clone(),
            footer,
            parent: None,
        };
        if disk.kind() == 4 {
            let parent_id: [u8; 16] = file.array(disk.header() + 40);
            let is_parent = |it: &&Bytes| find_footer(it).is_some_and(|it| it[68..84] == parent_id);
            let parent = others.iter().find(is_parent)?;
            let parent = Vhd::open(parent, others, depth.checked_sub(1)?)?;
            disk.parent = Some(Box::new(parent));
        }
        Some(disk)
    }

    fn kind(&self) -> u32 {
        be32(&self.footer[60..])
    }

    fn header(&self) -> u64 {
        be64(&self.footer[16..])
    }

    fn in_block(&self, block: u64, sector: u64) -> Option<Option<[u8; 512]>> {
        let table: u64 = be64(&self.file.array::<8>(self.header() + 16));
        let entry = be32(&self.file.array::<4>(table + block * 4));
        if entry == u32::MAX {
            return Some(None);
        }
        let bitmap = u64::from(entry) * 512;
        let byte = self.file.array::<1>(bitmap + sector / 8)[0];
        let is_set = byte & 0x80 >> (sector % 8) != 0;
        if self.kind() == 4 && !is_set {
            return Some(None);
        }
        let payload = bitmap + (self.sectors_a_block() / 8).div_ceil(512).max(1) * 512;
        Some(Some(self.file.array(payload + sector * 512)))
    }

    fn sectors_a_block(&self) -> u64 {
        u64::from(be32(&self.file.array::<4>(self.header() + 32))) / 512
    }
}

impl Disk for Vhd {
    fn disk_len(&self) -> Option<u64> {
        Some(be64(&self.footer[48..]))
    }

    fn sector(&self, index: u64) -> Option<[u8; 512]> {
        if self.kind() == 2 {
            return Some(self.file.array(index * 512));
        }
        let block = index / self.sectors_a_block();
        match (
            self.in_block(block, index % self.sectors_a_block())?,
            &self.parent,
        ) {
            (Some(bytes), _) => Some(bytes),
            (None, Some(parent)) => parent.sector(index),
            (None, None) => Some([0; 512]),
        }
    }
}

/// The footer at the end, or the short one there, or the copy at the head.
fn find_footer(file: &Bytes) -> Option<[u8; 512]> {
    let end = file.len();
    let mut short: [u8; 512] = file.array(end.saturating_sub(511));
    short[511] = 0;
    let candidates = [file.array(end.saturating_sub(512)), short, file.array(0)];
    candidates.into_iter().find(holds)
}

fn holds(footer: &[u8; 512]) -> bool {
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    let own: u32 = footer[64..68].iter().map(|byte| u32::from(*byte)).sum();
    footer[..8] == *b"conectix"
        && be32(&footer[64..]) == !(sum - own)
        && footer[12..14] == [0, 1]
        && matches!(be32(&footer[60..]), 2..=4)
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

fn be64(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}

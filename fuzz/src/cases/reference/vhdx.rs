//! VHDX, sector by sector, its log replayed as the specification tells it.

use super::super::store::Bytes;
use super::Disk;

pub struct Vhdx {
    file: Bytes,
    bat: u64,
    block_bytes: u64,
    sector_bytes: u64,
    disk_len: u64,
    parent: Option<Box<Vhdx>>,
}

impl Vhdx {
    /// The disk in `file`; the parents of differencing files are looked for among `others`.
    pub fn open(file: &Bytes, others: &[Bytes], depth: usize) -> Option<Self> {
        let header = current_header(file)?;
        let mut file = file.clone();
        replay(&mut file, &header)?;
        let table: Vec<u8> = [192 << 10, 256 << 10]
            .into_iter()
            .map(|at| file.vec(at, 64 << 10))
            .find(|table| table[..4] == *b"regi" && sum(table) == le32(&table[4..]))?;
        let region = |id: &[u8; 16]| {
            let mut entries = table[16..]
                .chunks_exact(32)
                .take(le32(&table[8..]) as usize);
            let found = entries.find(|entry| entry[..16] == *id)?;
            Some(le64(&found[16..]))
        };
        let metadata = region(&METADATA)?;
        let items = file.vec(metadata, 64 << 10);
        let count = usize::from(u16::from_le_bytes([items[10], items[11]]));
        let item = |id: &[u8; 16]| {
            let mut entries = items[32..].chunks_exact(32).take(count);
            // An item of that name that belongs to a user is another one.
            let own = |entry: &&[u8]| entry[..16] == *id && entry[24] & 1 == 0;
            let found = entries.find(own)?;
            let at = metadata + u64::from(le32(&found[16..]));
            Some(file.vec(at, (le32(&found[20..]) as usize).min(1 << 20)))
        };
        let parameters = item(&FILE_PARAMETERS)?;
        let parent = match le32(&parameters[4..]) & 2 {
            0 => None,
            _ => Some(Box::new(find_parent(&item(&LOCATOR)?, others, depth)?)),
        };
        let (sector, disk_len) = (item(&LOGICAL_SECTOR)?, item(&DISK_SIZE)?);
        Some(Vhdx {
            bat: region(&BAT)?,
            block_bytes: u64::from(le32(&parameters)),
            sector_bytes: u64::from(le32(&sector)),
            disk_len: le64(&disk_len),
            file,
            parent,
        })
    }

    fn entry(&self, index: u64) -> (u64, u64) {
        let entry = le64(&self.file.array::<8>(self.bat + index * 8));
        (entry & 7, entry >> 20 << 20)
    }
}

impl Disk for Vhdx {
    fn disk_len(&self) -> Option<u64> {
        Some(self.disk_len)
    }

    fn sector(&self, index: u64) -> Option<[u8; 512]> {
        let offset = index * 512;
        // Behind the end of a parent that is shorter than its child.
        if offset >= self.disk_len {
            return Some([0; 512]);
        }
        let chunk = (self.sector_bytes << 23) / self.block_bytes;
        let block = offset / self.block_bytes;
        let within = offset % self.block_bytes;
        let (state, at) = self.entry(block + block / chunk);
        let here = match state {
            0 => false,
            1..=3 => return Some([0; 512]),
            6 => true,
            _ => {
                let (_, bitmap) = self.entry((block / chunk + 1) * chunk + block / chunk);
                let bit = (block % chunk * self.block_bytes + within) / self.sector_bytes;
                self.file.array::<1>(bitmap + bit / 8)[0] >> (bit % 8) & 1 == 1
            }
        };
        match (here, &self.parent) {
            (true, _) => Some(self.file.array(at + within)),
            (false, Some(parent)) => parent.sector(index),
            (false, None) => Some([0; 512]),
        }
    }
}

/// The first file whose data write GUID is the one that the locator names.
fn find_parent(locator: &[u8], others: &[Bytes], depth: usize) -> Option<Vhdx> {
    let count = usize::from(u16::from_le_bytes([locator[18], locator[19]]));
    let mut linkages = Vec::new();
    for pair in locator[20..].chunks_exact(12).take(count) {
        let text = |at: usize, len: usize| {
            let at = le32(&pair[at..]) as usize;
            let len = usize::from(u16::from_le_bytes([pair[len], pair[len + 1]]));
            let units = locator[at..at + len].chunks_exact(2);
            let units = units.map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
            String::from_utf16_lossy(&units.take_while(|it| *it != 0).collect::<Vec<_>>())
        };
        if text(0, 8) == "parent_linkage" || text(0, 8) == "parent_linkage2" {
            let digits: String = text(4, 10)
                .chars()
                .filter(char::is_ascii_hexdigit)
                .collect();
            linkages.push(u128::from_str_radix(&digits, 16).ok()?);
        }
    }
    let is_parent = |file: &&Bytes| {
        current_header(file).is_some_and(|it| linkages.contains(&guid_digits(&it[32..48])))
    };
    Vhdx::open(
        others.iter().find(is_parent)?,
        others,
        depth.checked_sub(1)?,
    )
}

/// The valid header with the greater sequence number.
fn current_header(file: &Bytes) -> Option<Vec<u8>> {
    [64 << 10, 128 << 10]
        .into_iter()
        .map(|at| file.vec(at, 4096))
        .filter(|header| header[..4] == *b"head" && sum(header) == le32(&header[4..]))
        .max_by_key(|header| le64(&header[8..]))
}

/// An entry of the log that is whole.
struct Entry {
    slot: u64,
    bytes: Vec<u8>,
}

impl Entry {
    fn sequence(&self) -> u64 {
        le64(&self.bytes[16..])
    }

    fn descriptors(&self) -> impl Iterator<Item = &[u8]> {
        let count = le32(&self.bytes[24..]) as usize;
        self.bytes[64..].chunks_exact(32).take(count)
    }
}

/// Replays the log that `header` names; `None` where nothing or no one thing can be replayed.
fn replay(file: &mut Bytes, header: &[u8]) -> Option<()> {
    let id = &header[48..64];
    if id == [0; 16] {
        return Some(());
    }
    let (at, len) = (le64(&header[72..]), u64::from(le32(&header[68..])));
    let log = file.vec(
        at,
        usize::try_from(len).ok().filter(|len| *len <= 16 << 20)?,
    );
    let slots = len / 4096;
    let entries: Vec<Entry> = (0..slots)
        .filter_map(|slot| whole_entry(&log, slot, id))
        .collect();
    let mut by_slot = vec![None; slots as usize];
    for entry in &entries {
        by_slot[entry.slot as usize] = Some(entry);
    }
    let starts_at = |slot: u64| by_slot[(slot % slots) as usize];
    // Every run of entries, from each that could begin one; its last entry says from where on.
    let mut best: Option<Vec<&Entry>> = None;
    for first in &entries {
        let mut run = vec![first];
        while let Some(last) = run.last()
            && let Some(next) = starts_at(last.slot + last.bytes.len() as u64 / 4096)
            && last.sequence().checked_add(1) == Some(next.sequence())
        {
            run.push(next);
        }
        let head = run[run.len() - 1];
        if u64::from(le32(&head.bytes[12..])) != first.slot * 4096 {
            continue;
        }
        let other = best.as_ref().map(|it| it[it.len() - 1]);
        match other {
            Some(other) if other.sequence() > head.sequence() => {}
            // Two runs of one number: the specification does not say which counts.
            Some(other) if other.sequence() == head.sequence() => return None,
            _ => best = Some(run),
        }
    }
    for entry in best? {
        file.set_len(file.len().max(le64(&entry.bytes[56..])));
        let mut data = entry.bytes.len() - data_pages(entry) * 4096;
        for descriptor in entry.descriptors() {
            let to = le64(&descriptor[16..]);
            if descriptor[..4] == *b"zero" {
                file.clear(to..to.checked_add(le64(&descriptor[8..]))?);
                continue;
            }
            to.checked_add(4096)?;
            let mut page = entry.bytes[data..data + 4096].to_vec();
            page[..8].copy_from_slice(&descriptor[8..16]);
            page[4092..].copy_from_slice(&descriptor[4..8]);
            file.put(to, &page);
            data += 4096;
        }
    }
    Some(())
}

/// The entry that begins in `slot`, if all of it is right.
fn whole_entry(log: &[u8], slot: u64, id: &[u8]) -> Option<Entry> {
    let at = slot as usize * 4096;
    let len = le32(&log[at + 8..]) as usize;
    if log[at..at + 4] != *b"loge" || len == 0 || !len.is_multiple_of(4096) || len > log.len() {
        return None;
    }
    let bytes: Vec<u8> = [&log[at..], &log[..at]].concat()[..len].to_vec();
    let entry = Entry { slot, bytes };
    let count = le32(&entry.bytes[24..]) as usize;
    let tail = le32(&entry.bytes[12..]) as usize;
    let room = (64 + count.checked_mul(32)?).next_multiple_of(4096);
    let right = sum(&entry.bytes) == le32(&entry.bytes[4..])
        && entry.bytes[32..48] == *id
        && entry.sequence() > 0
        && tail.is_multiple_of(4096)
        && tail < log.len()
        && room + data_pages(&entry) * 4096 == len
        && entry.descriptors().count() == count
        && entry.descriptors().all(|it| {
            matches!(&it[..4], b"zero" | b"desc")
                && le64(&it[24..]) == entry.sequence()
                && le64(&it[16..]).is_multiple_of(4096)
                && (it[..4] == *b"desc" || le64(&it[8..]).is_multiple_of(4096))
        })
        && entry.bytes[room..].chunks_exact(4096).all(|page| {
            let sequence = u64::from(le32(&page[4..])) << 32 | u64::from(le32(&page[4092..]));
            page[..4] == *b"data" && sequence == entry.sequence()
        });
    right.then_some(entry)
}

fn data_pages(entry: &Entry) -> usize {
    entry.descriptors().filter(|it| it[..4] == *b"desc").count()
}

/// CRC-32C with the checksum's own field as zeros.
fn sum(structure: &[u8]) -> u32 {
    let mut bytes = structure.to_vec();
    bytes[4..8].fill(0);
    crc32c::crc32c(&bytes)
}

/// The digits of a GUID as they are read; its first three fields lie little-endian on disk.
fn guid_digits(b: &[u8]) -> u128 {
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    u128::from_be_bytes(order.map(|at| b[at]))
}

/// The bytes of a GUID on disk.
pub const fn on_disk(digits: u128) -> [u8; 16] {
    let b = digits.to_be_bytes();
    [
        b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13],
        b[14], b[15],
    ]
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

fn le64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

pub const BAT: [u8; 16] = on_disk(0x2DC27766_F623_4200_9D64_115E9BFD4A08);
pub const METADATA: [u8; 16] = on_disk(0x8B7CA206_4790_4B9A_B8FE_575F050F886E);
pub const FILE_PARAMETERS: [u8; 16] = on_disk(0xCAA16737_FA36_4D43_B3B6_33F0AA44E76B);
pub const DISK_SIZE: [u8; 16] = on_disk(0x2FA54224_CD1B_4876_B211_5DBED83BF4B8);
pub const DISK_ID: [u8; 16] = on_disk(0xBECA12AB_B2E6_4523_93EF_C309E000C746);
pub const LOGICAL_SECTOR: [u8; 16] = on_disk(0x8141BF1D_A96F_4709_BA47_F233A8FAAB5F);
pub const PHYSICAL_SECTOR: [u8; 16] = on_disk(0xCDA348C7_445D_4471_9CC9_E9885251C556);
pub const LOCATOR: [u8; 16] = on_disk(0xA8D35F2D_B30B_454D_ABF7_D3D84834AB0C);
pub const LOCATOR_TYPE: [u8; 16] = on_disk(0xB04AEFB7_D19E_4A81_B789_25B8E9445913);

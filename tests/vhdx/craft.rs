//! Files with one thing wrong: a good image, changed byte by byte, its checksums mended.

use std::sync::LazyLock;

use diskdelta::image::vhdx::{Guid, NewDisk};
use diskdelta::image::{Image, ImageMut};

use super::support::{MIB, new_image, open_mut_over, pattern};

pub const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
pub const REGION_TABLES: [usize; 2] = [192 << 10, 256 << 10];
pub const LOG: usize = 1 << 20;
pub const METADATA: usize = 2 << 20;
pub const BAT: usize = 3 << 20;

pub const BAT_ID: u128 = 0x2DC27766_F623_4200_9D64_115E9BFD4A08;
pub const FILE_PARAMETERS: u128 = 0xCAA16737_FA36_4D43_B3B6_33F0AA44E76B;
pub const DISK_SIZE: u128 = 0x2FA54224_CD1B_4876_B211_5DBED83BF4B8;
pub const LOGICAL_SECTOR: u128 = 0x8141BF1D_A96F_4709_BA47_F233A8FAAB5F;
pub const PHYSICAL_SECTOR: u128 = 0xCDA348C7_445D_4471_9CC9_E9885251C556;
pub const LOCATOR: u128 = 0xA8D35F2D_B30B_454D_ABF7_D3D84834AB0C;

/// A dynamic image of 8 MiB in blocks of 1 MiB, of which the first three hold data.
pub fn good() -> Vec<u8> {
    static GOOD: LazyLock<Vec<u8>> = LazyLock::new(make_good);
    GOOD.clone()
}

fn make_good() -> Vec<u8> {
    let storage = new_image(&NewDisk::dynamic(8 * MIB).with_block_bytes(MIB));
    let image = open_mut_over(storage.clone(), None).unwrap();
    image.write_all_at(&pattern(1, 3 << 20), 0).unwrap();
    image.sync().unwrap();
    assert_eq!(image.disk_len(), 8 * MIB);
    storage.to_vec()
}

/// Where the entry of a region lies in the first region table.
pub fn region_at(bytes: &[u8], id: u128) -> usize {
    find(bytes, REGION_TABLES[0] + 16, id)
}

/// Where the entry of a metadata item lies.
pub fn item_at(bytes: &[u8], id: u128) -> usize {
    find(bytes, METADATA + 32, id)
}

/// Where the bytes of a metadata item lie.
pub fn item_bytes_at(bytes: &[u8], id: u128) -> usize {
    let entry = item_at(bytes, id);
    METADATA + u32::from_le_bytes(bytes[entry + 16..entry + 20].try_into().unwrap()) as usize
}

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Changes both headers alike and mends their checksums.
pub fn change_headers(bytes: &mut [u8], change: impl Fn(&mut [u8])) {
    for at in HEADERS {
        change(&mut bytes[at..at + 4096]);
        seal(&mut bytes[at..at + 4096]);
    }
}

/// Changes the first region table, mends its checksum and copies it over the second.
pub fn change_regions(bytes: &mut [u8], change: impl Fn(&mut [u8])) {
    change(bytes);
    let [first, second] = REGION_TABLES;
    seal(&mut bytes[first..first + (64 << 10)]);
    bytes.copy_within(first..first + (64 << 10), second);
}

/// Sets an entry of the block table.
pub fn set_entry(bytes: &mut [u8], index: usize, entry: u64) {
    put(bytes, BAT + index * 8, &entry.to_le_bytes());
}

pub fn entry(bytes: &[u8], index: usize) -> u64 {
    let at = BAT + index * 8;
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub fn seal(structure: &mut [u8]) {
    structure[4..8].fill(0);
    let sum = crc32c::crc32c(structure);
    structure[4..8].copy_from_slice(&sum.to_le_bytes());
}

pub fn guid(digits: u128) -> [u8; 16] {
    Guid::from_digits(digits).to_disk()
}

fn find(bytes: &[u8], start: usize, id: u128) -> usize {
    (start..start + 32 * 64)
        .step_by(32)
        .find(|at| bytes[*at..*at + 16] == guid(id))
        .unwrap()
}

/// The log GUID of crafted logs.
pub const LOG_ID: u128 = 0x0123_4567_89AB_4DEF_8123_4567_89AB_CDEF;

/// One entry of a log, to be spoiled.
#[derive(Clone)]
pub struct LogEntry {
    pub sequence: u64,
    pub tail: u32,
    pub flushed: u64,
    pub last: u64,
    pub changes: Vec<LogChange>,
}

#[derive(Clone)]
pub enum LogChange {
    Zero { offset: u64, len: u64 },
    Page { offset: u64, bytes: Vec<u8> },
}

impl LogEntry {
    pub fn new(sequence: u64, tail: u32, changes: Vec<LogChange>) -> Self {
        LogEntry {
            sequence,
            tail,
            flushed: 4 * MIB,
            last: 4 * MIB,
            changes,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let count = self.changes.len();
        let mut head = vec![0; (64 + 32 * count).next_multiple_of(4096)];
        let mut data = Vec::new();
        for (index, change) in self.changes.iter().enumerate() {
            let at = 64 + 32 * index;
            put(&mut head, at + 24, &self.sequence.to_le_bytes());
            match change {
                LogChange::Zero { offset, len } => {
                    put(&mut head, at, b"zero");
                    put(&mut head, at + 8, &len.to_le_bytes());
                    put(&mut head, at + 16, &offset.to_le_bytes());
                }
                LogChange::Page { offset, bytes } => {
                    put(&mut head, at, b"desc");
                    put(&mut head, at + 4, &bytes[4092..]);
                    put(&mut head, at + 8, &bytes[..8]);
                    put(&mut head, at + 16, &offset.to_le_bytes());
                    let mut sector = bytes.clone();
                    put(&mut sector, 0, b"data");
                    put(
                        &mut sector,
                        4,
                        &((self.sequence >> 32) as u32).to_le_bytes(),
                    );
                    put(&mut sector, 4092, &(self.sequence as u32).to_le_bytes());
                    data.extend(sector);
                }
            }
        }
        put(&mut head, 0, b"loge");
        let len = (head.len() + data.len()) as u32;
        put(&mut head, 8, &len.to_le_bytes());
        put(&mut head, 12, &self.tail.to_le_bytes());
        put(&mut head, 16, &self.sequence.to_le_bytes());
        put(&mut head, 24, &(count as u32).to_le_bytes());
        put(&mut head, 32, &guid(LOG_ID));
        put(&mut head, 48, &self.flushed.to_le_bytes());
        put(&mut head, 56, &self.last.to_le_bytes());
        head.extend(data);
        seal(&mut head);
        head
    }
}

/// Puts `entry` into the log at `at`, around its end where it does not fit before it.
pub fn put_log(bytes: &mut [u8], at: usize, entry: &[u8]) {
    for (index, byte) in entry.iter().enumerate() {
        bytes[LOG + (at + index) % (1 << 20)] = *byte;
    }
}

/// Makes the headers say that the log counts.
pub fn mark_dirty(bytes: &mut [u8]) {
    change_headers(bytes, |header| put(header, 48, &guid(LOG_ID)));
}

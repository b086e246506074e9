//! VHDX files.

use super::super::input::Input;
use super::super::reference::vhdx::{
    BAT, DISK_ID, DISK_SIZE, FILE_PARAMETERS, LOCATOR, LOCATOR_TYPE, LOGICAL_SECTOR, METADATA,
    PHYSICAL_SECTOR, on_disk,
};
use super::super::store::Bytes;
use super::{Field, fill_block};

pub const MIB: u64 = 1 << 20;
pub const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
pub const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
pub const LOG_AT: u64 = MIB;
pub const METADATA_AT: u64 = 2 * MIB;
pub const BAT_AT: u64 = 3 * MIB;

/// A VHDX, and what its parts are.
#[derive(Clone)]
pub struct Vhdx {
    pub file: Bytes,
    /// Its data write GUID.
    pub id: u128,
    pub block_bytes: u64,
    pub sector_bytes: u64,
    /// Entries of the block table.
    pub entries: u64,
    /// Where blocks and bitmaps lie.
    pub places: Vec<u64>,
    item_count: u64,
    items: Vec<Field>,
}

impl Vhdx {
    /// A valid file as `input` says: number `image` of a chain, over a parent of that id. A chain
    /// has one sector size.
    pub fn build(
        input: &mut Input<'_>,
        image: u8,
        (disk_len, sector_bytes): (u64, u64),
        parent: Option<u128>,
    ) -> Vhdx {
        let block_bytes = input.pick(&[MIB, MIB, 2 * MIB, 32 * MIB, 256 * MIB]);
        let blocks = disk_len.div_ceil(block_bytes);
        let chunk = (sector_bytes << 23) / block_bytes;
        let entries = match parent {
            Some(_) => blocks.div_ceil(chunk) * (chunk + 1),
            None => blocks + (blocks - 1) / chunk,
        };
        let mut vhdx = Vhdx {
            file: Bytes::new(b"vhdxfile"),
            id: u128::from(image) + 0x1000,
            block_bytes,
            sector_bytes,
            entries,
            places: Vec::new(),
            item_count: 0,
            items: Vec::new(),
        };
        let flags = u32::from(parent.is_some()) << 1;
        vhdx.headers();
        vhdx.regions();
        vhdx.metadata(disk_len, flags, parent);
        let mut at = BAT_AT + MIB;
        for block in 0..blocks {
            let state = input.u8();
            let index = block + block / chunk;
            let sectors = (disk_len - block * block_bytes).min(block_bytes) / 512;
            let first = block * block_bytes / 512;
            match state % 8 {
                state @ (0..=3) => vhdx.set_entry(index, u64::from(state)),
                7 if parent.is_some() => {
                    let bitmap_index = (block / chunk + 1) * chunk + block / chunk;
                    let mut bitmap = vhdx.entry(bitmap_index) & !0xF_FFFF;
                    if bitmap == 0 {
                        bitmap = at;
                        vhdx.set_entry(bitmap_index, bitmap | 6);
                        vhdx.places.push(bitmap);
                        at += MIB;
                    }
                    let bit = block % chunk * (block_bytes / sector_bytes);
                    let bits = vec![state | 1; (block_bytes / sector_bytes / 8).min(4096) as usize];
                    vhdx.file.put(bitmap + bit / 8, &bits);
                    vhdx.set_entry(index, at | 7);
                    fill_block(&mut vhdx.file, at, sectors, image, first, |_| true);
                    vhdx.places.push(at);
                    at += block_bytes;
                }
                _ => {
                    at += u64::from(state >> 7) * MIB;
                    vhdx.set_entry(index, at | 6);
                    fill_block(&mut vhdx.file, at, sectors, image, first, |_| true);
                    vhdx.places.push(at);
                    at += block_bytes;
                }
            }
        }
        vhdx.file.set_len(at);
        vhdx
    }

    pub fn entry(&self, index: u64) -> u64 {
        u64::from_le_bytes(self.file.array(BAT_AT + index * 8))
    }

    pub fn set_entry(&mut self, index: u64, entry: u64) {
        self.file.put(BAT_AT + index * 8, &entry.to_le_bytes());
    }

    /// Makes the headers say that entries with this GUID count.
    pub fn set_log(&mut self, id: u128) {
        for at in HEADERS {
            self.file.put(at + 48, &on_disk(id));
            self.seal(at, 4096);
        }
    }

    fn headers(&mut self) {
        for (sequence, at) in (1u64..).zip(HEADERS) {
            self.file.put(at, b"head");
            self.file.put(at + 8, &sequence.to_le_bytes());
            self.file.put(at + 16, &on_disk(77));
            self.file.put(at + 32, &on_disk(self.id));
            self.file.put(at + 66, &1u16.to_le_bytes());
            self.file.put(at + 68, &(MIB as u32).to_le_bytes());
            self.file.put(at + 72, &LOG_AT.to_le_bytes());
            self.seal(at, 4096);
        }
    }

    fn regions(&mut self) {
        for at in REGIONS {
            self.file.put(at, b"regi");
            self.file.put(at + 8, &2u32.to_le_bytes());
            for (index, (id, place)) in [(BAT, BAT_AT), (METADATA, METADATA_AT)].iter().enumerate()
            {
                let entry = at + 16 + 32 * index as u64;
                self.file.put(entry, id);
                self.file.put(entry + 16, &place.to_le_bytes());
                self.file.put(entry + 24, &(MIB as u32).to_le_bytes());
                self.file.put(entry + 28, &1u32.to_le_bytes());
            }
            self.seal(at, 64 << 10);
        }
    }

    fn metadata(&mut self, disk_len: u64, flags: u32, parent: Option<u128>) {
        let block = (self.block_bytes as u32).to_le_bytes();
        let sector = (self.sector_bytes as u32).to_le_bytes().to_vec();
        let mut items = vec![
            (FILE_PARAMETERS, [block, flags.to_le_bytes()].concat()),
            (DISK_SIZE, disk_len.to_le_bytes().to_vec()),
            (DISK_ID, on_disk(5).to_vec()),
            (LOGICAL_SECTOR, sector),
            (PHYSICAL_SECTOR, 4096u32.to_le_bytes().to_vec()),
        ];
        if let Some(parent) = parent {
            items.push((LOCATOR, locator(parent)));
        }
        self.item_count = items.len() as u64;
        self.file.put(METADATA_AT, b"metadata");
        let count = (items.len() as u16).to_le_bytes();
        self.file.put(METADATA_AT + 10, &count);
        let mut at = 64 << 10;
        for (index, (id, bytes)) in (0u64..).zip(items) {
            let entry = METADATA_AT + 32 + 32 * index;
            self.file.put(entry, &id);
            self.file.put(entry + 16, &(at as u32).to_le_bytes());
            self.file
                .put(entry + 20, &(bytes.len() as u32).to_le_bytes());
            self.file.put(entry + 24, &4u32.to_le_bytes());
            self.file.put(METADATA_AT + at, &bytes);
            let width = bytes.len().min(8);
            self.items.push(Field::new(METADATA_AT + at, width));
            at += bytes.len() as u64;
        }
    }

    /// Changes fields as `input` says; returns how many.
    pub fn mutate(&mut self, input: &mut Input<'_>) -> u64 {
        let count = input.below(6);
        for _ in 0..count {
            match input.u8() % 10 {
                0..=1 => {
                    let field = input.pick(&HEADER_FIELDS);
                    self.change_both(HEADERS, field, input);
                }
                2 => {
                    let mut field = input.pick(&REGION_FIELDS);
                    field.at += 32 * input.below(3);
                    self.change_both(REGIONS, field, input);
                }
                3 => {
                    let mut field = input.pick(&ITEM_FIELDS);
                    field.at += METADATA_AT + 32 * input.below(self.item_count + 1);
                    self.change(field, input);
                }
                4..=5 => self.change(input.pick(&self.items), input),
                6..=7 => self.change_entry(input),
                8 => {
                    // Strings of the locator, bits of bitmaps, and whatever else lies about.
                    let bases = [METADATA_AT, METADATA_AT + (64 << 10), BAT_AT, 0];
                    let base = match self.places.is_empty() || input.one_in(2) {
                        true => input.pick(&bases),
                        false => input.pick(&self.places),
                    };
                    let at = base + input.below(400);
                    self.file.put(at, &[input.u8()]);
                }
                _ => {
                    let anchors = [BAT_AT, BAT_AT + MIB, LOG_AT, 320 << 10];
                    let len = input.nasty(self.file.len(), &anchors).min(1 << 44);
                    self.file.set_len(len);
                }
            }
        }
        let spoiled = input.u8();
        let sealed = [(HEADERS[0], 4096), (HEADERS[1], 4096)];
        let sealed = sealed.into_iter().chain(REGIONS.map(|at| (at, 64 << 10)));
        for (bit, (at, len)) in sealed.enumerate() {
            if spoiled >> bit & 1 == 0 && at + len as u64 <= self.file.len() {
                self.seal(at, len);
            }
        }
        count + u64::from(spoiled & 15)
    }

    fn change_entry(&mut self, input: &mut Input<'_>) {
        let index = input.below(self.entries.max(1));
        let now = self.entry(index);
        let entry = match input.u8() % 4 {
            0 => now & !7 | u64::from(input.u8() & 7),
            1 if !self.places.is_empty() => input.pick(&self.places) | now & 7,
            2 => input.below(1 << 12) << 20 | u64::from(input.u8() & 7),
            _ => input.nasty(now, &[self.file.len(), self.file.len() | 6, BAT_AT | 6]),
        };
        self.set_entry(index, entry);
    }

    fn change_both(&mut self, copies: [u64; 2], field: Field, input: &mut Input<'_>) {
        let at = |base: u64| Field::new(base + field.at, field.width);
        let which = input.u8() % 4;
        let mut again = input.clone();
        if which != 1 {
            self.change(at(copies[0]), &mut again);
        }
        if which != 0 {
            self.change(at(copies[1]), input);
        }
    }

    fn change(&mut self, field: Field, input: &mut Input<'_>) {
        let mut bytes = [0; 8];
        self.file.read(&mut bytes[..field.width], field.at);
        let anchors = [
            MIB,
            2 * MIB,
            3 * MIB,
            4 * MIB,
            self.file.len(),
            64 << 10,
            512,
            4096,
            64 << 40,
            self.block_bytes,
        ];
        let value = input.nasty(u64::from_le_bytes(bytes), &anchors);
        self.file.put(field.at, &value.to_le_bytes()[..field.width]);
    }

    pub fn seal(&mut self, at: u64, len: usize) {
        let mut structure = self.file.vec(at, len);
        seal(&mut structure);
        self.file.put(at + 4, &structure[4..8]);
    }
}

/// Puts the CRC-32C of a structure into its bytes 4 to 8, which count as zeros.
pub fn seal(structure: &mut [u8]) {
    structure[4..8].fill(0);
    let sum = crc32c::crc32c(structure);
    structure[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// A parent locator with the two pairs that every one has.
fn locator(parent: u128) -> Vec<u8> {
    let hex = format!("{parent:032x}");
    let groups = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    let linkage = format!("{{{}}}", groups.join("-"));
    let strings = ["parent_linkage", &linkage, "relative_path", ".\\p.vhdx"];
    let mut item = LOCATOR_TYPE.to_vec();
    item.extend([0, 0, 2, 0]);
    let mut text = Vec::new();
    for pair in strings.chunks(2) {
        let encoded = [0, 1].map(|it| pair[it].encode_utf16().flat_map(u16::to_le_bytes));
        let [key, value] = encoded.map(Iterator::collect::<Vec<u8>>);
        let key_at = (44 + text.len()) as u32;
        let value_at = key_at + key.len() as u32;
        item.extend(key_at.to_le_bytes());
        item.extend(value_at.to_le_bytes());
        item.extend((key.len() as u16).to_le_bytes());
        item.extend((value.len() as u16).to_le_bytes());
        text.extend(key);
        text.extend(value);
    }
    item.extend(text);
    item
}

/// Signature, sequence, GUIDs, versions, place of the log.
const HEADER_FIELDS: [Field; 9] = [
    Field::new(0, 1),
    Field::new(8, 8),
    Field::new(16, 8),
    Field::new(32, 8),
    Field::new(48, 1),
    Field::new(64, 2),
    Field::new(66, 2),
    Field::new(68, 4),
    Field::new(72, 8),
];

/// Count of entries; id, place, length and flag of the first.
const REGION_FIELDS: [Field; 5] = [
    Field::new(8, 4),
    Field::new(16, 1),
    Field::new(32, 8),
    Field::new(40, 4),
    Field::new(44, 4),
];

/// Count of items; id, place, length and flags of the first.
const ITEM_FIELDS: [Field; 5] = [
    Field::new(10, 2),
    Field::new(32, 1),
    Field::new(48, 4),
    Field::new(52, 4),
    Field::new(56, 4),
];

//! VHD files.

use super::super::input::Input;
use super::super::store::Bytes;
use super::{Field, fill_block};

/// A VHD, and where its structures lie.
#[derive(Clone)]
pub struct Vhd {
    pub file: Bytes,
    pub blocks: u64,
    pub id: [u8; 16],
    is_fixed: bool,
    tail: u64,
    bitmaps: Vec<u64>,
}

const HEADER: u64 = 512;
const TABLE: u64 = 1536;

impl Vhd {
    /// A valid file as `input` says: number `image` of a chain, over a parent of that id.
    pub fn build(input: &mut Input<'_>, image: u8, disk_len: u64, parent: Option<[u8; 16]>) -> Vhd {
        let is_fixed = parent.is_none() && input.one_in(4);
        let block = input.pick(&[4096u64, 4096, 512, 1024, 65536, 2 << 20]);
        let mut vhd = Vhd {
            file: Bytes::default(),
            blocks: disk_len.div_ceil(block),
            id: [image + 1; 16],
            is_fixed,
            tail: disk_len,
            bitmaps: Vec::new(),
        };
        if is_fixed {
            fill_block(&mut vhd.file, 0, disk_len / 512, image, 0, |_| true);
            vhd.file.set_len(disk_len);
            vhd.file.put(disk_len, &vhd.footer(2, disk_len));
            return vhd;
        }
        let kind = if parent.is_some() { 4 } else { 3 };
        let table = (vhd.blocks * 4).next_multiple_of(512).max(512);
        vhd.file.put(TABLE, &vec![0xFF; table as usize]);
        let mut at = TABLE + table;
        let mut header = vhd.header(block);
        if let Some(parent) = parent {
            header[40..56].copy_from_slice(&parent);
            let path: Vec<u8> = "p.vhd".encode_utf16().flat_map(u16::to_le_bytes).collect();
            header[576..580].copy_from_slice(b"W2ru");
            header[580..584].copy_from_slice(&512u32.to_be_bytes());
            header[584..588].copy_from_slice(&(path.len() as u32).to_be_bytes());
            header[592..600].copy_from_slice(&at.to_be_bytes());
            vhd.file.put(at, &path);
            at += 512;
        }
        seal(&mut header, 36);
        vhd.file.put(HEADER, &header);
        let sectors = block / 512;
        let bitmap_len = (sectors / 8).div_ceil(512).max(1) * 512;
        for index in 0..vhd.blocks {
            let state = input.u8();
            if state.is_multiple_of(3) {
                continue;
            }
            at += u64::from(state >> 6) * 512;
            vhd.file
                .put(TABLE + index * 4, &((at / 512) as u32).to_be_bytes());
            let pattern = if state % 3 == 1 { 0xFF } else { state | 1 };
            let bitmap = vec![pattern; bitmap_len as usize];
            vhd.file.put(at, &bitmap);
            vhd.bitmaps.push(at);
            let has = |sector: u64| pattern & 0x80 >> (sector % 8) != 0;
            let payload = at + bitmap_len;
            fill_block(&mut vhd.file, payload, sectors, image, index * sectors, has);
            at = payload + block;
        }
        let footer = vhd.footer(kind, disk_len);
        vhd.file.put(0, &footer);
        vhd.file.put(at, &footer);
        vhd.tail = at;
        vhd
    }

    fn footer(&self, kind: u32, disk_len: u64) -> [u8; 512] {
        let mut footer = [0; 512];
        let data_offset = if kind == 2 { u64::MAX } else { HEADER };
        footer[..8].copy_from_slice(b"conectix");
        footer[8..12].copy_from_slice(&2u32.to_be_bytes());
        footer[12..16].copy_from_slice(&0x0001_0000u32.to_be_bytes());
        footer[16..24].copy_from_slice(&data_offset.to_be_bytes());
        footer[28..32].copy_from_slice(b"fuzz");
        footer[32..36].copy_from_slice(&0x0001_0000u32.to_be_bytes());
        footer[36..40].copy_from_slice(b"Wi2k");
        footer[40..48].copy_from_slice(&disk_len.to_be_bytes());
        footer[48..56].copy_from_slice(&disk_len.to_be_bytes());
        footer[56..60].copy_from_slice(&[0, 1, 4, 17]);
        footer[60..64].copy_from_slice(&kind.to_be_bytes());
        footer[68..84].copy_from_slice(&self.id);
        seal(&mut footer, 64);
        footer
    }

    fn header(&self, block: u64) -> [u8; 1024] {
        let mut header = [0; 1024];
        header[..8].copy_from_slice(b"cxsparse");
        header[8..16].fill(0xFF);
        header[16..24].copy_from_slice(&TABLE.to_be_bytes());
        header[24..28].copy_from_slice(&0x0001_0000u32.to_be_bytes());
        header[28..32].copy_from_slice(&(self.blocks as u32).to_be_bytes());
        header[32..36].copy_from_slice(&(block as u32).to_be_bytes());
        header
    }

    /// Changes fields as `input` says; returns how many.
    pub fn mutate(&mut self, input: &mut Input<'_>) -> u64 {
        let count = input.below(6);
        for _ in 0..count {
            match input.u8() % 8 {
                0..=1 => {
                    let field = input.pick(&FOOTER_FIELDS);
                    let ends = [0, self.tail];
                    match input.u8() % 4 {
                        0 => self.change(field, 0, input),
                        1 => self.change(field, self.tail, input),
                        _ => {
                            // The same in both, or they only disagree.
                            let mut again = input.clone();
                            self.change(field, ends[0], &mut again);
                            self.change(field, ends[1], input);
                        }
                    }
                }
                2..=3 => self.change(input.pick(&HEADER_FIELDS), HEADER, input),
                4..=5 => {
                    let entry = Field::new(4 * input.below(self.blocks.max(1)), 4);
                    self.change(entry, TABLE, input);
                }
                6 if !self.bitmaps.is_empty() => {
                    let bitmap = input.pick(&self.bitmaps);
                    let at = bitmap + input.below(600);
                    self.file.put(at, &[input.u8()]);
                }
                6 => {
                    let at = input.below(self.file.len().max(1));
                    self.file.put(at, &[input.u8()]);
                }
                _ => {
                    let anchors = [self.tail, self.tail + 512, 512, 1536, 2048];
                    let len = input.nasty(self.file.len(), &anchors).min(1 << 40);
                    if input.one_in(2) {
                        // The footer goes with the end.
                        let footer = self.file.vec(self.tail, 512);
                        self.tail = len.saturating_sub(512);
                        self.file.set_len(self.tail);
                        self.file.put(self.tail, &footer);
                    } else {
                        self.file.set_len(len);
                    }
                }
            }
        }
        let spoiled = input.u8();
        for (bit, at, len, sum) in [
            (0, 0, 512, 64),
            (1, HEADER, 1024, 36),
            (2, self.tail, 512, 64),
        ] {
            let is_there = !self.is_fixed || at == self.tail;
            if is_there && spoiled >> bit & 1 == 0 && at + len <= self.file.len() {
                let mut structure = self.file.vec(at, len as usize);
                seal(&mut structure, sum);
                self.file.put(at, &structure);
            }
        }
        count + u64::from(spoiled)
    }

    fn change(&mut self, field: Field, base: u64, input: &mut Input<'_>) {
        let at = base + field.at;
        let mut bytes = [0; 8];
        self.file.read(&mut bytes[8 - field.width..], at);
        let anchors = [
            self.file.len(),
            self.tail,
            self.tail / 512,
            HEADER,
            TABLE,
            self.blocks,
            TABLE / 512,
            u64::from(u32::MAX),
            3,
            4,
        ];
        let value = input.nasty(u64::from_be_bytes(bytes), &anchors);
        self.file.put(at, &value.to_be_bytes()[8 - field.width..]);
    }
}

/// Puts a structure's checksum right: the complement of the sum of its other bytes.
fn seal(structure: &mut [u8], field: usize) {
    structure[field..field + 4].fill(0);
    let sum: u32 = structure.iter().map(|byte| u32::from(*byte)).sum();
    structure[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
}

/// Cookie, features, version, data offset, creator and its version, sizes, geometry, kind, id,
/// saved state.
const FOOTER_FIELDS: [Field; 12] = [
    Field::new(0, 1),
    Field::new(8, 4),
    Field::new(12, 4),
    Field::new(16, 8),
    Field::new(28, 4),
    Field::new(32, 4),
    Field::new(40, 8),
    Field::new(48, 8),
    Field::new(56, 4),
    Field::new(60, 4),
    Field::new(68, 8),
    Field::new(84, 1),
];

/// Cookie, table offset, version, entries, block size, parent's id, its name, its locator.
const HEADER_FIELDS: [Field; 12] = [
    Field::new(0, 1),
    Field::new(16, 8),
    Field::new(24, 4),
    Field::new(28, 4),
    Field::new(32, 4),
    Field::new(40, 8),
    Field::new(64, 2),
    Field::new(576, 4),
    Field::new(584, 4),
    Field::new(592, 8),
    Field::new(600, 4),
    Field::new(616, 8),
];

//! Logs of VHDX files.

use super::super::input::Input;
use super::super::reference::vhdx::on_disk;
use super::super::store::Bytes;
use super::vhdx::{BAT_AT, LOG_AT, METADATA_AT, MIB, REGIONS, Vhdx, seal};

const LOG_ID: u128 = 0x4711;
const PAGES: u64 = MIB / 4096;

/// Puts entries into the log of a file, as `input` says, and makes the headers say so.
pub fn write(vhdx: &mut Vhdx, input: &mut Input<'_>) {
    let mut at = input.pick(&[0, 0, 0, PAGES - 1, PAGES - 3, 17]);
    let mut tail = at;
    let mut sequence = 1 + u64::from(input.u8());
    // What the log changes is drawn on a copy, so that later entries build on earlier ones.
    let mut drawn = vhdx.clone();
    for _ in 0..1 + input.below(6) {
        if input.one_in(4) {
            tail = at;
        }
        let entry = entry(&mut drawn, input, sequence, tail);
        let pages = entry.len() as u64 / 4096;
        for (index, page) in (0u64..).zip(entry.chunks(4096)) {
            vhdx.file.put(LOG_AT + (at + index) % PAGES * 4096, page);
        }
        at = (at + pages) % PAGES;
        match input.u8() % 12 {
            1 => sequence += 2,
            2 => {}
            3 => at = input.below(PAGES),
            _ => sequence += 1,
        }
    }
    vhdx.set_log(if input.one_in(16) { 1 } else { LOG_ID });
    for _ in 0..input.below(3) {
        let spoiled = LOG_AT + input.below(PAGES) * 4096 + input.below(4096);
        vhdx.file.put(spoiled, &[input.u8()]);
    }
}

fn entry(drawn: &mut Vhdx, input: &mut Input<'_>, sequence: u64, tail: u64) -> Vec<u8> {
    let count = match input.u8() {
        255 => 126 + input.below(20),
        few => u64::from(few % 4),
    };
    let mut head = vec![0; (64 + 32 * count as usize).next_multiple_of(4096)];
    let mut data: Vec<u8> = Vec::new();
    for index in 0..count as usize {
        let descriptor = &mut head[64 + 32 * index..][..32];
        put(descriptor, 24, &sequence.to_le_bytes());
        if input.one_in(3) {
            let (offset, len) = zeros(drawn, input);
            drawn.file.clear(offset..offset.saturating_add(len));
            put(descriptor, 0, b"zero");
            put(descriptor, 8, &len.to_le_bytes());
            put(descriptor, 16, &offset.to_le_bytes());
            continue;
        }
        let (offset, mut page) = page(drawn, input);
        put(descriptor, 0, b"desc");
        put(descriptor, 4, &page[4092..]);
        put(descriptor, 8, &page[..8]);
        put(descriptor, 16, &offset.to_le_bytes());
        put(&mut page, 0, b"data");
        put(&mut page, 4, &((sequence >> 32) as u32).to_le_bytes());
        put(&mut page, 4092, &(sequence as u32).to_le_bytes());
        data.extend(page);
    }
    put(&mut head, 0, b"loge");
    let len = (head.len() + data.len()) as u32;
    put(&mut head, 8, &len.to_le_bytes());
    put(&mut head, 12, &(tail as u32 * 4096).to_le_bytes());
    put(&mut head, 16, &sequence.to_le_bytes());
    put(&mut head, 24, &(count as u32).to_le_bytes());
    put(&mut head, 32, &on_disk(LOG_ID));
    let mut ends = [drawn.file.len(); 2];
    if input.one_in(6) {
        let which = input.below(2) as usize;
        ends[which] = input.nasty(ends[which], &[BAT_AT, 1 << 45]);
    }
    put(&mut head, 48, &ends[0].to_le_bytes());
    put(&mut head, 56, &ends[1].to_le_bytes());
    if input.one_in(8) {
        let field = input.pick(&[8, 12, 16, 24, 32, 64, 72, 80, 88]);
        let value = input.nasty(u64::from(len), &[4096, sequence, MIB]) as u32;
        put(&mut head, field, &value.to_le_bytes());
    }
    head.extend(data);
    if !input.one_in(12) {
        seal(&mut head);
    }
    head
}

fn zeros(drawn: &Vhdx, input: &mut Input<'_>) -> (u64, u64) {
    let offset = place(drawn, input);
    let len = match input.u8() % 4 {
        0 => 4096,
        1 => MIB,
        2 => input.below(40) * 4096,
        _ => input.nasty(4096, &[drawn.file.len()]),
    };
    (offset, len)
}

/// A page of the file as it was drawn so far, with something in it changed.
fn page(drawn: &mut Vhdx, input: &mut Input<'_>) -> (u64, Vec<u8>) {
    let offset = match input.u8() % 4 {
        0..=1 => {
            let index = input.below(drawn.entries.max(1));
            let entry = match drawn.places.is_empty() || input.one_in(4) {
                true => u64::from(input.u8() & 3),
                false => input.pick(&drawn.places) | 6,
            };
            drawn.set_entry(index, entry);
            (BAT_AT + index * 8) / 4096 * 4096
        }
        2 => {
            let at = METADATA_AT + (64 << 10) + input.below(48);
            drawn.file.put(at, &[input.u8()]);
            METADATA_AT + (64 << 10)
        }
        _ => place(drawn, input),
    };
    let page = drawn.file.vec(offset, 4096);
    (offset, page)
}

fn place(drawn: &Vhdx, input: &mut Input<'_>) -> u64 {
    let end = drawn.file.len();
    let anchors = [REGIONS[0], REGIONS[1], METADATA_AT, BAT_AT, end - 4096];
    match input.u8() % 4 {
        0..=1 if !drawn.places.is_empty() => input.pick(&drawn.places) + input.below(64) * 4096,
        2 => input.nasty(BAT_AT, &[0, LOG_AT, end, 64 << 10]),
        _ => input.pick(&anchors),
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// Whether headers still say that the log counts.
pub fn is_dirty(file: &Bytes) -> bool {
    file.array::<16>(64 * 1024 + 48) != [0; 16] || file.array::<16>(128 * 1024 + 48) != [0; 16]
}

//! Our verdict on spoiled files beside that of qemu-img. Where they differ the difference is in
//! this table, and in `docs/reference/formats.md` with its reason.

use std::process::Command;
use std::sync::Arc;

use diskdelta::storage::{MemoryStorage, Storage};

use super::craft::*;
use super::support::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Reads, with these MiB of data.
    Reads(usize),
    Refuses,
}
use Verdict::{Reads, Refuses};

struct Case {
    name: &'static str,
    ours: Verdict,
    qemu: Verdict,
    bytes: Vec<u8>,
}

fn case(name: &'static str, ours: Verdict, qemu: Verdict, change: impl Fn(&mut Vec<u8>)) -> Case {
    let mut bytes = good();
    change(&mut bytes);
    Case {
        name,
        ours,
        qemu,
        bytes,
    }
}

fn cases() -> Vec<Case> {
    let drop_third = || {
        let mut bytes = good()[BAT..BAT + 4096].to_vec();
        bytes[16..24].fill(0);
        let offset = BAT as u64;
        LogChange::Page { offset, bytes }
    };
    let full_ring = |bytes: &mut Vec<u8>| {
        bytes[LOG..LOG + (1 << 20)].fill(0);
        for index in 0..128 {
            let entry = LogEntry::new(index as u64 + 1, 0, vec![drop_third()]);
            put_log(bytes, index * 8192, &entry.encode());
        }
        mark_dirty(bytes);
    };
    vec![
        case("nothing wrong", Reads(3), Reads(3), |_| {}),
        case("first header damaged", Reads(3), Reads(3), |b| {
            b[HEADERS[0] + 9] ^= 1
        }),
        case("second header damaged", Reads(3), Reads(3), |b| {
            b[HEADERS[1] + 9] ^= 1
        }),
        case("both headers damaged", Refuses, Refuses, |b| {
            HEADERS.iter().for_each(|at| b[at + 9] ^= 1);
        }),
        case("headers of one number that differ", Refuses, Refuses, |b| {
            change_headers(b, |header| header[8..16].fill(9));
            b[HEADERS[1] + 20] ^= 1;
            seal(&mut b[HEADERS[1]..HEADERS[1] + 4096]);
        }),
        case("first region table damaged", Reads(3), Refuses, |b| {
            b[REGION_TABLES[0] + 99] ^= 1
        }),
        case("second region table damaged", Reads(3), Reads(3), |b| {
            b[REGION_TABLES[1] + 99] ^= 1
        }),
        case("header version 2", Refuses, Refuses, |b| {
            change_headers(b, |header| header[66] = 2)
        }),
        case(
            "no place for the log, which is empty",
            Reads(3),
            Refuses,
            |b| {
                change_headers(b, |header| header[68..80].fill(0));
            },
        ),
        case("two blocks in one place", Refuses, Reads(4), |b| {
            let first = entry(b, 0);
            set_entry(b, 5, first);
        }),
        case("a block over the headers", Refuses, Reads(4), |b| {
            set_entry(b, 5, 6)
        }),
        case("a block over the block table", Refuses, Refuses, |b| {
            set_entry(b, 5, 3 << 20 | 6)
        }),
        case("a block behind the end", Refuses, Refuses, |b| {
            set_entry(b, 5, 99 << 20 | 6)
        }),
        case("state 4", Refuses, Refuses, |b| set_entry(b, 5, 4)),
        case("state 5", Refuses, Reads(3), |b| set_entry(b, 5, 5)),
        case("partial without a parent", Refuses, Refuses, |b| {
            set_entry(b, 5, 7)
        }),
        case("bits that must be zero", Refuses, Reads(3), |b| {
            b[BAT + 1] = 1
        }),
        case(
            "a trimmed block that names a place",
            Reads(3),
            Reads(3),
            |b| {
                set_entry(b, 5, 6 << 20 | 3);
            },
        ),
        case("a disk of 0 bytes", Refuses, Refuses, |b| {
            let at = item_bytes_at(b, DISK_SIZE);
            b[at..at + 8].fill(0);
        }),
        case("a disk longer than its table", Refuses, Refuses, |b| {
            let at = item_bytes_at(b, DISK_SIZE);
            put(b, at, &(60u64 << 40).to_le_bytes());
        }),
        case("blocks of 3 MiB", Refuses, Refuses, |b| {
            let at = item_bytes_at(b, FILE_PARAMETERS);
            put(b, at, &(3u32 << 20).to_le_bytes());
        }),
        case("sectors of 520 bytes", Refuses, Refuses, |b| {
            let at = item_bytes_at(b, LOGICAL_SECTOR);
            put(b, at, &520u32.to_le_bytes());
        }),
        case("a required item nobody knows", Refuses, Refuses, |b| {
            let at = METADATA + 32 + 5 * 32;
            put(b, at, &guid(7));
            put(b, at + 16, &0x20000u32.to_le_bytes());
            put(b, at + 20, &8u32.to_le_bytes());
            put(b, at + 24, &4u32.to_le_bytes());
            b[METADATA + 10] = 6;
        }),
        case("a log that counts and is empty", Refuses, Reads(3), |b| {
            b[LOG..LOG + (1 << 20)].fill(0);
            mark_dirty(b);
        }),
        case("a dirty log", Reads(2), Refuses, |b| {
            b[LOG..LOG + (1 << 20)].fill(0);
            put_log(b, 0, &LogEntry::new(1, 0, vec![drop_third()]).encode());
            mark_dirty(b);
        }),
        case(
            "a dirty log that fills its ring",
            Reads(2),
            Refuses,
            full_ring,
        ),
        case("sectors of 4096 bytes", Reads(3), Refuses, |b| {
            for id in [LOGICAL_SECTOR, PHYSICAL_SECTOR] {
                let at = item_bytes_at(b, id);
                put(b, at, &4096u32.to_le_bytes());
            }
        }),
        case("the file ends behind the disk", Reads(3), Reads(3), |b| {
            let at = item_bytes_at(b, DISK_SIZE);
            put(b, at, &(5u64 << 19).to_le_bytes());
            let last = (entry(b, 2) >> 20 << 20) as usize;
            b.truncate(last + (1 << 19));
        }),
        case("the file ends before the disk", Refuses, Refuses, |b| {
            let last = (entry(b, 2) >> 20 << 20) as usize;
            b.truncate(last + (1 << 19));
        }),
        case("a child without its parent", Refuses, Refuses, |b| {
            let parent: Arc<dyn Storage> = Arc::new(MemoryStorage::new("parent", b.clone()));
            *b = new_image(&child_of(&parent, MIB)).to_vec();
        }),
    ]
}

#[test]
fn our_verdicts_differ_from_those_of_qemu_img_where_the_table_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("case.vhdx");
    let raw = directory.path().join("case.raw");
    let mut wrong = Vec::new();
    for case in cases() {
        let ours = match open_bytes(case.bytes.clone()) {
            Ok(image) => Reads(data_mib(&contents(&image))),
            Err(_) => Refuses,
        };
        if ours != case.ours {
            wrong.push(format!("{}: we say {ours:?}", case.name));
        }
        std::fs::write(&path, &case.bytes).unwrap();
        let name = path.to_str().unwrap();
        let output = Command::new("qemu-img")
            .args(["convert", "-f", "vhdx", "-O", "raw", name])
            .arg(&raw)
            .output();
        let Ok(output) = output else {
            return left_out("qemu-img");
        };
        let qemu = match output.status.success() {
            true => Reads(data_mib(&std::fs::read(&raw).unwrap())),
            false => Refuses,
        };
        if qemu != case.qemu {
            wrong.push(format!("{}: qemu-img says {qemu:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// How many MiB hold something.
fn data_mib(contents: &[u8]) -> usize {
    let holds = |mib: &&[u8]| mib.iter().any(|byte| *byte != 0);
    contents.chunks(1 << 20).filter(holds).count()
}

//! Change maps of every kind: what they mean, and what is no map.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![allow(
    clippy::single_range_in_vec_init,
    reason = "the lists are lists of ranges"
)]

use std::fs;
use std::io::{self, Read};
use std::ops::Range;

use diskdelta::{ChangeMap, ChangeMapKind, ErrorKind};
use proptest::prelude::*;

const GIB: u64 = 1 << 30;

fn ranges(kind: ChangeMapKind, text: &str, disk_len: u64) -> Vec<Range<u64>> {
    let map = ChangeMap::parse(kind, text.as_bytes(), disk_len);
    map.unwrap_or_else(|error| panic!("{kind}: {text}: {error}"))
        .into_iter()
        .collect()
}

fn refused(kind: ChangeMapKind, text: &str, disk_len: u64) -> String {
    let error = ChangeMap::parse(kind, text.as_bytes(), disk_len).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Malformed,
        "{kind}: {text}: {error}"
    );
    error.to_string()
}

#[test]
fn a_report_of_our_own_counts_extents_of_both_kinds() {
    let kind = ChangeMapKind::Diskdelta;
    let text = r#"{"identical":false,"disk_bytes":1048576,"target_disk_bytes":1048576,
        "changed_bytes":8192,"extents":[{"offset":4096,"length":4096,"kind":"data"},
        {"offset":65536,"length":4096,"kind":"zero"}],"warnings":[]}"#;
    assert_eq!(ranges(kind, text, 1 << 20), [4096..8192, 65536..69632]);
    for wrong in [
        r#"{"disk_bytes":1048576}"#,
        r#"{"extents":[]}"#,
        r#"{"extents":[],"disk_bytes":512}"#,
        r#"{"extents":[],"disk_bytes":1048576,"disk_bytes":1048576}"#,
        r#"{"extents":[{"offset":0}],"disk_bytes":1048576}"#,
        r#"{"extents":[],"disk_bytes":1048576}{}"#,
    ] {
        refused(kind, wrong, 1 << 20);
    }
}

#[test]
fn pairs_may_overlap_and_come_in_any_order() {
    let kind = ChangeMapKind::Pairs;
    assert_eq!(
        ranges(kind, "[[30,10],[0,4],[35,1],[4,1],[9,0]]", 40),
        [0..5, 30..40]
    );
    assert_eq!(ranges(kind, "\u{feff} []\n", 40), []);
    for wrong in [
        "[[30,11]]",
        "[[41,0]]",
        "[[18446744073709551615,2]]",
        "[[-1,2]]",
        "[[0,1.5]]",
        "[[0,\"1\"]]",
        "[[0]]",
        "[[0,1,2]]",
        "[[0,1]",
        "[[0,1]] x",
        "{}",
        "",
    ] {
        refused(kind, wrong, 40);
    }
}

#[test]
fn only_dirty_stretches_of_nbdinfo_are_changes() {
    let kind = ChangeMapKind::Nbdinfo;
    let text = r#"[{"offset":0,"length":65536,"type":0,"description":"clean"},
        {"offset":65536,"length":65536,"type":1,"description":"dirty"}]"#;
    assert_eq!(ranges(kind, text, 131_072), [65536..131_072]);
    let allocation = r#"[{"offset":0,"length":131072,"type":0,"description":"data"}]"#;
    assert!(refused(kind, allocation, 131_072).contains("qemu:dirty-bitmap"));
    assert!(refused(kind, text, 262_144).contains("0x40000"));
    let gap = r#"[{"offset":65536,"length":65536,"type":1,"description":"dirty"}]"#;
    refused(kind, gap, 131_072);
}

#[test]
fn page_lists_of_azure_are_taken_whole_or_not() {
    let kind = ChangeMapKind::Azure;
    let page = |inner: &str, marker: &str| {
        format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>{inner}\
             <NextMarker>{marker}</NextMarker></PageList>"
        )
    };
    let range = |name: &str, start: u64, end: u64| {
        format!("<{name}><Start>{start}</Start><End>{end}</End></{name}>")
    };
    // The first range does not begin at 0, and cleared ranges stand between written ones.
    let first = [
        range("PageRange", 512, 1023),
        range("ClearRange", 4096, 8191),
        range("PageRange", 8192, 8703),
    ]
    .concat();
    let last = range("PageRange", 1 << 20, (1 << 20) + 511);
    let both = [page(&first, "2!76!MD"), page(&last, "")].concat();
    let found = [512..1024, 4096..8704, 1 << 20..(1 << 20) + 512];
    assert_eq!(ranges(kind, &both, 2 << 20), found);
    assert!(refused(kind, &page(&first, "2!76!MD"), 2 << 20).contains("marker"));

    // The footer of a VHD stands behind the disk; nothing else does.
    let footer = |start, end| page(&range("PageRange", start, end), "");
    assert_eq!(ranges(kind, &footer(4096, 8703), 8192), [4096..8192]);
    assert_eq!(ranges(kind, &footer(8192, 8703), 8192), []);
    refused(kind, &footer(8192, 8704), 8192);
    refused(kind, &footer(9216, 9727), 8192);
    refused(kind, &footer(9216, 9215), 16384);
}

#[test]
fn blocks_of_ebs_are_multiplied_by_a_size_that_may_come_last() {
    let kind = ChangeMapKind::Ebs;
    let first = r#"{"ChangedBlocks":[{"BlockIndex":3,"FirstBlockToken":"a","SecondBlockToken":"b"},
        {"BlockIndex":0,"FirstBlockToken":"gone"}],"ExpiryTime":1.5,"VolumeSize":1,
        "BlockSize":524288,"NextToken":"more"}"#;
    let empty = r#"{"BlockSize":524288,"VolumeSize":1,"ChangedBlocks":[],"NextToken":"on"}"#;
    let last = r#"{"Blocks":[{"BlockIndex":2047,"BlockToken":"c"}],"BlockSize":524288,
        "VolumeSize":1,"NextToken":null}"#;
    let block = 512 << 10;
    let found = [0..block, 3 * block..4 * block, GIB - block..GIB];
    assert_eq!(ranges(kind, &[first, empty, last].concat(), GIB), found);
    assert_eq!(ranges(kind, &format!("[{first},{last}]"), GIB), found);
    assert!(refused(kind, first, GIB).contains("token"));
    refused(kind, &[last, empty].concat(), GIB);
    refused(kind, last, 2 * GIB);
    refused(kind, r#"{"ChangedBlocks":[{"BlockIndex":1}]}"#, GIB);
    refused(
        kind,
        r#"{"ChangedBlocks":[{"BlockIndex":1}],"BlockSize":0}"#,
        GIB,
    );
    refused(
        kind,
        r#"{"ChangedBlocks":[{"BlockIndex":2048}],"BlockSize":524288}"#,
        GIB,
    );
    let huge = r#"{"ChangedBlocks":[{"BlockIndex":4294967295}],"BlockSize":18446744073709551615}"#;
    refused(kind, huge, GIB);
    refused(kind, r#"{"BlockSize":524288}"#, GIB);
}

#[test]
fn an_offset_that_kubernetes_leaves_out_is_zero() {
    let kind = ChangeMapKind::Kubernetes;
    let text = r#"[{"block_metadata_type":1,"volume_capacity_bytes":100000,"block_metadata":
        [{"size_bytes":1000},{"byte_offset":5000,"size_bytes":1000}]},
        {"block_metadata_type":1,"volume_capacity_bytes":100000,"block_metadata":null}]"#;
    assert_eq!(ranges(kind, text, 100_000), [0..1000, 5000..6000]);
    assert_eq!(ranges(kind, "[]", 100_000), []);
    refused(kind, text, 200_000);
    refused(kind, text, 5500);
}

#[test]
fn an_extent_of_rbd_that_exists_no_more_is_a_change() {
    let kind = ChangeMapKind::Rbd;
    let text = r#"[{"offset":0,"length":4096,"exists":"true"},
        {"offset":8192,"length":4096,"exists":"false"}]"#;
    assert_eq!(ranges(kind, text, 12288), [0..4096, 8192..12288]);
}

#[test]
fn answers_of_hyper_v_and_vmware_cover_the_disk_together() {
    let kind = ChangeMapKind::HyperV;
    let first = r#"{"ReturnValue":0,"ProcessedByteLength":65536,"Job":null,
        "ChangedByteLengths":[512,1024],"ChangedByteOffsets":[0,4096]}"#;
    let last = r#"{"ProcessedByteLength":65536,"ChangedByteOffsets":[130560],
        "ChangedByteLengths":[512]}"#;
    let none = r#"{"ProcessedByteLength":131072,"ChangedByteOffsets":null,
        "ChangedByteLengths":[]}"#;
    let found = [0..512, 4096..5120, 130_560..131_072];
    assert_eq!(ranges(kind, &[first, last].concat(), 131_072), found);
    assert_eq!(ranges(kind, none, 131_072), []);
    assert!(refused(kind, first, 131_072).contains("ByteOffset"));
    refused(kind, &none.replace("[]", "[1]"), 131_072);
    refused(
        kind,
        r#"{"ProcessedByteLength":131072,"ReturnValue":4096}"#,
        131_072,
    );
    refused(
        kind,
        r#"{"ChangedByteOffsets":[],"ChangedByteLengths":[]}"#,
        131_072,
    );

    let kind = ChangeMapKind::Vmware;
    let first = r#"{"_typeName":"DiskChangeInfo","startOffset":0,"length":65536,
        "changedArea":[{"_typeName":"DiskChangeExtent","start":4096,"length":512}]}"#;
    let last = r#"{"startOffset":65536,"length":65536}"#;
    assert_eq!(ranges(kind, &[first, last].concat(), 131_072), [4096..4608]);
    assert!(refused(kind, first, 131_072).contains("startOffset"));
    assert!(refused(kind, last, 131_072).contains("go on"));
    refused(kind, r#"{"startOffset":0,"changedArea":[]}"#, 131_072);
}

#[test]
fn a_kind_has_a_name_and_qemu_img_is_none() {
    for kind in ChangeMapKind::ALL {
        assert_eq!(kind.name().parse::<ChangeMapKind>().unwrap(), kind);
    }
    let error = "qemu-img".parse::<ChangeMapKind>().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("nbdinfo"), "{error}");
    let error = "aws".parse::<ChangeMapKind>().unwrap_err();
    assert!(error.to_string().contains("ebs"), "{error}");
}

#[test]
fn utf_16_is_named_as_such() {
    let text: Vec<u8> = "\u{feff}[]"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let error = ChangeMap::parse(ChangeMapKind::Pairs, &text[..], 1).unwrap_err();
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

#[test]
fn a_reader_that_fails_is_no_end_of_a_map() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(5))
        }
    }
    for (kind, text) in [
        (ChangeMapKind::Pairs, "[[0,1]]"),
        (ChangeMapKind::Azure, "<PageList></PageList>"),
        (ChangeMapKind::Kubernetes, "[]"),
    ] {
        let error = ChangeMap::parse(kind, text.as_bytes().chain(Fails), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{kind}: {error}");
    }
}

#[test]
fn deep_and_long_texts_end_early_in_little_memory() {
    let deep = |text: &'static str| text.as_bytes().chain(Repeated(b"[", 0, 1 << 40));
    let long = |text: &'static str| text.as_bytes().chain(Repeated(b"1", 0, 1 << 40));
    for kind in ChangeMapKind::ALL {
        for start in [
            "",
            "[",
            "{\"x\":",
            "{\"",
            "<PageList>",
            "<PageList><",
            "<PageList a='",
        ] {
            for error in [
                ChangeMap::parse(kind, deep(start), 1 << 40).unwrap_err(),
                ChangeMap::parse(kind, long(start), 1 << 40).unwrap_err(),
            ] {
                assert_eq!(
                    error.kind(),
                    ErrorKind::Malformed,
                    "{kind}: {start}: {error}"
                );
            }
        }
    }
}

#[test]
fn a_million_ranges_of_64_tib_take_little_memory() {
    const COUNT: u64 = 1_000_000;
    let disk_len = 64 << 40;
    let step = disk_len / COUNT / 512 * 512;
    for (kind, head, entry, tail) in [
        (
            ChangeMapKind::Azure,
            "<PageList>",
            (|at| {
                format!(
                    "<PageRange><Start>{at}</Start><End>{}</End></PageRange>",
                    at + 511
                )
            }) as fn(u64) -> String,
            "<NextMarker/></PageList>",
        ),
        (
            ChangeMapKind::Vmware,
            "{\"startOffset\":0,\"length\":70368744177664,\"changedArea\":[{\"start\":0,\"length\":1}",
            |at| format!(",{{\"start\":{at},\"length\":512}}"),
            "]}",
        ),
    ] {
        let entries = Entries {
            entry,
            step,
            next: 0,
            count: COUNT,
            text: Vec::new(),
        };
        let text = head.as_bytes().chain(entries).chain(tail.as_bytes());
        let map = ChangeMap::parse(kind, text, disk_len).unwrap();
        assert_eq!(map.ranges().len() as u64, COUNT);
        assert_eq!(map.changed_bytes(), COUNT * 512);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 128 << 10, "{peak} KiB");
}

/// Bytes over and over.
struct Repeated(&'static [u8], usize, u64);

impl Read for Repeated {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(usize::try_from(self.2).unwrap());
        for byte in &mut buf[..len] {
            *byte = self.0[self.1];
            self.1 = (self.1 + 1) % self.0.len();
        }
        self.2 -= len as u64;
        Ok(len)
    }
}

/// Entries of a list, made as they are read.
struct Entries {
    entry: fn(u64) -> String,
    step: u64,
    next: u64,
    count: u64,
    text: Vec<u8>,
}

impl Read for Entries {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.text.is_empty() && self.next < self.count {
            let last = (self.next + 1000).min(self.count);
            let entries = (self.next..last).map(|n| (self.entry)(n * self.step));
            self.text = entries.collect::<String>().into_bytes();
            self.next = last;
        }
        let len = buf.len().min(self.text.len());
        buf[..len].copy_from_slice(&self.text[..len]);
        self.text.drain(..len);
        Ok(len)
    }
}

proptest! {
    #[test]
    fn every_byte_of_any_pairs_is_in_the_map_and_no_other(
        pairs in proptest::collection::vec((0u64..300, 0u64..40), 0..40),
    ) {
        let text = format!("{:?}", pairs.iter().map(|it| [it.0, it.1]).collect::<Vec<_>>());
        let found = ranges(ChangeMapKind::Pairs, &text, 400);
        for byte in 0..400 {
            let named = pairs.iter().any(|(offset, len)| (*offset..offset + len).contains(&byte));
            prop_assert_eq!(found.iter().any(|range| range.contains(&byte)), named);
        }
        prop_assert!(found.windows(2).all(|two| two[0].end < two[1].start));
    }

    #[test]
    fn any_text_is_a_map_or_refused(
        kind in 0..ChangeMapKind::ALL.len(),
        text in "[-\\[\\]{},:\"0-9a-zA-Z<>/ ]{0,40}",
    ) {
        let kind = ChangeMapKind::ALL[kind];
        if let Ok(map) = ChangeMap::parse(kind, text.as_bytes(), 1 << 20) {
            prop_assert!(map.ranges().iter().all(|range| range.end <= 1 << 20));
        }
    }
}

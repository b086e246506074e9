//! Change maps of every kind.

use diskdelta::{ChangeMap, ChangeMapKind, ErrorKind};

use super::super::Depth;
use super::super::meter::within;

/// The first byte chooses the kind, the second the length of the disk; the rest is the text.
pub fn change_map(data: &[u8]) -> Depth {
    let [kind, len, text @ ..] = data else {
        return Depth::Refused;
    };
    let kind = ChangeMapKind::ALL[usize::from(*kind) % ChangeMapKind::ALL.len()];
    let disk_len = 512 << (len % 40);
    match within(1 << 20, || ChangeMap::parse(kind, text, disk_len)) {
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
            Depth::Refused
        }
        Ok(map) => {
            let ranges = map.ranges();
            assert!(
                ranges
                    .iter()
                    .all(|it| it.start < it.end && it.end <= disk_len)
            );
            assert!(ranges.windows(2).all(|two| two[0].end < two[1].start));
            Depth::Taken
        }
    }
}

/// A text of each kind that is taken.
pub fn seeds() -> impl Iterator<Item = Vec<u8>> {
    let texts = [
        r#"{"disk_bytes":512,"extents":[{"offset":0,"length":9,"kind":"zero"}]}"#,
        "[[0,12],[500,12]]",
        r#"[{"offset":0,"length":512,"type":1,"description":"dirty"}]"#,
        "<PageList><PageRange><Start>0</Start><End>9</End></PageRange><ClearRange><Start>99</Start>\
         <End>600</End></ClearRange><NextMarker/></PageList>",
        r#"{"ChangedBlocks":[{"BlockIndex":1,"FirstBlockToken":"a"}],"BlockSize":256}"#,
        r#"[{"block_metadata_type":1,"volume_capacity_bytes":512,"block_metadata":[{"size_bytes":9}]}]"#,
        r#"[{"offset":0,"length":9,"exists":"false"}]"#,
        r#"{"ProcessedByteLength":512,"ChangedByteOffsets":[1],"ChangedByteLengths":[9]}"#,
        r#"{"startOffset":0,"length":512,"changedArea":[{"start":1,"length":9}]}"#,
    ];
    (0..)
        .zip(texts)
        .map(|(kind, text): (u8, _)| [&[kind, 0], text.as_bytes()].concat())
}

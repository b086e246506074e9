//! Images that other software wrote read to the contents that are known of them.

use std::process::Command;
use std::sync::Arc;

use diskdelta::image::{self, FileGate, Image, ImageOptions};

use super::support::{check_extents, contents, samples};

#[test]
fn every_sample_reads_to_its_known_contents() {
    let Some(directory) = samples() else { return };
    let table = std::fs::read_to_string(directory.join("SAMPLES.tsv")).unwrap();
    let mut count = 0;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [
            file,
            _,
            "vhdx",
            subformat,
            _,
            size,
            block,
            sector,
            parent,
            sum,
            ..,
        ] = fields[..]
        else {
            continue;
        };
        let before = std::fs::read(directory.join(file)).unwrap();
        let mut gate = FileGate::new();
        if parent != "-" {
            gate = gate.with_parent(directory.join(parent));
        }
        let options = ImageOptions::default().with_gate(Arc::new(gate));
        let image = image::open(directory.join(file), &options).unwrap();
        let image: &dyn Image = &*image;
        let bytes = contents(image);
        assert_eq!(sha256(&bytes), sum, "{file}");
        check_extents(image, &bytes);
        for step in [1, 511, 4096, 65537] {
            let mut pieces = vec![0; 200 * step];
            pieces.truncate(bytes.len());
            for (index, piece) in pieces.chunks_mut(step).enumerate() {
                image.read_exact_at(piece, (index * step) as u64).unwrap();
            }
            assert_eq!(pieces, bytes[..pieces.len()], "{file} in steps of {step}");
        }
        let info = image.info();
        assert_eq!(info.layout.name(), subformat, "{file}");
        assert_eq!(info.disk_bytes.to_string(), size, "{file}");
        let facts = |key| {
            info.facts
                .iter()
                .find(|fact| fact.0 == key)
                .unwrap()
                .1
                .as_str()
        };
        assert_eq!(facts("block_bytes"), block, "{file}");
        assert_eq!(facts("logical_sector_bytes"), sector, "{file}");
        assert_eq!(
            std::fs::read(directory.join(file)).unwrap(),
            before,
            "{file} was only read"
        );
        count += 1;
    }
    assert!(count > 0, "the table of samples names no VHDX");
}

fn sha256(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("contents");
    std::fs::write(&path, bytes).unwrap();
    let output = Command::new("sha256sum").arg(&path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

//! Images made by other software read as what they are known to hold.

use std::fs;
use std::sync::Arc;

use diskdelta::image::{self, FileGate, ImageOptions};
use diskdelta::{Advice, ErrorKind, Limits};
use sha2::{Digest, Sha256};

use crate::support::{contents, refusal, samples};

#[test]
fn vhds_of_other_software_read_right() {
    let Some(directory) = samples() else { return };
    let list = fs::read_to_string(directory.join("SAMPLES.tsv")).unwrap();
    let mut lines = list
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let column = |name| names.iter().position(|it| *it == name).unwrap();
    let (file, format, subformat) = (column("file"), column("format"), column("subformat"));
    let (size, parent, sum) = (
        column("virtual_size"),
        column("parent"),
        column("content_sha256"),
    );
    let mut seen = 0;
    for line in lines.filter(|line| line[format] == "vhd") {
        let path = directory.join(line[file]);
        let mut gate = FileGate::new();
        if line[parent] != "-" {
            gate = gate.with_parent(directory.join(line[parent]));
        }
        let options = ImageOptions::default().with_gate(Arc::new(gate));
        let image = image::open(&path, &options).unwrap();
        let info = image.info();
        assert_eq!(info.layout.name(), line[subformat], "{}", line[file]);
        assert_eq!(info.disk_bytes.to_string(), line[size], "{}", line[file]);
        let bytes = contents(&*image).unwrap();
        let found: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(found, line[sum], "{}", line[file]);
        assert!(image.allocated_bytes().unwrap() <= bytes.len().next_multiple_of(2 << 20) as u64);
        seen += 1;
    }
    assert!(seen >= 9, "only {seen} samples are listed");
}

#[test]
fn a_differencing_sample_finds_its_parent_beside_it_only_when_the_caller_lets_it() {
    let Some(directory) = samples() else { return };
    let child = directory.join("dfvfs/fat-differential.vhd");
    let error = refusal(image::open(&child, &ImageOptions::default()));
    assert_eq!(error.kind(), ErrorKind::Parent);
    assert!(error.to_string().contains("fat-parent.vhd"), "{error}");
    assert!(error.advice().contains(&Advice::Parent), "{error}");

    let options = ImageOptions::default().with_gate(Arc::new(FileGate::new()));
    let image = image::open(&child, &options).unwrap();
    let parents = image.info().parents;
    assert!(parents.iter().any(|it| it.ends_with("fat-parent.vhd")));

    let none = options.with_limits(Limits::default().with_chain_count(0));
    assert_eq!(
        refusal(image::open(&child, &none)).kind(),
        ErrorKind::LimitExceeded
    );
}

//! The picture of a disk: what it marks, and what `qemu-img map` says of the same disk.

use std::process::Command;

use serde_json::Value;

use crate::fixture::{Fixture, PAGE, noise, oracle, write_at};

fn extents(report: &Value) -> Vec<(u64, u64, bool)> {
    let extents = report["extents"].as_array().unwrap().iter();
    extents
        .map(|it| {
            let number = |key: &str| it[key].as_u64().unwrap();
            (number("start"), number("length"), it["zero"] == true)
        })
        .collect()
}

#[test]
fn a_map_shows_where_the_data_of_a_disk_are() {
    let fixture = Fixture::new();
    let path = fixture.path("disk.raw");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    write_at(&path, 16 << 20, &noise(1 << 20, 1));
    write_at(&path, 63 << 20, &noise(1 << 20, 2));
    fixture.done("sync disk.raw disk.vhdx");
    for image in ["disk.raw", "disk.vhdx"] {
        let (status, report) = fixture.json(&format!("map {image}"));
        assert_eq!(status, 0);
        assert_eq!(report["disk_bytes"], 64 << 20);
        let covered: u64 = extents(&report).iter().map(|it| it.1).sum();
        assert_eq!(covered, 64 << 20, "{report:#}");
        let text = fixture.done(&format!("map {image}")).stdout;
        let rows: Vec<_> = text.lines().collect();
        assert_eq!(rows.len(), 17, "{text}");
        assert!(rows.iter().all(|it| it.chars().count() <= 80), "{text}");
        // 16 MiB is the first cell of its row.
        assert!(rows[4].starts_with("       16M █"), "{text}");
        assert!(rows[5].ends_with(&"·".repeat(64)), "{text}");
    }
    assert_eq!(
        extents(&fixture.json("map disk.raw").1),
        [
            (0, 16 << 20, true),
            (16 << 20, 1 << 20, false),
            (17 << 20, 46 << 20, true),
            (63 << 20, 1 << 20, false)
        ]
    );
}

#[test]
fn a_map_agrees_with_that_of_qemu_img() {
    if oracle("qemu-img", &["--version"]) != Some(true) {
        return;
    }
    let fixture = Fixture::new();
    let path = fixture.path("disk.raw");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(40 << 20)
        .unwrap();
    write_at(&path, 5 << 20, &noise(3 << 20, 1));
    fixture.done("sync disk.raw disk.vhd");
    for (image, format) in [("disk.raw", "raw"), ("disk.vhd", "vpc")] {
        let output = Command::new("qemu-img")
            .args(["map", "--output", "json", "-f", format])
            .arg(fixture.path(image))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let theirs: Value = serde_json::from_slice(&output.stdout).unwrap();
        let theirs = extents(&serde_json::json!({ "extents": theirs }));
        let ours = extents(&fixture.json(&format!("map {image}")).1);
        // Of a VHD, qemu-img tells blocks apart, and not their sectors.
        for (start, length, _) in theirs.iter().filter(|it| it.2) {
            let data = ours.iter().filter(|it| !it.2);
            let mut apart = data.map(|it| it.0 + it.1 <= *start || start + length <= it.0);
            assert!(apart.all(|it| it), "{image}: {ours:?} {theirs:?}");
        }
        assert!(format == "vpc" || ours == theirs, "{ours:?} {theirs:?}");
    }
}

#[test]
fn a_map_shows_what_changed_since_an_older_disk_or_manifest() {
    let fixture = Fixture::new();
    fixture.disk("old.raw", 600, 1);
    let new = fixture.disk("new.raw", 600, 1);
    write_at(&new, 7 * PAGE as u64, b"something else");
    fixture.done("manifest old.raw -o old.manifest");
    let (_, report) = fixture.json("map new.raw old.raw");
    assert_eq!(report["marked_bytes"], PAGE);
    let changed: Vec<bool> = report["extents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["changed"].as_bool().unwrap())
        .collect();
    assert_eq!(changed, [false, true, false]);
    // A manifest knows blocks of 64 KiB.
    assert_eq!(
        fixture.json("map new.raw old.manifest").1["marked_bytes"],
        16 * PAGE
    );
    let run = fixture.done("map new.raw old.raw --svg week.svg");
    assert!(
        run.stdout.contains("4K of 2.3M changed, in 1 extent"),
        "{run:?}"
    );
    let svg = String::from_utf8(fixture.bytes("week.svg")).unwrap();
    assert!(
        svg.starts_with("<svg") && svg.ends_with("</svg>\n"),
        "{svg}"
    );
    assert!(svg.contains("4K changed"), "{svg}");
    // Neither a picture nor anything else is overwritten.
    fixture
        .run("map new.raw old.raw --svg old.raw")
        .fails(2, "exists");
    fixture.run("map old.manifest").fails(2, "older disk");
    assert_eq!(fixture.json("map old.raw old.raw").1["marked_bytes"], 0);
}

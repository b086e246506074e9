//! What every verb does when all is well.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};

use sha2::Digest;

use crate::fixture::{Fixture, PAGE, left_out, noise, oracle, write_at};
use crate::remote::shell;

#[test]
fn a_sync_copies_what_differs_and_says_so() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    let old = fixture.disk("old.raw", 600, 1);
    write_at(&old, 7 * PAGE as u64, b"something else");
    let (status, report) = fixture.json("sync new.raw old.raw");
    assert_eq!(status, 0);
    assert_eq!(report["outcome"], "synced");
    assert_eq!(report["mode"], "delta");
    assert_eq!(report["safety"], "atomic");
    assert_eq!(report["verified"], "written");
    assert_eq!(report["disk_bytes"], 600 * PAGE);
    assert_eq!(report["changed_bytes"], PAGE);
    assert_eq!(report["written_bytes"], PAGE);
    assert_eq!(report["zeroed_bytes"], 0);
    assert!(report["elapsed_seconds"].as_f64().unwrap() > 0.0);
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    assert_eq!(fixture.names(), ["new.raw", "old.raw"]);
    let again = fixture.done("sync new.raw old.raw");
    assert!(again.stdout.starts_with("identical"), "{again:?}");
    assert!(again.stdout.contains("verified written"), "{again:?}");
}

#[test]
fn every_mode_and_safety_makes_a_target_equal() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 700, 1);
    for mode in ["auto", "delta", "full"] {
        for safety in ["atomic", "in-place"] {
            for verify in ["written", "all", "none"] {
                fixture.disk("old.raw", 700, 2);
                fixture.done(&format!(
                    "sync new.raw old.raw --mode {mode} --safety {safety} --verify {verify}"
                ));
                assert!(
                    fixture.bytes("old.raw") == fixture.bytes("new.raw"),
                    "{mode} {safety}"
                );
            }
        }
    }
}

#[test]
fn a_missing_target_gets_the_format_of_its_name_or_the_one_asked_for() {
    let fixture = Fixture::new();
    let new = fixture.disk("new.raw", 600, 1);
    fs::File::options()
        .write(true)
        .open(&new)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    for (words, name, format, layout) in [
        ("", "a.raw", "raw", "flat"),
        ("", "a.img", "raw", "flat"),
        ("", "a.vhd", "vhd", "dynamic"),
        ("", "a.vhdx", "vhdx", "dynamic"),
        ("--create vhd-fixed", "b.vhd", "vhd", "fixed"),
        ("--create vhdx-fixed", "b.vhdx", "vhdx", "fixed"),
        ("--create vhd --align 1M", "c.vhd", "vhd", "dynamic"),
    ] {
        fixture.done(&format!("sync new.raw {name} {words}"));
        let (_, info) = fixture.json(&format!("info {name}"));
        assert_eq!(info["format"], format, "{name}");
        assert_eq!(info["layout"], layout, "{name}");
        assert_eq!(info["disk_bytes"], 64 << 20, "{name}");
        assert!(info["allocated_bytes"].as_u64().unwrap() >= 600 * PAGE as u64);
        fixture.done(&format!("diff new.raw {name}"));
        let driver = if format == "vhd" { "vpc" } else { format };
        let (new, made) = (new.to_str().unwrap(), fixture.path(name));
        let args = [
            "compare",
            "-f",
            "raw",
            "-F",
            driver,
            new,
            made.to_str().unwrap(),
        ];
        if let Some(equal) = oracle("qemu-img", &args) {
            assert!(equal, "{name}");
        }
    }
    assert!(fs::metadata(fixture.path("a.raw")).unwrap().blocks() * 512 < 64 << 20);
}

#[test]
fn a_disk_goes_from_raw_to_vhd_to_raw() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fixture.done("sync new.raw a.vhd --quiet");
    fixture.disk("back.raw", 600, 2);
    fixture.done("sync a.vhd back.raw");
    assert!(fixture.bytes("back.raw") == fixture.bytes("new.raw"));
}

#[test]
fn a_manifest_stands_for_its_disk_in_diff_and_verify() {
    let fixture = Fixture::new();
    let disk = fixture.disk("disk.raw", 600, 1);
    let (status, made) = fixture.json("manifest disk.raw -o disk.manifest --block-size 16K");
    assert_eq!(status, 0);
    assert_eq!(made["block_bytes"], 16 << 10);
    let root = made["root"].as_str().unwrap().to_owned();
    assert_eq!(root.len(), 64);
    let run = fixture.done("manifest disk.raw -o disk.manifest --block-size 16K");
    assert_eq!(run.stdout.trim(), root);
    let (status, verified) = fixture.json("verify disk.raw disk.manifest");
    assert_eq!((status, &verified["identical"]), (0, &true.into()));
    assert_eq!(verified["root"], root);
    fixture.done("diff disk.raw disk.manifest");

    write_at(&disk, 100_000, b"x");
    write_at(&disk, 200_000 / 16384 * 16384, &[0; 16384]);
    let (status, verified) = fixture.json("verify disk.raw disk.manifest");
    assert_eq!((status, &verified["identical"]), (1, &false.into()));
    let (status, found) = fixture.json("diff disk.raw disk.manifest");
    assert_eq!(status, 1);
    assert_eq!(found["granularity_bytes"], 16 << 10);
    let extents = found["extents"].as_array().unwrap();
    assert_eq!(extents.len(), 2);
    assert_eq!(extents[0]["offset"], 98_304);
    assert_eq!(extents[0]["length"], 16_384);
    assert_eq!(extents[0]["kind"], "data");
    assert_eq!(extents[1]["kind"], "zero");
    let (_, turned) = fixture.json("diff disk.manifest disk.raw");
    assert_eq!(turned["extents"][1]["kind"], "data");
    fixture.done("manifest disk.raw -o new.manifest --block-size 16K");
    let (_, of_manifests) = fixture.json("diff new.manifest disk.manifest");
    assert_eq!(of_manifests["extents"], found["extents"]);
    fixture
        .run("diff new.manifest disk.raw --target-format manifest")
        .fails(2, "manifest");
}

#[test]
fn two_images_are_told_apart_to_the_page() {
    let fixture = Fixture::new();
    fixture.disk("a.raw", 600, 1);
    let b = fixture.disk("b.raw", 600, 1);
    assert_eq!(fixture.run("diff a.raw b.raw").status, 0);
    write_at(&b, 5 * PAGE as u64 + 9, b"x");
    let (status, found) = fixture.json("diff a.raw b.raw");
    assert_eq!(status, 1);
    assert_eq!(found["identical"], false);
    assert_eq!(found["granularity_bytes"], PAGE);
    assert_eq!(found["changed_bytes"], PAGE);
    assert_eq!(found["extents"][0]["offset"], 5 * PAGE);
    let run = fixture.run("diff a.raw b.raw");
    assert!(run.stdout.contains("data 0x5000 4096"), "{run:?}");
}

#[test]
fn images_made_by_other_software_come_out_right() {
    let fixture = Fixture::new();
    let directory = std::env::var_os("DISKDELTA_SAMPLES").map(std::path::PathBuf::from);
    let Some(directory) = directory.filter(|directory| directory.join("SAMPLES.tsv").is_file())
    else {
        return left_out("no directory of samples (DISKDELTA_SAMPLES)");
    };
    let list = fs::read_to_string(directory.join("SAMPLES.tsv")).unwrap();
    let rows: Vec<Vec<&str>> = list.lines().map(|row| row.split('\t').collect()).collect();
    let parent_of = |file: &str| rows.iter().find(|row| row[0] == file).map(|row| row[8]);
    for row in &rows {
        let (file, format, size, wanted) = (row[0], row[2], row[5], row[9]);
        let small = size.parse::<u64>().is_ok_and(|size| size <= 64 << 20);
        if !["vhd", "vhdx"].contains(&format) || wanted.len() != 64 || !small {
            continue;
        }
        let mut words = format!("sync {} {file}.raw", directory.join(file).display());
        let mut parent = parent_of(file);
        while let Some(file) = parent.filter(|file| rows.iter().any(|row| row[0] == *file)) {
            words += &format!(" --parent {}", directory.join(file).display());
            parent = parent_of(file);
        }
        fs::create_dir_all(fixture.path(file).parent().unwrap()).unwrap();
        fixture.done(&words);
        let found = sha2::Sha256::digest(fixture.bytes(&format!("{file}.raw")));
        let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, wanted, "{file}");
    }
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fixture.disk("old.raw", 600, 2);
    let before = fixture.bytes("old.raw");
    let (status, report) = fixture.json("sync new.raw old.raw --dry-run");
    assert_eq!(status, 0);
    assert_eq!(report["outcome"], "dry_run");
    assert_eq!(report["changed_bytes"], 600 * PAGE);
    assert!(fixture.bytes("old.raw") == before);
    fixture.done("sync new.raw missing.raw --dry-run");
    assert_eq!(fixture.names(), ["new.raw", "old.raw"]);
}

#[test]
fn a_file_for_one_verb_is_refused_by_the_others() {
    let fixture = Fixture::new();
    fixture.disk("old.raw", 64, 1);
    fixture.disk("new.raw", 64, 2);
    fs::copy(fixture.path("old.raw"), fixture.path("t.raw")).unwrap();
    fixture.done("delta create old.raw new.raw -o d.delta");
    let refused = |words: &str, advice: &str| {
        let target = fixture.bytes("t.raw");
        let run = fixture.run(words);
        assert_eq!(run.status, 2, "{words}: {run:?}");
        assert!(run.stderr.contains(advice), "{words}: {run:?}");
        assert!(fixture.bytes("t.raw") == target, "{words}");
    };
    refused("undo d.delta t.raw", "delta apply");
    fixture.done("sync new.raw t.raw --undo way.back --mode delta");
    for base in ["whole", "touched"] {
        refused(&format!("delta apply way.back t.raw --base {base}"), "undo");
    }
    refused("delta merge way.back -o m.delta", "undo");
    refused("delta export way.back --parent t.raw --to c.vhdx", "undo");
    assert_eq!(fixture.json("delta show way.back").1["purpose"], "undo");
    fixture.done("undo way.back t.raw");
    assert!(fixture.bytes("t.raw") == fixture.bytes("old.raw"));
}

#[test]
fn undo_brings_the_old_disk_back() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fixture.disk("old.raw", 600, 2);
    let before = fixture.bytes("old.raw");
    fixture.done("sync new.raw old.raw --undo way.back --mode delta");
    let (_, shown) = fixture.json("delta show way.back");
    assert_eq!(shown["purpose"], "undo");
    assert_eq!(shown["disk_bytes"], 600 * PAGE);
    assert_eq!(shown["data_bytes"], 600 * PAGE);
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    fixture.done("undo way.back old.raw");
    assert!(fixture.bytes("old.raw") == before);
    fixture.done("undo way.back old.raw");
    assert!(fixture.bytes("old.raw") == before);
}

#[test]
fn a_delta_is_made_applied_and_merged() {
    let fixture = Fixture::new();
    fixture.disk("one.raw", 600, 1);
    for (name, page) in [("two.raw", 3), ("three.raw", 5)] {
        fs::copy(fixture.path("one.raw"), fixture.path(name)).unwrap();
        write_at(&fixture.path(name), page * PAGE as u64, b"changed");
    }
    write_at(&fixture.path("three.raw"), 3 * PAGE as u64, b"changed");
    let (status, made) = fixture.json("delta create one.raw two.raw -o 12.delta");
    assert_eq!(status, 0);
    assert_eq!(made["purpose"], "delta");
    assert_eq!(made["data_bytes"], PAGE);
    fixture.done("manifest two.raw -o two.manifest --block-size 4K");
    let (_, other) = fixture.json("delta create two.manifest three.raw -o 23.delta --level 0");
    assert_eq!(other["data_bytes"], PAGE);
    fixture.done("delta create two.raw three.raw -o 23b.delta");
    fixture
        .run("delta create one.raw two.raw -o 12.delta")
        .fails(2, "the file exists");
    fixture
        .run("delta merge 12.delta 12.delta -o m.delta")
        .fails(2, "does not follow");
    assert!(!fixture.path("m.delta").exists());
    let (_, merged) = fixture.json("delta merge 12.delta 23b.delta -o 13.delta");
    assert_eq!(
        merged["root"],
        fixture.json("delta show 23b.delta").1["root"]
    );
    assert_eq!(merged["base_root"], made["base_root"]);

    fs::copy(fixture.path("one.raw"), fixture.path("a.raw")).unwrap();
    fs::copy(fixture.path("one.raw"), fixture.path("b.raw")).unwrap();
    fixture
        .run("delta apply 23.delta a.raw")
        .fails(2, "nothing was changed");
    for delta in ["12.delta", "23.delta"] {
        assert_eq!(
            fixture.json(&format!("delta apply {delta} a.raw")).1["outcome"],
            "synced"
        );
    }
    assert_eq!(
        fixture.json("delta apply 23.delta a.raw").1["outcome"],
        "identical"
    );
    fixture.done("delta apply 13.delta b.raw");
    for name in ["a.raw", "b.raw"] {
        assert!(fixture.bytes(name) == fixture.bytes("three.raw"), "{name}");
    }
}

#[test]
fn a_target_manifest_stands_for_reading_the_target() {
    let fixture = Fixture::new();
    let new = fixture.disk("new.raw", 600, 1);
    fixture.disk("old.raw", 600, 2);
    let words = "sync new.raw old.raw --target-manifest old.manifest";
    fixture.done(words);
    assert_eq!(fixture.run("verify old.raw old.manifest").status, 0);
    write_at(&new, 77 * PAGE as u64, b"changed");
    let (_, report) = fixture.json(words);
    assert_eq!(report["verified"], "cached");
    assert!(report["root"].as_str().is_some_and(|root| root.len() == 64));
    assert!(fixture.bytes("old.raw") == fixture.bytes("new.raw"));
    assert_eq!(fixture.run("verify old.raw old.manifest").status, 0);
    for words in [words, &format!("{words} --mode full")] {
        write_at(&new, 78 * PAGE as u64, words.as_bytes());
        fixture.done(words);
        assert!(
            fixture.bytes("old.raw") == fixture.bytes("new.raw"),
            "{words}"
        );
        assert_eq!(
            fixture.run("verify old.raw old.manifest").status,
            0,
            "{words}"
        );
    }
    // A target that is created anew has nothing to do with the manifest of the one before.
    fs::remove_file(fixture.path("old.raw")).unwrap();
    write_at(&new, 79 * PAGE as u64, b"changed");
    fixture.done(words);
    assert_eq!(fixture.run("verify old.raw old.manifest").status, 0);
    assert_eq!(fixture.json(words).1["verified"], "cached");
    fixture.disk("other.raw", 600, 3);
    fixture
        .run("sync new.raw old.raw --target-manifest other.raw")
        .fails(2, "name another file");
    assert_eq!(
        fixture.names(),
        ["new.raw", "old.manifest", "old.raw", "other.raw"]
    );
}

#[test]
fn a_target_manifest_is_not_trusted_once_anybody_else_wrote_to_the_target() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    let old = fixture.disk("old.raw", 600, 2);
    fixture.disk("other.raw", 600, 3);
    fixture.done("delta create new.raw other.raw -o change.delta");
    let words = "sync new.raw old.raw --mode delta --target-manifest old.manifest";
    let undone = "sync new.raw old.raw --undo back.delta";
    let since: [(&str, &dyn Fn()); 4] = [
        ("undo", &|| drop(fixture.done("undo back.delta old.raw"))),
        ("a delta", &|| {
            drop(fixture.done("delta apply change.delta old.raw"))
        }),
        ("a sync without it", &|| {
            drop(fixture.done("sync other.raw old.raw"))
        }),
        ("a guest", &|| write_at(&old, 5 * PAGE as u64, b"guest")),
    ];
    for (what, change) in since {
        for safety in ["atomic", "in-place"] {
            let words = format!("{words} --safety {safety}");
            fs::copy(fixture.path("other.raw"), &old).unwrap();
            if what == "undo" {
                fixture.done(undone);
            }
            fixture.done(&words);
            assert_eq!(fixture.json(&words).1["verified"], "cached", "{what}");
            change();
            let (_, report) = fixture.json(&words);
            assert_eq!(report["verified"], "written", "{what}");
            assert!(
                fixture.bytes("old.raw") == fixture.bytes("new.raw"),
                "{what}"
            );
            let _ = fs::remove_file(fixture.path("back.delta"));
        }
    }
}

#[test]
fn a_disk_of_odd_length_fills_its_last_sector_or_mebibyte_with_zeros() {
    let fixture = Fixture::new();
    let bytes = noise(600 * PAGE + 777, 1);
    fs::write(fixture.path("new.raw"), &bytes).unwrap();
    fixture.done("sync new.raw a.vhd --create vhd-fixed --align 1M");
    assert_eq!(fixture.json("info a.vhd").1["disk_bytes"], 3 << 20);
    fs::write(fixture.path("junk.raw"), vec![7; 3 << 20]).unwrap();
    fixture.done("sync junk.raw a.vhd");
    for safety in ["atomic", "in-place"] {
        for mode in ["delta", "full"] {
            fixture.done("sync junk.raw a.vhd");
            let words = format!("sync new.raw a.vhd --align 1M --mode {mode} --safety {safety}");
            fixture.done(&words);
            fixture.done("sync a.vhd back.raw");
            let back = fixture.bytes("back.raw");
            assert_eq!(back.len(), 3 << 20);
            assert!(back[..bytes.len()] == bytes, "{words}");
            assert!(back[bytes.len()..].iter().all(|byte| *byte == 0), "{words}");
            let again = fixture.json("sync new.raw a.vhd --align 1M --mode delta").1;
            assert_eq!(again["outcome"], "identical", "{words}");
        }
    }
}

#[test]
fn a_link_is_followed_and_stays_a_link() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fixture.disk("disk.raw", 600, 2);
    symlink("disk.raw", fixture.path("link")).unwrap();
    for mode in ["full", "delta"] {
        fixture.disk("disk.raw", 600, 2);
        fixture.done(&format!("sync new.raw link --mode {mode}"));
        assert!(
            fs::symlink_metadata(fixture.path("link"))
                .unwrap()
                .is_symlink()
        );
        assert!(fixture.bytes("disk.raw") == fixture.bytes("new.raw"));
        assert_eq!(fixture.names(), ["disk.raw", "link", "new.raw"]);
    }
}

#[test]
fn a_thick_file_stays_thick_and_a_sparse_one_sparse() {
    let fixture = Fixture::new();
    let new = fixture.path("new.raw");
    fs::write(&new, [vec![0; 4 << 20], vec![7; 4096]].concat()).unwrap();
    let len = (4 << 20) + 4096;
    let is_thick = |name: &str| fs::metadata(fixture.path(name)).unwrap().blocks() * 512 >= len;
    for (words, thick_stays) in [("", true), ("--allocation sparse", false)] {
        for mode in ["delta", "full"] {
            fs::write(fixture.path("thick.raw"), vec![9; len as usize]).unwrap();
            fixture.done(&format!("sync new.raw thick.raw --mode {mode} {words}"));
            assert!(fixture.bytes("thick.raw") == fixture.bytes("new.raw"));
            assert_eq!(is_thick("thick.raw"), thick_stays, "{mode} {words}");
        }
    }
    fixture.done("sync new.raw sparse.raw");
    assert!(!is_thick("sparse.raw"));
    fixture.done("sync new.raw full.raw --allocation full");
    assert!(is_thick("full.raw"));
}

#[test]
fn the_redo_log_goes_where_it_is_told_to() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    fixture.disk("old.raw", 600, 2);
    let run = fixture.done("sync new.raw old.raw --mode delta --log-dir deep/logs");
    assert!(run.stdout.starts_with("done"), "{run:?}");
    assert_eq!(fs::read_dir(fixture.path("deep/logs")).unwrap().count(), 0);
    let mode = fs::metadata(fixture.path("deep/logs")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn quiet_runs_print_nothing() {
    let fixture = Fixture::new();
    fixture.disk("new.raw", 600, 1);
    for words in [
        "sync new.raw t.raw -q",
        "manifest new.raw -o m -q",
        "verify new.raw m --quiet",
        "info new.raw --quiet",
    ] {
        let run = fixture.done(words);
        assert!(run.stdout.is_empty() && run.stderr.is_empty(), "{run:?}");
    }
}

#[test]
fn completions_and_man_pages_come_from_the_same_definitions() {
    let fixture = Fixture::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = fixture.done(&format!("completions {shell}"));
        assert!(run.stdout.contains("skip-unreadable"), "{shell}");
    }
    let page = fixture.done("man").stdout;
    assert!(page.contains(".TH diskdelta 1") && page.contains("Exit status"));
    fs::create_dir(fixture.path("man")).unwrap();
    fixture.done("man --dir man");
    let page = fs::read_to_string(fixture.path("man/diskdelta-sync.1")).unwrap();
    assert!(page.contains("skip\\-unreadable"));
}

#[test]
fn holes_are_read_by_every_verb_that_is_asked_to() {
    let fixture = Fixture::new();
    let disk = fixture.disk("a.raw", 100, 1);
    File::options()
        .write(true)
        .open(disk)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    fixture.done("manifest a.raw -o a.manifest --read-holes");
    fixture.done("verify a.raw a.manifest --read-holes");
    fixture.done("sync a.raw b.raw --read-holes");
    fixture.done("sync a.raw b.vhd --read-holes --verify all");
    fixture.done("diff a.raw b.raw --read-holes");
    fixture.done("diff b.vhd b.raw --read-holes");
    fixture.done("delta create a.raw b.raw -o ab.delta --read-holes");
    fixture.done("delta apply ab.delta b.raw --read-holes");
    shell(&fixture, "--root .");
    for verify in ["written", "all"] {
        let how = format!("--read-holes --verify {verify} --rsh ./rsh");
        fixture.done(&format!("sync ssh://host/a.raw c.raw {how}"));
        fixture.done(&format!("sync a.raw ssh://host/d.raw {how}"));
        for name in ["c.raw", "d.raw"] {
            assert!(fixture.bytes(name) == fixture.bytes("a.raw"));
        }
    }
    // A chain, too.
    let mut other = fixture.bytes("a.raw");
    other[5 << 20] = 1;
    fs::write(fixture.path("other.raw"), other).unwrap();
    fixture.done("delta create b.vhd other.raw -o child.delta --read-holes");
    fixture.done("delta export child.delta --parent b.vhd --to child.vhd");
    fixture.done("diff child.vhd other.raw --read-holes");
    // Zeros that were read are not written.
    let blocks = fs::metadata(fixture.path("b.raw")).unwrap().blocks();
    assert!(blocks * 512 < 4 << 20);
}

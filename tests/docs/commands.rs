//! Every command line of the documentation works, or is at least one that the command accepts.
//!
//! A block of shell lines names after its language how it is tested:
//! - `run`: each line is run, in a directory with the disks of [`Sandbox`], new for each block;
//!   paths below `/srv` and `/dev/vg0` are taken from there. A comment `# exit status N` gives the
//!   status, else it is 0.
//! - `parse`: lines of `diskdelta` are only parsed: they need another host, a device, or a job.
//! - `install`: `cargo install`, whose features must exist.
//! - `elsewhere`: another test runs it, or it is what runs the tests.

use std::fs;

use clap::Parser;
use diskdelta::cli::Cli;

use crate::pages::{Block, Page, pages};
use crate::sandbox::Sandbox;

#[test]
fn every_block_of_shell_lines_says_how_it_is_tested() {
    for page in pages() {
        for block in page.blocks() {
            let mut words = block.info.split_whitespace();
            let language = words.next().unwrap_or_default();
            assert_ne!(language, "", "{}:{}: no language", page.name, block.line);
            assert!(
                !["sh", "bash", "shell"].contains(&language),
                "{}:{}: `console` is the language of commands",
                page.name,
                block.line
            );
            if language == "console" {
                let how = words.next().unwrap_or_default();
                assert!(
                    ["run", "parse", "install", "elsewhere"].contains(&how),
                    "{}:{}: console, but tested how?",
                    page.name,
                    block.line
                );
                assert!(!lines(&block).is_empty(), "{}:{}", page.name, block.line);
            }
        }
    }
}

#[test]
fn every_line_to_run_runs() {
    let mut count = 0;
    for page in pages() {
        for block in marked(&page, "run") {
            let sandbox = Sandbox::new();
            for line in lines(&block) {
                sandbox.run(&format!("{}:{}", page.name, block.line), &line);
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn every_line_of_the_command_parses() {
    let mut count = 0;
    for page in pages() {
        for how in ["run", "parse"] {
            for block in marked(&page, how) {
                for line in lines(&block) {
                    count += usize::from(parses(&page, &block, &line));
                }
            }
        }
    }
    assert!(count > 80, "{count}");
}

#[test]
fn features_that_are_installed_are_there() {
    let manifest = fs::read_to_string(crate::pages::top().join("Cargo.toml")).unwrap();
    let mut count = 0;
    for page in pages() {
        for block in marked(&page, "install") {
            for line in lines(&block) {
                let (_, features) = line.split_once("--features ").unwrap();
                for feature in features.split([',', ' ']) {
                    assert!(manifest.contains(&format!("\n{feature} = [")), "{line}");
                    count += 1;
                }
            }
        }
    }
    assert!(count > 0);
}

fn marked(page: &Page, how: &str) -> Vec<Block> {
    let mark = format!("console {how}");
    let blocks = page.blocks().into_iter();
    blocks.filter(|block| block.info == mark).collect()
}

/// The commands of a block: what follows a prompt, with continued lines put together.
fn lines(block: &Block) -> Vec<String> {
    let text = block.text.replace("\\\n", " ");
    let lines = text.lines().filter_map(|line| {
        let (prompt, command) = line.split_once("$ ")?;
        let host = prompt.chars().all(|it| it.is_ascii_alphanumeric());
        host.then(|| command.to_owned())
    });
    lines.collect()
}

/// Parses a line of `diskdelta`; whether it is one.
fn parses(page: &Page, block: &Block, line: &str) -> bool {
    let Some(start) = line.strip_prefix("diskdelta ") else {
        return false;
    };
    // A word that names a file with an address is read where it is parsed.
    let words = words(start)
        .into_iter()
        .map(|word| match word.strip_prefix('@') {
            Some(_) => "https://host.example/disk.vhdx".to_owned(),
            None => word,
        });
    let words: Vec<_> = words.collect();
    if let Err(error) = Cli::try_parse_from([&["diskdelta".to_owned()], &words[..]].concat()) {
        assert!(
            !error.use_stderr(),
            "{}:{}: {line}\n{error}",
            page.name,
            block.line
        );
    }
    true
}

/// The words of a line as a shell has them: quotes, and comments left out.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            (_, Some(q)) if c == q => quote = None,
            (_, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (' ', None) => words.extend(word.take()),
            ('#', None) if word.is_none() => break,
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

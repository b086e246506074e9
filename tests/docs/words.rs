//! Lines end at 100 columns, and texts name agents and states.

use std::fs;
use std::path::PathBuf;

use crate::pages::{files, pages, top};

const COLUMNS: usize = 100;

/// Words of texts that do not name who does something, or what is the case.
const VAGUE: [&str; 6] = [
    "nobody",
    "whoever",
    "somebody",
    "so many bytes",
    "is told",
    "gone wrong",
];

#[test]
fn lines_of_pages_end_at_100_columns() {
    let mut long = Vec::new();
    for page in pages() {
        for (number, line) in page.prose() {
            // Tables cannot be broken, nor can links.
            let exempt = line.starts_with('|') || line.contains("](") || line.contains("https://");
            if !exempt && line.chars().count() > COLUMNS {
                long.push(format!("{}:{number}", page.name));
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn lines_of_code_end_at_100_columns() {
    let mut long = Vec::new();
    for path in sources(&["src", "tests", "benches", "examples", "fuzz/src"]) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            // Neither tables nor texts can be broken.
            let exempt = line.trim_start().starts_with("//! |") || line.contains('"');
            if !exempt && line.chars().count() > COLUMNS {
                long.push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn texts_name_who_does_what() {
    let mut found = Vec::new();
    let mut look = |name: String, text: &str| {
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.to_lowercase();
            let vague = VAGUE.iter().find(|phrase| has(&line, phrase));
            found.extend(vague.map(|phrase| format!("{name}:{number}: {phrase}")));
        }
    };
    for page in pages() {
        look(page.name, &page.text);
    }
    for path in sources(&["src"]) {
        look(
            path.display().to_string(),
            &fs::read_to_string(&path).unwrap(),
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Whether a line has a phrase as whole words.
fn has(line: &str, phrase: &str) -> bool {
    line.match_indices(phrase).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + phrase.len()..].chars().next();
        let ends = |it: Option<char>| it.is_none_or(|it| !it.is_alphanumeric() && it != '_');
        ends(before) && ends(after)
    })
}

fn sources(directories: &[&str]) -> Vec<PathBuf> {
    let directories = directories.iter();
    directories
        .flat_map(|directory| files(&top().join(directory), "rs"))
        .collect()
}

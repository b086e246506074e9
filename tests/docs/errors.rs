//! `docs/reference/errors.md` lists the text of every error, made from the sources.
//!
//! `DISKDELTA_WRITE_ERRORS=1 cargo test --all-features --test docs errors` writes it anew.

use std::collections::BTreeMap;
use std::fs;

use crate::pages::{files, top};

const PAGE: &str = "docs/reference/errors.md";

const HEAD: &str = "\
# Errors

Every error of diskdelta, in the form `cannot OPERATION OBJECT: reason (field, offset): cause; what
to do`, of which each part may be missing. The texts are the reasons, and operations without one.
`{…}` stands for a value. This page is made from the sources by a test. The kind is what
[`--json`](json.md#errors) names, and what the library's `ErrorKind` is.

Texts without advice of their own come with the advice of their caller: whether the target is
untouched, whole or marked, and how to continue. [Troubleshooting](../guide/troubleshooting.md)
groups the most frequent ones.
";

/// Where an error is made, and the kind that it has where none is named.
const MAKERS: [(&str, &str); 8] = [
    ("Error::new(", ""),
    ("Error::io(", "io"),
    ("Error::malformed(", "malformed"),
    ("malformed(", "malformed"),
    ("broken(", "malformed"),
    ("corrupt(", "malformed"),
    ("wrong(", "malformed"),
    ("invalid(", "invalid_input"),
];

#[test]
fn the_page_of_errors_lists_every_text() {
    let page = page();
    let path = top().join(PAGE);
    if std::env::var_os("DISKDELTA_WRITE_ERRORS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    let missing: Vec<_> = page.lines().filter(|it| !written.contains(it)).collect();
    let gone: Vec<_> = written.lines().filter(|it| !page.contains(it)).collect();
    assert!(
        missing.is_empty() && gone.is_empty() && written == page,
        "DISKDELTA_WRITE_ERRORS=1 writes {PAGE} anew\nmissing: {missing:#?}\ngone: {gone:#?}"
    );
}

#[test]
fn troubleshooting_quotes_texts_that_there_are() {
    let sources = files(&top().join("src"), "rs").into_iter();
    let sources: String = sources
        .map(|it| joined(&fs::read_to_string(it).unwrap()))
        .collect();
    let page = fs::read_to_string(top().join("docs/guide/troubleshooting.md")).unwrap();
    let mut count = 0;
    for row in page.lines().filter(|it| it.starts_with("| `")) {
        let cell = row.split(" | ").next().unwrap_or_default();
        for words in cell.split('`').skip(1).step_by(2) {
            assert!(sources.contains(words), "{words}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn error_texts_begin_in_lower_case_and_have_no_full_stop() {
    for (_, text, advice) in errors().keys() {
        for text in [text, advice] {
            let names = ["QEMU", "TLS", "NBD", "VHD", "XML", "JSON"];
            let named = names.iter().any(|name| text.starts_with(name));
            let first = text.chars().next();
            assert!(named || first.is_none_or(|it| !it.is_uppercase()), "{text}");
            assert!(!text.ends_with('.'), "{text}");
        }
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let errors = errors();
    let kinds: BTreeMap<&str, ()> = errors.keys().map(|it| (&it.0[..], ())).collect();
    for kind in kinds.keys() {
        let title = if kind.is_empty() { "several" } else { kind };
        page += &format!("\n## {title}\n\n| text | what to do |\n| --- | --- |\n");
        for (of, text, advice) in errors.keys().filter(|it| it.0 == *kind) {
            assert_eq!(of, kind);
            page += &format!("| {} | {} |\n", cell(text), cell(advice));
        }
    }
    page
}

/// A text as a cell of a table.
fn cell(text: &str) -> String {
    let text = text.replace('|', "\\|").replace('<', "&lt;");
    let mut out = String::new();
    let mut in_value = 0;
    for c in text.chars() {
        match c {
            '{' => {
                in_value += 1;
                out.push_str("{…}");
            }
            '}' => in_value -= 1,
            _ if in_value > 0 => {}
            c => out.push(c),
        }
    }
    out
}

/// Kind, text and advice of every error.
fn errors() -> BTreeMap<(String, String, String), ()> {
    let words = words();
    let mut errors = BTreeMap::new();
    for path in files(&top().join("src"), "rs") {
        let source = fs::read_to_string(&path).unwrap();
        let source = source.split("\n#[cfg(test)]\n").next().unwrap_or_default();
        let source: Vec<_> = source
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        collect(&source.join("\n"), &words, &mut errors);
    }
    assert!(errors.len() > 300, "{}", errors.len());
    errors
}

fn collect(
    source: &str,
    words: &BTreeMap<String, String>,
    errors: &mut BTreeMap<(String, String, String), ()>,
) {
    for (maker, usual) in MAKERS {
        for (at, _) in source.match_indices(maker) {
            let before = source[..at].chars().next_back().unwrap_or(' ');
            if before.is_alphanumeric() || "_:".contains(before) && !maker.starts_with("Error") {
                continue;
            }
            let rest = &source[at + maker.len()..];
            let arguments = &rest[..end(rest)];
            let Some(text) = literal(arguments) else {
                continue;
            };
            let kind = match arguments.split_once("ErrorKind::") {
                Some((_, name)) => {
                    let ends = name.find(|it: char| !it.is_alphanumeric());
                    snake(&name[..ends.unwrap_or(name.len())])
                }
                None => usual.to_owned(),
            };
            let text = if maker == "Error::io(" {
                format!("cannot {text}")
            } else {
                text
            };
            // Names of fields and parts of texts are no errors.
            if text.contains(' ') {
                let statement = rest.split(";\n").next().unwrap_or_default();
                errors.insert((kind, text, advice(statement, words)), ());
            }
        }
    }
}

/// Source with texts of several lines put together.
fn joined(source: &str) -> String {
    let mut parts = source.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.trim_start())
}

/// The advice that a statement gives, each as text or by the words that its type has.
fn advice(statement: &str, words: &BTreeMap<String, String>) -> String {
    let mut all = Vec::new();
    for (at, name) in statement.match_indices("advise(") {
        let after = &statement[at + name.len()..];
        let arguments = &after[..end(after)];
        let named = arguments.split("Advice::").nth(1).map(|it| {
            let ends = it.find(|it: char| !it.is_alphanumeric());
            &it[..ends.unwrap_or(it.len())]
        });
        let text = named.and_then(|it| words.get(it).cloned());
        all.extend(text.or_else(|| literal(arguments)));
    }
    all.join("; ")
}

/// The words of each typed advice.
fn words() -> BTreeMap<String, String> {
    let source = fs::read_to_string(top().join("src/advice.rs")).unwrap();
    let source = source.replace(":\n", ": ");
    let (_, table) = source.split_once("\nadvices! {").unwrap();
    let rows = table.lines().take_while(|it| *it != "}");
    let words = rows.filter_map(|row| {
        let (name, text) = row.trim().split_once(": ")?;
        Some((name.to_owned(), literal(text)?))
    });
    words.collect()
}

/// Where arguments end that begin here: behind their parenthesis.
fn end(source: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (1, false, false);
    for (at, c) in source.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    source.len()
}

/// The first text in a piece of source, as it is shown.
fn literal(source: &str) -> Option<String> {
    let (_, after) = source.split_once('"')?;
    let mut text = String::new();
    let mut chars = after.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Some(text),
            '\\' => match chars.next()? {
                '\n' => while chars.next_if(|it| it.is_whitespace()).is_some() {},
                'n' => text.push(' '),
                c => text.push(c),
            },
            c => text.push(c),
        }
    }
    None
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

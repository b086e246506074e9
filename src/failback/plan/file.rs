//! A plan's text: reads it, and finds the line of each key.

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, ErrorKind, Result};

/// Reads the file; how its values go together is checked later.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        wrong(text, at, &key_at(text, at), error.message())
    })
}

/// The keys of a plan that could be read.
pub(super) struct Keys<'a> {
    text: &'a str,
    all: DeTable<'a>,
}

impl<'a> Keys<'a> {
    /// Those of a plan.
    pub(super) fn of(text: &'a str) -> Self {
        // What is wrong with it was said by `read`.
        let all = DeTable::parse_recoverable(text).0.into_inner();
        Keys { text, all }
    }

    /// The error for a key; `items` are the numbers of the groups, VMs and disks on the way to it.
    /// A key that is not there is one of the last table that is.
    pub(super) fn wrong(&self, key: &str, items: &[usize], why: impl AsRef<str>) -> Error {
        wrong(self.text, self.find(key, items), key, why.as_ref())
    }

    /// The line of a key.
    pub(super) fn line(&self, key: &str, items: &[usize]) -> usize {
        line_of(self.text, self.find(key, items))
    }

    fn find(&self, key: &str, items: &[usize]) -> usize {
        let (mut at, mut table, mut items) = (0, &self.all, items.iter());
        for part in key.split('.') {
            let Some(mut found) = table.get(part) else {
                break;
            };
            if let (DeValue::Array(list), Some(item)) = (found.get_ref(), items.next()) {
                found = list.get(*item).unwrap_or(found);
            }
            at = found.span().start;
            match found.get_ref() {
                DeValue::Table(inside) => table = inside,
                _ => break,
            }
        }
        at
    }
}

fn wrong(text: &str, at: usize, key: &str, why: &str) -> Error {
    let line = line_of(text, at);
    let said = match key.is_empty() || why.contains(key) {
        true => format!("line {line}: {why}"),
        false => format!("line {line}, key `{key}`: {why}"),
    };
    Error::new(ErrorKind::InvalidInput, said)
}

/// The line, from 1 on, that a byte of a text stands in.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// The key, with its tables, that a byte stands in.
fn key_at(text: &str, at: usize) -> String {
    let until = text.get(..at).unwrap_or(text);
    let begin = until.rfind('\n').map_or(0, |end| end + 1);
    let line = text[begin..].lines().next().unwrap_or_default();
    let is_table = |line: &&str| line.trim_start().starts_with('[');
    let mut tables = until[..begin].lines().chain([line]).filter(is_table);
    let table = tables.next_back().unwrap_or_default();
    let mut keys = vec![table.split('#').next().unwrap_or_default()];
    if !is_table(&line) {
        keys.extend(line.split(['=', '#']).next());
        // Of a table that is written in one line, the key that comes last before that.
        let inline = until[begin..].rsplit_once(['{', ',']);
        let inline = inline.filter(|(before, _)| before.contains('=') && line.contains('{'));
        keys.extend(inline.and_then(|(_, key)| key.split('=').next()));
    }
    let keys = keys.iter().map(|key| key.trim().trim_matches(['[', ']']));
    let keys: Vec<_> = keys.filter(|key| !key.is_empty()).collect();
    keys.join(".")
}

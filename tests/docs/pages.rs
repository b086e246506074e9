//! The pages of the documentation, and what they consist of.

use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown file of the repository.
pub struct Page {
    /// Its path from the top.
    pub name: String,
    pub text: String,
}

/// A fenced block of a page.
pub struct Block {
    /// What follows the opening fence.
    pub info: String,
    /// The line of the opening fence, from 1.
    pub line: usize,
    pub text: String,
}

/// Where the repository is.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All pages.
pub fn pages() -> Vec<Page> {
    let mut found = files(&top().join("docs"), "md");
    found.extend(files(&top().join(".github"), "md"));
    let entries = fs::read_dir(top()).unwrap().map(|it| it.unwrap().path());
    found.extend(entries.filter(|it| it.extension().is_some_and(|it| it == "md")));
    let pages: Vec<_> = found.iter().map(|path| Page::read(path)).collect();
    assert!(pages.len() > 15, "{}", pages.len());
    pages
}

/// The files below `directory` with an extension.
pub fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else {
        return found;
    };
    for path in entries.map(|it| it.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

impl Page {
    fn read(path: &Path) -> Page {
        Page {
            name: path.strip_prefix(top()).unwrap().display().to_string(),
            text: fs::read_to_string(path).unwrap(),
        }
    }

    /// The lines outside of fenced blocks, with their numbers from 1.
    pub fn prose(&self) -> Vec<(usize, &str)> {
        let mut fenced = false;
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(self.text.lines()) {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                lines.push((number, line));
            }
        }
        assert!(!fenced, "{}: a block has no end", self.name);
        lines
    }

    /// The fenced blocks.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut fenced = false;
        for (line, text) in (1..).zip(self.text.lines()) {
            if let Some(info) = text.strip_prefix("```") {
                fenced = !fenced;
                if fenced {
                    blocks.push(Block {
                        info: info.to_owned(),
                        line,
                        text: String::new(),
                    });
                }
            } else if let Some(block) = blocks.last_mut().filter(|_| fenced) {
                block.text += text;
                block.text += "\n";
            }
        }
        blocks
    }
}

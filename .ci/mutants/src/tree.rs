//! A copy of the project into which mutants are compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::mutant::Mutant;
use crate::place::place;

/// The copy; it keeps what it has built.
pub struct Tree {
    pub path: PathBuf,
    project: PathBuf,
}

impl Tree {
    /// Copies all files that git knows.
    pub fn copy(project: &Path, path: PathBuf) -> Result<Self, Box<dyn Error>> {
        let listed = Command::new("git")
            .args(["ls-files", "-z"])
            .current_dir(project)
            .output()?;
        for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
            let (from, to) = (project.join(name), path.join(name));
            fs::create_dir_all(to.parent().ok_or("a file without a directory")?)?;
            fs::copy(from, to)?;
        }
        Ok(Tree {
            path,
            project: project.to_owned(),
        })
    }

    /// Puts the mutants in, as many as compile. Of those that could be placed, says whether they
    /// do.
    pub fn compile(&self, mutants: &[Mutant]) -> Result<BTreeMap<usize, bool>, Box<dyn Error>> {
        let mut refused = BTreeSet::new();
        loop {
            let (placed, impossible) = self.rewrite(mutants, &refused)?;
            refused.extend(impossible);
            let (is_good, named) = self.check()?;
            let news: Vec<_> = named.difference(&refused).copied().collect();
            eprintln!(
                "{} mutants placed, {} do not compile",
                placed.len(),
                refused.len()
            );
            if is_good {
                let all = placed.union(&refused);
                return Ok(all.map(|id| (*id, !refused.contains(id))).collect());
            }
            if news.is_empty() {
                let path = self.path.display();
                return Err(
                    format!("an error that no mutant stands beside; cargo check {path}").into(),
                );
            }
            refused.extend(news);
        }
    }

    /// Tells which were put in, and which cannot be.
    fn rewrite(
        &self,
        mutants: &[Mutant],
        without: &BTreeSet<usize>,
    ) -> Result<(BTreeSet<usize>, BTreeSet<usize>), Box<dyn Error>> {
        let (mut placed, mut refused) = (BTreeSet::new(), BTreeSet::new());
        let files: BTreeSet<_> = mutants.iter().map(|it| it.file.as_str()).collect();
        for file in files {
            let text = fs::read_to_string(self.project.join(file))?;
            let here = mutants
                .iter()
                .filter(|it| it.file == file && !without.contains(&it.id));
            let file_with = place(&text, &here.collect::<Vec<_>>())?;
            placed.extend(file_with.placed);
            refused.extend(file_with.refused);
            fs::write(self.path.join(file), file_with.text)?;
        }
        let root = "src/lib.rs";
        let text = match mutants.iter().any(|it| it.file == root) {
            true => fs::read_to_string(self.path.join(root))?,
            false => fs::read_to_string(self.project.join(root))?,
        };
        fs::write(self.path.join(root), format!("{ALLOW}{text}{SWITCH}"))?;
        Ok((placed, refused))
    }

    /// Whether it compiles, and beside which mutants the errors are.
    fn check(&self) -> Result<(bool, BTreeSet<usize>), Box<dyn Error>> {
        let check = ["check", "--all-features", "--lib", "--message-format=json"];
        let output = Command::new("cargo")
            .args(check)
            .current_dir(&self.path)
            .output()?;
        let mut named = BTreeSet::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let said: Value = serde_json::from_str(line)?;
            let message = &said["message"];
            if message["level"] == "error" {
                let spans = message["spans"].as_array().into_iter().flatten();
                let mut near: Vec<_> = spans
                    .map(|span| (span["is_primary"] != true, span))
                    .collect();
                near.sort_by_key(|it| it.0);
                let ids = near.iter().map(|(_, span)| self.beside(span));
                let ids = ids.into_iter().find(|ids| !ids.is_empty());
                // Arms that are left out are missed by the `match` that they are in.
                let next = || near.first().and_then(|(_, span)| self.next_arm(span));
                named.extend(ids.unwrap_or_else(|| next().into_iter().collect()));
            }
        }
        Ok((output.status.success(), named))
    }

    /// The first mutant after a span that leaves an arm out.
    fn next_arm(&self, span: &Value) -> Option<usize> {
        let text = self.text(span);
        let mut lines = text.lines().skip(line_at(span, "line_start"));
        lines.find_map(|line| mutant_in(line).filter(|_| line.contains("]) == 0")))
    }

    /// The mutants in the lines of a span.
    fn beside(&self, span: &Value) -> Vec<usize> {
        let (first, last) = (line_at(span, "line_start"), line_at(span, "line_end"));
        let text = self.text(span);
        let lines = text.lines().skip(first - 1).take(last + 1 - first);
        lines.filter_map(mutant_in).collect()
    }

    fn text(&self, span: &Value) -> String {
        let file = span["file_name"].as_str().unwrap_or_default();
        fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }
}

/// A line of a span, from 1 on.
fn line_at(span: &Value, key: &str) -> usize {
    span[key].as_u64().unwrap_or(1).max(1) as usize
}

/// The mutant that a line begins with.
fn mutant_in(line: &str) -> Option<usize> {
    line.strip_prefix("/*#")?.split_once("*/")?.0.parse().ok()
}

const ALLOW: &str = "#![allow(warnings, clippy::all, arithmetic_overflow, unconditional_panic)]\n";

/// Which mutant is on, and which were met.
const SWITCH: &str = r#"
pub(crate) fn mutant(ids: &[usize]) -> usize {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::LazyLock;
    static ON: LazyLock<usize> = LazyLock::new(|| {
        std::env::var("MUTANT").ok().and_then(|it| it.parse().ok()).unwrap_or(0)
    });
    static RECORD: LazyLock<Option<std::fs::File>> = LazyLock::new(|| {
        let path = std::env::var_os("MUTANT_RECORD")?;
        std::fs::OpenOptions::new().create(true).append(true).open(path).ok()
    });
    static MET: [AtomicBool; 1 << 14] = [const { AtomicBool::new(false) }; 1 << 14];
    if let Some(mut record) = RECORD.as_ref() {
        for id in ids {
            if !MET[*id].load(Ordering::Relaxed) && !MET[*id].swap(true, Ordering::Relaxed) {
                let _ = record.write_all(format!("{id}\n").as_bytes());
            }
        }
    }
    if *ON != 0 && ids.contains(&*ON) { *ON } else { 0 }
}
"#;

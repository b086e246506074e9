//! The mutants, and what became of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

/// A change to the code that a test should notice.
pub struct Mutant {
    /// From 1 on, in the order of the list.
    pub id: usize,
    pub file: String,
    pub genre: Genre,
    /// Line and column, both from 1 on.
    pub start: (usize, usize),
    pub end: (usize, usize),
    pub function: String,
    pub replacement: String,
}

/// What a mutant changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Genre {
    /// The function returns the replacement at once.
    Value,
    BinaryOperator,
    /// The operator is left out.
    UnaryOperator,
    /// The arm is left out.
    Arm,
    /// The guard is the replacement.
    Guard,
}

/// What became of a mutant.
pub enum Fate {
    /// It is no program.
    NotCompiled,
    /// It cannot be switched while the program runs (lengths of arrays, `impl Trait`, guards that
    /// bind).
    NotPlaced,
    /// No test comes by.
    NotReached,
    /// The test that failed.
    Caught(String),
    /// So many tests passed, of so many that reach it.
    Survived(usize, usize),
}

impl Mutant {
    /// The same in every run, wherever it stands in the list.
    fn name(&self) -> String {
        let (line, column) = self.start;
        let change = self
            .replacement
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        format!("{}:{line}:{column}\t{}\t{change}", self.file, self.function)
    }
}

/// Asks cargo-mutants for the mutants of the files, `src/sync/**` for example.
pub fn list(project: &Path, files: &[String]) -> Result<Vec<Mutant>, Box<dyn Error>> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["mutants", "--list", "--json"])
        .current_dir(project);
    for file in files {
        cargo.args(["-f", file]);
    }
    let output = cargo.output()?;
    let all: Vec<Value> = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&output.stderr)))?;
    all.iter().zip(1..).map(|(it, id)| read(it, id)).collect()
}

fn read(said: &Value, id: usize) -> Result<Mutant, Box<dyn Error>> {
    let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
    let place = |it: &Value| {
        let number = |it: &Value| it.as_u64().unwrap_or(1) as usize;
        (number(&it["line"]), number(&it["column"]))
    };
    Ok(Mutant {
        id,
        file: text(&said["file"]),
        genre: match said["genre"].as_str() {
            Some("FnValue") => Genre::Value,
            Some("BinaryOperator") => Genre::BinaryOperator,
            Some("UnaryOperator") => Genre::UnaryOperator,
            Some("MatchArm") => Genre::Arm,
            Some("MatchArmGuard") => Genre::Guard,
            other => return Err(format!("a mutant of an unknown kind: {other:?}").into()),
        },
        start: place(&said["span"]["start"]),
        end: place(&said["span"]["end"]),
        function: text(&said["function"]["function_name"]),
        replacement: text(&said["replacement"]),
    })
}

/// One line for each mutant, added as its fate is known.
pub struct Ledger {
    fates: Mutex<BTreeMap<String, String>>,
    file: Mutex<File>,
}

impl Ledger {
    pub fn open(path: PathBuf) -> Result<Self, Box<dyn Error>> {
        let mut fates = BTreeMap::new();
        for line in fs::read_to_string(&path).unwrap_or_default().lines() {
            if let Some((fate, rest)) = line.split_once('\t')
                && let Some((name, _)) = rest.rsplit_once('\t')
            {
                fates.insert(name.to_owned(), fate.to_owned());
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Ledger {
            fates: Mutex::new(fates),
            file: Mutex::new(file),
        })
    }

    pub fn knows(&self, mutant: &Mutant) -> bool {
        self.fates.lock().unwrap().contains_key(&mutant.name())
    }

    pub fn fate(&self, mutant: &Mutant) -> &'static str {
        let fates = self.fates.lock().unwrap();
        let fate = fates.get(&mutant.name()).map_or("", String::as_str);
        KINDS.iter().find(|it| **it == fate).unwrap_or(&"unknown")
    }

    pub fn note(&self, mutant: &Mutant, fate: &Fate) {
        let (kind, more) = match fate {
            Fate::NotCompiled => (KINDS[0], String::new()),
            Fate::NotPlaced => (KINDS[1], String::new()),
            Fate::NotReached => (KINDS[2], String::new()),
            Fate::Caught(test) => (KINDS[3], test.clone()),
            Fate::Survived(tried, of) => (KINDS[4], format!("{tried} of {of} tests")),
        };
        let name = mutant.name();
        let line = format!("{kind}\t{name}\t{more}\n");
        self.file
            .lock()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
        self.fates.lock().unwrap().insert(name, kind.to_owned());
    }
}

const KINDS: [&str; 5] = [
    "not compiled",
    "not placed",
    "not reached",
    "caught",
    "survived",
];

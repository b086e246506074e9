//! Holds every mutant that cargo-mutants lists against the tests that reach it, in one build.
//!
//! `cargo mutants` builds the crate for each mutant anew. Here all of them are compiled into one
//! copy of the crate, each behind a switch that an environment variable turns. A first run of each
//! test, alone, writes down which mutants it reaches; then each mutant is switched on for these
//! tests, the shortest first, until one fails.
//!
//! ```text
//! cargo run --release --manifest-path .ci/mutants/Cargo.toml -- 'src/delta/**' 'src/sync/**'
//! ```
//!
//! Needs `cargo-mutants`. Writes `target/mutants/mutants.tsv`, goes on with what is there already,
//! and prints the counts. `MUTANT_SECONDS` (60) is spent on the tests of one mutant at most;
//! `MUTANT_TESTS` names the tests that are asked, as cargo does (`--lib --tests`);
//! `MUTANT_MEMORY_MIB` (4096) is what one test may take. Files that are named without a pattern
//! come first.

mod mutant;
mod place;
mod suite;
mod tree;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use mutant::{Fate, Ledger, Mutant};
use suite::Suite;
use tree::Tree;

fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<String> = env::args().skip(1).collect();
    let seconds = env::var("MUTANT_SECONDS").map_or(Ok(60), |it| it.parse())?;
    let project = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()?;
    let directory = project.join("target/mutants");
    fs::create_dir_all(&directory)?;

    let mutants = mutant::list(&project, &files)?;
    let tree = Tree::copy(&project, directory.join("tree"))?;
    let compiled = tree.compile(&mutants)?;
    let suite = Suite::build(&tree)?;
    let reached = suite.record(&directory.join("reached.tsv"))?;

    let ledger = Ledger::open(directory.join("mutants.tsv"))?;
    let mut open: Vec<&Mutant> = mutants.iter().filter(|it| !ledger.knows(it)).collect();
    open.sort_by_key(|it| !files.contains(&it.file));
    suite.hold(&open, |mutant| {
        let fate = match (compiled.get(&mutant.id), reached.get(&mutant.id)) {
            (Some(false), _) => Fate::NotCompiled,
            (None, _) => Fate::NotPlaced,
            (_, None) => Fate::NotReached,
            (_, Some(tests)) => suite.hunt(mutant.id, tests, Duration::from_secs(seconds)),
        };
        ledger.note(mutant, &fate);
    });

    let mut counts = BTreeMap::<&str, usize>::new();
    for mutant in &mutants {
        *counts.entry(ledger.fate(mutant)).or_default() += 1;
    }
    println!("{} mutants", mutants.len());
    for (fate, count) in counts {
        println!("{count:6} {fate}");
    }
    Ok(())
}

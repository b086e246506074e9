//! The tests, run one at a time.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::mutant::{Fate, Mutant};
use crate::tree::Tree;

/// All tests of the crate.
pub struct Suite {
    directory: PathBuf,
    /// The address space of one test, in KiB: a mutant may ask for more and more.
    memory: String,
    tests: Vec<Test>,
}

/// A test by its name, and the program that has it.
#[derive(Clone)]
struct Test {
    program: PathBuf,
    name: String,
}

/// How a run of a test ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    OutOfTime,
}

/// A test that reaches a mutant, and how long it takes.
pub struct Reach {
    test: usize,
    time: Duration,
}

impl Suite {
    /// Builds them: those that `MUTANT_TESTS` names as cargo does, by default all.
    pub fn build(tree: &Tree) -> Result<Self, Box<dyn Error>> {
        let which = std::env::var("MUTANT_TESTS").unwrap_or_else(|_| "--lib --tests".to_owned());
        let memory = std::env::var("MUTANT_MEMORY_MIB").map_or(Ok(4096), |it| it.parse::<u64>())?;
        let memory = (memory << 10).to_string();
        let output = Command::new("cargo")
            .args([
                "test",
                "--all-features",
                "--no-run",
                "--message-format=json",
            ])
            .args(which.split_whitespace())
            .current_dir(&tree.path)
            .stderr(Stdio::inherit())
            .output()?;
        let mut tests = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let said: Value = serde_json::from_str(line)?;
            let is_test = said["profile"]["test"] == true;
            if let (true, Some(program)) = (is_test, said["executable"].as_str()) {
                let listed = Command::new(program)
                    .args(["--list", "--format", "terse"])
                    .current_dir(&tree.path)
                    .output()?;
                let listed = String::from_utf8(listed.stdout)?;
                let names = listed.lines().filter_map(|it| it.strip_suffix(": test"));
                tests.extend(names.map(|name| Test {
                    program: program.into(),
                    name: name.to_owned(),
                }));
            }
        }
        match output.status.success() && !tests.is_empty() {
            true => Ok(Suite {
                directory: tree.path.clone(),
                memory,
                tests,
            }),
            false => Err("the tests do not build".into()),
        }
    }

    /// Runs each test once, alone, and tells which mutants it meets; a mutant's tests come shortest
    /// first. Tests that fail without a mutant count for nothing.
    pub fn record(&self, into: &Path) -> Result<BTreeMap<usize, Vec<Reach>>, Box<dyn Error>> {
        let mut file = File::create(into)?;
        let reached = Mutex::new(BTreeMap::<usize, Vec<Reach>>::new());
        let lines = Mutex::new(Vec::new());
        let all: Vec<usize> = (0..self.tests.len()).collect();
        each(&all, |test| {
            let record =
                std::env::temp_dir().join(format!("mutants-met-{}-{test}", std::process::id()));
            let begin = Instant::now();
            let variable = ("MUTANT_RECORD", record.as_os_str());
            let passed = self.run(*test, variable, RECORD_LIMIT) == End::Passed;
            let time = begin.elapsed();
            let met = fs::read_to_string(&record).unwrap_or_default();
            let _ = fs::remove_file(record);
            let name = &self.tests[*test].name;
            let line = format!(
                "{name}\t{passed}\t{}\t{}\n",
                time.as_millis(),
                met.lines().count()
            );
            lines.lock().unwrap().push(line);
            if passed {
                let mut reached = reached.lock().unwrap();
                let mut ids: Vec<usize> = met.lines().filter_map(|it| it.parse().ok()).collect();
                ids.sort_unstable();
                ids.dedup();
                for id in ids {
                    reached
                        .entry(id)
                        .or_default()
                        .push(Reach { test: *test, time });
                }
            }
        });
        file.write_all(lines.into_inner().unwrap().concat().as_bytes())?;
        let mut reached = reached.into_inner().unwrap();
        for tests in reached.values_mut() {
            tests.sort_by_key(|it| it.time);
        }
        Ok(reached)
    }

    /// Does something for each mutant, several at a time.
    pub fn hold(&self, mutants: &[&Mutant], work: impl Fn(&Mutant) + Sync) {
        each(mutants, |mutant| work(mutant));
    }

    /// Switches a mutant on, and runs tests until one fails, or their time is up.
    pub fn hunt(&self, id: usize, tests: &[Reach], most: Duration) -> Fate {
        let (begin, id) = (Instant::now(), id.to_string());
        for (tried, reach) in tests.iter().enumerate() {
            if tried > 0 && begin.elapsed() + reach.time > most {
                return Fate::Survived(tried, tests.len());
            }
            let limit = reach.time * 10 + Duration::from_secs(20);
            let end = self.run(reach.test, ("MUTANT", id.as_ref()), limit);
            if end != End::Passed {
                let test = &self.tests[reach.test];
                let program = test
                    .program
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy();
                let program = program
                    .rsplit_once('-')
                    .map_or(&*program, |it| it.0)
                    .to_owned();
                let how = if end == End::OutOfTime { LATE } else { "" };
                return Fate::Caught(format!("{program} {}{how}", test.name));
            }
        }
        Fate::Survived(tests.len(), tests.len())
    }

    /// Runs a test, with so much time and memory. What it has started dies with it.
    fn run(&self, test: usize, variable: (&str, &std::ffi::OsStr), limit: Duration) -> End {
        let test = &self.tests[test];
        let directory = match tempfile() {
            Ok(directory) => directory,
            Err(error) => panic!("no directory for a test: {error}"),
        };
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -v $0 && exec \"$@\""])
            .arg(&self.memory)
            .arg(&test.program)
            .args(["--exact", &test.name])
            .env(variable.0, variable.1)
            .env("CARGO_MANIFEST_DIR", &self.directory)
            .env("TMPDIR", &directory)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let begin = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if begin.elapsed() > limit => break None,
                None => thread::sleep(NAP),
            }
        };
        if status.is_none_or(|it| !it.success()) {
            let group = format!("-{}", child.id());
            let _ = Command::new("kill")
                .args(["-9", "--", &group])
                .stderr(Stdio::null())
                .status();
            let _ = child.wait();
            let_go(&directory);
        }
        let _ = fs::remove_dir_all(&directory);
        match status {
            None => End::OutOfTime,
            Some(it) if it.success() => End::Passed,
            Some(_) => End::Failed,
        }
    }
}

fn tempfile() -> std::io::Result<PathBuf> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("mutants-{}-{number}", std::process::id()));
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// Takes away the mounts and loop devices that a killed test has left.
fn let_go(directory: &Path) {
    let directory = directory.to_string_lossy();
    for line in fs::read_to_string("/proc/mounts")
        .unwrap_or_default()
        .lines()
    {
        if let Some(place) = line.split(' ').nth(1).filter(|it| it.starts_with(&*directory)) {
            let _ = Command::new("umount").args(["-l", place]).status();
        }
    }
    let listed = Command::new("losetup")
        .args(["-l", "-n", "-O", "NAME,BACK-FILE"])
        .output();
    let listed = listed
        .map(|it| String::from_utf8_lossy(&it.stdout).into_owned())
        .unwrap_or_default();
    for line in listed.lines() {
        if let Some((device, file)) = line.split_once(' ')
            && file.trim().starts_with(&*directory)
        {
            let _ = Command::new("losetup").args(["-d", device]).status();
        }
    }
}

/// Does something for each of them, on all cores.
fn each<T: Sync>(all: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, |it| it.get());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(one);
                }
            });
        }
    });
}

const RECORD_LIMIT: Duration = Duration::from_secs(600);
const LATE: &str = " (out of time)";
const NAP: Duration = Duration::from_millis(3);

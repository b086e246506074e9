//! The layers of the source: which directory may import which, no circle of files, and no long
//! file.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The top folders and files of `src` from the bottom up, each with those that it may import.
/// A row names only rows above it in this list, so that imports go down only.
const LAYERS: &[(&str, &str)] = &[
    ("path_bytes", ""),
    ("text", "path_bytes"),
    ("target_state", ""),
    ("advice", ""),
    ("error", "text target_state advice"),
    ("bell", ""),
    ("duration", "error"),
    ("location", "path_bytes text error"),
    ("hash", "error"),
    ("page_list", "error"),
    ("random", "error"),
    ("named", ""),
    ("serialize", ""),
    ("setters", ""),
    ("token_bucket", ""),
    ("limits", "setters"),
    ("units", "error"),
    ("cancel", "error"),
    ("progress", "error token_bucket cancel"),
    ("program", "error cancel progress"),
    ("vm", "error location cancel progress"),
    ("meter", "cancel progress"),
    (
        "storage",
        "path_bytes page_list program advice error location random bell setters cancel progress",
    ),
    (
        "image",
        "advice error location random limits units cancel progress storage",
    ),
    (
        "qemu",
        "error location cancel progress program vm storage image",
    ),
    ("fencing", "error vm storage"),
    ("letters", "error duration random bell storage"),
    (
        "manifest",
        "error hash random limits units cancel progress storage image",
    ),
    (
        "diff",
        "advice error hash units cancel progress storage image manifest",
    ),
    ("changes", "error page_list limits manifest"),
    (
        "delta",
        "error hash random setters limits units cancel progress storage image manifest diff",
    ),
    (
        "journal",
        "error random limits units cancel progress storage",
    ),
    (
        "sync",
        "path_bytes target_state advice error location hash random setters limits units \
         cancel progress storage image manifest diff delta",
    ),
    (
        "replica",
        "error hash random limits units cancel progress storage image manifest diff delta sync",
    ),
    (
        "remote",
        "path_bytes text target_state advice error location hash random setters token_bucket \
         limits units cancel progress storage image manifest diff delta sync",
    ),
    (
        "api",
        "target_state error location hash limits units cancel progress storage image manifest \
         diff changes delta sync remote",
    ),
    (
        "failback",
        "path_bytes text advice error duration location hash random named bell fencing \
         letters meter vm setters limits units cancel progress storage image manifest diff \
         delta journal sync replica remote api qemu program",
    ),
    (
        "cli",
        "path_bytes text advice error duration location hash limits units cancel progress \
         storage image manifest diff changes delta journal sync replica remote api failback",
    ),
    ("testing", "error storage failback"),
];

/// How many files of a top directory still import each other in circles.
const CIRCLES: &[(&str, usize)] = &[];

/// Folders inside a layer that still import each other in circles.
const ROOMS_IN_CIRCLES: &[&str] = &["storage/host", "storage/side_files"];

/// Files that are still longer than [`MOST_LINES`].
const LONG: &[&str] = &["src/replica/chain.rs"];

/// The most lines of a file before its tests.
const MOST_LINES: usize = 450;

/// The most lines of `src/failback`, its unit tests included.
const FAILBACK_LINES: usize = 11_295;

#[test]
fn folders_import_only_those_below() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = LAYERS
        .iter()
        .map(|(name, below)| (*name, below.split_whitespace().collect()))
        .collect();
    for (row, (name, _)) in LAYERS.iter().enumerate() {
        for below in &allowed[name] {
            let place = LAYERS.iter().position(|(other, _)| other == below);
            assert!(
                place.is_some_and(|place| place < row),
                "{name} may not import {below}"
            );
        }
    }
    let mut wrong = BTreeSet::new();
    for (from, to) in imports() {
        let (Some(from_top), Some(to_top)) = (from.first(), to.first()) else {
            continue;
        };
        let allowed = allowed.get(from_top.as_str());
        if from_top != to_top && !allowed.is_some_and(|below| below.contains(to_top.as_str())) {
            wrong.insert(format!("{} imports {}", from.join("/"), to.join("/")));
        }
    }
    assert!(
        wrong.is_empty(),
        "not among the allowed arrows:\n{}",
        lines_of(&wrong)
    );
}

#[test]
fn files_import_in_no_circle() {
    let mut reached: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    let imports = imports();
    for (from, to) in &imports {
        reached.entry(from.clone()).or_default().insert(to.clone());
    }
    let closed: BTreeMap<Module, BTreeSet<Module>> = reached
        .keys()
        .map(|from| (from.clone(), all_reached(&reached, from)))
        .collect();
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    let mut arrows = BTreeSet::new();
    for (from, to) in &imports {
        if closed.get(to).is_some_and(|after| after.contains(from)) {
            arrows.insert(format!("{} imports {}", from.join("/"), to.join("/")));
        }
    }
    for (module, _) in closed
        .iter()
        .filter(|(module, after)| after.contains(*module))
    {
        *found.entry(&module[0]).or_default() += 1;
    }
    assert_eq!(
        found,
        CIRCLES.iter().copied().collect(),
        "circles:\n{}",
        lines_of(&arrows)
    );
}

#[test]
fn folders_of_a_layer_import_in_no_circle() {
    let mut reached: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    let room = |module: &Module| {
        let room = module.get(..2)?.to_vec();
        let is_folder = Path::new("src").join(room.join("/")).is_dir();
        is_folder.then_some(room)
    };
    let imports = imports();
    for (from, to) in &imports {
        if let (Some(from), Some(to)) = (room(from), room(to))
            && from != to
        {
            reached.entry(from).or_default().insert(to);
        }
    }
    let in_circle = |from: &Module| all_reached(&reached, from).contains(from);
    let rooms: Vec<_> = reached.keys().filter(|from| in_circle(from)).collect();
    let rooms: BTreeSet<String> = rooms.iter().map(|room| room.join("/")).collect();
    let is_in = |module| room(module).is_some_and(|it| rooms.contains(&it.join("/")));
    let arrows = imports
        .iter()
        .filter(|(from, to)| is_in(from) && is_in(to) && room(from) != room(to))
        .map(|(from, to)| format!("{} imports {}", from.join("/"), to.join("/")))
        .collect();
    let allowed = ROOMS_IN_CIRCLES.iter().map(|it| (*it).to_owned()).collect();
    assert_eq!(rooms, allowed, "{}", lines_of(&arrows));
}

#[test]
fn files_are_short() {
    let mut long = BTreeSet::new();
    for file in files(Path::new("src")) {
        let lines = without_tests(&fs::read_to_string(&file).unwrap())
            .lines()
            .count();
        if lines > MOST_LINES && !is_test(&file) {
            long.insert(file.to_string_lossy().into_owned());
        }
    }
    assert_eq!(long, LONG.iter().map(|file| (*file).to_owned()).collect());
}

/// Words that the library may hold: what it gives to a program that it starts, what it names of the
/// system's programs, and what a marked disk itself says.
const OTHERS_OPTIONS: &[&str] = &[
    "--stdio",
    "--timeout=",
    "--state-dir=",
    "blockdev --rereadpt",
    "blockdev --setrw",
    "nbdinfo --json --map=",
    "`--next-token`",
    "diskdelta recover THIS-DISK",
];

#[test]
fn no_text_of_the_library_holds_an_option_of_the_command() {
    let mut wrong = BTreeSet::new();
    for file in files(Path::new("src")) {
        if file.starts_with("src/cli") || is_test(&file) {
            continue;
        }
        let source = fs::read_to_string(&file).unwrap();
        let lines = without_tests(&source).lines().map(str::trim);
        for line in lines.filter(|line| !line.starts_with("//")) {
            let mut text = line.to_owned();
            for other in OTHERS_OPTIONS {
                text = text.replace(other, "");
            }
            let is_option = |(at, _)| text[at + 2..].starts_with(|c: char| c.is_ascii_lowercase());
            if text.match_indices("--").any(is_option) || text.contains("diskdelta recover") {
                wrong.insert(format!("{}: {line}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", lines_of(&wrong));
}

#[test]
fn failback_is_thin() {
    let lines: usize = files(Path::new("src/failback"))
        .iter()
        .map(|file| fs::read_to_string(file).unwrap().lines().count())
        .sum();
    assert!(lines <= FAILBACK_LINES, "src/failback has {lines} lines");
}

/// The names on the way to a module, without the crate's.
type Module = Vec<String>;

/// Which module imports which, tests left out.
fn imports() -> BTreeSet<(Module, Module)> {
    let mut sources = BTreeMap::new();
    for file in files(Path::new("src"))
        .into_iter()
        .filter(|file| !is_test(file))
    {
        let tokens = tokens(without_tests(&fs::read_to_string(&file).unwrap()));
        sources.insert(module(&file), tokens);
    }
    let modules: BTreeSet<Module> = sources.keys().cloned().collect();
    let mut exports = BTreeMap::new();
    let mut paths = Vec::new();
    for (module, tokens) in &sources {
        for found in paths_of(tokens) {
            let Some(to) = absolute(module, &found.path, &modules) else {
                continue;
            };
            if let Some(name) = found.exported_as {
                exports.insert([module.clone(), vec![name]].concat(), to.clone());
                // A parent offers what its children define, and needs nothing of them.
                if to.starts_with(module) {
                    continue;
                }
            }
            paths.push((module.clone(), to));
        }
    }
    paths
        .into_iter()
        .filter_map(|(from, to)| Some((from, defined_in(to, &exports, &modules)?)))
        .filter(|(from, to)| from != to)
        .collect()
}

/// A path as it is written.
struct Found {
    path: Vec<String>,
    /// The name that a `pub use` gives it.
    exported_as: Option<String>,
}

fn paths_of(tokens: &[String]) -> Vec<Found> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = at.checked_sub(1).map_or("", |before| &tokens[before]);
        if tokens[at] == "use" && tokens[at + 1] != "<" {
            let public = matches!(before, "pub" | ")");
            at += 1;
            use_tree(tokens, &mut at, Vec::new(), public, &mut found);
        } else if before != "::" && tokens.get(at + 1).is_some_and(|next| next == "::") {
            // A visibility, `pub(in path)`, imports nothing.
            let visibility = before == "in" && tokens[at - 2] == "(";
            let mut path = vec![tokens[at].clone()];
            while tokens.get(at + 1).is_some_and(|next| next == "::") {
                path.push(tokens[at + 2].clone());
                at += 2;
            }
            if !visibility {
                found.push(Found {
                    path,
                    exported_as: None,
                });
            }
        }
        at += 1;
    }
    found
}

/// Reads the tree of a `use` item up to its end.
fn use_tree(
    tokens: &[String],
    at: &mut usize,
    mut path: Vec<String>,
    public: bool,
    found: &mut Vec<Found>,
) {
    let mut alias = None;
    loop {
        match tokens[*at].as_str() {
            "{" => {
                *at += 1;
                while tokens[*at] != "}" {
                    use_tree(tokens, at, path.clone(), public, found);
                    *at += usize::from(tokens[*at] == ",");
                }
                *at += 1;
                return;
            }
            "," | "}" | ";" => break,
            "::" => {}
            "as" => {
                alias = Some(tokens[*at + 1].clone());
                *at += 1;
            }
            name => path.push(name.to_owned()),
        }
        *at += 1;
    }
    if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
        path.pop();
    }
    let exported_as = alias.or(path.last().cloned()).filter(|_| public);
    found.push(Found { path, exported_as });
}

/// The path from the crate's root, if the path leads into the crate.
fn absolute(module: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    let mut base = module.clone();
    let mut rest = path;
    match path[0].as_str() {
        "crate" | "diskdelta" => {
            base.clear();
            rest = &path[1..];
        }
        "self" | "super" => {
            while let [first, after @ ..] = rest
                && (first == "self" || first == "super")
            {
                if first == "super" {
                    base.pop();
                }
                rest = after;
            }
        }
        child => {
            base.push(child.to_owned());
            if !modules.contains(&base) {
                return None;
            }
            rest = &path[1..];
        }
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// The module that defines what a path names, whatever exports it again on the way.
fn defined_in(
    mut path: Module,
    exports: &BTreeMap<Module, Module>,
    modules: &BTreeSet<Module>,
) -> Option<Module> {
    'follow: loop {
        for len in (1..=path.len()).rev() {
            if modules.contains(&path[..len]) {
                path.truncate(len);
                return Some(path);
            }
            if let Some(to) = exports.get(&path[..len]) {
                path = [to.as_slice(), &path[len..]].concat();
                continue 'follow;
            }
        }
        return None;
    }
}

/// Everything that is reached from a module by one arrow or more.
fn all_reached(arrows: &BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let mut reached = BTreeSet::new();
    let mut left = vec![from];
    while let Some(module) = left.pop() {
        for to in arrows.get(module).into_iter().flatten() {
            if reached.insert(to.clone()) {
                left.push(to);
            }
        }
    }
    reached
}

/// Names, `::` and single characters; without comments, strings and white space.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(len) = string_len(rest) {
            len
        } else if first.is_alphanumeric() || first == '_' {
            let len = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            tokens.push(rest[..len].to_owned());
            len
        } else {
            let len = if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                tokens.push(rest[..len].to_owned());
            }
            len
        };
        rest = &rest[len..];
    }
    tokens
}

/// The length of the string or character that a text starts with.
fn string_len(text: &str) -> Option<usize> {
    if let Some(raw) = text.strip_prefix("r#\"") {
        return raw.find("\"#").map(|len| len + 5);
    }
    let mut chars = text.char_indices();
    match chars.next()?.1 {
        '"' => {
            let mut escaped = false;
            for (at, c) in chars {
                match c {
                    '"' if !escaped => return Some(at + 1),
                    _ => escaped = c == '\\' && !escaped,
                }
            }
            None
        }
        // A lifetime has no second quote after its first character.
        '\'' if text.starts_with("'\\") => text[3..].find('\'').map(|len| len + 4),
        '\'' => {
            let (at, _) = chars.nth(1).filter(|(_, c)| *c == '\'')?;
            Some(at + 1)
        }
        _ => None,
    }
}

/// The text of a file up to its unit tests.
fn without_tests(text: &str) -> &str {
    text.split("\nmod tests").next().unwrap()
}

fn is_test(file: &Path) -> bool {
    file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests")
}

fn module(file: &Path) -> Module {
    let path = file.strip_prefix("src").unwrap().with_extension("");
    let mut names: Module = path
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    if names
        .last()
        .is_some_and(|name| matches!(name.as_str(), "mod" | "lib" | "main"))
    {
        names.pop();
    }
    names
}

/// The Rust files in a directory and below.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn lines_of(texts: &BTreeSet<String>) -> String {
    texts.iter().map(|text| format!("  {text}\n")).collect()
}

//! Links of the documentation lead to files, and to headings, that are there.

use std::collections::BTreeSet;
use std::path::Path;

use crate::pages::{Page, pages, top};

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let pages = pages();
    let (mut count, mut broken) = (0, Vec::new());
    for page in &pages {
        let directory = Path::new(&page.name).parent().unwrap();
        for (line, link) in links(page) {
            if link.starts_with("http") {
                continue;
            }
            count += 1;
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let name = match file {
                "" => page.name.clone(),
                _ => plain(&directory.join(file)),
            };
            let target = pages.iter().find(|it| it.name == name);
            let there = match (target, heading) {
                (_, "") => top().join(&name).exists(),
                (Some(target), _) => headings(target).contains(heading),
                (None, _) => false,
            };
            if !there {
                broken.push(format!("{}:{line}: {link}", page.name));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(count > 60, "{count}");
}

/// Where links lead, with their lines.
fn links(page: &Page) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (number, line) in page.prose() {
        for part in line.split("](").skip(1) {
            let (link, _) = part.split_once(')').unwrap_or((part, ""));
            links.push((number, link.to_owned()));
        }
    }
    links
}

/// The names by which a page's headings are linked.
fn headings(page: &Page) -> BTreeSet<String> {
    let lines = page.prose().into_iter();
    let titles = lines.filter_map(|(_, line)| line.strip_prefix('#'));
    let name = |title: &str| {
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|it| it.is_alphanumeric() || " -_".contains(*it));
        kept.map(|it| if it == ' ' { '-' } else { it }).collect()
    };
    titles.map(name).collect()
}

/// A path without `..`.
fn plain(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.iter() {
        match part.to_str().unwrap() {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part.to_owned()),
        }
    }
    parts.join("/")
}

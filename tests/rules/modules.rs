//! Modules of a package: which of those beside each other import which.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Package, rust_files};

/// Which module imports which, all of them in one parent.
pub(crate) type Edges = BTreeMap<String, BTreeSet<String>>;

/// For every module of the package that has modules in it, which of those import which, whatever lies below them.
pub(crate) fn siblings(package: &Package) -> BTreeMap<String, Edges> {
    let root = format!("{}/src/", package.folder);
    let files = rust_files();
    let own: Vec<_> = files
        .iter()
        .filter(|file| file.path.starts_with(&root) && !file.is_test())
        .map(|file| (module_of(&file.path[root.len()..]), file))
        .collect();
    let modules: BTreeSet<Vec<String>> = own.iter().map(|(module, _)| module.clone()).collect();
    let mut found: BTreeMap<String, Edges> = BTreeMap::new();
    for (module, file) in &own {
        for path in file.paths() {
            let Some(target) = resolved(module, &path, &modules) else {
                continue;
            };
            let shared = module
                .iter()
                .zip(&target)
                .take_while(|(one, other)| one == other)
                .count();
            // An import of a parent or of a child is none between modules beside each other.
            let (Some(from), Some(to)) = (module.get(shared), target.get(shared)) else {
                continue;
            };
            let parent = match module[..shared].join("::") {
                parent if parent.is_empty() => "the crate".to_owned(),
                parent => parent,
            };
            found
                .entry(parent)
                .or_default()
                .entry(from.clone())
                .or_default()
                .insert(to.clone());
        }
    }
    found
}

/// The module of a file: none for lib.rs and main.rs.
fn module_of(file: &str) -> Vec<String> {
    let mut parts: Vec<String> = file
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    if parts
        .last()
        .is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main"))
    {
        parts.pop();
    }
    parts
}

/// The longest module that a path begins with.
fn resolved(module: &[String], path: &str, modules: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    let mut at: Option<Vec<String>> = None;
    for part in path.split("::") {
        at = Some(match (part, at) {
            ("crate", None) => Vec::new(),
            ("self", None) => module.to_vec(),
            ("super", None) => module.split_last()?.1.to_vec(),
            ("super", Some(at)) => at.split_last()?.1.to_vec(),
            (_, None) => return None,
            (name, Some(mut at)) => {
                at.push(name.to_owned());
                if !modules.contains(&at) {
                    at.pop();
                    return Some(at);
                }
                at
            }
        });
    }
    at
}

/// One circle for each set of modules that reach each other.
pub(crate) fn circles(edges: &Edges) -> Vec<Vec<String>> {
    let mut seen: BTreeSet<&String> = BTreeSet::new();
    let mut found = Vec::new();
    for start in edges.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(circle) = way_back(edges, start) {
            seen.extend(edges.keys().filter(|name| circle.contains(name)));
            found.push(circle);
        }
    }
    found
}

/// The shortest way from a module back to itself.
fn way_back(edges: &Edges, start: &String) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.clone()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in edges.get(way.last()?).into_iter().flatten() {
                let mut way = way.clone();
                way.push(next.clone());
                if next == start {
                    return Some(way);
                }
                if seen.insert(next) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

#[test]
fn a_circle_is_found_and_a_line_is_none() {
    let edges = |pairs: &[(&str, &str)]| {
        let mut edges = Edges::new();
        for (from, to) in pairs {
            edges
                .entry((*from).to_owned())
                .or_default()
                .insert((*to).to_owned());
        }
        edges
    };
    assert!(circles(&edges(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let found = circles(&edges(&[("a", "b"), ("b", "c"), ("c", "b")]));
    assert_eq!(found, [["b", "c", "b"]]);
}

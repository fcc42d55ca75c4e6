//! Architecture rules: what a program can check of how this workspace is built. Every rule reads the sources as they are
//! on disk, and names each place that breaks it.

#![expect(
    clippy::unwrap_used,
    reason = "a rule that cannot read the sources fails"
)]

mod modules;
mod source;

use std::collections::BTreeMap;

use source::{Package, packages, repository, rust_files};

/// The floors of the workspace: a package depends only on packages of lower floors. What is not listed here is a test.
const FLOORS: &[(&str, u8)] = &[
    ("quintet-contract", 0),
    ("quintet-bus", 1),
    ("quintet-service", 2),
    ("quintet-leader", 3),
    ("quintet-worker", 3),
    ("quintet-scheduler", 4),
    ("quintet-runner", 4),
    ("quintet-router", 4),
    ("quintet-voice", 4),
    ("quintet-frames", 4),
    ("quintet-agent", 4),
    ("quintet-workers", 4),
    ("quintet-edge", 4),
    ("quintet", 5),
];

/// What only [`quintet-testkit`](../../shared/testkit) and tests may stand on.
const FOR_TESTS_ONLY: &[&str] = &["quintet-testkit", "testcontainers"];

/// Names without meaning for a module.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "misc", "types",
];

/// Words of a private vocabulary; NAMES.md has the standard term for each.
const PRIVATE_WORDS: &[&str] = &[
    "whoever",
    "somebody",
    "nobody",
    "anybody",
    "anew",
    "told",
    "heard",
    "hear",
    "hears",
    "tells",
    "wish",
    "happenings",
    "Told",
    "Said",
    "Wish",
    "Wishes",
    "Seat",
    "Desk",
    "reign",
    "jealous",
    "Heard",
    "Looked",
    "Sighting",
    "Oddity",
    "Unheard",
    "Asker",
    "Askers",
    "AskId",
    "Storing",
    "not_storing",
    "in_hand",
    "misfit",
    "turn_away",
    "read_aside",
    "Duty",
    "RunHappened",
    "JobHappened",
    "Standing",
    "ToFrameWorker",
    "TellFrameWorker",
    "FramesTold",
    "FrameWorkerBeat",
    "LookAtFrames",
    "go_on",
    "take_in",
    "Unsure",
    "Deposed",
    "GivenUp",
    "HeartbeatCame",
    "let_go",
    "turned_down",
    "take_back",
    "began_elsewhere",
    "tell_stop",
    "Walk",
    "give_out",
    "give_out_anew",
    "LookFor",
    "TaskGone",
    "expect_task",
    "Parked",
    "Hindrance",
    "Unfit",
    "Trouble",
    "Story",
    "Roster",
    "Sight",
    "Stir",
    "owe",
    "GiveBack",
    "landed",
    "LastWords",
    "Teller",
    "Theatre",
    "Tender",
    "tend",
    "Pressure",
    "press",
    "Fate",
    "turn_down",
    "Silenced",
    "press_kill",
    "open_desk",
    "Fitting",
    "RunOf",
    "WorkerOf",
    "is_dull",
    "come_back",
    "put_aside",
    "Speaker",
    "OwnNats",
    "look_after",
    "RetryEar",
    "FrameWord",
    "Counted",
    "AGAIN",
    "AWAY",
    "LOOK_EVERY",
    "LATE",
    "ROOM",
    "LIFE",
    "TRIED",
    "Noted",
    "Hall",
    "Ear",
    "unsure",
];

fn floor(name: &str) -> Option<u8> {
    let found = FLOORS.iter().find(|(package, _)| *package == name);
    found.map(|(_, floor)| *floor)
}

/// Fails with every place that breaks a rule.
#[track_caller]
fn holds(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn packages_depend_only_on_lower_floors() {
    let mut broken = Vec::new();
    for package in packages() {
        let Some(own) = floor(&package.name) else {
            continue;
        };
        for dependency in &package.dependencies {
            if floor(dependency).is_some_and(|other| other >= own) {
                broken.push(format!("{} depends on {dependency}", package.name));
            }
            if FOR_TESTS_ONLY.contains(&dependency.as_str()) {
                broken.push(format!(
                    "{} depends on {dependency}, which is for tests",
                    package.name
                ));
            }
        }
    }
    holds(
        "a package depends only on packages of lower floors",
        &broken,
    );
}

#[test]
fn every_package_outside_the_tests_has_a_floor() {
    let broken: Vec<String> = packages()
        .into_iter()
        .filter(|package| !package.is_of_tests() && floor(&package.name).is_none())
        .map(|package| package.name)
        .collect();
    holds("a package is listed in FLOORS", &broken);
}

#[test]
fn only_the_bus_names_the_client_of_nats() {
    let mut broken = Vec::new();
    for package in packages() {
        let is_allowed = package.name == "quintet-bus" || package.is_of_tests();
        if !is_allowed && package.dependencies.iter().any(|name| name == "async-nats") {
            broken.push(format!("{} depends on async-nats", package.name));
        }
    }
    holds("only shared/bus depends on async-nats", &broken);
}

#[test]
fn the_contract_is_pure() {
    const ALLOWED: &[&str] = &[
        "data-encoding",
        "jiff",
        "rmp-serde",
        "schemars",
        "serde",
        "serde_json",
        "serde_path_to_error",
        "thiserror",
        "uuid",
    ];
    let contract = packages()
        .into_iter()
        .find(|package| package.name == "quintet-contract");
    let foreign: Vec<String> = contract
        .unwrap()
        .dependencies
        .into_iter()
        .filter(|name| !ALLOWED.contains(&name.as_str()))
        .collect();
    holds("shared/contract depends only on serialisation", &foreign);
}

#[test]
fn cores_are_pure() {
    // Clocks, randomness, I/O, logs, and whatever waits.
    const FOREIGN: &[&str] = &[
        "tokio",
        "tracing",
        "metrics",
        "rand",
        "async_nats",
        "axum",
        "reqwest",
        "rustix",
        "log",
    ];
    const FOREIGN_PATHS: &[&str] = &[
        "std::fs",
        "std::net",
        "std::io",
        "std::process",
        "std::env",
        "std::thread",
        "Instant::now",
        "SystemTime::now",
        "Uuid::now_v7",
        "Uuid::new_v4",
        "quintet_bus::now",
        "quintet_bus::new_job_id",
        "quintet_bus::new_message_id",
        "quintet_bus::Bus",
    ];
    let mut broken = Vec::new();
    for file in rust_files() {
        let is_core = file.path.ends_with("/core.rs") || file.path.contains("/core/");
        if !is_core || file.is_test() {
            continue;
        }
        for path in file.paths() {
            // A name alone is a variable or a function of the file itself.
            let first = path.split_once("::").map(|(first, _)| first);
            let is_foreign = first.is_some_and(|first| FOREIGN.contains(&first))
                || FOREIGN_PATHS
                    .iter()
                    .any(|foreign| path == *foreign || path.starts_with(&format!("{foreign}::")));
            if is_foreign {
                broken.push(format!("{} names {path}", file.path));
            }
        }
    }
    broken.sort();
    broken.dedup();
    holds("a core has no clock, randomness, I/O or log", &broken);
}

#[test]
fn modules_of_a_package_form_no_circles() {
    let mut broken = Vec::new();
    for package in packages().iter().filter(|package| !package.is_of_tests()) {
        broken.extend(circles(package));
    }
    holds("modules beside each other import in one direction", &broken);
}

fn circles(package: &Package) -> Vec<String> {
    let siblings = modules::siblings(package);
    let found = siblings.iter().flat_map(|(parent, edges)| {
        let circles = modules::circles(edges);
        circles.into_iter().map(move |circle| (parent, circle))
    });
    found
        .map(|(parent, circle)| format!("{}, in {parent}: {}", package.name, circle.join(" -> ")))
        .collect()
}

#[test]
fn tasks_are_spawned_by_their_parent() {
    // A package below the one that has Tasks owns what it spawns by handles that abort it; so does the link of an agent,
    // whose author has no Tasks.
    let packages = packages();
    let bound = packages.iter().filter(|package| {
        package
            .dependencies
            .iter()
            .any(|name| name == "quintet-service")
            && package.name != "quintet-worker"
            && !package.is_of_tests()
    });
    let bound: Vec<String> = bound
        .map(|package| format!("{}/", package.folder))
        .collect();
    let mut broken = Vec::new();
    for file in rust_files() {
        let is_bound = bound.iter().any(|folder| file.path.starts_with(folder));
        if is_bound
            && !file.is_test()
            && file
                .paths()
                .iter()
                .any(|path| path == "tokio::spawn" || path == "tokio::task::spawn")
        {
            broken.push(file.path.clone());
        }
    }
    holds("tasks are spawned through service::Tasks", &broken);
}

#[test]
fn lints_are_silenced_with_a_reason() {
    let mut broken = Vec::new();
    for file in rust_files() {
        for (number, line) in file.text.lines().enumerate() {
            let line = line.trim_start();
            let is_comment = line.starts_with("//");
            if !is_comment
                && (line.contains(concat!("#[", "allow("))
                    || line.contains(concat!("#![", "allow(")))
            {
                broken.push(format!("{}:{}", file.path, number + 1));
            }
        }
    }
    holds("a lint is silenced by #[expect] with a reason", &broken);
}

#[test]
fn modules_have_names_of_their_subject() {
    let files = rust_files();
    let named = files.iter().filter(|file| {
        let mut parts = file.path.trim_end_matches(".rs").split('/');
        parts.any(|part| EMPTY_NAMES.contains(&part))
    });
    let broken: Vec<String> = named.map(|file| file.path.clone()).collect();
    holds("a module is named after its subject", &broken);
}

#[test]
fn the_standard_terms_are_used() {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for file in rust_files() {
        // This file has to name them.
        if file.path.starts_with("tests/rules/") {
            continue;
        }
        let words = file
            .text
            .split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
        for word in words.filter(|word| PRIVATE_WORDS.contains(word)) {
            *found.entry(format!("{}: {word}", file.path)).or_default() += 1;
        }
    }
    let broken: Vec<String> = found
        .into_iter()
        .map(|(place, times)| format!("{place}, {times} times"))
        .collect();
    holds("NAMES.md has a standard term", &broken);
}

#[test]
fn the_readme_is_short() {
    const MOST: usize = 150;
    let text = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let lines = text.lines().count();
    assert!(
        lines <= MOST,
        "README.md has {lines} lines, {MOST} at most: the rest belongs beside what it describes"
    );
}

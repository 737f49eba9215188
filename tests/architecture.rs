//! The house rule: a module names only the lower modules in its row, pure ones do no I/O and read no clock, and no permission stands unused.
//!
//! It reads lines, not syntax, so the few things that would hide a name from a line are banned too: `super::` and `crate::{…}`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module and all that it may name; itself is always allowed.
struct Row {
    module: &'static str,
    level: u8,
    names: &'static [&'static str],
}

const fn row(level: u8, module: &'static str, names: &'static [&'static str]) -> Row {
    Row { module, level, names }
}

const ROWS: &[Row] = &[
    row(0, "exchange", &[]),
    row(0, "diagnostic", &[]),
    row(0, "metrics", &[]),
    row(0, "wire", &[]),
    row(1, "hl7v2", &["exchange"]),
    row(1, "fhir", &["exchange"]),
    row(1, "credential", &["exchange"]),
    row(2, "listener", &["credential", "exchange", "hl7v2", "metrics", "wire"]),
    row(2, "target", &["credential", "exchange", "fhir", "hl7v2", "wire"]),
    row(2, "journal", &["exchange"]),
    row(2, "route", &["diagnostic", "exchange", "fhir", "hl7v2"]),
    row(3, "site", &["diagnostic", "exchange", "hl7v2", "listener", "target"]),
    row(4, "engine", &["diagnostic", "exchange", "fhir", "hl7v2", "journal", "listener", "metrics", "route", "site", "target"]),
    row(5, "console", &["exchange", "journal", "metrics"]),
    row(6, "cli", &["console", "diagnostic", "engine", "exchange", "fhir", "hl7v2", "journal", "listener", "metrics", "route", "site", "target"]),
];

/// What these compute depends on their arguments alone: an answer can be given again, and cannot fail for want of a file.
const PURE: &[&str] = &["diagnostic", "exchange", "fhir", "hl7v2", "route"];
const NEVER_IN_PURE: &[&str] = &["std::fs", "std::net", "std::env", "std::process", "std::thread", "tokio", "rusqlite", "reqwest", "::now("];

/// Words that belong to one place; `cli` stands for `src/cli`.
struct Belongs {
    words: &'static [&'static str],
    only_in: &'static [&'static str],
    why: &'static str,
}

const BELONGS: &[Belongs] = &[
    Belongs {
        words: &["\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE ", "\"CREATE ", "\"PRAGMA ", "\"BEGIN ", "rusqlite"],
        only_in: &["journal"],
        why: "SQL stays in the journal",
    },
    Belongs { words: &["println!(", "print!("], only_in: &["cli"], why: "only the command line prints" },
    Belongs { words: &["reqwest::Client", "reqwest::get"], only_in: &["target"], why: "only targets are HTTP clients" },
    Belongs { words: &["axum::"], only_in: &["console"], why: "only the console serves pages" },
    Belongs { words: &["hyper::", "hyper_util::"], only_in: &["listener"], why: "only listeners speak HTTP themselves" },
    Belongs {
        words: &["Timestamp::now", "Zoned::now", "SystemTime::now"],
        only_in: &["cli", "engine", "listener", "target"],
        why: "the clock is read at a border and passed on",
    },
    Belongs { words: &["unbounded_channel", "unbounded("], only_in: &[], why: "every queue has a limit" },
];

/// A file of `src`, by its path in it.
struct Source<'a> {
    path: &'a str,
    text: &'a str,
}

/// Everything that breaks the house rule, as `path:line: what`.
fn faults(sources: &[Source], rows: &[Row]) -> Vec<String> {
    let (mut faults, mut used) = (Vec::new(), BTreeSet::new());
    for source in sources {
        let path = source.path;
        if !source.text.starts_with("//! ") {
            faults.push(format!("{path}:1: say in `//! ` what lives here"));
        }
        let home = path.split(['/', '.']).next().unwrap_or_default();
        if home == "lib" || home == "main" || path.ends_with("tests.rs") {
            continue;
        }
        let Some(row) = rows.iter().find(|row| row.module == home) else {
            faults.push(format!("{path}:1: {home} has no row in tests/architecture.rs"));
            continue;
        };
        for (number, line) in code_lines(source.text) {
            let mut fault = |what: String| faults.push(format!("{path}:{number}: {what}"));
            if line.contains("crate::{") || line.contains("super::") {
                fault("write `use crate::module::Name;`".to_owned());
            }
            for word in NEVER_IN_PURE.iter().filter(|word| PURE.contains(&home) && line.contains(**word)) {
                fault(format!("{home} does no I/O and has no clock: `{word}`"));
            }
            for rule in BELONGS.iter().filter(|rule| !rule.only_in.contains(&home)) {
                if let Some(word) = rule.words.iter().find(|word| line.contains(**word)) {
                    fault(format!("{}: `{}`", rule.why, word.trim_start_matches('"')));
                }
            }
            for name in names(line) {
                if name == home || !rows.iter().any(|other| other.module == name) {
                    continue;
                }
                if row.names.contains(&name) {
                    used.insert((home, name));
                } else {
                    fault(format!("{home} may not name {name}"));
                }
            }
        }
    }
    for row in rows {
        for name in row.names {
            if !used.contains(&(row.module, *name)) {
                faults.push(format!("the row of {} allows {name}, which it does not name", row.module));
            }
            match rows.iter().find(|other| other.module == *name) {
                Some(other) if other.level < row.level => {}
                _ => faults.push(format!("the row of {} allows {name}, which is not lower", row.module)),
            }
        }
    }
    faults
}

/// Lines outside comments and before the tests of a file, with their numbers.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    let code = text.get(..tests).unwrap_or_default();
    code.lines().enumerate().map(|(index, line)| (index + 1, without_comment(line)))
}

/// Cuts `// …` off; an address in a string (`https://`) is none.
fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// The modules that a line names: `crate::NAME`.
fn names(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the repository").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] }).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.sort();
    files
}

fn read_all(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let read = |file: PathBuf| {
        let path = file.strip_prefix(&folder).expect("a file of the folder").to_string_lossy().into_owned();
        (path, fs::read_to_string(&file).expect("source is UTF-8"))
    };
    rust_files(&folder).into_iter().map(read).collect()
}

#[test]
fn every_module_keeps_to_its_row() {
    let files = read_all("src");
    assert!(files.len() > 100, "the sources were not found");
    let sources: Vec<_> = files.iter().map(|(path, text)| Source { path, text }).collect();
    let faults = faults(&sources, ROWS);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_test_and_benchmark_says_what_it_is() {
    for folder in ["tests", "benches", "build", "fuzz/fuzz_targets"] {
        for (path, text) in read_all(folder).iter().filter(|(path, _)| !path.contains("node_modules") && !path.starts_with("target")) {
            assert!(text.starts_with("//! "), "{folder}/{path} begins with a line of `//! `");
        }
    }
}

/// `[text](path)` in the pages at the root and in docs; addresses elsewhere are not looked up.
#[test]
fn every_link_of_the_pages_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = |folder: &Path| fs::read_dir(folder).expect("a folder of the repository").map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>();
    let pages =
        [root.to_owned(), root.join("docs"), root.join("docs/decisions"), root.join("docs/guides")].iter().flat_map(|folder| list(folder)).collect::<Vec<_>>();
    let mut dead = Vec::new();
    for page in pages.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(page).expect("a page is UTF-8");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for link in links.filter(|link| !link.starts_with("http") && !link.starts_with('#')) {
            let file = page.with_file_name(link.split('#').next().unwrap_or_default());
            if !file.exists() {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "\n{}", dead.join("\n"));
}

/// The checker on planted faults: each is seen, at its line, and nothing else is.
mod planted {
    use super::{Row, Source, faults, row};

    const TWO: &[Row] = &[row(0, "fhir", &[]), row(1, "engine", &["fhir"])];
    const FINE: Source = Source { path: "engine/mod.rs", text: "//! Runs.\nuse crate::fhir::Node;\n" };

    fn seen(path: &str, text: &str) -> Vec<String> {
        faults(&[FINE, Source { path, text }], TWO)
    }

    #[test]
    fn a_clean_tree_has_no_fault() {
        assert!(seen("fhir.rs", "//! Resources.\nuse crate::fhir::node::Node;\n// like crate::engine, see https://x/crate::engine\n").is_empty());
    }

    #[test]
    fn a_higher_module() {
        assert_eq!(seen("fhir/node.rs", "//! Nodes.\n\nfn f() { crate::engine::run() }\n"), ["fhir/node.rs:3: fhir may not name engine"]);
    }

    #[test]
    fn a_clock_and_a_file_in_a_pure_module() {
        let text = "//! Nodes.\nuse std::fs;\nlet now = std::time::Instant::now();\n";
        assert_eq!(
            seen("fhir/node.rs", text),
            ["fhir/node.rs:2: fhir does no I/O and has no clock: `std::fs`", "fhir/node.rs:3: fhir does no I/O and has no clock: `::now(`"]
        );
    }

    #[test]
    fn ways_to_hide_a_name() {
        let text = "//! Nodes.\nuse crate::{fhir, engine};\nuse super::merge;\npub(super) fn f() {}\n#[cfg(test)]\nmod tests { use super::*; }\n";
        assert_eq!(seen("fhir/node.rs", text), ["fhir/node.rs:2: write `use crate::module::Name;`", "fhir/node.rs:3: write `use crate::module::Name;`"]);
    }

    #[test]
    fn no_word_about_itself() {
        assert_eq!(seen("fhir/node.rs", "use std::fmt;\n"), ["fhir/node.rs:1: say in `//! ` what lives here"]);
    }

    #[test]
    fn a_module_without_a_row() {
        assert_eq!(seen("helpers.rs", "//! Odds.\n"), ["helpers.rs:1: helpers has no row in tests/architecture.rs"]);
    }

    #[test]
    fn words_in_the_wrong_place() {
        let text = "//! Runs.\nlet sql = \"SELECT 1\";\nprintln!(\"x\");\nlet c = tokio::sync::mpsc::unbounded_channel();\n";
        assert_eq!(
            seen("engine/run.rs", text),
            [
                "engine/run.rs:2: SQL stays in the journal: `SELECT `",
                "engine/run.rs:3: only the command line prints: `println!(`",
                "engine/run.rs:4: every queue has a limit: `unbounded_channel`"
            ]
        );
    }

    #[test]
    fn a_wall_clock_away_from_the_borders() {
        let rows = [row(0, "journal", &[]), row(1, "engine", &[])];
        let sources = [
            Source { path: "engine/mod.rs", text: "//! Runs.\nlet now = jiff::Timestamp::now();\n" },
            Source { path: "journal/mod.rs", text: "//! Keeps.\nlet now = jiff::Timestamp::now();\nlet began = Instant::now();\n" },
        ];
        assert_eq!(faults(&sources, &rows), ["journal/mod.rs:2: the clock is read at a border and passed on: `Timestamp::now`"]);
    }

    #[test]
    fn a_permission_that_nobody_uses() {
        let sources = [Source { path: "engine/mod.rs", text: "//! Runs.\n" }, Source { path: "fhir.rs", text: "//! Resources.\n" }];
        assert_eq!(faults(&sources, TWO), ["the row of engine allows fhir, which it does not name"]);
    }

    #[test]
    fn a_row_that_allows_a_sibling() {
        let rows = [row(0, "fhir", &[]), row(0, "engine", &["fhir"])];
        let sources = [FINE, Source { path: "fhir.rs", text: "//! Resources.\n" }];
        assert_eq!(faults(&sources, &rows), ["the row of engine allows fhir, which is not lower"]);
    }
}

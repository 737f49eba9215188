//! What the pages for users tell them to write is right: every block of YAML in them passes `kiln check`, and what they show of commands is what those print.

mod cli_support;
mod pages_support;

use cli_support::run;
use std::path::{Path, PathBuf};

/// A site of which the block is the site file, or a file of routes.
fn faults(block: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    if ["listeners:", "targets:", "language:"].iter().any(|key| block.lines().any(|line| line.starts_with(key))) {
        write("kiln.yaml", block);
    } else {
        write(
            "kiln.yaml",
            "listeners: { adt: { mllp: 127.0.0.1:2575 } }\n\
             targets: { main: { folder: out }, lake: { folder: lake }, ward: { folder: ward }, server: { fhir: \"https://fhir.example/r4\" } }\n",
        );
        write("routes/page.yaml", block);
    }
    let ran = run(folder.path(), &["check", "--format", "short"]);
    let told = format!("{}{}", ran.out, ran.err);
    told.lines().filter(|line| line.contains(": error[")).map(|line| format!("{line}\n")).collect()
}

/// The pages for users.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    for folder in ["docs", "docs/guides"] {
        let entries = std::fs::read_dir(root.join(folder)).expect("a folder of the repository");
        pages.extend(entries.map(|e| e.expect("an entry").path()).filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    pages.sort();
    pages
}

#[test]
fn every_block_of_yaml_in_the_pages_is_right() {
    let (mut seen, mut all) = (0, String::new());
    for page in pages() {
        for block in pages_support::alone(&page) {
            seen += 1;
            let found = faults(&block);
            if !found.is_empty() {
                all.push_str(&format!("{}:\n{block}{found}", page.display()));
            }
        }
    }
    assert!(seen >= 5, "{seen} blocks were found");
    assert!(all.is_empty(), "{all}");
}

#[test]
fn every_page_shows_what_its_commands_print() {
    let mut all = String::new();
    for page in pages() {
        let wrong = pages_support::run_page(&page);
        if !wrong.is_empty() {
            all.push_str(&format!("{}:\n{wrong}\n", page.display()));
        }
    }
    assert!(all.is_empty(), "\n{all}");
}

#[test]
fn the_site_file_with_everything_in_it_is_right() {
    for file in ["examples/kiln.yaml", "examples/container/kiln.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(path).expect("an example of the repository");
        assert_eq!(faults(&text), "", "{file}");
    }
}

#[test]
fn a_wrong_block_is_noticed() {
    assert!(faults("extend: PID -> Patient\nmaritalStatsu: PID-16\n").contains("K301"));
    assert!(faults("listeners: { adt: { mlpp: 127.0.0.1:2575 } }\n").contains("K721"));
}

//! What the pages for users tell them to write is right: every block of YAML in them passes `kiln check`.

mod cli_support;

use cli_support::run;
use std::path::Path;

/// Blocks of a page that are fenced as YAML.
fn blocks(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect("a page of the repository");
    let fenced = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```"));
    fenced.map(|(block, _)| block.to_owned()).collect()
}

/// A site of which the block is the site file, or a file of routes.
fn faults(block: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    if ["listeners:", "targets:", "language:"].iter().any(|key| block.lines().any(|line| line.starts_with(key))) {
        write("kiln.yaml", block);
    } else {
        write("kiln.yaml", "listeners: { adt: { mllp: 127.0.0.1:2575 } }\ntargets: { main: { folder: out }, lake: { folder: lake } }\n");
        write("routes/page.yaml", block);
    }
    let ran = run(folder.path(), &["check", "--format", "short"]);
    let told = format!("{}{}", ran.out, ran.err);
    told.lines().filter(|line| line.contains(": error[")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn every_block_of_yaml_in_the_pages_is_right() {
    let (mut seen, mut all) = (0, String::new());
    for page in ["README.md", "docs/start.md", "docs/operations.md"] {
        for block in blocks(page) {
            seen += 1;
            let found = faults(&block);
            if !found.is_empty() {
                all.push_str(&format!("{page}:\n{block}{found}"));
            }
        }
    }
    assert!(seen >= 5, "{seen} blocks were found");
    assert!(all.is_empty(), "{all}");
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

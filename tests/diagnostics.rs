//! Each file in `tests/diagnostics` is loaded as a site's only route file; what people would see stands beside it in `.expected`. `UPDATE=1` rewrites.

use kiln::diagnostic::CODES;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

#[test]
fn each_code_that_the_source_uses_is_registered_in_order_and_has_a_page_that_begins_with_it() {
    let mut used = BTreeSet::new();
    for file in files(&root().join("src"), "rs") {
        let text = fs::read_to_string(&file).expect("a source file");
        let codes = text.split('"').filter(|s| s.len() == 4 && s.starts_with('K') && s.bytes().skip(1).all(|b| b.is_ascii_digit()));
        used.extend(codes.map(str::to_owned));
    }
    let registered: Vec<&str> = CODES.iter().map(|c| c.code).collect();
    assert!(registered.is_sorted(), "the register is out of order");
    let missing: Vec<&String> = used.iter().filter(|c| !registered.contains(&c.as_str())).collect();
    assert!(missing.is_empty(), "add these to src/diagnostic/codes.rs and docs/errors: {missing:?}");
    for code in CODES {
        let heading = format!("# {}: {}\n", code.code, code.title);
        assert!(code.page.starts_with(&heading), "docs/errors/{}.md must begin with {heading:?}", code.code);
        assert!(code.page.matches("```yaml").count() >= 2, "docs/errors/{}.md needs a fault and its cure", code.code);
    }
    assert_eq!(files(&root().join("docs/errors"), "md").len(), CODES.len(), "a page without a code");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

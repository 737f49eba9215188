//! Each file in `tests/diagnostics` is loaded as a site's only route file, beside the shipped ones; what people would see stands beside it in
//! `.expected`. `UPDATE=1` rewrites. The pages of docs/errors are held to their word in the same way.

use kiln::diagnostic::{CODES, Diagnostic, Severity, Style, render};
use kiln::route::{LoadOptions, Loaded, load};
use kiln::site::route_sources;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The checker can report these, but the reader (K114) and the merge (K705) do so before it.
const UNREACHABLE: [&str; 2] = ["K613", "K702"];

#[test]
fn each_code_that_the_source_uses_is_registered_in_order_and_has_a_page_that_begins_with_it() {
    let used = used("src");
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

#[test]
fn each_case_reads_as_expected() {
    let mut faults = Vec::new();
    let mut shown_codes = BTreeSet::from(UNREACHABLE.map(str::to_owned));
    for case in files(&root().join("tests/diagnostics"), "yaml") {
        let name = case.file_name().and_then(|n| n.to_str()).expect("a name");
        let loaded = site(name, &fs::read_to_string(&case).expect("a case"));
        let errors = loaded.diagnostics.iter().any(|d| d.severity == Severity::Error);
        assert_eq!(loaded.set.is_none(), errors, "{name}: a set exactly when there is no error");
        let own = own(&loaded);
        let shown = render(&loaded.sources, &own, Style::Human { color: false });
        let code = name.split('-').next().expect("a code").to_uppercase();
        if !own.iter().any(|d| d.code == code) {
            faults.push(format!("{name} does not trigger {code}"));
        }
        shown_codes.insert(code);
        let expected = case.with_extension("expected");
        if env::var_os("UPDATE").is_some() {
            fs::write(&expected, &shown).expect("written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != shown {
            faults.push(format!("{name} now shows:\n{shown}"));
        }
    }
    let bare: Vec<String> = used("src/route").difference(&shown_codes).cloned().collect();
    assert!(bare.is_empty(), "codes without a case in tests/diagnostics: {bare:?}");
    assert!(faults.is_empty(), "UPDATE=1 rewrites, after a look at each:\n{}", faults.join("\n"));
}

fn short(found: &[Diagnostic]) -> String {
    found.iter().map(|d| format!("{} {}", d.code, d.message)).collect::<Vec<_>>().join("; ")
}

/// The codes that the source can report. The language names some that no check reports yet.
fn used(folder: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for file in files(&root().join(folder), "rs") {
        if file.ends_with("diagnostic/codes.rs") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        let codes = text.split('"').filter(|s| s.len() == 4 && s.starts_with('K') && s.bytes().skip(1).all(|b| b.is_ascii_digit()));
        used.extend(codes.map(str::to_owned));
    }
    used
}

/// What is wrong in the site's own file.
fn own(loaded: &Loaded) -> Vec<Diagnostic> {
    loaded.diagnostics.iter().filter(|d| !loaded.sources.shipped(d.span.source)).cloned().collect()
}

#[test]
fn each_page_shows_the_fault_and_its_cure() {
    const FIRST: &[&str] = &["map:", "maps:", "name:", "route:", "table:", "systems:", "segment:", "datatype:", "extend:"];
    let used = used("src");
    let mut faults = Vec::new();
    for code in CODES {
        let blocks: Vec<&str> = code.page.split("```yaml\n").skip(1).filter_map(|b| b.split("```").next()).collect();
        let [bad, good] = blocks.as_slice() else { panic!("{} needs two examples", code.code) };
        if !FIRST.iter().any(|f| bad.starts_with(f)) {
            continue;
        }
        let told = |text: &str| own(&site("page.yaml", text));
        let (before, mut after) = (told(bad), if good.starts_with("# kiln.yaml") { Vec::new() } else { told(good) });
        if used.contains(code.code) && !UNREACHABLE.contains(&code.code) && !before.iter().any(|d| d.code == code.code) {
            faults.push(format!("{}: the fault is told as {}", code.code, short(&before)));
        }
        after.retain(|d| d.severity == Severity::Error || d.code == code.code);
        if !after.is_empty() {
            faults.push(format!("{}: the cure is told as {}", code.code, short(&after)));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// A site with this one file and a target `main`.
fn site(name: &str, text: &str) -> Loaded {
    let mut sources = route_sources(&[]).expect("the shipped routes");
    sources.add(name, text);
    let options = LoadOptions {
        targets: vec!["main".to_owned(), "lake".to_owned(), "server".to_owned(), "receiver".to_owned()],
        resources_only: vec!["server".to_owned()],
        messages_only: vec!["receiver".to_owned()],
        no_patches: vec!["lake".to_owned()],
        not_searchable: vec!["lake".to_owned()],
        listeners: vec!["adt".to_owned()],
        ..LoadOptions::default()
    };
    load(sources, &options)
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

//! `kiln schema`, judged by a validator that others wrote: it takes every shipped route file, every good case of the tests and every cure of
//! docs/errors, and refuses a list of wrong documents.

mod cli_support;

use cli_support::run;
use jsonschema::Validator;
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// docs/site.md is made from the declarations that the reader of the site file has; `UPDATE=1` writes it.
#[test]
fn the_reference_of_the_site_file_is_up_to_date() {
    let (path, page) = (root().join("docs/site.md"), kiln::site::reference());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).expect("written");
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), page, "UPDATE=1 cargo test --test schema writes docs/site.md");
}

/// The schema as the command prints it.
fn validator(options: &[&str]) -> Validator {
    let out = run(Path::new("."), &[&["schema"], options].concat()).expect(0).out;
    let schema: Value = serde_json::from_str(&out).expect("the schema is JSON");
    jsonschema::draft202012::meta::validate(&schema).expect("the schema is a schema of draft 2020-12");
    jsonschema::draft202012::new(&schema).expect("the schema can be used")
}

/// The documents of a text as an editor's YAML 1.2 parser (core schema) sees them.
fn documents(text: &str) -> Vec<Value> {
    let mut stack: Vec<(bool, Vec<Value>)> = Vec::new();
    let mut found = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.unwrap_or_else(|e| panic!("{e}\n{text}"));
        let done = match event {
            Event::Scalar(text, style, ..) => Some(scalar(&text, style)),
            Event::SequenceStart(..) => {
                stack.push((false, Vec::new()));
                None
            }
            Event::MappingStart(..) => {
                stack.push((true, Vec::new()));
                None
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (mapping, items) = stack.pop().expect("opened before");
                Some(if mapping { Value::Object(pairs(items)) } else { Value::Array(items) })
            }
            _ => None,
        };
        if let Some(value) = done {
            match stack.last_mut() {
                Some((_, items)) => items.push(value),
                None => found.push(value),
            }
        }
    }
    found
}

fn pairs(items: Vec<Value>) -> Map<String, Value> {
    let key = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    items.chunks(2).map(|pair| (key(&pair[0]), pair[1].clone())).collect()
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return json!(text);
    }
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => json!(true),
        "false" => json!(false),
        _ => text.parse::<i64>().map(|n| json!(n)).or_else(|_| text.parse::<f64>().map(|n| json!(n))).unwrap_or_else(|_| json!(text)),
    }
}

/// What the validator has against the documents of a text.
fn faults(validator: &Validator, name: &str, text: &str) -> Vec<String> {
    documents(text).iter().flat_map(|d| validator.iter_errors(d).map(|e| format!("{name}: {} at {}", e, e.instance_path())).collect::<Vec<_>>()).collect()
}

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn all(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut paths = Vec::new();
    files(&root().join(folder), extension, &mut paths);
    paths.sort();
    paths.into_iter().map(|p| (p.display().to_string(), fs::read_to_string(&p).expect("text"))).collect()
}

/// The fenced blocks of YAML in a page.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Does it begin as a route file does? Some blocks hold other files or several.
fn is_route_file(text: &str) -> bool {
    let line = text.lines().find(|l| !l.trim().is_empty() && !l.starts_with('#')).unwrap_or("");
    let first = line.split(':').next().unwrap_or("");
    line.contains(':') && ["map", "route", "table", "systems", "segment", "datatype", "extend"].contains(&first)
}

#[test]
fn every_shipped_file_and_every_good_case_is_valid() {
    let validator = validator(&[]);
    let mut wrong = Vec::new();
    let shipped = all("routes", "yaml");
    assert!(shipped.len() >= 40, "the shipped files were not found");
    for (name, text) in shipped {
        wrong.extend(faults(&validator, &name, &text));
    }
    // Two documents there use extensions of profiles that a site would bring along.
    let examples = fs::read_to_string(root().join("tests/language/examples.yaml")).expect("text");
    for example in examples.split("\n---\n").filter(|e| !e.contains("us-core-race") && !e.contains("namingsystem-checkDigit")) {
        wrong.extend(faults(&validator, "examples.yaml", example));
    }
    for (name, text) in all("tests/language/cases", "case") {
        let routes = text.split_once("=== routes\n").and_then(|(_, rest)| rest.split_once("\n=== message")).map(|(routes, _)| routes).expect("a case");
        wrong.extend(faults(&validator, &name, routes));
    }
    // The last block of each page is the cure; those of K720 on are site files.
    for (name, text) in all("docs/errors", "md").iter().filter(|(name, _)| !name.contains("/K72") && !name.contains("/K73")) {
        let cure = blocks(text).last().copied().expect("a cure");
        if is_route_file(cure) {
            wrong.extend(faults(&validator, name, cure));
        }
    }
    for page in ["docs/language.md", "docs/start.md"] {
        let text = fs::read_to_string(root().join(page)).expect("a page");
        for block in blocks(&text) {
            if is_route_file(block) {
                wrong.extend(faults(&validator, page, block));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn wrong_documents_are_refused() {
    let validator = validator(&[]);
    let wrong = [
        "mapp: PID -> Patient\n",
        "birthDate: PID-7\n",
        "map: PID\nbirthDate: PID-7\n",
        "map: PID -> Patient\nbirthdate: PID-7\n",
        "map: PID -> Patient\nname: { familie: PID-5.1 }\n",
        "map: PID -> Patient\ncontact: { $each: NK1, name: { use: { family: NK1-2 } } }\n",
        "map: NK1 -> Patient.contact\nbirthDate: NK1-16\n",
        "map: CX -> Identifier\nvalue+: CX.1\n",
        "map: CX -> Identifier-X\nvaleu: CX.1\n",
        "map: PID -> Patient\n$whenn: PID-7 valued\nbirthDate: PID-7\n",
        "map: PID -> Patient\n$merge: { name: union }\n",
        "map: PID -> Patient\nname: { $save: create }\n",
        "map: PID -> Patient\nextension: { patient-religionn: PID-17 }\n",
        "map: PID -> Patient\nextension: { patient-citizenship: { codee: PID-26 } }\n",
        "map: PID -> Patient\n_birthDate: { extensions: { patient-birthTime: PID-7 } }\n",
        "map: OBX -> Observation\nvalueQuantityy: OBX-5\n",
        "map: SN -> Observation.value[x]\nvalueQuantitty: { value: SN.2 }\n",
        "route: a\non: ADT^A01\ntoo: main\n",
        "route: a\non: ADT^A01\nsend: bundle\n",
        "route: a\nresources: { patient: { $map: PID -> Patient, birthdate: PID-7 } }\n",
        "route: a\nresources: { patient: { $map: [PID -> Patient, PD1 -> Patient], $savee: merge by PID-3 } }\n",
        "route: a\nresources: { patient: { $map: [PID to Patient] } }\n",
        "route: a\nresources: { patient: { $map: PID -> Patient, $missing: ignore } }\n",
        "route: a\non+: ADT^A01\n",
        "table: t\ncods: { A: b }\n",
        "table: t\ncodes: [A, B]\n",
        "table: t\ncodes: { A: b }\nsenders: [{ wen: MSH-3 = \"A\", codes: { A: c } }]\n",
        "systems: s\nmatch: [{ namespace: A, systm: 'http://a' }]\n",
        "segment: ZPI\nfields: { x: { type: CX } }\n",
        "segment: ZPI\nfields: { 3: { typ: CX } }\n",
        "datatype: ZCX\nfields: { 1: ST }\n",
        "extend: PID -> Patient\nbirthdate: PID-7\n",
        "extend: adt\nons: ADT^A01\n",
    ];
    let passed: Vec<&str> = wrong.into_iter().filter(|text| faults(&validator, "", text).is_empty()).collect();
    assert!(passed.is_empty(), "these pass:\n{}", passed.join("---\n"));
}

#[test]
fn site_files_are_judged() {
    let validator = validator(&["--site"]);
    let good = [
        "",
        "listeners:\n  adt: { mllp: 127.0.0.1:2575 }\ntargets:\n  main: { folder: out }\n",
        "language: 1\njournal: { path: /var/lib/kiln, keep: 30d, low-water: 5% }\nconsole: off\nmetrics: { listen: '[::1]:8576' }\nreload: signal\nuse: [us-core]\n",
        "listeners:\n  adt: { mllp: 0.0.0.0:2575, unrouted: reject, duplicates: off, when-full: nak, charset: UTF-8, zone: UTC, authority: H, allow: [10.0.0.0/8], \
         limits: { frame: 16MiB, connections: 10, idle: off } }\n",
        "targets:\n  main: { fhir: 'https://h/r4', auth: { basic: { user: k, password: { env: P } } }, headers: { X-A: b, X-B: { file: /s } }, timeout: 30s, parallel: 8, \
         send: batch }\n  none: { null: true }\n  disk: { folder: out, layout: ndjson }\nlog: { level: debug, json: true }\n",
    ];
    let refused: Vec<String> = good.iter().flat_map(|text| faults(&validator, text, text)).collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    let wrong = [
        "listener: {}\n",
        "listeners: { adt: { mlp: 127.0.0.1:1 } }\n",
        "listeners: { adt: { mllp: here } }\n",
        "listeners: { adt: { mllp: 127.0.0.1:1, unrouted: maybe } }\n",
        "listeners: { 'a b': { mllp: 127.0.0.1:1 } }\n",
        "listeners: { adt: { mllp: 127.0.0.1:1, limits: { connections: 0 } } }\n",
        "targets: { main: { fhir: 'http://h', auth: { basic: { user: k, password: secret } } } }\n",
        "targets: { main: { folder: out, layout: xml } }\n",
        "journal: { keep: forever }\n",
        "journal: { low-water: 200% }\n",
        "reload: wach\n",
        "language: 2\n",
        "log: { level: loud }\n",
    ];
    for text in wrong {
        assert!(!faults(&validator, "", text).is_empty(), "this passes: {text}");
    }
    for (name, text) in all("examples", "yaml").iter().filter(|(name, _)| name.ends_with("kiln.yaml")) {
        assert_eq!(faults(&validator, name, text), Vec::<String>::new());
    }
}

/// Each word that the schema of the site allows is taken by the reader, and the other way round as far as the schema says a word list.
#[test]
fn the_words_of_the_site_schema_are_the_readers() {
    let schema: Value = serde_json::from_str(&run(Path::new("."), &["schema", "--site"]).expect(0).out).expect("JSON");
    let words = |pointer: &str| {
        let list = schema.pointer(pointer).and_then(Value::as_array).unwrap_or_else(|| panic!("{pointer}"));
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let listener = "/properties/listeners/additionalProperties/properties";
    let target = "/properties/targets/additionalProperties/properties";
    for (pointer, around) in [
        ("/properties/reload/enum".to_owned(), "reload: WORD\n"),
        ("/properties/on-removal/enum".to_owned(), "on-removal: WORD\n"),
        ("/properties/log/properties/level/enum".to_owned(), "log: { level: WORD }\n"),
        ("/properties/log/properties/json/enum".to_owned(), "log: { json: WORD }\n"),
        (format!("{listener}/acknowledge/enum"), "listeners: { a: { mllp: 127.0.0.1:1, acknowledge: WORD } }\n"),
        (format!("{listener}/unrouted/enum"), "listeners: { a: { mllp: 127.0.0.1:1, unrouted: WORD } }\n"),
        (format!("{listener}/when-full/enum"), "listeners: { a: { mllp: 127.0.0.1:1, when-full: WORD } }\n"),
        (format!("{target}/send/enum"), "targets: { a: { fhir: http://h/, send: WORD } }\n"),
        (format!("{target}/patch/enum"), "targets: { a: { fhir: http://h/, patch: WORD } }\n"),
        (format!("{target}/layout/enum"), "targets: { a: { folder: x, layout: WORD } }\n"),
    ] {
        let read = |word: &str| {
            let text = around.replace("WORD", word);
            let options = kiln::site::SiteOptions { overrides: &[], secrets_needed: false, variable: &|_| None };
            let loaded = kiln::site::load("kiln.yaml", Path::new("."), Some(&text), &options);
            loaded.diagnostics.into_iter().find(|d| d.code == "K724")
        };
        let known = words(&pointer);
        assert!(known.iter().all(|word| read(word).is_none()), "{around}");
        let told = read("neither").unwrap_or_else(|| panic!("{around}"));
        let list = told.message.split(" one of ").nth(1).unwrap_or_default().to_owned();
        assert_eq!(list, known.join(", "), "{around}");
    }
}

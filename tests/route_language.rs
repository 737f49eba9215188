//! What routes mean, case by case: `tests/language/cases/*.case` hold routes, a message and what it makes.
//! `UPDATE=1 cargo test --test route_language` rewrites the expectations; read the difference before you keep it.

use bytes::Bytes;
use kiln::diagnostic::{Sources, Style, render};
use kiln::exchange::{MessageId, Timestamp};
use kiln::fhir::{Answered, Answers, Saves};
use kiln::hl7v2::{Message, ParseOptions};
use kiln::route::{Context, LoadOptions, RouteId, RouteSet, load};
use std::fmt::Write;
use std::path::{Path, PathBuf};

#[test]
fn every_case_makes_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/language/cases");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder).expect("the cases are here").filter_map(Result::ok).map(|e| e.path()).collect();
    cases.sort();
    assert!(cases.len() >= 15, "cases were lost: only {}", cases.len());
    let update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for path in cases {
        let text = std::fs::read_to_string(&path).expect("a case is text");
        let (input, expected) = text.split_once("\n=== makes\n").unwrap_or((text.as_str(), ""));
        let made = run(input, &path);
        if update {
            std::fs::write(&path, format!("{}\n=== makes\n{made}", input.trim_end_matches('\n'))).expect("the case can be written");
        } else if made != expected {
            wrong.push(format!("{}\n--- expected\n{expected}\n--- made\n{made}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A case's routes over its messages, as text.
fn run(input: &str, path: &Path) -> String {
    let (head, messages) = input.split_once("\n=== message\n").unwrap_or_else(|| panic!("{}: no `=== message`", path.display()));
    let (context, routes) = head.split_once("=== routes\n").unwrap_or_else(|| panic!("{}: no `=== routes`", path.display()));
    let (messages, canned) = messages.split_once("\n=== answers\n").map_or((messages, None), |(m, a)| (m, Some(a)));
    let canned: serde_json::Value = canned.map_or(serde_json::Value::Null, |text| serde_json::from_str(text).expect("the case's answers are JSON"));
    let setting = |name: &str| context.lines().find_map(|l| l.strip_prefix(name).map(str::trim));
    let mut sources = Sources::default();
    if let Some(file) = setting("with:") {
        let beside = path.with_file_name("..").join(file);
        sources.add_shipped(file, std::fs::read_to_string(beside).expect("the maps that a case begins with"));
    }
    sources.add("case.yaml", routes);
    let loaded = load(sources, &LoadOptions::default());
    let mut out = render(&loaded.sources, &loaded.diagnostics, Style::Short);
    let Some(set) = loaded.set else { return out };
    for message in messages.split("\n\n") {
        let bytes = Bytes::from(message.trim_end().replace('\n', "\r") + "\r");
        let message = Message::parse(bytes, &ParseOptions::default()).expect("the case's message parses");
        let context = Context {
            received: Timestamp(1_767_225_600_000),
            zone: setting("zone:"),
            authority: setting("authority:"),
            message: MessageId(7),
            listener: "adt",
            answers: kiln::fhir::Answers::NONE,
        };
        let matches = set.matching("adt", &message);
        if matches.taken.is_empty() {
            writeln!(out, "{}", if matches.filtered { "filtered" } else { "no route" }).expect("memory");
        }
        for route in matches.taken {
            let answers = answer(&set, route, &message, &context, &canned, &mut out);
            let context = Context { answers: &answers, ..context };
            match set.run(route, &message, &context) {
                Ok(output) => {
                    show(&output.saves, &mut out);
                    for draft in &output.drafts {
                        writeln!(out, "message {}", draft.place).expect("memory");
                        out.push_str(&String::from_utf8_lossy(&draft.bytes).replace('\r', "\n"));
                    }
                    for finding in output.findings {
                        writeln!(out, "finding {}: {} ({}) {}", finding.kind, finding.text, finding.place, finding.line).expect("memory");
                    }
                }
                Err(stop) => writeln!(out, "stop {}: {} ({}) {}", stop.kind, stop.text, stop.places.join(", "), stop.line).expect("memory"),
            }
        }
    }
    out
}

/// Answers the route's questions from the case's answers, as far as it has them, and shows what is asked.
fn answer(set: &RouteSet, route: RouteId, message: &Message, context: &Context<'_>, canned: &serde_json::Value, out: &mut String) -> Answers {
    let mut answers = Answers::default();
    while let Ok(Some(asking)) = set.question(route, message, &Context { answers: &answers, ..*context }) {
        let answer = match asking.question {
            None => {
                writeln!(out, "asks nothing for {}", asking.name).expect("memory");
                None
            }
            Some(question) => {
                writeln!(out, "asks {} for {}: {}", asking.target, asking.name, question.written()).expect("memory");
                let Some(found) = canned.get(&*asking.name) else { break };
                Some((question, serde_json::from_value(found.clone()).expect("an answer")))
            }
        };
        answers.entries.push(Answered { name: asking.name.to_string(), target: asking.target.to_string(), answer });
    }
    answers
}

fn show(saves: &Saves, out: &mut String) {
    for save in &saves.entries {
        let identity: Vec<String> = save.identity.iter().map(|i| format!("{}|{}", i.system, i.value)).collect();
        writeln!(out, "{} {:?} by {}", save.name, save.mode, identity.join(", ")).expect("memory");
        for path in &save.deletes {
            writeln!(out, "  deletes {}", path.join(" ")).expect("memory");
        }
        let link = |n: usize| saves.entries.get(n).map_or_else(|| "?".to_owned(), |s| format!("<{}>", s.name));
        let body = serde_json::to_string_pretty(&save.body.to_value(&link)).expect("a body is JSON");
        writeln!(out, "{body}").expect("memory");
        if let Some(initial) = &save.initial {
            writeln!(out, "  initial {}", initial.to_value(&link)).expect("memory");
        }
    }
}

#[test]
fn the_page_has_every_function_as_it_is_declared() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/language.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (begin, end) = ("from src/route/functions.rs -->\n", "<!-- end of functions -->");
    let (before, rest) = page.split_once(begin).expect("where the table begins");
    let (table, after) = rest.split_once(end).expect("where the table ends");
    let declared = format!("\n{}\n", kiln::route::function_reference());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, format!("{before}{begin}{declared}{end}{after}")).expect("written");
    } else {
        assert!(table == declared, "UPDATE=1 writes the table anew");
    }
}

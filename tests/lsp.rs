//! `kiln lsp` in conversation: the built binary, frames over standard input and output. Each file in `tests/lsp` is opened as a site's route file; its
//! marks are asked, and the answers stand beside it. `UPDATE=1` rewrites them. Random edits go through the same functions without a panic.

mod cli_support;

use cli_support::{PATIENCE, kiln};
use kiln::diagnostic::Sources;
use kiln::route::{Assist, LoadOptions, load};
use kiln::site::{route_sources, shipped};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

struct Editor {
    child: Child,
    input: ChildStdin,
    answers: Receiver<Value>,
    next: u64,
    folder: tempfile::TempDir,
    published: Vec<(String, Value)>,
}

impl Editor {
    fn start(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let cache = folder.path().join("cache");
        let mut child =
            kiln(folder.path()).arg("lsp").env("XDG_CACHE_HOME", cache).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary starts");
        let input = child.stdin.take().expect("piped");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, answers) = sync_channel(1000);
        std::thread::spawn(move || {
            while let Some(message) = frame(&mut output) {
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut editor = Self { child, input, answers, next: 0, folder, published: Vec::new() };
        let started = editor.ask("initialize", json!({ "processId": null, "capabilities": {}, "rootUri": editor.uri("") }));
        assert_eq!(started.pointer("/capabilities/hoverProvider"), Some(&json!(true)), "{started}");
        editor.tell("initialized", json!({}));
        editor
    }

    fn uri(&self, name: &str) -> String {
        format!("file://{}", self.folder.path().join(name).display())
    }

    fn send(&mut self, message: &Value) {
        let body = message.to_string();
        write!(self.input, "Content-Length: {}\r\n\r\n{body}", body.len()).expect("the server reads");
        self.input.flush().expect("the server reads");
    }

    fn tell(&mut self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    fn receive(&mut self) -> Value {
        let message = self.answers.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no answer in time: {e}; published: {:#?}", self.published));
        if message.get("method").and_then(Value::as_str) == Some("textDocument/publishDiagnostics") {
            let uri = message.pointer("/params/uri").and_then(Value::as_str).expect("a uri").to_owned();
            self.published.retain(|(u, _)| *u != uri);
            self.published.push((uri, message.pointer("/params/diagnostics").expect("a list").clone()));
        }
        message
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        loop {
            let message = self.receive();
            if message.get("id") == Some(&json!(id)) && message.get("method").is_none() {
                return message.get("result").cloned().unwrap_or_else(|| panic!("{message}"));
            }
        }
    }

    /// Waits until the faults of a file are such.
    fn faults(&mut self, name: &str, fits: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let uri = self.uri(name);
        loop {
            if let Some((_, list)) = self.published.iter().find(|(u, l)| *u == uri && fits(l.as_array().expect("a list"))) {
                return list.as_array().expect("a list").clone();
            }
            self.receive();
        }
    }

    fn open(&mut self, name: &str, text: &str) {
        let document = json!({ "uri": self.uri(name), "languageId": "yaml", "version": 1, "text": text });
        self.tell("textDocument/didOpen", json!({ "textDocument": document }));
    }

    fn change(&mut self, name: &str, text: &str) {
        let document = json!({ "uri": self.uri(name), "version": 2 });
        self.tell("textDocument/didChange", json!({ "textDocument": document, "contentChanges": [{ "text": text }] }));
    }

    fn end(mut self) {
        assert_eq!(self.ask("shutdown", Value::Null), Value::Null);
        self.tell("exit", Value::Null);
        let ended = self.child.wait().expect("it ends");
        assert!(ended.success(), "{ended:?}");
    }
}

fn frame(output: &mut impl BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        if let Some(n) = line.strip_prefix("Content-Length: ") {
            length = n.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    output.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

const SITE: &str = "listeners: { adt: { mllp: 127.0.0.1:2575 } }\ntargets: { main: { folder: out } }\n";

/// The text without its marks; each mark's letter with its line and column from 0.
fn marks(text: &str) -> (String, Vec<(char, usize, usize)>) {
    let (mut plain, mut found) = (String::new(), Vec::new());
    let mut parts = text.split('«');
    plain.push_str(parts.next().unwrap_or(""));
    for part in parts {
        let (mark, rest) = part.split_once('»').expect("a mark is closed");
        let line = plain.matches('\n').count();
        let column = plain.rsplit('\n').next().unwrap_or("").encode_utf16().count();
        found.push((mark.chars().next().expect("a letter"), line, column));
        plain.push_str(rest);
    }
    (plain, found)
}

fn shown(what: char, answer: &Value, folder: &str) -> String {
    let text = |v: &Value, p: &str| v.pointer(p).and_then(Value::as_str).unwrap_or("").to_owned();
    let mut out = String::new();
    match what {
        'c' => {
            let items = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            // Which segments there are depends on the shipped routes: two are enough.
            let segments = items.iter().filter(|i| text(i, "/detail") == "segment").skip(2).count();
            for item in items.iter().take(if segments > 0 { 2 } else { 8 }) {
                writeln!(out, "  {:?} {}", text(item, "/textEdit/newText"), text(item, "/detail")).expect("memory");
            }
            if segments == 0 {
                writeln!(out, "  ({} in all)", items.len()).expect("memory");
            }
        }
        'h' => text(answer, "/contents/value").lines().for_each(|l| writeln!(out, "  {l}").expect("memory")),
        'd' => {
            for place in answer.as_array().cloned().unwrap_or_default() {
                let line = place.pointer("/range/start/line").and_then(Value::as_u64).map_or(0, |n| n + 1);
                writeln!(out, "  {}:{line}", text(&place, "/uri").replace(folder, "")).expect("memory");
            }
        }
        _ => {
            for action in answer.as_array().cloned().unwrap_or_default() {
                writeln!(out, "  {}", text(&action, "/title")).expect("memory");
            }
        }
    }
    out
}

#[test]
fn each_mark_is_answered_as_expected() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lsp");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder).expect("the cases").map(|e| e.expect("an entry").path()).collect();
    cases.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    cases.sort();
    assert!(cases.len() >= 3, "cases were lost");
    let mut wrong = Vec::new();
    for case in cases {
        let (text, marks) = marks(&std::fs::read_to_string(&case).expect("text"));
        let mut editor = Editor::start(&[("kiln.yaml", SITE), ("routes/mine.yaml", "")]);
        editor.open("routes/mine.yaml", &text);
        let faults = editor.faults("routes/mine.yaml", |_| true);
        let mut out = String::from("faults\n");
        for fault in faults {
            let line = fault.pointer("/range/start/line").and_then(Value::as_u64).unwrap_or(0) + 1;
            let message = fault.get("message").and_then(Value::as_str).unwrap_or("").replace('\n', "\n    ");
            writeln!(out, "  {line} {} {message}", fault.get("code").and_then(Value::as_str).unwrap_or("")).expect("memory");
        }
        for (what, line, column) in marks {
            let document = json!({ "uri": editor.uri("routes/mine.yaml") });
            let position = json!({ "line": line, "character": column });
            let (method, name) = match what {
                'c' => ("textDocument/completion", "completion"),
                'h' => ("textDocument/hover", "hover"),
                'd' => ("textDocument/definition", "definition"),
                _ => ("textDocument/codeAction", "actions"),
            };
            let range = json!({ "start": position, "end": position });
            let answer = editor.ask(method, json!({ "textDocument": document, "position": position, "range": range, "context": { "diagnostics": [] } }));
            let here = text.lines().nth(line).unwrap_or("").trim();
            write!(out, "{name} {}:{} {here}\n{}", line + 1, column + 1, shown(what, &answer, &editor.uri(""))).expect("memory");
        }
        editor.end();
        let expected = case.with_extension("expected");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&expected, &out).expect("written");
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != out {
            wrong.push(format!("{} now answers:\n{out}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_unsaved_text_wins_and_faults_go_when_they_are_cured() {
    let broken = "route: mine\non: ADT^A01\nto: mian\nresources: { patient: { $map: PID -> Patient, $save: merge by PID-3 } }\n";
    let mut editor = Editor::start(&[("kiln.yaml", SITE), ("routes/mine.yaml", broken), ("routes/other.yaml", "map: PID -> Patient-Other\nbirthdat: PID-7\n")]);
    editor.open("routes/mine.yaml", broken);
    let faults = editor.faults("routes/mine.yaml", |l| !l.is_empty());
    assert_eq!(faults[0].get("code"), Some(&json!("K701")));
    // A file that is not open is told of too.
    assert_eq!(editor.faults("routes/other.yaml", |l| !l.is_empty())[0].get("code"), Some(&json!("K301")));
    editor.change("routes/mine.yaml", &broken.replace("mian", "main"));
    editor.faults("routes/mine.yaml", <[Value]>::is_empty);
    // A target that the site file, not saved yet, calls otherwise.
    editor.open("kiln.yaml", &SITE.replace("main", "mian"));
    editor.faults("routes/mine.yaml", |l| !l.is_empty());
    editor.change("kiln.yaml", &SITE.replace("main", "mian").replace("folder", "foldr"));
    assert_eq!(editor.faults("kiln.yaml", |l| !l.is_empty())[0].get("code"), Some(&json!("K723")));
    editor.end();
}

#[test]
fn a_yaml_file_of_others_is_left_alone_and_a_shipped_one_can_be_read() {
    let mut editor = Editor::start(&[("compose.yaml", "services: {}\n")]);
    editor.open("compose.yaml", "services: {}\n");
    editor.open("mine.yaml", "map: PID -> Patient-Mine\nbirthdate: PID-7\n");
    assert_eq!(editor.faults("mine.yaml", |l| !l.is_empty()).len(), 1);
    assert!(editor.published.iter().all(|(uri, _)| !uri.contains("compose")));
    editor.change("mine.yaml", "map: PID -> Patient-Mine\nname: PID-5\n");
    // What is left is that nothing uses the map.
    editor.faults("mine.yaml", |l| l.iter().all(|fault| fault.get("code") == Some(&json!("K710"))));
    let place = json!({ "textDocument": { "uri": editor.uri("mine.yaml") }, "position": { "line": 1, "character": 8 } });
    let found = editor.ask("textDocument/definition", place);
    let uri = found.pointer("/0/uri").and_then(Value::as_str).expect("a place").to_owned();
    assert!(uri.ends_with("types/xpn-humanname.yaml"), "{uri}");
    let path = uri.strip_prefix("file://").expect("a file");
    let text = std::fs::read_to_string(path).expect("it was written");
    assert!(std::fs::metadata(path).expect("there").permissions().readonly());
    let document = json!({ "uri": uri, "languageId": "yaml", "version": 1, "text": text });
    editor.tell("textDocument/didOpen", json!({ "textDocument": document }));
    let line = text.lines().position(|l| l.contains("family:")).expect("a line");
    let column = text.lines().nth(line).and_then(|l| l.find("family")).expect("there") + 1;
    let hovered = editor.ask("textDocument/hover", json!({ "textDocument": { "uri": uri }, "position": { "line": line, "character": column } }));
    assert!(hovered.to_string().contains("HumanName.family"), "{hovered}");
    editor.end();
}

fn assist() -> Assist {
    Assist::new(&load(route_sources(&[]).expect("shipped"), &LoadOptions::default()))
}

/// Small and repeatable: the same edits each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n.max(1) as u64).unwrap_or(0)
    }
}

#[test]
fn random_edits_at_random_places_never_panic() {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        "\"",
        "'",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "---\n",
        "#",
        ">",
        "|",
        "$",
        "$let:",
        "PID-",
        "CX.",
        " via ",
        " as ",
        " where ",
        "(",
        ")",
        ",",
        "ä",
        "😀",
        "\t",
        "\r\n",
        "OBX[2]-5.",
        "extension:",
        "_birthDate: ",
        "..",
        "--",
        "~",
        "if ",
        "??",
        "\u{0}",
    ];
    let assist = assist();
    let files = shipped();
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let rounds = std::env::var("KILN_LSP_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let mut offered = 0;
    for round in 0..rounds {
        let (name, text) = &files[dice.below(files.len())];
        let mut text = (*text).to_owned();
        for _ in 0..=dice.below(6) {
            let at = |dice: &mut Dice, text: &str| (0..=dice.below(text.len() + 1)).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
            let from = at(&mut dice, &text);
            match dice.below(3) {
                0 => text.insert_str(from, PIECES[dice.below(PIECES.len())]),
                1 => text.truncate(from.max(20).min(text.len())),
                _ => {
                    let to = (from..=(from + dice.below(40)).min(text.len())).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(from);
                    text.replace_range(from..to, "");
                }
            }
        }
        let id = assist.sources().ids().find(|id| assist.sources().path(*id).ends_with(name.as_str())).expect("shipped");
        let view = assist.with_text(id, &text);
        for _ in 0..12 {
            let at = dice.below(text.len() + 2);
            for suggestion in view.complete(at) {
                assert!(text.get(suggestion.replaces.clone()).is_some(), "round {round}: {suggestion:?} at {at} in\n{text}");
                offered += 1;
            }
            if let Some(hover) = view.hover(at) {
                assert!(text.get(hover.range.clone()).is_some(), "round {round}: {hover:?}");
            }
            view.define(at);
        }
        if round % 20 == 0 {
            let mut sources = Sources::default();
            sources.add("a.yaml", text.as_str());
            Assist::new(&load(sources, &LoadOptions::default()));
        }
    }
    assert!(offered > rounds, "hardly anything was offered: {offered}");
}

#[test]
fn every_element_of_a_shipped_map_can_be_hovered() {
    let assist = assist();
    let mut blind = Vec::new();
    for id in assist.sources().ids().filter(|id| assist.sources().path(*id).contains("segments/")) {
        let text = assist.sources().text(id).to_owned();
        let view = assist.with_text(id, &text);
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            // Lines of the map itself: elements and `$` keys.
            let key = line.split(':').next().unwrap_or("");
            if line.contains(": ") && key.starts_with(|c: char| c.is_ascii_lowercase() || c == '$' || c == '_') && view.hover(at + 1).is_none() {
                blind.push(format!("{}: {line}", assist.sources().path(id)));
            }
            at += line.len();
        }
    }
    assert!(blind.is_empty(), "{}", blind.join(""));
}

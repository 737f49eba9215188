//! What Kiln writes means what was meant: random messages, with odd delimiters, escapes, repetitions and character sets, through routes with
//! random lines. What is expected is made from the message's own tree, not by Kiln's parser.

use bytes::Bytes;
use kiln::diagnostic::Sources;
use kiln::exchange::{MessageId, Timestamp};
use kiln::hl7v2::{Message, ParseOptions};
use kiln::route::{Context, LoadOptions, RouteSet, load};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// Repetitions of components of subcomponents; what is empty was not sent, `""` deletes.
type Field = Vec<Vec<Vec<String>>>;

#[derive(Clone, Debug)]
struct Tree {
    /// Field, component, repetition, escape, subcomponent.
    delimiters: [char; 5],
    latin: bool,
    pid: BTreeMap<usize, Field>,
    notes: Vec<String>,
}

const NULL: &str = "\"\"";

/// A text without control characters; delimiters of the message come in often.
fn text(latin: bool) -> impl Strategy<Value = String> {
    let letters = if latin { "[A-Za-z0-9 .|^~&\\\\#!@%*ü]{0,8}" } else { "[A-Za-z0-9 .|^~&\\\\#!@%*ü山]{0,8}" };
    prop_oneof![6 => letters.prop_map(|t| t), 1 => Just(NULL.to_owned())]
}

fn field(latin: bool) -> impl Strategy<Value = Field> {
    let component = prop::collection::vec(text(latin), 1..3);
    prop::collection::vec(prop::collection::vec(component, 1..4), 1..4)
}

fn tree() -> impl Strategy<Value = Tree> {
    let standard = Just(['|', '^', '~', '\\', '&']);
    let odd = Just("|^~\\&#!@%*$+;:/?".chars().collect::<Vec<_>>()).prop_shuffle().prop_map(|all| [all[0], all[1], all[2], all[3], all[4]]);
    (prop_oneof![standard, odd], any::<bool>()).prop_flat_map(|(delimiters, latin)| {
        let pid = prop::collection::btree_map(prop::sample::select(vec![2_usize, 3, 5, 9, 11, 13]), field(latin), 1..6);
        (pid, prop::collection::vec("[a-z |^~&\\\\]{1,8}", 0..3)).prop_map(move |(pid, notes)| Tree { delimiters, latin, pid, notes })
    })
}

impl Tree {
    fn escaped(&self, text: &str) -> String {
        if text == NULL {
            return NULL.to_owned();
        }
        let [f, s, r, e, t] = self.delimiters;
        let mut out = String::new();
        for c in text.chars() {
            let letter = [(f, 'F'), (s, 'S'), (r, 'R'), (e, 'E'), (t, 'T')].into_iter().find(|(d, _)| *d == c).map(|(_, letter)| letter);
            match letter {
                Some(letter) => write!(out, "{e}{letter}{e}").expect("memory"),
                None => out.push(c),
            }
        }
        out
    }

    fn field(&self, field: &Field) -> String {
        let [_, s, r, _, t] = self.delimiters;
        let joined = |parts: Vec<String>, by: char| parts.join(&by.to_string());
        let component = |c: &Vec<String>| joined(c.iter().map(|x| self.escaped(x)).collect(), t);
        joined(field.iter().map(|rep| joined(rep.iter().map(component).collect(), s)).collect(), r)
    }

    fn bytes(&self) -> Vec<u8> {
        let [f, s, r, e, t] = self.delimiters;
        let charset = if self.latin { "8859/1" } else { "UNICODE UTF-8" };
        let mut text = format!("MSH{f}{s}{r}{e}{t}{f}A{f}B{f}C{f}D{f}20260401{f}{f}ADT{s}A08{s}ADT_A01{f}7{f}P{f}2.5{f}{f}{f}{f}{f}{f}{charset}\rPID");
        for n in 1..=self.pid.keys().max().copied().unwrap_or(0) {
            text.push(f);
            text.push_str(&self.pid.get(&n).map(|field| self.field(field)).unwrap_or_default());
        }
        text.push('\r');
        for note in &self.notes {
            write!(text, "NTE{f}1{f}{f}{}\r", self.escaped(note)).expect("memory");
        }
        if self.latin { text.chars().map(|c| u8::try_from(u32::from(c)).expect("a Latin letter")).collect() } else { text.into_bytes() }
    }
}

/// What a reader sees: each value by its place, counted from 1.
type Seen = BTreeMap<(String, usize, usize, usize, usize, usize), String>;

fn see_field(seen: &mut Seen, segment: &str, nth: usize, n: usize, field: &Field) {
    for (r, repetition) in field.iter().enumerate() {
        for (c, component) in repetition.iter().enumerate() {
            for (s, text) in component.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
                seen.insert((segment.to_owned(), nth, n, r + 1, c + 1, s + 1), text.clone());
            }
        }
    }
}

fn seen(bytes: &[u8]) -> Seen {
    let message = Message::parse(Bytes::copy_from_slice(bytes), &ParseOptions::default()).expect("what Kiln writes, Kiln reads");
    let mut seen = Seen::new();
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for segment in 1..message.segment_count() {
        let name = message.segment_name(segment).to_owned();
        let nth = count.entry(name.clone()).or_default();
        *nth += 1;
        for n in 1..=message.field_count(segment) {
            for (r, repetition) in message.repetitions(message.field(segment, n)).enumerate() {
                for c in 1..=message.component_count(repetition) {
                    let component = message.component(repetition, c);
                    for s in 1..=message.subcomponent_count(component) {
                        let leaf = message.subcomponent(component, s);
                        if message.is_null(leaf) || message.is_valued(leaf) {
                            let text = if message.is_null(leaf) { NULL.into() } else { message.text(leaf) };
                            seen.insert((name.clone(), *nth, n, r + 1, c, s), text.into_owned());
                        }
                    }
                }
            }
        }
    }
    seen
}

fn set(lines: &str, copy: &str) -> Arc<RouteSet> {
    let mut sources = Sources::default();
    let routes = format!(
        "route: out\non: ADT^A08\nto: main\nmessage:\n{copy}{lines}\n---\nsegment: ZPI\nafter: PID\nfields: {{ 1: {{ name: A, type: ST }}, 2: {{ name: B, type: XPN, repeats: true }} }}\n"
    );
    sources.add("out.yaml", routes);
    let loaded = load(sources, &LoadOptions::default());
    loaded.set.unwrap_or_else(|| panic!("{lines}: {:?}", loaded.diagnostics))
}

fn run(set: &RouteSet, bytes: Vec<u8>) -> Vec<Vec<u8>> {
    let message = Message::parse(bytes.into(), &ParseOptions::default()).expect("it parses");
    let context = Context {
        received: Timestamp(1_767_225_600_000),
        zone: None,
        authority: None,
        message: MessageId(7),
        listener: "adt",
        answers: kiln::fhir::Answers::NONE,
    };
    let route = set.named("out").expect("the route");
    let output = set.run(route, &message, &context).unwrap_or_else(|stop| panic!("{stop:?}"));
    let lineage = set.lineage(route, &message, &context);
    assert_eq!(lineage.findings, output.findings);
    output.drafts.into_iter().map(|draft| draft.bytes).collect()
}

/// Lines, and what each does to the tree. `true` copies the message, `false` begins anew with some of its fields.
fn meant(tree: &Tree, lines: &[&str], copies: bool) -> Seen {
    let valued = |field: &Field| -> Field {
        let has = |repetition: &&Vec<Vec<String>>| repetition.iter().flatten().any(|t| !t.is_empty() && t != NULL);
        field.iter().filter(has).cloned().collect()
    };
    let sent = |n: usize| tree.pid.get(&n).map(valued).unwrap_or_default();
    let mut pid = if copies { tree.pid.clone() } else { BTreeMap::new() };
    let (mut notes, mut extra) = (copies, BTreeMap::<usize, Field>::new());
    for line in lines {
        match *line {
            "PID-9: PID-5" | "PID-5: PID-5" | "PID-11: PID-11" => {
                let (to, from) = if line.starts_with("PID-9") {
                    (9, 5)
                } else if line.starts_with("PID-5") {
                    (5, 5)
                } else {
                    (11, 11)
                };
                let field = sent(from);
                if !field.is_empty() {
                    pid.insert(to, field);
                } else if tree.pid.get(&from).is_some_and(|f| f.iter().any(|r| r.len() == 1 && r[0].len() == 1 && r[0][0] == NULL)) {
                    pid.insert(to, vec![vec![vec![NULL.to_owned()]]]);
                }
            }
            "PID-11: nothing" => drop(pid.remove(&11)),
            "PID-5.2: \"Q|x&y~z\\\\^\"" => {
                let field = pid.entry(5).or_default();
                if field.is_empty() {
                    field.push(Vec::new());
                }
                for repetition in field {
                    repetition.resize(repetition.len().max(2), vec![String::new()]);
                    repetition[1] = vec!["Q|x&y~z\\^".to_owned()];
                }
            }
            "NTE: nothing" => notes = false,
            "ZPI: { ZPI-1: \"a^b\", ZPI-2: PID-9 }" => {
                let field = sent(9);
                if !field.is_empty() {
                    extra.insert(2, field);
                } else if tree.pid.get(&9).is_some_and(|f| f.iter().any(|r| r.len() == 1 && r[0].len() == 1 && r[0][0] == NULL)) {
                    extra.insert(2, vec![vec![vec![NULL.to_owned()]]]);
                }
                // A body whose expressions yield nothing makes nothing, however many constants it holds.
                if extra.contains_key(&2) {
                    extra.insert(1, vec![vec![vec!["a^b".to_owned()]]]);
                }
            }
            other => panic!("{other}"),
        }
    }
    let mut seen = Seen::new();
    pid.iter().for_each(|(n, field)| see_field(&mut seen, "PID", 1, *n, field));
    extra.iter().for_each(|(n, field)| see_field(&mut seen, "ZPI", 1, *n, field));
    for (n, note) in tree.notes.iter().enumerate().filter(|_| notes) {
        seen.insert(("NTE".to_owned(), n + 1, 1, 1, 1, 1), "1".to_owned());
        seen.insert(("NTE".to_owned(), n + 1, 3, 1, 1, 1), note.clone());
    }
    seen
}

const LINES: [&str; 6] =
    ["PID-9: PID-5", "PID-11: nothing", "PID-5.2: \"Q|x&y~z\\\\^\"", "NTE: nothing", "ZPI: { ZPI-1: \"a^b\", ZPI-2: PID-9 }", "PID-5: PID-5"];

/// `PROPTEST_CASES` makes it more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_is_the_message_byte_for_byte(tree in tree()) {
        let bytes = tree.bytes();
        let set = set("", "  $copy: all\n");
        prop_assert_eq!(run(&set, bytes.clone()), vec![bytes]);
    }

    #[test]
    fn lines_change_what_they_name_and_nothing_else(tree in tree(), chosen in prop::sample::subsequence(LINES.to_vec(), 0..6)) {
        let lines: String = chosen.iter().map(|l| format!("  {l}\n")).collect();
        let made = run(&set(&lines, "  $copy: all\n"), tree.bytes());
        prop_assert_eq!(made.len(), 1);
        prop_assert_eq!(seen(&made[0]), meant(&tree, &chosen, true), "{}", lines);
    }

    /// The message's delimiters and letters become Kiln's own, and the values stay.
    #[test]
    fn a_message_that_begins_anew_means_the_same(tree in tree()) {
        let lines = ["PID-9: PID-5", "PID-11: PID-11", "ZPI: { ZPI-1: \"a^b\", ZPI-2: PID-9 }"];
        let text = "  MSH-9: \"ADT^A08^ADT_A01\"\n  PID: { PID-9: PID-5, PID-11: PID-11 }\n  ZPI: { ZPI-1: \"a^b\", ZPI-2: PID-9 }\n";
        let made = run(&set(text, ""), tree.bytes());
        let wanted = meant(&tree, &lines, false);
        match made.as_slice() {
            [] => prop_assert!(wanted.is_empty()),
            [made] => {
                prop_assert_eq!(seen(made), wanted);
                prop_assert!(made.starts_with(b"MSH|^~\\&|"));
            }
            more => prop_assert!(false, "{} messages", more.len()),
        }
    }
}

//! Mutated route files and messages through check, compile and run: no panic, no endless loop, no growth, and every failure has a type and a place.
//!
//! `KILN_MUTATIONS=100000 cargo test --release --test route_mutations` runs the full number.

use bytes::Bytes;
use kiln::diagnostic::{Severity, Sources};
use kiln::exchange::{MessageId, Timestamp};
use kiln::hl7v2::{Message, ParseOptions};
use kiln::route::{Context, LoadOptions, RouteId, RouteSet, load};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One input may take this long, load and all runs together; it takes milliseconds.
const TIME_MAX: Duration = Duration::from_secs(30);

struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % below.max(1)
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

#[test]
fn no_mutation_of_routes_or_messages_breaks_a_check_or_a_run() {
    let rounds: usize = std::env::var("KILN_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/language");
    let types = std::fs::read_to_string(folder.join("types.yaml")).expect("the types of the cases");
    let (mut routes, mut messages) = (Vec::new(), Vec::new());
    let mut cases: Vec<_> = std::fs::read_dir(folder.join("cases")).expect("the cases").filter_map(|e| Some(e.ok()?.path())).collect();
    cases.sort();
    for case in cases {
        let text = std::fs::read_to_string(case).expect("a case");
        let (input, _) = text.split_once("\n=== makes\n").expect("what it makes");
        let (head, sent) = input.split_once("\n=== message\n").expect("its messages");
        let (context, own) = head.split_once("=== routes\n").expect("its routes");
        let with = context.contains("with: types.yaml");
        routes.push((with, own.to_owned()));
        messages.extend(sent.split("\n\n").map(|m| m.trim_end().replace('\n', "\r") + "\r"));
    }
    let words: Vec<String> = routes.iter().flat_map(|(_, r)| r.split_whitespace()).chain(types.split_whitespace()).map(str::to_owned).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let whole: Vec<Arc<RouteSet>> = routes.iter().filter_map(|(with, own)| set(&[if *with { &types } else { "" }, own])).collect();
    assert!(whole.len() > 15, "cases that compile: {}", whole.len());
    let (mut compiled, mut made, mut stopped, mut found, mut sent) = (0_usize, 0_usize, 0_usize, 0_usize, 0_usize);
    for round in 0..rounds {
        let began = Instant::now();
        let damaged = random.below(3) > 0;
        let fresh = damaged.then(|| {
            let (with, own) = random.of(&routes).clone();
            let mut files = [if with { types.clone() } else { String::new() }, own];
            for _ in 0..=random.below(3) {
                let file = usize::from(files[0].is_empty() || random.below(4) > 0);
                let mut text = std::mem::take(&mut files[file]);
                mutate_text(&mut text, &words, &mut random);
                files[file] = text;
            }
            set(&[&files[0], &files[1]])
        });
        let kept = random.of(&whole).clone();
        let Some(set) = fresh.unwrap_or(Some(kept)) else { continue };
        compiled += 1;
        for _ in 0..3 {
            let mut bytes = random.of(&messages).clone().into_bytes();
            for _ in 0..random.below(6) {
                mutate_bytes(&mut bytes, &mut random);
            }
            let Ok(message) = Message::parse(Bytes::from(bytes), &ParseOptions::default()) else { continue };
            let context = Context {
                received: Timestamp(1_767_225_600_000),
                zone: Some("Europe/Berlin"),
                authority: None,
                message: MessageId(1),
                listener: "adt",
                answers: kiln::fhir::Answers::NONE,
            };
            set.matching("adt", &message);
            let ids: Vec<RouteId> = set.routes().map(|(id, _)| id).collect();
            for id in ids {
                match set.run(id, &message, &context) {
                    Ok(output) => {
                        made += output.saves.entries.len();
                        sent += output.drafts.len();
                        assert!(output.drafts.len() <= 10_000, "round {round}: too many messages");
                        for draft in output.drafts.iter().take(20) {
                            // A header that was damaged so that nobody can read it stays as it was.
                            let options = ParseOptions { charset: Some(message.charset()), ..ParseOptions::default() };
                            if let Ok(again) = Message::parse(Bytes::from(draft.bytes.clone()), &options) {
                                assert!(again.segment_count() > 0, "round {round}: an empty message");
                            }
                        }
                        assert!(output.saves.entries.len() <= 10_001 && output.findings.len() <= 201, "round {round}: too much was made");
                        for finding in &output.findings {
                            found += 1;
                            assert!(!finding.kind.is_empty() && !finding.text.is_empty(), "round {round}: a finding without words");
                        }
                        for save in &output.saves.entries {
                            serde_json::to_string(&save.body.to_value(&|n| format!("#{n}"))).expect("JSON");
                        }
                    }
                    Err(stop) => {
                        stopped += 1;
                        // These two are about a route as a whole, and name it.
                        let placed = !stop.line.is_empty() || matches!(stop.kind, "too-large" | "not-yet");
                        assert!(!stop.kind.is_empty() && !stop.text.is_empty() && placed, "round {round}: {stop:?} has no place");
                    }
                }
            }
        }
        assert!(began.elapsed() < TIME_MAX, "round {round} took {:?}", began.elapsed());
    }
    println!("{rounds} rounds: {compiled} sets ran, {made} resources, {sent} messages, {stopped} stops, {found} findings");
    assert!(compiled > rounds / 3 && made > rounds / 4 && sent > rounds / 10 && stopped > 0 && found > 0, "the mutations hit nothing any more");
}

fn set(files: &[&str]) -> Option<Arc<RouteSet>> {
    let mut sources = Sources::default();
    for (n, file) in files.iter().enumerate().filter(|(_, f)| !f.is_empty()) {
        sources.add(format!("{n}.yaml"), *file);
    }
    let loaded = load(sources, &LoadOptions::default());
    for fault in &loaded.diagnostics {
        let text = loaded.sources.text(fault.span.source);
        assert!(text.get(fault.span.start as usize..fault.span.end as usize).is_some(), "{fault:?} lies outside of its file");
    }
    assert_eq!(loaded.set.is_none(), loaded.diagnostics.iter().any(|d| d.severity == Severity::Error));
    loaded.set
}

/// Words change places: most damage stays readable, and so comes far.
fn mutate_text(text: &mut String, words: &[String], random: &mut Random) {
    let starts: Vec<usize> = text.match_indices([' ', '\n']).map(|(n, _)| n + 1).collect();
    let at = if starts.is_empty() { 0 } else { *random.of(&starts) };
    let end = text.get(at..).and_then(|rest| rest.find([' ', '\n'])).map_or(text.len(), |n| at + n);
    let word = random.of(words).clone();
    match random.below(5) {
        0 => text.insert_str(at, &format!("{word} ")),
        1 => text.replace_range(at..end, ""),
        2 => {
            // A digit changes: another field, component or place.
            if let Some(n) = text.get(at..end).and_then(|w| w.find(|c: char| c.is_ascii_digit())) {
                text.replace_range(at + n..=at + n, &random.below(10).to_string());
            }
        }
        _ => text.replace_range(at..end, &word),
    }
}

/// Delimiters, digits, repetitions and whole pieces change, go and come twice.
fn mutate_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    const PIECES: &[&str] =
        &["|", "^", "~", "&", "\\", "\r", "\"\"", "0", "99999999999999999999", "-", "OBX|", "PID|1||1^^^A\r", "\u{0}", "\u{fc}", "\\X0D\\", "\\F\\"];
    let at = random.below(bytes.len() + 1);
    match random.below(5) {
        0 => {
            let piece = random.of(PIECES);
            bytes.splice(at..at, piece.bytes());
        }
        1 => {
            let end = (at + random.below(9)).min(bytes.len());
            bytes.drain(at..end);
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = u8::try_from(random.below(256)).expect("a byte");
            }
        }
        3 => {
            let end = (at + random.below(200)).min(bytes.len());
            let again = bytes[at..end].to_vec();
            for _ in 0..random.below(20) {
                bytes.splice(at..at, again.iter().copied());
            }
        }
        _ => bytes.truncate(at.max(8)),
    }
}

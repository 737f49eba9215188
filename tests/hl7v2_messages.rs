//! Every message in fixtures/messages is read, or says why not, and is written back byte for byte.
//!
//! `tests/hl7v2_messages.expected` says what was understood of each; `UPDATE=1 cargo test --test hl7v2_messages` rewrites it.

use bytes::Bytes;
use kiln::hl7v2::{Message, ParseOptions, Placement, split};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn files() -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/messages");
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(&root).expect("fixtures/messages is in the repository").map(|e| e.expect("a folder entry").path()).collect();
    folders.sort();
    let mut files = Vec::new();
    for folder in folders.iter().filter(|f| f.is_dir()) {
        let mut names: Vec<PathBuf> = std::fs::read_dir(folder).expect("a readable folder").map(|e| e.expect("a folder entry").path()).collect();
        names.sort();
        for path in names {
            let name = path.strip_prefix(&root).expect("below the root").display().to_string();
            files.push((name, std::fs::read(&path).expect("a readable file")));
        }
    }
    files
}

#[test]
fn every_message_is_understood_or_says_why_not() {
    let mut found = String::new();
    for (name, bytes) in files() {
        for (n, range) in split(&bytes).into_iter().enumerate() {
            let frame = Bytes::copy_from_slice(&bytes[range]);
            let number = if n == 0 { String::new() } else { format!("[{}]", n + 1) };
            match Message::parse(frame.clone(), &ParseOptions::default()) {
                Err(fault) => writeln!(found, "{name}{number}: REFUSED {fault}").expect("a string takes text"),
                Ok(message) => {
                    assert!(message.write() == &frame[..], "{name} is not written back as it was read");
                    let structure = message.structure();
                    let place = structure.map_or_else(|| Placement::flat(message.segment_count()), |s| message.place(s, &[]));
                    let stray: Vec<&str> = place.segments.iter().enumerate().filter(|(_, p)| p.node.is_none()).map(|(n, _)| message.segment_name(n)).collect();
                    let mut line = format!("{name}{number}: {} {}", message.message_type(), message.version().name());
                    line.push_str(&structure.map_or(" no structure".to_owned(), |s| format!(" {} {}", s.id(), s.version().name())));
                    write!(line, ", {} segments, {} groups", message.segment_count(), place.groups.len()).expect("a string takes text");
                    if !message.bytes().is_ascii() {
                        let how = if message.charset_guessed() { " guessed" } else { "" };
                        write!(line, ", {}{how}", message.charset().name()).expect("a string takes text");
                    }
                    if message.wrapped_lines() > 0 {
                        write!(line, ", {} wrapped lines", message.wrapped_lines()).expect("a string takes text");
                    }
                    if !stray.is_empty() {
                        write!(line, ", unforeseen {}", stray.join(" ")).expect("a string takes text");
                    }
                    writeln!(found, "{line}").expect("a string takes text");
                }
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hl7v2_messages.expected");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &found).expect("the expectation can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("tests/hl7v2_messages.expected is in the repository");
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

/// Walks over all that can be asked: every part of every field is inside the one around it, and reading it never fails.
#[test]
fn every_part_lies_within_the_one_around_it() {
    for (name, bytes) in files() {
        for range in split(&bytes) {
            let Ok(message) = Message::parse(Bytes::copy_from_slice(&bytes[range]), &ParseOptions::default()) else { continue };
            for segment in 0..message.segment_count() {
                let mut rebuilt = message.segment_name(segment).as_bytes().to_vec();
                for n in 1..=message.field_count(segment) {
                    let field = message.field(segment, n);
                    if !(message.segment_name(segment).eq_ignore_ascii_case("MSH") && n < 3) {
                        rebuilt.push(message.delimiters().field);
                    } else if n == 2 {
                        rebuilt.pop();
                        rebuilt.push(message.delimiters().field);
                    }
                    rebuilt.extend_from_slice(message.raw(field));
                    let repetitions: Vec<&[u8]> = message.repetitions(field).map(|r| message.raw(r)).collect();
                    assert_eq!(repetitions.len(), message.repetition_count(field));
                    if let (false, Some(delimiter)) = (n == 2 && segment == 0, message.delimiters().repetition) {
                        assert_eq!(repetitions.join(&delimiter), message.raw(field), "{name} segment {segment} field {n}");
                    }
                    for repetition in message.repetitions(field) {
                        let components: Vec<_> = (1..=message.component_count(repetition)).map(|c| message.component(repetition, c)).collect();
                        let raw: Vec<&[u8]> = components.iter().map(|c| message.raw(*c)).collect();
                        assert_eq!(raw.join(&message.delimiters().component), message.raw(repetition), "{name} segment {segment} field {n}");
                        for component in components {
                            for s in 1..=message.subcomponent_count(component) {
                                let part = message.subcomponent(component, s);
                                assert!(part.start >= component.start && part.end <= component.end);
                                let _ = message.text(part);
                            }
                        }
                    }
                }
                assert_eq!(rebuilt, message.segment_bytes(segment), "{name} segment {segment}");
            }
        }
    }
}

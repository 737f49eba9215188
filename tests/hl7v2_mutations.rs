//! Twenty thousand damaged fixture messages: reading, placing, answering and splitting them never panics, and what can be read is
//! written back byte for byte. Seeded, so that a failure comes again. `cargo fuzz` (fuzz/) looks further.

use bytes::Bytes;
use kiln::hl7v2::{AckCode, AckRequest, Header, Message, ParseOptions, acknowledge, split};
use std::path::Path;

const MUTATIONS: u64 = 20_000;

/// xorshift64*: small, seeded, and good enough to pick places.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).expect("below a usize")
    }
}

fn fixtures() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/messages");
    let mut paths = Vec::new();
    for folder in std::fs::read_dir(root).expect("fixtures/messages is in the repository").map(|e| e.expect("an entry").path()).filter(|p| p.is_dir()) {
        paths.extend(std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()));
    }
    paths.sort();
    paths.iter().map(|p| std::fs::read(p).expect("a file")).filter(|bytes| bytes.len() < 20_000).collect()
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random, other: &[u8]) {
    const LIKELY: &[u8] = b"|^~\\&\r\n\x0b\x1c\"M\xC3\xFF\x1B";
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(40)).min(bytes.len());
        match random.below(6) {
            0 => bytes.insert(at, LIKELY[random.below(LIKELY.len())]),
            1 => drop(bytes.drain(at..end)),
            2 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).expect("below 256"),
            3 => bytes.truncate(at),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let from = random.below(other.len());
                let to = (from + random.below(60)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
}

#[test]
fn damaged_messages_never_panic_and_come_back_byte_for_byte() {
    let fixtures = fixtures();
    let mut random = Random(0x4B69_6C6E);
    let mut read = 0;
    for n in 0..MUTATIONS {
        let mut bytes = fixtures[random.below(fixtures.len())].clone();
        let other = fixtures[random.below(fixtures.len())].clone();
        mutate(&mut bytes, &mut random, &other);
        split(&bytes);
        let header = Header::read(&bytes);
        let faults = header.as_ref().err().cloned().into_iter().collect::<Vec<_>>();
        let request = AckRequest {
            header: header.as_ref().ok(),
            code: AckCode::ApplicationReject,
            faults: &faults,
            time: "20260309",
            control_id: "1",
            application: "KILN",
            facility: "",
            conditions: None,
        };
        let answer = acknowledge(&request);
        assert!(Header::read(&answer).is_ok(), "mutation {n}: the acknowledgement has no readable header");
        assert!(!answer.contains(&0x1C) && !answer.contains(&0x0B), "mutation {n}: the acknowledgement breaks its frame");
        let Ok(message) = Message::parse(Bytes::from(bytes.clone()), &ParseOptions::default()) else { continue };
        read += 1;
        assert!(message.write() == &bytes[..], "mutation {n} is not written back as it was read");
        if let Some(structure) = message.structure() {
            let placement = message.place(structure, &[("ZPI", "PID")]);
            assert_eq!(placement.segments.len(), message.segment_count(), "mutation {n}");
            assert!(placement.segments.iter().all(|s| (s.group as usize) < placement.groups.len()), "mutation {n}");
        }
        for segment in 0..message.segment_count() {
            for field in 0..=message.field_count(segment) + 1 {
                for repetition in message.repetitions(message.field(segment, field)) {
                    for component in 1..=message.component_count(repetition) {
                        let _ = message.text(message.subcomponent(message.component(repetition, component), 1));
                    }
                }
            }
        }
    }
    assert!(read > MUTATIONS / 2, "only {read} were still readable: the mutations are too rough to test much");
}

//! Parsing beside the least that any parser must do: one pass that records every delimiter. Both in one run, so that their ratio holds
//! on any machine. `cargo bench --bench parse`; docs/performance.md has the figures.

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use kiln::hl7v2::{Header, Message, ParseOptions};
use messages::messages;

mod messages;

fn main() {
    divan::main();
}

fn sizes() -> [&'static str; 2] {
    ["ADT", "ORU"]
}

fn message(name: &str) -> Bytes {
    let (_, text) = messages().into_iter().find(|(n, _)| *n == name).expect("one of the two");
    Bytes::from(text)
}

/// The yardstick: every byte looked at once, every delimiter and segment end recorded.
#[divan::bench(args = sizes())]
fn bare_scan_that_records_every_delimiter(bencher: Bencher<'_, '_>, name: &str) {
    let bytes = message(name);
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        let mut found: Vec<u32> = Vec::with_capacity(bytes.len() / 4);
        for (at, byte) in black_box(&bytes).iter().enumerate() {
            if matches!(byte, b'|' | b'^' | b'~' | b'\\' | b'&' | b'\r' | b'\n') {
                found.push(at as u32);
            }
        }
        found
    });
}

#[divan::bench(args = sizes())]
fn parse(bencher: Bencher<'_, '_>, name: &str) {
    let bytes = message(name);
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| Message::parse(black_box(&bytes).clone(), &ParseOptions::default()).expect("the message is readable"));
}

#[divan::bench(args = sizes())]
fn parse_and_place_in_groups(bencher: Bencher<'_, '_>, name: &str) {
    let bytes = message(name);
    bencher.bench_local(|| {
        let message = Message::parse(black_box(&bytes).clone(), &ParseOptions::default()).expect("the message is readable");
        message.place(message.structure().expect("the structure is known"), &[])
    });
}

#[divan::bench(args = sizes())]
fn header_alone(bencher: Bencher<'_, '_>, name: &str) {
    let bytes = message(name);
    bencher.bench_local(|| Header::read(black_box(&bytes)).expect("the header is readable"));
}

/// Every component of every field as text: what a greedy route could ask at most.
#[divan::bench(args = sizes())]
fn read_every_component(bencher: Bencher<'_, '_>, name: &str) {
    let message = Message::parse(message(name), &ParseOptions::default()).expect("the message is readable");
    bencher.bench_local(|| {
        let mut characters = 0;
        for segment in 0..message.segment_count() {
            for field in 1..=message.field_count(segment) {
                for repetition in message.repetitions(message.field(segment, field)) {
                    for component in 1..=message.component_count(repetition) {
                        characters += message.text(message.component(repetition, component)).len();
                    }
                }
            }
        }
        characters
    });
}

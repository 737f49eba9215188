//! Parses the same two messages with Kiln and with each other crate, in one run, and prints nanoseconds a message.
#![allow(dead_code, unused_imports)]

#[path = "../../../src/exchange/mod.rs"]
mod exchange;
#[path = "../../../src/hl7v2/mod.rs"]
mod hl7v2;
#[path = "../../messages/mod.rs"]
mod messages;

use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(60);

/// The median over rounds of the mean time of one call.
fn nanoseconds<T>(mut f: impl FnMut() -> T) -> f64 {
    let mut calls = 1u32;
    let calls = loop {
        let start = Instant::now();
        (0..calls).for_each(|_| drop(black_box(f())));
        if start.elapsed() > ROUND {
            break calls;
        }
        calls *= 2;
    };
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..calls).for_each(|_| drop(black_box(f())));
            start.elapsed().as_nanos() as f64 / f64::from(calls)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn bare_scan(bytes: &[u8]) -> Vec<u32> {
    let mut found = Vec::with_capacity(bytes.len() / 4);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(byte, b'|' | b'^' | b'~' | b'\\' | b'&' | b'\r' | b'\n') {
            found.push(at as u32);
        }
    }
    found
}

/// The others make a tree of all components when they parse; Kiln finds them when somebody asks. This row asks for all.
fn every_component(frame: &bytes::Bytes) -> usize {
    let message = hl7v2::Message::parse(frame.clone(), &hl7v2::ParseOptions::default()).expect("kiln reads it");
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
}

fn main() {
    let inputs = messages::messages();
    let mut rows: Vec<(&str, Vec<f64>)> = Vec::new();
    let mut add = |name, f: &dyn Fn(&str) -> f64| rows.push((name, inputs.iter().map(|(_, text)| f(text)).collect()));
    add("bare scan that records every delimiter", &|text| nanoseconds(|| bare_scan(black_box(text.as_bytes()))));
    add("kiln", &|text| {
        let frame = bytes::Bytes::copy_from_slice(text.as_bytes());
        nanoseconds(|| hl7v2::Message::parse(black_box(&frame).clone(), &hl7v2::ParseOptions::default()).expect("kiln reads it"))
    });
    add("kiln, then every component as text", &|text| {
        let frame = bytes::Bytes::copy_from_slice(text.as_bytes());
        nanoseconds(|| every_component(black_box(&frame)))
    });
    add("hl7-2 0.2.7", &|text| nanoseconds(|| hl7_2::parse(black_box(text)).expect("hl7-2 reads it")));
    add("hl7kit 0.2.0", &|text| nanoseconds(|| hl7kit::Message::parse(black_box(text)).expect("hl7kit reads it")));
    add("hl7v2 1.5.0", &|text| nanoseconds(|| ::hl7v2::parse(black_box(text.as_bytes())).expect("hl7v2 reads it")));
    add("hl7-parser 0.3.0", &|text| nanoseconds(|| hl7_parser::Message::parse(black_box(text)).expect("hl7-parser reads it")));
    add("rust-hl7 0.5.0", &|text| nanoseconds(|| rusthl7::message::Message::try_from(black_box(text)).expect("rust-hl7 reads it")));

    println!("| ns a message | {} bytes ({}) | {} bytes ({}) |", inputs[0].1.len(), inputs[0].0, inputs[1].1.len(), inputs[1].0);
    println!("| --- | --- | --- |");
    for (name, times) in &rows {
        let cells: Vec<String> = times.iter().zip(&rows[1].1).map(|(t, kiln)| format!("{t:.0} ({:.1}x kiln)", t / kiln)).collect();
        println!("| {name} | {} | {} |", cells[0], cells[1]);
    }
}

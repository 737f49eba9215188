//! Any bytes: parsing never panics; what is read comes back byte for byte; every part can be read; every segment gets a place.
#![no_main]

use bytes::Bytes;
use kiln::hl7v2::{Message, Moment, ParseOptions};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::parse(Bytes::copy_from_slice(bytes), &ParseOptions::default()) else { return };
    assert_eq!(message.write(), bytes);
    for segment in 0..message.segment_count() {
        for field in 1..=message.field_count(segment) {
            for repetition in message.repetitions(message.field(segment, field)) {
                for component in 1..=message.component_count(repetition) {
                    let part = message.component(repetition, component);
                    for subcomponent in 1..=message.subcomponent_count(part) {
                        let _ = Moment::read(&message.text(message.subcomponent(part, subcomponent)));
                    }
                }
            }
        }
    }
    if let Some(structure) = message.structure() {
        assert_eq!(message.place(structure, &[("ZPI", "PID")]).segments.len(), message.segment_count());
    }
});

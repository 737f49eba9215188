//! Any bytes: the messages of a file are in order, not empty, and inside it.
#![no_main]

use kiln::hl7v2::split;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut before = 0;
    for range in split(bytes) {
        assert!(before <= range.start && range.start < range.end && range.end <= bytes.len());
        before = range.end;
    }
});

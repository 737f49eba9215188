//! Any bytes: an acknowledgement has a readable header and one MSA, and cannot break its frame.
#![no_main]

use kiln::hl7v2::{AckCode, AckRequest, Header, acknowledge};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let header = Header::read(bytes);
    let faults: Vec<_> = header.as_ref().err().cloned().into_iter().collect();
    let answer = acknowledge(&AckRequest {
        header: header.as_ref().ok(),
        code: AckCode::ApplicationReject,
        faults: &faults,
        time: "20260309142501",
        control_id: "1",
        application: "KILN",
        facility: "",
    });
    assert!(Header::read(&answer).is_ok());
    assert_eq!(answer.split(|b| *b == b'\r').filter(|line| line.starts_with(b"MSA")).count(), 1);
    assert!(!answer.contains(&0x1C) && !answer.contains(&0x0B));
});

//! Any bytes, cut anywhere: the MLLP decoder never panics, and the cuts never change what it finds.
#![no_main]

use bytes::BytesMut;
use kiln::wire::Mllp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, cuts) = input;
    const LIMIT_BYTES: usize = 64;
    let whole = decode(std::iter::once(&bytes[..]), LIMIT_BYTES);
    let mut rest = &bytes[..];
    let mut parts = Vec::new();
    for cut in cuts {
        let (head, tail) = rest.split_at(usize::from(cut).min(rest.len()));
        parts.push(head);
        rest = tail;
    }
    parts.push(rest);
    assert_eq!(decode(parts.into_iter(), LIMIT_BYTES), whole);
});

fn decode<'a>(parts: impl Iterator<Item = &'a [u8]>, limit_bytes: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut mllp, mut buffer, mut frames) = (Mllp::new(limit_bytes), BytesMut::new(), Vec::new());
    for part in parts {
        buffer.extend_from_slice(part);
        loop {
            match mllp.next_frame(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame.payload.to_vec()),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

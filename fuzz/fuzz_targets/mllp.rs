//! Any bytes, cut anywhere, whatever is tolerated: the MLLP decoder never panics, and the cuts never change what it finds.
#![no_main]

use bytes::BytesMut;
use kiln::wire::{Framing, Mllp, Style, Tolerance};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, Vec<u8>, [bool; 3])| {
    let (bytes, cuts, [unframed, no_end, other]) = input;
    const LIMIT_BYTES: usize = 64;
    let tolerance = Tolerance { unframed, no_end, other: if other { Framing::new(b"\x02", b"\x03\r") } else { None } };
    let whole = decode(std::iter::once(&bytes[..]), LIMIT_BYTES, &tolerance);
    let mut rest = &bytes[..];
    let mut parts = Vec::new();
    for cut in cuts {
        let (head, tail) = rest.split_at(usize::from(cut).min(rest.len()));
        parts.push(head);
        rest = tail;
    }
    parts.push(rest);
    assert_eq!(decode(parts.into_iter(), LIMIT_BYTES, &tolerance), whole);
});

fn decode<'a>(parts: impl Iterator<Item = &'a [u8]>, limit_bytes: usize, tolerance: &Tolerance) -> (Vec<(Style, Vec<u8>)>, bool) {
    let (mut mllp, mut buffer, mut frames) = (Mllp::new(limit_bytes), BytesMut::new(), Vec::new());
    mllp.set_tolerance(tolerance.clone());
    for part in parts {
        buffer.extend_from_slice(part);
        loop {
            match mllp.next_frame(&mut buffer) {
                Ok(Some(frame)) => frames.push((frame.style, frame.payload.to_vec())),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    frames.extend(mllp.take_at_end(&mut buffer).map(|frame| (frame.style, frame.payload.to_vec())));
    (frames, false)
}

//! The MLLP decoder through its front door: what peers send, cut in every way.

use bytes::{Bytes, BytesMut};
use kiln::wire::{FrameTooLarge, Framing, Mllp, Style, Tolerance};
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

/// What a decoder made of a stream.
#[derive(Debug, PartialEq)]
struct Seen {
    frames: Vec<Vec<u8>>,
    noise_bytes: u64,
    restarts: u64,
    inside: bool,
}

fn decode<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let (mut mllp, mut buffer, mut frames) = (Mllp::default(), BytesMut::new(), Vec::new());
    for part in parts {
        buffer.extend_from_slice(part);
        while let Some(frame) = mllp.next_frame(&mut buffer).expect("no frame is over the default limit") {
            frames.push(frame.payload.to_vec());
        }
    }
    Seen { frames, noise_bytes: mllp.take_noise_bytes(), restarts: mllp.take_restarts(), inside: mllp.inside_frame() }
}

/// Bytes, the frames in them, bytes of noise, restarts, and whether a frame is left unfinished.
type Case = (&'static [u8], &'static [&'static [u8]], u64, u64, bool);

#[test]
fn what_peers_send() {
    let cases: &[Case] = &[
        (b"\x0Bone\x1C\r", &[b"one"], 0, 0, false),
        (b"\x0Bone\x1C\r\x0Btwo\x1C\r", &[b"one", b"two"], 0, 0, false),
        // The carriage return after FS is missing.
        (b"\x0Bone\x1C\x0Btwo\x1C", &[b"one", b"two"], 0, 0, false),
        // A line feed is not part of the framing; neither is a second carriage return.
        (b"\x0Bone\x1C\r\n\x0Btwo\x1C\r\r", &[b"one", b"two"], 2, 0, false),
        (b"hello\x0Bone\x1C\rGET / HTTP/1.1\r\n\r\n", &[b"one"], 5 + 18, 0, false),
        (b"MSH|^~\\&|no frame at all\r", &[], 25, 0, false),
        (b"\x0B\x1C\r", &[b""], 0, 0, false),
        (b"\x0Bunfinished", &[], 0, 0, true),
        // The peer gave up within a frame and began anew: only the second one is a message.
        (b"\x0BMSH|1\rPI\x0BMSH|2\rPID\x1C\r", &[b"MSH|2\rPID"], 9, 1, false),
        // A vertical tab in a text (a soft line break of a word processor) is content.
        (b"\x0BMSH|1\rNTE|1||a\x0Bb\x1C\r", &[b"MSH|1\rNTE|1||a\x0Bb"], 0, 0, false),
    ];
    for (bytes, frames, noise_bytes, restarts, inside) in cases {
        let expected = Seen { frames: frames.iter().map(|f| f.to_vec()).collect(), noise_bytes: *noise_bytes, restarts: *restarts, inside: *inside };
        assert_eq!(decode([*bytes]), expected, "{:?} in one piece", bytes.escape_ascii().to_string());
        assert_eq!(decode(bytes.chunks(1)), expected, "{:?} byte by byte", bytes.escape_ascii().to_string());
        for at in 0..bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(decode([head, tail]), expected, "{:?} cut at {at}", bytes.escape_ascii().to_string());
        }
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_as_soon_as_it_is_known() {
    let limit_bytes = 8;
    let mut whole = BytesMut::from(&b"\x0B123456789\x1C\r"[..]);
    assert_eq!(Mllp::new(limit_bytes).next_frame(&mut whole).err(), Some(FrameTooLarge { limit_bytes }));
    let mut part = BytesMut::from(&b"\x0B123456789"[..]);
    assert_eq!(Mllp::new(limit_bytes).next_frame(&mut part).err(), Some(FrameTooLarge { limit_bytes }));
    let mut fits = BytesMut::from(&b"\x0B12345678\x1C\r"[..]);
    assert_eq!(Mllp::new(limit_bytes).next_frame(&mut fits).map(|f| f.map(|f| f.payload)), Ok(Some(Bytes::from_static(b"12345678"))));
}

#[test]
fn a_payload_shares_the_read_buffer() {
    let mut buffer = BytesMut::from(&b"\x0Bpayload\x1C\r"[..]);
    let within = buffer.as_ptr_range();
    let frame = Mllp::default().next_frame(&mut buffer).expect("it fits").expect("it is whole");
    assert!(within.contains(&frame.payload.as_ptr()), "the payload was copied");
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"MSH|^\r\nab\xC3\x0D".to_vec()), 0..40)
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(b"\nxMSH|\x1C".to_vec()), 0..4)
}

proptest! {
    #[test]
    fn cuts_never_change_what_is_found(items in prop::collection::vec((payload(), noise()), 0..6), cuts in prop::collection::vec(0usize..400, 0..12)) {
        let (mut stream, mut noise_bytes) = (BytesMut::new(), 0);
        for (payload, noise) in &items {
            Mllp::default().encode(Bytes::from(payload.clone()), &mut stream).expect("encoding cannot fail");
            stream.extend_from_slice(noise);
            noise_bytes += noise.len() as u64;
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let parts: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
        let frames: Vec<Vec<u8>> = items.into_iter().map(|(payload, _)| payload).collect();
        prop_assert_eq!(decode(parts), Seen { frames, noise_bytes, restarts: 0, inside: false });
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
        let (head, tail) = bytes.split_at(at.min(bytes.len()));
        prop_assert_eq!(decode([head, tail]), decode([&bytes[..]]));
    }

    #[test]
    fn the_codec_finds_the_same(payload in payload()) {
        let mut stream = BytesMut::new();
        let mut codec = Mllp::default();
        codec.encode(Bytes::from(payload.clone()), &mut stream).expect("encoding cannot fail");
        prop_assert_eq!(codec.decode(&mut stream).expect("it fits").map(|f| f.payload.to_vec()), Some(payload));
    }
}

/// Everything that can be tolerated.
fn tolerant() -> Tolerance {
    Tolerance { unframed: true, no_end: true, other: Framing::new(b"\x02", b"\x03\r") }
}

/// Frames with their styles, as letters: `m` MLLP, `n` MLLP without its end, `o` other bytes, `b` bare. `at_end`: the peer closes its side.
fn decode_tolerantly<'a>(tolerance: Tolerance, parts: impl IntoIterator<Item = &'a [u8]>, at_end: bool) -> (Vec<(char, Vec<u8>)>, u64) {
    let (mut mllp, mut buffer, mut frames) = (Mllp::default(), BytesMut::new(), Vec::new());
    mllp.set_tolerance(tolerance);
    let told = |frame: kiln::wire::Frame| {
        let style = match frame.style {
            Style::Mllp if frame.unended => 'n',
            Style::Mllp => 'm',
            Style::Other => 'o',
            Style::Bare => 'b',
        };
        (style, frame.payload.to_vec())
    };
    for part in parts {
        buffer.extend_from_slice(part);
        while let Some(frame) = mllp.next_frame(&mut buffer).expect("no frame is over the default limit") {
            frames.push(told(frame));
        }
    }
    if at_end {
        frames.extend(mllp.take_at_end(&mut buffer).map(told));
    }
    (frames, mllp.take_noise_bytes())
}

/// Bytes, and the frames in them when the peer closes its side behind them.
type TolerantCase = (&'static [u8], &'static [(char, &'static [u8])], u64);

#[test]
fn what_peers_send_that_frame_wrongly() {
    let cases: &[TolerantCase] = &[
        // Proper frames stay proper frames.
        (b"\x0BMSH|1\r\x1C\r\x0BMSH|2\r\x1C\r", &[('m', b"MSH|1\r"), ('m', b"MSH|2\r")], 0),
        // No end block: the next frame, or the end of the connection.
        (b"\x0BMSH|1\rPID|\r\x0BMSH|2\r", &[('n', b"MSH|1\rPID|\r"), ('n', b"MSH|2\r")], 0),
        // One that breaks off within a segment is not whole: the peer began anew, or went away.
        (b"\x0BMSH|1\rPI\x0BMSH|2\rPID\x1C\r", &[('m', b"MSH|2\rPID")], 9),
        (b"\x0BMSH|1\rPI", &[], 0),
        // No framing at all: the next message, an FS, or the end of the connection.
        (b"MSH|1\rPID|\rMSH|2\rPID|MSH|\r", &[('b', b"MSH|1\rPID|\r"), ('b', b"MSH|2\rPID|MSH|\r")], 0),
        (b"MSH|1\r\x1C\rMSH|2\r", &[('b', b"MSH|1\r"), ('b', b"MSH|2\r")], 0),
        (b"\xEF\xBB\xBFMSH|1\n\nMSH|2", &[('b', b"MSH|1\n\n"), ('b', b"MSH|2")], 3),
        (b"\r\nMSH|1\r\x0BMSH|2\r\x1C\r", &[('b', b"MSH|1\r"), ('m', b"MSH|2\r")], 2),
        // A batch without framing holds messages; another file begins anew.
        (b"FHS|1\rBHS|1\rMSH|1\rMSH|2\rBTS|2\rFHS|2\r", &[('b', b"FHS|1\rBHS|1\rMSH|1\rMSH|2\rBTS|2\r"), ('b', b"FHS|2\r")], 0),
        // Words that look alike are noise.
        (b"MSHX|1\rxMSH|1\r", &[], 14),
        // Other bytes, also in a row and mixed.
        (b"\x02MSH|1\r\x03\r\x02MSH|2\x03x\r\x03\r", &[('o', b"MSH|1\r"), ('o', b"MSH|2\x03x\r")], 0),
        (b"noise\x02MSH|1\r\x03\rnoise\x0BMSH|2\x1C\r", &[('o', b"MSH|1\r"), ('m', b"MSH|2")], 10),
    ];
    for (bytes, frames, noise_bytes) in cases {
        let expected: (Vec<_>, _) = (frames.iter().map(|(style, f)| (*style, f.to_vec())).collect(), *noise_bytes);
        let shown = bytes.escape_ascii().to_string();
        assert_eq!(decode_tolerantly(tolerant(), [*bytes], true), expected, "{shown:?} in one piece");
        assert_eq!(decode_tolerantly(tolerant(), bytes.chunks(1), true), expected, "{shown:?} byte by byte");
        for at in 0..bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(decode_tolerantly(tolerant(), [head, tail], true), expected, "{shown:?} cut at {at}");
        }
    }
}

#[test]
fn an_answer_is_framed_as_the_message_was() {
    for (bytes, answer) in [(&b"\x0BMSH|1\r\x1C\r"[..], &b"\x0BMSA\r\x1C\r"[..]), (b"\x02MSH|1\r\x03\r", b"\x02MSA\r\x03\r"), (b"MSH|1\r\x1C", b"MSA\r")] {
        let (mut mllp, mut buffer, mut out) = (Mllp::default(), BytesMut::from(bytes), BytesMut::new());
        mllp.set_tolerance(tolerant());
        let frame = mllp.next_frame(&mut buffer).expect("it fits").unwrap_or_else(|| panic!("{}", bytes.escape_ascii()));
        mllp.write_answer(frame.style, b"MSA\r", &mut out);
        assert_eq!(&out[..], answer, "{}", bytes.escape_ascii());
    }
}

#[test]
fn a_pause_ends_only_what_may_be_whole() {
    for (bytes, whole) in
        [(&b"\x0BMSH|1\r"[..], true), (b"\x0BMSH|1", false), (b"MSH|1\r", true), (b"MSH|1\rPID|", false), (b"\x02MSH|1\r", false), (b"", false)]
    {
        let (mut mllp, mut buffer) = (Mllp::default(), BytesMut::from(bytes));
        mllp.set_tolerance(tolerant());
        assert!(mllp.next_frame(&mut buffer).expect("it fits").is_none());
        assert_eq!(mllp.may_end_here(&buffer), whole, "{}", bytes.escape_ascii());
        assert_eq!(mllp.take_after_pause(&mut buffer).is_some(), whole, "{}", bytes.escape_ascii());
    }
    let (mut strict, mut buffer) = (Mllp::default(), BytesMut::from(&b"\x0BMSH|1\r"[..]));
    assert!(strict.next_frame(&mut buffer).expect("it fits").is_none() && !strict.may_end_here(&buffer) && strict.lacks_end(&buffer));
}

fn wrongly_framed() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        &b"MSH|1"[..],
        b"PID|",
        b"\r",
        b"\n",
        b"\x0B",
        b"\x1C",
        b"\x02",
        b"\x03\r",
        b"\x03",
        b"MSH",
        b"BHS|",
        b"\xEF\xBB\xBF",
        b"x",
        b"\x1C\r",
    ]);
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn cuts_never_change_what_is_found_of_wrong_frames(bytes in wrongly_framed(), cuts in prop::collection::vec(1usize..6, 0..40), no_end: bool, unframed: bool) {
        let tolerance = Tolerance { no_end, unframed, ..tolerant() };
        let whole = decode_tolerantly(tolerance.clone(), [&bytes[..]], true);
        let (mut parts, mut rest) = (Vec::new(), &bytes[..]);
        for cut in cuts {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            parts.push(head);
            rest = tail;
        }
        parts.push(rest);
        prop_assert_eq!(decode_tolerantly(tolerance, parts, true), whole);
    }
}

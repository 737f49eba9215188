//! Every character set of table 0211, on bytes that Python's codecs wrote (fixtures/charsets): values, delimiters, acknowledgements, and what cannot be read.

use kiln::hl7v2::{AckCode, AckRequest, Charset, Header, Message, ParseOptions, acknowledge, in_encoding_of};
use serde_json::Value;

struct Case {
    name: String,
    text: String,
    bytes: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/charsets/sets.json")).expect("the file is there");
    let cases: Vec<Value> = serde_json::from_slice(&file).expect("it is JSON");
    let hex = |text: &str| (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("it is hexadecimal")).collect();
    let case = |case: &Value| Case {
        name: format!("{} ({})", case["msh18"].as_str().expect("a text"), case["codec"].as_str().expect("a text")),
        text: case["text"].as_str().expect("a text").to_owned(),
        bytes: hex(case["hex"].as_str().expect("a text")),
    };
    cases.iter().map(case).collect()
}

fn parse(bytes: &[u8], options: &ParseOptions) -> Result<Message, String> {
    Message::parse(bytes.to_vec().into(), options).map_err(|fault| fault.to_string())
}

fn value(message: &Message, segment: &str, field: usize, component: usize) -> String {
    let n = message.segments_named(segment).next().unwrap_or(usize::MAX);
    message.text(message.component(message.field(n, field), component)).into_owned()
}

#[test]
fn what_others_wrote_is_read_and_answered_in_the_same_set() {
    let cases = cases();
    assert!(cases.len() > 20);
    for Case { name, text, bytes } in cases {
        let message = parse(&bytes, &ParseOptions::default()).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert_eq!(value(&message, "PID", 5, 1), text, "{name}");
        assert_eq!(value(&message, "PID", 5, 2), text, "{name}");
        let second = message.repetition(message.field(1, 5), 2);
        assert_eq!(message.text(message.subcomponent(second, 2)), "x", "{name}: no byte of a letter is a delimiter");
        assert_eq!((message.field_count(1), value(&message, "PID", 8, 1)), (8, "F".to_owned()), "{name}");
        assert_eq!(message.write(), bytes, "{name}: what was received is kept as it is");

        let header = Header::read(&bytes).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert_eq!((header.message_type(), header.control_id().0.as_str()), ("ADT^A08".to_owned(), "1"), "{name}");
        let request = AckRequest {
            header: Some(&header),
            code: AckCode::ApplicationAccept,
            faults: &[],
            time: "2026",
            control_id: "K1",
            application: "",
            facility: "",
            conditions: None,
        };
        let ack = in_encoding_of(&bytes, acknowledge(&request).into());
        let ack = parse(&ack, &ParseOptions::default()).unwrap_or_else(|fault| panic!("{name}: the acknowledgement: {fault}"));
        assert_eq!((value(&ack, "MSH", 5, 1), value(&ack, "MSA", 1, 1)), (text, "AA".to_owned()), "{name}: it goes back in the sender's set");
        assert_eq!(ack.charset().name(), message.charset().name(), "{name}");
    }
}

#[test]
fn a_byte_that_is_no_letter_is_named_with_its_field_and_never_replaced() {
    for Case { name, text, bytes } in cases() {
        let message = parse(&bytes, &ParseOptions::default()).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert!(!value(&message, "PID", 5, 1).contains('\u{FFFD}'), "{name}");
        drop(text);
    }
    let narrow = |charset: &str, value: &[u8]| {
        let mut bytes = format!("MSH|^~\\&|A|B|C|D|2026||ADT^A08|1|P|2.5||||||{charset}\rPID|1||4711\rOBX|1|ST|a||x\rOBX|2|ST|a||").into_bytes();
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"|\r");
        let at = bytes.len() - 2 - value.len();
        (bytes, at)
    };
    for (charset, value, skip) in [
        ("ASCII", &b"a\xE4"[..], 1),
        ("UNICODE UTF-8", b"a\xE4", 1),
        ("8859/3", b"a\xA5", 1),
        ("8859/6", b"\xA1", 0),
        ("8859/7", b"\xFF", 0),
        ("8859/8", b"\xBF", 0),
        ("BIG-5", b"\xA4\xFF", 0),
        ("GB 18030-2000", b"\x81\x30\x81", 0),
        ("KS X 1001", b"ab\xFE\xFE", 2),
        ("~ISO IR87", b"\x1B$B\x7E\x7E\x1B(B", 3),
        ("ISO IR14", b"a\xE0", 1),
    ] {
        let (bytes, at) = narrow(charset, value);
        let fault = parse(&bytes, &ParseOptions::default()).err().unwrap_or_else(|| panic!("{charset}: {} was read", value.escape_ascii()));
        let at = at + skip;
        assert!(fault.contains(&format!("byte {at} of the message, in OBX[2]-5, cannot be read")), "{charset}: {fault}");
    }
    let mut wide: Vec<u8> = "MSH|^~\\&|A|B|C|D|2026||ADT^A08|1|P|2.5\rPID|1||".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let at = wide.len();
    wide.extend([0x00, 0xD8, b'|', 0]);
    let fault = parse(&wide, &ParseOptions::default()).expect_err("half a pair of surrogates is no letter");
    assert!(fault.contains(&format!("byte {at} of the message, in PID-3, cannot be read in the character set UNICODE UTF-16")), "{fault}");
}

#[test]
fn sets_that_are_not_read_are_refused_by_name() {
    for (charset, says) in [
        ("CNS 11643-1992", "the character set CNS 11643-1992 in MSH-18 is not supported"),
        ("UNICODE UTF-16", "MSH-18 says UNICODE UTF-16, and the message is not written in it"),
        ("UTF-32", "MSH-18 says UNICODE UTF-32"),
    ] {
        let fault = parse(format!("MSH|^~\\&|A|B|C|D|2026||ADT^A08|1|P|2.5||||||{charset}\r").as_bytes(), &ParseOptions::default()).err().unwrap_or_default();
        assert!(fault.contains(says), "{charset}: {fault}");
    }
}

#[test]
fn escape_sequences_change_to_the_alternate_sets() {
    let text = |sent: &[u8]| {
        let mut bytes = b"MSH|^~\\&|A|B|C|D|2026||ADT^A08|1|P|2.5||||||ASCII~8859/1~8859/5~ISO IR87~ISO IR159~KS X 1001\rPID|1||1||".to_vec();
        bytes.extend_from_slice(sent);
        bytes.extend_from_slice(b"|\r");
        parse(&bytes, &ParseOptions::default()).map(|message| value(&message, "PID", 5, 1))
    };
    for (sent, want) in [
        (&b"M\\C2D41\\\xFC\\C2842\\ller"[..], "M\u{fc}ller"),
        (b"\\C2D4C\\\xB8\xD2", "\u{418}\u{432}"),
        (b"\\M2442\\4A\\C2842\\!", "漢!"),
        (b"\\M242844\\0!\\C2842\\!", "丂!"),
        (b"\\M242943\\\xC8\xAB\\C2842\\!", "홍!"),
        (b"\\C2949\\\xB1\\C2842\\!", "ｱ!"),
    ] {
        assert_eq!(text(sent).as_deref(), Ok(want), "{}", sent.escape_ascii());
    }
    // Outside of such a run, and in the next value, the first set counts.
    for sent in [&b"M\xFCller"[..], b"\\C2D41\\\xFC\\C2842\\\xFC", b"\\C2D41\\\xFC^\xFC"] {
        let fault = text(sent).expect_err("ASCII has no such letter");
        assert!(fault.contains("PID-5, cannot be read in the character set ASCII"), "{fault}");
    }
}

#[test]
fn a_listener_knows_better_than_a_sender_that_says_nothing_or_lies() {
    let named = |name: &str| Charset::named(name);
    let with = |charset: &str| {
        format!("MSH|^~\\&|A|B|C|D|2026||ADT^A08|1|P|2.5||||||{charset}\rPID|1||1||M").into_bytes().into_iter().chain(*b"\xFC").collect::<Vec<u8>>()
    };
    let read = |charset: &str, options: ParseOptions| parse(&with(charset), &options).map(|message| (value(&message, "PID", 5, 1), message.charset().name()));
    let otherwise = ParseOptions { charset_otherwise: named("8859/2"), ..ParseOptions::default() };
    let force = ParseOptions { charset: named("8859/9"), charset_otherwise: named("8859/2"), ..ParseOptions::default() };
    assert_eq!(read("", otherwise), Ok(("M\u{fc}".to_owned(), "8859/2")));
    assert_eq!(read("NO SUCH SET", otherwise), Ok(("M\u{fc}".to_owned(), "8859/2")));
    assert_eq!(read("8859/1", otherwise), Ok(("M\u{fc}".to_owned(), "8859/1")), "what MSH-18 says counts");
    assert!(read("UNICODE UTF-8", otherwise).is_err());
    assert_eq!(read("UNICODE UTF-8", force), Ok(("M\u{fc}".to_owned(), "8859/9")), "unless the listener forces another");
    assert_eq!(read("", ParseOptions::default()), Ok(("M\u{fc}".to_owned(), "8859/1")), "without either, Latin-1 is guessed");
}

//! Reading messages: look-ups, tolerance, character sets, MSH alone, and random input.

use bytes::Bytes;
use kiln::hl7v2::{Charset, Delimiters, Header, Level, Message, ParseOptions, Version, Writer};
use proptest::prelude::*;

fn parse(bytes: impl AsRef<[u8]>) -> Message {
    Message::parse(Bytes::copy_from_slice(bytes.as_ref()), &ParseOptions::default()).expect("the message is readable")
}

fn text(message: &Message, segment: usize, field: usize, component: usize) -> String {
    message.text(message.component(message.field(segment, field), component)).into_owned()
}

const ADT: &str = "MSH|^~\\&|APP|FAC|KILN|HOSP|20260309142501||ADT^A08^ADT_A01|42|P|2.5.1\rEVN||20260309\r\
                   PID|1||A1^^^HOSP&1.2.3&ISO^MR~B2^^^\"\"^PI~~D4||Meier\\T\\Sohn^Eva^\"\"||19610615|F|\"\"||^^&&|\r";

#[test]
fn fields_repetitions_components_subcomponents() {
    let m = parse(ADT);
    assert_eq!((m.segment_count(), m.version(), m.message_type().as_str(), m.structure_id()), (3, Version::V251, "ADT^A08", Some("ADT_A01")));
    assert_eq!(m.control_id().0, "42");
    assert_eq!(m.text(m.field(0, 1)), "|");
    assert_eq!(m.text(m.field(0, 2)), "^~\\&");
    assert_eq!((m.component_count(m.field(0, 2)), m.repetition_count(m.field(0, 2)), m.is_valued(m.field(0, 2))), (1, 1, true));
    assert_eq!(text(&m, 0, 12, 1), "2.5.1");

    let pid3 = m.field(2, 3);
    let ids: Vec<String> = m.repetitions(pid3).map(|r| m.text(m.component(r, 1)).into_owned()).collect();
    assert_eq!(ids, ["A1", "B2", "", "D4"]);
    let authority = m.component(m.repetition(pid3, 1), 4);
    assert_eq!((m.text(m.subcomponent(authority, 2)), m.subcomponent_count(authority)), ("1.2.3".into(), 3));
    assert!(m.is_null(m.component(m.repetition(pid3, 2), 4)));
    assert_eq!(text(&m, 2, 5, 1), "Meier&Sohn");
    assert_eq!(m.raw(m.component(m.field(2, 5), 1)), b"Meier\\T\\Sohn");

    // Component 1 of a value without components, and subcomponent 1 of that, are the value itself.
    let d4 = m.repetition(pid3, 4);
    assert_eq!(m.text(m.subcomponent(m.component(d4, 1), 1)), "D4");
    assert_eq!(m.text(m.component(m.component(d4, 1), 1)), "D4");
    assert!(m.component(d4, 2).is_empty() && m.component(m.component(d4, 1), 2).is_empty() && m.repetition(pid3, 5).is_empty());
    assert_eq!(m.subcomponent(pid3, 1).level, Level::Subcomponent);
}

#[test]
fn valued_empty_and_null_are_three_things() {
    let m = parse(ADT);
    let state = |field| (m.is_valued(m.field(2, field)), m.is_null(m.field(2, field)));
    assert_eq!(state(8), (true, false));
    assert_eq!(state(9), (false, true));
    assert_eq!(state(10), (false, false));
    assert_eq!(state(11), (false, false), "delimiters alone are no value");
    assert_eq!(state(99), (false, false));
    assert_eq!((m.repetition_count(m.field(2, 10)), m.repetition_count(m.field(2, 9)), m.field_count(2)), (0, 1, 12));
}

#[test]
fn what_is_not_there_is_absent() {
    let m = parse(ADT);
    for part in [m.field(0, 0), m.field(1, 0), m.field(9, 1), m.field(2, usize::MAX), m.component(m.field(2, 3), 0), m.repetition(m.field(2, 3), usize::MAX)] {
        assert!(part.is_empty() && m.raw(part).is_empty() && m.text(part).is_empty());
    }
    assert_eq!(m.segment_name(9), "");
}

#[test]
fn line_ends_marks_and_framing_bytes() {
    let lines = ["MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.3", "PID|1||7", "PV1|1|I"];
    for (name, sent) in [
        ("CR", lines.join("\r") + "\r"),
        ("LF", lines.join("\n") + "\n"),
        ("CR LF", lines.join("\r\n")),
        ("mixed", format!("{}\n{}\r\n\r\n{}", lines[0], lines[1], lines[2])),
        ("BOM", format!("\u{feff}{}", lines.join("\r"))),
        ("MLLP", format!("\u{b}{}\r\u{1c}\r", lines.join("\r"))),
        ("FS before each CR", lines.join("\u{1c}\r") + "\u{1c}\r"),
        ("blank lines", format!("\r\n\n{}\r\r", lines.join("\r\n\n"))),
        ("indented", lines.join("\n   ")),
    ] {
        let m = parse(&sent);
        let found: Vec<&[u8]> = (0..m.segment_count()).map(|n| m.segment_bytes(n)).collect();
        assert_eq!(found, lines.map(str::as_bytes), "{name}");
        assert_eq!((m.version(), text(&m, 2, 2, 1).as_str(), m.write()), (Version::V23, "I", sent.as_bytes()), "{name}");
    }
}

#[test]
fn a_wrapped_line_belongs_to_the_segment_before_it() {
    let m = parse("MSH|^~\\&|A|B|C|D|||ORU^R01|1|P|2.3\rOBX|1|TX|R||no sign of\nthe disease|x\rpid|2||lower");
    assert_eq!((m.segment_count(), m.wrapped_lines(), m.segment_name(2)), (3, 1, "pid"));
    assert_eq!((text(&m, 1, 5, 1).as_str(), text(&m, 1, 6, 1).as_str()), ("no sign of\nthe disease", "x"));
    assert!(m.is_segment(2, "PID"));
}

#[test]
fn odd_delimiters() {
    let m = parse("MSH#!@%*#S#F#R#F#20260301##ADT!A01#7#P#2.5\nPID#1##1!!!MRN@2##DOE!J%T%!A*B##a%F%b%E%");
    assert_eq!((m.message_type().as_str(), text(&m, 1, 5, 2).as_str(), text(&m, 1, 7, 1).as_str()), ("ADT^A01", "J*", "a#b%"));
    assert_eq!((m.repetition_count(m.field(1, 3)), m.text(m.subcomponent(m.component(m.field(1, 5), 3), 2)).into_owned()), (2, "B".to_owned()));
    let m = parse("MSH|^~&|A|B|C|D|||ADT^A01|1|P|2.3\rPID|1||a\\F\\b&c");
    assert_eq!((m.raw(m.field(1, 3)), text(&m, 1, 3, 1).as_str(), m.subcomponent_count(m.field(1, 3))), (&b"a\\F\\b&c"[..], "a\\F\\b&c", 2));
    let m = parse("MSH|^~\\\\&|A|B|C|D|||ADT^A01|1|P|2.3\rPID|1||a\\F\\b&c");
    assert_eq!(text(&m, 1, 3, 1), "a|b&c");
}

fn with_charset(msh18: &str, name: &[u8]) -> Vec<u8> {
    let mut bytes = format!("MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.5||||||{msh18}\rPID|1||7||").into_bytes();
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(b"^Given|x\r");
    bytes
}

#[test]
fn character_sets() {
    for (msh18, bytes, want) in [
        ("8859/1", &b"M\xFCller"[..], "Müller"),
        ("ISO-8859-1", b"\x80", "\u{80}"),
        ("8859/2", b"\xA3\xF3d\xBC", "Łódź"),
        ("8859/5", b"\xB8\xD2\xD0\xDD", "Иван"),
        ("8859/9", b"\xDE\xFE", "Şş"),
        ("8859/15", b"\xA4", "€"),
        ("UNICODE UTF-8", "김".as_bytes(), "김"),
        ("utf-8", "Ünal".as_bytes(), "Ünal"),
        ("GB 18030-2000", b"\xC0\xEE\x81\x30\x89\x39", "李â"),
        ("KS X 1001", b"\xB1\xE8", "김"),
        ("~ISO IR87", b"\x1B$B;3ED\x1B(B", "山田"),
        ("", "Zoë".as_bytes(), "Zoë"),
        ("", b"Zo\xEB", "Zoë"),
        ("ISO IR 999", b"Zo\xEB", "Zoë"),
    ] {
        let sent = with_charset(msh18, bytes);
        let m = parse(&sent);
        assert_eq!((text(&m, 1, 5, 1).as_str(), text(&m, 1, 5, 2).as_str(), text(&m, 1, 6, 1).as_str()), (want, "Given", "x"), "{msh18}");
        assert_eq!(m.charset_guessed(), msh18.is_empty() || msh18 == "ISO IR 999", "{msh18}");
        assert_eq!(m.write(), sent, "{msh18}");
    }
}

/// In BIG-5 the second byte of a character may be `|`, `^`, `~` or `\`: 許 is B3 5C, 功 is A5 5C, 育 is A8 7C.
#[test]
fn big_5_is_decoded_before_delimiters_are_looked_for() {
    let sent = with_charset("BIG-5", b"\xB3\x5C\xA5\x5C^\xA8\x7C|\xA8\x7C~2");
    let m = parse(&sent);
    assert_eq!((text(&m, 1, 5, 1).as_str(), text(&m, 1, 5, 2).as_str()), ("許功", "育"));
    assert_eq!((m.repetition_count(m.field(1, 6)), text(&m, 1, 6, 1).as_str(), text(&m, 1, 7, 1).as_str()), (2, "育", "x"));
    assert_eq!(m.write(), sent);
}

#[test]
fn delimiter_bytes_within_characters_of_msh_itself() {
    for (facility, msh18, want) in [(&b"\xA8\x7C\xA5\x5C"[..], "BIG-5", "育功"), (b"\x1B$B4|;3\x1B(B", "~ISO IR87", "期山")] {
        let mut sent = b"MSH|^~\\&|A|".to_vec();
        sent.extend_from_slice(facility);
        sent.extend_from_slice(format!("|C|D|20260309||ADT^A01|77|P|2.3||||||{msh18}\rPID|1||7\r").as_bytes());
        let m = parse(&sent);
        assert_eq!((text(&m, 0, 4, 1).as_str(), m.version(), m.message_type().as_str()), (want, Version::V23, "ADT^A01"), "{msh18}");
        let header = Header::read(&sent).expect("the header is readable");
        let found = (header.raw(4), header.control_id().0, header.version(), header.character_set());
        assert_eq!(found, (facility, "77".to_owned(), Version::V23, msh18.into()), "{msh18}");
    }
}

#[test]
fn bytes_that_the_set_cannot_decode_are_a_fault_with_their_place() {
    for (msh18, name) in [("UNICODE UTF-8", &b"M\xFCller"[..]), ("ASCII", b"M\xC3\xBCller"), ("BIG-5", b"M\xFF\xFFller")] {
        let sent = with_charset(msh18, name);
        let at = sent.iter().position(|b| !b.is_ascii()).expect("there is one");
        let fault = Message::parse(Bytes::from(sent), &ParseOptions::default()).expect_err("these bytes are not of that set");
        assert_eq!((fault.code, fault.location.path().as_str()), (102, "PID-5"), "{msh18}");
        assert!(fault.text.contains(&format!("byte {at} ")) && fault.text.contains(msh18), "{}", fault.text);
    }
    let fault = Message::parse(Bytes::from(with_charset("CNS 11643-1992", b"x")), &ParseOptions::default()).expect_err("there is no decoder");
    assert_eq!((fault.code, fault.location.path().as_str(), fault.text.contains("CNS 11643-1992")), (103, "MSH-18", true));
    assert!(Message::parse(Bytes::from_static(b"M\0S\0H\0|\0"), &ParseOptions::default()).is_err());
}

#[test]
fn the_listeners_set_overrides_msh_18() {
    let options = ParseOptions { charset: Some(Charset::LATIN_1), ..ParseOptions::default() };
    let m = Message::parse(Bytes::from(with_charset("UNICODE UTF-8", b"M\xFCller")), &options).expect("readable as Latin-1");
    assert_eq!((text(&m, 1, 5, 1).as_str(), m.charset_guessed()), ("Müller", false));
}

#[test]
fn the_structure_comes_from_msh_9_or_from_the_event() {
    for (msh9, version, want) in [
        ("ADT^A04^ADT_A01", "2.5", Some("ADT_A01")),
        ("ADT^A31", "2.5", Some("ADT_A05")),
        ("SIU^S14^SIU_S14", "2.3.1", Some("SIU_S12")),
        ("ORM^O01", "2.8", Some("ORM_O01")),
        ("ORU", "2.3", Some("ORU_R01")),
        ("ADT", "2.3", Some("ADT_A01")),
        ("ACK", "2.5", Some("ACK")),
        ("ACK^A01", "2.3", Some("ACK")),
        ("ABC^XYZ", "2.5", None),
        ("", "2.5", None),
    ] {
        let m = parse(format!("MSH|^~\\&|A|B|C|D|||{msh9}|1|P|{version}\r"));
        assert_eq!(m.structure_id(), want, "{msh9} {version}");
        assert_eq!(m.structure().map(|s| s.id()), want, "{msh9} {version}");
    }
    assert_eq!(parse("MSH|^~\\&|A|B|C|D|||ADT|1|P|2.3\rEVN|A03\r").structure_id(), Some("ADT_A03"), "EVN-1 tells the event that MSH-9 lacks");
}

#[test]
fn msh_alone() {
    let header = Header::read("\u{b}MSH|^~\\&|APP|F^1.2^ISO|KILN|H|20260309||ADT^A08|a\\T\\b|P|2.4^DEU|||AL|NE||8859/1\rPID|never looked at".as_bytes())
        .expect("the header is readable");
    let found = [header.sending_application(), header.sending_facility(), header.receiving_application(), header.receiving_facility(), header.message_time()];
    assert_eq!(found, ["APP", "F^1.2^ISO", "KILN", "H", "20260309"]);
    assert_eq!((header.message_type().as_str(), header.control_id().0.as_str(), header.version()), ("ADT^A08", "a\\T\\b", Version::V24));
    assert_eq!((header.accept_acknowledgement(), header.application_acknowledgement(), header.character_set()), ("AL".into(), "NE".into(), "8859/1".into()));
    assert_eq!((header.raw(1), header.raw(2), header.raw(99)), (&b"|"[..], &b"^~\\&"[..], &b""[..]));
    for bad in ["", "PID|1", "MSH", "MSH||A", "MSH|^^^^|A"] {
        assert!(Header::read(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn a_large_document_in_one_field() {
    let document = "QUJDREVG".repeat(1_000_000);
    let m = parse(format!("MSH|^~\\&|A|B|C|D|||MDM^T02|1|P|2.5\rOBX|1|ED|PDF||^application^pdf^Base64^{document}|x\r"));
    assert_eq!((m.raw(m.component(m.field(1, 5), 5)).len(), text(&m, 1, 6, 1).as_str()), (document.len(), "x"));
    let header = Header::read(format!("MSH|^~\\&|A|{document}").as_bytes()).expect("the beginning is readable");
    assert!(header.sending_facility().len() < 70_000);
}

/// Text that a field may hold, delimiters and line breaks included.
fn any_text() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[A-Za-z|^~&#@!\\\\ äß漢\n\"]{0,12}").expect("a valid pattern")
}

fn any_delimiters() -> impl Strategy<Value = Delimiters> {
    Just(b"|^~\\&#!@%*$+,;:".to_vec()).prop_shuffle().prop_map(|c| Delimiters {
        field: c[0],
        component: c[1],
        repetition: Some(c[2]),
        escape: Some(c[3]),
        subcomponent: Some(c[4]),
        truncation: None,
    })
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Header::read(&bytes);
        if let Ok(m) = Message::parse(Bytes::from(bytes.clone()), &ParseOptions::default()) {
            prop_assert_eq!(m.write(), &bytes[..]);
        }
    }

    /// The scan finds just what splitting by hand finds, whatever the alignment.
    #[test]
    fn the_scan_is_a_split(tail in "[a|^~\\\\&]{0,40}(\rZ[A-Z]{2}\\|[a|^~&]{0,40}){0,6}") {
        let sent = format!("MSH|^~\\&|{tail}");
        let m = parse(&sent);
        let lines: Vec<&str> = sent.split('\r').collect();
        prop_assert_eq!(m.segment_count(), lines.len());
        for (n, line) in lines.iter().enumerate().skip(1) {
            let fields: Vec<&str> = line.split('|').collect();
            prop_assert_eq!(m.field_count(n), fields.len() - 1);
            for (f, field) in fields.iter().enumerate().skip(1) {
                prop_assert_eq!(m.raw(m.field(n, f)), field.as_bytes());
            }
        }
    }

    /// What the writer makes reads back as it was meant, in any delimiters.
    #[test]
    fn built_messages_round_trip(delimiters in any_delimiters(), values in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any_text(), 1..4), 1..4), 1..8)) {
        let mut w = Writer::new(delimiters);
        w.header("MSH").skip_fields(15).field().text("UNICODE UTF-8");
        w.segment("ZZZ");
        for field in &values {
            for (r, repetition) in field.iter().enumerate() {
                if r == 0 { w.field() } else { w.repetition() };
                for (c, component) in repetition.iter().enumerate() {
                    if c > 0 { w.component(); }
                    w.text(component);
                }
            }
        }
        let sent = w.finish();
        let m = parse(&sent);
        prop_assert_eq!(m.delimiters(), delimiters);
        for (f, field) in values.iter().enumerate() {
            for (r, repetition) in field.iter().enumerate() {
                for (c, component) in repetition.iter().enumerate() {
                    let part = m.component(m.repetition(m.field(1, f + 1), r + 1), c + 1);
                    prop_assert_eq!(&*m.text(part), component);
                }
            }
        }
    }
}

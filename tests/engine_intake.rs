//! What a sender sees: acknowledgements of good, odd, repeated, refused and unroutable messages, over a real socket.

mod engine_site;

use engine_site::{Plan, adt};
use kiln::hl7v2::{Oddity, Tolerate};
use kiln::journal::Disposition;
use kiln::site::{BatchAnswer, Unrouted, WhenFull};

/// The acknowledgement without Kiln's own time and control ID, segments by line.
fn shape(ack: &str) -> String {
    let mut fields: Vec<&str> = ack.split('\r').next().unwrap_or_default().split('|').collect();
    for n in [6, 9] {
        if let Some(field) = fields.get_mut(n) {
            assert!(!field.is_empty(), "an acknowledgement has its own MSH-7 and MSH-10: {}", ack.escape_debug());
            *field = "*";
        }
    }
    let rest = ack.split_once('\r').map_or("", |(_, rest)| rest);
    format!("{}\n{}", fields.join("|"), rest.replace('\r', "\n")).trim_end().to_owned()
}

#[tokio::test]
async fn an_acknowledgement_judges_only_what_kiln_needs() {
    let site = Plan::new().start().await;
    let mut peer = site.connect().await;
    let good = adt("C1", "1", "DOE");
    assert_eq!(shape(&peer.ask(&good).await), "MSH|^~\\&|KILN|HERE|ADT1|HOSP|*||ACK^A08^ACK|*|P|2.5.1\nMSA|AA|C1");
    let cases: &[(&[u8], &str)] = &[
        // Content that no dictionary would allow is a finding, not a refusal.
        (b"MSH|^~\\&|A|B|C|D|not a time||ADT^A08|C2|P|2.5\rZZZ|?\rPID|||^^^^^|\rPID\rEVN", "MSH|^~\\&|C|D|A|B|*||ACK^A08^ACK|*|P|2.5\nMSA|AA|C2"),
        // Other delimiters, and an empty control ID.
        (b"MSH$%!?+$A$B$C$D$2026$$ADT%A08$$P$2.3", "MSH$%!?+$C$D$A$B$"),
        (b"MSH|^~\\&|A|B|C|D|2026||ADT^A08||P|2.2", "MSH|^~\\&|C|D|A|B|*||ACK|*|P|2.2\nMSA|AA|"),
    ];
    for (message, expected) in cases {
        let ack = peer.ask(message).await;
        if message.starts_with(b"MSH$") {
            assert!(ack.starts_with(expected) && ack.contains("\rMSA$AA"), "{}", ack.escape_debug());
        } else {
            assert_eq!(shape(&ack).trim_end_matches('|'), expected.trim_end_matches('|'));
        }
    }
    assert!(site.counted("kiln_acks_total{listener=\"adt\",code=\"AA\"} 4"), "{}", site.metrics.encode());
    assert!(site.counted("kiln_messages_received_total{listener=\"adt\",type=\"ADT^A08\"} 4"), "{}", site.metrics.encode());
    site.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_kept() {
    let site = Plan::new().start().await;
    let mut peer = site.connect().await;
    let cases: &[(&[u8], &str)] = &[
        (b"hello", "207"),
        (b"", "207"),
        (b"MSH|^~\\&|A|B|C|D|2026|||C1|P|2.5\rPID|1", "200"),
        (b"MSH|^~\\&|A|B|C|D|2026||ADT^A08|C2|P|2.5||||||UNICODE UTF-16\rPID|1", "103"),
    ];
    for (message, code) in cases {
        let ack = peer.ask(message).await;
        assert!(ack.contains("\rMSA|AR"), "{}", ack.escape_debug());
        assert!(ack.contains(&format!("|{code}^")), "{code}: {}", ack.escape_debug());
    }
    let first = peer.ask("hello").await;
    assert_eq!(shape(&first).lines().take(2).collect::<Vec<_>>(), ["MSH|^~\\&|KILN||||*||ACK|*|P|2.5", "MSA|AR"]);
    let stored = site.stored().await;
    assert_eq!(stored.len(), cases.len() + 1);
    assert!(stored.iter().all(|m| matches!(m.disposition, Disposition::Refused { .. }) && m.deliveries.is_empty()));
    assert_eq!(stored[0].envelope.bytes.expose().as_ref(), b"hello");
    site.stop().await;
}

#[tokio::test]
async fn a_batch_is_refused_and_told_what_it_is() {
    let mut plan = Plan::new();
    plan.site.batch = BatchAnswer::Refuse;
    let site = plan.start().await;
    let mut peer = site.connect().await;
    let message = adt("C1", "1", "DOE");
    for (name, batch) in
        [("FHS", format!("FHS|^~\\&|A|B|C|D|2026\rBHS|^~\\&|A\r{message}BTS|1\rFTS|1\r")), ("BHS", format!("BHS|^~\\&|A|B|C|D|2026\r{message}BTS|1\r"))]
    {
        let ack = peer.ask(batch).await;
        assert!(ack.contains("\rMSA|AR") && ack.contains(&format!("a batch was sent: it begins with {name}")), "{}", ack.escape_debug());
        assert!(ack.contains("in a frame of its own"), "{}", ack.escape_debug());
    }
    assert!(site.stored().await.iter().all(|m| matches!(m.disposition, Disposition::Refused { code: 207, .. })));
    site.stop().await;
}

#[tokio::test]
async fn without_room_a_message_gets_the_answer_that_the_listener_chose() {
    let mut plan = Plan::new();
    (plan.low_water, plan.site.when_full) = (u64::MAX, WhenFull::Nak);
    let site = plan.start().await;
    let mut peer = site.connect().await;
    for n in 0..2 {
        let ack = peer.ask(adt(&format!("C{n}"), "1", "DOE")).await;
        assert!(ack.contains(&format!("\rMSA|AR|C{n}")) && ack.contains("|207^"), "{}", ack.escape_debug());
    }
    assert!(site.counted("kiln_acks_total{listener=\"adt\",code=\"AR\"} 2"), "{}", site.metrics.encode());
    assert_eq!(site.stored().await.len(), 0, "what was refused for want of room is not kept");
    site.stop().await;
}

#[tokio::test]
async fn a_byte_that_cannot_be_read_is_named_by_its_place_only_and_soon() {
    let site = Plan::new().start().await;
    let mut peer = site.connect().await;
    // A message that is cut in the wrong places: what stands where a segment's name should be may be anybody's.
    let ack = peer.ask(b"MSH|^~\\&|A|B|C|D|2026||ADT^A08|C1|P|2.5||||||ASCII\rPID|1||7^^^HOSP\rDoe|\xE4").await;
    assert!(ack.contains("\rMSA|AR|C1") && !ack.contains("Doe"), "{}", ack.escape_debug());
    let began = std::time::Instant::now();
    let mut long = b"MSH|^~\\&|A|B|C|D|2026||ADT^A08|C2|P|2.5||||||ASCII\r".to_vec();
    long.extend(b"NTE|1\r".repeat(100_000));
    long.extend(b"OBX|1|\xE4");
    let ack = peer.ask(long).await;
    assert!(ack.contains("\rMSA|AR|C2") && ack.contains("in OBX-2, cannot be read"), "{}", ack.escape_debug());
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "it took {:?}", began.elapsed());
    site.stop().await;
}

#[tokio::test]
async fn types_that_no_route_names_follow_the_listener() {
    let other = "MSH|^~\\&|A|B|C|D|2026||ORM^O01|C1|P|2.5\rPID|1||7^^^HOSP";
    let made_up = "MSH|^~\\&|A|B|C|D|2026||DOE^JOHN|C2|P|2.5";
    let site = Plan::new().start().await;
    let mut peer = site.connect().await;
    peer.accepted(other).await;
    peer.accepted(made_up).await;
    assert_eq!(site.stored().await[0].disposition, Disposition::Unrouted);
    // A name that the dictionary lacks is never a label.
    assert!(site.counted("kiln_messages_received_total{listener=\"adt\",type=\"other\"} 1"), "{}", site.metrics.encode());
    assert!(!site.metrics.encode().contains("DOE"));
    site.stop().await;

    let mut plan = Plan::new();
    plan.site.unrouted = Unrouted::Reject;
    let site = plan.start().await;
    let mut peer = site.connect().await;
    let ack = peer.ask(other).await;
    assert!(ack.contains("\rMSA|AR|C1") && ack.contains("|201^"), "{}", ack.escape_debug());
    assert!(matches!(site.stored().await[0].disposition, Disposition::Refused { code: 201, .. }));
    // Refused once, judged anew: never a duplicate.
    assert!(peer.ask(other).await.contains("\rMSA|AR|C1"));
    assert_eq!(site.stored().await.len(), 2);
    site.stop().await;
}

#[tokio::test]
async fn a_when_that_is_false_accepts_and_delivers_nothing() {
    let site = Plan::new().start().await;
    let mut peer = site.connect().await;
    peer.accepted(&format!("{}PV1|1|N\r", adt("C1", "1", "DOE"))).await;
    let stored = site.stored().await;
    assert_eq!((&stored[0].disposition, stored[0].deliveries.len()), (&Disposition::Filtered, 0));
    site.stop().await;
}

#[tokio::test]
async fn a_duplicate_gets_the_same_acknowledgement_and_is_delivered_once() {
    let site = Plan::new().start().await;
    let mut peer = site.connect().await;
    let message = adt("C1", "1", "DOE");
    let first = peer.ask(&message).await;
    let mut other = site.connect().await;
    assert_eq!(other.ask(&message).await, first);
    assert!(site.counted("kiln_duplicates_total{listener=\"adt\"} 1"), "{}", site.metrics.encode());
    // The same control ID with other content is another message.
    let changed = peer.ask(adt("C1", "1", "ROE")).await;
    assert_ne!(changed, first);
    assert!(site.counted("kiln_findings_total{kind=\"control-id-reused\"} 1"), "{}", site.metrics.encode());
    site.until_delivered(2).await;
    assert_eq!(site.server.saved("1"), ["DOE", "ROE"]);
    assert_eq!(site.stored().await.len(), 2);
    site.stop().await;
}

#[tokio::test]
async fn an_acknowledgement_is_never_acknowledged() {
    let site = Plan::new().start().await;
    let mut peer = site.connect().await;
    peer.send(b"MSH|^~\\&|A|B|C|D|2026||ACK^A08^ACK|C1|P|2.5\rMSA|AA|77\r").await;
    peer.send(adt("C2", "1", "DOE").as_bytes()).await;
    let ack = peer.receive().await.expect("the connection is open");
    assert!(ack.contains("\rMSA|AA|C2"), "{}", ack.escape_debug());
    assert_eq!(site.stored().await.len(), 2, "it is kept all the same");
    site.stop().await;
}

#[tokio::test]
async fn an_acknowledgement_that_is_refused_gets_no_answer_either() {
    let mut plan = Plan::new();
    plan.site.unrouted = Unrouted::Reject;
    let site = plan.start().await;
    let mut peer = site.connect().await;
    let refused: &[&[u8]] = &[
        b"MSH|^~\\&|A|B|C|D|2026||ACK^A08^ACK|C1|P|2.5\rMSA|AA|77\r",
        b"MSH|^~\\&|A|B|C|D|2026|||C2|P|2.5\rMSA|AA|77\r",
        b"MSH|^~\\&|A|B|C|D|2026||ACK|C3|P|2.5||||||UNICODE UTF-16\rMSA|AA|77\r",
    ];
    for message in refused {
        peer.send(message).await;
    }
    peer.send(adt("C4", "1", "DOE").as_bytes()).await;
    let ack = peer.receive().await.expect("the connection is open");
    assert!(ack.contains("\rMSA|AA|C4"), "{}", ack.escape_debug());
    let stored = site.stored().await;
    assert_eq!(stored.iter().filter(|m| matches!(m.disposition, Disposition::Refused { .. })).count(), refused.len(), "they are kept as refused");
    site.stop().await;
}

#[tokio::test]
async fn an_oversize_message_is_told_so() {
    let mut plan = Plan::new();
    plan.site.socket.frame_bytes_max = 1_000;
    let site = plan.start().await;
    let mut peer = site.connect().await;
    let long = format!("{}NTE|1||{}", adt("C1", "1", "DOE"), "x".repeat(1_000));
    let ack = peer.ask(long).await;
    assert!(ack.contains("\rMSA|AR|C1") && ack.contains("longer than 1000 bytes"), "{}", ack.escape_debug());
    assert_eq!(peer.receive().await, None, "the connection is closed");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_one_connection_are_stored_in_the_order_in_which_they_were_sent() {
    const MESSAGES: usize = 3_000;
    let site = Plan::new().start().await;
    let mut peer = site.connect().await;
    let mut frames = Vec::new();
    for n in 0..MESSAGES {
        frames.extend_from_slice(format!("\x0BMSH|^~\\&|A|B|C|D|2026||ZZZ^Z01|{n}|P|2.5\rPID|||7^^^HOSP\r\x1C\r").as_bytes());
    }
    let (mut reading, mut writing) = peer.0.split();
    let write = async { tokio::io::AsyncWriteExt::write_all(&mut writing, &frames).await.expect("the listener reads on") };
    let read = async {
        let (mut answers, mut buffer) = (0, vec![0; 1 << 16]);
        while answers < MESSAGES {
            let n = tokio::io::AsyncReadExt::read(&mut reading, &mut buffer).await.expect("the connection is open");
            assert_ne!(n, 0, "the connection is open");
            answers += buffer[..n].iter().filter(|byte| **byte == 0x1C).count();
        }
    };
    tokio::join!(write, read);
    let stored: Vec<usize> = site.stored().await.iter().map(|m| m.envelope.control_id.0.parse().expect("a number")).collect();
    let overtakers = stored.iter().zip(stored.iter().skip(1)).filter(|(one, next)| one > next).count();
    assert_eq!((stored.len(), overtakers), (MESSAGES, 0), "a later message was stored before an earlier one");
    site.stop().await;
}

/// A message for each switch: what breaks the rule, and in what the message as it is read then differs from others.
fn odd_messages() -> Vec<(Oddity, String)> {
    let plain = adt("C1", "1", "DOE");
    vec![
        (Oddity::Leading, format!("\u{FEFF}\r\n{plain}")),
        (Oddity::LineFeeds, plain.replace('\r', "\r\n")),
        (Oddity::SegmentCase, plain.replace("EVN|", "evn|").replace("PID|", "Pid|")),
        (Oddity::BrokenLines, plain.replace("^JOHN", "^JOHN\rMAXIMILIAN THE YOUNGER")),
        (Oddity::Header, plain.replace("ADT^A08^ADT_A01", "")),
        (
            Oddity::Unescaped,
            format!("{plain}OBX|1|ST|a^b^L||5|6 & 7|||||F|||20260309\r").replace("OBX|1|ST|a^b^L||5|6 & 7|||||F", "OBX|1|ST|a^b^L||5|6 & 7||||||F"),
        ),
    ]
}

#[tokio::test]
async fn each_broken_rule_is_a_switch_that_takes_or_refuses() {
    for (oddity, message) in odd_messages() {
        let word = oddity.switch();
        for on in [true, false] {
            let mut plan = Plan::new();
            plan.site.tolerate = Tolerate::all(on);
            // One switch alone decides.
            if !on {
                plan.site.tolerate = Tolerate::all(true);
                match oddity {
                    Oddity::Leading => plan.site.tolerate.leading = false,
                    Oddity::LineFeeds => plan.site.tolerate.line_feeds = false,
                    Oddity::SegmentCase => plan.site.tolerate.segment_case = false,
                    Oddity::BrokenLines => plan.site.tolerate.broken_lines = false,
                    Oddity::Header => plan.site.tolerate.header = false,
                    Oddity::Unescaped => plan.site.tolerate.unescaped = false,
                    Oddity::Concatenated => plan.site.tolerate.concatenated = false,
                }
            }
            let site = plan.start().await;
            let ack = site.connect().await.ask(&message).await;
            let counted = format!("kiln_tolerated_total{{listener=\"adt\",switch=\"{word}\"}} 1");
            if on {
                assert!(ack.contains("\rMSA|AA|C1"), "{word}: {}", ack.escape_debug());
                assert!(site.counted(&counted), "{word}: {}", site.metrics.encode());
                assert_eq!(site.stored().await[0].envelope.message_type, "ADT^A08", "{word}");
                assert_eq!(site.stored().await[0].envelope.bytes.expose().as_ref(), message.as_bytes(), "{word}: what was received is kept as it is");
            } else {
                // What is not filled in or taken for text is as the sender wrote it.
                let says = match oddity {
                    Oddity::Header => "MSH-9 (message type) is empty".to_owned(),
                    Oddity::Unescaped => "\rMSA|AA|C1".to_owned(),
                    _ => format!("which this listener does not take (tolerate: {word})"),
                };
                assert!(ack.contains(&says), "{word}: {}", ack.escape_debug());
                assert!(!site.counted(&counted), "{word}: {}", site.metrics.encode());
            }
            site.stop().await;
        }
    }
    assert_eq!(Tolerate::default(), Tolerate { header: false, unescaped: false, ..Tolerate::all(true) });
}

#[tokio::test]
async fn text_in_utf_16_cannot_come_over_mllp_and_is_told_so() {
    let site = Plan::new().start().await;
    let mut peer = site.connect().await;
    let wide: Vec<u8> = adt("C1", "1", "DOE").encode_utf16().flat_map(u16::to_le_bytes).collect();
    peer.send(&wide).await;
    let mut answer = vec![0; 64];
    use tokio::io::AsyncReadExt;
    peer.0.read_exact(&mut answer).await.expect("an answer comes");
    // The answer is in the sender's encoding too.
    assert!(answer.starts_with(b"\x0BM\0S\0H\0|\0"), "{}", answer.escape_ascii());
    let stored = &site.stored().await[0];
    let Disposition::Refused { code: 103, text } = &stored.disposition else { panic!("{:?}", stored.disposition) };
    assert!(text.contains("UNICODE UTF-16, whose characters hold MLLP's framing bytes"), "{text}");
    site.stop().await;
}

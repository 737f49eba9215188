//! Receivers of HL7 v2 as targets: every kind of answer, and of silence, is exactly that and never "sent".
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

mod security_support;
mod v2_support;

use kiln::exchange::{DeliveryId, MessageId};
use kiln::fhir::Saves;
use kiln::hl7v2::{Answer, Draft};
use kiln::target::{Expect, Fault, Job, MllpConfig, Receipt, Retry, Sending, Sent, Setback, Stage, Target, TargetConfig, Tls, V2Config, V2Way};
use security_support::{Authority, Front, Pem, file};
use std::time::Duration;
use v2_support::{Receiver, Step, ack, adt, framed};

const SOON: Duration = Duration::from_millis(250);
const LONG: Duration = Duration::from_secs(20);

fn mllp(address: impl ToString, timeout: Duration) -> V2Config {
    let config = V2Config::new(V2Way::Mllp(MllpConfig { timeout, ..MllpConfig::new(address.to_string()) }));
    V2Config { application_wait: timeout, ..config }
}

fn open(config: V2Config) -> Target {
    Target::open(TargetConfig::V2(config)).expect("the target opens")
}

/// One attempt at a delivery of these messages.
async fn deliver_after(target: &Target, messages: &[String], sent: &[Sent], answers: &[Answer]) -> Result<Receipt, Setback> {
    let drafts: Vec<Draft> = messages
        .iter()
        .enumerate()
        .map(|(n, text)| Draft { place: n.to_string(), bytes: text.clone().into_bytes(), charset: kiln::hl7v2::Charset::UTF_8 })
        .collect();
    let delivery = DeliveryId { message: MessageId(1), number: 0 };
    let job = Job { delivery, saves: &Saves::default(), drafts: &drafts, known: &[], done: &[], after_ambiguous: false, sent, answers };
    target.deliver(job, Sending::Transaction).await
}

async fn deliver(target: &Target, message: &str) -> Result<Receipt, Setback> {
    deliver_after(target, &[message.to_owned()], &[], &[]).await
}

#[track_caller]
fn class(result: Result<Receipt, Setback>) -> (&'static str, Retry, Fault) {
    let setback = result.expect_err("it is not delivered");
    (setback.code, setback.retry, setback.fault)
}

#[tokio::test]
async fn an_accepted_message_is_delivered_and_the_connection_stays() {
    let receiver = Receiver::accepting().await;
    let target = open(mllp(receiver.address, LONG));
    for n in 0..5 {
        let receipt = deliver(&target, &adt(&format!("C{n}"), "7", "")).await.expect("delivered");
        assert_eq!(receipt.messages, [format!("AA C{n}")]);
    }
    assert_eq!(receiver.control_ids(), ["C0", "C1", "C2", "C3", "C4"]);
    assert_eq!(receiver.connections(), 1);
    assert_eq!(receiver.seen()[0].text(), adt("C0", "7", ""), "byte for byte");
}

#[tokio::test]
async fn negative_acknowledgements_have_classes() {
    use {Fault::*, Retry::*};
    for (code, more, expected) in [
        ("AE", "", ("ack-ae", Permanent, Message)),
        ("AR", "", ("ack-ar", Permanent, Message)),
        ("CR", "", ("ack-cr", Permanent, Message)),
        ("CE", "", ("ack-ce", Transient, Target)),
        ("AE", "ERR||PID^1^3|101^Required field missing^HL70357|E\r", ("ack-ae", Permanent, Message)),
        ("AE", "ERR|||206^Application record locked^HL70357|E\r", ("ack-ae", Transient, Declined)),
        ("AR", "ERR|||207^Application internal error^HL70357|E\r", ("ack-ar", Transient, Target)),
        ("OK", "", ("ack-code", Ambiguous, Target)),
        ("", "", ("ack-code", Ambiguous, Target)),
    ] {
        let receiver = Receiver::start(move |seen| vec![Step::Say(framed(&ack(code, &seen.control_id(), more)))]).await;
        let target = open(mllp(receiver.address, LONG));
        let setback = deliver(&target, &adt("C1", "7", "")).await.expect_err("refused");
        assert_eq!((setback.code, setback.retry, setback.fault), expected, "{code} {more}");
        assert!(setback.detail.expect("what it said").expose().contains(&format!("MSA|{code}|C1")));
        assert!(!setback.summary.contains("Meier"), "{}", setback.summary);
        // The receiver has answered: the connection is as good as before.
        assert_eq!(class(deliver(&target, &adt("C2", "7", "")).await), expected);
        assert_eq!(receiver.connections(), 1, "{code}");
    }
}

#[tokio::test]
async fn what_is_tried_again_is_configured() {
    let receiver = Receiver::start(|seen| vec![Step::Say(framed(&ack("AE", &seen.control_id(), "ERR|||101^x^HL70357|E\r")))]).await;
    for (retry_on, expected) in [
        (vec!["AE"], ("ack-ae", Retry::Transient, Fault::Declined)),
        (vec!["101"], ("ack-ae", Retry::Transient, Fault::Declined)),
        (vec![], ("ack-ae", Retry::Permanent, Fault::Message)),
    ] {
        let retry_on = retry_on.into_iter().map(str::to_owned).collect();
        let target = open(V2Config { retry_on, ..mllp(receiver.address, LONG) });
        assert_eq!(class(deliver(&target, &adt("C1", "7", "")).await), expected);
    }
}

#[tokio::test]
async fn an_answer_to_another_message_is_not_taken() {
    // As node-hl7-server does: the first acknowledgement again, and then the message's own.
    let receiver = Receiver::start(|seen| vec![Step::Say([framed(&ack("AE", "C0", "")), framed(&ack("AA", &seen.control_id(), ""))].concat())]).await;
    let target = open(mllp(receiver.address, LONG));
    for n in 0..4 {
        deliver(&target, &adt(&format!("C{}", n + 1), "7", "")).await.expect("its own answer came");
    }
    assert_eq!(receiver.connections(), 1);

    let receiver = Receiver::start(|_| vec![Step::Say(framed(&ack("AA", "C9", "")))]).await;
    let target = open(mllp(receiver.address, SOON));
    assert_eq!(class(deliver(&target, &adt("C1", "7", "")).await), ("ack-other", Retry::Ambiguous, Fault::Target));
}

#[tokio::test]
async fn an_answer_that_says_it_twice_does_not_count_for_the_next() {
    // What is left of one exchange is dropped before the next begins, also where a message of the same control ID follows.
    let receiver = Receiver::start(|seen| {
        let own = if seen.number == 0 { vec![seen.ack("AA"), seen.ack("AA"), seen.ack("AA")] } else { vec![seen.ack("AE")] };
        let Some(Step::Say(all)) = own.into_iter().reduce(|a, b| match (a, b) {
            (Step::Say(a), Step::Say(b)) => Step::Say([a, b].concat()),
            (a, _) => a,
        }) else {
            return Vec::new();
        };
        vec![Step::Say(all)]
    })
    .await;
    let target = open(mllp(receiver.address, LONG));
    deliver(&target, &adt("C1", "7", "")).await.expect("accepted");
    assert_eq!(class(deliver(&target, &adt("C1", "7", "")).await).0, "ack-ae");
}

#[tokio::test]
async fn a_late_answer_never_counts() {
    let receiver = Receiver::start(|seen| match seen.number {
        0 => vec![Step::Wait(SOON * 3), seen.ack("AA")],
        _ => vec![seen.ack("AE")],
    })
    .await;
    let target = open(mllp(receiver.address, SOON));
    assert_eq!(class(deliver(&target, &adt("C1", "7", "")).await), ("timeout", Retry::Ambiguous, Fault::Target));
    // Sent again, it is judged by the answer to this attempt: the old connection is gone, and with it the AA that came too late.
    assert_eq!(class(deliver(&target, &adt("C1", "7", "")).await).0, "ack-ae");
    assert_eq!(receiver.connections(), 2);
}

#[tokio::test]
async fn garbage_is_garbage() {
    use {Fault::Target as T, Retry::Ambiguous as A};
    let cases: Vec<(Vec<Step>, &str)> = vec![
        (vec![Step::Say(framed("hello"))], "ack-garbage"),
        (vec![Step::Say(framed("MSH|^~\\&|R|R|S|S|2026||ADT^A01|1|P|2.5\rPID|1\r"))], "ack-garbage"),
        (vec![Step::Say(b"MSH|^~\\&|R\rMSA|AA|C1\r".to_vec())], "ack-unframed"),
        (vec![Step::Say(b"MSH|^~\\&|R\rMSA|AA|C1\r".to_vec()), Step::Close], "ack-unframed"),
        (vec![Step::Say(b"\x0BMSH|^~\\&|R\rMSA|AA|C1\r".to_vec()), Step::Close], "ack-unframed"),
        (vec![Step::Close], "connection-lost"),
        (vec![Step::Reset], "connection-lost"),
        (vec![], "timeout"),
        (vec![Step::Say(framed(&"x".repeat(1_100_000)))], "answer-too-long"),
    ];
    for (steps, code) in cases {
        let told = format!("{code} {}", steps.len());
        let receiver = Receiver::start(move |_| steps.clone()).await;
        let target = open(mllp(receiver.address, SOON));
        assert_eq!(class(deliver(&target, &adt("C1", "7", "")).await), (code, A, T), "{told}");
        // Nothing of it is left for the next.
        assert_eq!(class(deliver(&target, &adt("C2", "7", "")).await).0, code, "{told}");
        assert_eq!(receiver.connections(), 2, "{told}");
    }
}

#[tokio::test]
async fn an_answer_in_pieces_is_an_answer() {
    let receiver = Receiver::start(|seen| match seen.ack("AA") {
        Step::Say(bytes) => vec![Step::Spell(bytes)],
        other => vec![other],
    })
    .await;
    let target = open(mllp(receiver.address, LONG));
    deliver(&target, &adt("C1", "7", "")).await.expect("delivered");
    deliver(&target, &adt("C2", "7", "")).await.expect("delivered");
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_receiver_that_refuses_before_it_has_read_all_is_heard() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let holding = tokio::spawn(async move {
        let mut open = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = socket.accept().await.expect("a connection");
            let mut some = [0; 1024];
            let n = stream.read(&mut some).await.expect("the beginning");
            assert!(n > 0);
            stream.write_all(&framed(&ack("AR", "C1", ""))).await.expect("a reader");
            // It reads no further, and stays open.
            open.push(stream);
        }
        std::future::pending::<()>().await;
    });
    let target = open(mllp(address, LONG));
    let large = adt("C1", "7", "") + &format!("OBX|1|ED|x||{}\r", "A".repeat(20_000_000));
    assert_eq!(class(deliver(&target, &large).await).0, "ack-ar");
    // Half a message is on that connection: the next takes another.
    assert_eq!(class(deliver(&target, &adt("C1", "7", "")).await).0, "ack-ar");
    holding.abort();
}

#[tokio::test]
async fn a_receiver_that_closes_after_each_answer_gets_each_message_once() {
    let receiver = Receiver::start(|seen| vec![seen.ack("AA"), Step::Close]).await;
    let target = open(mllp(receiver.address, LONG));
    let wanted: Vec<String> = (0..20).map(|n| format!("C{n}")).collect();
    for id in &wanted {
        // The close may meet the next message as long as Kiln has not learned it; then nobody knows, and it is sent again.
        while let Err(setback) = deliver(&target, &adt(id, "7", "")).await {
            assert!(matches!((setback.code, setback.retry), ("connection-lost", Retry::Transient | Retry::Ambiguous)), "{setback:?}");
        }
    }
    assert_eq!(receiver.control_ids(), wanted);
    assert!(receiver.connections() >= 20);
}

#[tokio::test]
async fn nobody_there_is_nothing_done() {
    let address = {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        socket.local_addr().expect("an address")
    };
    assert_eq!(class(deliver(&open(mllp(address, LONG)), &adt("C1", "7", "")).await), ("connect", Retry::Transient, Fault::Target));
    let nowhere = open(mllp("no-such-host.invalid:2575", LONG));
    assert_eq!(class(deliver(&nowhere, &adt("C1", "7", "")).await), ("dns", Retry::Transient, Fault::Target));
    assert!(Target::open(TargetConfig::V2(mllp("hl7.example", LONG))).is_err(), "no port");
}

#[tokio::test]
async fn what_could_never_be_called_delivered_is_not_sent() {
    let receiver = Receiver::accepting().await;
    let target = open(mllp(receiver.address, LONG));
    let permanent = |code| (code, Retry::Permanent, Fault::Message);
    assert_eq!(class(deliver(&target, &adt("", "7", "")).await), permanent("no-control-id"));
    assert_eq!(class(deliver(&target, &adt("C1", "7", "NE|NE")).await), permanent("asks-no-answer"));
    assert_eq!(class(deliver(&target, &adt("C1", "7", "ER|ER")).await), permanent("asks-no-answer"));
    assert_eq!(class(deliver(&target, &(adt("C1", "7", "") + "NTE|1||a\x1C\rb\r")).await), permanent("unframeable"));
    assert_eq!(class(deliver(&target, "PID|1\r").await), permanent("unreadable"));
    assert!(receiver.seen().is_empty());
    let target = open(V2Config { expect: Expect::Accept, ..mllp(receiver.address, LONG) });
    deliver(&target, &adt("C1", "7", "NE|NE")).await.expect("its receiver answers all the same");
}

/// A receiver in enhanced mode on one connection.
async fn enhanced(first: &'static str, second: Option<&'static str>) -> Receiver {
    Receiver::start(move |seen| {
        // Kiln's own accept acknowledgement of an application acknowledgement.
        if seen.text().contains("\rMSA|") {
            return Vec::new();
        }
        let application = second.map(|code| {
            let asks = ack(code, &seen.control_id(), "").replace("|P|2.5.1\r", "|P|2.5.1|||AL|NE\r");
            Step::Say(framed(&asks))
        });
        std::iter::once(seen.ack(first)).chain([Step::Wait(Duration::from_millis(20))]).chain(application).collect()
    })
    .await
}

#[tokio::test]
async fn enhanced_mode_waits_for_both_on_one_connection() {
    for (asks, expect, first, second, expected) in [
        ("AL|AL", Expect::AsAsked, "CA", Some("AA"), Ok("AA C1")),
        ("SU|SU", Expect::AsAsked, "CA", Some("AA"), Ok("AA C1")),
        ("AL|NE", Expect::AsAsked, "CA", None, Ok("CA C1")),
        ("AL|AL", Expect::Accept, "CA", Some("AE"), Ok("CA C1")),
        ("", Expect::Application, "CA", Some("AA"), Ok("AA C1")),
        ("NE|AL", Expect::AsAsked, "AA", None, Ok("AA C1")),
        ("AL|AL", Expect::AsAsked, "AA", None, Ok("AA C1")),
        ("AL|AL", Expect::AsAsked, "CE", None, Err(("ack-ce", Retry::Transient, Fault::Target))),
        ("AL|AL", Expect::AsAsked, "CR", None, Err(("ack-cr", Retry::Permanent, Fault::Message))),
        ("AL|AL", Expect::AsAsked, "CA", Some("AE"), Err(("ack-ae", Retry::Permanent, Fault::Message))),
        ("AL|AL", Expect::AsAsked, "CA", Some("AR"), Err(("ack-ar", Retry::Permanent, Fault::Message))),
        ("AL|AL", Expect::AsAsked, "CA", None, Err(("no-application-acknowledgement", Retry::Permanent, Fault::Message))),
    ] {
        let receiver = enhanced(first, second).await;
        let wait = if expected.is_err_and(|(code, ..)| code == "no-application-acknowledgement") { SOON } else { LONG };
        let target = open(V2Config { expect, ..mllp(receiver.address, wait) });
        let ended = deliver(&target, &adt("C1", "7", asks)).await;
        let told = format!("{asks} {first} {second:?}");
        match expected {
            Ok(message) => assert_eq!(ended.unwrap_or_else(|s| panic!("{told}: {s:?}")).messages, [message], "{told}"),
            Err(expected) => assert_eq!(class(ended), expected, "{told}"),
        }
        // An acknowledgement that asks for an accept acknowledgement (MSH-15) gets one, and gets it before the next message.
        let wanted = second.is_some() && expect != Expect::Accept;
        let _ = deliver(&target, &adt("C2", "7", asks)).await;
        let seen: Vec<String> = receiver.seen().iter().map(v2_support::Seen::text).collect();
        let next = seen.iter().position(|text| text.contains("|C2|")).unwrap_or_else(|| panic!("{told}: the next message never came"));
        assert_eq!(seen[..next].iter().filter(|text| text.contains("\rMSA|CA|AC1")).count(), usize::from(wanted), "{told}: {seen:?}");
    }
}

#[tokio::test]
async fn a_connection_lost_between_both_is_not_delivered() {
    // The receiver has said that it has the message: whatever comes then, it is not sent again by itself.
    let steps = |last: Step| move |seen: &v2_support::Seen| vec![seen.ack("CA"), last.clone()];
    for (last, told) in [
        (Step::Close, "the connection ended before the application acknowledgement came"),
        (Step::Reset, "the connection ended before the application acknowledgement came"),
        (Step::Say(framed("no acknowledgement")), "what came then is no acknowledgement"),
    ] {
        let receiver = Receiver::start(steps(last)).await;
        let target = open(mllp(receiver.address, LONG));
        let setback = deliver(&target, &adt("C1", "7", "AL|AL")).await.expect_err("not delivered");
        assert_eq!((setback.code, setback.retry, setback.fault), ("no-application-acknowledgement", Retry::Permanent, Fault::Message), "{told}");
        assert_eq!(setback.summary, format!("the receiver accepted the message (CA), but {told}: ask its operator; `kiln journal replay` sends it again"));
    }
}

#[tokio::test]
async fn utf_16_is_not_written_where_mllp_frames_it() {
    let receiver = Receiver::accepting().await;
    let target = open(mllp(receiver.address, LONG));
    let bytes: Vec<u8> = adt("C1", "7", "").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let charset = kiln::hl7v2::Charset::told_by(&bytes).expect("UTF-16");
    let drafts = [Draft { place: String::new(), bytes, charset }];
    let delivery = DeliveryId { message: MessageId(1), number: 0 };
    let job = Job { delivery, saves: &Saves::default(), drafts: &drafts, known: &[], done: &[], after_ambiguous: false, sent: &[], answers: &[] };
    let setback = target.deliver(job, Sending::Transaction).await.expect_err("it cannot be framed");
    assert_eq!((setback.code, setback.retry, setback.fault), ("unframeable", Retry::Permanent, Fault::Message));
    assert!(setback.summary.contains("UNICODE UTF-16") && setback.summary.contains("over HTTP"), "{}", setback.summary);
    assert_eq!(receiver.control_ids(), [""; 0]);
}

#[tokio::test]
async fn application_acknowledgements_that_come_to_a_listener_end_the_delivery_later() {
    let receiver = Receiver::start(|seen| vec![seen.ack("CA")]).await;
    let target = open(V2Config { replies: true, ..mllp(receiver.address, LONG) });
    let message = [adt("C1", "7", "AL|AL")];
    let awaited = deliver_after(&target, &message, &[], &[]).await.expect_err("the application's word is to come");
    assert_eq!((awaited.code, awaited.retry, awaited.fault), ("awaits-acknowledgement", Retry::Transient, Fault::Awaited));
    assert_eq!(awaited.retry_after, Some(LONG));
    let sent = awaited.sent;
    assert!(matches!(sent.as_slice(), [Sent { draft: 0, code, control_id, stage: Stage::Awaited(_) }] if code == "CA" && control_id == "C1"), "{sent:?}");

    let answer = |code: &str, id: &str| Answer::read(ack(code, id, "").as_bytes()).expect("an MSA");
    let of_another = deliver_after(&target, &message, &sent, &[answer("AA", "C2"), answer("CA", "C1")]).await.expect_err("not its own");
    assert_eq!((of_another.fault, of_another.sent), (Fault::Awaited, Vec::new()));
    let negative = deliver_after(&target, &message, &sent, &[answer("AE", "C1")]).await.expect_err("refused");
    assert_eq!((negative.code, negative.retry), ("ack-ae", Retry::Permanent));
    let done = deliver_after(&target, &message, &sent, &[answer("AA", "C1")]).await.expect("accepted");
    assert_eq!(done.messages, ["AA C1"]);
    assert_eq!(receiver.control_ids(), ["C1"], "it is never sent again meanwhile");

    let late = [Sent { stage: Stage::Awaited(1), ..sent[0].clone() }];
    let given_up = deliver_after(&target, &message, &late, &[]).await.expect_err("too late");
    assert_eq!((given_up.code, given_up.retry, given_up.fault), ("no-application-acknowledgement", Retry::Permanent, Fault::Message));
    assert_eq!(given_up.sent.last().map(|sent| sent.stage), Some(Stage::Open), "an operator's replay sends it");
    // Where the receiver was not to say that it has the message, nobody knows.
    let late = [Sent { stage: Stage::Awaited(1), code: String::new(), ..sent[0].clone() }];
    assert_eq!(class(deliver_after(&target, &message, &late, &[]).await), ("no-application-acknowledgement", Retry::Ambiguous, Fault::Target));
}

#[tokio::test]
async fn of_several_messages_those_that_were_accepted_are_not_sent_again() {
    let receiver = Receiver::start(|seen| vec![seen.ack(if seen.number == 2 { "CE" } else { "AA" })]).await;
    let target = open(mllp(receiver.address, LONG));
    let messages: Vec<String> = (1..=4).map(|n| adt(&format!("C{n}"), "7", "")).collect();
    let setback = deliver_after(&target, &messages, &[], &[]).await.expect_err("the third is refused");
    assert_eq!(setback.code, "ack-ce");
    assert_eq!(setback.sent.iter().map(|s| (s.draft, s.stage)).collect::<Vec<_>>(), [(0, Stage::Done), (1, Stage::Done)]);
    let receipt = deliver_after(&target, &messages, &setback.sent, &[]).await.expect("the rest is accepted");
    assert_eq!(receipt.messages, ["AA C1", "AA C2", "AA C3", "AA C4"]);
    assert_eq!(receiver.control_ids(), ["C1", "C2", "C3", "C3", "C4"]);
}

/// A target that speaks TLS to a front before a receiver.
fn secure(port: u16, host: &str, tls: Tls, name: Option<&str>) -> V2Config {
    let config = MllpConfig { tls: Some(tls), tls_name: name.map(str::to_owned), timeout: LONG, ..MllpConfig::new(format!("{host}:{port}")) };
    V2Config::new(V2Way::Mllp(config))
}

#[tokio::test]
async fn tls_and_client_certificates() {
    let receiver = Receiver::accepting().await;
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().expect("a folder");
    let ca = |authority: &Authority, name: &str| Some(file(folder.path(), name, &authority.pem()));
    let identity = |pem: &Pem, name: &str| {
        Some((file(folder.path(), &format!("{name}.pem"), &pem.certificate), file(folder.path(), &format!("{name}-key.pem"), &pem.key)))
    };
    let server = authority.server("localhost", 4000);
    let front = |clients: &'static [&'static Authority]| Front { identity: &server, clients, old: false };
    let trusted = Tls { ca: ca(&authority, "ca.pem"), ..Tls::default() };

    let port = front(&[]).before(receiver.address).await;
    let target = open(secure(port, "localhost", trusted.clone(), None));
    for n in 0..3 {
        deliver(&target, &adt(&format!("C{n}"), "7", "")).await.expect("delivered over TLS");
    }
    assert_eq!((receiver.control_ids().len(), receiver.connections()), (3, 1), "one connection over TLS, too");
    let stranger = Tls { ca: ca(&other, "other.pem"), ..Tls::default() };
    let transient = |code| (code, Retry::Transient, Fault::Target);
    assert_eq!(class(deliver(&open(secure(port, "localhost", stranger, None)), &adt("C", "7", "")).await), transient("tls-issuer"));
    assert_eq!(class(deliver(&open(secure(port, "127.0.0.1", trusted.clone(), None)), &adt("C", "7", "")).await), transient("tls-name"));
    deliver(&open(secure(port, "127.0.0.1", trusted.clone(), Some("localhost"))), &adt("C3", "7", "")).await.expect("by the name in the certificate");
    assert_eq!(class(deliver(&open(secure(receiver.address.port(), "localhost", trusted.clone(), None)), &adt("C", "7", "")).await).1, Retry::Transient);
    assert_eq!(receiver.seen().iter().filter(|seen| seen.text().contains("|C|")).count(), 0, "nothing was sent where TLS did not come about");

    let clients: &'static [&'static Authority] = Box::leak(Box::new([&*Box::leak(Box::new(Authority::new()))]));
    let port = front(clients).before(receiver.address).await;
    let refused = class(deliver(&open(secure(port, "localhost", trusted.clone(), None)), &adt("C", "7", "")).await);
    assert_eq!(refused, transient("tls-client-certificate"));
    let with_identity = Tls { identity: identity(&clients[0].client(), "kiln"), ..trusted.clone() };
    deliver(&open(secure(port, "localhost", with_identity, None)), &adt("C4", "7", "")).await.expect("with a client certificate");
    let of_another = Tls { identity: identity(&other.client(), "stranger"), ..trusted };
    assert_eq!(class(deliver(&open(secure(port, "localhost", of_another, None)), &adt("C", "7", "")).await), transient("tls-client-certificate"));
    assert_eq!(receiver.control_ids(), ["C0", "C1", "C2", "C3", "C4"]);
}

#[tokio::test]
async fn a_certificate_that_is_exchanged_is_used_for_the_next_connection() {
    let receiver = Receiver::start(|seen| vec![seen.ack("AA"), Step::Close]).await;
    let (first, second) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().expect("a folder");
    let ca = file(folder.path(), "ca.pem", &first.pem());
    let server = second.server("localhost", 4000);
    let port = Front { identity: &server, clients: &[], old: true }.before(receiver.address).await;
    let target = open(secure(port, "localhost", Tls { ca: Some(ca), ..Tls::default() }, None));
    assert_eq!(class(deliver(&target, &adt("C1", "7", "")).await).0, "tls-issuer");
    file(folder.path(), "ca.pem", &second.pem());
    // The failed handshake of this attempt may be what makes it look at the file again.
    let _ = deliver(&target, &adt("C1", "7", "")).await;
    deliver(&target, &adt("C1", "7", "")).await.expect("the new authority is trusted, without a restart");
}

#[tokio::test]
async fn a_system_without_that_receivers_authority_says_so() {
    let receiver = Receiver::accepting().await;
    let authority = Authority::new();
    let server = authority.server("localhost", 4000);
    let port = Front { identity: &server, clients: &[], old: false }.before(receiver.address).await;
    match Target::open(TargetConfig::V2(secure(port, "localhost", Tls::default(), None))) {
        Ok(target) => assert_eq!(class(deliver(&target, &adt("C1", "7", "")).await).0, "tls-issuer"),
        // A machine without any authorities.
        Err(what) => assert!(what.to_string().contains("set `tls: { ca: FILE }`"), "{what}"),
    }
}

//! Receivers of HL7 v2 over HTTP as targets: the acknowledgement in the body counts, whatever the status; without one the status says whose fault it is.

mod v2_support;

use kiln::exchange::{DeliveryId, MessageId};
use kiln::fhir::Saves;
use kiln::hl7v2::{Charset, Draft};
use kiln::target::{Auth, Fault, HttpConfig, Job, Receipt, Retry, SecretSource, Sending, Setback, Target, TargetConfig, V2Config, V2Way};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use v2_support::{ack, adt, control_id};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

fn config(server: &MockServer) -> HttpConfig {
    HttpConfig { timeout: Duration::from_secs(10), ..HttpConfig::new(format!("{}/hl7", server.uri())) }
}

fn open(config: HttpConfig) -> Target {
    Target::open(TargetConfig::V2(V2Config::new(V2Way::Http(config)))).expect("the target opens")
}

async fn deliver(target: &Target, message: &[u8]) -> Result<Receipt, Setback> {
    deliver_in(target, message, Charset::UTF_8).await
}

/// A message that is written in this set, whatever its MSH-18 says.
async fn deliver_in(target: &Target, message: &[u8], charset: Charset) -> Result<Receipt, Setback> {
    let drafts = [Draft { place: String::new(), bytes: message.to_vec(), charset }];
    let delivery = DeliveryId { message: MessageId(1), number: 0 };
    let job = Job { delivery, saves: &Saves::default(), drafts: &drafts, known: &[], done: &[], after_ambiguous: false, sent: &[], answers: &[] };
    target.deliver(job, Sending::Transaction).await
}

async fn server(answer: impl Fn(&Request) -> ResponseTemplate + Send + Sync + 'static) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    server
}

fn own_ack(request: &Request, code: &str, status: u16) -> ResponseTemplate {
    let id = control_id(&String::from_utf8_lossy(&request.body));
    ResponseTemplate::new(status).set_body_raw(ack(code, &id, ""), "application/hl7-v2")
}

#[tokio::test]
async fn an_accepted_message_is_delivered_with_its_character_set() {
    let server = server(|request| own_ack(request, "AA", 200)).await;
    let target = open(config(&server));
    let receipt = deliver(&target, adt("C1", "7", "").as_bytes()).await.expect("delivered");
    assert_eq!(receipt.messages, ["AA C1"]);
    let latin = b"MSH|^~\\&|A|B|C|D|2026||ADT^A08|C2|P|2.5||||||8859/1\rPID|||||M\xFCller\r";
    deliver_in(&target, latin, Charset::LATIN_1).await.expect("delivered");
    // What is told is what it is written in: MSH-18 may be empty, or have another word for it.
    let wide: Vec<u8> = adt("C3", "7", "").encode_utf16().flat_map(u16::to_be_bytes).collect();
    let big5 = b"MSH|^~\\&|A|B|C|D|2026||ADT^A08|C4|P|2.5||||||BIG-5\rPID|||||\xa4\xa4\r";
    let turkish = b"MSH|^~\\&|A|B|C|D|2026||ADT^A08|C5|P|2.5\rPID|||||\xdeahin\r";
    for (bytes, charset) in [(&wide[..], Charset::told_by(&wide)), (big5, Charset::named("BIG-5")), (turkish, Charset::named("8859/9"))] {
        // The receiver of this test does not read UTF-16, and answers another message.
        let _ = deliver_in(&target, bytes, charset.expect("a set")).await;
    }
    let requests = server.received_requests().await.expect("they are recorded");
    let kinds: Vec<_> = requests.iter().map(|r| r.headers["content-type"].to_str().expect("text").to_owned()).collect();
    let expected = ["UTF-8", "ISO-8859-1", "UTF-16BE", "Big5", "ISO-8859-9"].map(|set| format!("application/hl7-v2; charset={set}"));
    assert_eq!(kinds, expected);
    assert_eq!((requests[0].url.path(), requests[1].body.as_slice()), ("/hl7", latin.as_slice()), "byte for byte");
}

#[tokio::test]
async fn what_the_body_says_counts_and_then_the_status() {
    use {Fault::*, Retry::*};
    // status, MSA-1 (empty: no acknowledgement), what it is
    for (status, code, expected) in [
        (200, "AE", ("ack-ae", Permanent, Message)),
        (500, "AE", ("ack-ae", Permanent, Message)),
        (400, "AR", ("ack-ar", Permanent, Message)),
        (200, "CE", ("ack-ce", Transient, Target)),
        (200, "", ("ack-garbage", Ambiguous, Target)),
        (204, "", ("ack-garbage", Ambiguous, Target)),
        (302, "", ("redirect", Transient, Target)),
        (400, "", ("http-400", Permanent, Message)),
        (401, "", ("http-401", Transient, Target)),
        (403, "", ("http-403", Transient, Target)),
        (404, "", ("http-404", Transient, Target)),
        (413, "", ("http-413", Permanent, Message)),
        (415, "", ("http-415", Transient, Target)),
        (422, "", ("http-422", Permanent, Message)),
        (429, "", ("http-429", Transient, Target)),
        (500, "", ("http-500", Ambiguous, Target)),
        (502, "", ("http-502", Ambiguous, Target)),
        (503, "", ("http-503", Transient, Target)),
        (504, "", ("http-504", Ambiguous, Target)),
    ] {
        let server = server(move |request| if code.is_empty() { ResponseTemplate::new(status) } else { own_ack(request, code, status) }).await;
        let setback = deliver(&open(config(&server)), adt("C1", "7", "").as_bytes()).await.expect_err("not delivered");
        assert_eq!((setback.code, setback.retry, setback.fault), expected, "{status} {code}");
        assert_eq!(setback.status, Some(status));
    }
    // A positive acknowledgement that comes with a status of failure is one all the same.
    let server = server(|request| own_ack(request, "AA", 500)).await;
    deliver(&open(config(&server)), adt("C1", "7", "").as_bytes()).await.expect("its application accepted it");
}

#[tokio::test]
async fn an_acknowledgement_of_another_message_and_silence_are_not_known() {
    let other = server(|_| ResponseTemplate::new(200).set_body_string(ack("AA", "C9", ""))).await;
    let setback = deliver(&open(config(&other)), adt("C1", "7", "").as_bytes()).await.expect_err("not its own");
    assert_eq!((setback.code, setback.retry, setback.fault), ("ack-other", Retry::Ambiguous, Fault::Target));
    let late = server(|request| own_ack(request, "AA", 200).set_delay(Duration::from_secs(30))).await;
    let target = open(HttpConfig { timeout: Duration::from_millis(300), ..config(&late) });
    let setback = deliver(&target, adt("C1", "7", "").as_bytes()).await.expect_err("too late");
    assert_eq!((setback.code, setback.retry, setback.fault), ("timeout", Retry::Ambiguous, Fault::Target));
    let nobody = HttpConfig::new("http://127.0.0.1:1/hl7");
    let setback = deliver(&open(nobody), adt("C1", "7", "").as_bytes()).await.expect_err("nobody there");
    assert_eq!((setback.code, setback.retry, setback.fault), ("connect", Retry::Transient, Fault::Target));
}

#[tokio::test]
async fn enhanced_mode_over_http_ends_with_what_it_can_get() {
    let server = server(|request| own_ack(request, "CA", 200)).await;
    deliver(&open(config(&server)), adt("C1", "7", "AL|NE").as_bytes()).await.expect("the accept acknowledgement is all that was asked for");
    let setback = deliver(&open(config(&server)), adt("C1", "7", "AL|AL").as_bytes()).await.expect_err("the other has no way to come");
    assert_eq!((setback.code, setback.retry), ("no-way-for-acknowledgement", Retry::Permanent));
    let way = V2Way::Http(config(&server));
    let target = Target::open(TargetConfig::V2(V2Config { replies: true, ..V2Config::new(way) })).expect("opens");
    let setback = deliver(&target, adt("C1", "7", "AL|AL").as_bytes()).await.expect_err("it is to come to a listener");
    assert_eq!((setback.code, setback.fault), ("awaits-acknowledgement", Fault::Awaited));
}

#[tokio::test]
async fn credentials_are_sent_and_read_again_after_a_401() {
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    std::fs::write(&password, "old").expect("written");
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let server = server(move |request| {
        // kiln:new
        if request.headers.get("authorization").is_some_and(|value| value == "Basic a2lsbjpuZXc=") {
            return own_ack(request, "AA", 200);
        }
        count.fetch_add(1, Ordering::SeqCst);
        ResponseTemplate::new(401)
    })
    .await;
    let auth = Auth::Basic { user: "kiln".to_owned(), password: SecretSource::File(password.clone()) };
    let target = open(HttpConfig { auth, ..config(&server) });
    let setback = deliver(&target, adt("C1", "7", "").as_bytes()).await.expect_err("the old password");
    assert_eq!((setback.code, refused.load(Ordering::SeqCst)), ("http-401", 1), "the same credentials are not tried twice");
    std::fs::write(&password, "new").expect("written");
    deliver(&target, adt("C1", "7", "").as_bytes()).await.expect("read anew");
}

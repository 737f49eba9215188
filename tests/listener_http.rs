//! HL7 v2 over HTTP at a real daemon: what is answered with which status, in which character set, to whom, and within which limits.

mod cli_support;
mod security_support;

use kiln::listener::{Http, Intake, Kind, Listener, ListenerConfig, Received, Reply};
use kiln::metrics::Metrics;
use tokio_util::sync::CancellationToken;

use cli_support::{Daemon, PATIENCE, Ran, admit, get, kiln, run, wait_for};
use reqwest::{Client, RequestBuilder, Response};
use security_support::{Authority, file};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

const ER7: &str = "application/hl7-v2; charset=utf-8";

fn write_site(folder: &Path, listener: &str) {
    let text = format!("console: {{ listen: 127.0.0.1:0 }}\nlisteners:\n  web: {{ http: 127.0.0.1:0, {listener} }}\ntargets: {{ main: {{ folder: out }} }}\n");
    file(folder, "kiln.yaml", &text);
}

fn site(folder: &Path, listener: &str) -> Daemon {
    write_site(folder, listener);
    Daemon::start(folder)
}

fn client() -> Client {
    Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client")
}

fn post(address: SocketAddr, path: &str) -> RequestBuilder {
    client().post(format!("http://{address}{path}"))
}

async fn send(address: SocketAddr, content_type: &str, message: impl Into<reqwest::Body>) -> Response {
    post(address, "/").header("content-type", content_type).body(message.into()).send().await.expect("an answer")
}

/// Status, content type and body.
async fn told(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let content_type = response.headers().get("content-type").map_or("", |v| v.to_str().expect("ASCII")).to_owned();
    (status, content_type, String::from_utf8(response.bytes().await.expect("a body").to_vec()).expect("UTF-8"))
}

#[track_caller]
fn counted(daemon: &Daemon, fault: &str, times: u64) {
    let line = format!("kiln_frame_faults_total{{listener=\"web\",fault=\"{fault}\"}} {times}");
    let console = daemon.address("console http://");
    wait_for(&line, || get(console, "/metrics").1.lines().any(|l| l == line));
}

/// A stored message, byte for byte.
fn stored(folder: &Path, control_id: &str) -> Vec<u8> {
    let found = run(folder, &["journal", "search", "--control-id", control_id, "--json"]).expect(0).out;
    let found: serde_json::Value = serde_json::from_str(found.lines().next().expect("a message")).expect("JSON");
    let output = kiln(folder).args(["journal", "show", &found["id"].to_string(), "--raw"]).output().expect("it runs");
    if !output.status.success() {
        Ran::of(output).expect(0);
        unreachable!("it failed");
    }
    output.stdout
}

#[tokio::test]
async fn the_answer_is_the_acknowledgement_with_the_status_of_its_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = site(folder.path(), "path: /hl7/adt, acknowledge: mapped");
    let address = daemon.address("web on ");
    let to = |message: String| post(address, "/hl7/adt").body(message);
    for media_type in ["application/hl7-v2", "application/hl7-v2+er7", "x-application/hl7-v2+er7"] {
        let (status, content_type, body) = told(to(admit(media_type, "4711")).header("content-type", media_type).send().await.expect("an answer")).await;
        assert_eq!((status, content_type), (200, format!("{media_type}; charset=utf-8")));
        assert!(body.contains(&format!("MSA|AA|{media_type}")), "{body}");
    }
    // AE: a route cannot make anything of it. AR: nobody can.
    let nobody = admit("2", "").replace("^^^HOSP^MR", "");
    let (status, content_type, body) = told(to(nobody.clone()).header("content-type", ER7).send().await.expect("an answer")).await;
    assert_eq!((status, content_type.as_str()), (500, ER7));
    assert!(body.contains("MSA|AE|2"), "{body}");
    let (status, content_type, body) = told(to("this is no message".to_owned()).header("content-type", ER7).send().await.expect("an answer")).await;
    assert_eq!((status, content_type.as_str()), (400, ER7));
    assert!(body.contains("MSA|AR\r") && body.contains("readable MSH"), "{body}");
    // An acknowledgement is never acknowledged.
    let acknowledgement = "MSH|^~\\&|A|B|C|D|20260301||ACK|3|P|2.5\rMSA|AA|1\r".to_owned();
    assert_eq!(told(to(acknowledgement).header("content-type", ER7).send().await.expect("an answer")).await.0, 204);

    write_site(folder.path(), "path: /hl7/adt, acknowledge: mapped, status: ok");
    run(folder.path(), &["reload"]).expect(0);
    let (status, _, body) = told(to(nobody).header("content-type", ER7).send().await.expect("an answer")).await;
    assert!(status == 200 && body.contains("MSA|AE|2"), "{status} {body}");
    let metrics = get(daemon.address("console http://"), "/metrics").1;
    assert!(metrics.contains("kiln_acks_total{listener=\"web\",code=\"AA\"} 3"), "{metrics}");
}

#[tokio::test]
async fn what_is_no_message_is_told_what_would_be_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = site(folder.path(), "path: /hl7");
    let address = daemon.address("web on ");
    let here = || post(address, "/hl7").body(admit("1", "4711"));
    let elsewhere = post(address, "/").header("content-type", ER7).body(admit("1", "4711"));
    let got = client().get(format!("http://{address}/hl7"));
    let cases = [
        (elsewhere, 404, "at this path"),
        (got, 405, "by POST"),
        (here(), 415, "Content-Type: application/hl7-v2"),
        (here().header("content-type", "application/hl7-v2+xml"), 415, "not as XML"),
        (here().header("content-type", "application/hl7-v2; charset=klingon"), 415, "utf-8 always is"),
        (here().header("content-type", ER7).header("content-encoding", "gzip"), 415, "compressed"),
    ];
    let count = cases.len() as u64;
    for (request, expected, advice) in cases {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.headers().get("allow").is_some(), expected == 405);
        let (status, content_type, body) = told(response).await;
        assert_eq!((status, content_type.as_str()), (expected, "text/plain; charset=utf-8"), "{body}");
        assert!(body.contains(advice), "{body}");
    }
    counted(&daemon, "bad-request", count);
    let metrics = get(daemon.address("console http://"), "/metrics").1;
    assert!(!metrics.contains("kiln_messages_received_total{"), "nothing was handed over: {metrics}");
}

/// HTTP says how the bytes are to be read, and MSH-18 how the message is kept.
#[tokio::test]
async fn the_character_set_of_the_request_stands_above_that_of_the_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = site(folder.path(), "");
    let address = daemon.address("web on ");
    let message = |control_id: &str, name: &str, set: &str| {
        let text = admit(control_id, "4711").replace("Meier", name).replace("|ADT1|", "|Ädt|");
        text.replacen("|P|2.5.1\r", &format!("|P|2.5.1||||||{set}\r"), 1)
    };
    let latin = |text: &str| text.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect::<Vec<u8>>();

    let text = message("1", "Müller", "8859/1");
    let (status, content_type, body) = told(send(address, ER7, text.clone()).await).await;
    assert_eq!((status, content_type.as_str()), (200, ER7));
    assert!(body.contains("|Ädt|"), "{body}");
    assert_eq!(stored(folder.path(), "1"), latin(&text));

    let text = message("2", "Müller", "UNICODE UTF-8");
    let response = send(address, "application/hl7-v2; charset=\"ISO-8859-1\"", latin(&text)).await;
    assert_eq!(response.headers()["content-type"], "application/hl7-v2; charset=ISO-8859-1");
    let body = response.bytes().await.expect("a body");
    assert!(body.windows(5).any(|w| w == b"|\xc4dt|"), "{}", body.escape_ascii());
    assert_eq!(stored(folder.path(), "2"), text.as_bytes());

    // Without a word in MSH-18 it is kept in UTF-8; without a word in the request, as it came.
    let text = message("3", "Müller", "");
    assert_eq!(send(address, "application/hl7-v2;CHARSET=iso-8859-1", latin(&text)).await.status(), 200);
    assert_eq!(stored(folder.path(), "3"), text.as_bytes());
    let text = latin(&message("4", "Müller", "8859/1"));
    assert_eq!(send(address, "application/hl7-v2", text.clone()).await.status(), 200);
    assert_eq!(stored(folder.path(), "4"), text);

    // What cannot be read, or not be kept as it says, is refused by name of the set, without the name of the patient.
    for (content_type, bytes, advice) in
        [(ER7, message("5", "Łukasz", "8859/1").into_bytes(), "8859/1"), (ER7, latin(&message("6", "Müller", "8859/1")), "UNICODE UTF-8")]
    {
        let response = send(address, content_type, bytes).await;
        assert_eq!(response.status(), 400);
        let body = String::from_utf8_lossy(&response.bytes().await.expect("a body")).into_owned();
        assert!(body.contains("MSA|AR|") && body.contains(advice) && !body.contains("ukasz"), "{body}");
    }
}

/// UTF-16 is told by the bytes, with or without a word in the request; the answer is written in the same, and its status is still that of its code.
#[tokio::test]
async fn utf_16_is_answered_in_utf_16() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = site(folder.path(), "acknowledge: mapped");
    let address = daemon.address("web on ");
    let ask = async |content_type: &str, text: &str| {
        let response = send(address, content_type, text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()).await;
        let status = response.status().as_u16();
        let content_type = response.headers()["content-type"].to_str().expect("ASCII").to_owned();
        let body = response.bytes().await.expect("a body");
        let units: Vec<u16> = body.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        (status, content_type, String::from_utf16(&units).expect("UTF-16"))
    };
    for (n, content_type) in ["application/hl7-v2", "application/hl7-v2; charset=utf-16", "application/hl7-v2; charset=UTF-16LE"].into_iter().enumerate() {
        let text = admit(&format!("A{n}"), "4711").replace("Meier", "Müller").replace("|ADT1|", "|Ädt|");
        let (status, answered, body) = ask(content_type, &text).await;
        assert_eq!((status, answered.as_str()), (200, "application/hl7-v2; charset=UTF-16LE"), "{body}");
        assert!(body.contains("|Ädt|") && body.contains(&format!("\rMSA|AA|A{n}\r")), "{body}");
    }
    let nobody = admit("2", "").replace("^^^HOSP^MR", "");
    let (status, _, body) = ask("application/hl7-v2", &nobody).await;
    assert!(status == 500 && body.contains("\rMSA|AE|2\r"), "{status} {body}");
    let (status, _, body) = ask("application/hl7-v2", &admit("3", "4711").replace("|ADT^A01^ADT_A01|", "||")).await;
    assert!(status == 400 && body.contains("\rMSA|AR|3\r"), "{status} {body}");
    // A batch is wrapped in the same.
    let batch = format!("BHS|^~\\&|A|B\r{}BTS|1\r", admit("4", "4711"));
    let (status, _, body) = ask("application/hl7-v2", &batch).await;
    assert!(status == 200 && body.starts_with("BHS|") && body.contains("\rMSA|AA|4\r") && body.ends_with("BTS|1\r"), "{status} {body}");
}

/// Of several answers the worst makes the status: who looks at nothing else must not take a refusal for a yes.
#[tokio::test]
async fn of_several_answers_the_worst_makes_the_status() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = site(folder.path(), "acknowledge: mapped, tolerate: { concatenated: on }");
    let address = daemon.address("web on ");
    let (well, nobody) = (admit("1", "4711"), admit("2", "").replace("^^^HOSP^MR", ""));
    let unknown = admit("3", "4711").replace("|ADT^A01^ADT_A01|", "||");
    for (messages, expected) in [
        (format!("{well}{well}"), 200),
        (format!("{well}{nobody}"), 500),
        (format!("{nobody}{well}"), 500),
        (format!("{nobody}{unknown}{well}"), 400),
        (format!("BHS|^~\\&|A|B\r{well}{nobody}BTS|2\r"), 500),
    ] {
        let (status, _, body) = told(send(address, ER7, messages).await).await;
        assert_eq!(status, expected, "{body}");
    }
}

/// Takes a message, and answers once it may.
struct Slow {
    long: std::sync::atomic::AtomicUsize,
    gate: tokio::sync::Semaphore,
}

impl Intake for Slow {
    async fn take(&self, received: Received) -> Reply {
        if received.bytes.expose().len() > 256 * 1_024 {
            self.long.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            self.gate.acquire().await.expect("never closed").forget();
        }
        Reply::Silent
    }
}

/// Sixteen long messages are in memory at once: those that wait for their answer are among them.
#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a test waits for its tasks itself")]
async fn a_long_message_keeps_its_place_until_it_is_answered() {
    const PLACES: usize = 16;
    let mut config = ListenerConfig::new("web", "127.0.0.1:0".parse().expect("an address"));
    config.kind = Kind::Http(Http::default());
    let listener = Listener::bind(config, std::sync::Arc::new(Metrics::new())).expect("a free port");
    let address = listener.local_address().expect("an address");
    let slow = std::sync::Arc::new(Slow { long: Default::default(), gate: tokio::sync::Semaphore::new(0) });
    let closing = CancellationToken::new();
    let run = tokio::spawn(listener.run(std::sync::Arc::clone(&slow), closing.clone()));
    let long = || slow.long.load(std::sync::atomic::Ordering::SeqCst);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..PLACES + 4 {
        requests.spawn(send(address, ER7, "x".repeat(400_000)));
    }
    let until = async |n: usize| {
        while long() < n {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until(PLACES)).await.expect("as many as there are places");
    // Short ones pass them by, each behind all that was there before it.
    for _ in 0..50 {
        assert_eq!(send(address, ER7, "short").await.status(), 204);
    }
    assert_eq!(long(), PLACES);
    slow.gate.add_permits(PLACES + 4);
    while let Some(response) = requests.join_next().await {
        assert_eq!(response.expect("no panic").status(), 204);
    }
    assert_eq!(long(), PLACES + 4);
    closing.cancel();
    run.await.expect("no panic");
}

#[tokio::test]
async fn users_and_bearers_show_who_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    file(folder.path(), "lab", "s3cret: and more\n");
    // Of `geheim`, by the reference implementation, with the salt `somesalt`.
    let hash = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$qASOLaGX+P0epRpm1t9sb89XH6vB26z1m7LoiG0+sDM";
    let daemon = site(folder.path(), &format!("auth: {{ users: {{ lab: {{ password: {{ file: lab }} }}, ward: {{ hash: \"{hash}\" }} }} }}"));
    let address = daemon.address("web on ");
    let ask = async |user: &str, password: &str| {
        let request = post(address, "/").header("content-type", ER7).basic_auth(user, Some(password)).body(admit("1", "4711"));
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(ask("lab", "s3cret: and more").await, 200);
    assert_eq!((ask("ward", "geheim").await, ask("ward", "geheim").await), (200, 200));
    for (user, password) in [("lab", "s3cret"), ("ward", "s3cret: and more"), ("ward", "Geheim"), ("nobody", "geheim"), ("", "")] {
        assert_eq!(ask(user, password).await, 401, "{user}");
    }
    let response = send(address, ER7, admit("1", "4711")).await;
    assert_eq!(response.headers()["www-authenticate"], "Basic realm=\"HL7 v2\", charset=\"UTF-8\"");
    assert_eq!(response.status(), 401);
    counted(&daemon, "unauthorized", 6);
    file(folder.path(), "lab", "another\n");
    let deadline = std::time::Instant::now() + PATIENCE;
    while ask("lab", "another").await != 200 {
        assert!(std::time::Instant::now() < deadline, "the new password is not known");
    }
    assert_eq!(ask("lab", "s3cret: and more").await, 401);

    file(folder.path(), "tokens", "first\nsecond\n\n");
    write_site(folder.path(), "auth: { bearer: { file: tokens } }");
    run(folder.path(), &["reload"]).expect(0);
    let ask = async |token: &str| {
        let request = post(address, "/").header("content-type", ER7).bearer_auth(token).body(admit("1", "4711"));
        request.send().await.expect("an answer")
    };
    for (token, status) in [("first", 200), ("second", 200), ("third", 401), ("", 401), ("first\tsecond", 401)] {
        let response = ask(token).await;
        assert_eq!(response.status().as_u16(), status, "{token}");
        assert_eq!(response.headers().get("www-authenticate").is_some(), status == 401);
    }
    assert!(!daemon.err().contains("s3cret") && !daemon.err().contains("geheim") && !daemon.err().contains("third"), "{}", daemon.err());
}

/// Nothing tells when what a command prints has changed but somebody who shows the new one; and nobody can make it run more than once a second.
#[tokio::test]
async fn a_secret_that_a_command_prints_is_read_again_after_another_was_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    file(folder.path(), "token", "first\n");
    let command = "command: [sh, -c, \"echo >> runs; cat token\"]";
    let daemon = site(folder.path(), &format!("auth: {{ bearer: {{ {command} }} }}"));
    let address = daemon.address("web on ");
    let ask = async |token: &str| {
        let request = post(address, "/").header("content-type", ER7).bearer_auth(token).body(admit("1", "4711"));
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(ask("first").await, 200);
    file(folder.path(), "token", "second\n");
    let deadline = std::time::Instant::now() + PATIENCE;
    while ask("second").await != 200 {
        assert!(std::time::Instant::now() < deadline, "the new token is not known");
    }
    assert_eq!(ask("first").await, 401);
    let runs = || std::fs::read_to_string(folder.path().join("runs")).expect("a file").lines().count();
    let (before, began) = (runs(), std::time::Instant::now());
    for _ in 0..40 {
        assert_eq!(ask("wrong").await, 401);
    }
    let most = usize::try_from(began.elapsed().as_secs()).expect("a moment") + 2;
    assert!(runs() - before <= most, "{before} {} {most}", runs());
    // By a user's password likewise.
    write_site(folder.path(), &format!("auth: {{ users: {{ lab: {{ password: {{ {command} }} }} }} }}"));
    run(folder.path(), &["reload"]).expect(0);
    file(folder.path(), "token", "third\n");
    let ask = async |password: &str| {
        let request = post(address, "/").header("content-type", ER7).basic_auth("lab", Some(password)).body(admit("1", "4711"));
        request.send().await.expect("an answer").status().as_u16()
    };
    while ask("third").await != 200 {
        assert!(std::time::Instant::now() < deadline, "the new password is not known");
    }
    assert_eq!(ask("second").await, 401);
}

#[tokio::test]
async fn over_tls_a_client_shows_its_certificate() {
    let folder = tempfile::tempdir().expect("a folder");
    let ours = Authority::new();
    let pem = ours.server("localhost", 4000);
    file(folder.path(), "web.pem", &pem.certificate);
    file(folder.path(), "web-key.pem", &pem.key);
    file(folder.path(), "ca.pem", &ours.pem());
    let daemon = site(folder.path(), "tls: { certificate: web.pem, key: web-key.pem, clients: { ca: ca.pem, names: lab.example } }");
    let address = daemon.address("web on ");
    let ask = async |identity: Option<security_support::Pem>| {
        let mut builder = Client::builder().no_proxy().timeout(PATIENCE);
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(ours.pem().as_bytes()).expect("PEM"));
        if let Some(pem) = identity {
            builder = builder.identity(reqwest::Identity::from_pem(format!("{}\n{}", pem.certificate, pem.key).as_bytes()).expect("PEM"));
        }
        let url = format!("https://localhost:{}/", address.port());
        builder.build().expect("a client").post(url).header("content-type", ER7).body(admit("1", "4711")).send().await
    };
    assert_eq!(ask(Some(ours.named_client("lab.example", ""))).await.expect("an answer").status(), 200);
    ask(Some(ours.named_client("other.example", ""))).await.expect_err("not named");
    ask(None).await.expect_err("no certificate");
    counted(&daemon, "client-name", 1);
    counted(&daemon, "handshake", 1);
}

/// Reads an answer from a connection that was written to by hand.
fn by_hand(mut stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(length: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: kiln\r\nContent-Type: {ER7}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn limits_hold_for_long_and_for_slow_messages() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = site(folder.path(), "limits: { frame: 512KiB, frame-time: 1s }");
    let address = daemon.address("web on ");
    let long = |control_id: &str, length: usize| format!("{}NTE|1||{}\r", admit(control_id, "4711"), "x".repeat(length));
    let message = long("1", 400_000);
    assert_eq!(send(address, ER7, message.clone()).await.status(), 200);
    assert_eq!(stored(folder.path(), "1"), message.as_bytes());
    // In pieces whose number nobody announced.
    let mut chunked = TcpStream::connect(address).expect("it listens");
    let request = format!("POST / HTTP/1.1\r\nHost: kiln\r\nContent-Type: {ER7}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    chunked.write_all(request.as_bytes()).expect("it reads");
    for piece in long("2", 300_000).as_bytes().chunks(10_000) {
        chunked.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).expect("it reads");
        chunked.write_all(piece).expect("it reads");
        chunked.write_all(b"\r\n").expect("it reads");
    }
    chunked.write_all(b"0\r\n\r\n").expect("it reads");
    assert!(by_hand(&chunked).starts_with("HTTP/1.1 200"));

    let (status, _, body) = told(send(address, ER7, long("3", 600_000)).await).await;
    assert_eq!(status, 413);
    assert!(body.contains("MSA|AR|3") && body.contains("longer than 524288 bytes"), "{body}");
    counted(&daemon, "oversize", 1);

    // Half of a message, half of a head, and nothing at all.
    let mut half = TcpStream::connect(address).expect("it listens");
    half.write_all(format!("{}MSH|", head(500)).as_bytes()).expect("it reads");
    assert!(by_hand(&half).starts_with("HTTP/1.1 408"));
    counted(&daemon, "slow-frame", 1);
    let mut half = TcpStream::connect(address).expect("it listens");
    half.write_all(b"POST / HTTP/1.1\r\nHost:").expect("it reads");
    let silent = TcpStream::connect(address).expect("it listens");
    let _ = by_hand(&half);
    assert_eq!(by_hand(&silent), "");
    counted(&daemon, "slow-frame", 3);
    // MLLP at the wrong door.
    let mut mllp = TcpStream::connect(address).expect("it listens");
    mllp.write_all(format!("\x0b{}\x1c\r", admit("PLANTED", "4711")).as_bytes()).expect("it reads");
    assert!(!by_hand(&mllp).contains("MSA"));
    counted(&daemon, "bad-request", 1);
    assert!(!daemon.err().contains("PLANTED"), "{}", daemon.err());
}

#[tokio::test]
async fn a_request_that_has_begun_is_answered_before_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = site(folder.path(), "");
    let address = daemon.address("web on ");
    let message = admit("1", "4711");
    let (first, second) = message.split_at(60);
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(format!("{}{first}", head(message.len())).as_bytes()).expect("it reads");
    // One that is idle is closed, and holds up nobody.
    let idle = TcpStream::connect(address).expect("it listens");
    let console = daemon.address("console http://");
    wait_for("both connections", || get(console, "/metrics").1.contains("kiln_connections{listener=\"web\"} 2"));
    daemon.signal("TERM");
    wait_for("the end to begin", || daemon.err().contains("stopping"));
    assert_eq!(by_hand(&idle), "");
    stream.write_all(second.as_bytes()).expect("it reads");
    let answer = by_hand(&stream);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("MSA|AA|1"), "{answer}");
    assert_eq!(daemon.stop(), 0);
}

#[tokio::test]
async fn without_room_the_sender_is_told_to_come_again() {
    let folder = tempfile::tempdir().expect("a folder");
    write_site(folder.path(), "");
    let daemon = Daemon::start_with(kiln(folder.path()).arg("serve").env("KILN__JOURNAL__LOW_WATER", "1000000TiB"));
    let console = daemon.address("console http://");
    wait_for("the room to be gone", || get(console, "/readyz").0 == 503);
    let response = send(daemon.address("web on "), ER7, admit("1", "4711")).await;
    assert_eq!(response.headers()["retry-after"], "30");
    let (status, _, body) = told(response).await;
    assert!(status == 503 && body.contains("send it again"), "{status} {body}");
}

/// HAPI's own client of the specification, by its classes from Maven (tests/peers/hoh; .ci/run gets them).
#[tokio::test]
#[allow(clippy::print_stderr, reason = "a test that was skipped says so")]
async fn the_client_of_those_who_wrote_the_specification_is_answered() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/hoh");
    let Ok(classpath) = std::fs::read_to_string(here.join("target/classpath")) else {
        let reason = "tests/peers/hoh has no target/classpath: run `mvn dependency:build-classpath -Dmdep.outputFile=target/classpath` there";
        assert!(!std::env::var("KILN_E2E").is_ok_and(|set| !matches!(set.as_str(), "" | "0")), "{reason}");
        eprintln!("skipped: {reason}");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    file(folder.path(), "lab", "s3cret\n");
    let daemon = site(folder.path(), "path: /hl7, acknowledge: mapped, auth: { users: { lab: { password: { file: lab } } } }");
    let address = daemon.address("web on ");
    let well = admit("HAPI1", "4711").replace("Meier", "Müller").replacen("|P|2.5.1\r", "|P|2.5.1||||||8859/1\r", 1);
    let nobody = admit("HAPI2", "").replace("^^^HOSP^MR", "");
    let unknown = admit("HAPI3", "4711").replace("|ADT^A01^ADT_A01|", "||");
    for (name, text) in [("1.hl7", &well), ("2.hl7", &nobody), ("3.hl7", &unknown)] {
        file(folder.path(), name, text);
    }
    let send = |password: &str, charset: &str| {
        let mut java = std::process::Command::new("java");
        java.arg("-cp").arg(classpath.trim()).arg(here.join("Send.java"));
        java.args([&address.ip().to_string(), &address.port().to_string(), "/hl7", "lab", password, charset, "1.hl7", "2.hl7", "3.hl7"])
            .current_dir(folder.path());
        Ran::of(java.output().expect("java is there where its packages are")).expect(0).out
    };
    for charset in ["UTF-8", "ISO-8859-1"] {
        let told = send("s3cret", charset);
        let answers: Vec<_> = told.lines().filter_map(|line| line.split("MSA|").nth(1)?.split('~').next()).collect();
        assert_eq!(answers, ["AA|HAPI1", "AE|HAPI2", "AR|HAPI3"], "{told}");
    }
    let latin: Vec<u8> = well.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect();
    assert_eq!(stored(folder.path(), "HAPI1"), latin);
    let told = send("wrong", "UTF-8");
    assert!(told.lines().count() == 3 && told.lines().all(|line| line.starts_with("fault ")), "{told}");
}

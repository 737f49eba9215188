//! `kiln send` over TLS and HTTP and in enhanced mode: what a person sees of it, and the exit codes.

mod cli_support;
mod security_support;
mod v2_support;

use cli_support::run;
use security_support::{Authority, Front, file};
use std::path::Path;
use tokio::runtime::Runtime;
use v2_support::{Receiver, Step, ack, adt, control_id, framed};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn folder_with(message: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("m.hl7"), message).expect("a file");
    folder
}

/// The first line of JSON that it prints.
fn json(folder: &Path, args: &[&str], code: i32) -> serde_json::Value {
    let ran = run(folder, &[args, &["--json"]].concat()).expect(code);
    serde_json::from_str(ran.out.lines().next().expect("a line")).expect("JSON")
}

#[test]
fn over_tls_with_a_client_certificate() {
    let runtime = runtime();
    let folder = folder_with(&adt("C1", "7", ""));
    let (receiver, authority, clients) = (runtime.block_on(Receiver::accepting()), Authority::new(), Authority::new());
    let server = authority.server("localhost", 4000);
    let client = clients.client();
    for (name, text) in [("ca.pem", authority.pem()), ("other.pem", clients.pem()), ("kiln.pem", client.certificate), ("key.pem", client.key)] {
        file(folder.path(), name, &text);
    }
    let open = runtime.block_on(Front { identity: &server, clients: &[], old: false }.before(receiver.address));
    let closed = runtime.block_on(Front { identity: &server, clients: &[&clients], old: false }.before(receiver.address));
    let send = |port: u16, host: &str, more: &[&str], code: i32| {
        let to = format!("{host}:{port}");
        let ran = run(folder.path(), &[&["send", "m.hl7", "--to", &to], more].concat()).expect(code);
        ran.out + &ran.err
    };
    assert!(send(open, "localhost", &["--ca", "ca.pem"], 0).starts_with("AA  C1  m.hl7"));
    assert!(send(open, "127.0.0.1", &["--ca", "ca.pem", "--tls-name", "localhost"], 0).starts_with("AA  C1"));
    assert!(send(closed, "localhost", &["--ca", "ca.pem", "--cert", "kiln.pem", "--key", "key.pem"], 0).starts_with("AA  C1"));
    let before = receiver.seen().len();
    // What to do is said in the words of the command line, and nothing was sent: exit code 2.
    for (port, host, more, told) in [
        (open, "localhost", &["--ca", "other.pem"][..], "say `--ca FILE`"),
        (open, "127.0.0.1", &["--ca", "ca.pem"], "say `--tls-name NAME`"),
        (closed, "localhost", &["--ca", "ca.pem"], "say `--cert FILE --key FILE`"),
        (open, "localhost", &["--ca", "nothing.pem"], "the file nothing.pem cannot be read"),
    ] {
        let out = send(port, host, more, 2);
        assert!(out.contains(told), "{told}: {out}");
    }
    assert_eq!(receiver.seen().len(), before);
    let to = format!("localhost:{open}");
    let load = json(folder.path(), &["send", "m.hl7", "--to", &to, "--ca", "ca.pem", "--repeat", "50", "--connections", "2"], 0);
    assert_eq!(load["accepted"].as_u64(), Some(50), "{load}");
}

#[test]
fn both_acknowledgements_of_enhanced_mode_are_shown() {
    let runtime = runtime();
    let folder = folder_with(&adt("C1", "7", "AL|AL"));
    let receiver = |second: Option<&'static str>, more: &'static str| {
        runtime.block_on(Receiver::start(move |seen| {
            let second = second.map(|code| Step::Say(framed(&ack(code, &seen.control_id(), more))));
            std::iter::once(seen.ack("CA")).chain(second).collect()
        }))
    };
    let send = |receiver: &Receiver, more: &[&str], code: i32| {
        let to = receiver.address.to_string();
        run(folder.path(), &[&["send", "m.hl7", "--to", &to], more].concat()).expect(code).out
    };
    let well = send(&receiver(Some("AA"), ""), &[], 0);
    let lines: Vec<_> = well.lines().map(|line| line.split("  ").take(3).collect::<Vec<_>>().join("  ")).collect();
    assert_eq!(lines, ["CA  C1  m.hl7", "AA  C1  m.hl7"]);
    let refused = send(&receiver(Some("AE"), "ERR||PID^1^3|101^Required field missing^HL70357|E||||no identifier\r"), &[], 1);
    assert!(refused.contains("CA  C1") && refused.contains("AE  C1") && refused.contains("101 at PID^1^3: no identifier"), "{refused}");
    let silent = send(&receiver(None, ""), &["--application-wait", "300ms"], 1);
    assert!(silent.contains("accepted, but no application acknowledgement came within 300ms"), "{silent}");
    assert_eq!(send(&receiver(None, ""), &["--expect", "accept"], 0).lines().count(), 1);
    let to = receiver(Some("AA"), "").address.to_string();
    let line = json(folder.path(), &["send", "m.hl7", "--to", &to], 0);
    assert_eq!((line["code"].as_str(), line["accept"]["code"].as_str(), line["accepted"].as_bool()), (Some("AA"), Some("CA"), Some(true)), "{line}");
}

#[test]
fn over_http() {
    let runtime = runtime();
    let folder = folder_with(&adt("C1", "7", ""));
    std::fs::write(folder.path().join("password"), "geheim\n").expect("a file");
    let server = runtime.block_on(async {
        let server = MockServer::start().await;
        let answer = |request: &Request| {
            let id = control_id(&String::from_utf8_lossy(&request.body));
            match request.url.path() {
                // kiln:geheim
                "/basic" if request.headers.get("authorization").is_some_and(|v| v == "Basic a2lsbjpnZWhlaW0=") => {
                    ResponseTemplate::new(200).set_body_string(ack("AA", &id, ""))
                }
                "/bearer" if request.headers.get("authorization").is_some_and(|v| v == "Bearer geheim") => {
                    ResponseTemplate::new(200).set_body_string(ack("AA", &id, ""))
                }
                "/refused" => ResponseTemplate::new(500).set_body_string(ack("AE", &id, "ERR|||101^x^HL70357|E||||why\r")),
                "/other" => ResponseTemplate::new(200).set_body_string(ack("AA", "C9", "")),
                "/page" => ResponseTemplate::new(200).set_body_string("<html>"),
                _ => ResponseTemplate::new(401),
            }
        };
        Mock::given(method("POST")).respond_with(answer).mount(&server).await;
        server
    });
    let send = |path: &str, more: &[&str], code: i32| {
        let to = format!("{}{path}", server.uri());
        run(folder.path(), &[&["send", "m.hl7", "--to", &to], more].concat()).expect(code).out
    };
    let well = send("/basic", &["--user", "kiln", "--secret-file", "password"], 0);
    assert!(well.starts_with("AA  C1  m.hl7") && well.contains("HTTP 200"), "{well}");
    send("/bearer", &["--secret-file", "password"], 0);
    assert!(send("/refused", &[], 1).contains("101: why"));
    assert!(send("/other", &[], 1).contains("answers another message"));
    assert!(send("/page", &[], 1).contains("HTTP 200, is no acknowledgement"));
    assert!(send("/none", &[], 1).contains("HTTP 401"));
    let nobody = run(folder.path(), &["send", "m.hl7", "--to", "http://127.0.0.1:1/"]).expect(2);
    assert!(nobody.out.contains("could not be reached"), "{}", nobody.out);
    run(folder.path(), &["send", "m.hl7", "--to", "http://127.0.0.1:1/", "--repeat", "2"]).expect(2);
}

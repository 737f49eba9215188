//! Patient data stays out of everything that is not asked for it by name: a marked patient goes through every fault that can be reached
//! from outside, at trace level, and then nothing that the daemon says, shows or names a file after holds a mark, in any encoding.

mod cli_support;
use base64::Engine as _;
use cli_support::{Daemon, exchange, get, kiln, run, wait_for};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

/// The marks: names, an identifier, a street, a telephone number. None of them is a word that anything else would use.
const MARKS: &[&str] = &["Vondrákóva", "Xenophileta", "QX77041993", "Quokkastraße", "5550173311", "ZQNOTE"];

fn message(control_id: &str, kind: &str) -> String {
    format!(
        "MSH|^~\\&|ADT1|HOSP|KILN|HOSP|20260301120000||{kind}|{control_id}|P|2.5.1|||||||UNICODE UTF-8\rEVN|A01|20260301120000\r\
         PID|1||QX77041993^^^HOSP^MR||Vondrákóva^Xenophileta||19031107|F|||Quokkastraße 1^^Wien^^1010||5550173311\r\
         NK1|1|Vondrákóva^Ludmila|SPO\rPV1|1|I|W1^101^1||||||||||||||||QX77041993\rOBX|1|TX|NOTE||ZQNOTE the patient says||||||F\r"
    )
}

/// Everything that a mark could look like in a log, a label, a URL or a file name.
fn disguises() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for mark in MARKS {
        let utf8 = mark.as_bytes().to_vec();
        let latin1: Vec<u8> = mark.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect();
        for bytes in [&utf8, &latin1] {
            let escaped = |percent: &str, all: bool| -> String {
                bytes.iter().map(|b| if b.is_ascii_alphanumeric() && !all { char::from(*b).to_string() } else { format!("{percent}{b:02x}") }).collect()
            };
            all.push((escaped("%", false), "percent"));
            all.push((escaped("%", true), "percent, every byte"));
            all.push((escaped("\\x", false), "escaped"));
            all.push((escaped("", true), "hex"));
            all.push((bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "), "hex with spaces"));
            all.push((bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "), "a list of bytes"));
            // What base64 makes of a mark in the midst of other text depends on where it stands; its ends depend on the neighbours.
            for shift in 0..3 {
                let shifted = [vec![0; shift], bytes.clone()].concat();
                let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&shifted);
                let sure = &text[if shift == 0 { 0 } else { shift + 1 }..text.len() - 2];
                all.push((sure.to_owned(), "base64"));
                all.push((sure.replace('+', "-").replace('/', "_"), "base64 for URLs"));
            }
        }
        all.push(((*mark).to_owned(), "plain"));
        all.push((mark.replace(|c: char| !c.is_ascii(), "\u{fffd}"), "what could not be decoded"));
        all.push((mark.chars().flat_map(char::escape_default).collect(), "Rust's escapes"));
    }
    all.into_iter().map(|(text, what)| (text, what.to_owned())).collect()
}

#[track_caller]
fn expect_no_mark(place: &str, text: &str) {
    let lower = text.to_lowercase();
    for (disguise, what) in disguises() {
        // Base64 tells capitals and small letters apart.
        let found = if what.starts_with("base64") { text.find(&disguise) } else { lower.find(&disguise.to_lowercase()) };
        if let Some(at) = found {
            let line = if what.starts_with("base64") { text } else { &lower };
            let start = (0..=at.saturating_sub(200)).rev().find(|n| line.is_char_boundary(*n)).unwrap_or(0);
            let end = (at + disguise.len() + 40..=line.len()).find(|n| line.is_char_boundary(*n)).unwrap_or(line.len());
            panic!("{place} holds a mark ({what}, `{disguise}`): ...{}...", &line[start..end]);
        }
    }
}

/// A server that answers whatever `answer` makes of the request's body.
fn server(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let answer = std::sync::Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (stream.expect("a connection"), std::sync::Arc::clone(&answer));
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut buffer = [0; 8192];
                loop {
                    let text = String::from_utf8_lossy(&request).into_owned();
                    if let Some((head, body)) = text.split_once("\r\n\r\n") {
                        let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse::<usize>().ok()));
                        if body.len() >= length.unwrap_or(0) {
                            let _ = stream.write_all(&answer(if body.is_empty() { head } else { body }));
                            return;
                        }
                    }
                    match stream.read(&mut buffer) {
                        Ok(n @ 1..) => request.extend_from_slice(&buffer[..n]),
                        _ => return,
                    }
                }
            });
        }
    });
    address
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).into_bytes()
}

/// One line that may stand in a header or a reason phrase.
fn one_line(text: &str) -> String {
    let names: Vec<_> = MARKS.iter().filter(|m| text.contains(**m)).copied().collect();
    names.join(" ")
}

fn names_below(folder: &Path, names: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        names.push_str(&path.display().to_string());
        names.push('\n');
        if path.is_dir() {
            names_below(&path, names);
        }
    }
}

const ROUTES: &str = r#"
route: everywhere
on: [ADT^A01, ADT^A04]
to: [disk, lines, echo, garbage, moved, dropped, refused, plain]
resources:
  patient: { $map: PID -> Patient, $save: update by PID-3 }
---
route: impossible
on: ADT^A08
to: disk
resources:
  patient: { $map: PID -> Patient, $save: update by PID-4 }
"#;

#[test]
fn no_mark_of_a_patient_is_said_shown_or_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let temporary = folder.path().join("tmp");
    std::fs::create_dir_all(folder.path().join("routes")).expect("a folder");
    std::fs::create_dir(&temporary).expect("a folder");
    std::fs::write(folder.path().join("routes/marked.yaml"), ROUTES).expect("a file");

    let outcome = |body: &str| {
        let diagnostics = serde_json::to_string(body).expect("a string");
        format!(r#"{{"resourceType":"OperationOutcome","issue":[{{"severity":"error","code":"invalid","diagnostics":{diagnostics}}}]}}"#)
    };
    let echo = server(move |body| http(&format!("422 {}", one_line(body)), &format!("X-Echo: {}\r\n", one_line(body)), &outcome(body)));
    let garbage = server(|body| http("200 OK", "Content-Type: text/html\r\n", &format!("<html>{body}</html>")));
    let moved = server(|body| {
        let to = MARKS.iter().find(|m| body.contains(**m) && m.is_ascii()).unwrap_or(&"nowhere");
        http("307 Temporary Redirect", &format!("Location: http://127.0.0.1:1/{to}\r\n"), "")
    });
    let dropped = server(|_| Vec::new());
    let plain = server(|body| body.as_bytes().to_vec());
    let site = format!(
        "console: {{ listen: 127.0.0.1:0 }}\nlog: {{ level: trace }}\n\
         listeners:\n  adt: {{ mllp: 127.0.0.1:0, limits: {{ frame: 8KiB, frame-time: 1s }} }}\n  strict: {{ mllp: 127.0.0.1:0, unrouted: reject }}\n\
         targets:\n  main: {{ 'null': true }}\n  disk: {{ folder: out }}\n  lines: {{ folder: lines, layout: ndjson }}\n  echo: {{ fhir: 'http://{echo}/r4' }}\n  garbage: {{ fhir: 'http://{garbage}/r4' }}\n  \
         moved: {{ fhir: 'http://{moved}/r4' }}\n  dropped: {{ fhir: 'http://{dropped}/r4' }}\n  refused: {{ fhir: 'http://127.0.0.1:1/r4' }}\n  plain: {{ fhir: 'https://{plain}/r4' }}\n"
    );
    std::fs::write(folder.path().join("kiln.yaml"), site).expect("a file");
    let mut command = kiln(folder.path());
    command.arg("serve").env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full").env("TMPDIR", &temporary);
    let daemon = Daemon::start_with(&mut command);
    let (adt, strict, console) = (daemon.address("adt on "), daemon.address("strict on "), daemon.address("console http://"));
    let mut answers = String::new();

    // Good for the folder; refused in several ways by the servers.
    answers += &exchange(adt, message("C1", "ADT^A01^ADT_A01").as_bytes());
    assert!(answers.contains("MSA|AA|C1"), "{answers}");
    // The same again, and the same control ID with other content.
    answers += &exchange(adt, message("C1", "ADT^A01^ADT_A01").as_bytes());
    answers += &exchange(adt, message("C1", "ADT^A01^ADT_A01").replace("19031107", "19031108").as_bytes());
    // A route that cannot do what it must.
    answers += &exchange(adt, message("C2", "ADT^A08^ADT_A01").as_bytes());
    // Types that nobody knows, made of a mark.
    answers += &exchange(adt, message("C3", "QX77041993^ZQNOTE").as_bytes());
    answers += &exchange(strict, message("C4", "QX77041993^ZQNOTE").as_bytes());
    answers += &exchange(strict, message("C5", "ZZZ^Z99").as_bytes());
    // Times and codes that are no times and codes.
    answers += &exchange(adt, message("C6", "ADT^A01^ADT_A01").replace("19031107|F", "QX77041993|Xenophileta").as_bytes());
    // Not readable: no MSH, a broken one, a character set that it is not in, UTF-16.
    answers += &exchange(adt, &message("C7", "ADT^A01").as_bytes()[3..]);
    answers += &exchange(adt, b"MSH|QX77041993");
    answers += &exchange(adt, message("C8", "ADT^A01").replace("MSH|^~\\&", "MSH|||||").as_bytes());
    answers += &exchange(adt, &[&b"MSH|^~\\&|A|B|C|D|||ADT^A01|C9|P|2.5.1|||||||UNICODE UTF-8\rPID|1||QX77041993||Vondr"[..], &[0xe1, 0xff], b"k\r"].concat());
    answers += &exchange(adt, &message("C10", "ADT^A01").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    answers += &exchange(adt, message("C11", "ADT^A01").replace("UNICODE UTF-8", "QX77041993").as_bytes());
    answers += &exchange(adt, b"");
    // Too large, cut off, too slow, outside of any frame.
    answers += &exchange(adt, format!("{}NTE|1||{}\r", message("C12", "ADT^A01"), "ZQNOTE ".repeat(4000)).as_bytes());
    for (bytes, close) in
        [(format!("\u{b}{}", message("C13", "ADT^A01")), true), (format!("\u{b}{}", message("C14", "ADT^A01")), false), (message("C15", "ADT^A01"), true)]
    {
        let mut stream = TcpStream::connect(adt).expect("it listens");
        stream.write_all(bytes.as_bytes()).expect("a reader");
        if !close {
            stream.set_read_timeout(Some(cli_support::PATIENCE)).expect("a socket");
            let _ = stream.read(&mut [0; 16]);
        }
    }

    wait_for("the dead letters", || run(folder.path(), &["journal", "search", "--state", "dead-letter", "--target", "echo"]).code == 0);
    wait_for("the stop", || run(folder.path(), &["journal", "search", "--state", "dead-letter", "--target", "disk"]).code == 0);
    wait_for("the retries", || get(console, "/metrics").1.lines().filter(|l| l.starts_with("kiln_deliveries_total") && !l.contains("delivered")).count() >= 5);
    wait_for("the folders", || folder.path().join("out/Patient").exists() && folder.path().join("lines/Patient.ndjson").exists());

    // A bad edit, told in the log and on a page.
    std::fs::write(folder.path().join("routes/marked.yaml"), ROUTES.replace("PID-4", "PID-444")).expect("a file");
    wait_for("the refusal", || get(console, "/readyz").1.contains("marked.yaml"));

    for page in ["/metrics", "/healthz", "/readyz", "/api/stats", "/", "/QX77041993"] {
        expect_no_mark(page, &get(console, page).1);
    }
    expect_no_mark("an acknowledgement", &answers.replace("ZQNOTE^", ""));
    for args in [&["journal", "stats"][..], &["journal", "stats", "--json"], &["journal", "verify"]] {
        let ran = run(folder.path(), args);
        // A message type is part of MSH, and this one was made of marks.
        expect_no_mark(&args.join(" "), &(ran.out + &ran.err).replace("QX77041993^ZQNOTE", ""));
    }
    let mut names = String::new();
    names_below(folder.path(), &mut names);
    expect_no_mark("a file's name", &names);
    for entry in std::fs::read_dir(&temporary).expect("a folder") {
        let path = entry.expect("an entry").path();
        expect_no_mark("the temporary folder", &String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()));
    }
    daemon.signal("TERM");
    wait_for("the end", || daemon.err().contains("stop"));
    expect_no_mark("standard output", &daemon.out());
    expect_no_mark("standard error", &daemon.err());
    assert!(daemon.err().contains("TRACE") || daemon.err().contains("DEBUG"), "it ran at trace level:\n{}", daemon.err());
}

/// Lines of libraries below WARN that a daemon wrote at trace level while it delivered something over HTTP.
fn lines_of_libraries(more: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server(|_| http("503 Service Unavailable", "", ""));
    let site = format!(
        "console: {{ listen: 127.0.0.1:0 }}\nlog: {{ level: trace, json: true }}\nlisteners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\n\
         targets: {{ main: {{ fhir: 'http://{server}/r4' }} }}\n"
    );
    std::fs::write(folder.path().join("kiln.yaml"), site).expect("a file");
    let daemon = Daemon::start_with(kiln(folder.path()).arg("serve").env("RUST_LOG", "trace").envs(more.iter().copied()));
    assert!(exchange(daemon.address("adt on "), message("C1", "ADT^A01^ADT_A01").as_bytes()).contains("MSA|AA|C1"));
    wait_for("an attempt", || daemon.err().contains("an attempt did not succeed"));
    let lines: Vec<serde_json::Value> = daemon.err().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(lines.iter().any(|line| line["target"].as_str().is_some_and(|t| t.starts_with("kiln")) && line["level"] == "DEBUG"), "it ran at trace level");
    let others = lines.iter().filter(|line| !line["target"].as_str().unwrap_or("kiln").starts_with("kiln"));
    others.filter(|line| !matches!(line["level"].as_str(), Some("WARN" | "ERROR"))).map(ToString::to_string).collect()
}

#[test]
fn libraries_say_nothing_below_a_warning_unless_the_cap_is_lifted() {
    assert_eq!(lines_of_libraries(&[]), [] as [String; 0]);
    // They would have had something to say.
    assert_ne!(lines_of_libraries(&[("KILN__LOG__UNSAFE", "true")]), [] as [String; 0]);
}

#[test]
fn the_marks_are_found_in_every_disguise() {
    let seen = |text: &str| std::panic::catch_unwind(|| expect_no_mark("here", text)).is_err();
    for text in ["x Vondrákóva", "VONDRÁKÓVA", "Vondr%C3%A1k%C3%B3va", "Vondr%e1k%f3va", "5158373730343139 3933".replace(' ', "").as_str(), "QX7704\u{31}993"]
    {
        assert!(seen(text), "{text}");
    }
    for prefix in ["", "a", "ab", "abc"] {
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{prefix}QX77041993 and more"));
        assert!(seen(&text), "{text}");
    }
    assert!(!seen("nothing of the kind"));
}

//! Receivers of MLLP that others wrote take from `kiln serve` what it forwards (tests/peers): with and without TLS, and behind a proxy that splits,
//! delays, resets, loses and repeats. No message is lost or out of order, and what comes twice is the documented resend: the same bytes, at once.
//!
//! Their packages are installed with `npm ci`, a venv and Maven in tests/peers (.ci/run does all); `KILN_E2E=1` makes their absence a failure.
#![allow(clippy::print_stderr, reason = "what a reader of the test log wants to know")]
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

mod cli_support;
mod security_support;
mod v2_support;

use cli_support::{Daemon, run};
use security_support::{Authority, file};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use v2_support::proxy::{Faults, Proxy};
use v2_support::sender::{holds, through};

/// A server of tests/peers; it ends with its test.
struct Server {
    child: Child,
    address: SocketAddr,
    /// The control IDs that it was given, in order.
    received: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `None` where it is not installed, with the reason on standard error.
    fn start(name: &str, certificate: &[PathBuf]) -> Option<Self> {
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let (program, needs) = match name {
            "asyncio" | "hl7apy" => (peers.join("venv/bin/python"), peers.join("venv/bin/python")),
            "hapi" => (PathBuf::from("java"), peers.join("hapi/classpath")),
            _ => (PathBuf::from("node"), peers.join("node_modules/node-hl7-server")),
        };
        if !needs.exists() {
            let reason = format!("{} is missing: `npm ci`, a venv with requirements.txt and Maven in tests/peers, or .ci/run", needs.display());
            assert!(!std::env::var("KILN_E2E").is_ok_and(|set| !matches!(set.as_str(), "" | "0")), "{reason}");
            eprintln!("skipped: {reason}");
            return None;
        }
        let mut command = Command::new(program);
        match name {
            "asyncio" | "hl7apy" => command.args(["receive.py", name]).args(certificate),
            "hapi" => {
                let classpath = std::fs::read_to_string(needs).expect("a text");
                command.args(["-cp", classpath.trim(), "hapi/Peer.java", "receive"]).args(keystore(certificate))
            }
            _ => command.args(["receive.mjs", name]).args(certificate),
        };
        command.current_dir(peers).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it is installed");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("it says its port");
        let port: u16 = line.trim().strip_prefix("port ").and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{name}: {line}"));
        let received: Arc<Mutex<Vec<String>>> = Arc::default();
        let into = Arc::clone(&received);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                into.lock().expect("no panic").push(line.trim().to_owned());
            }
        });
        Some(Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)), received })
    }

    fn received(&self) -> Vec<String> {
        self.received.lock().expect("no panic").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Certificate and key as Java wants them, with the password.
fn keystore(certificate: &[PathBuf]) -> Vec<String> {
    let [pem, key] = certificate else { return Vec::new() };
    let store = pem.with_extension("p12").display().to_string();
    let made = Command::new("openssl").args(["pkcs12", "-export", "-passout", "pass:geheim", "-out", &store, "-in"]).arg(pem).arg("-inkey").arg(key).status();
    assert!(made.expect("openssl is there").success());
    vec![store, "geheim".to_owned()]
}

/// A daemon that forwards everything to this address.
fn forwarding(folder: &Path, target: &str) -> Daemon {
    let site = format!(
        "journal: {{ low-water: 1MiB }}\nconsole: {{ listen: 127.0.0.1:0 }}\nlisteners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\n\
         targets: {{ main: {{ folder: out }}, ward: {{ {target} }} }}\n"
    );
    std::fs::write(folder.join("kiln.yaml"), site).expect("a file");
    std::fs::create_dir_all(folder.join("routes")).expect("a folder");
    std::fs::write(folder.join("routes/ward.yaml"), "route: to-ward\non: [ADT^A08]\nto: ward\nmessage: as-received\n").expect("a file");
    Daemon::start(folder)
}

/// Waits for so many deliveries; retries back off, so that bad weather takes its time.
#[track_caller]
fn until_delivered(folder: &Path, count: u64) {
    let give_up = Instant::now() + Duration::from_secs(180);
    while delivered(folder) < count {
        assert!(Instant::now() < give_up, "waited too long for {count} deliveries; there are {}", delivered(folder));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn delivered(folder: &Path) -> u64 {
    let stats: serde_json::Value = serde_json::from_str(&run(folder, &["journal", "stats", "--json"]).expect(0).out).expect("JSON");
    stats["targets"].as_array().into_iter().flatten().filter(|t| t["target"] == "ward").filter_map(|t| t["delivered"].as_u64()).sum()
}

/// What a receiver was given.
fn given(name: &str, server: &Server) -> Vec<String> {
    let mut all = server.received();
    if name == "node-hl7-server" {
        // It hands message k of a connection over k times, later ones in between: the first of each counts.
        let mut seen = std::collections::HashSet::new();
        all.retain(|id| seen.insert(id.clone()));
    }
    all
}

fn takes(name: &str, tls: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, target) = if tls {
        let authority = Authority::new();
        let server = authority.server("localhost", 4000);
        file(folder.path(), "ca.pem", &authority.pem());
        let pair = vec![file(folder.path(), "server.pem", &server.certificate), file(folder.path(), "server-key.pem", &server.key)];
        (pair, "tls: { ca: ca.pem, name: localhost }")
    } else {
        (Vec::new(), "timeout: 20s")
    };
    let Some(server) = Server::start(name, &certificate) else { return };
    let daemon = forwarding(folder.path(), &format!("mllp: \"{}\", parallel: 2, {target}", server.address));
    through(daemon.address("adt on "), 3, 5);
    until_delivered(folder.path(), 15);
    holds(name, &given(name, &server), 3, 5);
    if name != "node-hl7-server" {
        // Without faults nothing comes twice, but where the close of hl7apy's server has met the next message.
        assert!(server.received().len() == 15 || name == "hl7apy", "{name}: {:?}", server.received());
    }
    assert_eq!(daemon.stop(), 0);
}

fn takes_in_any_weather(name: &str, seed: u64) {
    let Some(server) = Server::start(name, &[]) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let out = runtime.block_on(Proxy::before(server.address, Faults::ALL, seed));
    let daemon = forwarding(folder.path(), &format!("mllp: \"{}\", parallel: 3, timeout: 2s", out.address));
    let into = runtime.block_on(Proxy::before(daemon.address("adt on "), Faults::ALL, seed + 1));
    through(into.address, 4, 12);
    // What waits for its next attempt is not to meet new faults for ever.
    until_delivered(folder.path(), 36);
    out.calm();
    until_delivered(folder.path(), 48);
    holds(name, &given(name, &server), 4, 12);
    assert!(out.done() > 20 && into.done() > 20, "the weather was fine: {} {}", out.done(), into.done());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn medplum() {
    takes("medplum", false);
}

#[test]
fn medplum_over_tls() {
    takes("medplum", true);
}

#[test]
fn medplum_in_any_weather() {
    takes_in_any_weather("medplum", 11);
}

#[test]
fn node_hl7_server_that_says_the_first_acknowledgement_again() {
    takes("node-hl7-server", false);
}

#[test]
fn node_hl7_server_over_tls() {
    takes("node-hl7-server", true);
}

#[test]
fn hl7v2_net() {
    takes("hl7v2-net", false);
}

#[test]
fn hl7v2_net_in_any_weather() {
    takes_in_any_weather("hl7v2-net", 12);
}

#[test]
fn simple_hl7() {
    takes("simple-hl7", false);
}

#[test]
fn simple_hl7_in_any_weather() {
    takes_in_any_weather("simple-hl7", 13);
}

#[test]
fn python_hl7_asyncio() {
    takes("asyncio", false);
}

#[test]
fn python_hl7_asyncio_over_tls() {
    takes("asyncio", true);
}

#[test]
fn python_hl7_asyncio_in_any_weather() {
    takes_in_any_weather("asyncio", 14);
}

#[test]
fn hl7apy_that_closes_after_each_answer() {
    takes("hl7apy", false);
}

#[test]
fn hl7apy_in_any_weather() {
    takes_in_any_weather("hl7apy", 15);
}

#[test]
fn hapi() {
    takes("hapi", false);
}

#[test]
fn hapi_over_tls() {
    takes("hapi", true);
}

#[test]
fn hapi_in_any_weather() {
    takes_in_any_weather("hapi", 16);
}

//! Messages a second to a FHIR server, beside what the server itself does when a plain load tool sends it the very same requests.
//!
//!     cargo bench --profile release --bench ceiling -- [medplum|hapi] [MESSAGES] [PARALLEL] [ROUNDS]
//!
//! A proxy records what Kiln sends for so many admissions. Then, in turn: Kiln delivers as many others by itself, and the load tool sends the recorded
//! requests, with other patients in them, at the same concurrency. Tests/servers must be built; KILN_E2E=1 starts HAPI.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a bench prints its figures; its tasks end with it")]

#[path = "../tests/cli_support/mod.rs"]
mod cli_support;
#[path = "../tests/servers_support/mod.rs"]
mod servers_support;

use cli_support::Daemon;
use servers_support::proxy::{Proxy, Sent};
use servers_support::{Kind, Server};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Connections over which messages are sent to Kiln.
const SENDERS: usize = 8;

/// An admission; `run` is a letter that makes its patients other ones.
fn admission(run: char, n: usize) -> String {
    format!(
        "MSH|^~\\&|ADT1|HOSP|KILN|HOSP|20260301120000||ADT^A01^ADT_A01|{run}{n}|P|2.5.1\rEVN|A01|20260301120000\r\
         PID|1||P{run}{n:07}^^^HOSP^MR||Meier^Eva||19700102|F|||Lindenweg 4^^Hamburg^^20095^DE||^PRN^PH^^^040^5551234\r\
         PV1|1|I|W1^101^1^HOSP||||D1^Arnold^Ida^^^^^^HOSP||||||||||||V{run}{n:07}^^^HOSP\r"
    )
}

/// Has Kiln deliver so many admissions; messages a second, and processor seconds of Kiln.
fn deliver(base: &str, run: char, messages: usize, parallel: usize) -> (f64, f64) {
    let folder = tempfile::tempdir().expect("a folder");
    let site = format!(
        "language: 1\njournal: {{ path: journal, low-water: 1MiB }}\nconsole: {{ listen: \"127.0.0.1:0\" }}\nlisteners: {{ adt: {{ mllp: \"127.0.0.1:0\" }} }}\n\
         targets: {{ main: {{ fhir: \"{base}\", parallel: {parallel} }} }}\n"
    );
    std::fs::write(Path::new(folder.path()).join("kiln.yaml"), site).expect("written");
    let daemon = Daemon::start(folder.path());
    let (to, console) = (daemon.address("adt on "), daemon.address("console http://"));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(to).expect("it listens");
                let mut answer = [0; 4096];
                for n in (sender..messages).step_by(SENDERS) {
                    stream.write_all(&[b"\x0b", admission(run, n).as_bytes(), b"\x1c\r"].concat()).expect("it takes it");
                    assert!(stream.read(&mut answer).is_ok_and(|n| n > 0), "an answer");
                }
            });
        }
    });
    let delivered = || {
        let (_, text) = cli_support::get(console, "/metrics");
        text.lines().find_map(|l| l.strip_prefix("kiln_deliveries_total{target=\"main\",outcome=\"delivered\"} ")?.trim().parse::<usize>().ok()).unwrap_or(0)
    };
    while delivered() < messages {
        std::thread::sleep(Duration::from_millis(20));
        assert!(began.elapsed() < Duration::from_secs(600), "only {} of {messages} were delivered\n{}", delivered(), daemon.err());
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = daemon.processor_seconds();
    daemon.stop();
    (messages as f64 / seconds, cpu)
}

/// Sends the recorded requests of run `A` as those of another run; seconds.
async fn replay(base: &str, sent: &[Sent], run: char, parallel: usize) -> f64 {
    let requests: Vec<Sent> = sent
        .iter()
        .map(|s| {
            let body = String::from_utf8_lossy(&s.body).replace("PA0", &format!("P{run}0")).replace("VA0", &format!("V{run}0"));
            Sent { body: body.into_bytes().into(), ..s.clone() }
        })
        .collect();
    let (requests, next, base) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)), base.to_owned());
    let client = reqwest::Client::new();
    let began = Instant::now();
    let tasks: Vec<_> = (0..parallel)
        .map(|_| {
            let (requests, next, base, client) = (Arc::clone(&requests), Arc::clone(&next), base.clone(), client.clone());
            tokio::spawn(async move {
                while let Some(sent) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let method = reqwest::Method::from_bytes(sent.method.as_bytes()).expect("a method");
                    let request = client.request(method, format!("{base}{}", sent.path)).headers(sent.headers.clone()).body(sent.body.clone());
                    let answer = request.send().await.expect("an answer");
                    let status = answer.status();
                    let text = answer.text().await.expect("a body");
                    assert!(status.is_success(), "{status}: {text}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no request fails");
    }
    began.elapsed().as_secs_f64()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let number = |n: usize, default: usize| words.get(n).map_or(default, |w| w.parse().expect("a number"));
    let kind = if words.first().is_some_and(|w| w == "hapi") { Kind::Hapi } else { Kind::Medplum };
    let (messages, parallel, rounds) = (number(1, 2_000), number(2, 8), number(3, 3));
    let server = Server::start(kind).await.expect("the server is installed; HAPI wants KILN_E2E=1");
    let proxy = Proxy::before(&server.base).await;
    deliver(&proxy.base, 'A', messages, parallel);
    let sent: Vec<Sent> = proxy.sent().into_iter().filter(|s| s.method != "GET").collect();
    println!("{kind:?}: {messages} admissions are {} requests; {parallel} at once; load {}", sent.len(), load());
    let mut all = Vec::new();
    for round in 0..rounds {
        let letter = |n: usize| char::from(b'B' + u8::try_from(round * 2 + n).expect("few rounds"));
        let (kiln, cpu) = deliver(&server.base, letter(0), messages, parallel);
        let ceiling = messages as f64 / replay(&server.base, &sent, letter(1), parallel).await;
        all.push(kiln / ceiling);
        println!(
            "round {round}: Kiln {kiln:.0} messages/s ({:.2} ms of processor a message), the server alone {ceiling:.0}, {:.0} %; load {}",
            cpu * 1e3 / messages as f64,
            100.0 * kiln / ceiling,
            load()
        );
    }
    all.sort_by(f64::total_cmp);
    println!("median {:.0} %", 100.0 * all.get(all.len() / 2).copied().unwrap_or_default());
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').take(1).collect()
}

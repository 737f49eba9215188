//! Two saves of one identity are never under way together: not of one patient by two routes or two messages, not of the Practitioners, Locations and
//! Organizations that patients share; while what shares nothing is under way together.
//!
//! A proxy sees what is under way. On both servers of the tests; on HAPI parallel conditional creates by several routes of one daemon would
//! otherwise make duplicates or answer 409. Shown once: with `IdentityGuard::hold` and the locks of the target taken out, both runs fail with
//! overlaps (Patient, Practitioner, Location and Organization).
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

mod cli_support;
mod servers_support;

use cli_support::{Daemon, wait_for};
use serde_json::Value;
use servers_support::Server;
use servers_support::proxy::Proxy;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Patients; each has three messages.
const PATIENTS: usize = 40;
/// So many patients, one after the other, share a doctor, a bed and a practice.
const TOGETHER: usize = 8;

/// A second route that saves the same patient, by the same identity, from the same messages.
const CENSUS: &str = "route: census
on: [ADT^A01, ADT^A08]
to: main
resources:
  patient:
    $map: PID -> Patient
    $save: merge by PID-3 where CX.5 = \"MR\"
";

fn message(event: &str, n: usize, step: usize) -> String {
    let group = n / TOGETHER;
    format!(
        "MSH|^~\\&|ADT1|HOSP|KILN|HOSP|2026030112{step:02}{:02}||ADT^{event}|R{n}-{step}|P|2.5.1\rEVN|{event}|20260301120000\r\
         PID|1||P{n}^^^HOSP^MR||Doe^Ada{step}||19700102|F\rPD1|||Practice {group}^^^^^HOSP^XX^^^PR{group}\r\
         PV1|1|I|W{group}^10{group}^{group}^HOSP||||D{group}^Meier^Eva^^^^^^HOSP||||||||||||V{n}^^^HOSP\r",
        n % 60
    )
}

/// Sends all messages over so many connections, each message once.
fn send(to: SocketAddr, messages: Vec<String>, connections: usize) {
    std::thread::scope(|scope| {
        for lane in 0..connections {
            let mine: Vec<&String> = messages.iter().skip(lane).step_by(connections).collect();
            scope.spawn(move || {
                let mut stream = TcpStream::connect(to).expect("it listens");
                for text in mine {
                    stream.write_all(&[b"\x0b", text.as_bytes(), b"\x1c\r"].concat()).expect("it takes it");
                    let (mut answer, mut byte) = (Vec::new(), [0]);
                    while !answer.ends_with(b"\x1c\r") {
                        stream.read_exact(&mut byte).expect("an answer");
                        answer.push(byte[0]);
                    }
                    assert!(String::from_utf8_lossy(&answer).contains("MSA|AA|"), "{}", String::from_utf8_lossy(&answer));
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_identity_is_under_way_twice() {
    for server in Server::each().await {
        let proxy = Proxy::before(&server.base).await;
        proxy.delay(Duration::from_millis(20));
        let folder = tempfile::tempdir().expect("a folder");
        let site = format!(
            "language: 1\njournal: {{ path: journal, low-water: 1MiB }}\nconsole: {{ listen: \"127.0.0.1:0\" }}\n\
             listeners: {{ adt: {{ mllp: \"127.0.0.1:0\" }} }}\ntargets: {{ main: {{ fhir: \"{}\", parallel: 8 }} }}\n",
            proxy.base
        );
        std::fs::write(folder.path().join("kiln.yaml"), site).expect("written");
        std::fs::create_dir(folder.path().join("routes")).expect("made");
        std::fs::write(folder.path().join("routes/census.yaml"), CENSUS).expect("written");
        let daemon = Daemon::start(folder.path());
        // Each patient's admission, then each patient's two updates: neighbours share what is not theirs alone.
        let mut messages: Vec<String> = (0..PATIENTS).map(|n| message("A01", n, 0)).collect();
        messages.extend((1..3).flat_map(|step| (0..PATIENTS).map(move |n| message("A08", n, step))));
        let deliveries = messages.len() * 2;
        send(daemon.address("adt on "), messages, 8);
        let console = daemon.address("console http://");
        let figure = |name: &str| -> u64 {
            let (_, text) = cli_support::get(console, "/metrics");
            text.lines().filter_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok()).map(|f| f as u64).sum()
        };
        wait_for("everything to be delivered", || {
            assert_eq!(figure("kiln_dead_letters{target=\"main\"} "), 0, "{:?}: {}", server.kind, daemon.err());
            figure("kiln_deliveries_total{target=\"main\",outcome=\"delivered\"} ") == deliveries as u64
        });
        assert_eq!(proxy.overlaps(), [] as [String; 0], "{:?}", server.kind);
        assert!(proxy.most_at_once() >= 4, "{:?}: only {} requests at once show nothing", server.kind, proxy.most_at_once());
        for (resource_type, expected) in
            [("Patient", PATIENTS), ("Encounter", PATIENTS), ("Practitioner", PATIENTS / TOGETHER), ("Organization", PATIENTS / TOGETHER)]
        {
            let mut found: BTreeMap<String, usize> = BTreeMap::new();
            for resource in server.all(resource_type).await {
                *found.entry(named(&resource)).or_default() += 1;
            }
            assert!(found.values().all(|n| *n == 1), "{:?}: {resource_type} made twice: {found:?}", server.kind);
            assert_eq!(found.len(), expected, "{:?}: {resource_type} {found:?}", server.kind);
        }
        let mut places: Vec<String> = server.all("Location").await.iter().map(named).collect();
        let all = places.len();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), all, "{:?}: a Location was made twice", server.kind);
        for patient in server.all("Patient").await {
            assert_eq!(patient["name"][0]["given"][0], Value::from("Ada2"), "{:?}: the last message's state", server.kind);
        }
        assert_eq!(daemon.stop(), 0);
    }
}

fn named(resource: &Value) -> String {
    resource["identifier"].as_array().into_iter().flatten().map(|i| format!("{}|{}", i["system"], i["value"])).collect::<Vec<_>>().join(" ")
}

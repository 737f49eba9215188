//! A FHIR server of the tests' own that can be in several moods, and a site with one route and this server.

use super::{admit, run};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const HEAD: &str = "console: { listen: 127.0.0.1:0 }\njournal: { path: journal, low-water: 1MiB }\n";
pub const ROUTE: &str = "route: odd\non: [ZZZ^Z01, ZZZ^Z02]\nto: main\nresources:\n  who: { $map: PID -> Patient, $save: update by PID-3 }\n";

/// A site with this text after [`HEAD`], and one route file.
pub fn site(text: &str, route: &str) -> tempfile::TempDir {
    bare_site(&format!("{HEAD}{text}"), route)
}

/// A site with this text and one route file.
pub fn bare_site(text: &str, route: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    std::fs::write(folder.path().join("routes/odd.yaml"), route).expect("a file");
    std::fs::write(folder.path().join("kiln.yaml"), text).expect("a file");
    folder
}

pub fn odd(control_id: &str, patient: &str, family: &str) -> String {
    admit(control_id, patient).replace("ADT^A01^ADT_A01", "ZZZ^Z01").replace("Meier", family)
}

pub fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The journal's record of the newest message with this control ID.
pub fn record(folder: &Path, control_id: &str) -> Value {
    let found = run(folder, &["journal", "search", "--control-id", control_id, "--json"]).expect(0).out;
    let number = parse(found.lines().next().expect("it is there"))["id"].to_string();
    parse(run(folder, &["journal", "show", &number, "--json"]).expect(0).out.trim())
}

/// What the server does with a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Saves; 422 to patients of the family REFUSE.
    Well,
    /// 503.
    Busy,
    /// Saves, and closes the connection without an answer.
    Mute,
    /// 422 to everything.
    Against,
}

/// A FHIR server, as much of one as is needed here.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    /// Patients' identifiers that were saved.
    pub saved: Arc<Mutex<Vec<String>>>,
    pub delay: Arc<Mutex<Duration>>,
    asked: Arc<Mutex<usize>>,
}

impl Server {
    pub fn start(mood: Mood) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("an address");
        let server = Self { address, mood: Arc::new(Mutex::new(mood)), saved: Arc::default(), delay: Arc::default(), asked: Arc::default() };
        let serve = server.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let serve = serve.clone();
                std::thread::spawn(move || serve.connection(stream));
            }
        });
        server
    }

    pub fn mood(&self, mood: Mood) {
        *self.mood.lock().expect("no panic") = mood;
    }

    pub fn saved(&self, patient: &str) -> usize {
        self.saved.lock().expect("no panic").iter().filter(|p| *p == patient).count()
    }

    pub fn asked(&self) -> usize {
        *self.asked.lock().expect("no panic")
    }

    pub fn target(&self) -> String {
        format!("fhir: 'http://{}/r4', timeout: 2s, settle: 100ms", self.address)
    }

    fn connection(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
        let mut stream = stream;
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).is_ok_and(|n| n > 0) {
                    continue;
                }
                return;
            }
            let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ").and_then(|n| n.parse().ok())).unwrap_or(0);
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            let Some((status, answer)) = self.answer(&head, &body) else { return };
            let answer = answer.to_string();
            let text = format!("HTTP/1.1 {status}\r\nContent-Type: application/fhir+json\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, head: &str, body: &[u8]) -> Option<(&'static str, Value)> {
        if head.starts_with("GET") && head.contains("/metadata") {
            return Some(("200 OK", json!({ "resourceType": "CapabilityStatement", "status": "active", "fhirVersion": "4.0.1" })));
        }
        let Ok(bundle) = serde_json::from_slice::<Value>(body) else {
            // A search: what was saved may be found, without an id that anything hangs on.
            return Some(("200 OK", json!({ "resourceType": "Bundle", "type": "searchset", "total": 0 })));
        };
        *self.asked.lock().expect("no panic") += 1;
        std::thread::sleep(*self.delay.lock().expect("no panic"));
        let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
        let mood = *self.mood.lock().expect("no panic");
        let refused = bundle.to_string().contains("REFUSE");
        if mood == Mood::Busy {
            return Some(("503 Service Unavailable", json!({ "resourceType": "OperationOutcome" })));
        }
        if mood == Mood::Against || refused {
            let expression = ["Bundle.entry[0].resource.ofType(Patient).name[0].family"];
            let issue = json!([{ "severity": "error", "code": "value", "diagnostics": "REFUSE is no name", "expression": expression }]);
            return Some(("422 Unprocessable Entity", json!({ "resourceType": "OperationOutcome", "issue": issue })));
        }
        let mut saved = self.saved.lock().expect("no panic");
        saved.extend(entries.iter().filter_map(|e| e["resource"]["identifier"][0]["value"].as_str().map(str::to_owned)));
        if mood == Mood::Mute {
            return None;
        }
        let done: Vec<_> =
            (0..entries.len()).map(|n| json!({ "response": { "status": "201 Created", "location": format!("Patient/{n}x/_history/1") } })).collect();
        Some(("200 OK", json!({ "resourceType": "Bundle", "type": "transaction-response", "entry": done })))
    }
}

pub fn one_target(acknowledge: &str, target: &str) -> String {
    format!("listeners: {{ adt: {{ mllp: 127.0.0.1:0, {acknowledge} }} }}\ntargets: {{ main: {{ {target} }} }}\n")
}

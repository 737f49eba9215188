//! A whole engine in a test: a journal in a folder of its own, an MLLP peer, and a FHIR server's stand-in that records what it is asked.
#![allow(dead_code, reason = "each test file uses what it needs")]
#![allow(clippy::disallowed_methods, reason = "the stand-in lives as long as its test")]

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use kiln::diagnostic::Sources;
use kiln::engine::{Engine, EngineConfig, ListenerSetup, Routes, Shutdown, TargetSetup};
use kiln::exchange::{MessageId, Secret};
use kiln::journal::{Counts, Journal, MessageRecord, Options, Query};
use kiln::listener::{Listener, ListenerConfig};
use kiln::metrics::Metrics;
use kiln::route::LoadOptions;
use kiln::site::ListenerSite;
use kiln::target::{FhirConfig, Target, TargetConfig};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest that any step of a test may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A route with one resource and the few maps that it needs, so that the engine's tests depend on no shipped map.
pub(crate) fn routes_text(extra: &str) -> String {
    format!(
        r#"map: CX -> Identifier
system: "urn:example:hospital"
value: CX.1
---
map: XPN -> HumanName
family: XPN.1.1
given: XPN.2
---
map: PID -> Patient
identifier: PID-3
name: PID-5
---
route: adt
on: [ADT^A01, ADT^A04, ADT^A08]
when: PV1-2 not valued or PV1-2 != "N"
to: main
{extra}resources:
  patient: {{ $map: PID -> Patient, $save: update by PID-3 }}
"#
    )
}

pub(crate) fn load(text: &str) -> Routes {
    let mut sources = Sources::default();
    sources.add("routes/test.yaml", text);
    let options = LoadOptions { listeners: vec!["adt".to_owned()], targets: vec!["main".to_owned()], ..LoadOptions::default() };
    let loaded = kiln::route::load(sources, &options);
    let faults: Vec<_> = loaded.diagnostics.iter().map(|d| format!("{} {}", d.code, d.message)).collect();
    Routes::from_loaded(loaded, options).unwrap_or_else(|| panic!("the test's routes have faults: {faults:#?}"))
}

pub(crate) struct Site {
    pub(crate) folder: Arc<tempfile::TempDir>,
    pub(crate) engine: Engine,
    pub(crate) journal: Journal,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) address: SocketAddr,
    pub(crate) server: StandIn,
}

pub(crate) struct Plan {
    pub(crate) folder: Arc<tempfile::TempDir>,
    pub(crate) routes: String,
    pub(crate) site: ListenerSite,
    pub(crate) parallel: usize,
    pub(crate) window: usize,
    /// How long the journal keeps what is settled, and how often that is looked at.
    pub(crate) keep: Duration,
    pub(crate) prune_every: Duration,
    /// Free bytes below which the journal takes nothing.
    pub(crate) low_water: u64,
    pub(crate) server: Option<StandIn>,
    pub(crate) target: Option<Target>,
}

impl Plan {
    pub(crate) fn new() -> Self {
        let socket = ListenerConfig::new("adt", "127.0.0.1:0".parse().expect("it is an address"));
        Self {
            folder: Arc::new(tempfile::tempdir().expect("there is a temporary folder")),
            routes: routes_text(""),
            site: ListenerSite { authority: Some("HOSP".to_owned()), ..ListenerSite::new(socket) },
            parallel: 8,
            window: 10_000,
            keep: Duration::from_secs(24 * 3_600),
            prune_every: EngineConfig::default().prune_every,
            low_water: 0,
            server: None,
            target: None,
        }
    }

    pub(crate) async fn start(self) -> Site {
        let server = match self.server {
            Some(server) => server,
            None => StandIn::start().await,
        };
        let mut options = Options::at(self.folder.path().join("journal"));
        options.low_water = Some(self.low_water);
        options.keep = self.keep;
        let journal = Journal::open(options).expect("the journal opens");
        let metrics = Arc::new(Metrics::new());
        let listener = Listener::bind(self.site.socket.clone(), Arc::clone(&metrics)).expect("a free port can be bound");
        let target = self.target.unwrap_or_else(|| server.target());
        let target = TargetSetup {
            name: "main".into(),
            target: Arc::new(target),
            parallel: self.parallel,
            settle: Duration::from_millis(50),
            send: None,
            replies: None,
        };
        let config = EngineConfig { window: self.window, prune_every: self.prune_every, ..EngineConfig::default() };
        let listeners = vec![ListenerSetup { listener, site: self.site }];
        let engine = Engine::start(config, journal.clone(), vec![target], listeners, load(&self.routes), Arc::clone(&metrics)).await;
        let engine = engine.expect("the engine starts");
        let address = engine.addresses().first().expect("there is one listener").1;
        Site { folder: self.folder, engine, journal, metrics, address, server }
    }
}

impl Site {
    pub(crate) async fn connect(&self) -> Peer {
        Peer(TcpStream::connect(self.address).await.expect("the listener accepts"))
    }

    pub(crate) async fn stop(self) -> (Shutdown, Arc<tempfile::TempDir>, StandIn) {
        let stopped = self.engine.shutdown(Duration::from_secs(20)).await;
        (stopped, self.folder, self.server)
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(DEADLINE, wait).await.is_err() {
            let metrics: Vec<_> = self.metrics.encode().lines().filter(|l| !l.starts_with('#') && !l.contains("_bucket")).map(str::to_owned).collect();
            panic!("never: {what}\n{:?}\n{metrics:#?}", self.counts());
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.journal.counts("main")
    }

    pub(crate) async fn until_delivered(&self, count: u64) {
        self.until(&format!("{count} delivered"), |s| s.counts().delivered >= count && s.counts().backlog == 0).await;
    }

    pub(crate) fn counted(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|l| l == line)
    }

    /// All messages, oldest first.
    pub(crate) async fn stored(&self) -> Vec<MessageRecord> {
        let found = self.journal.search(Query { limit: 100_000, ..Query::default() }).await.expect("the journal can be searched");
        let mut records = Vec::new();
        let mut ids: Vec<MessageId> = found.iter().map(|f| f.id).collect();
        ids.sort();
        for id in ids {
            records.push(self.journal.show(id).await.expect("what was found is there"));
        }
        records
    }
}

/// An ADT with a control ID, a patient and a family name.
pub(crate) fn adt(control_id: &str, patient: &str, family: &str) -> String {
    format!(
        "MSH|^~\\&|ADT1|HOSP|KILN|HERE|20260309142501||ADT^A08^ADT_A01|{control_id}|P|2.5.1\rEVN|A08|20260309142501\rPID|1||{patient}^^^HOSP^MR||{family}^JOHN||19700101|M\r"
    )
}

pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    pub(crate) async fn send(&mut self, payload: &[u8]) {
        let frame = [b"\x0B", payload, b"\x1C\r"].concat();
        self.0.write_all(&frame).await.expect("the socket takes bytes");
    }

    /// The next acknowledgement; `None` when the connection is closed.
    pub(crate) async fn receive(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        let read = async {
            loop {
                match self.0.read_u8().await {
                    Ok(b'\r') if bytes.ends_with(b"\x1C") => break,
                    Ok(byte) => bytes.push(byte),
                    Err(_) => return false,
                }
            }
            true
        };
        let whole = timeout(DEADLINE, read).await.expect("an answer comes in time");
        whole.then(|| {
            let text = bytes.strip_prefix(b"\x0B").and_then(|b| b.strip_suffix(b"\x1C")).expect("the answer is a frame");
            String::from_utf8(text.to_vec()).expect("the answer is UTF-8")
        })
    }

    pub(crate) async fn ask(&mut self, payload: impl AsRef<[u8]>) -> String {
        self.send(payload.as_ref()).await;
        self.receive().await.expect("the connection is open")
    }

    /// Sends a message and wants an AA for it.
    pub(crate) async fn accepted(&mut self, message: &str) {
        let control_id = message.split('|').nth(9).unwrap_or_default();
        let ack = self.ask(message).await;
        assert!(ack.contains(&format!("\rMSA|AA|{control_id}")), "{}", ack.escape_debug());
    }
}

impl Peer {
    /// Sends many without waiting for each answer; returns when all are accepted.
    pub(crate) async fn all_accepted(&mut self, messages: &[String]) {
        let frames: Vec<u8> = messages.iter().flat_map(|m| [b"\x0B", m.as_bytes(), b"\x1C\r"].concat()).collect();
        let (mut reading, mut writing) = self.0.split();
        let write = async { writing.write_all(&frames).await.expect("the listener reads on") };
        let read = async {
            let (mut answers, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
            let mut accepted = 0;
            while accepted < messages.len() {
                let n = timeout(DEADLINE, reading.read(&mut chunk)).await.expect("an answer comes in time").expect("the connection is open");
                assert_ne!(n, 0, "the connection is open");
                answers.extend_from_slice(&chunk[..n]);
                while let Some(end) = answers.iter().position(|byte| *byte == 0x1C) {
                    let answer = String::from_utf8_lossy(&answers[..end]).into_owned();
                    assert!(answer.contains("\rMSA|AA|"), "{}", answer.escape_debug());
                    answers.drain(..=end);
                    accepted += 1;
                }
            }
        };
        tokio::join!(write, read);
    }
}

/// How the stand-in behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    /// Does what it is asked.
    #[default]
    Well,
    /// 503 to everything.
    Down,
    /// 422 to patients of the family REFUSE.
    Picky,
    /// 422 to everything that writes.
    Against,
    /// Does what it is asked and closes the connection without an answer, once.
    Mute,
    /// 429 to everything, and asks to be left alone for two seconds.
    Busy,
}

#[derive(Default)]
struct Kept {
    mood: Mood,
    /// Identifier value, id, version, body; in the order of creation.
    resources: Vec<(String, String, u64, Value)>,
    /// Identifier value and family name of each save, in the order of arrival.
    log: Vec<(String, String)>,
    /// Identities that are being saved.
    open: HashSet<String>,
    overlaps: usize,
    /// Requests that write and are open, and the most there ever were.
    open_requests: usize,
    most_at_once: usize,
    /// When each request came.
    requests: Vec<Instant>,
}

/// A FHIR server, as much of one as the engine's tests need.
#[derive(Clone)]
pub(crate) struct StandIn {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    delay: Arc<Mutex<Duration>>,
}

impl StandIn {
    pub(crate) async fn start() -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port can be bound");
        let address = socket.local_addr().expect("a bound socket has an address");
        let stand_in = Self { address, kept: Arc::default(), delay: Arc::default() };
        let app = axum::Router::new().fallback(handle).with_state(stand_in.clone());
        tokio::spawn(async move { axum::serve(socket, app).await });
        stand_in
    }

    pub(crate) fn target(&self) -> Target {
        let config = FhirConfig { timeout: Duration::from_secs(5), ..FhirConfig::new(format!("http://{}/fhir", self.address), Secret::new([7; 32])) };
        Target::open(TargetConfig::Fhir(config)).expect("the target opens")
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.kept().mood = mood;
    }

    pub(crate) fn delay(&self, delay: Duration) {
        *self.delay.lock().expect("no test panicked in here") = delay;
    }

    /// Family names in the order in which they were saved for this identifier.
    pub(crate) fn saved(&self, identifier: &str) -> Vec<String> {
        self.kept().log.iter().filter(|(i, _)| i == identifier).map(|(_, family)| family.clone()).collect()
    }

    pub(crate) fn log_len(&self) -> usize {
        self.kept().log.len()
    }

    pub(crate) fn requests(&self) -> usize {
        self.kept().requests.len()
    }

    /// The time between each request and the next.
    pub(crate) fn pauses(&self) -> Vec<Duration> {
        self.kept().requests.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// The most requests that wrote at one time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.kept().most_at_once
    }

    /// The numbers of the family names (`N7`) in the order in which they were saved.
    pub(crate) fn arrived(&self) -> Vec<usize> {
        self.kept().log.iter().filter_map(|(_, family)| family.strip_prefix('N')?.parse().ok()).collect()
    }

    pub(crate) fn overlaps(&self) -> usize {
        self.kept().overlaps
    }

    /// How many resources have this identifier.
    pub(crate) fn resources(&self, identifier: &str) -> usize {
        self.kept().resources.iter().filter(|(i, ..)| i == identifier).count()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no test panicked in here")
    }
}

fn identifier_of(resource: &Value) -> String {
    resource["identifier"][0]["value"].as_str().unwrap_or_default().to_owned()
}

fn answer(status: StatusCode, body: &Value) -> Response {
    (status, [("content-type", "application/fhir+json")], body.to_string()).into_response()
}

fn outcome(status: StatusCode) -> Response {
    answer(status, &json!({ "resourceType": "OperationOutcome", "issue": [{ "severity": "error", "code": "processing" }] }))
}

async fn handle(State(server): State<StandIn>, method: Method, uri: Uri, body: Bytes) -> Response {
    let mood = {
        let mut kept = server.kept();
        kept.requests.push(Instant::now());
        kept.mood
    };
    if mood == Mood::Down {
        return outcome(StatusCode::SERVICE_UNAVAILABLE);
    }
    if mood == Mood::Busy {
        return ([("retry-after", "2")], outcome(StatusCode::TOO_MANY_REQUESTS)).into_response();
    }
    let path = uri.path().trim_start_matches("/fhir").trim_matches('/').to_owned();
    if path == "metadata" {
        return answer(StatusCode::OK, &json!({ "resourceType": "CapabilityStatement", "status": "active", "fhirVersion": "4.0.1", "format": ["json"] }));
    }
    let query = if method == Method::GET { uri.query().unwrap_or_default().to_owned() } else { String::from_utf8_lossy(&body).into_owned() };
    if method == Method::GET || path.ends_with("_search") {
        return read(&server, &path, &query);
    }
    let bundle: Value = serde_json::from_slice(&body).unwrap_or_default();
    let entries = bundle["entry"].as_array().cloned().unwrap_or_default();
    let identities: Vec<String> = entries.iter().map(|e| identifier_of(&e["resource"])).filter(|i| !i.is_empty()).collect();
    {
        let mut kept = server.kept();
        kept.open_requests += 1;
        kept.most_at_once = kept.most_at_once.max(kept.open_requests);
        for identity in &identities {
            if !kept.open.insert(identity.clone()) {
                kept.overlaps += 1;
            }
        }
    }
    let delay = *server.delay.lock().expect("no test panicked in here");
    tokio::time::sleep(delay).await;
    let mut kept = server.kept();
    kept.open_requests -= 1;
    for identity in &identities {
        kept.open.remove(identity);
    }
    let refused = |e: &Value| e["resource"]["name"][0]["family"] == "REFUSE";
    if mood == Mood::Against || (mood == Mood::Picky && entries.iter().any(refused)) {
        return outcome(StatusCode::UNPROCESSABLE_ENTITY);
    }
    let done: Vec<Value> = entries.iter().map(|entry| kept.save(entry)).collect();
    if mood == Mood::Mute {
        kept.mood = Mood::Well;
        drop(kept);
        // Hyper closes the connection of a handler that panics: the client sees no answer.
        std::panic::resume_unwind(Box::new("mute"));
    }
    answer(StatusCode::OK, &json!({ "resourceType": "Bundle", "type": "transaction-response", "entry": done }))
}

impl Kept {
    fn save(&mut self, entry: &Value) -> Value {
        let resource = &entry["resource"];
        let url = entry["request"]["url"].as_str().unwrap_or_default();
        let identifier = identifier_of(resource);
        let id_in_url = url.split_once('?').is_none().then(|| url.split('/').nth(1)).flatten();
        let known = |(kept, id, ..): &(String, String, u64, Value)| id_in_url.map_or(*kept == identifier, |wanted| wanted == id);
        let at = if entry["request"]["method"] == "POST" && entry["request"]["ifNoneExist"].is_null() { None } else { self.resources.iter().position(known) };
        let at = at.unwrap_or_else(|| {
            let id = (self.resources.len() + 1).to_string();
            self.resources.push((identifier.clone(), id, 0, Value::Null));
            self.resources.len() - 1
        });
        let (_, id, version, body) = &mut self.resources[at];
        *version += 1;
        *body = resource.clone();
        let status = if *version == 1 { "201 Created" } else { "200 OK" };
        let response = json!({ "response": {
            "status": status, "location": format!("Patient/{id}/_history/{version}"), "etag": format!("W/\"{version}\""),
        }});
        self.log.push((identifier, resource["name"][0]["family"].as_str().unwrap_or_default().to_owned()));
        response
    }
}

fn read(server: &StandIn, path: &str, query: &str) -> Response {
    let kept = server.kept();
    let with_id = |(_, id, version, body): &(String, String, u64, Value)| {
        let mut body = body.clone();
        body["id"] = json!(id);
        body["meta"] = json!({ "versionId": version.to_string() });
        body
    };
    if let Some(id) = path.split('/').nth(1).filter(|part| *part != "_search") {
        return match kept.resources.iter().find(|(_, kept_id, ..)| kept_id == id) {
            Some(found) => answer(StatusCode::OK, &with_id(found)),
            None => outcome(StatusCode::NOT_FOUND),
        };
    }
    let query = query.replace("%7C", "|").replace("%2C", ",");
    let wanted: Vec<&str> = query.split(['=', ',', '&']).filter_map(|token| token.split_once('|')).map(|(_, value)| value).collect();
    let found: Vec<Value> = kept
        .resources
        .iter()
        .filter(|(identifier, ..)| wanted.contains(&identifier.as_str()))
        .map(|kept| json!({ "resource": with_id(kept), "search": { "mode": "match" } }))
        .collect();
    answer(StatusCode::OK, &json!({ "resourceType": "Bundle", "type": "searchset", "total": found.len(), "entry": found }))
}

/// The folder of a [`Plan`] again, for a second life of the same site.
pub(crate) fn again(folder: &Arc<tempfile::TempDir>, server: &StandIn) -> Plan {
    Plan { folder: Arc::clone(folder), server: Some(server.clone()), ..Plan::new() }
}

/// The JSON files of a folder target.
pub(crate) fn files(folder: &Path) -> Vec<Value> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "json") {
            found.push(serde_json::from_slice(&std::fs::read(&path).expect("the file can be read")).expect("the file is JSON"));
        }
    }
    found
}

//! A FHIR server as far as the tests of dead letters need one: it keeps Patients by identifier, and does with each request what the test says.
#![allow(unreachable_pub, reason = "a module of several tests")]
#![allow(dead_code, reason = "each test file uses a part of it")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request that wants to write.
pub struct Asked {
    /// `POST /r4`.
    pub line: String,
    pub body: Value,
}

/// What becomes of a request that wants to write: `None` lets the server do it, else the status and the body.
type Judge = dyn Fn(&Asked) -> Option<(u16, Value)> + Send + Sync;

/// What becomes of a search: its type and its query; `None` lets the server do it.
type Searched = dyn Fn(&str, &str) -> Option<(u16, Value)> + Send + Sync;

#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    state: Arc<Mutex<Vec<Value>>>,
    judge: Arc<Judge>,
    searched: Arc<Searched>,
    capable: bool,
}

impl Server {
    pub fn start(judge: impl Fn(&Asked) -> Option<(u16, Value)> + Send + Sync + 'static) -> Self {
        Self::with(TcpListener::bind("127.0.0.1:0").expect("a free port"), true, judge)
    }

    /// With searches as the test says.
    pub fn searching(
        judge: impl Fn(&Asked) -> Option<(u16, Value)> + Send + Sync + 'static,
        searched: impl Fn(&str, &str) -> Option<(u16, Value)> + Send + Sync + 'static,
    ) -> Self {
        Self::over(TcpListener::bind("127.0.0.1:0").expect("a free port"), true, Arc::new(judge), Arc::new(searched))
    }

    /// At this socket; `capable`: with a CapabilityStatement.
    pub fn with(socket: TcpListener, capable: bool, judge: impl Fn(&Asked) -> Option<(u16, Value)> + Send + Sync + 'static) -> Self {
        Self::over(socket, capable, Arc::new(judge), Arc::new(|_, _| None))
    }

    fn over(socket: TcpListener, capable: bool, judge: Arc<Judge>, searched: Arc<Searched>) -> Self {
        let address = socket.local_addr().expect("an address");
        let server = Self { address, state: Arc::default(), judge, searched, capable };
        let serve = server.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let serve = serve.clone();
                std::thread::spawn(move || serve.connection(stream));
            }
        });
        server
    }

    /// Every state that was stored, in order: a resource that was written twice is there twice.
    pub fn stored(&self) -> Vec<Value> {
        self.state.lock().expect("no panic").clone()
    }

    /// The family names that were stored, in order.
    pub fn families(&self) -> Vec<String> {
        self.stored().iter().filter_map(|r| r["name"][0]["family"].as_str().map(str::to_owned)).collect()
    }

    /// How many resources have this identifier.
    pub fn resources_of(&self, identifier: &str) -> usize {
        let mut ids: Vec<String> = self.stored().iter().filter(|r| r.to_string().contains(&format!("\"{identifier}\""))).map(|r| r["id"].to_string()).collect();
        ids.sort();
        ids.dedup();
        ids.len()
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
            let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
            let (status, answer) = self.answer(&line, &body);
            let answer = answer.to_string();
            let text = format!("HTTP/1.1 {status} Said\r\nContent-Type: application/fhir+json\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
            if stream.write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, line: &str, body: &[u8]) -> (u16, Value) {
        if line.contains("/metadata") {
            let statement = json!({ "resourceType": "CapabilityStatement", "status": "active", "fhirVersion": "4.0.1" });
            return if self.capable { (200, statement) } else { (404, outcome("not-found", None)) };
        }
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            let id = line.strip_prefix("GET ").filter(|rest| !rest.contains('?')).and_then(|rest| rest.rsplit_once("/Patient/")).map(|(_, id)| id);
            return match id {
                Some(id) => self.stored().into_iter().rev().find(|r| r["id"] == id).map_or((404, outcome("not-found", None)), |r| (200, r)),
                None => {
                    let form = String::from_utf8_lossy(body);
                    let (path, query) = line.split_once('?').unwrap_or((line, &form));
                    let resource_type = path.trim_end_matches("/_search").rsplit('/').next().unwrap_or_default();
                    (self.searched)(resource_type, query).unwrap_or_else(|| (200, self.search(line, &form)))
                }
            };
        };
        // What a write finds is what is there when it comes, as on a server without a constraint of its own.
        let found: Vec<Option<Value>> = entries(&body).iter().map(|entry| self.found(entry)).collect();
        if let Some(said) = (self.judge)(&Asked { line: line.to_owned(), body: body.clone() }) {
            return said;
        }
        let done: Vec<Value> = entries(&body).iter().zip(found).map(|(entry, found)| self.write(entry, found)).collect();
        (200, json!({ "resourceType": "Bundle", "type": "transaction-response", "entry": done }))
    }

    /// What a conditional request is about.
    fn found(&self, entry: &Value) -> Option<Value> {
        let request = &entry["request"];
        let url = request["url"].as_str().unwrap_or_default();
        let criterion = request["ifNoneExist"].as_str().or_else(|| url.split_once('?').map(|(_, query)| query));
        match criterion {
            Some(criterion) => self.matches(criterion).pop(),
            None => url.split_once('/').and_then(|(_, id)| self.stored().into_iter().rev().find(|r| r["id"] == id)),
        }
    }

    fn matches(&self, criterion: &str) -> Vec<Value> {
        let wanted = criterion.replace("%7C", "|").replace("%2C", ",").replace("%3A", ":");
        let wanted: Vec<&str> = wanted.split(['=', ',', '&']).filter_map(|part| part.rsplit_once('|')).map(|(_, value)| value).collect();
        let mut found: Vec<Value> = Vec::new();
        for resource in self.stored().into_iter().rev() {
            let has = resource["identifier"].as_array().is_some_and(|all| all.iter().any(|i| wanted.iter().any(|w| i["value"] == *w)));
            if has && !found.iter().any(|f| f["id"] == resource["id"]) {
                found.push(resource);
            }
        }
        found
    }

    fn search(&self, line: &str, form: &str) -> Value {
        let criterion = if form.is_empty() { line.split_once('?').map_or("", |(_, query)| query) } else { form };
        let entries: Vec<Value> = self.matches(criterion).into_iter().map(|r| json!({ "resource": r, "search": { "mode": "match" } })).collect();
        json!({ "resourceType": "Bundle", "type": "searchset", "total": entries.len(), "entry": entries })
    }

    fn write(&self, entry: &Value, found: Option<Value>) -> Value {
        let mut state = self.state.lock().expect("no panic");
        let request = &entry["request"];
        let (created, id) = match &found {
            Some(resource) => (false, resource["id"].as_str().expect("what is stored has one").to_owned()),
            None => (true, format!("p{}", state.len() + 1)),
        };
        let left_alone = request["method"] == "POST" && !created;
        let mut resource = entry["resource"].clone();
        resource["id"] = json!(id);
        let version = state.len() + 1;
        resource["meta"] = json!({ "versionId": version.to_string() });
        if !left_alone {
            state.push(resource);
        }
        let status = if created { "201 Created" } else { "200 OK" };
        json!({ "response": { "status": status, "location": format!("Patient/{id}/_history/{version}"), "etag": format!("W/\"{version}\"") } })
    }
}

fn entries(bundle: &Value) -> Vec<Value> {
    bundle["entry"].as_array().cloned().unwrap_or_default()
}

/// An OperationOutcome with one error.
pub fn outcome(code: &str, expression: Option<&str>) -> Value {
    let mut issue = json!({ "severity": "error", "code": code, "diagnostics": format!("{code}, says the server") });
    if let Some(expression) = expression {
        issue["expression"] = json!([expression]);
    }
    json!({ "resourceType": "OperationOutcome", "issue": [issue] })
}

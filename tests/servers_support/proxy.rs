//! A proxy before a FHIR server that sees what is under way at the same time, keeps what was sent, and loses answers when told to.
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it was sent.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) method: String,
    /// Path and query behind the base.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Default)]
struct Shared {
    base: String,
    client: reqwest::Client,
    /// Who is writing what at this moment.
    open: Mutex<HashMap<String, u64>>,
    /// Identities that two requests were writing at the same time.
    overlaps: Mutex<Vec<String>>,
    sent: Mutex<Vec<Sent>>,
    number: AtomicU64,
    /// Most writes that were open at the same time.
    most: AtomicU64,
    writing: AtomicU64,
    /// How long an answer is held back at most.
    delay_ms: AtomicU64,
    /// Percent of requests whose answer is lost after the server has done them.
    lose: AtomicU32,
    /// Percent of requests that are refused with 503 and not passed on.
    refuse: AtomicU32,
    seed: AtomicU64,
}

/// The proxy; it ends with the runtime of its test.
pub(crate) struct Proxy {
    /// Where it listens: the server's base URL for whoever is to be watched.
    pub(crate) base: String,
    shared: Arc<Shared>,
}

impl Proxy {
    pub(crate) async fn before(base: &str) -> Self {
        let shared = Arc::new(Shared { base: base.to_owned(), ..Shared::default() });
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}/fhir", socket.local_addr().expect("an address"));
        let app = axum::Router::new().fallback(pass).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(socket, app).await });
        Self { base, shared }
    }

    /// Holds each answer back for up to so long, which brings requests closer together in time.
    pub(crate) fn delay(&self, longest: Duration) {
        self.shared.delay_ms.store(longest.as_millis() as u64, Ordering::Relaxed);
    }

    /// From now on: percent of answers that are lost after the deed, and of requests that are refused before it.
    pub(crate) fn faults(&self, lose: u32, refuse: u32) {
        self.shared.lose.store(lose, Ordering::Relaxed);
        self.shared.refuse.store(refuse, Ordering::Relaxed);
    }

    /// The same faults in the same run.
    pub(crate) fn seed(&self, seed: u64) {
        self.shared.seed.store(seed, Ordering::Relaxed);
    }

    /// Identities that two requests were writing at the same time; none, if the guard holds.
    pub(crate) fn overlaps(&self) -> Vec<String> {
        self.shared.overlaps.lock().expect("no panic").clone()
    }

    /// The most writing requests that were open at the same time: without several, nothing was shown.
    pub(crate) fn most_at_once(&self) -> u64 {
        self.shared.most.load(Ordering::Relaxed)
    }

    /// Everything that was sent, in the order of arrival.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.shared.sent.lock().expect("no panic").clone()
    }
}

/// To its end also if whoever asked is gone: the server goes on, too.
async fn pass(state: State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    tokio::spawn(pass_on(state, request)).await.expect("the proxy does not panic")
}

async fn pass_on(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let path = head.uri.path_and_query().map_or("", |p| p.as_str()).trim_start_matches("/fhir").to_owned();
    let mut headers = head.headers.clone();
    headers.remove("host");
    headers.remove("content-length");
    let sent = Sent { method: head.method.to_string(), path, headers, body };
    let number = shared.number.fetch_add(1, Ordering::Relaxed);
    let chance = spread(shared.seed.load(Ordering::Relaxed).wrapping_add(number));
    if (chance % 100) < u64::from(shared.refuse.load(Ordering::Relaxed)) {
        return Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(Body::empty()).expect("a response");
    }
    let written = written(&sent);
    if !written.is_empty() {
        let mut open = shared.open.lock().expect("no panic");
        for identity in &written {
            if open.insert(identity.clone(), number).is_some() {
                shared.overlaps.lock().expect("no panic").push(identity.clone());
            }
        }
        let now = shared.writing.fetch_add(1, Ordering::Relaxed) + 1;
        shared.most.fetch_max(now, Ordering::Relaxed);
    }
    shared.sent.lock().expect("no panic").push(sent.clone());
    let method = reqwest::Method::from_bytes(sent.method.as_bytes()).expect("it came as a method");
    let passed = shared.client.request(method, format!("{}{}", shared.base, sent.path)).headers(sent.headers).body(sent.body);
    let answer = async {
        let answer = passed.send().await.ok()?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Some((status, headers, answer.bytes().await.ok()?))
    }
    .await;
    let longest = shared.delay_ms.load(Ordering::Relaxed);
    if longest > 0 {
        tokio::time::sleep(Duration::from_micros(spread(chance) % (longest * 1_000))).await;
    }
    if !written.is_empty() {
        let mut open = shared.open.lock().expect("no panic");
        open.retain(|_, by| *by != number);
        shared.writing.fetch_sub(1, Ordering::Relaxed);
    }
    let lost = spread(chance + 1) % 100 < u64::from(shared.lose.load(Ordering::Relaxed));
    let Some((status, headers, body)) = answer.filter(|_| !lost) else {
        // A body that breaks off: the connection ends without an answer that could be read.
        let broken = futures_util::stream::iter([Ok(Bytes::from_static(b"{\"resou")), Err(std::io::Error::other("lost"))]);
        return Response::builder().status(StatusCode::OK).body(Body::from_stream(broken)).expect("a response");
    };
    let mut response = Response::builder().status(status);
    for (name, value) in headers.iter().filter(|(name, _)| !matches!(name.as_str(), "transfer-encoding" | "content-length" | "connection")) {
        // Where a resource is, is said with the server's own address; ids are what counts.
        response = response.header(name, value);
    }
    response.body(Body::from(body)).expect("a response")
}

/// What a request writes: `Patient/12` and `Patient identifier system|value`, of each entry.
fn written(sent: &Sent) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let body: Value = serde_json::from_slice(&sent.body).unwrap_or(Value::Null);
    let path = sent.path.trim_start_matches('/');
    if sent.method == "GET" || path.contains("_search") {
        return all;
    }
    if path.is_empty() {
        for entry in body["entry"].as_array().into_iter().flatten() {
            let request = &entry["request"];
            if request["method"].as_str() != Some("GET") {
                one(request["url"].as_str().unwrap_or_default(), request["ifNoneExist"].as_str(), &entry["resource"], &mut all);
            }
        }
    } else {
        one(path, sent.headers.get("if-none-exist").and_then(|v| v.to_str().ok()), &body, &mut all);
    }
    all
}

fn one(url: &str, if_none_exist: Option<&str>, resource: &Value, all: &mut BTreeSet<String>) {
    let (place, query) = url.split_once('?').map_or((url, None), |(place, query)| (place, Some(query)));
    let resource_type = place.split('/').next().unwrap_or_default();
    if place.contains('/') {
        all.insert(place.to_owned());
    }
    let mut named = |system: &str, value: &str| {
        all.insert(format!("{resource_type} {system}|{value}"));
    };
    for criterion in [query, if_none_exist].into_iter().flatten() {
        let criterion = criterion.trim_start_matches(&format!("{resource_type}?")).trim_start_matches("identifier=");
        for token in criterion.replace("%2C", ",").split(',') {
            let token = plain(token);
            if let Some((system, value)) = token.split_once('|') {
                named(system, value);
            }
        }
    }
    let identifiers = &resource["identifier"];
    for identifier in identifiers.as_array().cloned().unwrap_or_else(|| vec![identifiers.clone()]) {
        if let (Some(system), Some(value)) = (identifier["system"].as_str(), identifier["value"].as_str()) {
            named(system, value);
        }
    }
}

/// Without percent-encoding.
fn plain(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut hex = bytes.clone().take(2).map(char::from).collect::<String>();
        match u8::from_str_radix(&hex, 16) {
            Ok(decoded) if byte == b'%' => {
                out.push(decoded);
                bytes.nth(1);
            }
            _ => out.push(byte),
        }
        hex.clear();
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A number that spreads evenly.
pub(crate) fn spread(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

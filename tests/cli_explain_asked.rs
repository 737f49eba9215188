//! `kiln explain` of messages whose routes asked a server: each delivery by what it was told, though the server told each something else.
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

mod cli_support;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use cli_support::{Daemon, exchange, run, wait_for};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The role's Practitioner comes along, and is referred to as the server calls itself behind its proxy.
const ROUTE: &str = "systems: here\nmatch: [{ namespace: HOSP, system: \"http://hosp.example/mrn\" }]\n---\nroute: visit\non: ZZZ^Z01\nto: [one, two]\n\
    ask:\n  role: { $search: PractitionerRole, $at: main, $several: first, _include: \"PractitionerRole:practitioner\", identifier: PV1-7 }\n\
    resources:\n  patient:\n    $map: PID -> Patient\n    $save: create by PID-3\n    contact:\n      name:\n        \
    text: first((first(role).practitioner as Practitioner).name.family)\n";

/// Finds another practitioner each time it is asked.
async fn answer(State(asked): State<Arc<AtomicUsize>>, request: Request<Body>) -> Response<Body> {
    let (status, answer) = match request.uri().path() {
        "/fhir/PractitionerRole/_search" => {
            let n = asked.fetch_add(1, Ordering::SeqCst) + 1;
            let entry = |mode: &str, resource: Value| {
                let place = format!("{}/{}", resource["resourceType"].as_str().expect("a type"), resource["id"].as_str().expect("an id"));
                json!({ "fullUrl": format!("https://proxy.example/r4/{place}"), "search": { "mode": mode }, "resource": resource })
            };
            let reference = format!("https://proxy.example/r4/Practitioner/d{n}");
            let role = json!({ "resourceType": "PractitionerRole", "id": format!("r{n}"), "practitioner": { "reference": reference } });
            let person = json!({ "resourceType": "Practitioner", "id": format!("d{n}"), "name": [{ "family": format!("Arzt{n}") }] });
            (200, json!({ "resourceType": "Bundle", "type": "searchset", "entry": [entry("match", role), entry("include", person)] }))
        }
        _ => (404, json!({ "resourceType": "OperationOutcome" })),
    };
    Response::builder().status(status).header("Content-Type", "application/fhir+json").body(Body::from(answer.to_string())).expect("a response")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_delivery_is_explained_by_what_it_was_told() {
    let asked = Arc::new(AtomicUsize::new(0));
    let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&asked));
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base = format!("http://{}/fhir", socket.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(socket, app).await });
    let place = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(place.path().join("routes")).expect("a folder");
    std::fs::write(place.path().join("routes/visit.yaml"), ROUTE).expect("a file");
    let site = format!(
        "console: {{ listen: 127.0.0.1:0 }}\njournal: {{ path: journal, low-water: 1MiB }}\nlisteners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\n\
         targets: {{ main: {{ fhir: \"{base}\", timeout: 5s }}, one: {{ folder: one }}, two: {{ folder: two }} }}\n"
    );
    std::fs::write(place.path().join("kiln.yaml"), site).expect("a file");
    let daemon = Daemon::start(place.path());
    let message = "MSH|^~\\&|ADT1|HOSP|KILN|HOSP|20260301120000||ZZZ^Z01|1|P|2.5.1\rPID|1||P1^^^HOSP^MR||Meier^Eva\rPV1|1|I|||||D1^Arzt^^^^^^^HOSP\r";
    assert!(exchange(daemon.address("adt on "), message.as_bytes()).contains("MSA|AA|1"));
    wait_for("the deliveries", || run(place.path(), &["journal", "show", "1", "--json"]).out.matches("\"state\":\"delivered\"").count() == 2);
    assert_eq!((daemon.stop(), asked.load(Ordering::SeqCst)), (0, 2), "each delivery asks");
    let explained = run(place.path(), &["explain", "1", "Patient.contact.name.text"]).expect(0);
    for family in ["Arzt1", "Arzt2"] {
        assert!(explained.out.contains(family), "{family}: {}", explained.out);
    }
}

//! What a FHIR target makes of each kind of answer, and what it sends, against a mock that says exactly what the case needs.
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

mod target_support;

use kiln::fhir::{KnownId, Save, SaveMode, put_id};
use kiln::target::{Auth, Fault, FhirConfig, PatchFormat, Retry, SecretSource, Sending, Target, TargetConfig};
use serde_json::{Value, json};
use std::time::Duration;
use target_support::{Delivery, SECRET, fhir_target, patching_target, save};
use wiremock::matchers::{body_string_contains, header, method, path, path_regex};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

fn patient(mode: SaveMode) -> Save {
    save(mode, "Patient", &["urn:mrn|MARK-4711"], json!({"name": [{"family": "Marked"}]}))
}

fn fhir(status: u16, body: &Value) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_raw(body.to_string(), "application/fhir+json")
}

fn outcome(code: &str) -> Value {
    json!({"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code, "diagnostics": "MARK-4711 is wrong"}]})
}

fn response(kind: &str, entries: &[(&str, &str, &str)]) -> Value {
    let entries: Vec<Value> =
        entries.iter().map(|(status, location, etag)| json!({"response": {"status": status, "location": location, "etag": etag}})).collect();
    json!({"resourceType": "Bundle", "type": kind, "entry": entries})
}

fn searchset(ids: &[&str]) -> Value {
    let entries: Vec<Value> = ids
        .iter()
        .map(|id| json!({"resource": {"resourceType": "Patient", "id": id, "meta": {"versionId": "5"}, "identifier": [{"system": "urn:mrn", "value": "MARK-4711"}], "gender": "male"}, "search": {"mode": "match"}}))
        .collect();
    json!({"resourceType": "Bundle", "type": "searchset", "entry": entries})
}

fn target(server: &MockServer) -> Target {
    fhir_target(&format!("{}/fhir", server.uri()), Duration::from_secs(5))
}

async fn answering(template: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path("/fhir")).respond_with(template).mount(&server).await;
    // As long as nothing has gone well, a refusal makes Kiln look whether this is a FHIR server's base at all.
    let statement = json!({"resourceType": "CapabilityStatement", "status": "active", "fhirVersion": "4.0.1"});
    Mock::given(method("GET")).and(path("/fhir/metadata")).respond_with(fhir(200, &statement)).mount(&server).await;
    server
}

async fn requests(server: &MockServer) -> Vec<Request> {
    server.received_requests().await.expect("recording")
}

#[tokio::test]
async fn each_answer_to_a_transaction_is_judged() {
    use {Fault::*, Retry::*};
    let html = || ResponseTemplate::new(200).set_body_raw("<html>sign in MARK-4711</html>", "text/html");
    let ok = |entries: &[(&str, &str, &str)]| fhir(200, &response("transaction-response", entries));
    // name, answer, expected retry, fault and code
    let cases: Vec<(&str, ResponseTemplate, Retry, Fault, &str)> = vec![
        ("400", fhir(400, &outcome("invalid")), Permanent, Message, "http-400"),
        ("400 without FHIR", ResponseTemplate::new(400), Transient, Target, "not-fhir"),
        ("401", fhir(401, &outcome("login")), Transient, Target, "http-401"),
        ("403", ResponseTemplate::new(403), Transient, Target, "http-403"),
        ("404 of the endpoint", fhir(404, &outcome("not-found")), Transient, Target, "http-404"),
        ("405", ResponseTemplate::new(405), Transient, Target, "http-405"),
        ("409", fhir(409, &outcome("conflict")), Transient, Race, "http-409"),
        ("413", ResponseTemplate::new(413), Permanent, Message, "http-413"),
        ("415", ResponseTemplate::new(415), Transient, Target, "http-415"),
        ("422", fhir(422, &outcome("business-rule")), Permanent, Message, "http-422"),
        ("423", fhir(423, &outcome("lock-error")), Transient, Race, "http-423"),
        ("429", ResponseTemplate::new(429), Transient, Target, "http-429"),
        ("500", fhir(500, &outcome("exception")), Ambiguous, Target, "http-500"),
        ("502", ResponseTemplate::new(502), Ambiguous, Target, "http-502"),
        ("503", ResponseTemplate::new(503), Transient, Target, "http-503"),
        ("redirect", ResponseTemplate::new(302).insert_header("location", "https://login.example/?MARK-4711"), Transient, Target, "redirect"),
        ("a login page", html(), Ambiguous, Target, "not-fhir"),
        ("empty 200", ResponseTemplate::new(200), Ambiguous, Target, "not-fhir"),
        ("another resource", fhir(200, &json!({"resourceType": "Patient"})), Ambiguous, Target, "not-promised"),
        ("a batch's answer", fhir(200, &response("batch-response", &[("201", "Patient/1", "")])), Ambiguous, Target, "not-promised"),
        ("too few entries", ok(&[]), Ambiguous, Target, "not-promised"),
        ("too many entries", ok(&[("201", "Patient/1", ""), ("201", "Patient/2", "")]), Ambiguous, Target, "not-promised"),
        ("a failed entry", ok(&[("500", "", "")]), Ambiguous, Target, "not-promised"),
    ];
    for (name, answer, retry, fault, code) in cases {
        let server = answering(answer).await;
        let setback = Delivery::new(1, vec![patient(SaveMode::Create)]).to(&target(&server)).await.expect_err(name);
        assert_eq!((setback.retry, setback.fault, setback.code), (retry, fault, code), "{name}");
        assert!(!setback.summary.contains("MARK") && !format!("{setback:?}").contains("MARK"), "{name}: {}", setback.summary);
    }
}

#[tokio::test]
async fn what_the_server_said_is_kept_but_not_printed() {
    let server = answering(fhir(422, &outcome("business-rule"))).await;
    let setback = Delivery::new(1, vec![patient(SaveMode::Create)]).to(&target(&server)).await.expect_err("422");
    assert_eq!(setback.summary, "the server answered 422 to the transaction (business-rule)");
    assert!(setback.detail.as_ref().is_some_and(|d| d.expose().contains("MARK-4711 is wrong")));
}

#[tokio::test]
async fn retry_after_is_obeyed_in_both_forms() {
    let base = ResponseTemplate::new(429);
    let by_date =
        ResponseTemplate::new(503).insert_header("date", "Tue, 24 Nov 2026 12:00:00 GMT").insert_header("retry-after", "Tue, 24 Nov 2026 12:01:30 GMT");
    for (answer, wait) in [(base.insert_header("retry-after", "17"), 17), (by_date, 90)] {
        let server = answering(answer).await;
        let setback = Delivery::new(1, vec![patient(SaveMode::Create)]).to(&target(&server)).await.expect_err("busy");
        assert_eq!(setback.retry_after, Some(Duration::from_secs(wait)));
    }
}

#[tokio::test]
async fn silence_after_sending_is_ambiguous_and_an_unreachable_server_is_not() {
    let server = answering(ResponseTemplate::new(200).set_delay(Duration::from_secs(30))).await;
    let slow = fhir_target(&format!("{}/fhir", server.uri()), Duration::from_millis(300));
    let setback = Delivery::new(1, vec![patient(SaveMode::Create)]).to(&slow).await.expect_err("no answer");
    assert_eq!((setback.retry, setback.fault, setback.code), (Retry::Ambiguous, Fault::Target, "timeout"));

    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let nobody = fhir_target(&format!("http://{free}/fhir"), Duration::from_secs(2));
    for setback in
        [Delivery::new(1, vec![patient(SaveMode::Create)]).to(&nobody).await.map(|_| ()).expect_err("nobody"), nobody.probe().await.expect_err("nobody")]
    {
        assert_eq!((setback.retry, setback.fault, setback.code), (Retry::Transient, Fault::Target, "connect"));
    }
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_is_ambiguous() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncReadExt as _;
            let mut first = [0; 64];
            let _ = stream.read(&mut first).await;
        }
    });
    let target = fhir_target(&format!("http://{address}/fhir"), Duration::from_secs(5));
    let setback = Delivery::new(1, vec![patient(SaveMode::Create)]).to(&target).await.expect_err("closed");
    assert_eq!((setback.retry, setback.code), (Retry::Ambiguous, "connection-lost"));
    // The same silence to a question is harmless.
    assert_eq!(target.probe().await.expect_err("closed").retry, Retry::Transient);
}

#[tokio::test]
async fn a_receipt_has_the_place_of_each_resource() {
    let server = answering(fhir(
        200,
        &response("transaction-response", &[("201 Created", "Patient/12/_history/1", "W/\"1\""), ("200 OK", "https://h/fhir/Encounter/9/_history/4", "")]),
    ))
    .await;
    let encounter = save(SaveMode::Update, "Encounter", &["urn:v|1"], json!({"status": "planned", "subject": {"reference": "@0"}}));
    let receipt = Delivery::new(1, vec![patient(SaveMode::CreateIfNone), encounter]).to(&target(&server)).await.expect("delivered");
    let places: Vec<_> = receipt.saved.iter().map(|s| (s.entry, s.resource_type, s.id.as_str(), s.status)).collect();
    assert_eq!(places, [(0, "Patient", "12", 201), (1, "Encounter", "9", 200)]);
    assert_eq!(receipt.saved[0].etag.as_deref(), Some("W/\"1\""));
    let sent: Value = requests(&server).await[0].body_json().expect("JSON");
    assert_eq!(sent["entry"][1]["resource"]["subject"]["reference"], sent["entry"][0]["fullUrl"]);
}

#[tokio::test]
async fn a_merge_reads_by_post_and_writes_with_if_match() {
    let server = answering(fhir(200, &response("transaction-response", &[("200", "Patient/7/_history/6", "W/\"6\"")]))).await;
    Mock::given(method("POST"))
        .and(path("/fhir/Patient/_search"))
        .and(header("content-type", "application/x-www-form-urlencoded"))
        .and(body_string_contains("identifier=urn%3Amrn%7CMARK-4711"))
        .respond_with(fhir(200, &searchset(&["7"])))
        .mount(&server)
        .await;
    let receipt = Delivery::new(1, vec![patient(SaveMode::Merge)]).to(&target(&server)).await.expect("delivered");
    assert_eq!((receipt.saved[0].id.as_str(), receipt.saved[0].etag.as_deref()), ("7", Some("W/\"6\"")));
    let all = requests(&server).await;
    let entry = all[1].body_json::<Value>().expect("JSON")["entry"][0].clone();
    assert_eq!(entry["request"], json!({"method": "PUT", "url": "Patient/7", "ifMatch": "W/\"5\""}));
    assert_eq!((&entry["resource"]["gender"], &entry["resource"]["name"][0]["family"]), (&json!("male"), &json!("Marked")));
    assert!(all.iter().all(|r| !r.url.as_str().contains("MARK")), "no URL holds patient data");
}

#[tokio::test]
async fn a_merge_that_changes_nothing_writes_nothing() {
    let server = answering(ResponseTemplate::new(500)).await;
    Mock::given(path("/fhir/Patient/_search")).respond_with(fhir(200, &searchset(&["7"]))).mount(&server).await;
    let same = save(SaveMode::Merge, "Patient", &["urn:mrn|MARK-4711"], json!({"gender": "male"}));
    let receipt = Delivery::new(1, vec![same]).to(&target(&server)).await.expect("nothing to do");
    assert_eq!((receipt.saved[0].id.as_str(), receipt.saved[0].status, requests(&server).await.len()), ("7", 200, 1));
}

#[tokio::test]
async fn a_server_without_post_search_is_asked_by_get() {
    let server = answering(fhir(200, &response("transaction-response", &[("200", "Patient/7", "")]))).await;
    Mock::given(method("POST")).and(path("/fhir/Patient/_search")).respond_with(fhir(404, &outcome("not-found"))).expect(1).mount(&server).await;
    Mock::given(method("GET")).and(path("/fhir/Patient")).respond_with(fhir(200, &searchset(&["7"]))).expect(2).mount(&server).await;
    let target = target(&server);
    for n in 0..2 {
        Delivery::new(n, vec![patient(SaveMode::Merge)]).to(&target).await.expect("delivered");
    }
}

#[tokio::test]
async fn several_matches_name_the_candidates() {
    for mode in [SaveMode::Merge, SaveMode::Update, SaveMode::CreateIfNone] {
        let server = answering(fhir(412, &outcome("multiple-matches"))).await;
        Mock::given(path("/fhir/Patient/_search")).respond_with(fhir(200, &searchset(&["7", "8"]))).mount(&server).await;
        let setback = Delivery::new(1, vec![patient(mode)]).to(&target(&server)).await.expect_err("several");
        assert_eq!((setback.retry, setback.fault, setback.code), (Retry::Permanent, Fault::Message, "several-matches"));
        assert_eq!(setback.detail.map(|d| d.expose().clone()).as_deref(), Some("Patient/7, Patient/8"));
    }
}

#[tokio::test]
async fn a_search_that_ignores_the_identifier_is_the_servers_fault() {
    let server = answering(ResponseTemplate::new(500)).await;
    let other = json!({"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": {"resourceType": "Patient", "id": "1", "identifier": [{"system": "urn:mrn", "value": "other"}]}}]});
    Mock::given(path("/fhir/Patient/_search")).respond_with(fhir(200, &other)).mount(&server).await;
    let setback = Delivery::new(1, vec![patient(SaveMode::Merge)]).to(&target(&server)).await.expect_err("a wrong patient");
    assert_eq!((setback.fault, setback.code), (Fault::Target, "not-promised"));
}

#[tokio::test]
async fn a_known_id_is_used_and_forgotten_when_it_is_stale() {
    // status of the transaction, status of reading the known resource: fault, stale
    for (status, read, code, stale) in
        [(412, 200, "http-412", vec![0]), (404, 404, "stale-id", vec![0]), (410, 410, "stale-id", vec![0]), (422, 200, "http-422", vec![])]
    {
        let server = answering(fhir(status, &outcome("processing"))).await;
        let resource = if read == 200 { json!({"resourceType": "Patient", "id": "7"}) } else { outcome("not-found") };
        Mock::given(method("GET")).and(path("/fhir/Patient/7")).respond_with(fhir(read, &resource)).mount(&server).await;
        let delivery = Delivery::new(1, vec![patient(SaveMode::Update)]).known(0, "7", Some("W/\"3\""));
        let setback = delivery.to(&target(&server)).await.expect_err("refused");
        assert_eq!((setback.code, setback.stale), (code, stale), "{status}");
        let sent: Value = requests(&server).await[0].body_json().expect("JSON");
        assert_eq!(sent["entry"][0]["request"], json!({"method": "PUT", "url": "Patient/7", "ifMatch": "W/\"3\""}));
    }
}

#[tokio::test]
async fn a_race_between_search_and_create_is_repeated() {
    let server = answering(fhir(200, &response("transaction-response", &[("200", "Patient/7", "")]))).await;
    Mock::given(path("/fhir/Patient/_search")).respond_with(fhir(200, &searchset(&[]))).mount(&server).await;
    let setback = Delivery::new(1, vec![patient(SaveMode::Merge)]).to(&target(&server)).await.expect_err("somebody was faster");
    assert_eq!((setback.retry, setback.fault, setback.code), (Retry::Transient, Fault::Race, "created-meanwhile"));
}

#[tokio::test]
async fn after_an_ambiguous_attempt_it_reads_before_it_writes() {
    let server = answering(fhir(200, &response("transaction-response", &[("200", "Patient/7", "")]))).await;
    Mock::given(path("/fhir/Patient/_search")).respond_with(fhir(200, &searchset(&["7"]))).mount(&server).await;
    let target = target(&server);
    let receipt = Delivery::new(1, vec![patient(SaveMode::CreateIfNone)]).ambiguous().to(&target).await.expect("it is there");
    assert_eq!((receipt.saved[0].id.as_str(), requests(&server).await.len()), ("7", 1));
    Delivery::new(2, vec![patient(SaveMode::Update)]).ambiguous().to(&target).await.expect("updated");
    let sent: Value = requests(&server).await[2].body_json().expect("JSON");
    assert_eq!(sent["entry"][0]["request"], json!({"method": "PUT", "url": "Patient/7", "ifMatch": "W/\"5\""}));
    let setback = Delivery::new(3, vec![patient(SaveMode::Create)]).ambiguous().to(&target).await.expect_err("nobody can tell");
    assert_eq!((setback.retry, setback.fault, setback.code), (Retry::Permanent, Fault::Message, "doubtful-create"));
}

#[tokio::test]
async fn two_entries_of_one_resource_are_refused_before_sending() {
    let server = answering(ResponseTemplate::new(500)).await;
    let mut mother = save(SaveMode::Update, "Patient", &["urn:x|1", "urn:mrn|MARK-4711"], json!({}));
    mother.name = "mother".to_owned();
    let setback = Delivery::new(1, vec![patient(SaveMode::Update), mother]).to(&target(&server)).await.expect_err("one resource");
    assert_eq!((setback.retry, setback.code), (Retry::Permanent, "same-resource"));
    assert_eq!(setback.summary, "'patient' and 'mother' are one Patient, which a transaction may write only once");
    assert!(requests(&server).await.is_empty());
}

#[tokio::test]
async fn a_batch_is_judged_by_entry_and_goes_level_by_level() {
    let server = MockServer::start().await;
    let failed = json!({"response": {"status": "422 Unprocessable", "outcome": outcome("invalid")}});
    let mut first = response("batch-response", &[("201", "Patient/1/_history/1", ""), ("201", "Location/2", "")]);
    let second = json!({"resourceType": "Bundle", "type": "batch-response", "entry": [failed]});
    first["entry"][1]["response"]["status"] = json!("201 Created");
    Mock::given(method("POST")).and(path("/fhir")).respond_with(fhir(200, &first)).up_to_n_times(1).mount(&server).await;
    Mock::given(method("POST")).and(path("/fhir")).respond_with(fhir(200, &second)).mount(&server).await;
    let encounter = save(SaveMode::Create, "Encounter", &[], json!({"status": "planned", "subject": {"reference": "@0"}}));
    let location = save(SaveMode::CreateIfNone, "Location", &["urn:l|1"], json!({}));
    let mut delivery = Delivery::new(1, vec![patient(SaveMode::CreateIfNone), location, encounter]).send(Sending::Batch);
    let setback = delivery.to(&target(&server)).await.expect_err("the encounter is refused");
    assert_eq!((setback.retry, setback.fault, setback.code), (Retry::Permanent, Fault::Message, "http-422"));
    let saved: Vec<_> = setback.saved.iter().map(|s| (s.entry, s.id.as_str())).collect();
    assert_eq!(saved, [(0, "1"), (1, "2")]);
    let sent: Value = requests(&server).await[1].body_json().expect("JSON");
    assert_eq!((sent["entry"].as_array().map(Vec::len), &sent["entry"][0]["resource"]["subject"]["reference"]), (Some(1), &json!("Patient/1")));
    // The next attempt takes up only what failed.
    delivery.done = setback.saved;
    let _ = delivery.to(&target(&server)).await.expect_err("still refused");
    let again: Value = requests(&server).await[2].body_json().expect("JSON");
    assert_eq!(again, sent);
}

#[tokio::test]
async fn a_cycle_in_single_is_saved_open_and_then_closed() {
    let server = MockServer::start().await;
    for (kind, id) in [("Patient", "1"), ("Person", "2")] {
        let location = format!("{}/fhir/{kind}/{id}/_history/1", server.uri());
        Mock::given(method("POST"))
            .and(path(format!("/fhir/{kind}")))
            .respond_with(ResponseTemplate::new(201).insert_header("location", location))
            .mount(&server)
            .await;
    }
    Mock::given(method("PUT")).and(path("/fhir/Patient/1")).respond_with(ResponseTemplate::new(200).insert_header("etag", "W/\"2\"")).mount(&server).await;
    let a = save(SaveMode::Create, "Patient", &[], json!({"link": [{"other": {"reference": "@1"}, "type": "seealso"}]}));
    let b = save(SaveMode::CreateIfNone, "Person", &["urn:p|1"], json!({"link": [{"target": {"reference": "@0"}}]}));
    let receipt = Delivery::new(1, vec![a, b]).send(Sending::Single).to(&target(&server)).await.expect("delivered");
    assert_eq!(receipt.saved.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    let all = requests(&server).await;
    let bodies: Vec<Value> = all.iter().map(|r| r.body_json().expect("JSON")).collect();
    // `link.other` is required: without it the whole link waits.
    assert_eq!(bodies[0].get("link"), None);
    assert_eq!(bodies[1]["link"][0]["target"]["reference"], json!("Patient/1"));
    assert_eq!(bodies[2]["link"][0]["other"]["reference"], json!("Person/2"));
    assert_eq!(all[1].headers.get("if-none-exist").and_then(|h| h.to_str().ok()), Some("identifier=urn%3Ap%7C1"));
    assert_eq!(all[2].headers.get("if-match").and_then(|h| h.to_str().ok()), Some("W/\"1\""));
}

#[tokio::test]
async fn single_updates_by_id_and_no_url_holds_patient_data() {
    let server = MockServer::start().await;
    Mock::given(path("/fhir/Patient/_search")).respond_with(fhir(200, &searchset(&["7"]))).mount(&server).await;
    Mock::given(method("PUT"))
        .and(path("/fhir/Patient/7"))
        .and(header("if-match", "W/\"5\""))
        .respond_with(ResponseTemplate::new(200))
        .expect(1)
        .mount(&server)
        .await;
    Mock::given(method("DELETE")).and(path("/fhir/Patient/7")).respond_with(ResponseTemplate::new(204)).expect(1).mount(&server).await;
    let target = target(&server);
    Delivery::new(1, vec![patient(SaveMode::Update)]).send(Sending::Single).to(&target).await.expect("updated");
    let receipt = Delivery::new(2, vec![patient(SaveMode::Delete)]).send(Sending::Single).known(0, "7", None).to(&target).await.expect("deleted");
    assert_eq!((receipt.saved.len(), receipt.stale), (0, vec![0]));
    assert!(requests(&server).await.iter().all(|r| !r.url.as_str().contains("MARK")));
}

#[tokio::test]
async fn put_by_uses_an_id_of_our_own() {
    let server = MockServer::start().await;
    Mock::given(method("PUT")).and(path_regex("^/fhir/Patient/[0-9a-f-]{36}$")).respond_with(ResponseTemplate::new(201)).expect(1).mount(&server).await;
    let delivery = Delivery::new(1, vec![patient(SaveMode::Put)]).send(Sending::Single);
    let id = put_id(&SECRET, "Patient", &delivery.saves.entries[0].identity);
    let receipt = delivery.to(&target(&server)).await.expect("put");
    assert_eq!(receipt.saved[0].id, id);
    assert_eq!(requests(&server).await[0].body_json::<Value>().expect("JSON")["id"], json!(id));
}

#[tokio::test]
async fn two_saves_of_one_identity_are_never_in_flight_together() {
    let server = MockServer::start().await;
    let open = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (seen, most) = (open.clone(), std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let peak = most.clone();
    // The mock answers late; how many requests are open at once is counted by who arrives before that.
    let answer = fhir(200, &response("transaction-response", &[("201", "Patient/1", "")]));
    Mock::given(method("POST"))
        .respond_with(move |_: &Request| {
            let now = seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
            peak.fetch_max(now, std::sync::atomic::Ordering::SeqCst);
            answer.clone().set_delay(Duration::from_millis(50))
        })
        .mount(&server)
        .await;
    let target = target(&server);
    let one = |n| {
        let (target, open) = (&target, open.clone());
        async move {
            Delivery::new(n, vec![patient(SaveMode::CreateIfNone)]).to(target).await.expect("delivered");
            open.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        }
    };
    tokio::join!(one(1), one(2), one(3), one(4));
    assert_eq!(most.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn credentials_and_headers_are_sent_and_never_printed() {
    let server = MockServer::start().await;
    Mock::given(method("GET"))
        .and(path("/fhir/metadata"))
        .and(header("authorization", "Basic a2lsbjpodW50ZXIy"))
        .and(header("x-api-key", "key"))
        .respond_with(fhir(200, &json!({"resourceType": "CapabilityStatement"})))
        .mount(&server)
        .await;
    let config = FhirConfig {
        auth: Auth::Basic { user: "kiln".to_owned(), password: SecretSource::text("hunter2") },
        headers: vec![("X-Api-Key".to_owned(), SecretSource::text("key"))],
        ..FhirConfig::new(format!("{}/fhir/", server.uri()), kiln::exchange::Secret::new(SECRET))
    };
    assert!(!format!("{config:?}").contains("hunter2"));
    let target = Target::open(TargetConfig::Fhir(config.clone())).expect("opens");
    target.probe().await.expect("a CapabilityStatement");
    for base in ["https://user:pass@h.example/fhir", "ftp://h.example", "not a url", "https://h.example/fhir?key=1"] {
        assert!(Target::open(TargetConfig::Fhir(FhirConfig { base: base.to_owned(), ..config.clone() })).is_err(), "{base}");
    }
}

#[tokio::test]
async fn a_known_create_is_only_referred_to() {
    let server = answering(fhir(200, &response("transaction-response", &[("201", "Encounter/3", "")]))).await;
    let encounter = save(SaveMode::Create, "Encounter", &[], json!({"status": "planned", "subject": {"reference": "@0"}}));
    let mut delivery = Delivery::new(1, vec![patient(SaveMode::CreateIfNone), encounter]);
    delivery.known[0] = Some(KnownId { id: "7".to_owned(), etag: None });
    let receipt = delivery.to(&target(&server)).await.expect("delivered");
    assert_eq!(receipt.saved.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["7", "3"]);
    let sent: Value = requests(&server).await[0].body_json().expect("JSON");
    assert_eq!((sent["entry"].as_array().map(Vec::len), &sent["entry"][0]["resource"]["subject"]["reference"]), (Some(1), &json!("Patient/7")));
}

#[tokio::test]
async fn what_a_transaction_did_save_is_not_saved_again() {
    // The merge met somebody else's create; the plain create beside it is done.
    let answer = response("transaction-response", &[("200", "Patient/7", ""), ("201", "Encounter/3", "")]);
    let server = answering(fhir(200, &answer)).await;
    Mock::given(path("/fhir/Patient/_search")).respond_with(fhir(200, &searchset(&[]))).mount(&server).await;
    let encounter = save(SaveMode::Create, "Encounter", &[], json!({"status": "planned", "subject": {"reference": "@0"}}));
    let mut delivery = Delivery::new(1, vec![patient(SaveMode::Merge), encounter]);
    let setback = delivery.to(&target(&server)).await.expect_err("somebody was faster");
    assert_eq!(setback.saved.iter().map(|s| (s.entry, s.id.as_str())).collect::<Vec<_>>(), [(1, "3")]);
    delivery.done = setback.saved;
    let _ = delivery.to(&target(&server)).await;
    let all = requests(&server).await;
    let again: Value = all.last().expect("a second transaction").body_json().expect("JSON");
    assert_eq!(again["entry"].as_array().map(Vec::len), Some(1), "only the merge");
    // A transaction that was refused has saved nothing, also not what it had only read.
    let server = answering(fhir(422, &outcome("invalid"))).await;
    Mock::given(path("/fhir/Patient/_search")).respond_with(fhir(200, &searchset(&["7"]))).mount(&server).await;
    let same = save(SaveMode::Merge, "Patient", &["urn:mrn|MARK-4711"], json!({"gender": "male"}));
    let other = save(SaveMode::Create, "Encounter", &[], json!({"status": "planned", "subject": {"reference": "@0"}}));
    let refused = Delivery::new(2, vec![same, other]).to(&target(&server)).await.expect_err("refused");
    assert!(refused.saved.is_empty());
}

/// A patient that is there, with the id 7, found by search and read by id.
async fn has_patient(server: &MockServer, etag: bool) {
    let meta = if etag { json!({"versionId": "5"}) } else { json!({}) };
    let patient = json!({"resourceType": "Patient", "id": "7", "meta": meta, "identifier": [{"system": "urn:mrn", "value": "MARK-4711"}], "gender": "male"});
    let found = json!({"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": patient, "search": {"mode": "match"}}]});
    Mock::given(path("/fhir/Patient/_search")).respond_with(fhir(200, &found)).mount(server).await;
    Mock::given(method("GET")).and(path("/fhir/Patient/7")).respond_with(fhir(200, &patient)).mount(server).await;
}

fn gender(mode: SaveMode) -> Save {
    save(mode, "Patient", &["urn:mrn|MARK-4711"], json!({"gender": "female"}))
}

#[tokio::test]
async fn a_patch_is_guarded_with_etags_and_without() {
    for etag in [true, false] {
        let server = MockServer::start().await;
        has_patient(&server, etag).await;
        Mock::given(method("PATCH")).respond_with(fhir(200, &json!({"resourceType": "Patient", "id": "7"}))).mount(&server).await;
        let receipt = Delivery::new(1, vec![gender(SaveMode::Patch)]).send(Sending::Single).to(&target(&server)).await.expect("patched");
        assert_eq!((receipt.saved[0].id.as_str(), receipt.saved[0].status), ("7", 200));
        let all = requests(&server).await;
        let patch = all.last().expect("a request");
        assert_eq!((patch.url.path(), patch.headers["content-type"].as_bytes()), ("/fhir/Patient/7", &b"application/json-patch+json"[..]));
        let operations: Value = patch.body_json().expect("JSON");
        let replace = json!({"op": "replace", "path": "/gender", "value": "female"});
        if etag {
            assert_eq!(patch.headers["if-match"], "W/\"5\"");
            assert_eq!(operations, json!([{"op": "test", "path": "/gender", "value": "male"}, replace]));
        } else {
            assert!(!patch.headers.contains_key("if-match"));
            assert_eq!((&operations[0]["op"], &operations[0]["path"], &operations[1]), (&json!("test"), &json!(""), &replace));
        }
    }
}

#[tokio::test]
async fn a_patch_in_a_transaction_is_a_binary_or_parameters() {
    for format in [PatchFormat::Json, PatchFormat::FhirPath] {
        let server = answering(fhir(200, &response("transaction-response", &[("200", "Patient/7/_history/6", "W/\"6\"")]))).await;
        has_patient(&server, true).await;
        let target = patching_target(&format!("{}/fhir", server.uri()), Duration::from_secs(5), Some(format));
        Delivery::new(1, vec![gender(SaveMode::Patch)]).to(&target).await.expect("patched");
        let entry = requests(&server).await[1].body_json::<Value>().expect("JSON")["entry"][0].clone();
        assert_eq!(entry["request"], json!({"method": "PATCH", "url": "Patient/7", "ifMatch": "W/\"5\""}));
        let resource = &entry["resource"];
        match format {
            PatchFormat::Json => {
                use base64::Engine as _;
                assert_eq!((&resource["resourceType"], &resource["contentType"]), (&json!("Binary"), &json!("application/json-patch+json")));
                let data = base64::engine::general_purpose::STANDARD.decode(resource["data"].as_str().expect("data")).expect("base64");
                assert_eq!(serde_json::from_slice::<Value>(&data).expect("JSON")[1]["path"], json!("/gender"));
            }
            PatchFormat::FhirPath => {
                let parts = json!([{"name": "type", "valueCode": "replace"}, {"name": "path", "valueString": "Patient.gender"}, {"name": "value", "valueCode": "female"}]);
                assert_eq!(*resource, json!({"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}));
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_takes_no_patches_gets_whole_resources_with_if_match() {
    let refusals = [(405, "not-supported"), (415, "not-supported"), (400, "invalid"), (501, "not-supported"), (500, "exception")];
    for (send, (status, code)) in [Sending::Transaction, Sending::Batch, Sending::Single].into_iter().flat_map(|s| refusals.map(|r| (s, r))) {
        let server = MockServer::start().await;
        has_patient(&server, true).await;
        let no = || fhir(status, &outcome(code));
        Mock::given(method("PATCH")).respond_with(no()).mount(&server).await;
        Mock::given(method("PUT")).and(header("if-match", "W/\"5\"")).respond_with(fhir(200, &json!({}))).mount(&server).await;
        let is_patch = body_string_contains("PATCH");
        let refused = if send == Sending::Batch {
            fhir(
                200,
                &json!({"resourceType": "Bundle", "type": "batch-response", "entry": [{"response": {"status": status.to_string(), "outcome": outcome(code)}}]}),
            )
        } else {
            no()
        };
        Mock::given(method("POST")).and(path("/fhir")).and(is_patch).respond_with(refused).with_priority(1).mount(&server).await;
        let kind = if send == Sending::Batch { "batch-response" } else { "transaction-response" };
        Mock::given(method("POST")).and(path("/fhir")).respond_with(fhir(200, &response(kind, &[("200", "Patient/7/_history/6", "")]))).mount(&server).await;
        let target = target(&server);
        for n in 1..3 {
            let receipt = Delivery::new(n, vec![gender(SaveMode::Patch)]).send(send).to(&target).await.expect("written whole");
            assert_eq!(receipt.saved[0].id, "7", "{send:?} {status}");
        }
        let patches = requests(&server).await.iter().filter(|r| r.method.as_str() == "PATCH" || String::from_utf8_lossy(&r.body).contains("PATCH")).count();
        assert_eq!(patches, if send == Sending::Batch { 2 } else { 1 }, "{send:?} {status}: it is not tried again for the second message");
    }
}

#[tokio::test]
async fn a_patch_that_came_too_late_is_a_race_whatever_the_server_calls_it() {
    for (send, status) in [(Sending::Single, 400), (Sending::Single, 422), (Sending::Transaction, 400), (Sending::Single, 412)] {
        let server = MockServer::start().await;
        let newer = json!({"resourceType": "Patient", "id": "7", "meta": {"versionId": "6"}, "gender": "other"});
        Mock::given(method("GET")).and(path("/fhir/Patient/7")).respond_with(fhir(200, &newer)).mount(&server).await;
        has_patient(&server, true).await;
        for m in ["PATCH", "POST"] {
            Mock::given(method(m)).and(path_regex("^/fhir(/Patient/7)?$")).respond_with(fhir(status, &outcome("processing"))).mount(&server).await;
        }
        let setback = Delivery::new(1, vec![gender(SaveMode::Patch)]).send(send).to(&target(&server)).await.expect_err("too late");
        assert_eq!((setback.retry, setback.fault), (Retry::Transient, Fault::Race), "{send:?} {status}");
    }
}

/// A Bundle that is too big is not split behind the route's back: only `send: single` says that a message need not be all or nothing.
#[tokio::test]
async fn a_bundle_that_is_too_big_is_a_dead_letter_and_single_sends_none() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).and(path("/fhir")).respond_with(ResponseTemplate::new(413)).mount(&server).await;
    let created = || ResponseTemplate::new(201).insert_header("location", "Patient/1/_history/1");
    Mock::given(method("POST")).and(path("/fhir/Patient")).respond_with(created()).mount(&server).await;
    let target = target(&server);
    for send in [Sending::Transaction, Sending::Batch] {
        let refused = Delivery::new(1, vec![patient(SaveMode::CreateIfNone)]).send(send).to(&target).await.expect_err("too big");
        assert_eq!((refused.retry, refused.fault, refused.code), (Retry::Permanent, Fault::Message, "http-413"), "{send:?}");
    }
    assert_eq!(requests(&server).await.len(), 2, "nothing was tried in parts");
    Delivery::new(1, vec![patient(SaveMode::CreateIfNone)]).send(Sending::Single).to(&target).await.expect("one by one");
    assert!(requests(&server).await.iter().skip(2).all(|r| r.url.path() != "/fhir"), "no Bundle");
}

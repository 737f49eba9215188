//! The FHIR target end to end, against two servers that validate and have real transactions: tests/servers/fhir-server, and HAPI FHIR JPA
//! (tests/servers/hapi, with `KILN_E2E=1` when it is built).

mod servers_support;
mod target_support;

use kiln::exchange::{MessageId, Timestamp};
use kiln::fhir::{KnownId, ListMerge, Save, SaveMode, put_id};
use kiln::target::{Fault, PatchFormat, Receipt, Retry, Sending, Setback, Target};
use serde_json::{Value, json};
use servers_support::proxy::Proxy;
use servers_support::{Kind, Server};
use std::time::{Duration, Instant};
use target_support::{Delivery, SECRET, fhir_target, patching_target, save};

fn target(server: &Server) -> Target {
    fhir_target(&server.base, Duration::from_secs(20))
}

fn patient(mode: SaveMode, value: &str, family: &str) -> Save {
    save(mode, "Patient", &[value], json!({"name": [{"family": family}], "gender": "female"}))
}

fn encounter(value: &str) -> Save {
    save(SaveMode::Update, "Encounter", &[value], json!({"status": "finished", "class": {"code": "IMP"}, "subject": {"reference": "@0"}}))
}

/// Delivers as the engine would: again after a race or a failure that may heal, with what was learned, until done or refused.
async fn until_done(target: &Target, mut delivery: Delivery) -> Result<Receipt, Setback> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match delivery.to(target).await {
            Err(setback) if setback.retry != Retry::Permanent && Instant::now() < deadline => {
                delivery.after_ambiguous |= setback.retry == Retry::Ambiguous;
                delivery.done.extend(setback.saved);
                for n in setback.stale {
                    delivery.known[n] = None;
                }
            }
            other => return other,
        }
    }
}

#[tokio::test]
async fn every_mode_in_every_way_of_sending() {
    for server in Server::each().await {
        every_mode(&server).await;
    }
}

async fn every_mode(server: &Server) {
    let target = target(server);
    target.probe().await.expect("a CapabilityStatement");
    for send in [Sending::Transaction, Sending::Batch, Sending::Single] {
        server.reset().await;
        let deliver = |n: u64, entries: Vec<Save>| Delivery::new(n, entries).send(send);

        // create, with a reference
        let receipt = deliver(1, vec![patient(SaveMode::CreateIfNone, "urn:m|1", "First"), encounter("urn:v|1")]).to(&target).await.expect("created");
        let id = receipt.saved[0].id.clone();
        assert_eq!((receipt.saved.len(), receipt.saved[0].status, server.all("Patient").await[0]["id"] == json!(id)), (2, 201, true), "{send:?}");
        assert_eq!(server.all("Encounter").await[0]["subject"]["reference"], json!(format!("Patient/{id}")), "{send:?}");

        // create-if-none twice is one Patient, which is left alone
        let again = deliver(2, vec![patient(SaveMode::CreateIfNone, "urn:m|1", "Second"), encounter("urn:v|1")]).to(&target).await.expect("found");
        assert_eq!((&again.saved[0].id, again.saved[0].status), (&id, 200), "{send:?}");
        assert_eq!((server.all("Patient").await.len(), server.all("Encounter").await.len()), (1, 1), "{send:?}");
        assert_eq!(server.all("Patient").await[0]["name"][0]["family"], json!("First"), "{send:?}");

        // update, conditional and then by the known id with its ETag
        let updated = deliver(3, vec![patient(SaveMode::Update, "urn:m|1", "Third")]).to(&target).await.expect("updated");
        assert_eq!((&updated.saved[0].id, &server.all("Patient").await[0]["name"][0]["family"]), (&id, &json!("Third")), "{send:?}");
        let etag = updated.saved[0].etag.clone();
        let known = deliver(4, vec![patient(SaveMode::Update, "urn:m|1", "Fourth")]).known(0, &id, etag.as_deref());
        known.to(&target).await.expect("updated by id");
        if etag.is_some() {
            let stale = known.to(&target).await.expect_err("the ETag is old now");
            assert_eq!((stale.fault, stale.stale), (Fault::Race, vec![0]), "{send:?}");
        }

        // merge with a deletion; what the route does not map stays
        let mut merge = save(SaveMode::Merge, "Patient", &["urn:m|1"], json!({"birthDate": "1970-01-02"}));
        merge.deletes = vec![vec!["gender"]];
        let merged = deliver(5, vec![merge.clone(), encounter("urn:v|1")]).to(&target).await.expect("merged");
        let now = server.all("Patient").await.remove(0);
        assert_eq!((now.get("gender"), &now["birthDate"], &now["name"][0]["family"]), (None, &json!("1970-01-02"), &json!("Fourth")), "{send:?}");
        assert_eq!((merged.saved.len(), &merged.saved[0].id), (2, &id), "{send:?}");
        // again: nothing to write
        let version = now["meta"]["versionId"].clone();
        deliver(6, vec![merge]).to(&target).await.expect("nothing to do");
        assert_eq!(server.all("Patient").await[0]["meta"]["versionId"], version, "{send:?}");
        // a merge of somebody new creates
        deliver(7, vec![patient(SaveMode::Merge, "urn:m|2", "New")]).to(&target).await.expect("created");

        // put by: an id of our own
        let put = deliver(8, vec![patient(SaveMode::Put, "urn:m|3", "Put"), encounter("urn:v|3")]);
        let receipt = put.to(&target).await.expect("put");
        assert_eq!(receipt.saved[0].id, put_id(&SECRET, "Patient", &put.saves.entries[0].identity), "{send:?}");
        put.to(&target).await.expect("put again");
        assert_eq!(server.all("Patient").await.len(), 3, "{send:?}");

        // find refers and never writes; finding nothing is the message's fault
        let found = deliver(9, vec![patient(SaveMode::Find, "urn:m|2", ""), encounter("urn:v|9")]);
        found.to(&target).await.expect("found");
        let missing = deliver(10, vec![patient(SaveMode::Find, "urn:m|404", ""), encounter("urn:v|10")]).to(&target).await.expect_err("none");
        assert_eq!((missing.retry, missing.fault, missing.code), (Retry::Permanent, Fault::Message, "no-match"), "{send:?}");

        // delete, and delete again; HAPI keeps what others refer to, and then nobody repeats it for ever
        let visit = save(SaveMode::Delete, "Encounter", &["urn:v|3"], json!({}));
        if server.kind == Kind::Hapi {
            let kept = deliver(15, vec![patient(SaveMode::Delete, "urn:m|3", "")]).to(&target).await.expect_err("an Encounter refers to it");
            assert_eq!((kept.retry, kept.fault, kept.code), (Retry::Permanent, Fault::Message, "still-referred"), "{send:?}");
        }
        for n in [11, 12] {
            deliver(n, vec![visit.clone(), patient(SaveMode::Delete, "urn:m|3", "")])
                .to(&target)
                .await
                .unwrap_or_else(|s| panic!("{send:?}: {s:?} {:?}", s.detail.as_ref().map(|d| d.expose().clone())));
        }
        assert_eq!(server.all("Patient").await.len(), 2, "{send:?}");

        // a resource that the server refuses is the message's fault, and a transaction leaves nothing behind
        let bad = save(SaveMode::Update, "Encounter", &["urn:v|bad"], json!({"status": "not-a-status", "class": {"code": "IMP"}}));
        let refused = deliver(13, vec![patient(SaveMode::CreateIfNone, "urn:m|13", "X"), bad]).to(&target).await.expect_err("invalid");
        assert_eq!((refused.retry, refused.fault), (Retry::Permanent, Fault::Message), "{send:?}");
        // HAPI validates a Bundle as a whole before it takes anything of it.
        let nothing = send == Sending::Transaction || (send == Sending::Batch && server.kind == Kind::Hapi);
        assert_eq!(server.all("Patient").await.len(), if nothing { 2 } else { 3 }, "{send:?}");
    }
}

#[tokio::test]
async fn a_merged_list_knows_what_is_on_the_server_already() {
    for server in Server::each().await {
        merged_list(&server).await;
    }
}

/// The ward and the stay are there, and nobody told Kiln their ids: so it is after a kill between the server's answer and the receipt.
async fn merged_list(server: &Server) {
    let target = target(server);
    let stay = || {
        let mut stay = encounter("urn:v|1");
        stay.mode = SaveMode::Merge;
        stay.body = save(
            SaveMode::Merge,
            "Encounter",
            &["urn:v|1"],
            json!({"status": "in-progress", "class": {"code": "IMP"}, "subject": {"reference": "@0"}, "location": [{"location": {"reference": "@2"}, "status": "active"}]}),
        )
        .body;
        stay.merge = vec![("identifier", ListMerge::Union), ("location", ListMerge::By("location"))];
        let ward = save(SaveMode::CreateIfNone, "Location", &["urn:w|1"], json!({"name": "Ward 1"}));
        vec![patient(SaveMode::CreateIfNone, "urn:m|1", "Stays"), stay, ward]
    };
    for send in [Sending::Transaction, Sending::Batch, Sending::Single] {
        server.reset().await;
        for n in 1..=3 {
            until_done(&target, Delivery::new(n, stay()).send(send)).await.expect("delivered");
        }
        let there = server.all("Encounter").await.remove(0);
        assert_eq!(there["location"].as_array().map(Vec::len), Some(1), "{send:?}: {there}");
        assert_eq!(server.all("Location").await.len(), 1, "{send:?}");
    }
}

#[tokio::test]
async fn a_deleted_resource_is_looked_up_again() {
    for server in Server::each().await {
        deleted_meanwhile(&server).await;
    }
}

async fn deleted_meanwhile(server: &Server) {
    let target = target(server);
    for send in [Sending::Transaction, Sending::Single] {
        server.reset().await;
        let first = Delivery::new(1, vec![patient(SaveMode::Update, "urn:m|1", "A")]).to(&target).await.expect("created");
        let known = Some(KnownId { id: first.saved[0].id.clone(), etag: first.saved[0].etag.clone() });
        server.client.delete(format!("{}/Patient/{}", server.base, first.saved[0].id)).send().await.expect("deleted by somebody else");
        let mut next = Delivery::new(2, vec![patient(SaveMode::Merge, "urn:m|1", "B")]).send(send);
        next.known[0] = known;
        let receipt = until_done(&target, next).await.expect("created anew");
        assert_eq!((receipt.stale, receipt.saved.len(), server.all("Patient").await.len()), (vec![0], 1, 1), "{send:?}");
    }
}

#[tokio::test]
async fn lost_answers_never_make_a_second_resource() {
    for server in Server::each().await {
        lost_answers(&server).await;
    }
}

async fn lost_answers(server: &Server) {
    let proxy = Proxy::before(&server.base).await;
    proxy.faults(40, 10);
    let target = fhir_target(&proxy.base, Duration::from_secs(20));
    for send in [Sending::Transaction, Sending::Batch, Sending::Single] {
        server.reset().await;
        for n in 0..30u64 {
            for mode in [SaveMode::CreateIfNone, SaveMode::Merge, SaveMode::Patch, SaveMode::Update, SaveMode::Put] {
                let value = format!("urn:m|{mode:?}-{}", n % 10);
                let visit = format!("urn:v|{mode:?}-{n}");
                let delivery = Delivery::new(n * 10, vec![patient(mode, &value, &format!("F{n}")), encounter(&visit)]).send(send);
                until_done(&target, delivery).await.unwrap_or_else(|s| panic!("{send:?} {mode:?}: {s:?}"));
            }
        }
        assert_eq!((server.all("Patient").await.len(), server.all("Encounter").await.len()), (50, 150), "{send:?}");
        let states: Vec<Value> = server.all("Patient").await;
        let family = |p: &Value| p["name"][0]["family"].as_str().expect("a family").trim_start_matches('F').parse::<u32>().expect("a number");
        let created = |p: &Value| p["identifier"][0]["value"].as_str().expect("a value").starts_with("CreateIfNone");
        assert!(states.iter().all(|p| if created(p) { family(p) < 10 } else { family(p) >= 20 }), "{send:?}: each has the state of its last message");
    }
}

#[tokio::test]
async fn a_busy_server_says_when_and_a_server_that_is_down_is_transient_or_ambiguous() {
    let Some(server) = Server::start(Kind::Medplum).await else { return };
    let target = target(&server);
    server.control("fault", json!({"failRate": 1, "failStatus": 429, "retryAfter": "7"})).await;
    let busy = Delivery::new(1, vec![patient(SaveMode::Create, "urn:m|1", "A")]).to(&target).await.expect_err("busy");
    assert_eq!((busy.retry, busy.fault, busy.status, busy.retry_after), (Retry::Transient, Fault::Target, Some(429), Some(Duration::from_secs(7))));
    assert_eq!(target.probe().await.expect_err("busy").fault, Fault::Target);
    server.reset().await;
    server.control("fault", json!({"downForMs": 60_000})).await;
    let down = Delivery::new(1, vec![patient(SaveMode::Create, "urn:m|1", "A")]).to(&target).await.expect_err("down");
    assert_eq!((down.retry, down.fault), (Retry::Ambiguous, Fault::Target), "it accepted the connection: nobody knows what it did");
    let base = server.base.clone();
    drop(server);
    let gone = Delivery::new(1, vec![patient(SaveMode::Create, "urn:m|1", "A")]).to(&fhir_target(&base, Duration::from_secs(5))).await.expect_err("gone");
    assert_eq!((gone.retry, gone.code), (Retry::Transient, "connect"));
}

#[tokio::test]
async fn parallel_first_messages_of_one_patient_make_one_patient() {
    for server in Server::each().await {
        parallel_first_messages(&server).await;
    }
}

async fn parallel_first_messages(server: &Server) {
    let target = target(server);
    for send in [Sending::Transaction, Sending::Single] {
        let one = |n: u64| Delivery::new(n, vec![patient(SaveMode::Merge, "urn:m|same", "A"), encounter(&format!("urn:v|{n}"))]).send(send);
        let all: Vec<Delivery> = (0..8).map(one).collect();
        let results = futures_util::future::join_all(all.iter().map(|d| d.to(&target))).await;
        assert!(results.iter().all(Result::is_ok), "{send:?}");
    }
    assert_eq!((server.all("Patient").await.len(), server.all("Encounter").await.len()), (1, 8));
}

#[tokio::test]
async fn a_patch_changes_what_the_route_maps_in_every_way_of_sending() {
    for server in Server::each().await {
        patched(&server).await;
    }
}

async fn patched(server: &Server) {
    for format in [PatchFormat::Json, PatchFormat::FhirPath] {
        let target = patching_target(&server.base, Duration::from_secs(20), Some(format));
        for send in [Sending::Transaction, Sending::Batch, Sending::Single] {
            let what = format!("{format:?} {send:?}");
            server.reset().await;
            let deliver = |n: u64, entries: Vec<Save>| Delivery::new(n, entries).send(send);
            // Nobody has it: created, with what counts on creation only.
            let mut first = patient(SaveMode::Patch, "urn:m|1", "First");
            first.initial = Some(target_support::node(&json!({"active": true})));
            let created = deliver(1, vec![first, encounter("urn:v|1")]).to(&target).await.expect("created");
            let id = created.saved[0].id.clone();
            assert_eq!(server.all("Patient").await[0]["active"], json!(true), "{what}");

            // Somebody adds what the route does not map; the patch leaves it, changes one element, adds one and removes one.
            let mut stored = server.all("Patient").await.remove(0);
            stored["photo"] = json!([{"title": "theirs"}]);
            server
                .client
                .put(format!("{}/Patient/{id}", server.base))
                .body(stored.to_string())
                .header("content-type", "application/fhir+json")
                .send()
                .await
                .expect("put");
            let mut second = save(SaveMode::Patch, "Patient", &["urn:m|1"], json!({"name": [{"family": "Second"}], "birthDate": "1970-01-02"}));
            second.deletes = vec![vec!["gender"]];
            second.initial = Some(target_support::node(&json!({"active": false})));
            let patched = deliver(2, vec![second.clone(), encounter("urn:v|1")]).to(&target).await.expect("patched");
            let now = server.all("Patient").await.remove(0);
            assert_eq!((&now["photo"], &now["active"], &now["birthDate"]), (&json!([{"title": "theirs"}]), &json!(true), &json!("1970-01-02")), "{what}");
            assert_eq!((now.get("gender"), &now["name"], &patched.saved[0].id), (None, &json!([{"family": "Second"}]), &id), "{what}");
            if send == Sending::Single && server.kind == Kind::Medplum {
                assert_eq!(server.control("stats", json!({})).await["by"]["PATCH Patient"], json!(1), "{what}");
            }

            // Again by the id that is known now: nothing to send.
            let version = now["meta"]["versionId"].clone();
            deliver(3, vec![second]).known(0, &id, Some("W/\"outdated\"")).to(&target).await.expect("nothing to do");
            assert_eq!(server.all("Patient").await[0]["meta"]["versionId"], version, "{what}");

            // What the server refuses is the message's fault, once.
            let bad = save(SaveMode::Patch, "Patient", &["urn:m|1"], json!({"gender": "no-such-code"}));
            let refused = deliver(4, vec![bad]).to(&target).await.expect_err("invalid");
            assert_eq!((refused.retry, refused.fault), (Retry::Permanent, Fault::Message), "{what}: {}", refused.code);

            // A reference to what the same transaction creates.
            let organization = save(SaveMode::CreateIfNone, "Organization", &["urn:o|1"], json!({"name": "New"}));
            let member = save(SaveMode::Patch, "Patient", &["urn:m|1"], json!({"managingOrganization": {"reference": "@0"}}));
            let both = deliver(5, vec![organization, member])
                .to(&target)
                .await
                .unwrap_or_else(|s| panic!("{what}: {s:?} {:?}", s.detail.as_ref().map(|d| d.expose().clone())));
            let expected = json!(format!("Organization/{}", both.saved[0].id));
            assert_eq!(server.all("Patient").await[0]["managingOrganization"]["reference"], expected, "{what}");
        }
    }
}

/// Eight writers that know nothing of each other, as eight Kilns would be, two with each change: none is lost, and none is made twice.
#[tokio::test]
async fn patches_of_many_writers_are_all_there() {
    for server in Server::each().await {
        many_writers(&server).await;
    }
}

async fn many_writers(server: &Server) {
    let proxy = Proxy::before(&server.base).await;
    for (format, send) in [
        (PatchFormat::Json, Sending::Single),
        (PatchFormat::Json, Sending::Transaction),
        (PatchFormat::FhirPath, Sending::Batch),
        (PatchFormat::FhirPath, Sending::Transaction),
    ] {
        server.reset().await;
        Delivery::new(0, vec![patient(SaveMode::Patch, "urn:m|1", "A")]).to(&target(server)).await.expect("created");
        proxy.faults(10, 0);
        let writers: Vec<Target> = (0..8).map(|_| patching_target(&proxy.base, Duration::from_secs(20), Some(format))).collect();
        let write = |n: usize| {
            let identifiers = json!([{"system": "urn:m", "value": "1"}, {"system": "urn:w", "value": (n / 2).to_string()}]);
            let delivery = Delivery::new(n as u64 + 1, vec![save(SaveMode::Patch, "Patient", &["urn:m|1"], json!({"identifier": identifiers}))]);
            until_done(&writers[n], delivery.send(send))
        };
        let results = futures_util::future::join_all((0..8).map(write)).await;
        assert!(results.iter().all(Result::is_ok), "{format:?} {send:?}");
        let identifiers = server.all("Patient").await.remove(0)["identifier"].as_array().expect("a list").len();
        assert_eq!(identifiers, 5, "{format:?} {send:?}: each pair's own, and none twice");
    }
}

/// What a site's routes make of a message, with the shipped maps.
fn mapped(routes: &str, message: &str) -> Vec<Save> {
    let mut sources = kiln::site::route_sources(&[]).expect("the shipped routes");
    sources.add("site.yaml", routes);
    let loaded = kiln::route::load(sources, &kiln::route::LoadOptions::default());
    let faults: Vec<String> = loaded.diagnostics.iter().map(|d| format!("{} {}", d.code, d.message)).collect();
    let set = loaded.set.unwrap_or_else(|| panic!("{faults:#?}"));
    let bytes = bytes::Bytes::from(message.replace('\n', "\r"));
    let message = kiln::hl7v2::Message::parse(bytes, &kiln::hl7v2::ParseOptions::default()).expect("it parses");
    let context = kiln::route::Context {
        received: Timestamp(0),
        zone: None,
        authority: Some("HOSP"),
        message: MessageId(1),
        listener: "adt",
        answers: kiln::fhir::Answers::NONE,
    };
    let routes: Vec<_> = set.matching("adt", &message).taken.into_iter().filter(|route| set.info(*route).name.starts_with("own-")).collect();
    let outputs = routes.into_iter().map(|route| set.run(route, &message, &context).unwrap_or_else(|s| panic!("{}: {}", s.kind, s.text)));
    outputs.flat_map(|output| output.saves.entries).collect()
}

const OWN: &str = r#"route: own-changes
on: [ADT^A01, ADT^A08]
to: main
resources:
  patient: { $map: PID -> Patient, $save: patch by PID-3 }
  encounter: { $map: PV1 -> Encounter, $save: merge by PV1-19, subject: patient, status: "in-progress" }
---
route: own-visit-removal
on: ADT^A23
to: main
resources:
  encounter: { $map: PV1 -> Encounter, $save: delete by PV1-19 }
---
route: own-person-removal
on: ADT^A29
to: main
resources:
  patient: { $map: PID -> Patient, $save: delete by PID-3 }
"#;

#[tokio::test]
async fn messages_change_a_patient_by_patch_and_take_away_the_visit_and_the_person() {
    for server in Server::each().await {
        changed_and_taken_away(&server).await;
    }
}

async fn changed_and_taken_away(server: &Server) {
    let target = target(server);
    let message = |event: &str, name: &str, born: &str| {
        format!(
            "MSH|^~\\&|ADT|HOSP|||20260101||ADT^{event}|1|P|2.5.1\nEVN|{event}|20260101\nPID|1||4711^^^HOSP^MR||{name}||{born}|F\nPV1|1|I|W1||||||||||||||||V1^^^HOSP"
        )
    };
    for send in [Sending::Transaction, Sending::Batch, Sending::Single] {
        server.reset().await;
        for (n, (event, name, born)) in [("A01", "Meier^Eva", "19700102"), ("A08", "Huber^Eva", "\"\"")].into_iter().enumerate() {
            Delivery::new(n as u64, mapped(OWN, &message(event, name, born))).send(send).to(&target).await.expect("saved");
        }
        let patient = server.all("Patient").await.remove(0);
        assert_eq!((&patient["name"][0]["family"], patient.get("birthDate"), &patient["gender"]), (&json!("Huber"), None, &json!("female")), "{send:?}");
        // Twice: what is gone already is gone.
        for n in [3, 4] {
            let gone = Delivery::new(n, mapped(OWN, &message("A23", "Huber^Eva", ""))).send(send).to(&target).await;
            gone.unwrap_or_else(|s| panic!("{send:?}: {s:?}"));
            assert_eq!((server.all("Patient").await.len(), server.all("Encounter").await.len()), (1, 0), "{send:?}");
        }
        Delivery::new(5, mapped(OWN, &message("A29", "Huber^Eva", ""))).send(send).to(&target).await.expect("deleted");
        assert_eq!(server.all("Patient").await.len(), 0, "{send:?}");
    }
}

#[tokio::test]
async fn of_two_that_match_none_is_deleted() {
    for server in Server::each().await {
        twins(&server).await;
    }
}

async fn twins(server: &Server) {
    let target = target(server);
    for send in [Sending::Transaction, Sending::Batch, Sending::Single] {
        server.reset().await;
        for _ in 0..2 {
            let twin = json!({"resourceType": "Patient", "identifier": [{"system": "urn:m", "value": "1"}]});
            let request = server.client.post(format!("{}/Patient", server.base)).header("content-type", "application/fhir+json");
            request.body(twin.to_string()).send().await.expect("created");
        }
        let refused = Delivery::new(1, vec![patient(SaveMode::Delete, "urn:m|1", "")]).send(send).to(&target).await.expect_err("which?");
        assert_eq!((refused.fault, refused.code, server.all("Patient").await.len()), (Fault::Message, "several-matches", 2), "{send:?}");
    }
}

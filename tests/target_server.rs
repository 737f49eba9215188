//! The FHIR target end to end, against two servers that validate and have real transactions: tests/servers/fhir-server, and HAPI FHIR JPA
//! (tests/servers/hapi, with `KILN_E2E=1` when it is built).

mod servers_support;
mod target_support;

use kiln::fhir::{KnownId, Save, SaveMode, put_id};
use kiln::target::{Fault, Receipt, Retry, Sending, Setback, Target};
use serde_json::{Value, json};
use servers_support::proxy::Proxy;
use servers_support::{Kind, Server};
use std::time::{Duration, Instant};
use target_support::{Delivery, SECRET, fhir_target, save};

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
            for mode in [SaveMode::CreateIfNone, SaveMode::Merge, SaveMode::Update, SaveMode::Put] {
                let value = format!("urn:m|{mode:?}-{}", n % 10);
                let visit = format!("urn:v|{mode:?}-{n}");
                let delivery = Delivery::new(n * 10, vec![patient(mode, &value, &format!("F{n}")), encounter(&visit)]).send(send);
                until_done(&target, delivery).await.unwrap_or_else(|s| panic!("{send:?} {mode:?}: {s:?}"));
            }
        }
        assert_eq!((server.all("Patient").await.len(), server.all("Encounter").await.len()), (40, 120), "{send:?}");
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

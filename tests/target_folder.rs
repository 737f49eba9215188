//! The folder target from its front door: what is on the disk after deliveries, crashes and restarts.
#![allow(clippy::disallowed_methods, reason = "tasks end with the runtime of their test")]

mod target_support;

use kiln::exchange::Secret;
use kiln::fhir::{SaveMode, put_id};
use kiln::target::{Fault, FolderConfig, Layout, Retry, Target, TargetConfig, TargetError};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use target_support::{Delivery, SECRET, save};

fn open(path: &Path, layout: Layout, max_file_bytes: u64) -> Result<Target, TargetError> {
    Target::open(TargetConfig::Folder(FolderConfig { path: path.to_owned(), layout, secret: Secret::new(SECRET), max_file_bytes }))
}

fn json_folder(path: &Path) -> Target {
    open(path, Layout::Json, 0).expect("the folder opens")
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'))
}

/// All JSON files by their path in the folder.
fn files(root: &Path) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for folder in fs::read_dir(root).expect("the folder").map(|e| e.expect("an entry").path()).filter(|p| p.is_dir() && !is_hidden(p)) {
        for file in fs::read_dir(&folder).expect("a type's folder").map(|e| e.expect("an entry").path()) {
            let name = file.strip_prefix(root).expect("within").display().to_string();
            all.insert(name, serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON"));
        }
    }
    all
}

fn patient(mode: SaveMode, value: &str, family: &str) -> kiln::fhir::Save {
    save(mode, "Patient", &[value], json!({"name": [{"family": family}]}))
}

#[tokio::test]
async fn a_file_has_the_current_state_under_an_id_that_tells_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = json_folder(folder.path());
    let encounter = save(SaveMode::Update, "Encounter", &["urn:v|77"], json!({"status": "finished", "subject": {"reference": "@0"}}));
    let first = Delivery::new(1, vec![patient(SaveMode::Update, "urn:mrn|4711", "Marked"), encounter]);
    let receipt = first.to(&target).await.expect("delivered");
    let id = put_id(&SECRET, "Patient", &first.saves.entries[0].identity);
    assert_eq!((receipt.saved[0].id.as_str(), receipt.saved[0].status, receipt.saved.len()), (id.as_str(), 201, 2));
    Delivery::new(2, vec![patient(SaveMode::Update, "urn:mrn|4711", "New")]).to(&target).await.expect("delivered");
    let all = files(folder.path());
    assert_eq!(all.len(), 2);
    let stored = &all[&format!("Patient/{id}.json")];
    assert_eq!((&stored["id"], &stored["name"][0]["family"]), (&json!(id), &json!("New")));
    let encounter = all.iter().find(|(name, _)| name.starts_with("Encounter/")).expect("an encounter").1;
    assert_eq!(encounter["subject"]["reference"], json!(format!("Patient/{id}")));
    assert!(all.keys().all(|name| !name.contains("4711") && !name.contains("77.json")));
}

#[tokio::test]
async fn a_message_has_a_file_of_its_own_that_a_repetition_replaces() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = json_folder(folder.path());
    let two = [("lab/1", "MSH|^~\\&|A\rPID|1||4711\r"), ("lab/2", "MSH|^~\\&|B\r")];
    let receipt = Delivery::messages(7, &two).to(&target).await.expect("written");
    let read = || -> BTreeMap<String, String> {
        let entries = fs::read_dir(folder.path().join("messages")).expect("the folder").map(|e| e.expect("an entry").path());
        entries.map(|p| (p.file_name().expect("a name").to_string_lossy().into_owned(), fs::read_to_string(&p).expect("text"))).collect()
    };
    let before = read();
    assert_eq!((before.len(), receipt.messages.len()), (2, 2));
    assert!(before.keys().all(|name| name.starts_with("000000000007-") && name.ends_with(".hl7") && !name.contains("4711")), "{before:?}");
    assert!(receipt.messages.iter().all(|file| before.contains_key(file.trim_start_matches("messages/"))));
    assert!(before.values().any(|text| text == two[0].1));
    assert_eq!(Delivery::messages(7, &two).ambiguous().to(&target).await.expect("written again"), receipt);
    assert_eq!(read(), before);
    Delivery::messages(8, &two).to(&target).await.expect("another message");
    assert_eq!(read().len(), 4);

    let lines = tempfile::tempdir().expect("a folder");
    let ndjson = open(lines.path(), Layout::Ndjson, 1 << 20).expect("the folder opens");
    let refused = Delivery::messages(7, &two).to(&ndjson).await.expect_err("lines hold resources");
    assert_eq!((refused.code, refused.fault), ("takes-no-messages", Fault::Message));
}

#[tokio::test]
async fn each_mode_does_to_a_file_what_it_does_to_a_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = json_folder(folder.path());
    let one = |n, save| Delivery::new(n, vec![save]);
    let state = || files(folder.path()).into_values().next().expect("one file");

    let missing = one(1, patient(SaveMode::Find, "urn:m|1", "")).to(&target).await.expect_err("there is none");
    assert_eq!((missing.retry, missing.fault, missing.code), (Retry::Permanent, Fault::Message, "no-match"));
    one(2, patient(SaveMode::CreateIfNone, "urn:m|1", "First")).to(&target).await.expect("created");
    one(3, patient(SaveMode::CreateIfNone, "urn:m|1", "Second")).to(&target).await.expect("left alone");
    assert_eq!(state()["name"][0]["family"], json!("First"));

    let mut merge = save(SaveMode::Merge, "Patient", &["urn:m|1", "urn:x|9"], json!({"gender": "female"}));
    merge.deletes = vec![vec!["name"]];
    one(4, merge.clone()).to(&target).await.expect("merged");
    let merged = state();
    assert_eq!((&merged["gender"], merged.get("name"), merged["identifier"].as_array().map(Vec::len)), (&json!("female"), None, Some(2)));
    let again = one(5, merge).to(&target).await.expect("nothing to do");
    assert_eq!(again.saved[0].status, 200);

    // Known by its other identity only: the id that the engine remembers leads to the same file.
    let id = again.saved[0].id.clone();
    one(6, patient(SaveMode::Update, "urn:x|9", "Other")).known(0, &id, None).to(&target).await.expect("updated");
    assert_eq!((files(folder.path()).len(), &state()["name"][0]["family"]), (1, &json!("Other")));

    let gone = one(7, patient(SaveMode::Delete, "urn:m|1", "")).known(0, &id, None).to(&target).await.expect("deleted");
    assert_eq!((gone.saved.len(), gone.stale), (0, vec![0]));
    assert!(files(folder.path()).is_empty());
    one(8, patient(SaveMode::Delete, "urn:m|1", "")).to(&target).await.expect("already gone");

    one(9, save(SaveMode::Create, "Patient", &[], json!({}))).to(&target).await.expect("created");
    one(9, save(SaveMode::Create, "Patient", &[], json!({}))).to(&target).await.expect("the same delivery again");
    one(10, save(SaveMode::Create, "Patient", &[], json!({}))).to(&target).await.expect("another");
    assert_eq!(files(folder.path()).len(), 2);
}

#[tokio::test]
async fn any_identity_of_a_resource_leads_to_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let both = |family: &str| save(SaveMode::Merge, "Patient", &["urn:mr|MARK-1", "urn:pi|MARK-2"], json!({"name": [{"family": family}]}));
    let target = json_folder(folder.path());
    Delivery::new(1, vec![both("A")]).to(&target).await.expect("created");
    Delivery::new(2, vec![patient(SaveMode::Update, "urn:pi|MARK-2", "B")]).to(&target).await.expect("updated");
    drop(target);
    let target = json_folder(folder.path());
    let encounter = save(SaveMode::Update, "Encounter", &["urn:v|1"], json!({"status": "finished", "subject": {"reference": "@0"}}));
    let receipt = Delivery::new(3, vec![patient(SaveMode::Find, "urn:pi|MARK-2", ""), encounter]).to(&target).await.expect("found");
    let all = files(folder.path());
    assert_eq!((all.len(), &all[&format!("Patient/{}.json", receipt.saved[0].id)]["name"][0]["family"]), (2, &json!("B")));
    // Deleted and made again under the other identity: the old note is no lie for long.
    Delivery::new(4, vec![both("")].into_iter().map(|s| kiln::fhir::Save { mode: SaveMode::Delete, ..s }).collect()).to(&target).await.expect("deleted");
    Delivery::new(5, vec![patient(SaveMode::Update, "urn:pi|MARK-2", "C")]).to(&target).await.expect("created");
    Delivery::new(6, vec![both("D")]).to(&target).await.expect("merged");
    assert_eq!(files(folder.path()).keys().filter(|n| n.starts_with("Patient/")).count(), 1);
    let names = walk(folder.path());
    assert!(names.len() > 3 && names.iter().all(|n| !n.contains("MARK")), "no name tells anything: {names:?}");
}

/// The names of all files and folders.
fn walk(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("a folder").map(|e| e.expect("an entry").path());
    entries.flat_map(|p| if p.is_dir() { walk(&p) } else { vec![p.display().to_string()] }).collect()
}

#[tokio::test]
async fn several_files_of_one_identity_are_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = json_folder(folder.path());
    for (n, value) in [(1, "urn:a|1"), (2, "urn:b|2")] {
        Delivery::new(n, vec![patient(SaveMode::Update, value, "X")]).to(&target).await.expect("delivered");
    }
    let both = save(SaveMode::Update, "Patient", &["urn:a|1", "urn:b|2"], json!({}));
    let before = files(folder.path());
    let setback = Delivery::new(3, vec![save(SaveMode::Create, "Patient", &[], json!({})), both]).to(&target).await.expect_err("two files");
    assert_eq!((setback.retry, setback.code), (Retry::Permanent, "several-matches"));
    assert_eq!(files(folder.path()), before);
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(json_folder(folder.path()));
    fs::write(folder.path().join(".kiln-tmp/3"), "{\"resourceType\":").expect("a torn file");
    let target = json_folder(folder.path());
    assert_eq!(fs::read_dir(folder.path().join(".kiln-tmp")).expect("exists").count(), 0);
    target.probe().await.expect("there");
    drop(target);
    fs::remove_dir_all(folder.path()).expect("removable");
}

#[tokio::test]
async fn one_writer_per_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = json_folder(folder.path());
    assert!(matches!(open(folder.path(), Layout::Json, 0), Err(TargetError::Folder { .. })));
    drop(target);
    json_folder(folder.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_deliveries_at_once_end_in_the_right_state() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = std::sync::Arc::new(json_folder(folder.path()));
    let mut tasks = Vec::new();
    for lane in 0..64u64 {
        let target = target.clone();
        tasks.push(tokio::spawn(async move {
            for n in 0..50u64 {
                // Each lane has its own patients, in order; all share one organization.
                let own = patient(SaveMode::Merge, &format!("urn:m|{lane}-{}", n % 10), &format!("F{n}"));
                let shared = save(SaveMode::CreateIfNone, "Organization", &["urn:o|1"], json!({"name": "H"}));
                Delivery::new(lane * 1000 + n, vec![own, shared]).to(&target).await.expect("delivered");
            }
        }));
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    let all = files(folder.path());
    assert_eq!(all.len(), 641);
    let last: Vec<&Value> = all.iter().filter(|(name, _)| name.starts_with("Patient/")).map(|(_, p)| &p["name"][0]["family"]).collect();
    assert!(last.iter().all(|f| f.as_str().is_some_and(|f| f.len() == 3 && f.starts_with("F4"))), "each patient has the state of the last message");
}

fn lines(root: &Path, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(root.join(name)).unwrap_or_default();
    text.lines().map(|l| serde_json::from_str(l).expect("a JSON line")).collect()
}

fn ndjson(path: &Path) -> Target {
    open(path, Layout::Ndjson, 1 << 20).expect("the folder opens")
}

#[tokio::test]
async fn ndjson_never_holds_a_delivery_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let delivery = |n| Delivery::new(n, vec![patient(SaveMode::Update, "urn:m|1", "A"), save(SaveMode::Find, "Organization", &["urn:o|1"], json!({}))]);
    let target = ndjson(root);
    let first = delivery(1).to(&target).await.expect("delivered");
    let second = delivery(2).to(&target).await.expect("delivered");
    assert_eq!((first.saved[0].id == second.saved[0].id, lines(root, "Patient.ndjson").len(), root.join("Organization.ndjson").exists()), (true, 2, false));
    // The journal died before it settled the second: it comes again, with the folder open and after a restart.
    delivery(2).to(&target).await.expect("known");
    drop(target);
    let target = ndjson(root);
    target.resume(second.state.as_deref().expect("a state")).expect("in step");
    assert_eq!(delivery(2).to(&target).await.expect("known").saved, second.saved);
    assert_eq!(lines(root, "Patient.ndjson").len(), 2);
    assert!(matches!(target.resume("99"), Err(TargetError::Behind { folder: 2, journal: 99 })));
}

#[tokio::test]
async fn ndjson_cuts_off_what_no_commit_covers() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let delivery = |n| Delivery::new(n, vec![patient(SaveMode::Update, &format!("urn:m|{n}"), "A")]);
    let target = ndjson(root);
    delivery(1).to(&target).await.expect("delivered");
    drop(target);
    // A crash after the lines and before the record, and in the middle of the record.
    let append = |name: &str, text: &str| {
        fs::OpenOptions::new().append(true).create(true).open(root.join(name)).expect("open").write_all(text.as_bytes()).expect("write")
    };
    append("Patient.ndjson", "{\"resourceType\":\"Patient\",\"id\":\"torn");
    append("Encounter.ndjson", "{\"resourceType\":\"Encounter\"}\n");
    append(".kiln-commits", "{\"commit\":2,\"files\":{\"Patient\":[0,");
    let target = ndjson(root);
    delivery(2).to(&target).await.expect("delivered");
    assert_eq!((lines(root, "Patient.ndjson").len(), lines(root, "Encounter.ndjson").len()), (2, 0));
    drop(target);
    // What was delivered and is missing is never passed over.
    fs::OpenOptions::new().write(true).open(root.join("Patient.ndjson")).expect("open").set_len(10).expect("cut");
    assert!(matches!(open(root, Layout::Ndjson, 1 << 20), Err(TargetError::Folder { .. })));
}

#[tokio::test]
async fn ndjson_rotates_and_survives_a_crash_in_the_rotation() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let delivery = |n| Delivery::new(n, vec![patient(SaveMode::Update, &format!("urn:m|{n}"), "A")]);
    let target = open(root, Layout::Ndjson, 300).expect("opens");
    for n in 1..=5 {
        delivery(n).to(&target).await.expect("delivered");
    }
    drop(target);
    let count = |name: &str| lines(root, name).len();
    let (aside, current) = (count("Patient.1.ndjson"), count("Patient.ndjson"));
    assert_eq!((aside + current, aside > 0, current > 0), (5, true, true));
    // Renamed, but not yet recorded.
    fs::rename(root.join("Patient.ndjson"), root.join("Patient.2.ndjson")).expect("rename");
    let target = open(root, Layout::Ndjson, 1 << 20).expect("opens");
    assert_eq!((count("Patient.ndjson"), root.join("Patient.2.ndjson").exists()), (current, false));
    delivery(6).to(&target).await.expect("delivered");
    assert_eq!(count("Patient.ndjson"), current + 1);
}

#[tokio::test]
async fn ndjson_leaves_foreign_files_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("Patient.ndjson"), "{}\n").expect("a file of somebody else's");
    assert!(matches!(open(folder.path(), Layout::Ndjson, 1 << 20), Err(TargetError::Folder { .. })));
    assert_eq!(fs::read_to_string(folder.path().join("Patient.ndjson")).expect("still there"), "{}\n");
}

#[tokio::test]
async fn ndjson_writes_deletions_as_bulk_data_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = ndjson(folder.path());
    Delivery::new(1, vec![patient(SaveMode::Delete, "urn:m|1", "")]).known(0, "p-1", None).to(&target).await.expect("delivered");
    let expected = json!({"resourceType": "Bundle", "type": "transaction", "entry": [{"request": {"method": "DELETE", "url": "Patient/p-1"}}]});
    assert_eq!(lines(folder.path(), "deleted.ndjson"), [expected]);
}

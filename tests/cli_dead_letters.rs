//! Dead letters from outside: listed by all that is known of them, shown with the field behind the server's complaint, edited, and replayed one or
//! many, without ever putting an older state over a newer one unasked.

mod cli_support;
mod fhir_double;
use cli_support::moody::{odd, site};
use cli_support::{Daemon, exchange, kiln, run, wait_for};
use fhir_double::{Server, outcome};
use serde_json::Value;
use std::io::{Read, Write};
use std::path::Path;

const ROUTE: &str = "route: odd\non: [ZZZ^Z01]\nto: main\nafter-dead-letter: go-on\nresources:\n  who: { $map: PID -> Patient, $save: update by PID-3 }\n";

/// A site with one server.
fn with(server: &Server) -> tempfile::TempDir {
    let text = format!(
        "listeners:\n  adt: {{ mllp: 127.0.0.1:0 }}\n  lab: {{ mllp: 127.0.0.1:0 }}\ntargets:\n  main: {{ fhir: 'http://{}/r4', timeout: 2s, settle: 100ms }}\n",
        server.address
    );
    site(&text, ROUTE)
}

/// 422 to a family REFUSE, 400 to a family BAD.
fn picky() -> Server {
    Server::start(|asked| {
        let text = asked.body.to_string();
        let at = |n: usize| format!("Bundle.entry[{n}].resource.ofType(Patient).name[0].family");
        if text.contains("REFUSE") { Some((422, outcome("value", Some(&at(0))))) } else { text.contains("BAD").then(|| (400, outcome("structure", None))) }
    })
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(json).collect()
}

fn dead(folder: &Path, args: &[&str]) -> Vec<Value> {
    lines(&run(folder, &[&["journal", "dead-letters", "--json"], args].concat()).out)
}

fn show(folder: &Path, number: u64) -> Value {
    json(run(folder, &["journal", "show", &number.to_string(), "--json", "--fhir"]).expect(0).out.trim())
}

fn state(folder: &Path, number: u64) -> String {
    show(folder, number)["deliveries"][0]["state"].as_str().expect("a state").to_owned()
}

#[test]
fn they_are_listed_by_all_that_is_known_of_them_and_shown_with_the_field_behind_the_complaint() {
    let server = picky();
    let folder = with(&server);
    let daemon = Daemon::start(folder.path());
    exchange(daemon.address("adt on "), odd("C1", "4711", "REFUSE").as_bytes());
    exchange(daemon.address("lab on "), odd("C2", "4712", "BAD").as_bytes());
    exchange(daemon.address("adt on "), odd("C3", "4713", "Meier").as_bytes());
    wait_for("two dead letters", || dead(folder.path(), &[]).len() == 2);
    wait_for("the index", || run(folder.path(), &["journal", "search", "--patient", "4713"]).code == 0);
    for (args, controls) in [
        (vec!["--code", "http-422"], vec!["C1"]),
        (vec!["--listener", "lab"], vec!["C2"]),
        (vec!["--patient", "4711"], vec!["C1"]),
        (vec!["--reason", "ANSWERED 400"], vec!["C2"]),
        (vec!["--type", "ZZZ", "--route", "odd", "--target", "main"], vec!["C2", "C1"]),
        (vec!["--type", "ADT"], vec![]),
        (vec!["--since", "2999-01-01"], vec![]),
        (vec!["--until", "2999-01-01", "--limit", "1"], vec!["C2"]),
    ] {
        let found: Vec<_> = dead(folder.path(), &args).iter().map(|d| d["controlId"].as_str().expect("one").to_owned()).collect();
        assert_eq!(found, controls, "{args:?}");
    }
    let table = run(folder.path(), &["journal", "dead-letters"]).expect(0).out;
    assert!(table.contains("http-422") && table.contains("the server answered 422"), "{table}");
    let kinds = lines(&run(folder.path(), &["journal", "dead-letters", "--by-reason", "--json"]).expect(0).out);
    assert_eq!(kinds.iter().map(|k| k["count"].clone()).collect::<Vec<_>>(), [1, 1]);
    run(folder.path(), &["journal", "dead-letters", "--code", "none"]).expect(1);

    let shown = show(folder.path(), 1);
    let delivery = &shown["deliveries"][0];
    let complaint = &delivery["complaints"][0];
    assert_eq!((complaint["element"].as_str(), complaint["fields"][0].as_str()), (Some("Patient.name[0].family"), Some("PID-5.1")), "{shown}");
    assert!(complaint["line"].as_str().expect("a line").starts_with("shipped/"), "{complaint}");
    assert_eq!(delivery["made"]["bundle"]["entry"][0]["resource"]["name"][0]["family"], "REFUSE");
    let text = run(folder.path(), &["journal", "show", "1"]).expect(0).out;
    assert!(text.contains("refused: Patient.name[0].family (value) value, says the server") && text.contains("it is made of PID-5.1 by shipped/"), "{text}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn an_edited_message_is_delivered_and_the_one_that_was_received_stays() {
    let server = picky();
    let folder = with(&server);
    let daemon = Daemon::start(folder.path());
    exchange(daemon.address("adt on "), odd("C1", "4711", "REFUSE").as_bytes());
    exchange(daemon.address("adt on "), odd("C2", "4712", "REFUSE").as_bytes());
    wait_for("the dead letters", || dead(folder.path(), &[]).len() == 2);

    std::fs::write(folder.path().join("mended.hl7"), odd("C1", "4711", "Mended").replace('\r', "\n")).expect("a file");
    let replay = |args: &[&str]| run(folder.path(), &[&["journal", "replay"], args].concat());
    replay(&["1", "2", "--with", "mended.hl7"]).expect(2);
    std::fs::write(folder.path().join("broken.hl7"), "PID|1").expect("a file");
    let broken = replay(&["1", "--with", "broken.hl7"]).expect(2);
    assert!(broken.err.contains("the edited message cannot be read") && broken.err.contains("nothing was changed"), "{}", broken.err);
    std::fs::write(folder.path().join("same.hl7"), odd("C1", "4711", "REFUSE")).expect("a file");
    replay(&["1", "--with", "same.hl7"]).expect(1);
    assert!(show(folder.path(), 1)["edits"].as_array().expect("a list").is_empty());

    replay(&["1", "--with", "mended.hl7"]).expect(0);
    // An editor is a command that changes the file.
    let edited = kiln(folder.path()).args(["journal", "replay", "2", "--edit"]).env("EDITOR", "sed -i s/REFUSE/Edited/").output().expect("it starts");
    assert_eq!(edited.status.code(), Some(0), "{edited:?}");
    wait_for("both deliveries", || server.families().len() == 2);
    let mut families = server.families();
    families.sort();
    assert_eq!(families, ["Edited", "Mended"]);
    wait_for("the outcome", || state(folder.path(), 1) == "delivered");

    let shown = show(folder.path(), 1);
    assert_eq!(shown["message"], odd("C1", "4711", "REFUSE"), "what was received stays");
    assert_eq!(shown["edits"][0]["message"], odd("C1", "4711", "Mended"), "a line a segment in the file, the message's own ends in the journal");
    assert!(shown["edits"][0]["by"].as_str().expect("who").contains("(uid "), "{shown}");
    let replayed =
        shown["deliveries"][0]["attempts"].as_array().expect("attempts").iter().find(|a| a["outcome"] == "replayed").expect("it was replayed").clone();
    assert!(replayed["summary"].as_str().expect("who").contains("(uid "), "{replayed}");
    assert_eq!(run(folder.path(), &["journal", "show", "1", "--raw"]).out, odd("C1", "4711", "REFUSE"));
    assert_eq!(run(folder.path(), &["journal", "show", "1", "--edited"]).out, odd("C1", "4711", "Mended"));
    let left: Vec<_> =
        folder.path().join("journal").read_dir().expect("a folder").flatten().filter(|f| f.file_name().to_string_lossy().starts_with("edit")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn many_are_replayed_or_skipped_by_what_they_have_in_common() {
    let server = picky();
    let folder = with(&server);
    let daemon = Daemon::start(folder.path());
    for n in 0..3 {
        exchange(daemon.address("adt on "), odd(&format!("R{n}"), &format!("1{n}"), "REFUSE").as_bytes());
        exchange(daemon.address("adt on "), odd(&format!("B{n}"), &format!("2{n}"), "BAD").as_bytes());
    }
    wait_for("the dead letters", || dead(folder.path(), &[]).len() == 6);
    let command = |args: &[&str]| run(folder.path(), &[&["journal"], args].concat());
    let refused = command(&["replay"]).expect(2);
    assert!(refused.err.contains("say which"), "{}", refused.err);
    command(&["replay", "1", "--code", "http-422"]).expect(2);
    let dry = command(&["replay", "--code", "http-422", "--dry-run"]).expect(0).out;
    assert_eq!(dry, "3 messages would be tried again: 1, 3, 5\n");
    let replayed = json(command(&["replay", "--code", "http-422", "--json"]).expect(0).out.trim());
    assert_eq!(replayed["deliveries"], 3);
    let again = |number: u64| show(folder.path(), number)["deliveries"][0]["attempts"].as_array().expect("attempts").len();
    wait_for("the dead letters to come again", || [1, 3, 5].iter().all(|n| again(*n) == 3));
    assert_eq!([2, 4, 6].map(again), [1, 1, 1]);
    assert_eq!(json(command(&["skip", "--reason", "answered 400", "--json"]).expect(0).out.trim())["deliveries"], 3);
    assert_eq!(dead(folder.path(), &[]).len(), 3);
    assert_eq!(state(folder.path(), 2), "skipped");
    assert_eq!(json(command(&["replay", "--state", "skipped", "--all", "--json"]).expect(0).out.trim())["deliveries"], 3);
    assert_eq!(daemon.stop(), 0);
    assert_eq!(json(command(&["replay", "--all", "--json"]).expect(0).out.trim())["deliveries"].as_u64().map(|n| n >= 3), Some(true), "also without a daemon");
}

#[test]
fn an_older_state_is_not_put_over_a_newer_one_unasked() {
    let server = picky();
    let folder = with(&server);
    let daemon = Daemon::start(folder.path());
    for (control, family) in [("C1", "REFUSE"), ("C2", "Second"), ("C3", "Third")] {
        exchange(daemon.address("adt on "), odd(control, "4711", family).as_bytes());
    }
    exchange(daemon.address("adt on "), odd("C4", "9", "REFUSE").as_bytes());
    wait_for("the deliveries", || server.families().len() == 2 && dead(folder.path(), &[]).len() == 2);
    std::fs::write(folder.path().join("first.hl7"), odd("C1", "4711", "First")).expect("a file");
    let replay = |args: &[&str]| run(folder.path(), &[&["journal", "replay"], args].concat());

    let left_out = replay(&["1", "--with", "first.hl7", "--json"]).expect(0).out;
    let left_out = json(left_out.trim());
    assert_eq!(
        (&left_out["deliveries"], &left_out["superseded"][0]["later"], &left_out["superseded"][0]["newest"]),
        (&0.into(), &2.into(), &3.into()),
        "{left_out}"
    );
    assert_eq!(state(folder.path(), 1), "superseded");
    assert_eq!(server.families(), ["Second", "Third"]);
    let told = replay(&["1"]).expect(0).out;
    assert!(told.contains("message 1 to main: 2 deliveries later, the newest is 3") && told.contains("--superseded=key"), "{told}");

    let sent = replay(&["1", "--superseded"]).expect(0).out;
    assert!(sent.contains("1 delivery will be tried again") && sent.contains("sent over the newer state"), "{sent}");
    wait_for("the older state", || server.families() == ["Second", "Third", "First"]);
    wait_for("the outcome", || state(folder.path(), 1) == "delivered");

    // Another one that was refused in between: all that came later goes out once more, in order.
    exchange(daemon.address("adt on "), odd("C5", "4711", "REFUSE").as_bytes());
    wait_for("the dead letter", || dead(folder.path(), &[]).len() == 2);
    exchange(daemon.address("adt on "), odd("C6", "4711", "Sixth").as_bytes());
    wait_for("the delivery", || server.families().len() == 4);
    wait_for("the outcome", || state(folder.path(), 6) == "delivered");
    std::fs::write(folder.path().join("fifth.hl7"), odd("C5", "4711", "Fifth")).expect("a file");
    let key = json(replay(&["5", "--with", "fifth.hl7", "--superseded=key", "--json"]).expect(0).out.trim());
    assert_eq!((&key["deliveries"], &key["superseded"][0]["later"]), (&2.into(), &1.into()), "{key}");
    wait_for("both", || server.families().len() == 6);
    assert_eq!(server.families()[4..], ["Fifth", "Sixth"]);
    assert_eq!(state(folder.path(), 4), "dead-letter", "another patient's is left alone");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_replay_goes_by_the_routes_of_the_day_or_by_those_of_the_first_attempt() {
    let server = picky();
    let folder = with(&server);
    let daemon = Daemon::start(folder.path());
    for (control, patient) in [("C1", "1"), ("C2", "2")] {
        exchange(daemon.address("adt on "), odd(control, patient, "REFUSE").as_bytes());
    }
    wait_for("the dead letters", || dead(folder.path(), &[]).len() == 2);
    let first = show(folder.path(), 1)["deliveries"][0]["program"].clone();
    std::fs::write(folder.path().join("routes/odd.yaml"), ROUTE.replace("$save", "birthDate: nothing, $save")).expect("a file");
    run(folder.path(), &["reload"]).expect(0);
    run(folder.path(), &["journal", "replay", "1", "--as-received"]).expect(0);
    run(folder.path(), &["journal", "replay", "2"]).expect(0);
    let attempts = |n: u64| show(folder.path(), n)["deliveries"][0]["attempts"].as_array().expect("attempts").len();
    wait_for("both to be refused again", || attempts(1) == 3 && attempts(2) == 3);
    let (one, two) = (show(folder.path(), 1), show(folder.path(), 2));
    let made = |shown: &Value| shown["deliveries"][0]["made"]["bundle"]["entry"][0]["resource"]["birthDate"].clone();
    assert_eq!((&one["deliveries"][0]["program"], made(&one)), (&first, "1970-01-02".into()));
    assert_ne!(two["deliveries"][0]["program"], first);
    assert_eq!(made(&two), Value::Null);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_complaint_about_the_nth_entry_is_about_the_nth_that_was_sent() {
    // Another patient is only looked for: it is the first of what the route makes, and not in the request.
    let server = Server::start(|asked| {
        let refused = asked.body.to_string().contains("REFUSE");
        refused.then(|| (422, outcome("value", Some("Bundle.entry[0].resource.name[0].family"))))
    });
    let folder = with(&server);
    let other = "  other: { $map: NK1 -> Patient, $when: NK1-33 valued, $save: find by NK1-33 }\n  who:";
    let text = format!("{}---\nmap: NK1 -> Patient\nidentifier: NK1-33\n", ROUTE.replace("  who:", other));
    std::fs::write(folder.path().join("routes/odd.yaml"), text).expect("a file");
    let daemon = Daemon::start(folder.path());
    exchange(daemon.address("adt on "), odd("C0", "77", "Known").as_bytes());
    wait_for("the first", || server.families().len() == 1);
    let message = odd("C1", "4711", "REFUSE") + "NK1|1||||||||||||||||||||||||||||||||77^^^HOSP^MR\r";
    exchange(daemon.address("adt on "), message.as_bytes());
    wait_for("the dead letter", || dead(folder.path(), &[]).len() == 1);
    let complaint = show(folder.path(), 2)["deliveries"][0]["complaints"][0].clone();
    assert_eq!((complaint["resource"].as_str(), complaint["fields"][0].as_str()), (Some("who"), Some("PID-5.1")), "{complaint}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn an_address_that_is_no_fhir_servers_base_makes_no_dead_letters() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = Server::with(socket, false, |_| Some((400, outcome("processing", None))));
    let folder = with(&server);
    let daemon = Daemon::start(folder.path());
    exchange(daemon.address("adt on "), odd("C1", "4711", "Meier").as_bytes());
    let last = || show(folder.path(), 1)["deliveries"][0]["attempts"].as_array().and_then(|all| all.last().cloned()).unwrap_or_default();
    wait_for("an attempt", || last()["outcome"] == "retry");
    assert_eq!(last()["code"], "no-fhir-base");
    assert!(last()["summary"].as_str().expect("why").contains("no CapabilityStatement"), "{}", last());
    assert!(dead(folder.path(), &[]).is_empty());
}

#[test]
fn a_replay_that_is_refused_has_changed_nothing() {
    let server = picky();
    let folder = with(&server);
    let daemon = Daemon::start(folder.path());
    std::fs::write(folder.path().join("routes/odd.yaml"), ROUTE.replace("ZZZ^Z01", "ZZZ^Z02")).expect("a file");
    run(folder.path(), &["reload"]).expect(0);
    exchange(daemon.address("adt on "), odd("C1", "4711", "Meier").as_bytes());
    std::fs::write(folder.path().join("routes/odd.yaml"), ROUTE).expect("a file");
    run(folder.path(), &["reload"]).expect(0);
    // The first could be delivered now; the second is not there.
    let mut socket = std::os::unix::net::UnixStream::connect(folder.path().join("journal/control.sock")).expect("the daemon listens");
    socket.write_all(b"{\"do\":\"replay\",\"items\":[{\"message\":1,\"deliveries\":null},{\"message\":99,\"deliveries\":null}]}\n").expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    assert!(answer.contains("message 99"), "{answer}");
    assert_eq!(show(folder.path(), 1)["deliveries"].as_array().map(Vec::len), Some(0));
    run(folder.path(), &["journal", "replay", "1"]).expect(0);
    wait_for("the delivery", || state(folder.path(), 1) == "delivered");
    assert_eq!(daemon.stop(), 0);
}

/// An editor that says that it has begun, waits until it may go on, and mends the name.
fn slow_editor(folder: &Path) -> String {
    let script = "#!/bin/sh\ntouch begun\nwhile [ ! -e go ]; do sleep 0.05; done\nsed -i s/REFUSE/Meier/ \"$1\"\n";
    std::fs::write(folder.join("editor.sh"), script).expect("a file");
    "sh editor.sh".to_owned()
}

/// Messages that are being edited.
fn drafts(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder.join("journal")).expect("it is there").flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with("edit-")).count()
}

#[test]
fn keys_that_are_the_editors_end_no_edit_and_a_kill_leaves_no_patient_behind() {
    let server = picky();
    let folder = with(&server);
    let daemon = Daemon::start(folder.path());
    exchange(daemon.address("adt on "), odd("C1", "4711", "REFUSE").as_bytes());
    wait_for("the dead letter", || state(folder.path(), 1) == "dead-letter");
    let editor = slow_editor(folder.path());
    let start = || kiln(folder.path()).args(["journal", "replay", "1", "--edit"]).env("EDITOR", &editor).env_remove("VISUAL").spawn().expect("it starts");
    let send = |signal: &str, process: u32| {
        let sent = std::process::Command::new("kill").args([signal, &process.to_string()]).status().expect("kill is there");
        assert!(sent.success());
    };
    let begun = folder.path().join("begun");

    let mut killed = start();
    wait_for("the editor", || begun.exists());
    assert_eq!(drafts(folder.path()), 1);
    send("-KILL", killed.id());
    killed.wait().expect("it ended");
    std::fs::remove_file(&begun).expect("it is there");
    assert_eq!(drafts(folder.path()), 1, "nobody was left to delete it");

    let mut edit = start();
    wait_for("the editor", || begun.exists());
    assert_eq!(drafts(folder.path()), 1, "the one of the process that is gone is deleted");
    send("-INT", edit.id());
    send("-QUIT", edit.id());
    std::fs::write(folder.path().join("go"), "").expect("a file");
    assert_eq!(edit.wait().expect("it ended").code(), Some(0));
    wait_for("the delivery", || state(folder.path(), 1) == "delivered");
    assert_eq!((drafts(folder.path()), server.families()), (0, vec!["Meier".to_owned()]));

    // Also when the journal is opened.
    std::fs::write(folder.path().join("journal").join(format!("edit-1-{}.hl7", killed.id())), "MSH|").expect("a file");
    std::fs::write(folder.path().join("journal").join(format!("edit-1-{}.hl7", std::process::id())), "MSH|").expect("a file");
    assert_eq!(daemon.stop(), 0);
    let daemon = Daemon::start(folder.path());
    assert_eq!(drafts(folder.path()), 1, "that of a process that lives stays");
    assert_eq!(daemon.stop(), 0);
}

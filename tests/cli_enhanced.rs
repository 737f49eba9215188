//! Enhanced mode (HL7 chapter 2, section 2.9.3) through sockets: for each pair of MSH-15 and MSH-16 and each outcome, which acknowledgements
//! come, and in which order.

mod cli_support;
use cli_support::moody::{Mood, ROUTE, Server, odd, record, site};
use cli_support::session::{Session, asking, listener, msa, text};
use cli_support::{Daemon, admit, get, run, wait_for};
use serde_json::Value;
use std::time::Duration;

const CONDITIONS: [&str; 4] = ["AL", "NE", "ER", "SU"];

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nobody takes it: stored, and that is all.
    Stored,
    /// Refused at the door.
    Refused,
    /// A route cannot map it.
    Unmapped,
    /// Saved on the server.
    Delivered,
    /// Refused by the server.
    Rejected,
}

#[test]
fn every_pair_of_conditions_gets_what_the_standard_says_whatever_happens() {
    let server = Server::start(Mood::Well);
    let listeners =
        [listener(""), "strict: { mllp: 127.0.0.1:0, unrouted: reject }".to_owned(), "mapped: { mllp: 127.0.0.1:0, acknowledge: mapped }".to_owned()];
    let folder = site(&text(&listeners, &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let asks = |condition: &str, good: bool| condition == "AL" || condition == if good { "SU" } else { "ER" };
    let mut wrong = Vec::new();
    for fate in [Fate::Stored, Fate::Refused, Fate::Unmapped, Fate::Delivered, Fate::Rejected] {
        let listener = match fate {
            Fate::Refused => "strict on ",
            Fate::Unmapped => "mapped on ",
            Fate::Stored | Fate::Delivered | Fate::Rejected => "adt on ",
        };
        let mut open = Vec::new();
        for accept in CONDITIONS {
            for application in CONDITIONS {
                let id = format!("{fate:?}-{accept}-{application}");
                let message = match fate {
                    Fate::Stored => admit(&id, &id).replace("ADT^A01^ADT_A01", "ZZZ^Z09"),
                    Fate::Refused => admit(&id, &id).replace("ADT^A01^ADT_A01", "ZZZ^Z08"),
                    Fate::Unmapped => odd(&id, "", "Meier").replace("^^^HOSP^MR", ""),
                    Fate::Delivered => odd(&id, &id, "Meier"),
                    Fate::Rejected => odd(&id, &id, "REFUSE"),
                };
                let mut session = Session::open(daemon.address(listener));
                session.send(&asking(&message, accept, application));
                open.push((id, accept, application, session));
            }
        }
        for (id, accept, application, mut session) in open {
            let two = accept != "NE";
            let mut expected = Vec::new();
            match fate {
                Fate::Refused if two && asks(accept, false) => expected.push("CR"),
                // MSH-15 does not ask for it, so only the application's can tell.
                Fate::Refused if asks(application, false) => expected.push("AR"),
                Fate::Refused => {}
                _ => {
                    if two && asks(accept, true) {
                        expected.push("CA");
                    }
                    // With NE in MSH-15 it is as in original mode: AA when it is stored, or as `acknowledge` says.
                    let good = !(fate == Fate::Unmapped || two && fate == Fate::Rejected);
                    if asks(application, good) {
                        expected.push(if good { "AA" } else { "AE" });
                    }
                }
            }
            wait_for(&format!("{id} to be settled"), || {
                if run(folder.path(), &["journal", "search", "--control-id", &id]).code != 0 {
                    return false;
                }
                let kept = record(folder.path(), &id);
                let settled = |d: &Value| d["state"] != "pending";
                !matches!(kept["acknowledgements"]["state"].as_str(), Some("open" | "due"))
                    && kept["deliveries"].as_array().is_some_and(|all| all.iter().all(settled))
            });
            let got = session.codes_until(&format!("last-{id}"));
            if got != expected {
                wrong.push(format!("{id}: {got:?} instead of {expected:?}; {}", record(folder.path(), &id)["acknowledgements"]));
            }
            let accepted = record(folder.path(), &id)["acknowledgements"]["accept"].clone();
            let first = expected.first().copied().filter(|code| code.starts_with('C'));
            assert_eq!((two, accepted.as_str()), (record(folder.path(), &id)["acknowledgements"].is_object(), first), "{id}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What CA was answered for is Kiln's to deliver: the refused one is a dead letter, not a refused message.
    let kept = record(folder.path(), "Rejected-AL-AL");
    assert_eq!((kept["disposition"].as_str(), kept["deliveries"][0]["state"].as_str()), (Some("accepted"), Some("dead-letter")), "{kept}");
    let metrics = get(daemon.address("console http://"), "/metrics").1;
    for line in [
        "kiln_acks_total{listener=\"strict\",code=\"CR\"} 8",
        "kiln_acks_total{listener=\"mapped\",code=\"CA\"} 8",
        "kiln_application_acks_total{listener=\"mapped\",outcome=\"sent\"} 6",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(run(folder.path(), &["journal", "verify"]).expect(0).out.contains("sound"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn the_application_acknowledgement_names_the_field_behind_what_the_server_refuses() {
    let server = Server::start(Mood::Well);
    let folder = site(&text(&[listener("")], &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(daemon.address("adt on "));
    session.send(&asking(&odd("C1", "1", "Meier"), "AL", "AL"));
    let accept = session.expect();
    assert!(accept.contains("||ACK^Z01^ACK|K1|P|2.5.1\rMSA|CA|C1\r") && accept.starts_with("MSH|^~\\&|KILN|HOSP|ADT1|HOSP|"), "{accept:?}");
    let application = session.expect();
    assert!(application.contains("||ACK^Z01^ACK|K1A|P|2.5.1|||NE|NE\rMSA|AA|C1\r"), "{application:?}");
    assert_eq!(server.saved("1"), 1);

    session.send(&asking(&odd("C2", "2", "REFUSE"), "AL", "AL"));
    assert_eq!(msa(&session.expect()), ("CA".to_owned(), "C2".to_owned()));
    let application = session.expect();
    assert!(application.contains("|K2A|") && application.contains("\rMSA|AE|C2\rERR||PID^1^5^1^1"), "{application:?}");
    assert!(application.contains("|102^Data type error^HL70357|E||||the server refuses Patient.name[0].family (value)"), "{application:?}");
    assert!(!application.contains("REFUSE"), "{application:?}");
    let shown = run(folder.path(), &["journal", "show", "2"]).expect(0).out;
    assert!(shown.contains("accept  CA\n") && shown.contains("result  AE, told (sent on the sender's connection"), "{shown}");

    // Pipelined: the answers to what was sent come first and in order, what comes of it later.
    *server.delay.lock().expect("no panic") = Duration::from_millis(50);
    for n in 3..8 {
        session.send(&asking(&odd(&format!("C{n}"), &n.to_string(), "Meier"), "AL", "AL"));
    }
    let all: Vec<_> = (0..10).map(|_| msa(&session.expect())).collect();
    let of = |code: &str| all.iter().filter(|(c, _)| c == code).map(|(_, id)| id.as_str()).collect::<Vec<_>>();
    assert_eq!(of("CA"), ["C3", "C4", "C5", "C6", "C7"]);
    let mut told = of("AA");
    told.sort_unstable();
    assert_eq!(told, ["C3", "C4", "C5", "C6", "C7"]);
    for id in told {
        let place = |code: &str| all.iter().position(|(c, i)| c == code && i == id);
        assert!(place("CA") < place("AA"), "{all:?}");
    }
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn the_listener_decides_where_the_message_says_nothing_or_lies() {
    let server = Server::start(Mood::Well);
    let listeners = [
        "original: { mllp: 127.0.0.1:0, mode: original }".to_owned(),
        "always: { mllp: 127.0.0.1:0, mode: enhanced }".to_owned(),
        "forced: { mllp: 127.0.0.1:0, mode: enhanced, enhanced: { accept: NE, application: ER }, acknowledge: delivered }".to_owned(),
        "quick: { mllp: 127.0.0.1:0, acknowledge: stored, enhanced: { accept: AL, application: AL } }".to_owned(),
    ];
    let folder = site(&text(&listeners, &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let mut original = Session::open(daemon.address("original on "));
    original.send(&asking(&odd("C1", "1", "Meier"), "AL", "AL"));
    original.send(&asking(&odd("C2", "2", "Meier"), "NE", "NE"));
    assert_eq!([msa(&original.expect()), msa(&original.expect())], [("AA".into(), "C1".into()), ("AA".into(), "C2".into())]);
    assert_eq!(record(folder.path(), "C1")["acknowledgements"], Value::Null);

    let mut always = Session::open(daemon.address("always on "));
    always.send(&odd("C3", "3", "Meier"));
    assert_eq!([msa(&always.expect()), msa(&always.expect())], [("CA".into(), "C3".into()), ("AA".into(), "C3".into())]);
    // What it says counts all the same.
    always.send(&asking(&odd("C4", "4", "Meier"), "", "AL"));
    assert_eq!(msa(&always.expect()), ("AA".into(), "C4".into()));
    // Nobody can read what this one wants.
    always.send("PID|1\r");
    assert_eq!(msa(&always.expect()), ("CE".into(), String::new()));

    // Silence is success, and AE comes as in original mode, before anything was kept.
    let mut forced = Session::open(daemon.address("forced on "));
    forced.send(&asking(&odd("C5", "5", "Meier"), "AL", "AL"));
    forced.send(&asking(&odd("C6", "6", "REFUSE"), "AL", "AL"));
    assert_eq!(msa(&forced.expect()), ("AE".into(), "C6".into()));
    assert_eq!((record(folder.path(), "C6")["disposition"].as_str(), server.saved("5")), (Some("refused"), 1));

    // `acknowledge: stored` holds for the second acknowledgement too: here nobody waits for the server.
    server.mood(Mood::Busy);
    let mut quick = Session::open(daemon.address("quick on "));
    quick.send(&asking(&odd("C7", "7", "Meier"), "NE", "NE"));
    assert_eq!([msa(&quick.expect()).0, msa(&quick.expect()).0], ["CA", "AA"]);
    quick.send(&odd("C8", "8", "Meier"));
    assert_eq!(msa(&quick.expect()).0, "AA", "both are empty: original mode");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn acknowledgements_are_accepted_only_if_they_ask_and_ce_is_for_what_cannot_be_kept() {
    let folder = site(&text(&[listener(", when-full: nak")], "folder: out"), ROUTE);
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(daemon.address("adt on "));
    let ack = |id: &str, code: &str| admit(id, "1").replace("ADT^A01^ADT_A01", "ACK").replace("EVN|A01|20260301120000\r", &format!("MSA|{code}|X\r"));
    session.send(&asking(&ack("A1", "AA"), "AL", "AL"));
    assert_eq!(msa(&session.expect()), ("CA".into(), "A1".into()), "its own MSH-15 asks");
    for (id, code, accept) in [("A2", "CA", "AL"), ("A3", "CE", "AL"), ("A4", "CR", "AL"), ("A5", "AA", "NE"), ("A6", "AE", ""), ("A7", "AR", "ER")] {
        session.send(&asking(&ack(id, code), accept, "AL"));
    }
    assert_eq!(session.codes_until("L1"), Vec::<String>::new());
    assert!((1..=7).all(|n| record(folder.path(), &format!("A{n}"))["disposition"] == "unrouted"), "all are kept");
    // A character set that no frame can hold: CE, since CR is for MSH-9, -11 and -12.
    session.send(&asking(&odd("C1", "1", "Meier"), "AL", "AL").replace("|AL|AL\r", "|AL|AL||UNICODE UTF-16\r"));
    let answer = session.expect();
    assert!(msa(&answer) == ("CE".into(), "C1".into()) && answer.contains("\rERR||MSH^1^18"), "{answer:?}");
    assert_eq!(daemon.stop(), 0);

    // A full disk.
    let text = std::fs::read_to_string(folder.path().join("kiln.yaml")).expect("a file");
    std::fs::write(folder.path().join("kiln.yaml"), text.replace("low-water: 1MiB", "low-water: 900TB")).expect("a file");
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(daemon.address("adt on "));
    for (accept, application, code) in [("AL", "AL", "CE"), ("ER", "NE", "CE"), ("SU", "AL", "AR"), ("NE", "ER", "AR"), ("", "", "AR")] {
        session.send(&asking(&odd("F1", "1", "Meier"), accept, application));
        let answer = session.expect();
        assert!(msa(&answer).0 == code && answer.contains("207^"), "{accept}/{application}: {answer:?}");
    }
    session.send(&asking(&odd("F2", "1", "Meier"), "NE", "NE"));
    assert_eq!(session.next(), None, "silence would mean that it is kept");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_does_not_conform_is_refused_by_the_first_acknowledgement_that_may_tell_it() {
    let folder = site(&text(&[listener(", validate: dictionary")], "folder: out"), ROUTE);
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(daemon.address("adt on "));
    let without_event = |id: &str| admit(id, "1").replace("EVN|A01|20260301120000\r", "EVN|A01\r").replace("|19700102|F", "|nonsense|F");
    for (accept, application, code) in [("AL", "NE", "CE"), ("AL", "AL", "CE"), ("ER", "AL", "CE"), ("SU", "AL", "AE"), ("NE", "AL", "AE")] {
        let id = format!("C-{accept}-{application}");
        session.send(&asking(&without_event(&id), accept, application));
        let answer = session.expect();
        assert!(msa(&answer) == (code.into(), id.clone()) && answer.contains("\rERR|"), "{accept}/{application}: {answer:?}");
        assert_eq!(record(folder.path(), &id)["disposition"], "refused", "{id}");
    }
    session.send(&asking(&without_event("C-SU-NE"), "SU", "NE"));
    assert_eq!(session.codes_until("L1"), Vec::<String>::new(), "nobody wants to hear it, and nothing else follows");
    assert_eq!(daemon.stop(), 0);
}

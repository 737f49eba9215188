//! Enhanced mode (HL7 chapter 2, section 2.9.3) through sockets: for each pair of MSH-15 and MSH-16 and each outcome, which acknowledgements come,
//! in which order, by which way, and what is left of them after `kill -9`.

mod cli_support;
use cli_support::moody::{Mood, ROUTE, Server, odd, record, site};
use cli_support::{Daemon, PATIENCE, admit, get, run, wait_for};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CONDITIONS: [&str; 4] = ["AL", "NE", "ER", "SU"];

/// One connection to a listener.
struct Session {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Session {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, read: Vec::new() }
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, read: Vec::new() }
    }

    fn send(&mut self, message: &str) {
        self.stream.write_all(&[&[0x0b], message.as_bytes(), &[0x1c, 0x0d]].concat()).expect("it is open");
    }

    /// The next frame; `None` once the other side has closed.
    #[track_caller]
    fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == [0x1c, 0x0d]) {
                let frame: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&frame[1..end]).into_owned());
            }
            let mut some = [0; 4096];
            match self.stream.read(&mut some) {
                Ok(0) => return None,
                Ok(n) => self.read.extend_from_slice(&some[..n]),
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => panic!("nothing came: {e}"),
                Err(_) => return None,
            }
        }
    }

    #[track_caller]
    fn expect(&mut self) -> String {
        self.next().expect("a frame")
    }

    /// The codes of all frames that come before the answer to a last message in original mode, which asks for it.
    #[track_caller]
    fn codes_until(&mut self, id: &str) -> Vec<String> {
        self.send(&admit(id, id).replace("ADT^A01^ADT_A01", "ZZZ^Z09"));
        let mut codes = Vec::new();
        loop {
            let (code, answered) = msa(&self.expect());
            if answered == id {
                return codes;
            }
            codes.push(code);
        }
    }
}

/// MSA-1 and MSA-2.
#[track_caller]
fn msa(ack: &str) -> (String, String) {
    let fields: Vec<_> = ack.split('\r').find(|s| s.starts_with("MSA|")).unwrap_or_else(|| panic!("no MSA: {ack:?}")).split('|').collect();
    (fields[1].to_owned(), fields.get(2).copied().unwrap_or_default().to_owned())
}

/// A message with MSH-15 and MSH-16.
fn asking(message: &str, accept: &str, application: &str) -> String {
    message.replacen("|2.5.1\r", &format!("|2.5.1|||{accept}|{application}\r"), 1)
}

fn listener(more: &str) -> String {
    format!("adt: {{ mllp: 127.0.0.1:0{more} }}")
}

fn text(listeners: &[String], target: &str) -> String {
    format!("listeners: {{ {} }}\ntargets: {{ main: {{ {target} }} }}\n", listeners.join(", "))
}

/// How far the application acknowledgement of a message has come.
fn state(folder: &Path, id: &str) -> String {
    record(folder, id)["acknowledgements"]["state"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_for_state(folder: &Path, id: &str, wanted: &str) {
    wait_for(&format!("{id} to be {wanted}"), || run(folder, &["journal", "search", "--control-id", id]).code == 0 && state(folder, id) == wanted);
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

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
fn what_is_owed_survives_kill_9_and_is_told_by_the_senders_next_connection() {
    let server = Server::start(Mood::Busy);
    let mllp = free_port();
    let folder = site(&text(&[listener("").replace("127.0.0.1:0", &mllp.to_string())], &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(mllp);
    session.send(&asking(&odd("C1", "1", "Meier"), "AL", "AL"));
    session.send(&asking(&odd("C2", "2", "REFUSE"), "AL", "AL"));
    assert_eq!([msa(&session.expect()).0, msa(&session.expect()).0], ["CA", "CA"]);
    assert_eq!(state(folder.path(), "C1"), "open");
    daemon.signal("KILL");
    assert_eq!(session.next(), None);
    drop(daemon);

    let daemon = Daemon::start(folder.path());
    server.mood(Mood::Well);
    wait_for_state(folder.path(), "C1", "due");
    wait_for_state(folder.path(), "C2", "due");
    let shown = run(folder.path(), &["journal", "show", "1"]).expect(0).out;
    assert!(shown.contains("result  AA, to be told\n"), "{shown}");
    // Killed once more, between outcome and telling.
    daemon.signal("KILL");
    drop(daemon);
    let daemon = Daemon::start(folder.path());

    // A stranger on the same listener is not told; the sender is, with whatever it sends first.
    let mut stranger = Session::open(mllp);
    stranger.send(&asking(&odd("S1", "9", "Meier").replace("|ADT1|", "|OTHER|"), "AL", "NE"));
    stranger.send(&asking(&odd("S2", "9", "Meier").replace("|ADT1|", "|OTHER|"), "NE", "AL"));
    assert_eq!([msa(&stranger.expect()), msa(&stranger.expect())], [("CA".into(), "S1".into()), ("AA".into(), "S2".into())]);
    let mut session = Session::open(mllp);
    session.send(&asking(&odd("C3", "3", "Meier"), "AL", "AL"));
    let mut got: Vec<_> = (0..4).map(|_| msa(&session.expect())).collect();
    got.sort();
    let pairs: Vec<_> = got.iter().map(|(code, id)| (code.as_str(), id.as_str())).collect();
    assert_eq!(pairs, [("AA", "C1"), ("AA", "C3"), ("AE", "C2"), ("CA", "C3")]);
    for id in ["C1", "C2", "C3"] {
        wait_for_state(folder.path(), id, "sent");
    }
    assert_eq!(server.saved("1"), 1);
    assert_eq!(session.codes_until("L1"), Vec::<String>::new(), "nothing is told twice");
    assert_eq!(stranger.codes_until("L2"), Vec::<String>::new());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn who_sends_a_message_again_is_told_again_and_it_is_delivered_once() {
    let server = Server::start(Mood::Busy);
    let folder = site(&text(&[listener("")], &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    let message = asking(&odd("C1", "1", "Meier"), "AL", "AL");
    let mut first = Session::open(address);
    first.send(&message);
    assert_eq!(msa(&first.expect()).0, "CA");
    drop(first);
    // Again while the outcome is open: the same answer, and the rest by this connection.
    let mut second = Session::open(address);
    second.send(&message);
    assert_eq!(msa(&second.expect()).0, "CA");
    server.mood(Mood::Well);
    assert_eq!(msa(&second.expect()), ("AA".into(), "C1".into()));
    wait_for_state(folder.path(), "C1", "sent");
    // Again when all was told: all is told again, with the same bytes.
    let mut third = Session::open(address);
    third.send(&message);
    assert_eq!(msa(&third.expect()).0, "CA");
    let again = third.expect();
    assert!(again.contains("|K1A|") && again.contains("\rMSA|AA|C1\r"), "{again:?}");
    assert_eq!(second.codes_until("L1"), Vec::<String>::new(), "only whoever asks is told again");
    assert_eq!(server.saved("1"), 1);
    assert_eq!(record(folder.path(), "C1")["duplicates"], 2);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn with_own_al_it_is_sent_until_the_sender_has_it() {
    let server = Server::start(Mood::Well);
    let folder = site(&text(&[listener(", enhanced: { own: AL, accept-wait: 300ms }")], &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(daemon.address("adt on "));
    session.send(&asking(&odd("C1", "1", "Meier"), "AL", "AL"));
    assert_eq!(msa(&session.expect()).0, "CA");
    let first = session.expect();
    assert!(first.contains("|K1A|P|2.5.1|||AL|NE\rMSA|AA|C1\r"), "{first:?}");
    // No answer, and a wrong one: it comes again, the same.
    assert_eq!(session.expect(), first);
    let answer = |code: &str, id: &str| format!("MSH|^~\\&|ADT1|HOSP|KILN|HOSP|20260301120000||ACK|{code}{id}|P|2.5.1\rMSA|{code}|{id}\r");
    session.send(&answer("CA", "K99A"));
    assert_eq!(session.expect(), first);
    session.send(&answer("CA", "K1A"));
    wait_for_state(folder.path(), "C1", "accepted");
    let sent = record(folder.path(), "C1")["acknowledgements"]["attempts"].as_u64().unwrap_or_default();
    assert!(sent >= 3, "{sent}");
    let rest = session.codes_until("L1");
    assert!(rest.len() <= 1, "nothing comes after it, but for what was under way: {rest:?}");
    // No answer was given to the answers, and they are kept like everything that comes.
    assert_eq!(record(folder.path(), "CAK1A")["disposition"], "unrouted");
    let metrics = get(daemon.address("console http://"), "/metrics").1;
    assert!(metrics.contains("kiln_application_acks_total{listener=\"adt\",outcome=\"accepted\"} 1"), "{metrics}");
    assert_eq!(daemon.stop(), 0);
}

/// What a sender's own listener does with what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ear {
    Accepts,
    SaysCommitError,
    SaysGarbage,
    AnswersAnother,
    /// Answers after half a second.
    IsLate,
    ClosesAtOnce,
    /// Reads, and says nothing.
    IsMute,
}

/// A sender's own listener: every connection's first frame, and what to do.
fn ear(address: SocketAddr, moods: Vec<Ear>) -> Arc<Mutex<Vec<String>>> {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let into = Arc::clone(&heard);
    let socket = TcpListener::bind(address).expect("the port is free");
    std::thread::spawn(move || {
        let mut moods = moods.into_iter();
        let mut mood = Ear::Accepts;
        for stream in socket.incoming().flatten() {
            let mut session = Session::over(stream);
            // One mood for each frame, the last one for all others.
            while let Some(frame) = session.next() {
                mood = moods.next().unwrap_or(mood);
                let id = frame.split('|').nth(9).unwrap_or_default().to_owned();
                let answer = |code: &str, id: &str| format!("MSH|^~\\&|ADT1|HOSP|KILN|HOSP|20260301120000||ACK|E1|P|2.5.1\rMSA|{code}|{id}\r");
                into.lock().expect("no panic").push(frame);
                match mood {
                    Ear::Accepts => session.send(&answer("CA", &id)),
                    Ear::SaysCommitError => session.send(&answer("CE", &id)),
                    Ear::SaysGarbage => session.send("what?"),
                    Ear::AnswersAnother => session.send(&answer("CA", "X99")),
                    Ear::IsLate => {
                        std::thread::sleep(Duration::from_millis(500));
                        let _ = session.stream.write_all(&[&[0x0b], answer("CA", &id).as_bytes(), &[0x1c, 0x0d]].concat());
                    }
                    Ear::ClosesAtOnce => break,
                    Ear::IsMute => {}
                }
            }
        }
    });
    heard
}

#[test]
fn at_the_senders_address_only_an_acceptance_of_this_very_acknowledgement_counts() {
    let server = Server::start(Mood::Well);
    let address = free_port();
    let folder = site(&text(&[listener(&format!(", enhanced: {{ to: '{address}', own: AL, accept-wait: 200ms }}"))], &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(daemon.address("adt on "));
    session.send(&asking(&odd("C1", "1", "Meier"), "AL", "AL"));
    assert_eq!(msa(&session.expect()).0, "CA");
    // Nobody is there yet.
    wait_for("an attempt", || record(folder.path(), "C1")["acknowledgements"]["attempts"].as_u64() > Some(0));
    let kept = record(folder.path(), "C1")["acknowledgements"].clone();
    assert!(kept["state"] == "due" && kept["note"].as_str().unwrap_or_default().contains("cannot be reached"), "{kept}");
    let wrong = vec![Ear::SaysGarbage, Ear::ClosesAtOnce, Ear::SaysCommitError, Ear::AnswersAnother, Ear::IsMute, Ear::IsLate, Ear::Accepts];
    let heard = ear(address, wrong.clone());
    wait_for_state(folder.path(), "C1", "accepted");
    let heard = heard.lock().expect("no panic").clone();
    assert!(heard.len() >= wrong.len() - 1, "an acceptance that is too late may count for the next one: {heard:?}");
    assert!(heard.iter().all(|frame| *frame == heard[0] && frame.contains("|K1A|P|2.5.1|||AL|NE\rMSA|AA|C1\r")), "{heard:?}");
    let kept = record(folder.path(), "C1")["acknowledgements"].clone();
    assert!(kept["note"].as_str().unwrap_or_default().contains("accepted by") && kept["application"] == "AA", "{kept}");
    assert_eq!(session.codes_until("L1"), Vec::<String>::new(), "the sender's own connection has CA alone");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn at_the_senders_address_it_survives_kill_9_and_is_told_once_it_listens() {
    let server = Server::start(Mood::Well);
    let address = free_port();
    let folder = site(&text(&[listener(&format!(", enhanced: {{ to: '{address}' }}"))], &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(daemon.address("adt on "));
    for n in 1..=5 {
        session.send(&asking(&odd(&format!("C{n}"), &n.to_string(), if n == 3 { "REFUSE" } else { "Meier" }), "AL", "AL"));
        assert_eq!(msa(&session.expect()).0, "CA");
    }
    for n in 1..=5 {
        wait_for_state(folder.path(), &format!("C{n}"), "due");
    }
    daemon.signal("KILL");
    drop(daemon);
    let heard = ear(address, vec![Ear::IsMute]);
    let daemon = Daemon::start(folder.path());
    for n in 1..=5 {
        wait_for_state(folder.path(), &format!("C{n}"), "sent");
    }
    let told: Vec<_> = heard.lock().expect("no panic").iter().map(|frame| msa(frame)).collect();
    let pairs: Vec<_> = told.iter().map(|(code, id)| (code.as_str(), id.as_str())).collect();
    assert_eq!(pairs, [("AA", "C1"), ("AA", "C2"), ("AE", "C3"), ("AA", "C4"), ("AA", "C5")], "once each, in order");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn who_polls_sends_the_message_again() {
    let server = Server::start(Mood::Busy);
    let folder = site(&text(&[listener(", enhanced: { to: poll }")], &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(daemon.address("adt on "));
    let (good, bad) = (asking(&odd("C1", "1", "Meier"), "AL", "AL"), asking(&odd("C2", "2", "REFUSE"), "AL", "AL"));
    for _ in 0..2 {
        session.send(&good);
        assert_eq!(msa(&session.expect()), ("CA".into(), "C1".into()), "not known yet");
    }
    session.send(&bad);
    assert_eq!(msa(&session.expect()).0, "CA");
    server.mood(Mood::Well);
    wait_for_state(folder.path(), "C1", "due");
    wait_for_state(folder.path(), "C2", "due");
    assert_eq!(session.codes_until("L1"), Vec::<String>::new(), "nobody is told who does not ask");
    for _ in 0..2 {
        session.send(&good);
        assert_eq!(msa(&session.expect()), ("AA".into(), "C1".into()));
        session.send(&bad);
        let answer = session.expect();
        assert!(answer.contains("\rMSA|AE|C2\rERR||PID^1^5^1^1"), "{answer:?}");
    }
    assert_eq!((state(folder.path(), "C1").as_str(), server.saved("1")), ("sent", 1));
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
fn what_nobody_takes_is_given_up_in_time_and_does_not_stop_the_daemon() {
    let server = Server::start(Mood::Well);
    let listeners = [listener(", enhanced: { retry-for: 1s }"), format!("far: {{ mllp: 127.0.0.1:0, enhanced: {{ to: '{}', retry-for: 1s }} }}", free_port())];
    let folder = site(&text(&listeners, &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    for (listener, id) in [("adt on ", "C1"), ("far on ", "C2")] {
        let mut session = Session::open(daemon.address(listener));
        *server.delay.lock().expect("no panic") = Duration::from_millis(200);
        session.send(&asking(&odd(id, id, "Meier"), "AL", "AL"));
        assert_eq!(msa(&session.expect()).0, "CA");
        drop(session);
        wait_for_state(folder.path(), id, "given-up");
    }
    let log = daemon.err();
    assert!(log.contains("an application acknowledgement was given up") && !log.contains("Meier"), "{log}");
    let began = Instant::now();
    assert_eq!(daemon.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
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

#[test]
fn what_is_known_at_once_is_still_told_after_the_answers_of_earlier_messages() {
    let server = Server::start(Mood::Well);
    let folder = site(&text(&[listener(", acknowledge: delivered")], &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    *server.delay.lock().expect("no panic") = Duration::from_millis(600);
    let mut session = Session::open(daemon.address("adt on "));
    // The first waits for the server, and its answer holds back the second's; what comes of the second is known when it is stored.
    session.send(&asking(&odd("C1", "1", "Meier"), "NE", "AL"));
    session.send(&asking(&admit("C2", "2").replace("ADT^A01^ADT_A01", "ZZZ^Z09"), "AL", "AL"));
    wait_for_state(folder.path(), "C2", "due");
    let all: Vec<_> = (0..3).map(|_| msa(&session.expect())).collect();
    let pairs: Vec<_> = all.iter().map(|(code, id)| (code.as_str(), id.as_str())).collect();
    assert_eq!(pairs, [("AA", "C1"), ("CA", "C2"), ("AA", "C2")]);
    assert_eq!(daemon.stop(), 0);
}

//! Enhanced mode: the ways by which an application acknowledgement goes back to the sender, and what is left of it after `kill -9`.

mod cli_support;
use cli_support::moody::{Mood, ROUTE, Server, odd, record, site};
use cli_support::session::{Session, asking, listener, msa, state, text, wait_for_state};
use cli_support::{Daemon, admit, free_port, get, run, wait_for};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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

/// A sender's own listener: every connection's first frame, and what to do. One mood for each frame, the last one for all others.
fn ear(address: SocketAddr, moods: Vec<Ear>) -> Arc<Mutex<Vec<String>>> {
    let (mut moods, mut mood) = (moods.into_iter(), Ear::Accepts);
    ear_that(address, move |_| {
        mood = moods.next().unwrap_or(mood);
        mood
    })
}

/// The same, with a mood for each frame that depends on it.
fn ear_that(address: SocketAddr, mut mood: impl FnMut(&str) -> Ear + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let into = Arc::clone(&heard);
    let socket = TcpListener::bind(address).expect("the port is free");
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            let mut session = Session::over(stream);
            while let Some(frame) = session.next() {
                let mood = mood(&frame);
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
    // Each is answered in a wrong way at first, C1 with garbage and so on, and well when it comes again.
    let wrong = [Ear::SaysGarbage, Ear::ClosesAtOnce, Ear::SaysCommitError, Ear::AnswersAnother, Ear::IsMute, Ear::IsLate];
    let mut times = [0; 6];
    let heard = ear_that(address, move |frame| {
        let n: usize = msa(frame).1.trim_start_matches('C').parse().expect("a number");
        times[n - 1] += 1;
        if times[n - 1] == 1 { wrong[n - 1] } else { Ear::Accepts }
    });
    for n in 2..=wrong.len() {
        session.send(&asking(&odd(&format!("C{n}"), &n.to_string(), "Meier"), "AL", "AL"));
        assert_eq!(msa(&session.expect()).0, "CA");
    }
    for n in 1..=wrong.len() {
        wait_for_state(folder.path(), &format!("C{n}"), "accepted");
        let heard = heard.lock().expect("no panic").clone();
        let own: Vec<_> = heard.iter().filter(|frame| msa(frame).1 == format!("C{n}")).collect();
        // An acceptance that is too late may count for the next one.
        assert!(own.len() >= 2 || wrong[n - 1] == Ear::IsLate, "{n}: {heard:?}");
        assert!(own.iter().all(|frame| *frame == own[0] && frame.contains(&format!("|K{n}A|P|2.5.1|||AL|NE\rMSA|AA|C{n}\r"))), "{own:?}");
        let kept = record(folder.path(), &format!("C{n}"))["acknowledgements"].clone();
        assert!(kept["note"].as_str().unwrap_or_default().contains("accepted by") && kept["application"] == "AA", "{kept}");
    }
    assert_eq!(session.codes_until("L1"), Vec::<String>::new(), "the sender's own connection has CA alone");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn one_that_is_never_answered_holds_up_no_other_at_the_senders_address() {
    let server = Server::start(Mood::Well);
    let address = free_port();
    let folder = site(&text(&[listener(&format!(", enhanced: {{ to: '{address}', own: AL, accept-wait: 200ms }}"))], &server.target()), ROUTE);
    // The second of three is never answered.
    let heard = ear_that(address, |frame| if msa(frame).1 == "C2" { Ear::IsMute } else { Ear::Accepts });
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(daemon.address("adt on "));
    for n in 1..=3 {
        session.send(&asking(&odd(&format!("C{n}"), &n.to_string(), "Meier"), "AL", "AL"));
        assert_eq!(msa(&session.expect()).0, "CA");
    }
    wait_for_state(folder.path(), "C1", "accepted");
    wait_for_state(folder.path(), "C3", "accepted");
    wait_for("the second to be tried again", || heard.lock().expect("no panic").iter().filter(|frame| msa(frame).1 == "C2").count() >= 3);
    let notes = |id: &str| record(folder.path(), id)["acknowledgements"]["note"].as_str().unwrap_or_default().to_owned();
    assert!(notes("C1").contains("accepted by") && notes("C3").contains("accepted by"), "{} {}", notes("C1"), notes("C3"));
    assert!(state(folder.path(), "C2") == "due" && notes("C2").contains("no acknowledgement came in time"), "{}", notes("C2"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn the_sender_is_told_of_the_message_that_it_sent_and_not_of_the_edited_one() {
    let server = Server::start(Mood::Well);
    let folder = site(&text(&[listener("")], &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(daemon.address("adt on "));
    session.send(&asking(&odd("C1", "1", "Meier"), "AL", "AL").replace("ZZZ^Z01", "ZZZ^Z07"));
    drop(session);
    wait_for_state(folder.path(), "C1", "due");
    std::fs::write(folder.path().join("edited.hl7"), asking(&odd("C1-EDITED", "1", "Schulz"), "AL", "AL")).expect("a file");
    run(folder.path(), &["journal", "replay", "1", "--with", "edited.hl7"]).expect(0);
    assert!(run(folder.path(), &["journal", "show", "1", "--edited"]).expect(0).out.contains("C1-EDITED"));
    let mut session = Session::open(daemon.address("adt on "));
    session.send(&asking(&odd("C2", "2", "Meier"), "AL", "AL"));
    let mut told: Vec<_> = (0..3).map(|_| msa(&session.expect())).collect();
    told.sort();
    let told: Vec<_> = told.iter().map(|(code, id)| (code.as_str(), id.as_str())).collect();
    assert_eq!(told, [("AA", "C1"), ("AA", "C2"), ("CA", "C2")]);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_refusal_at_another_listener_says_nothing() {
    let server = Server::start(Mood::Well);
    let listeners = [listener(", enhanced: { own: AL, accept-wait: 1h }"), "other: { mllp: 127.0.0.1:0 }".to_owned()];
    let folder = site(&text(&listeners, &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let mut session = Session::open(daemon.address("adt on "));
    session.send(&asking(&odd("C1", "1", "Meier"), "AL", "AL"));
    assert_eq!(msa(&session.expect()).0, "CA");
    assert!(session.expect().contains("|K1A|"));
    let answer = "MSH|^~\\&|ADT1|HOSP|KILN|HOSP|20260301120000||ACK|R1|P|2.5.1\rMSA|CR|K1A\r";
    let count = |listener: &str| {
        get(daemon.address("console http://"), "/metrics").1.contains(&format!("kiln_application_acks_total{{listener=\"{listener}\",outcome=\"failed\"}} 1"))
    };
    wait_for("it to be stored that it was sent", || record(folder.path(), "C1")["acknowledgements"]["attempts"] == 1);
    let mut elsewhere = Session::open(daemon.address("other on "));
    elsewhere.send(answer);
    assert_eq!(elsewhere.codes_until("L1"), Vec::<String>::new());
    assert!(!count("other") && record(folder.path(), "C1")["acknowledgements"]["attempts"] == 1);
    // The sender's own refusal counts, and it is sent once more soon, not after `accept-wait`.
    session.send(&answer.replace("R1", "R2"));
    wait_for("the refusal to count", || count("adt"));
    assert!(session.expect().contains("|K1A|"));
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

//! `acknowledge: mapped` and `delivered`, through sockets: what the sender hears, when, and what has become of the message by then; also
//! across `kill -9`.

mod cli_support;
use cli_support::moody::{Mood, ROUTE, Server, odd, one_target, record, site};
use cli_support::{Daemon, PATIENCE, exchange, free_port, get, run, wait_for};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn mapped_means_that_every_route_could_make_something_of_it() {
    let folder = site(&one_target("acknowledge: mapped", "folder: out"), ROUTE);
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    assert!(exchange(address, odd("C1", "1", "Meier").as_bytes()).contains("MSA|AA|C1"));
    wait_for("the delivery", || record(folder.path(), "C1")["deliveries"][0]["state"] == "delivered");

    // Nobody can say who this is.
    let without = odd("C2", "", "Meier").replace("^^^HOSP^MR", "");
    let answer = exchange(address, without.as_bytes());
    assert!(answer.contains("\rMSA|AE|C2\rERR||PID^1^3"), "{}", answer.escape_debug());
    assert!(
        answer.contains("|101^Required field missing^HL70357|E||||") && !answer.contains("Meier") && !answer.contains("odd.yaml"),
        "{}",
        answer.escape_debug()
    );
    let kept = record(folder.path(), "C2");
    assert_eq!((&kept["disposition"], kept["deliveries"].as_array().map(Vec::len)), (&json!("refused"), Some(0)), "{kept}");

    // Before 2.5 the reason stands in MSA-3, and all places in ERR-1.
    let old = without.replace("C2", "C3").replace("|2.5.1\r", "|2.3\r");
    let answer = exchange(address, old.as_bytes());
    assert!(answer.contains("\rMSA|AE|C3|") && answer.contains("\rERR|PID^1^3^101&"), "{}", answer.escape_debug());

    // A refused message is never a duplicate: once the route can make something of it, the same bytes are accepted.
    let text = std::fs::read_to_string(folder.path().join("routes/odd.yaml")).expect("a file");
    std::fs::write(folder.path().join("routes/odd.yaml"), text.replace("update by PID-3", "create")).expect("a file");
    let console = daemon.address("console http://");
    wait_for("the change", || get(console, "/metrics").1.contains("kiln_route_set_reloads_total{result=\"applied\"} 2"));
    assert!(exchange(address, without.as_bytes()).contains("MSA|AA|C2"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn delivered_means_that_the_server_has_it() {
    let server = Server::start(Mood::Well);
    let folder = site(&one_target("acknowledge: delivered", &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    *server.delay.lock().expect("no panic") = Duration::from_millis(300);
    let began = Instant::now();
    assert!(exchange(address, odd("C1", "1", "Meier").as_bytes()).contains("MSA|AA|C1"));
    assert!(began.elapsed() >= Duration::from_millis(300) && server.saved("1") == 1);
    // The same again is a duplicate, and answered in the same way at once.
    assert!(exchange(address, odd("C1", "1", "Meier").as_bytes()).contains("MSA|AA|C1"));
    assert_eq!(server.saved("1"), 1);

    // The server's reason, and the field behind the element that it complains about; not its words, which may be anybody's.
    let answer = exchange(address, odd("C2", "2", "REFUSE").as_bytes());
    assert!(answer.contains("\rMSA|AE|C2\rERR||PID^1^5^1^1"), "{}", answer.escape_debug());
    assert!(answer.contains("|102^Data type error^HL70357|E||||the server refuses Patient.name[0].family (value)"), "{}", answer.escape_debug());
    assert!(!answer.contains("REFUSE"), "{}", answer.escape_debug());
    let kept = record(folder.path(), "C2");
    assert_eq!((&kept["disposition"], &kept["deliveries"][0]["state"]), (&json!("refused"), &json!("skipped")), "{kept}");
    assert_eq!(kept["deliveries"][0]["attempts"][0]["outcome"], "refused", "{kept}");
    run(folder.path(), &["journal", "search", "--state", "dead-letter"]).expect(1);
    assert!(run(folder.path(), &["journal", "verify"]).expect(0).out.contains("sound"));
    let metrics = get(daemon.address("console http://"), "/metrics").1;
    assert!(metrics.contains("kiln_acks_total{listener=\"adt\",code=\"AE\"} 1") && metrics.contains("kiln_dead_letters{target=\"main\"} 0"), "{metrics}");
    // A refused message is judged anew.
    assert!(exchange(address, odd("C2", "2", "REFUSE").as_bytes()).contains("MSA|AE|C2"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn who_waits_too_long_gets_no_answer_and_whoever_sends_again_waits_for_the_same() {
    let server = Server::start(Mood::Busy);
    let folder = site(&one_target("acknowledge: delivered, reply-wait: 400ms", &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    let began = Instant::now();
    assert_eq!(exchange(address, odd("C1", "1", "Meier").as_bytes()), "", "no answer");
    assert!((Duration::from_millis(400)..Duration::from_secs(5)).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(record(folder.path(), "C1")["deliveries"][0]["state"], "pending", "delivery goes on");
    server.mood(Mood::Well);
    wait_for("the answer", || exchange(address, odd("C1", "1", "Meier").as_bytes()).contains("MSA|AA|C1"));
    assert_eq!(server.saved("1"), 1);
    assert!(record(folder.path(), "C1")["duplicates"].as_u64() >= Some(1));
    // It stops at once, although somebody waits.
    server.mood(Mood::Busy);
    let waiting = std::thread::spawn(move || exchange(address, odd("C2", "2", "Meier").as_bytes()));
    wait_for("the message", || run(folder.path(), &["journal", "search", "--control-id", "C2"]).code == 0);
    let began = Instant::now();
    assert_eq!(daemon.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(waiting.join().expect("it ends"), "");
}

#[test]
fn what_may_have_happened_is_never_refused() {
    let server = Server::start(Mood::Mute);
    let folder = site(&one_target("acknowledge: delivered, reply-wait: 1s", &server.target()), ROUTE);
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    // It was saved, but the answer was lost; the next attempt is refused.
    let sender = std::thread::spawn(move || exchange(address, odd("C1", "1", "Meier").as_bytes()));
    wait_for("the first attempt", || server.saved("1") == 1);
    server.mood(Mood::Against);
    assert_eq!(sender.join().expect("it ends"), "");
    wait_for("the dead letter", || record(folder.path(), "C1")["deliveries"][0]["state"] == "dead-letter");
    assert_eq!(record(folder.path(), "C1")["disposition"], "accepted");
    assert_eq!(exchange(address, odd("C1", "1", "Meier").as_bytes()), "", "nobody knows yet");
    // An operator does.
    run(folder.path(), &["journal", "skip", "1"]).expect(0);
    assert!(exchange(address, odd("C1", "1", "Meier").as_bytes()).contains("MSA|AA|C1"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_refusal_withdraws_all_deliveries_unless_one_was_done() {
    let (slow, server) = (Server::start(Mood::Busy), Server::start(Mood::Well));
    let text = format!(
        "listeners: {{ adt: {{ mllp: 127.0.0.1:0, acknowledge: delivered, reply-wait: 3s }}, part: {{ mllp: 127.0.0.1:0, acknowledge: delivered, delivered-to: [main], reply-wait: 10s }} }}\n\
         targets: {{ main: {{ {} }}, other: {{ {} }}, disk: {{ folder: out }} }}\n",
        server.target(),
        slow.target()
    );
    let folder = site(&text, &ROUTE.replace("to: main", "to: [main, other]").replace(", ZZZ^Z02", ""));
    let disk = "route: also\non: ZZZ^Z02\nto: [main, disk]\nresources:\n  who: { $map: PID -> Patient, $save: update by PID-3 }\n";
    std::fs::write(folder.path().join("routes/also.yaml"), disk).expect("a file");
    let daemon = Daemon::start(folder.path());
    let (adt, part) = (daemon.address("adt on "), daemon.address("part on "));

    // One target refuses while the other has not done anything yet: both are taken back.
    assert!(exchange(adt, odd("C1", "1", "REFUSE").as_bytes()).contains("MSA|AE|C1"));
    let kept = record(folder.path(), "C1");
    let states: Vec<_> = (0..2).map(|n| kept["deliveries"][n]["state"].as_str().unwrap_or_default().to_owned()).collect();
    assert_eq!((kept["disposition"].as_str(), states), (Some("refused"), vec!["skipped".to_owned(); 2]), "{kept}");
    slow.mood(Mood::Well);
    let asked = slow.asked();

    // A listener that waits for one target only does not wait for the other.
    slow.mood(Mood::Busy);
    assert!(exchange(part, odd("C2", "2", "Meier").as_bytes()).contains("MSA|AA|C2"));
    assert_eq!(slow.saved("2"), 0);
    slow.mood(Mood::Well);
    wait_for("the other target", || slow.saved("2") == 1);
    assert!(slow.saved("1") == 0 && slow.asked() > asked, "what was taken back is never sent");

    // The folder has it already when the server refuses: then nobody can say that nothing happened.
    *server.delay.lock().expect("no panic") = Duration::from_millis(700);
    let message = odd("C3", "3", "REFUSE").replace("ZZZ^Z01", "ZZZ^Z02");
    assert_eq!(exchange(adt, message.as_bytes()), "");
    let kept = record(folder.path(), "C3");
    assert_eq!(
        (&kept["disposition"], &kept["deliveries"][0]["state"], &kept["deliveries"][1]["state"]),
        (&json!("accepted"), &json!("dead-letter"), &json!("delivered")),
        "{kept}"
    );
    assert_eq!(daemon.stop(), 0);
}

/// One message at a time on one connection at a time, again and again until an answer comes.
fn send_until_answered(address: SocketAddr, message: &str) -> String {
    let give_up = Instant::now() + PATIENCE * 2;
    loop {
        assert!(Instant::now() < give_up, "no answer to {}", message.escape_debug());
        let answer = (|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
            stream.write_all(&[&[0x0b], message.as_bytes(), &[0x1c, 0x0d]].concat()).ok()?;
            let (mut answer, mut byte) = (Vec::new(), [0]);
            while !answer.ends_with(&[0x1c, 0x0d]) {
                stream.read(&mut byte).ok().filter(|n| *n > 0)?;
                answer.push(byte[0]);
            }
            Some(String::from_utf8_lossy(&answer).into_owned())
        })();
        match answer {
            Some(answer) => return answer,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

#[test]
fn across_kills_every_yes_was_delivered_and_no_refused_message_ever_is() {
    const KILLS: u64 = 12;
    let server = Server::start(Mood::Well);
    *server.delay.lock().expect("no panic") = Duration::from_millis(4);
    let mllp = free_port();
    let text = one_target("acknowledge: delivered, reply-wait: 5s", &server.target()).replace("mllp: 127.0.0.1:0", &format!("mllp: {mllp}"));
    let folder = site(&text, ROUTE);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let senders: Vec<_> = (0..3)
        .map(|sender| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut told: BTreeMap<String, String> = BTreeMap::new();
                let mut n = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let id = format!("S{sender}-{n}");
                    let answer = send_until_answered(mllp, &odd(&id, &id, if n % 3 == 0 { "REFUSE" } else { "Meier" }));
                    let code = answer.split("MSA|").nth(1).and_then(|rest| rest.get(..2)).unwrap_or_default().to_owned();
                    assert!(answer.contains(&format!("MSA|{code}|{id}")), "{}", answer.escape_debug());
                    told.insert(id, code);
                    n += 1;
                }
                told
            })
        })
        .collect();
    for kill in 0..KILLS {
        let daemon = Daemon::start(folder.path());
        std::thread::sleep(Duration::from_millis(60 + 37 * (kill * 7 % 11)));
        daemon.signal("KILL");
    }
    let daemon = Daemon::start(folder.path());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let told: BTreeMap<String, String> = senders.into_iter().flat_map(|s| s.join().expect("all were answered")).collect();
    let saved: BTreeSet<String> = server.saved.lock().expect("no panic").iter().cloned().collect();
    let of = |code: &str| told.iter().filter(|(_, c)| *c == code).map(|(id, _)| id.clone()).collect::<BTreeSet<_>>();
    let (yes, no) = (of("AA"), of("AE"));
    assert!(yes.len() > 10 && no.len() > 5 && yes.len() + no.len() == told.len(), "{told:?}");
    let missing: Vec<_> = yes.difference(&saved).take(5).collect();
    assert!(missing.is_empty(), "told AA, and not there: {missing:?}\n{}", record(folder.path(), missing[0]));
    let there: Vec<_> = no.intersection(&saved).take(5).collect();
    assert!(there.is_empty(), "told AE, and there: {there:?}");
    // The journal agrees, and nothing is left behind.
    for id in no.iter().take(5) {
        assert_eq!(record(folder.path(), id)["disposition"], "refused");
    }
    for state in ["pending", "dead-letter", "parked"] {
        wait_for(state, || run(folder.path(), &["journal", "search", "--state", state]).code == 1);
    }
    assert!(run(folder.path(), &["journal", "verify"]).expect(0).out.contains("sound"));
    assert_eq!(daemon.stop(), 0);
}

//! Starts that are not as usual: after a kill with a request still on the server, with a faulty site file, with a target that has gone.

mod cli_support;
mod fhir_double;
use cli_support::moody::{HEAD, ROUTE, bare_site, odd};
use cli_support::{Daemon, exchange, get, kiln, run, wait_for};
use fhir_double::Server;
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn save(folder: &Path, text: &str) {
    std::fs::write(folder.join("kiln.yaml"), text).expect("a file");
}

fn state(folder: &Path, number: u64) -> String {
    // The folder is named, since the site file may be one that nobody can read.
    let shown = run(folder, &["journal", "show", &number.to_string(), "--json", "--journal", "journal"]).out;
    let shown: serde_json::Value = serde_json::from_str(shown.trim()).unwrap_or_default();
    shown["deliveries"][0]["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_request_that_outlives_a_kill_makes_no_second_resource() {
    // The first request stays with the server until it is let go; every further one is told of and done at once.
    let (come, comes) = mpsc::sync_channel::<()>(64);
    let (go, goes) = mpsc::sync_channel::<()>(64);
    let (first, goes) = (Mutex::new(true), Mutex::new(goes));
    let come = Mutex::new(come);
    let server = Server::start(move |_| {
        let held = std::mem::replace(&mut *first.lock().expect("no panic"), false);
        let _ = come.lock().expect("no panic").send(());
        if held {
            let _ = goes.lock().expect("no panic").recv();
        }
        None
    });
    let target = format!("targets: {{ main: {{ fhir: 'http://{}/r4', timeout: 20s, settle: 1500ms }} }}\n", server.address);
    let folder = bare_site(&format!("{HEAD}listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\n{target}"), ROUTE);
    let mut daemon = Daemon::start(folder.path());
    exchange(daemon.address("adt on "), odd("C1", "4711", "Meier").as_bytes());
    comes.recv_timeout(Duration::from_secs(20)).expect("the request is with the server");
    daemon.signal("KILL");
    daemon.code();

    let daemon = Daemon::start(folder.path());
    assert!(daemon.err().contains("the process before this one was killed"), "{}", daemon.err());
    // Whoever would send it again at once does so before the first request comes to its end.
    let sent_again = comes.recv_timeout(Duration::from_millis(700)).is_ok();
    go.send(()).expect("the first request waits");
    wait_for("the delivery", || state(folder.path(), 1) == "delivered");
    assert_eq!((sent_again, server.resources_of("4711")), (false, 1), "{:?}", server.stored());
    // Another patient's message, after the start, does not wait.
    exchange(daemon.address("adt on "), odd("C2", "4712", "Meier").as_bytes());
    wait_for("the other", || server.resources_of("4712") == 1);
    assert_eq!(daemon.stop(), 0);
    let daemon = Daemon::start(folder.path());
    assert!(!daemon.err().contains("was killed"), "after a stop in order nothing is doubted: {}", daemon.err());
}

#[test]
fn a_faulty_site_file_at_the_start_lets_the_last_good_one_run_and_is_live_when_mended() {
    let good = format!("{HEAD}listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ folder: out }} }}\n");
    let folder = bare_site(&good, ROUTE);
    // Nothing was ever applied here.
    save(folder.path(), "listeners: [\n");
    let refused = kiln(folder.path()).arg("serve").output().expect("it starts");
    assert_eq!(refused.status.code(), Some(2));
    save(folder.path(), &good);
    assert_eq!(Daemon::start(folder.path()).stop(), 0);

    let broken =
        [("listeners: { adt: { mllp: 127.0.0.1:0 }\n", "error[K720]"), (&*good.replace("folder: out", "fodler: out"), "fodler"), ("", "names no listener")];
    for (n, (text, why)) in broken.iter().enumerate() {
        save(folder.path(), text);
        let daemon = Daemon::start(folder.path());
        assert!(daemon.err().contains("starting with the site file that was applied last"), "{}", daemon.err());
        let (status, ready) = get(daemon.address("console http://"), "/readyz");
        assert!(status == 200 && ready.contains(why), "{ready}");
        assert!(get(daemon.address("console http://"), "/metrics").1.contains("kiln_last_reload_successful 0"));
        assert!(exchange(daemon.address("adt on "), odd(&format!("C{n}"), &format!("47{n}"), "Meier").as_bytes()).contains("MSA|AA"));
        wait_for("the delivery", || state(folder.path(), n as u64 + 1) == "delivered");
        save(folder.path(), &format!("{good}# mended {n}\n"));
        wait_for("the mended file", || get(daemon.address("console http://"), "/metrics").1.contains("kiln_last_reload_successful 1"));
        assert_eq!(daemon.stop(), 0);
    }
    // A journal elsewhere that the broken file names is found, too.
    let elsewhere = good.replace("path: journal", "path: other");
    save(folder.path(), &elsewhere);
    assert_eq!(Daemon::start(folder.path()).stop(), 0);
    save(folder.path(), &elsewhere.replace("folder: out }", "folder: out"));
    let daemon = Daemon::start(folder.path());
    assert!(daemon.out().contains("journal other") || daemon.out().contains("/other"), "{}", daemon.out());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_target_that_drains_goes_on_to_drain_after_a_restart() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("an address");
    drop(socket);
    let with = format!(
        "{HEAD}on-removal: drain\nlisteners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ old: {{ fhir: 'http://{address}/r4', timeout: 2s, settle: 10ms }}, main: {{ folder: out }} }}\n"
    );
    let folder = bare_site(&with, ROUTE);
    std::fs::write(folder.path().join("routes/odd.yaml"), ROUTE.replace("to: main", "to: old")).expect("a file");
    let daemon = Daemon::start(folder.path());
    exchange(daemon.address("adt on "), odd("C1", "4711", "Meier").as_bytes());
    wait_for("an attempt in vain", || run(folder.path(), &["journal", "show", "1"]).out.contains("retry"));
    std::fs::write(folder.path().join("routes/odd.yaml"), ROUTE).expect("a file");
    let without = with.replace(&format!("old: {{ fhir: 'http://{address}/r4', timeout: 2s, settle: 10ms }}, "), "");
    save(folder.path(), &without);
    run(folder.path(), &["reload"]).expect(0);
    assert_eq!(daemon.stop(), 0);

    let daemon = Daemon::start(folder.path());
    assert!(daemon.err().contains("what waits for it is still delivered"), "{}", daemon.err());
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let server = Server::with(TcpListener::bind(address).expect("the port is free again"), true, move |_| {
        *count.lock().expect("no panic") += 1;
        None
    });
    wait_for("the delivery", || state(folder.path(), 1) == "delivered");
    assert_eq!((server.resources_of("4711"), *asked.lock().expect("no panic")), (1, 1));
    wait_for("its end", || daemon.err().contains("nothing waits any more for a target"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn after_a_start_with_a_faulty_site_file_it_is_said_what_puts_the_mended_one_in_force() {
    for (reload, how) in [("watch", "and it is live at once"), ("signal", "then put it in force with `kiln reload` or SIGHUP")] {
        let good = format!("{HEAD}reload: {reload}\nlisteners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ folder: out }} }}\n");
        let folder = bare_site(&good, ROUTE);
        assert_eq!(Daemon::start(folder.path()).stop(), 0);
        save(folder.path(), &good.replace("folder: out", "fodler: out"));
        let daemon = Daemon::start(folder.path());
        assert!(daemon.err().contains(&format!("mend kiln.yaml, {how}")), "{}", daemon.err());
        assert_eq!(daemon.stop(), 0);
    }
}

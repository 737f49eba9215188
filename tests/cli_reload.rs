//! The site changes while the daemon runs: listeners, targets, credentials and routes, each whole or not at all, with messages on their way.

mod cli_support;
use cli_support::{Daemon, admit, exchange, free_ports, get, run, wait_for};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const HEAD: &str = "console: { listen: 127.0.0.1:0 }\njournal: { path: journal, low-water: 1MiB }\n";

/// A folder with a site file and an empty folder of routes.
fn site(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    save(folder.path(), text);
    folder
}

fn save(folder: &Path, text: &str) {
    std::fs::write(folder.join("kiln.yaml"), format!("{HEAD}{text}")).expect("a file");
}

fn route(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join("routes").join(name), text).expect("a file");
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn state(daemon: &Daemon) -> serde_json::Value {
    json(&get(daemon.address("console http://"), "/readyz").1)["routes"].clone()
}

fn listeners(daemon: &Daemon) -> Vec<(String, SocketAddr)> {
    let stats = json(&get(daemon.address("console http://"), "/api/stats").1);
    let all = stats["listeners"].as_array().expect("a list").clone();
    all.iter().map(|l| (l["name"].as_str().expect("a name").to_owned(), l["address"].as_str().expect("an address").parse().expect("an address"))).collect()
}

#[track_caller]
fn wait_for_log(daemon: &Daemon, text: &str) {
    wait_for(text, || daemon.err().contains(text));
}

/// A message of a type that no shipped route takes.
fn odd(control_id: &str, patient: &str) -> String {
    admit(control_id, patient).replace("ADT^A01^ADT_A01", "ZZZ^Z01")
}

const ODD: &str = "route: odd\non: ZZZ^Z01\nto: main\nresources:\n  who: { $map: PID -> Patient, $save: update by PID-3 }\n";

/// A connection that stays open.
struct Peer(TcpStream);

impl Peer {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(cli_support::PATIENCE)).expect("a socket");
        Self(stream)
    }

    /// The answer; empty if the connection is closed.
    fn ask(&mut self, message: &str) -> String {
        let frame = [&[0x0b], message.as_bytes(), &[0x1c, 0x0d]].concat();
        if self.0.write_all(&frame).is_err() {
            return String::new();
        }
        let (mut answer, mut byte) = (Vec::new(), [0]);
        while !answer.ends_with(&[0x1c, 0x0d]) && self.0.read(&mut byte).is_ok_and(|n| n > 0) {
            answer.push(byte[0]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Patients' files in a folder target.
fn patients(folder: &Path) -> Vec<serde_json::Value> {
    let Ok(entries) = folder.join("Patient").read_dir() else { return Vec::new() };
    let files = entries.filter_map(|e| std::fs::read_to_string(e.ok()?.path()).ok());
    files.map(|text| json(&text)).collect()
}

/// A FHIR server that is overloaded, and notes who asked.
struct Busy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Busy {
    fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let busy = Self { address: socket.local_addr().expect("an address"), asked: Arc::default() };
        let asked = Arc::clone(&busy.asked);
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let mut stream = stream;
                let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
                let mut text = Vec::new();
                let mut chunk = [0; 4096];
                while let Ok(n) = stream.read(&mut chunk)
                    && n > 0
                {
                    text.extend_from_slice(&chunk[..n]);
                    if text.windows(4).any(|w| w == b"\r\n\r\n") {
                        break;
                    }
                }
                let head = String::from_utf8_lossy(&text).into_owned();
                let who = head.lines().find_map(|l| l.to_lowercase().strip_prefix("authorization: ").map(str::to_owned)).unwrap_or_default();
                asked.lock().expect("no panic").push(who);
                let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            }
        });
        busy
    }

    fn heard(&self, who: &str) -> bool {
        self.asked.lock().expect("no panic").iter().any(|a| a == who)
    }
}

#[test]
fn listeners_come_go_move_and_change_while_their_connections_stay() {
    let folder = site("listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { null: true } }\n");
    let daemon = Daemon::start(folder.path());
    let adt = daemon.address("adt on ");
    let mut peer = Peer::connect(adt);
    assert!(peer.ask(&admit("C1", "1")).contains("MSA|AA|C1"));

    // Another setting counts for the next message of an open connection.
    save(folder.path(), "listeners: { adt: { mllp: 127.0.0.1:0, unrouted: reject } }\ntargets: { main: { null: true } }\n");
    let began = Instant::now();
    wait_for_log(&daemon, "applied a changed site: ~ listener adt");
    assert!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
    assert!(peer.ask(&odd("C2", "1")).contains("MSA|AR|C2"));

    // The port that was given to it is now written down: it is the same socket.
    save(folder.path(), &format!("listeners: {{ adt: {{ mllp: {adt} }} }}\ntargets: {{ main: {{ null: true }} }}\n"));
    wait_for("the address", || daemon.err().matches("applied a changed site").count() == 2);
    assert!(peer.ask(&admit("C3", "1")).contains("MSA|AA|C3") && exchange(adt, admit("C3b", "1").as_bytes()).contains("MSA|AA"));

    // It moves: whoever is connected stays so.
    save(folder.path(), "listeners: { adt: { mllp: 127.0.0.1:0 }, lab: { mllp: 127.0.0.1:0 } }\ntargets: { main: { null: true } }\n");
    wait_for("the second listener", || listeners(&daemon).len() == 2);
    let lab = listeners(&daemon).iter().find(|(name, _)| name == "lab").expect("it is there").1;
    let mut laboratory = Peer::connect(lab);
    assert!(laboratory.ask(&admit("L1", "2")).contains("MSA|AA|L1"));

    // It goes: what was sent is answered, then its connections end. The other's stays.
    save(folder.path(), "listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { null: true } }\n");
    wait_for("one listener", || listeners(&daemon).len() == 1);
    wait_for("the end of the port", || TcpStream::connect(lab).is_err());
    assert_eq!(laboratory.ask(&admit("L2", "2")), "");
    assert!(peer.ask(&admit("C4", "1")).contains("MSA|AA|C4"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn two_listeners_change_places_and_one_gets_another_name() {
    let [one, two] = free_ports();
    let text = |a: &str, at: SocketAddr, b: &str, bt: SocketAddr| {
        format!("listeners: {{ {a}: {{ mllp: {at}, unrouted: reject }}, {b}: {{ mllp: {bt} }} }}\ntargets: {{ main: {{ null: true }} }}\n")
    };
    let folder = site(&text("adt", one, "lab", two));
    let daemon = Daemon::start(folder.path());
    let (mut adt, mut lab) = (Peer::connect(one), Peer::connect(two));
    assert!(adt.ask(&odd("A1", "1")).contains("MSA|AR|A1") && lab.ask(&odd("L1", "1")).contains("MSA|AA|L1"));

    save(folder.path(), &text("adt", two, "lab", one));
    wait_for("the exchange", || listeners(&daemon).contains(&("adt".to_owned(), two)));
    // Open connections belong to their listener; new ones to the listener that has the address now.
    assert!(adt.ask(&odd("A2", "1")).contains("MSA|AR|A2") && lab.ask(&odd("L2", "1")).contains("MSA|AA|L2"));
    assert!(exchange(one, odd("L3", "1").as_bytes()).contains("MSA|AA|L3") && exchange(two, odd("A3", "1").as_bytes()).contains("MSA|AR|A3"));

    save(folder.path(), &text("ward", two, "lab", one));
    wait_for("the name", || listeners(&daemon).contains(&("ward".to_owned(), two)));
    assert!(adt.ask(&odd("A4", "1")).contains("MSA|AR|A4"), "its connection stays");
    let found = run(folder.path(), &["journal", "search", "--control-id", "A4", "--json"]).expect(0);
    assert_eq!(json(found.out.trim())["listener"], "ward");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_port_that_is_taken_changes_nothing_and_everybody_hears_why() {
    let folder = site("listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { folder: out } }\n");
    let daemon = Daemon::start(folder.path());
    let before = state(&daemon);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = (taken.local_addr().expect("an address"), taken);
    route(folder.path(), "odd.yaml", &ODD.replace("to: main", "to: other"));
    let text = format!(
        "listeners: {{ adt: {{ mllp: 127.0.0.1:0 }}, lab: {{ mllp: {} }} }}\ntargets: {{ main: {{ folder: out }}, other: {{ folder: other }} }}\n",
        taken.0
    );
    save(folder.path(), &text);
    let why = format!("listener lab: {} cannot be used", taken.0);
    wait_for_log(&daemon, &why);
    assert!(state(&daemon)["lastReloadError"].as_str().expect("a text").contains(&why));
    assert_eq!((&state(&daemon)["hash"], listeners(&daemon).len()), (&before["hash"], 1));
    let metrics = get(daemon.address("console http://"), "/metrics").1;
    assert!(metrics.contains("kiln_route_set_reloads_total{result=\"refused\"} 1") && metrics.contains("kiln_last_reload_successful 0"), "{metrics}");
    assert!(run(folder.path(), &["reload"]).expect(1).err.contains(&why));
    let checked = run(folder.path(), &["check"]).expect(1);
    assert!(checked.out.contains("the daemon that runs") && checked.out.contains(&why), "{}", checked.out);
    // The port is free now; nobody saved anything, so somebody asks.
    drop(taken.1);
    let told = json(run(folder.path(), &["reload", "--json"]).expect(0).out.trim());
    let changed: Vec<_> = told["changed"].as_array().expect("a list").iter().filter_map(|c| c.as_str()).collect();
    assert_eq!(changed, ["+ listener lab", "+ target other", "+ route odd", "+ file routes/odd.yaml"]);
    assert!(state(&daemon)["lastReloadError"].is_null());
    assert!(get(daemon.address("console http://"), "/metrics").1.contains("kiln_last_reload_successful 1"));
    assert!(exchange(taken.0, odd("C1", "7").as_bytes()).contains("MSA|AA|C1"));
    wait_for("the delivery by the new route to the new target", || patients(&folder.path().join("other")).len() == 1);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn credentials_are_read_again_and_used_at_once() {
    let server = Busy::start();
    let text = |file: &str| {
        format!(
            "listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ fhir: 'http://{}/r4', auth: {{ bearer: {{ file: {file} }} }} }} }}\n",
            server.address
        )
    };
    let folder = site("");
    std::fs::write(folder.path().join("token"), "one\n").expect("a file");
    save(folder.path(), &text("token"));
    let daemon = Daemon::start(folder.path());
    assert!(exchange(daemon.address("adt on "), admit("C1", "1").as_bytes()).contains("MSA|AA"));
    wait_for("the first token", || server.heard("bearer one"));
    // A secret that is mounted anew takes the old one's place by its name.
    std::fs::write(folder.path().join("token.new"), "two\n").expect("a file");
    std::fs::rename(folder.path().join("token.new"), folder.path().join("token")).expect("a rename");
    wait_for("the second token", || server.heard("bearer two"));
    assert!(!daemon.err().contains("bearer") && !daemon.err().contains("two"), "{}", daemon.err());

    save(folder.path(), &text("nowhere"));
    wait_for_log(&daemon, "the secret's file");
    assert!(state(&daemon)["lastReloadError"].as_str().expect("a text").contains("kiln.yaml:4"));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_link_that_points_elsewhere_is_a_save() {
    let folder = tempfile::tempdir().expect("a folder");
    // As a cluster mounts it: all files through one link, which is replaced.
    let versions = folder.path().join("mounted");
    let write = |version: &str, text: &str| {
        let path = versions.join(version);
        std::fs::create_dir_all(&path).expect("a folder");
        std::fs::write(path.join("odd.yaml"), text).expect("a file");
    };
    write("..1", ODD);
    std::os::unix::fs::symlink("..1", versions.join("..data")).expect("a link");
    std::os::unix::fs::symlink("..data/odd.yaml", versions.join("odd.yaml")).expect("a link");
    save(folder.path(), "listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { folder: out } }\nroutes: mounted\n");
    let daemon = Daemon::start(folder.path());
    let before = state(&daemon);
    // The same length; and a time of change that says nothing.
    write("..2", &ODD.replace("ZZZ^Z01", "ZZZ^Z02"));
    let time = std::fs::metadata(versions.join("..1/odd.yaml")).and_then(|m| m.modified()).expect("a time");
    std::fs::File::options().write(true).open(versions.join("..2/odd.yaml")).and_then(|f| f.set_modified(time)).expect("a time");
    std::os::unix::fs::symlink("..2", versions.join("..new")).expect("a link");
    std::fs::rename(versions.join("..new"), versions.join("..data")).expect("a rename");
    wait_for("the other version", || state(&daemon)["hash"] != before["hash"]);
    assert!(daemon.err().contains("~ file "), "{}", daemon.err());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_takes_away_a_route_or_a_target_that_deliveries_wait_for_is_refused() {
    let server = Busy::start();
    let both = format!(
        "listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ folder: out }}, extra: {{ fhir: 'http://{}/r4', parallel: 1 }} }}\n",
        server.address
    );
    let folder = site(&both);
    route(folder.path(), "odd.yaml", &ODD.replace("to: main", "to: extra"));
    let daemon = Daemon::start(folder.path());
    // So many that not all of them can have been tried before the files change, however slow this machine is: probes come ever more rarely.
    for n in 0..12 {
        assert!(exchange(daemon.address("adt on "), odd(&format!("C{n}"), &n.to_string()).as_bytes()).contains("MSA|AA"));
    }
    wait_for("an attempt", || server.heard(""));
    let hash = state(&daemon)["hash"].clone();
    std::fs::remove_file(folder.path().join("routes/odd.yaml")).expect("it is there");
    wait_for_log(&daemon, "route odd is gone, but ");
    assert!(daemon.err().contains("of its deliveries to extra wait"), "{}", daemon.err());
    assert_eq!(state(&daemon)["hash"], hash);

    // What waits is drained by the routes that it met.
    save(folder.path(), &format!("{both}on-removal: drain\n"));
    wait_for("the route's end", || state(&daemon)["hash"] != hash);
    assert!(state(&daemon)["lastReloadError"].is_null());
    let without = "listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { folder: out } }\n";
    save(folder.path(), without);
    wait_for_log(&daemon, "target extra is gone, but 12 deliveries wait for it");
    // A target that is put right while it drains takes what waits: here a folder in the server's place.
    save(folder.path(), &format!("{without}on-removal: drain\n"));
    wait_for_log(&daemon, "a target was taken away that something waits for");
    let count = |state: &str| run(folder.path(), &["journal", "search", "--state", state, "--json"]).out.lines().count();
    assert_eq!((count("pending"), count("dead-letter")), (12, 0));
    save(folder.path(), "listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { folder: out }, extra: { folder: extra } }\non-removal: drain\n");
    wait_for("what waited", || count("delivered") == 12);
    assert_eq!(patients(&folder.path().join("extra")).len(), 12, "made by a route that is gone since long");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_waits_for_what_is_gone_becomes_dead_letters_where_the_site_says_so() {
    let server = Busy::start();
    let both = format!(
        "listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ folder: out }}, extra: {{ fhir: 'http://{}/r4', parallel: 1 }} }}\n",
        server.address
    );
    let folder = site(&both);
    route(folder.path(), "odd.yaml", &ODD.replace("to: main", "to: extra"));
    let daemon = Daemon::start(folder.path());
    for n in 0..5 {
        assert!(exchange(daemon.address("adt on "), odd(&format!("C{n}"), &n.to_string()).as_bytes()).contains("MSA|AA"));
    }
    wait_for("an attempt", || server.heard(""));
    std::fs::remove_file(folder.path().join("routes/odd.yaml")).expect("it is there");
    let without = "listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { folder: out } }\non-removal: dead-letter\n";
    save(folder.path(), without);
    let dead = || run(folder.path(), &["journal", "search", "--state", "dead-letter", "--json"]).out.lines().count();
    wait_for("five dead letters", || dead() == 5);
    assert!(daemon.err().contains("target-removed"), "{}", daemon.err());
    // Dead letters hold up no change; and once target and route are back, they can be tried again.
    save(folder.path(), &both.replace(&format!("fhir: 'http://{}/r4', parallel: 1", server.address), "folder: extra"));
    route(folder.path(), "odd.yaml", &ODD.replace("to: main", "to: extra"));
    wait_for("the target", || state(&daemon)["lastReloadError"].is_null() && daemon.err().matches("applied a changed site").count() >= 2);
    wait_for("the replay", || run(folder.path(), &["journal", "replay", "1", "2", "3", "4", "5"]).code == 0);
    wait_for("what was given up", || patients(&folder.path().join("extra")).len() == 5);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_target_that_is_gone_at_the_start_leaves_dead_letters_where_the_site_says_so() {
    let server = Busy::start();
    let folder = site(&format!("listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ fhir: 'http://{}/r4' }} }}\n", server.address));
    let daemon = Daemon::start(folder.path());
    assert!(exchange(daemon.address("adt on "), admit("C1", "1").as_bytes()).contains("MSA|AA"));
    assert_eq!(daemon.stop(), 0);
    save(folder.path(), "listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { other: { folder: out } }\non-removal: dead-letter\nroutes: mine\n");
    std::fs::create_dir(folder.path().join("mine")).expect("a folder");
    let daemon = Daemon::start(folder.path());
    wait_for("the dead letter", || run(folder.path(), &["journal", "search", "--state", "dead-letter"]).code == 0);
    assert_eq!(daemon.stop(), 0);
}

/// Each patient's file says by which table and by which authority it was made; they change together, so they must agree.
#[test]
fn under_load_nothing_is_dropped_lost_or_made_by_a_mixture() {
    const CHANGES: usize = 6;
    let route_text = |version: usize| {
        format!("route: odd\non: ZZZ^Z01\nto: main\nresources:\n  who: {{ $map: PID -> Patient, $save: update by PID-3, language: \"v{version}\" }}\n")
    };
    let text = |version: usize| {
        format!("listeners: {{ adt: {{ mllp: 127.0.0.1:0, authority: 'V{version}&1.2.{version}&ISO' }} }}\ntargets: {{ main: {{ folder: out }} }}\n")
    };
    let folder = site(&text(0));
    route(folder.path(), "odd.yaml", &route_text(0));
    let daemon = Daemon::start(folder.path());
    let address = daemon.address("adt on ");
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..3)
        .map(|sender| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                // One connection for the whole time.
                let mut peer = Peer::connect(address);
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    let id = format!("S{sender}-{sent}");
                    let answer = peer.ask(&odd(&id, &id).replace("^^^HOSP^MR", "^^^^MR"));
                    assert!(answer.contains(&format!("MSA|AA|{id}\r")), "no answer to {id}: {}", answer.escape_debug());
                    sent += 1;
                    std::thread::sleep(Duration::from_millis(3));
                }
                sent
            })
        })
        .collect();
    for version in 1..=CHANGES {
        let before = state(&daemon)["hash"].clone();
        // Two files, saved within the quiet time.
        route(folder.path(), "odd.yaml", &route_text(version));
        save(folder.path(), &text(version));
        wait_for("the change", || state(&daemon)["hash"] != before);
    }
    stop.store(true, Ordering::Relaxed);
    let sent: usize = senders.into_iter().map(|s| s.join().expect("all were answered")).sum();
    assert!(sent > 50, "only {sent} were sent");
    wait_for("all deliveries", || {
        let stats = json(&get(daemon.address("console http://"), "/api/stats").1);
        stats["targets"][0]["delivered"] == sent
    });
    let made = patients(&folder.path().join("out"));
    assert_eq!(made.len(), sent);
    let mut versions = std::collections::BTreeSet::new();
    for patient in &made {
        let language = patient["language"].as_str().expect("a version").to_owned();
        let system = patient["identifier"][0]["system"].as_str().expect("a system").to_owned();
        assert_eq!(system.strip_prefix("urn:oid:1.2."), language.strip_prefix('v'), "{patient}");
        versions.insert(language);
    }
    assert!(versions.len() > 3, "{versions:?}");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_only_a_restart_changes_is_said_and_the_rest_is_live() {
    let folder = site("listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { null: true } }\n");
    let daemon = Daemon::start(folder.path());
    std::fs::write(
        folder.path().join("kiln.yaml"),
        "console: { listen: 127.0.0.1:1 }\njournal: { path: elsewhere, low-water: 1MiB }\nlisteners: { adt: { mllp: 127.0.0.1:0 }, lab: { mllp: 127.0.0.1:0 } }\ntargets: { main: { null: true } }\n",
    )
    .expect("a file");
    wait_for("the listener", || listeners(&daemon).len() == 2);
    wait_for_log(&daemon, "count after a restart only: journal.path, console.listen");
    assert_eq!(state(&daemon)["needsRestart"], serde_json::json!(["journal.path", "console.listen"]));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_folder_that_another_name_takes_over_stays_open() {
    let folder = site("listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { folder: out } }\n");
    route(folder.path(), "odd.yaml", ODD);
    let daemon = Daemon::start(folder.path());
    assert!(exchange(daemon.address("adt on "), odd("C1", "1").as_bytes()).contains("MSA|AA"));
    wait_for("the first", || patients(&folder.path().join("out")).len() == 1);
    save(folder.path(), "listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { null: true }, files: { folder: out } }\n");
    route(folder.path(), "odd.yaml", &ODD.replace("to: main", "to: files"));
    wait_for_log(&daemon, "applied a changed site: ~ target main, + target files, ~ route odd, ~ file routes/odd.yaml");
    assert!(exchange(daemon.address("adt on "), odd("C2", "2").as_bytes()).contains("MSA|AA"));
    wait_for("the second", || patients(&folder.path().join("out")).len() == 2);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_site_whose_folders_change_is_watched_where_it_is_now() {
    let folder = site("listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { null: true } }\n");
    let daemon = Daemon::start(folder.path());
    let other: PathBuf = folder.path().join("other");
    std::fs::create_dir(&other).expect("a folder");
    std::fs::write(other.join("odd.yaml"), ODD.replace("to: main", "to: nobody")).expect("a file");
    save(folder.path(), "listeners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { null: true } }\nroutes: other\n");
    wait_for_log(&daemon, "other/odd.yaml:3");
    // What was refused is mended in a folder that was never in force.
    std::fs::write(other.join("odd.yaml"), ODD).expect("a file");
    wait_for_log(&daemon, "+ route odd");
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_way_back_that_cannot_be_opened_is_refused_at_a_reload_and_at_a_start() {
    let folder = site("reload: signal\nlisteners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { null: true } }\n");
    let daemon = Daemon::start(folder.path());
    save(
        folder.path(),
        "reload: signal\nlisteners: { adt: { mllp: 127.0.0.1:0, enhanced: { to: '127.0.0.1:9', tls: { name: \"not a name\" } } } }\ntargets: { main: { null: true } }\n",
    );
    let refused = run(folder.path(), &["reload"]);
    assert!(refused.code != 0 && refused.err.contains("listener adt: `enhanced: { to }`:"), "{} {}", refused.out, refused.err);
    assert!(exchange(daemon.address("adt on "), admit("C1", "1").as_bytes()).contains("MSA|AA|C1"), "it goes on as it was");
    assert_eq!(daemon.stop(), 0);
    let refused = run(folder.path(), &["serve"]).expect(2);
    assert!(refused.err.contains("listener adt: `enhanced: { to }`:"), "{}", refused.err);
}

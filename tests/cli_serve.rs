//! The daemon from outside: start, refusal to start, reload, probes, the operator's commands, and a stop in order.

mod cli_support;
use cli_support::{Daemon, admit, exchange, get, kiln, run, wait_for};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const SITE: &str = "console: { listen: 127.0.0.1:0 }\nlisteners: { adt: { mllp: 127.0.0.1:0 } }\ntargets: { main: { folder: out } }\n";

fn site(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("kiln.yaml"), text).expect("a file");
    folder
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_message_is_stored_acknowledged_delivered_and_found() {
    let folder = site(SITE);
    let daemon = Daemon::start(folder.path());
    std::fs::write(folder.path().join("m.hl7"), admit("C1", "4711")).expect("a file");
    let sent = run(folder.path(), &["send", "m.hl7", "--to", &daemon.address("adt on ").to_string()]).expect(0);
    assert!(sent.out.starts_with("AA  C1"), "{}", sent.out);

    let search = |args: &[&str]| run(folder.path(), &[&["journal", "search", "--json"], args].concat());
    wait_for("the delivery", || search(&["--state", "delivered"]).code == 0);
    let found = json(search(&["--control-id", "C1"]).expect(0).out.trim());
    assert_eq!((found["type"].as_str(), found["disposition"].as_str()), (Some("ADT^A01"), Some("accepted")), "{found}");
    wait_for("the index", || search(&["--patient", "4711"]).code == 0);
    search(&["--patient", "4712"]).expect(1);
    let number = found["id"].to_string();
    let shown = run(folder.path(), &["journal", "show", &number]).expect(0);
    assert!(shown.out.contains("Meier^Eva") && shown.out.contains("delivered"), "{}", shown.out);
    assert_eq!(run(folder.path(), &["journal", "show", &number, "--raw"]).expect(0).out, admit("C1", "4711"));
    run(folder.path(), &["journal", "show", "999999"]).expect(1);
    assert!(run(folder.path(), &["journal", "stats"]).expect(0).out.contains("ADT^A01"));
    assert!(run(folder.path(), &["journal", "verify"]).expect(0).out.contains("sound"));
    assert!(folder.path().join("out/Patient").read_dir().expect("the target's folder").count() == 1);

    let console = daemon.address("console http://");
    assert_eq!(get(console, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(json(&get(console, "/readyz").1)["ready"], true);
    let metrics = get(console, "/metrics").1;
    for line in
        ["kiln_messages_received_total{listener=\"adt\",type=\"ADT^A01\"} 1", "kiln_acks_total{listener=\"adt\",code=\"AA\"} 1", "outcome=\"delivered\"} 1"]
    {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    let stats = json(&get(console, "/api/stats").1);
    assert_eq!((&stats["targets"][0]["delivered"], &stats["listeners"][0]["accepted"]), (&1.into(), &1.into()), "{stats}");
    let (status, page) = get(console, "/");
    assert!(status == 200 && page.contains("<title>Kiln</title>"));
    assert_eq!(get(console, "/nothing").0, 404);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_peer_that_frames_wrongly_is_shown_without_its_patients() {
    use std::io::Write;
    let folder = site(SITE);
    let daemon = Daemon::start(folder.path());
    let mut peer = std::net::TcpStream::connect(daemon.address("adt on ")).expect("the listener accepts");
    peer.write_all(admit("QX77041993", "QX77041993").as_bytes()).expect("the socket takes bytes");
    wait_for("the line", || daemon.err().contains("skipped bytes outside of MLLP frames"));
    let line = daemon.err().lines().find(|l| l.contains("skipped bytes")).unwrap_or_default().to_owned();
    assert!(line.contains("4D 53 48 7C 5E 7E 5C 26 7C .. ") && line.contains("tolerate: { unframed: on }"), "{line}");
    assert!(!line.contains("QX77041993") && !line.contains("51 58 37"), "{line}");
    let stats = json(&get(daemon.address("console http://"), "/api/stats").1);
    assert_eq!(stats["listeners"][0]["frameFaults"]["unframed"], 1, "{stats}");
    // The same peer, where it is tolerated, without a restart.
    std::fs::write(folder.path().join("kiln.yaml"), SITE.replace("{ mllp: 127.0.0.1:0 }", "{ mllp: 127.0.0.1:0, tolerate: { unframed: on } }"))
        .expect("a file");
    wait_for("the site", || daemon.err().contains("applied a changed site"));
    let mut peer = std::net::TcpStream::connect(daemon.address("adt on ")).expect("the listener accepts");
    peer.write_all(admit("C2", "1").as_bytes()).expect("the socket takes bytes");
    peer.shutdown(std::net::Shutdown::Write).expect("the socket is open");
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut peer, &mut answer).expect("it is text");
    assert!(answer.starts_with("MSH|") && answer.contains("MSA|AA|C2"), "{}", answer.escape_debug());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn what_waits_for_a_target_that_is_gone_is_told() {
    let folder = site(&SITE.replace("main: { folder: out }", "main: { folder: out }, extra: { fhir: http://127.0.0.1:9/fhir }"));
    let route = folder.path().join("routes/extra.yaml");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    std::fs::write(&route, "route: extra\non: ADT^A01\nto: extra\nresources:\n  who: { $map: PID -> Patient, $save: update by PID-3 }\n").expect("a file");
    let daemon = Daemon::start(folder.path());
    assert!(exchange(daemon.address("adt on "), admit("C1", "1").as_bytes()).contains("MSA|AA"));
    assert_eq!(daemon.stop(), 0);
    std::fs::remove_file(&route).expect("it is there");
    std::fs::write(folder.path().join("kiln.yaml"), SITE).expect("a file");
    let daemon = Daemon::start(folder.path());
    wait_for("the warning", || daemon.err().contains("a target that the site no longer has"));
    assert!(daemon.err().contains("pending=1"), "{}", daemon.err());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn without_a_daemon_too_prune_keeps_what_the_site_keeps() {
    let folder = site(&format!("journal: {{ path: journal, keep: 1s }}\n{SITE}"));
    let daemon = Daemon::start(folder.path());
    assert!(exchange(daemon.address("adt on "), admit("C1", "1").as_bytes()).contains("MSA|AA"));
    wait_for("a delivery", || run(folder.path(), &["journal", "search", "--state", "delivered"]).code == 0);
    assert_eq!(daemon.stop(), 0);
    let ran = run(folder.path(), &["journal", "prune", "--journal", "journal"]).expect(2);
    assert!(ran.err.contains("--config"), "{}", ran.err);
    wait_for("a second to pass", || run(folder.path(), &["journal", "prune"]).out.contains("1 message deleted"));
}

#[test]
fn what_the_daemon_writes_is_its_users_only() {
    let folder = site(SITE);
    let daemon = Daemon::start(folder.path());
    exchange(daemon.address("adt on "), admit("C1", "1").as_bytes());
    wait_for("a delivery", || folder.path().join("out/Patient").exists());
    let mut folders = vec![folder.path().join("journal"), folder.path().join("out")];
    while let Some(path) = folders.pop() {
        let mode = std::fs::symlink_metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} is open to others: {mode:o}", path.display());
        if path.is_dir() {
            folders.extend(path.read_dir().expect("a folder").map(|e| e.expect("an entry").path()));
        }
    }
}

#[test]
fn it_does_not_start_on_what_it_cannot_use() {
    let folder = site("listeners: { adt: { mllp: here } }\n");
    let ran = run(folder.path(), &["serve"]).expect(2);
    assert!(ran.err.contains("kiln.yaml:1:27") && ran.err.contains("K725"), "{}", ran.err);

    let folder = site("targets: { main: { null: true } }\n");
    assert!(run(folder.path(), &["serve"]).expect(2).err.contains("no listener"));

    let folder = site(SITE);
    let ran = kiln(folder.path()).arg("serve").env("KILN__JOURNAL__KEEP", "for ever").output().expect("the binary starts");
    assert!(ran.status.code() == Some(2) && String::from_utf8_lossy(&ran.stderr).contains("KILN__JOURNAL__KEEP"));

    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    std::fs::write(folder.path().join("routes/bad.yaml"), "route: bad\non: ADT^A01\nto: nowhere\n").expect("a file");
    let ran = run(folder.path(), &["serve"]).expect(2);
    assert!(ran.err.contains("bad.yaml:3"), "{}", ran.err);
}

#[test]
fn ports_and_journals_are_not_shared() {
    let folder = site(SITE);
    let daemon = Daemon::start(folder.path());
    let second = run(folder.path(), &["serve"]).expect(2);
    assert!(second.err.contains("another kiln"), "{}", second.err);
    let mllp = daemon.address("adt on ");
    let other = site(&SITE.replace("mllp: 127.0.0.1:0", &format!("mllp: {mllp}")));
    let taken = run(other.path(), &["serve"]).expect(2);
    assert!(taken.err.contains(&format!("listener adt: {mllp} cannot be used")), "{}", taken.err);
}

#[test]
fn the_environment_stands_above_the_file() {
    let folder = site(SITE);
    let daemon = Daemon::start_with(kiln(folder.path()).arg("serve").env("KILN__METRICS__LISTEN", "127.0.0.1:0").env("KILN__JOURNAL__PATH", "elsewhere"));
    assert!(folder.path().join("elsewhere").is_dir());
    let probes = daemon.address("metrics http://");
    assert_eq!(get(probes, "/readyz").0, 200);
    assert!(get(probes, "/metrics").1.contains("kiln_journal_bytes"));
    for page in ["/", "/api/stats", "/console.js"] {
        assert_eq!(get(probes, page).0, 404, "{page} is the console's only");
    }
}

const WARNS: &str = "route: mine\non: ADT^A31\nto: main\nresources:\n  who: { $map: PID -> Patient, $save: update by PID-3, generalPractitioner: first(ROL-4) as Practitioner }\n";

const GOOD: &str = "route: mine\non: ADT^A31\nto: main\nresources:\n  who: { $map: PID -> Patient, $save: update by PID-3 }\n";

#[test]
fn an_edit_is_live_at_once_and_a_bad_one_changes_nothing() {
    let folder = site(SITE);
    let routes = folder.path().join("routes");
    std::fs::create_dir(&routes).expect("a folder");
    let daemon = Daemon::start(folder.path());
    let console = daemon.address("console http://");
    let state = || json(&get(console, "/readyz").1)["routes"].clone();
    let before = state();

    std::fs::write(routes.join("mine.yaml"), GOOD).expect("a file");
    wait_for("the new route", || state()["hash"] != before["hash"]);
    assert_eq!(state()["routes"].as_u64(), before["routes"].as_u64().map(|n| n + 1));
    let good = state();

    std::fs::write(routes.join("mine.yaml"), GOOD.replace("PID-3", "PID-333")).expect("a file");
    wait_for("the refusal", || state()["lastReloadError"].is_string());
    let refused = state();
    assert_eq!(refused["hash"], good["hash"]);
    assert!(refused["lastReloadError"].as_str().expect("a text").contains("mine.yaml:5"), "{refused}");
    assert!(daemon.err().contains("mine.yaml:5"), "{}", daemon.err());
    assert_eq!(get(console, "/readyz").0, 200, "a bad edit never takes down a running feed");
    assert!(get(console, "/metrics").1.contains("result=\"refused\"} 1"));
    assert!(exchange(daemon.address("adt on "), admit("C1", "1").as_bytes()).contains("MSA|AA|C1"));

    std::fs::write(routes.join("mine.yaml"), GOOD).expect("a file");
    wait_for("the cure", || state()["lastReloadError"].is_null());
    assert_eq!(daemon.stop(), 0);

    // Started with a bad set, the last good one goes on.
    std::fs::write(routes.join("mine.yaml"), GOOD.replace("PID-3", "PID-333")).expect("a file");
    let daemon = Daemon::start(folder.path());
    let state = json(&get(daemon.address("console http://"), "/readyz").1)["routes"].clone();
    assert_eq!(state["hash"], good["hash"]);
    assert!(state["lastReloadError"].as_str().expect("a text").contains("mine.yaml:5"));
}

#[test]
fn an_edit_with_a_warning_is_live_and_the_warning_is_logged() {
    let folder = site(SITE);
    let routes = folder.path().join("routes");
    std::fs::create_dir(&routes).expect("a folder");
    let daemon = Daemon::start(folder.path());
    std::fs::write(routes.join("mine.yaml"), WARNS).expect("a file");
    wait_for("the warning", || daemon.err().contains("with warnings"));
    assert!(daemon.err().contains("mine.yaml:") && daemon.err().contains("warning"), "{}", daemon.err());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_client_that_says_nothing_holds_up_no_command() {
    let folder = site(SITE);
    let daemon = Daemon::start(folder.path());
    let _silent: Vec<_> = (0..3).map(|_| std::os::unix::net::UnixStream::connect(folder.path().join("journal/control.sock")).expect("a socket")).collect();
    let began = Instant::now();
    run(folder.path(), &["journal", "prune", "--json"]);
    assert!(began.elapsed() < Duration::from_secs(8), "it waited for {:?}", began.elapsed());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_replay_reads_a_message_in_its_listeners_character_set() {
    let folder = site(&SITE.replace("mllp: 127.0.0.1:0 }", "mllp: 127.0.0.1:0, charset: 8859/1 }"));
    let daemon = Daemon::start(folder.path());
    // The name is Latin-1, and MSH-18 says nothing; no route takes the type yet.
    let message = admit("C1", "4711").replace("ADT^A01^ADT_A01", "ZZZ^Z01").replace("Meier", "M\u{fc}ller");
    let latin: Vec<u8> = message.chars().map(|c| u8::try_from(u32::from(c)).expect("it is Latin-1")).collect();
    assert!(exchange(daemon.address("adt on "), &latin).contains("MSA|AA|C1"));
    wait_for("the index", || run(folder.path(), &["journal", "search", "--patient", "4711"]).code == 0);
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    std::fs::write(folder.path().join("routes/mine.yaml"), GOOD.replace("ADT^A31", "otherwise")).expect("a file");
    wait_for("the route", || run(folder.path(), &["journal", "replay", "1"]).code == 0);
    wait_for("the delivery", || run(folder.path(), &["journal", "search", "--state", "delivered"]).code == 0);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn with_reload_signal_only_a_signal_reloads() {
    let folder = site(&format!("{SITE}reload: signal\n"));
    let daemon = Daemon::start(folder.path());
    let console = daemon.address("console http://");
    let hash = || json(&get(console, "/readyz").1)["routes"]["hash"].clone();
    let before = hash();
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    std::fs::write(folder.path().join("routes/mine.yaml"), GOOD).expect("a file");
    let patience = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < patience {
        assert_eq!(hash(), before, "nobody asked for it");
        std::thread::sleep(Duration::from_millis(50));
    }
    daemon.signal("HUP");
    wait_for("the reload", || hash() != before);
}

#[test]
fn dead_letters_are_replayed_and_skipped_with_and_without_a_daemon() {
    let folder = site(SITE);
    let daemon = Daemon::start(folder.path());
    // Nobody can say who this is, so it cannot be delivered.
    assert!(exchange(daemon.address("adt on "), admit("C1", "").replace("^^^HOSP^MR", "").as_bytes()).contains("MSA|AA|C1"));
    let dead = |folder: &Path| run(folder, &["journal", "search", "--state", "dead-letter", "--json"]);
    wait_for("the dead letter", || dead(folder.path()).code == 0);
    let number = json(dead(folder.path()).out.lines().next().expect("a line"))["id"].to_string();
    let stats = json(&get(daemon.address("console http://"), "/api/stats").1);
    assert!(stats["targets"][0]["lastError"]["summary"].is_string(), "{stats}");

    let replayed = json(run(folder.path(), &["journal", "replay", &number, "--json"]).expect(0).out.trim());
    assert_eq!(replayed["deliveries"], 1);
    wait_for("the dead letter to come again", || {
        let shown = json(run(folder.path(), &["journal", "show", &number, "--json"]).out.trim());
        let attempts = shown["deliveries"][0]["attempts"].as_array().expect("attempts").clone();
        attempts.iter().filter(|a| a["outcome"] == "dead-letter").count() == 2
    });
    assert_eq!(daemon.stop(), 0);
    assert!(!folder.path().join("journal/control.sock").exists());

    run(folder.path(), &["journal", "skip", &number, "--target", "other"]).expect(1);
    run(folder.path(), &["journal", "skip", &number]).expect(0);
    dead(folder.path()).expect(1);
    run(folder.path(), &["journal", "prune"]);
    run(folder.path(), &["journal", "replay", "424242"]).expect(2);
}

#[test]
fn it_starts_at_once_and_stops_with_clients_connected() {
    let folder = site(SITE);
    Daemon::start(folder.path()).stop();
    let began = Instant::now();
    let daemon = Daemon::start(folder.path());
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    let _idle = std::net::TcpStream::connect(daemon.address("adt on ")).expect("it listens");
    let _browser = std::net::TcpStream::connect(daemon.address("console http://")).expect("it listens");
    let began = Instant::now();
    assert_eq!(daemon.stop(), 0);
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
}

#[test]
fn what_no_route_took_is_routed_once_there_is_a_route() {
    let folder = site(SITE);
    let daemon = Daemon::start(folder.path());
    let (mllp, console) = (daemon.address("adt on "), daemon.address("console http://"));
    let message = admit("C1", "1").replace("ADT^A01^ADT_A01", "ZZZ^Z01");
    assert!(exchange(mllp, message.as_bytes()).contains("MSA|AA|C1"));
    let replay = || run(folder.path(), &["journal", "replay", "1", "--json"]);
    replay().expect(1);
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    std::fs::write(folder.path().join("routes/mine.yaml"), GOOD.replace("ADT^A31", "otherwise")).expect("a file");
    let before = json(&get(console, "/readyz").1)["routes"]["routes"].as_u64();
    wait_for("the route", || json(&get(console, "/readyz").1)["routes"]["routes"].as_u64() > before);
    assert_eq!(json(replay().expect(0).out.trim())["deliveries"], 1);
    wait_for("the delivery", || run(folder.path(), &["journal", "search", "--state", "delivered"]).code == 0);
    replay().expect(1);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn log_lines_are_json_when_asked_and_say_which_message() {
    let folder = site(&format!("{SITE}log: {{ json: true, level: debug }}\n"));
    let daemon = Daemon::start(folder.path());
    exchange(daemon.address("adt on "), admit("C1", "").replace("^^^HOSP^MR", "").as_bytes());
    wait_for("the line", || daemon.err().contains("a delivery was given up"));
    for line in daemon.err().lines() {
        assert!(json(line)["level"].is_string(), "{line}");
    }
    let line = json(daemon.err().lines().find(|l| l.contains("given up")).expect("the line"));
    assert_eq!((&line["fields"]["message_id"], &line["fields"]["message"]), (&1.into(), &"a delivery was given up".into()), "{line}");
}

#[test]
fn an_overlay_named_in_the_site_file_is_live_at_once() {
    let folder = site(SITE);
    let routes = folder.path().join("routes");
    std::fs::create_dir(&routes).expect("a folder");
    let overlay = "extend: PID -> Patient\n$in: local\nmaritalStatus: nothing\n";
    std::fs::write(routes.join("local.yaml"), overlay).expect("a file");
    let daemon = Daemon::start(folder.path());
    let console = daemon.address("console http://");
    let hash = || json(&get(console, "/readyz").1)["routes"]["hash"].clone();
    let before = hash();
    std::fs::write(folder.path().join("kiln.yaml"), format!("{SITE}use: [local]\n")).expect("a file");
    wait_for("the overlay", || hash() != before);
    std::fs::write(folder.path().join("kiln.yaml"), format!("{SITE}use: [local]\nreload: wach\n")).expect("a file");
    wait_for("the refusal", || get(console, "/readyz").1.contains("kiln.yaml:5:9"));
    assert_eq!(daemon.stop(), 0);
}

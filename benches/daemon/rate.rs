//! Acknowledgements and deliveries at a rate that is held.

use crate::harness::{Asked, Buckets, Daemon, load, quantile};
use std::path::Path;
use std::time::{Duration, Instant};

/// Acknowledgements at a rate, against the commits of the same time.
pub(super) fn latency(asked: &Asked) {
    let (rate, time, connections) = (asked.text("--rate", "500"), asked.text("--for", "30s"), asked.text("--connections", "8"));
    let kinds = asked.text("--target", "all");
    let kinds = if kinds == "all" { vec!["paused", "null", "folder"] } else { vec![kinds.as_str()] };
    println!("{rate} messages/s for {time} over {connections} connections; load {}", load());
    for kind in kinds {
        let folder = asked.folder();
        let daemon = Daemon::start(&folder, kind);
        // What is made once (prepared statements, buffers, connections) is made before the clock runs.
        daemon.send(&asked.message(), &["--repeat", "500", "--connections", &connections]);
        let (acks, commits) = (daemon.histogram("kiln_ack_seconds"), daemon.histogram("kiln_commit_seconds"));
        let sent = daemon.send(&asked.message(), &["--rate", &rate, "--for", &time, "--connections", &connections]);
        let since = |before: &Buckets, now: Buckets| -> Buckets { now.iter().zip(before).map(|((bound, n), (_, was))| (*bound, n - was)).collect() };
        let (acks, commits) = (since(&acks, daemon.histogram("kiln_ack_seconds")), since(&commits, daemon.histogram("kiln_commit_seconds")));
        daemon.stop();
        let [ack50, ack99] = [0.5, 0.99].map(|share| quantile(&acks, share));
        let [commit50, commit99] = [0.5, 0.99].map(|share| quantile(&commits, share));
        let n = |buckets: &Buckets| buckets.last().map_or(0.0, |(_, n)| *n);
        println!("target {kind}: {} accepted at {:.0}/s", sent["accepted"], sent["perSecond"].as_f64().unwrap());
        println!("    commit  p50 {commit50:>6.0} us  p99 {commit99:>6.0} us   ({:.0} commits)", n(&commits));
        println!("    ACK     p50 {ack50:>6.0} us  p99 {ack99:>6.0} us   inside kiln, from the last byte to the hand-over to the socket");
        println!(
            "    ACK     p50 {:>6} us  p99 {:>6} us   at the sender, from the hand-over to the socket to the answer",
            sent["micros"]["p50"], sent["micros"]["p99"]
        );
        println!("    sent    p50 {:>6} us  p99 {:>6} us   after it was due", sent["microsLate"]["p50"], sent["microsLate"]["p99"]);
        println!(
            "    ACK p99 / commit p99: {:.2} inside kiln, {:.2} at the sender; goal 2; load now {}",
            ack99 / commit99,
            sent["micros"]["p99"].as_f64().unwrap() / commit99,
            load()
        );
        let _ = std::fs::remove_dir_all(&folder);
    }
}

/// Ten minutes after so many are stored: intake alone, then what is taken in and delivered at a rate that can be held.
pub(super) fn sustained(asked: &Asked) {
    let (stored, time, connections) = (asked.number("--stored", 1_000_000), asked.time("--for", "10m"), asked.text("--connections", "64"));
    let kinds = asked.text("--target", "all");
    let kinds = if kinds == "all" { vec!["null", "folder", "paused"] } else { vec![kinds.as_str()] };
    for kind in kinds {
        let folder = asked.folder();
        // A type that no route takes: stored and acknowledged like the others, and nothing waits behind it.
        let nobodys = folder.join("nobodys.hl7");
        std::fs::write(&nobodys, std::fs::read_to_string(asked.message()).unwrap().replacen("ADT^A01^ADT_A01", "ZZZ^Z01", 1)).unwrap();
        let daemon = Daemon::start(&folder, kind);
        let began = Instant::now();
        daemon.send(&nobodys, &["--repeat", &stored.to_string(), "--connections", &connections]);
        println!("target {kind}: {stored} stored in {:.0} s; load {}", began.elapsed().as_secs_f64(), load());
        let measured = match (kind, asked.text("--rate", "")) {
            ("paused", _) => run(&daemon, asked, &folder, time, &connections, None),
            (_, rate) if !rate.is_empty() => run(&daemon, asked, &folder, time, &connections, Some(rate.parse().unwrap())),
            _ => {
                // As fast as it goes, until all is delivered: what can be held is a little below that.
                let pilot = Duration::from_secs(20).min(time);
                let before = (Instant::now(), daemon.delivered());
                daemon.send(&asked.message(), &["--for", &format!("{}ms", pilot.as_millis()), "--connections", &connections]);
                daemon.drain();
                let rate = (daemon.delivered() - before.1) / before.0.elapsed().as_secs_f64();
                println!("    for {} s as fast as it goes, then until nothing waits: {rate:.0} delivered/s over all", pilot.as_secs());
                run(&daemon, asked, &folder, time, &connections, Some((rate * 0.9) as u64))
            }
        };
        println!("{measured}");
        daemon.stop();
        let _ = std::fs::remove_dir_all(&folder);
    }
}

fn run(daemon: &Daemon, asked: &Asked, folder: &Path, time: Duration, connections: &str, rate: Option<u64>) -> String {
    // At most 40,000/s of 2 KB each: a disk that would be full before the end ends the run sooner.
    const GUESS: u64 = 80_000_000;
    let disk = rustix::fs::statvfs(folder).unwrap();
    let room = Duration::from_secs((disk.f_bavail * disk.f_frsize).saturating_sub(4 << 30) / rate.map_or(GUESS, |rate| rate * 4_000).max(1));
    let time = time.min(room);
    let mut options = vec!["--for".to_owned(), format!("{}ms", time.as_millis()), "--connections".to_owned(), connections.to_owned()];
    options.extend(rate.map(|rate| ["--rate".to_owned(), rate.to_string()]).into_iter().flatten());
    let (delivered, busy) = (daemon.delivered(), daemon.processor());
    let began = Instant::now();
    let sent = daemon.send(&asked.message(), &options.iter().map(String::as_str).collect::<Vec<_>>());
    let (seconds, done) = (began.elapsed().as_secs_f64(), daemon.delivered() - delivered);
    let accepted = sent["accepted"].as_f64().unwrap();
    let (server, sender) = (daemon.processor() - busy, sent["senderCpuSeconds"].as_f64().unwrap());
    let waits = if rate.is_some() { format!("; {:.0} waited at the end, gone {:.1} s later", accepted - done, daemon.drain()) } else { String::new() };
    format!(
        "    {seconds:.0} s{}: {:.0} AA/s, {:.0} delivered/s{waits}\n    ACK p50 {} p99 {} us; processor: server {server:.1} s ({:.1} us a message), sender {sender:.1} s ({:.1} us); {} MB resident at most; longest log {:.0} MB now; load {}",
        rate.map_or(" as fast as it goes".to_owned(), |rate| format!(" at {rate}/s")),
        accepted / seconds,
        done / seconds,
        sent["micros"]["p50"],
        sent["micros"]["p99"],
        server * 1e6 / accepted,
        sender * 1e6 / accepted,
        daemon.resident(),
        daemon.metric("kiln_wal_bytes") / 1e6,
        load()
    )
}

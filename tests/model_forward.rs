//! The model of a way through Kiln: whatever the network does on both sides, and whenever Kiln is killed, the receiver ends up with each acknowledged
//! message, each patient's in order, and what comes twice is the documented resend: the same bytes and MSH-10, before anything later of the patient.

mod cli_support;
mod v2_support;

use cli_support::{Daemon, run};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use v2_support::Receiver;
use v2_support::proxy::{Faults, Proxy};
use v2_support::sender::{holds, through};

const PATIENTS: usize = 4;

fn delivered(folder: &Path) -> u64 {
    let stats: serde_json::Value = serde_json::from_str(&run(folder, &["journal", "stats", "--json"]).expect(0).out).expect("JSON");
    stats["targets"].as_array().into_iter().flatten().filter(|t| t["target"] == "ward").filter_map(|t| t["delivered"].as_u64()).sum()
}

/// A port that is free now, and is Kiln's in all of its lives.
fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

/// `kills` lives of Kiln end by SIGKILL while messages are on their way.
fn model(seed: u64, count: usize, kills: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let receiver = runtime.block_on(Receiver::accepting());
    let out = runtime.block_on(Proxy::before(receiver.address, Faults::ALL, seed));
    let address = SocketAddr::from(([127, 0, 0, 1], port()));
    let into = runtime.block_on(Proxy::before(address, Faults::ALL, seed + 1));
    let site = format!(
        "journal: {{ low-water: 1MiB }}\nconsole: {{ listen: 127.0.0.1:0 }}\nlisteners: {{ adt: {{ mllp: \"{address}\" }} }}\n\
         targets: {{ main: {{ folder: out }}, ward: {{ mllp: \"{}\", parallel: 3, timeout: 2s }} }}\n",
        out.address
    );
    std::fs::write(folder.path().join("kiln.yaml"), site).expect("a file");
    std::fs::create_dir_all(folder.path().join("routes")).expect("a folder");
    std::fs::write(folder.path().join("routes/ward.yaml"), "route: to-ward\non: ADT^A08\nto: ward\nmessage: as-received\n").expect("a file");

    let mut daemon = Daemon::start(folder.path());
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| through(into.address, PATIENTS, count));
        for life in 1..=kills {
            // Each life ends when it has forwarded its share.
            let share = life * PATIENTS * count / (kills + 1);
            let give_up = Instant::now() + Duration::from_secs(120);
            while receiver.seen().len() < share && !sending.is_finished() {
                assert!(Instant::now() < give_up, "nothing is forwarded any more");
                std::thread::yield_now();
            }
            daemon.signal("KILL");
            daemon = Daemon::start(folder.path());
        }
    });
    out.calm();
    let all = (PATIENTS * count) as u64;
    let give_up = Instant::now() + Duration::from_secs(180);
    while delivered(folder.path()) < all {
        assert!(Instant::now() < give_up, "{} of {all} were delivered", delivered(folder.path()));
        std::thread::sleep(Duration::from_millis(100));
    }
    holds("the receiver", &receiver.control_ids(), PATIENTS, count);
    // One MSH-10, one content: also where it came again.
    let mut contents: HashMap<String, Vec<u8>> = HashMap::new();
    for seen in receiver.seen() {
        assert_eq!(contents.entry(seen.control_id()).or_insert_with(|| seen.bytes.clone()), &seen.bytes);
    }
    assert_eq!(contents.len() as u64, all);
    assert!(out.done() > 10 && into.done() > 10, "the weather was fine: {} {}", out.done(), into.done());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order_in_bad_weather() {
    let rounds = std::env::var("KILN_WEATHER").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    for seed in 0..rounds {
        model(1_000 + seed * 10, 20, 0);
    }
}

#[test]
fn nor_where_kiln_is_killed_meanwhile() {
    model(2_000, 25, 4);
}

//! Many connections that are silent beside many that are busy.

use crate::harness::{Asked, Daemon, load, rows, target};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A message that is sent as it is, on a connection that is open; gives the time until its AA.
fn ask(stream: &mut TcpStream, control_id: &str) -> Duration {
    let began = Instant::now();
    let message = format!("\x0BMSH|^~\\&|A|B|C|D|20260101||ADT^A08|{control_id}|P|2.5\rPID|1||7^^^H^MR\r\x1C\r");
    stream.write_all(message.as_bytes()).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
    while !answer.ends_with(b"\x1C\r") {
        let n = stream.read(&mut buffer).unwrap();
        assert_ne!(n, 0, "closed");
        answer.extend_from_slice(&buffer[..n]);
    }
    assert!(String::from_utf8_lossy(&answer).contains(&format!("MSA|AA|{control_id}\r")), "an AA");
    began.elapsed()
}

/// Many connections that say nothing beside many that each have one message in flight, target paused; then each of the silent ones sends one.
pub(super) fn connections(asked: &Asked) {
    let (idle, busy, time) = (asked.number("--idle", 1_000), asked.number("--busy", 1_000), asked.text("--for", "20s"));
    println!("{idle} idle and {busy} busy connections for {time}, target paused; load {}", load());
    let folder = asked.folder();
    let site = format!(
        "journal: {{ path: journal, low-water: 256MiB }}\nconsole: {{ listen: 127.0.0.1:0 }}\nreload: signal\n\
         listeners: {{ adt: {{ mllp: 127.0.0.1:0, limits: {{ connections: {} }} }} }}\ntargets: {{ main: {{ {} }} }}\n",
        idle + busy + 10,
        target("paused")
    );
    let daemon = Daemon::start_site(&folder, &site);
    let alone = daemon.resident();
    let mut silent: Vec<TcpStream> = (0..idle).map(|_| TcpStream::connect(&daemon.mllp).unwrap()).collect();
    while daemon.metric("kiln_connections{listener=\"adt\"}") < idle as f64 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let with_idle = daemon.resident();
    let used = daemon.processor();
    let sent = daemon.send(&asked.message(), &["--for", &time, "--connections", &busy.to_string()]);
    let used = daemon.processor() - used;
    let accepted = sent["accepted"].as_u64().unwrap();
    assert_eq!(Some(accepted), sent["sent"].as_u64(), "each message is accepted");
    println!(
        "{:.0} AA/s; ACK p50 {} p99 {} max {} us; processor a message: server {:.1}, sender {:.1} us; resident {alone} MB alone, {with_idle} MB with the idle ones, {} MB at most",
        sent["perSecond"].as_f64().unwrap(),
        sent["micros"]["p50"],
        sent["micros"]["p99"],
        sent["micros"]["max"],
        used * 1e6 / accepted as f64,
        sent["senderCpuSeconds"].as_f64().unwrap() * 1e6 / accepted as f64,
        daemon.resident(),
    );
    let mut times: Vec<Duration> = silent.iter_mut().enumerate().map(|(n, stream)| ask(stream, &format!("IDLE{n}"))).collect();
    times.sort();
    if let (Some(slowest), Some(middle)) = (times.last(), times.get(times.len() / 2)) {
        println!("then a message on each idle connection: p50 {} max {} us", middle.as_micros(), slowest.as_micros());
    }
    daemon.stop();
    assert_eq!(rows(&folder.join("journal")), accepted + idle, "each acknowledged message is stored");
    println!("{} rows in the journal, as many as AAs; load now {}", accepted + idle, load());
    let _ = std::fs::remove_dir_all(&folder);
}

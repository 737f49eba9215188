//! Measures the daemon from outside, with `kiln serve` and `kiln send` on this machine; figures are in docs/performance.md.
//!
//! ```text
//! cargo bench --bench daemon -- intake    [--messages 300000] [--rounds 3] [--connections 64]
//! cargo bench --bench daemon -- latency   [--rate 500] [--for 30s] [--connections 8] [--target paused|null|folder]
//! cargo bench --bench daemon -- connections [--idle 1000] [--busy 1000] [--for 20s]
//! cargo bench --bench daemon -- forward   [--messages 20000] [--parallel 1,8,64]
//! cargo bench --bench daemon -- sustained [--for 10m] [--stored 1000000] [--target paused|null|folder|all] [--rate N] [--connections 64]
//! cargo bench --bench daemon -- drain     [--messages 1000000] [--parallel 8] [--connections 64]
//! cargo bench --bench daemon -- reload    [--routes 650] [--rounds 11]
//! ```
//!
//! Each takes `--path FOLDER` (a folder for journals, on the disk that is to be measured) and `--message FILE`.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints and may stop")]

use kiln::journal::{Journal, Options};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const KILN: &str = env!("CARGO_BIN_EXE_kiln");

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let what = args.first().filter(|arg| !arg.starts_with("--")).map_or("", String::as_str).to_owned();
    let asked = Asked(args);
    match what.as_str() {
        "intake" => intake(&asked),
        "latency" => latency(&asked),
        "connections" => connections(&asked),
        "forward" => forward(&asked),
        "sustained" => sustained(&asked),
        "drain" => drain(&asked),
        "reload" => reload(&asked),
        _ => println!("say intake, latency, connections, forward, sustained, drain or reload; the head of benches/daemon.rs has their options"),
    }
}

/// What was asked for on the command line.
struct Asked(Vec<String>);

impl Asked {
    fn text(&self, name: &str, default: &str) -> String {
        self.0.iter().position(|arg| arg == name).and_then(|place| self.0.get(place + 1)).map_or(default, String::as_str).to_owned()
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.text(name, &default.to_string()).parse().unwrap()
    }

    fn time(&self, name: &str, default: &str) -> Duration {
        kiln::site::duration(&self.text(name, default)).unwrap()
    }

    fn message(&self) -> PathBuf {
        std::path::absolute(self.text("--message", "fixtures/try/01-admit.hl7")).unwrap()
    }

    /// An empty folder.
    fn folder(&self) -> PathBuf {
        let folder = std::path::absolute(self.text("--path", &std::env::temp_dir().join("kiln-bench-daemon").display().to_string())).unwrap();
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}

/// A line of a site file for each kind of target. Nobody listens at port 9: the target is down from the first message on, so its breaker
/// lets one probe through now and then, and all the rest waits.
fn target(kind: &str) -> &'static str {
    match kind {
        "paused" => "fhir: http://127.0.0.1:9/r4",
        "null" => "null: true",
        "folder" => "folder: out",
        _ => panic!("--target paused, null, folder or all"),
    }
}

/// A daemon that is killed when it is dropped.
struct Daemon {
    child: Child,
    mllp: String,
    console: String,
}

/// Of a histogram in /metrics: upper bounds in seconds, and how many were at most that.
type Buckets = Vec<(f64, f64)>;

impl Daemon {
    fn start(folder: &Path, kind: &str) -> Self {
        Self::start_with(folder, target(kind))
    }

    fn start_with(folder: &Path, target: &str) -> Self {
        let site = format!(
            "journal: {{ path: journal, low-water: 256MiB }}\nconsole: {{ listen: 127.0.0.1:0 }}\nreload: signal\n\
             listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ {target} }} }}\n"
        );
        Self::start_site(folder, &site)
    }

    fn start_site(folder: &Path, site: &str) -> Self {
        std::fs::write(folder.join("kiln.yaml"), site).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut child = Command::new(KILN).arg("serve").current_dir(folder).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(" accepts ") {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "kiln did not start: {}", std::fs::read_to_string(folder.join("log")).unwrap());
        }
        let after = |word: &str| line.split(word).nth(1).unwrap().split([',', ';', ' ', '/', '\n']).next().unwrap().to_owned();
        Self { child, mllp: after("adt on "), console: after("console http://") }
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(&self.console).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        text
    }

    fn metric(&self, name: &str) -> f64 {
        self.metrics().lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0)
    }

    fn histogram(&self, name: &str) -> Buckets {
        let head = format!("{name}_bucket{{le=\"");
        let bucket = |line: &str| {
            let (bound, count) = line.strip_prefix(&head)?.split_once("\"}")?;
            Some((if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? }, count.trim().parse().ok()?))
        };
        self.metrics().lines().filter_map(bucket).collect()
    }

    /// User and system time so far, in seconds.
    fn processor(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    /// The most memory that it ever had resident, in MB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Runs `kiln send` to its end, and says what it said.
    fn send(&self, message: &Path, options: &[&str]) -> serde_json::Value {
        let out = Command::new(KILN).arg("send").arg(message).args(["--to", &self.mllp, "--json"]).args(options).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success(), "kiln send: {text}\n{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until nothing waits for the target; says for how long it did.
    fn drain(&self) -> f64 {
        let began = Instant::now();
        // The gauge is kept twice a second, so once is not enough.
        let mut empty = 0;
        while empty < 3 {
            std::thread::sleep(Duration::from_millis(300));
            empty = if self.metric("kiln_backlog{target=\"main\"}") == 0.0 { empty + 1 } else { 0 };
        }
        (began.elapsed().as_secs_f64() - 0.9).max(0.0)
    }

    fn delivered(&self) -> f64 {
        self.metric("kiln_deliveries_total{target=\"main\",outcome=\"delivered\"}")
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap().split(' ').next().unwrap().to_owned()
}

/// Messages in the journal, as SQLite counts them.
fn rows(journal: &Path) -> u64 {
    let count = |path: &Path| {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        connection.query_row("SELECT count(*) FROM message", [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
    };
    segments(journal).iter().map(|path| count(path)).sum()
}

fn segments(journal: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> =
        names.filter(|path| path.extension().is_some_and(|e| e == "db") && path.file_name().unwrap().to_string_lossy().starts_with("segment-")).collect();
    segments.sort();
    segments
}

/// Kiln's intake with its target paused, and the bare loop with the very rows that Kiln stored, at the batch size that Kiln had, in turn.
fn intake(asked: &Asked) {
    let (messages, rounds, connections) = (asked.number("--messages", 300_000), asked.number("--rounds", 3), asked.number("--connections", 64));
    println!("{messages} messages over {connections} connections, target paused; {rounds} rounds; load {}", load());
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let folder = asked.folder();
        let daemon = Daemon::start(&folder, "paused");
        let busy = daemon.processor();
        let sent = daemon.send(&asked.message(), &["--repeat", &messages.to_string(), "--connections", &connections.to_string()]);
        let (busy, commits, resident) = (daemon.processor() - busy, daemon.metric("kiln_commit_seconds_count"), daemon.resident());
        daemon.stop();
        let (accepted, stored) = (sent["accepted"].as_u64().unwrap(), rows(&folder.join("journal")));
        assert_eq!((accepted, stored), (messages, messages), "accepted and stored");
        let (kiln, batch) = (sent["perSecond"].as_f64().unwrap(), messages as f64 / commits);
        let us = |seconds: f64| seconds * 1e6 / messages as f64;
        println!(
            "round {round}: kiln       {kiln:>7.0} AA/s, {batch:.1} a commit; ACK p50 {} p99 {} us; processor a message: server {:.1}, sender {:.1} us; {resident} MB resident",
            sent["micros"]["p50"],
            sent["micros"]["p99"],
            us(busy),
            us(sent["senderCpuSeconds"].as_f64().unwrap()),
        );
        let batch = (batch.round() as usize).max(1);
        let (raw, busy, mut times) = raw(&folder, messages, batch);
        times.sort();
        println!(
            "         raw SQLite {raw:>7.0} rows/s, {batch} a commit; commit p50 {} p99 {} us; processor a message: {:.1} us",
            times[times.len() / 2].as_micros(),
            times[times.len() * 99 / 100].as_micros(),
            us(busy)
        );
        println!("         kiln / raw {:>7.0} %", 100.0 * kiln / raw);
        ratios.push(kiln / raw);
        let _ = std::fs::remove_dir_all(&folder);
    }
    ratios.sort_by(f64::total_cmp);
    println!("kiln / raw SQLite at the same batch size: {:.0} % (median of {rounds}); goal 80 %; load now {}", 100.0 * ratios[ratios.len() / 2], load());
}

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
fn connections(asked: &Asked) {
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

/// A receiver that answers AA at once, a thread a connection; gives its port.
fn receiver() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let (mut gathered, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    gathered.extend_from_slice(&buffer[..n]);
                    while let Some(end) = gathered.windows(2).position(|w| w == [0x1C, 0x0D]) {
                        let frame: Vec<u8> = gathered.drain(..end + 2).collect();
                        let id = frame.split(|b| *b == b'|').nth(9).unwrap_or_default();
                        let ack = [b"\x0BMSH|^~\\&|R|R|S|S|2026||ACK|1|P|2.5\rMSA|AA|", id, b"\r\x1C\r"].concat();
                        if stream.write_all(&ack).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    port
}

/// How fast what waits goes to a receiver that answers at once, over one connection and over several.
fn forward(asked: &Asked) {
    let messages = asked.number("--messages", 20_000);
    for parallel in asked.text("--parallel", "1,8,64").split(',') {
        let folder = asked.folder();
        std::fs::create_dir_all(folder.join("routes")).unwrap();
        std::fs::write(folder.join("routes/on.yaml"), "route: on\non: ADT^*\nto: ward\nmessage: as-received\n").unwrap();
        let site = format!(
            "journal: {{ path: journal, low-water: 256MiB }}\nconsole: {{ listen: 127.0.0.1:0 }}\nreload: signal\n\
             listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ null: true }}, ward: {{ mllp: \"127.0.0.1:{}\", parallel: {parallel} }} }}\n",
            receiver()
        );
        let daemon = Daemon::start_site(&folder, &site);
        let began = Instant::now();
        let used = daemon.processor();
        let sent = daemon.send(&asked.message(), &["--repeat", &messages.to_string(), "--connections", "16"]);
        assert_eq!(sent["accepted"].as_u64(), Some(messages));
        while daemon.metric("kiln_deliveries_total{target=\"ward\",outcome=\"delivered\"}") < messages as f64 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let took = began.elapsed().as_secs_f64();
        println!(
            "{messages} messages over {parallel} connections: {:.0} forwarded a second, from the first that came to the last AA of the receiver; processor a message: {:.0} us; load {}",
            messages as f64 / took,
            (daemon.processor() - used) * 1e6 / messages as f64,
            load()
        );
        daemon.stop();
        let _ = std::fs::remove_dir_all(&folder);
    }
}

/// Rows of a table, whole.
fn read(from: &Connection, table: &str, after: i64, to: i64) -> Vec<Vec<Value>> {
    let key = if table == "message" { "id" } else { "message" };
    let mut statement = from.prepare_cached(&format!("SELECT * FROM {table} WHERE {key} > ?1 AND {key} <= ?2 ORDER BY {key}")).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([after, to], |row| (0..columns).map(|n| row.get(n)).collect()).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

/// What a journal's tables take without Kiln: one thread, everything in memory before the clock runs, the look for the control ID, a row for
/// the message and one for each delivery, `batch` messages a commit with an fsync each, checkpoints as SQLite makes them. Gives rows a
/// second, seconds of processor time, and the time of each transaction.
fn raw(folder: &Path, messages: u64, batch: usize) -> (f64, f64, Vec<Duration>) {
    const CHUNK: i64 = 20_000;
    let from: Vec<Connection> =
        segments(&folder.join("journal")).into_iter().map(|path| Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()).collect();
    let place = folder.join("raw");
    drop(Journal::open(Options { low_water: Some(0), ..Options::at(&place) }).unwrap());
    let to = Connection::open(place.join(format!("segment-{:020}.db", 1))).unwrap();
    // The page cache is the one that the journal's writer has; the log starts over at 40 MB.
    to.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 10000; PRAGMA cache_size = -8192; INSERT INTO name VALUES (1, 'adt'), (2, 'main');",
    )
    .unwrap();
    to.set_prepared_statement_cache_capacity(64);
    let marks = |n: usize| vec!["?"; n].join(", ");
    let (into_message, into_delivery) = (format!("INSERT INTO message VALUES ({})", marks(15)), format!("INSERT INTO delivery VALUES ({})", marks(12)));
    let (mut took, mut busy, mut times) = (Duration::ZERO, 0.0, Vec::new());
    let newest = |connection: &Connection| connection.query_row("SELECT coalesce(max(id), 0) FROM message", [], |row| row.get::<_, i64>(0)).unwrap();
    for from in &from {
        let (mut at, end) = (0, newest(from));
        while at < end {
            let found = read(from, "message", at, at + CHUNK);
            let mut deliveries = read(from, "delivery", at, at + CHUNK).into_iter().peekable();
            // Outcomes and attempts are not what an AA waits for: each delivery as it was stored with its message.
            let deliveries: Vec<Vec<Vec<Value>>> = found
                .iter()
                .map(|row| {
                    let mine = std::iter::from_fn(|| deliveries.next_if(|delivery| delivery[0] == row[0]));
                    mine.map(|mut d| {
                        (d[4], d[5], d[6], d[7], d[8], d[9]) = (0.into(), 0.into(), Value::Null, Value::Null, 0.into(), Value::Null);
                        d
                    })
                    .collect()
                })
                .collect();
            let work: Vec<_> = found.into_iter().zip(deliveries).collect();
            at += CHUNK;
            let (began, busy_before) = (Instant::now(), own_processor());
            for group in work.chunks(batch) {
                let commit = Instant::now();
                to.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
                for (message, deliveries) in group {
                    let seen = "SELECT 1 FROM message WHERE control_id = ?1 AND control_id <> '' LIMIT 1";
                    assert!(!to.prepare_cached(seen).unwrap().exists([&message[11]]).unwrap());
                    to.prepare_cached(&into_message).unwrap().execute(params_from_iter(message)).unwrap();
                    for delivery in deliveries {
                        to.prepare_cached(&into_delivery).unwrap().execute(params_from_iter(delivery)).unwrap();
                    }
                }
                let tally = "INSERT INTO tally VALUES (?1, ?2, ?3, 0, ?4) ON CONFLICT DO UPDATE SET n = n + excluded.n";
                for (kind, a, b) in [(1, "adt", "ADT^A01"), (2, "main", "")] {
                    to.prepare_cached(tally).unwrap().execute(rusqlite::params![kind, a, b, group.len() as i64]).unwrap();
                }
                to.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
                times.push(commit.elapsed());
            }
            took += began.elapsed();
            busy += own_processor() - busy_before;
        }
    }
    drop(to);
    assert_eq!(rows(&place), messages, "the bare loop stored as many");
    (messages as f64 / took.as_secs_f64(), busy, times)
}

/// User and system time of this process in seconds; only one thread of it works.
fn own_processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / rustix::param::clock_ticks_per_second() as f64
}

/// The time that this share of all does not exceed, in us: within a bucket, evenly spread.
fn quantile(buckets: &Buckets, share: f64) -> f64 {
    let wanted = buckets.last().map_or(0.0, |(_, n)| n * share);
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, n) in buckets {
        if *n >= wanted {
            let part = if n > &below { (wanted - below) / (n - below) } else { 1.0 };
            return 1e6 * if bound.is_finite() { lower + (bound - lower) * part } else { lower };
        }
        (lower, below) = (*bound, *n);
    }
    1e6 * lower
}

/// Acknowledgements at a rate, against the commits of the same time.
fn latency(asked: &Asked) {
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
fn sustained(asked: &Asked) {
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

/// A server that is down while a million messages come, and then is there: memory meanwhile, and how long it takes until all have gone out.
/// The server says that it has saved whatever it gets, so that this is what Kiln takes and not what a server does.
fn drain(asked: &Asked) {
    let (messages, parallel, connections) = (asked.number("--messages", 1_000_000), asked.number("--parallel", 8), asked.text("--connections", "64"));
    let folder = asked.folder();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let daemon = Daemon::start_with(&folder, &format!("fhir: 'http://{address}/r4', parallel: {parallel}"));
    let began = (Instant::now(), daemon.processor());
    let sent = daemon.send(&asked.message(), &["--repeat", &messages.to_string(), "--connections", &connections]);
    assert_eq!(sent["accepted"].as_u64(), Some(messages));
    let us = |seconds: f64| seconds * 1e6 / messages as f64;
    println!(
        "{messages} messages with the server down: {:.0} AA/s; processor a message {:.1} us; {} MB resident at most; load {}",
        messages as f64 / began.0.elapsed().as_secs_f64(),
        us(daemon.processor() - began.1),
        daemon.resident(),
        load()
    );
    let socket = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || socket.incoming().flatten().for_each(|stream| drop(std::thread::spawn(move || says_yes(stream)))));
    let (began, busy) = (Instant::now(), daemon.processor());
    while daemon.delivered() < 1.0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let noticed = began.elapsed().as_secs_f64();
    daemon.drain();
    let seconds = began.elapsed().as_secs_f64() - 0.9;
    println!(
        "the server is back: the first delivery after {noticed:.1} s, all after {seconds:.1} s, {:.0}/s over {parallel} connections; processor a message {:.1} us; {} MB resident at most; load {}",
        daemon.delivered() / seconds,
        us(daemon.processor() - busy),
        daemon.resident(),
        load()
    );
    daemon.stop();
    let _ = std::fs::remove_dir_all(&folder);
}

/// A FHIR server that has saved whatever it is sent.
fn says_yes(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut next = 0_u64;
    loop {
        let (mut line, mut length, mut asked) = (String::new(), 0, None);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).is_ok_and(|n| n == 0) {
                return;
            }
            asked.get_or_insert_with(|| line.clone());
            length = line.to_ascii_lowercase().strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap());
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let bundle: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let answer = match bundle["entry"].as_array() {
            Some(entries) => {
                let saved = entries.iter().map(|entry| {
                    next += 1;
                    let resource_type = entry["resource"]["resourceType"].as_str().unwrap_or("Patient");
                    serde_json::json!({ "response": { "status": "201 Created", "location": format!("{resource_type}/x{next}/_history/1"), "etag": "W/\"1\"" } })
                });
                serde_json::json!({ "resourceType": "Bundle", "type": "transaction-response", "entry": saved.collect::<Vec<_>>() })
            }
            // A resource by its id, as it was never changed by anybody else; or a search that finds nothing.
            None => match asked.unwrap_or_default().split(' ').nth(1).unwrap_or_default().trim_start_matches("/r4/").split_once('/') {
                Some((resource_type, id)) => serde_json::json!({ "resourceType": resource_type, "id": id, "meta": { "versionId": "1" } }),
                None => serde_json::json!({ "resourceType": "Bundle", "type": "searchset", "total": 0 }),
            },
        };
        let answer = answer.to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nContent-Length: {}\r\n\r\n", answer.len());
        if stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat()).is_err() {
            return;
        }
    }
}

/// From `kiln reload` to its answer, with one route of so many changed each time.
fn reload(asked: &Asked) {
    let (routes, rounds) = (asked.number("--routes", 650), asked.number("--rounds", 11));
    let folder = asked.folder();
    std::fs::create_dir(folder.join("routes")).unwrap();
    let route = |n: u64, round: u64| {
        let text = format!("route: r{n}\non: [ZZZ^Z{n:03}]\nto: main\nresources:\n  who: {{ $map: PID -> Patient, $save: update by PID-3 }} # {round}\n");
        std::fs::write(folder.join(format!("routes/r{n}.yaml")), text).unwrap();
    };
    (0..routes).for_each(|n| route(n, 0));
    let daemon = Daemon::start(&folder, "null");
    let mut times: Vec<Duration> = (1..=rounds)
        .map(|round| {
            route(0, round);
            let began = Instant::now();
            let out = Command::new(KILN).arg("reload").current_dir(&folder).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            began.elapsed()
        })
        .collect();
    times.sort();
    let (median, longest) = (times[times.len() / 2].as_millis(), times.last().unwrap().as_millis());
    println!(
        "{routes} routes of the site beside the shipped ones: `kiln reload` takes {median} ms (median of {rounds}), {longest} ms at most; load {}",
        load()
    );
    daemon.stop();
    let _ = std::fs::remove_dir_all(&folder);
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

//! The daemon that is measured, and what all measurements ask of it.

use rusqlite::{Connection, OpenFlags};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(super) const KILN: &str = env!("CARGO_BIN_EXE_kiln");

/// What was asked for on the command line.
pub(super) struct Asked(pub(super) Vec<String>);

impl Asked {
    pub(super) fn text(&self, name: &str, default: &str) -> String {
        self.0.iter().position(|arg| arg == name).and_then(|place| self.0.get(place + 1)).map_or(default, String::as_str).to_owned()
    }

    pub(super) fn number(&self, name: &str, default: u64) -> u64 {
        self.text(name, &default.to_string()).parse().unwrap()
    }

    pub(super) fn time(&self, name: &str, default: &str) -> Duration {
        kiln::site::duration(&self.text(name, default)).unwrap()
    }

    pub(super) fn message(&self) -> PathBuf {
        std::path::absolute(self.text("--message", "fixtures/try/01-admit.hl7")).unwrap()
    }

    /// An empty folder.
    pub(super) fn folder(&self) -> PathBuf {
        let folder = std::path::absolute(self.text("--path", &std::env::temp_dir().join("kiln-bench-daemon").display().to_string())).unwrap();
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}

/// A line of a site file for each kind of target. Nobody listens at port 9: the target is down from the first message on, so its breaker
/// lets one probe through now and then, and all the rest waits.
pub(super) fn target(kind: &str) -> &'static str {
    match kind {
        "paused" => "fhir: http://127.0.0.1:9/r4",
        "null" => "null: true",
        "folder" => "folder: out",
        _ => panic!("--target paused, null, folder or all"),
    }
}

/// A daemon that is killed when it is dropped.
pub(super) struct Daemon {
    pub(super) child: Child,
    pub(super) mllp: String,
    pub(super) console: String,
}

/// Of a histogram in /metrics: upper bounds in seconds, and how many were at most that.
pub(super) type Buckets = Vec<(f64, f64)>;

impl Daemon {
    pub(super) fn start(folder: &Path, kind: &str) -> Self {
        Self::start_with(folder, target(kind))
    }

    pub(super) fn start_with(folder: &Path, target: &str) -> Self {
        let site = format!(
            "journal: {{ path: journal, low-water: 256MiB }}\nconsole: {{ listen: 127.0.0.1:0 }}\nreload: signal\n\
             listeners: {{ adt: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ {target} }} }}\n"
        );
        Self::start_site(folder, &site)
    }

    pub(super) fn start_site(folder: &Path, site: &str) -> Self {
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

    pub(super) fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(&self.console).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        text
    }

    pub(super) fn metric(&self, name: &str) -> f64 {
        self.metrics().lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0.0)
    }

    pub(super) fn histogram(&self, name: &str) -> Buckets {
        let head = format!("{name}_bucket{{le=\"");
        let bucket = |line: &str| {
            let (bound, count) = line.strip_prefix(&head)?.split_once("\"}")?;
            Some((if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? }, count.trim().parse().ok()?))
        };
        self.metrics().lines().filter_map(bucket).collect()
    }

    /// User and system time so far, in seconds.
    pub(super) fn processor(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / rustix::param::clock_ticks_per_second() as f64
    }

    /// The most memory that it ever had resident, in MB.
    pub(super) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Runs `kiln send` to its end, and says what it said.
    pub(super) fn send(&self, message: &Path, options: &[&str]) -> serde_json::Value {
        let out = Command::new(KILN).arg("send").arg(message).args(["--to", &self.mllp, "--json"]).args(options).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success(), "kiln send: {text}\n{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until nothing waits for the target; says for how long it did.
    pub(super) fn drain(&self) -> f64 {
        let began = Instant::now();
        // The gauge is kept twice a second, so once is not enough.
        let mut empty = 0;
        while empty < 3 {
            std::thread::sleep(Duration::from_millis(300));
            empty = if self.metric("kiln_backlog{target=\"main\"}") == 0.0 { empty + 1 } else { 0 };
        }
        (began.elapsed().as_secs_f64() - 0.9).max(0.0)
    }

    pub(super) fn delivered(&self) -> f64 {
        self.metric("kiln_deliveries_total{target=\"main\",outcome=\"delivered\"}")
    }

    pub(super) fn stop(mut self) {
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

pub(super) fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap().split(' ').next().unwrap().to_owned()
}

/// Messages in the journal, as SQLite counts them.
pub(super) fn rows(journal: &Path) -> u64 {
    let count = |path: &Path| {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        connection.query_row("SELECT count(*) FROM message", [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
    };
    segments(journal).iter().map(|path| count(path)).sum()
}

pub(super) fn segments(journal: &Path) -> Vec<PathBuf> {
    let names = std::fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> =
        names.filter(|path| path.extension().is_some_and(|e| e == "db") && path.file_name().unwrap().to_string_lossy().starts_with("segment-")).collect();
    segments.sort();
    segments
}

/// The time that this share of all does not exceed, in us: within a bucket, evenly spread.
pub(super) fn quantile(buckets: &Buckets, share: f64) -> f64 {
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

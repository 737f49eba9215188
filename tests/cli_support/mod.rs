//! What the tests of the command line share: the real binary on temporary folders, a small HTTP client, a small MLLP client.
#![allow(unreachable_pub, reason = "a module of several tests")]
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod moody;
pub mod session;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// The binary, in this folder, without anything from the environment that could change what it does.
pub fn kiln(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("KILN__")) {
        command.env_remove(name);
    }
    command.current_dir(folder).env("NO_COLOR", "1").env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(folder: &Path, args: &[&str]) -> Ran {
    Ran::of(kiln(folder).args(args).output().expect("the binary starts"))
}

pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

/// A daemon, killed when it is dropped.
pub struct Daemon {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts `kiln serve` in the folder and waits until it accepts.
    #[track_caller]
    pub fn start(folder: &Path) -> Self {
        Self::start_with(kiln(folder).arg("serve"))
    }

    #[track_caller]
    pub fn start_with(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let out = gather(child.stdout.take().expect("piped"));
        let err = gather(child.stderr.take().expect("piped"));
        let mut daemon = Self { child, out, err };
        wait_for("the daemon to accept", || {
            let ended = daemon.child.try_wait().expect("its own child");
            assert!(ended.is_none(), "it ended with {ended:?}:\n{}\n{}", daemon.out(), daemon.err());
            daemon.out().contains(" accepts ")
        });
        daemon
    }

    pub fn out(&self) -> String {
        self.out.lock().expect("no panic").clone()
    }

    pub fn err(&self) -> String {
        self.err.lock().expect("no panic").clone()
    }

    /// The address after a word in the line that says it accepts: `adt on ADDRESS`, `console http://ADDRESS`.
    #[track_caller]
    pub fn address(&self, after: &str) -> SocketAddr {
        let out = self.out();
        let rest = out.split(after).nth(1).unwrap_or_else(|| panic!("no `{after}` in {out}"));
        let end = rest.find([',', ';', '/', '\n']).unwrap_or(rest.len());
        rest[..end].trim().parse().unwrap_or_else(|e| panic!("{e}: {rest}"))
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().expect("kill is there");
        assert!(status.success());
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has used of the processor, user and system.
    pub fn processor_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // utime and stime, in ticks of 10 ms (proc(5)).
        [11, 12].iter().filter_map(|n| fields.get(*n)?.parse::<f64>().ok()).sum::<f64>() / 100.0
    }

    /// SIGTERM, and its exit code.
    pub fn stop(mut self) -> i32 {
        self.signal("TERM");
        self.code()
    }

    /// Waits for its end.
    pub fn code(&mut self) -> i32 {
        let mut code = None;
        wait_for("the daemon to end", || {
            code = self.child.try_wait().expect("its own child");
            code.is_some()
        });
        code.and_then(|c| c.code()).unwrap_or(-1)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let into = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            into.lock().expect("no panic").push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    text
}

/// An address that nobody listens on.
pub fn free_port() -> SocketAddr {
    let [address] = free_ports();
    address
}

/// Addresses that nobody listens on, each another.
pub fn free_ports<const N: usize>() -> [SocketAddr; N] {
    let sockets: Vec<_> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    std::array::from_fn(|n| sockets[n].local_addr().expect("an address"))
}

/// Waits until it holds, or fails after 30 seconds.
#[track_caller]
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// GET, as status and body.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("a socket");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// Sends a message in a frame, and gives the frame that came back; empty if the connection was closed.
pub fn exchange(address: SocketAddr, message: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let frame = [&[0x0b], message, &[0x1c, 0x0d]].concat();
    let _ = stream.write_all(&frame);
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(&[0x1c, 0x0d]) && stream.read(&mut byte).is_ok_and(|n| n > 0) {
        answer.push(byte[0]);
    }
    String::from_utf8_lossy(&answer).trim_matches(['\u{b}', '\u{1c}', '\r']).to_owned()
}

/// An ADT^A01 with this control ID and patient.
pub fn admit(control_id: &str, patient: &str) -> String {
    format!(
        "MSH|^~\\&|ADT1|HOSP|KILN|HOSP|20260301120000||ADT^A01^ADT_A01|{control_id}|P|2.5.1\rEVN|A01|20260301120000\r\
         PID|1||{patient}^^^HOSP^MR||Meier^Eva||19700102|F\rPV1|1|I|W1^101^1||||||||||||||||V{patient}\r"
    )
}

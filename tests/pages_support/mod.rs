//! Runs a page: what it tells a reader to write is written, what it tells them to type is typed, and what it shows must appear.
//!
//! A page's fences say what they are: `yaml routes/site.yaml` and `hl7 admit.hl7` are files of one folder, `console` holds lines that begin with
//! `$ ` and what they print. A line `...` in it stands for any lines. Numbers that differ from run to run (times, ids, ports) are not compared.
//! `UPDATE=1` rewrites what is printed, except where a line is left out.
#![allow(unreachable_pub, reason = "a module of one test")]

use crate::cli_support::{Daemon, kiln, wait_for};
use regex::Regex;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// The site of pages that do not write one.
const SITE: &str = "listeners:\n  adt: { mllp: 127.0.0.1:2575, authority: HOSP }\ntargets:\n  main: { folder: out }\n";

/// How long what a page shows may take to become so, while a daemon works.
const PATIENCE: Duration = Duration::from_secs(15);

/// A fenced block.
struct Block {
    /// What stands behind the backticks: `yaml routes/site.yaml`.
    info: String,
    text: String,
    /// Where the text is in the page.
    at: std::ops::Range<usize>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let (mut open, mut at): (Option<(String, usize)>, usize) = (None, 0);
    for line in page.split_inclusive('\n') {
        if let Some(info) = line.strip_prefix("```") {
            match open.take() {
                Some((info, start)) => found.push(Block { info, text: page.get(start..at).unwrap_or_default().to_owned(), at: start..at }),
                None => open = Some((info.trim().to_owned(), at + line.len())),
            }
        }
        at += line.len();
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// The blocks of YAML that name no file: each must be right by itself.
pub fn alone(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).expect("a page of the repository");
    blocks(&text).into_iter().filter(|b| b.info == "yaml").map(|b| b.text).collect()
}

/// One line typed, and the lines printed.
struct Typed {
    command: String,
    printed: String,
}

fn typed(block: &str) -> Vec<Typed> {
    let mut all: Vec<Typed> = Vec::new();
    let mut goes_on = false;
    for line in block.lines() {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (_, Some(last)) if goes_on => {
                last.command.push('\n');
                last.command.push_str(line.strip_prefix("> ").unwrap_or(line));
            }
            (Some(command), _) => all.push(Typed { command: command.to_owned(), printed: String::new() }),
            (None, Some(last)) => {
                last.printed.push_str(line);
                last.printed.push('\n');
            }
            (None, None) => panic!("a console block begins with `$ `: {line}"),
        }
        goes_on = all.last().is_some_and(|t| t.printed.is_empty() && t.command.ends_with('\\'));
    }
    all
}

struct Page {
    folder: tempfile::TempDir,
    daemon: Option<Daemon>,
    port: u16,
    console: u16,
    wrong: String,
}

/// Runs a page from its first block to its last; gives what was not as it says.
pub fn run_page(page: &Path) -> String {
    let mut text = std::fs::read_to_string(page).expect("a page of the repository");
    let mut it = Page { folder: tempfile::tempdir().expect("a folder"), daemon: None, port: free_port(), console: free_port(), wrong: String::new() };
    it.write("kiln.yaml", SITE);
    let mut rewritten = Vec::new();
    for block in blocks(&text) {
        match block.info.split_once(' ') {
            Some(("yaml" | "hl7", file)) => it.write(file, &block.text),
            _ if block.info == "console" => {
                let now = it.console(&block.text);
                rewritten.push((block.at, now));
            }
            _ => {}
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        for (at, now) in rewritten.into_iter().rev() {
            text.replace_range(at, &now);
        }
        std::fs::write(page, text).expect("writable");
    }
    it.wrong
}

impl Page {
    fn write(&mut self, file: &str, text: &str) {
        let path: PathBuf = self.folder.path().join(file);
        std::fs::create_dir_all(path.parent().expect("in the folder")).expect("a folder");
        let applied = |d: &Daemon| d.err().matches("applied a changed site").count() + d.err().matches("nothing was changed").count();
        let before = self.daemon.as_ref().map(applied);
        std::fs::write(path, self.ours(text)).expect("a file");
        if let (Some(daemon), Some(before)) = (&self.daemon, before)
            && file.starts_with("routes/")
        {
            wait_for("the daemon to see the routes", || applied(daemon) > before);
        }
    }

    /// With addresses that are free.
    fn ours(&self, text: &str) -> String {
        text.replace("127.0.0.1:2575", &format!("127.0.0.1:{}", self.port)).replace("127.0.0.1:8575", &format!("127.0.0.1:{}", self.console))
    }

    fn theirs(&self, text: &str) -> String {
        text.replace(&format!(":{}", self.port), ":2575").replace(&format!(":{}", self.console), ":8575")
    }

    /// Types the lines of a block; gives the block as it would have to be.
    fn console(&mut self, block: &str) -> String {
        let mut now = String::new();
        for Typed { command, printed } in typed(block) {
            let until = Instant::now() + if self.daemon.is_some() { PATIENCE } else { Duration::ZERO };
            let mut said = self.run(&command);
            // Only looking again changes nothing.
            let looks = ["ls", "cat", "kiln journal s", "curl"].iter().any(|c| command.starts_with(c));
            while looks && !fits(&printed, &said) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(50));
                said = self.run(&command);
            }
            let fits = fits(&printed, &said);
            if !fits {
                let _ = writeln!(self.wrong, "$ {command}\nis to print\n{printed}and prints\n{said}");
            }
            let shown = if fits || printed.lines().any(|l| l.trim() == "...") { printed } else { said };
            let _ = write!(now, "$ {}\n{shown}", command.replace('\n', "\n> "));
        }
        now
    }

    fn run(&mut self, command: &str) -> String {
        if command == "kiln serve" {
            let mut serve = kiln(self.folder.path());
            serve.env("KILN__CONSOLE__LISTEN", format!("127.0.0.1:{}", self.console)).arg("serve");
            let daemon = Daemon::start_with(&mut serve);
            let said = self.theirs(&daemon.out());
            self.daemon = Some(daemon);
            return said;
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_kiln")).parent().expect("a folder");
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = std::process::Command::new("sh");
        // What a terminal shows: both, as they come.
        shell.args(["-c", &format!("{{ {}\n}} 2>&1", self.ours(command))]);
        let output = shell.current_dir(self.folder.path()).env("PATH", path).env("NO_COLOR", "1").env("TZ", "UTC").output().expect("a shell");
        self.theirs(&String::from_utf8_lossy(&output.stdout))
    }
}

/// An address that nobody uses now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// Whether what was printed is what the page shows.
fn fits(shown: &str, printed: &str) -> bool {
    let lines = |text: &str| text.trim_end().lines().map(|l| steady(l.trim_end())).collect::<Vec<_>>();
    let (printed, shown) = (lines(printed), lines(shown));
    let mut parts = shown.split(|l| l.trim() == "...").map(<[String]>::to_vec).collect::<Vec<_>>();
    let last = parts.pop().unwrap_or_default();
    if parts.is_empty() {
        return printed == last;
    }
    let first = parts.remove(0);
    if !printed.starts_with(&first) || !printed.ends_with(&last) || printed.len() < first.len() + last.len() {
        return false;
    }
    let mut rest = printed.get(first.len()..printed.len() - last.len()).unwrap_or_default();
    for part in parts {
        let Some(n) = (0..=rest.len()).find(|n| rest.get(*n..).is_some_and(|r| r.starts_with(&part))) else { return false };
        rest = rest.get(n + part.len()..).unwrap_or_default();
    }
    true
}

/// Without what differs from run to run.
fn steady(line: &str) -> String {
    static CHANGES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
        let all = [
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
            (r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z?", "WHEN"),
            (r"[0-9]+(\.[0-9]+)? (ns|µs|us|ms|s)\b", "TIME"),
            (r"[0-9]+(\.[0-9]+)? (B|KiB|MiB)\b", "SIZE"),
            (r"from 127\.0\.0\.1:[0-9]+", "from SENDER"),
            (r"\b[0-9A-F]{16}\b", "CONTROL"),
            (r"[0-9]+ routes, [0-9]+ maps, [0-9]+ tables", "COUNTS"),
            (r"  +", "  "),
        ];
        all.into_iter().map(|(pattern, with)| (Regex::new(pattern).expect("a pattern"), with)).collect()
    });
    CHANGES.iter().fold(line.to_owned(), |line, (pattern, with)| pattern.replace_all(&line, *with).into_owned())
}

#[test]
fn what_is_left_out_and_what_differs_is_forgiven_and_nothing_else() {
    assert!(fits("a\n...\nd\n", "a\nb\nc\nd\n"));
    assert!(fits("...\nb\nc\n...\n", "a\nb\nc\nd\n"));
    assert!(fits("AA  C1  x.hl7  3.1 ms\n", "AA  C1  x.hl7  12 µs\n"));
    assert!(!fits("a\n...\nd\n", "a\nb\nc\n"));
    assert!(!fits("...\nb\nd\n...\n", "a\nb\nc\nd\n"));
    assert!(!fits("a\nb\n", "a\nb\nc\n"));
}

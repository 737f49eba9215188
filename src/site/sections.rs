//! One function per section of the site file.

use crate::diagnostic::Diagnostic;
use crate::hl7v2::Charset;
use crate::listener::{AllowList, Kind, ListenerConfig, Network};
use crate::site::door::{kind, server_tls};
use crate::site::enhanced::enhanced;
use crate::site::keys::{CHARSET, JOURNAL, LIMITS, LISTEN, LISTENER, LOG, ROOT};
use crate::site::model::{Acknowledge, BatchAnswer, Console, Journal, ListenerSite, Log, LowWater, OnRemoval, Reload, Site, Unrouted, WhenFull};
use crate::site::profile::validate;
use crate::site::reader::{Entry, Keys, Reader};
use crate::site::target::targets;
use crate::site::tolerate::{quiet, tolerate};
use crate::site::unit;
use config::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the sections need to know of the surroundings.
pub(crate) struct Around<'a> {
    /// The folder of the site file: relative paths begin here.
    pub folder: &'a Path,
    /// False for `kiln check`: a secret that is not there is a warning.
    pub secrets_needed: bool,
    /// The environment, for `{ env: NAME }`.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Values that hold unless the file says otherwise. Read like a file, below all others.
pub(crate) const DEFAULTS: &str = "\
language: 1
journal: { path: journal, keep: 30d }
console: { listen: 127.0.0.1:8575 }
reload: watch
routes: routes
log: { level: info, json: false, unsafe: false }
";

/// The whole file. Faults are in the reader; the site is only to be used when there is none.
pub(crate) fn site(r: &mut Reader<'_>, value: &Value, around: &Around<'_>) -> Site {
    let root = r.root(value);
    let keys = r.keys(&root, ROOT);
    let language = language(r, &keys);
    let journal = journal(r, &keys, around);
    let console = console(r, &keys);
    let metrics = keys.get("metrics").and_then(|e| {
        let k = r.keys(&e, LISTEN);
        let listen = k.get("listen");
        if listen.is_none() {
            r.missing(k.key, "`metrics` says no address", "add `listen: 127.0.0.1:8576`");
        }
        address(r, &listen?)
    });
    let reload = keys.get("reload").and_then(|e| r.word(&e, &[("watch", Reload::Watch), ("signal", Reload::Signal)])).unwrap_or(Reload::Watch);
    let words = [("refuse", OnRemoval::Refuse), ("drain", OnRemoval::Drain), ("dead-letter", OnRemoval::DeadLetter)];
    let on_removal = keys.get("on-removal").and_then(|e| r.word(&e, &words)).unwrap_or(OnRemoval::Refuse);
    let overlays = keys.get("use").map(|e| r.list(&e)).unwrap_or_default().iter().filter_map(|e| r.text(e).map(str::to_owned)).collect();
    let folders = ["routes", "tables"].iter().flat_map(|k| folders(r, &keys, k, around)).collect();
    let (targets, target_places) = targets(r, &keys, around).into_iter().unzip();
    let listeners = listeners(r, &keys, around);
    let log = log(r, &keys);
    let files = std::mem::take(&mut r.files);
    Site { language, journal, console, metrics, reload, on_removal, overlays, folders, listeners, targets, log, target_places, files }
}

fn language(r: &mut Reader<'_>, keys: &Keys<'_>) -> u32 {
    if let Some(e) = keys.get("language")
        && let Some(text) = r.text(&e)
        && text != "1"
    {
        r.faults.push(
            Diagnostic::error("K709", e.span, "this Kiln knows version 1 of the route language")
                .label("not version 1")
                .help("write `language: 1`, or run a newer Kiln"),
        );
    }
    1
}

fn journal(r: &mut Reader<'_>, keys: &Keys<'_>, around: &Around<'_>) -> Journal {
    let mut journal = Journal {
        path: around.folder.join("journal"),
        keep: Duration::from_secs(30 * 86_400),
        keep_bytes: None,
        low_water: LowWater::Default,
        high_water: None,
        backlog_max: None,
        backlog_resume: None,
    };
    let Some(entry) = keys.get("journal") else { return journal };
    let k = r.keys(&entry, JOURNAL);
    if let Some(path) = k.get("path").and_then(|e| r.text(&e)) {
        journal.path = around.folder.join(path);
    }
    if let Some(keep) = k.get("keep").and_then(|e| r.duration(&e)) {
        journal.keep = keep;
    }
    let water = |text: &str| match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse().ok().filter(|p| *p < 100).map(LowWater::Percent),
        None => unit::size(text).map(LowWater::Bytes),
    };
    if let Some(e) = k.get("low-water") {
        journal.low_water = r.parsed(&e, water, "a size or a share of the disk", "write `1GiB` or `5%`").unwrap_or(LowWater::Default);
    }
    if let Some(e) = k.get("high-water") {
        journal.high_water = r.parsed(&e, water, "a size or a share of the disk", "write `2GiB` or `7%`");
    }
    if let Some(e) = k.get("keep-bytes") {
        journal.keep_bytes = r.parsed(&e, unit::size, "a size", "write `50GiB`");
    }
    let mut number = |name: &str| k.get(name).and_then(|e| r.parsed(&e, |text| text.parse::<u64>().ok(), "a whole number", "write `1000000`"));
    journal.backlog_max = number("backlog-max");
    journal.backlog_resume = number("backlog-resume");
    let below = match (journal.low_water, journal.high_water) {
        (LowWater::Percent(low), Some(LowWater::Percent(high))) => high < low,
        (LowWater::Bytes(low), Some(LowWater::Bytes(high))) => high < low,
        _ => false,
    };
    let mut senseless = |key: &str, what: &str, help: &str| {
        if let Some(e) = k.get(key) {
            r.faults.push(Diagnostic::error("K721", e.key, what).label("has no meaning so").help(help));
        }
    };
    if below {
        senseless(
            "high-water",
            "`high-water` is less than `low-water`: where nothing is accepted any more, it would be accepted again",
            "write more than `low-water`",
        );
    }
    match (journal.backlog_max, journal.backlog_resume) {
        (None, Some(_)) => senseless("backlog-resume", "`backlog-resume` has no meaning without `backlog-max`", "add `backlog-max`, or take it out"),
        (Some(most), Some(resume)) if resume > most => {
            senseless(
                "backlog-resume",
                "`backlog-resume` is more than `backlog-max`: messages would be accepted again at once",
                "write less than `backlog-max`",
            );
        }
        _ => {}
    }
    journal
}

fn console(r: &mut Reader<'_>, keys: &Keys<'_>) -> Console {
    let off = Console { listen: None };
    let Some(e) = keys.get("console") else { return off };
    if matches!(e.scalar(), Some("off" | "false" | "none")) {
        return off;
    }
    let k = r.keys(&e, LISTEN);
    let listen = k.get("listen").and_then(|e| if matches!(e.scalar(), Some("off")) { None } else { address(r, &e) });
    Console { listen }
}

fn folders(r: &mut Reader<'_>, keys: &Keys<'_>, key: &str, around: &Around<'_>) -> Vec<PathBuf> {
    let Some(entry) = keys.get(key) else { return Vec::new() };
    let mut found = Vec::new();
    for e in r.list(&entry) {
        let Some(text) = r.text(&e) else { continue };
        let path = around.folder.join(text);
        // The default folder may be missing: the shipped routes are enough to begin with.
        let written = e.span.source != DEFAULTS_SOURCE;
        if written && !path.is_dir() {
            let fault = Diagnostic::error("K730", e.span, format!("there is no folder `{}`", path.display())).label("not a folder");
            r.faults.push(fault.help("paths begin at the folder of the site file"));
        } else {
            found.push(path);
        }
    }
    found
}

/// The text of the defaults is the first source.
pub(crate) const DEFAULTS_SOURCE: crate::diagnostic::SourceId = crate::diagnostic::SourceId(0);

/// Stands for an address that could not be read.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

fn listeners(r: &mut Reader<'_>, keys: &Keys<'_>, around: &Around<'_>) -> Vec<ListenerSite> {
    let mut all: Vec<ListenerSite> = Vec::new();
    let mut addresses: Vec<(SocketAddr, Entry<'_>)> = Vec::new();
    let target_names: Vec<String> = keys.get("targets").map(|e| r.entries(&e)).unwrap_or_default().iter().map(|e| e.name().to_owned()).collect();
    for entry in keys.get("listeners").map(|e| r.entries(&e)).unwrap_or_default() {
        name(r, &entry);
        let k = r.keys(&entry, LISTENER);
        let (kind, at) = kind(r, &entry, &k, around);
        // What is wrong with the address has been told; the rest is looked at all the same.
        let port = at.as_ref().filter(|_| !matches!(kind, Kind::Folder(_)));
        let address = port.and_then(|e| address(r, e)).unwrap_or(NOWHERE);
        let at = at.unwrap_or_else(|| entry.clone());
        if let Some((_, first)) = addresses.iter().find(|(a, _)| *a == address && address.port() != 0) {
            let fault =
                Diagnostic::error("K731", at.span, format!("listeners `{}` and `{}` have one address", first.path.get(1).map_or("", |s| s), entry.name()));
            r.faults.push(fault.label("taken").related(first.span, "first here").help("give each its own port"));
        }
        if let Kind::Folder(folder) = &kind
            && let Some(first) = all.iter().find(|l| matches!(&l.socket.kind, Kind::Folder(other) if other.path == folder.path))
        {
            let fault = Diagnostic::error("K731", at.span, format!("listeners `{}` and `{}` have one folder", first.socket.name, entry.name()));
            r.faults.push(fault.label("taken").help("give each its own folder"));
        }
        addresses.push((address, at.clone()));
        let words = [("accept", Unrouted::Accept), ("reject", Unrouted::Reject)];
        let unrouted = k.get("unrouted").and_then(|e| r.word(&e, &words)).unwrap_or(Unrouted::Accept);
        let words = [("close", WhenFull::Close), ("nak", WhenFull::Nak)];
        let when_full = k.get("when-full").and_then(|e| r.word(&e, &words)).unwrap_or(WhenFull::Close);
        let acknowledge = acknowledge(r, &k, &target_names);
        let enhanced = enhanced(r, &k, k.get("acknowledge").map(|_| &acknowledge), around);
        let (charset, force_charset) = k.get("charset").map(|e| charsets(r, &e)).unwrap_or_default();
        let zone = k.get("zone").and_then(|e| {
            r.parsed(&e, |t| jiff::tz::TimeZone::get(t).ok().map(|_| t.to_owned()), "a time zone", "write an IANA name such as `Europe/Berlin`, or `UTC`")
        });
        let authority = k.get("authority").and_then(|e| r.parsed(&e, authority, "an assigning authority", "write a namespace, or `NAME&1.2.3.4&ISO`"));
        let duplicates = match k.get("duplicates") {
            None => Some(Duration::from_secs(86_400)),
            Some(e) if matches!(e.scalar(), Some("off" | "0")) => None,
            Some(e) => r.duration(&e),
        };
        let mut socket = ListenerConfig::new(entry.name(), address);
        socket.kind = kind;
        let allow = k.get("allow").map(|e| r.list(&e)).unwrap_or_default();
        socket.allow = AllowList(allow.iter().filter_map(|e| network(r, e)).collect());
        let proxies = k.get("proxy-protocol").map(|e| r.list(&e)).unwrap_or_default();
        socket.proxies = proxies.iter().filter_map(|e| network(r, e)).collect();
        socket.tls = k.get("tls").and_then(|e| server_tls(r, &e, around));
        let tolerate = tolerate(r, &k, &mut socket);
        let validate = validate(r, &k, around.folder);
        limits(r, &k, &mut socket);
        let words = [("all", BatchAnswer::All), ("errors", BatchAnswer::Errors), ("single", BatchAnswer::Single), ("refuse", BatchAnswer::Refuse)];
        let batch = k.get("batch").and_then(|e| r.word(&e, &words)).unwrap_or(BatchAnswer::All);
        all.push(ListenerSite {
            socket,
            acknowledge,
            enhanced,
            unrouted,
            duplicates,
            when_full,
            charset,
            force_charset,
            zone,
            authority,
            batch,
            tolerate,
            validate,
        });
    }
    all
}

fn network(r: &mut Reader<'_>, e: &Entry<'_>) -> Option<Network> {
    r.parsed(e, |t| t.parse().ok(), "an address range", "write `10.0.0.0/8` or one address")
}

fn acknowledge(r: &mut Reader<'_>, k: &Keys<'_>, targets: &[String]) -> Acknowledge {
    const WAIT: Duration = Duration::from_secs(20);
    let (to, wait) = (k.get("delivered-to"), k.get("reply-wait"));
    let words = [("stored", 0), ("mapped", 1), ("delivered", 2)];
    let word = k.get("acknowledge").and_then(|e| r.word(&e, &words)).unwrap_or(0);
    if word != 2 {
        for e in [&to, &wait].into_iter().flatten() {
            let fault = Diagnostic::error("K721", e.key, format!("`{}` has no meaning without `acknowledge: delivered`", e.name())).label("not known here");
            r.faults.push(fault);
        }
        return if word == 1 { Acknowledge::Mapped } else { Acknowledge::Stored };
    }
    let mut named = Vec::new();
    for e in to.map(|e| r.list(&e)).unwrap_or_default() {
        let words: Vec<_> = targets.iter().map(|name| (name.as_str(), name)).collect();
        named.extend(r.word(&e, &words).cloned());
    }
    Acknowledge::Delivered { to: named, wait: wait.and_then(|e| r.duration(&e)).unwrap_or(WAIT) }
}

fn limits(r: &mut Reader<'_>, k: &Keys<'_>, socket: &mut ListenerConfig) {
    let Some(entry) = k.get("limits") else { return };
    let k = r.keys(&entry, LIMITS);
    let frame = k.get("frame").and_then(|e| {
        let read = |t: &str| unit::size(t).and_then(|n| usize::try_from(n).ok()).filter(|n| (1024..=1 << 30).contains(n));
        r.parsed(&e, read, "a size from 1KiB to 1GiB", "write `16MiB`")
    });
    socket.frame_bytes_max = frame.unwrap_or(socket.frame_bytes_max);
    socket.connections_max = k.get("connections").and_then(|e| r.number(&e, 1, 100_000)).unwrap_or(socket.connections_max);
    socket.in_flight_max = k.get("in-flight").and_then(|e| r.number(&e, 1, 10_000)).unwrap_or(socket.in_flight_max);
    match k.get("idle") {
        Some(e) if matches!(e.scalar(), Some("off")) => socket.idle_timeout = None,
        Some(e) => socket.idle_timeout = r.duration(&e).or(socket.idle_timeout),
        None => {}
    }
    socket.frame_timeout = k.get("frame-time").and_then(|e| r.duration(&e)).unwrap_or(socket.frame_timeout);
    socket.handshake_timeout = k.get("handshake").and_then(|e| r.duration(&e)).unwrap_or(socket.handshake_timeout);
    socket.keep_alive = k.get("keep-alive").and_then(|e| r.duration(&e)).unwrap_or(socket.keep_alive);
    quiet(r, &k, socket);
}

fn log(r: &mut Reader<'_>, keys: &Keys<'_>) -> Log {
    let mut log = Log { level: "info".to_owned(), json: false, unsafe_: false };
    let Some(entry) = keys.get("log") else { return log };
    let k = r.keys(&entry, LOG);
    let levels = ["error", "warn", "info", "debug", "trace"].map(|l| (l, l));
    if let Some(level) = k.get("level").and_then(|e| r.word(&e, &levels)) {
        level.clone_into(&mut log.level);
    }
    let yes = [("true", true), ("false", false), ("1", true), ("0", false)];
    log.json = k.get("json").and_then(|e| r.word(&e, &yes)).unwrap_or(false);
    log.unsafe_ = k.get("unsafe").and_then(|e| r.word(&e, &yes)).unwrap_or(false);
    log
}

fn address(r: &mut Reader<'_>, e: &Entry<'_>) -> Option<SocketAddr> {
    r.parsed(e, |t| t.parse().ok(), "an address and a port", "write `127.0.0.1:2575`, or `0.0.0.0:2575` for all networks")
}

/// Names become metric labels and parts of paths.
pub(crate) fn name(r: &mut Reader<'_>, e: &Entry<'_>) {
    let fine = e.name().len() <= 64 && !e.name().is_empty() && e.name().chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !fine {
        r.faults.push(Diagnostic::error("K725", e.key, format!("`{}` is not a name", e.name())).help("up to 64 letters, digits, dashes and underscores"));
    }
}

/// What holds where MSH-18 says nothing, and what holds whatever it says.
fn charsets(r: &mut Reader<'_>, e: &Entry<'_>) -> (Option<String>, Option<String>) {
    const HELP: &str = "write `ASCII`, `UTF-8`, `8859/1` or another code of table 0211";
    if e.scalar().is_some() {
        return (r.parsed(e, charset, "a character set", HELP), None);
    }
    let k = r.keys(e, CHARSET);
    let Some(force) = k.get("force") else {
        r.missing(k.key, "`charset` says no character set", "write `charset: UTF-8`, or `charset: { force: UTF-8 }` for a sender whose MSH-18 is wrong");
        return (None, None);
    };
    (None, r.parsed(&force, charset, "a character set", HELP))
}

fn charset(text: &str) -> Option<String> {
    Charset::named(text).map(|_| text.to_owned())
}

fn authority(text: &str) -> Option<String> {
    let fine = !text.is_empty() && !text.contains(['|', '^', '~', '\\', '\r', '\n']) && text.matches('&').count() <= 2;
    fine.then(|| text.to_owned())
}

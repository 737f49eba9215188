//! `kiln try`: the main job with nothing to configure.

use crate::cli::daemon::{Daemon, NoRoutes, load_routes, open_journal};
use crate::cli::message_file;
use crate::cli::paint::{BAD, FAINT, GOOD, NAME, STRONG, colour_json, err, micros, out, paint, plain};
use crate::cli::send_client::{Client, TlsArgs, peer};
use crate::cli::{Exit, process, site_file};
use crate::diagnostic::render;
use crate::exchange::ControlId;
use crate::journal::{DeliveryState, Journal, MessageRecord, Query};
use crate::metrics::Metrics;
use crate::site::{Site, SiteOptions, load, words};
use include_dir::{Dir, include_dir};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// See everything work: a daemon on loopback, messages sent to it, the FHIR that it saved
#[derive(clap::Args)]
#[command(after_help = "Example:
  kiln try
  kiln try --once       ends when everything has been shown

Nothing is configured and nothing is kept: the journal and the resources are in a temporary folder.")]
pub(crate) struct Args {
    /// End when everything has been shown, instead of staying up until Ctrl-C
    #[arg(long)]
    once: bool,
    /// Print one JSON object per message
    #[arg(long)]
    json: bool,
}

static MESSAGES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/fixtures/try");

/// How long one message may take to arrive at the target.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(args: &Args) -> Exit {
    let log = crate::site::Log { level: "warn".to_owned(), json: false, unsafe_: false };
    process::start_log(&log);
    process::harden();
    let folder = std::env::temp_dir().join(format!("kiln-try-{}", std::process::id()));
    let exit = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("kiln").build() {
        Ok(runtime) => runtime.block_on(try_it(args, &folder)),
        Err(e) => Err(words(&e)),
    };
    if let Err(e) = std::fs::remove_dir_all(&folder)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        err!("kiln: {} could not be removed: {}", folder.display(), words(&e));
    }
    exit.unwrap_or_else(|what| {
        err!("kiln: {}", plain(&what));
        Exit::CouldNot
    })
}

/// The site file that this command does without.
fn site(folder: &Path, console: SocketAddr) -> Result<Site, String> {
    let text = format!("console: {{ listen: '{console}' }}\nlisteners: {{ try: {{ mllp: 127.0.0.1:0 }} }}\ntargets: {{ main: {{ folder: out }} }}\n");
    let options = SiteOptions { overrides: &[], secrets_needed: true, variable: &|_| None };
    load("kiln try", folder, Some(&text), &options).site.ok_or_else(|| "the built-in site is not good; please report this".to_owned())
}

async fn try_it(args: &Args, folder: &Path) -> Result<Exit, String> {
    std::fs::create_dir_all(folder).map_err(|e| format!("{}: {}", folder.display(), words(&e)))?;
    let usual: SocketAddr = ([127, 0, 0, 1], 8575).into();
    let mut site = site(folder, usual)?;
    let metrics = Arc::new(Metrics::new());
    let journal = open_journal(&site, &metrics)?;
    let routes = match load_routes(&site) {
        Ok((routes, ..)) => routes,
        Err(NoRoutes::Unreadable(what)) => return Err(what),
        Err(NoRoutes::Faults(sources, diagnostics)) => {
            err!("{}", render(&sources, &diagnostics, site_file::style()).trim_end());
            return Err("the shipped routes have faults; please report this".to_owned());
        }
    };
    let daemon = match Daemon::start(&site, None, journal.clone(), routes.clone(), None, Arc::clone(&metrics)).await {
        Ok(daemon) => daemon,
        Err(_) => {
            // Most likely a daemon runs here already and has the console's port: any other will do.
            site.console.listen = Some(([127, 0, 0, 1], 0).into());
            Daemon::start(&site, None, journal, routes, None, metrics).await?
        }
    };
    let address = daemon.addresses().first().map(|(_, a)| *a).ok_or("no listener is bound")?;
    if !args.json {
        out!("{} listens for HL7 v2 on {}", paint(STRONG, "Kiln"), paint(NAME, &format!("mllp://{address}")));
        out!("{}", paint(FAINT, "Routes are those that ship with Kiln; resources go to a folder."));
    }
    let mut all_well = true;
    let mut files: Vec<_> = MESSAGES.files().filter(|f| f.path().extension().is_some_and(|e| e == "hl7")).collect();
    files.sort_by_key(|f| f.path());
    const WAIT: Duration = Duration::from_secs(30);
    let mut client = Client::new(peer(&address.to_string(), &TlsArgs::default(), WAIT)?, WAIT);
    let mut shown = BTreeMap::new();
    for file in files {
        for message in message_file::split(file.contents()) {
            all_well &= one(args, &mut client, &daemon.journal, &file.path().display().to_string(), &message, &folder.join("out"), &mut shown).await?;
        }
    }
    if !args.json {
        addresses(&daemon, &site, address);
    }
    if !args.once {
        wait_for_the_end().await?;
    }
    daemon.stop().await;
    Ok(if all_well { Exit::Done } else { Exit::Found })
}

async fn wait_for_the_end() -> Result<(), String> {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut term), Ok(mut int)) = signals else { return Err("signals cannot be handled here".to_owned()) };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// Sends a message and shows its acknowledgement and what it changed.
async fn one(
    args: &Args,
    client: &mut Client,
    journal: &Journal,
    name: &str,
    message: &[u8],
    out_folder: &Path,
    shown: &mut BTreeMap<PathBuf, Vec<u8>>,
) -> Result<bool, String> {
    let control_id = message_file::control_id(message);
    let began = Instant::now();
    let ack = client.exchange(message, &control_id).await.map_err(|e| e.to_string())?;
    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let record = settled(journal, &control_id).await?;
    let delivered = !record.deliveries.is_empty() && record.deliveries.iter().all(|d| d.state == DeliveryState::Delivered);
    let changed = changed(out_folder, shown).map_err(|e| format!("{}: {}", out_folder.display(), words(&e)))?;
    if args.json {
        let resources: Vec<serde_json::Value> = changed.iter().filter_map(|(_, bytes)| serde_json::from_slice(bytes).ok()).collect();
        out!(
            "{}",
            serde_json::json!({ "file": name, "controlId": control_id, "code": ack.code, "micros": took, "delivered": delivered, "resources": resources })
        );
        return Ok(ack.is_positive() && delivered);
    }
    out!("\n{} {}  {}", paint(FAINT, "──▶"), paint(STRONG, &record.envelope.message_type), paint(FAINT, name));
    for segment in String::from_utf8_lossy(message).split('\r').filter(|s| !s.is_empty()) {
        let (id, rest) = segment.split_at_checked(3).unwrap_or((segment, ""));
        out!("    {}{}", paint(NAME, &plain(id)), paint(FAINT, &plain(rest)));
    }
    let style = if ack.is_positive() { GOOD } else { BAD };
    out!("{} {} {} {}", paint(FAINT, "◀──"), paint(style, &plain(&ack.code)), plain(&ack.control_id), paint(FAINT, &format!("on disk after {}", micros(took))));
    for d in record.deliveries.iter().filter(|d| d.state != DeliveryState::Delivered) {
        let last = d.attempts.last();
        out!("    {}", paint(BAD, &plain(&last.map_or_else(|| "not delivered".to_owned(), |a| format!("{} {}: {}", a.outcome, a.code, a.summary)))));
    }
    if record.deliveries.is_empty() {
        out!("    {}", paint(BAD, "no route takes it"));
    }
    for (path, bytes) in &changed {
        out!("    {} {}", paint(GOOD, "saved"), paint(STRONG, &path.display().to_string()));
        for line in colour_json(bytes).lines() {
            out!("      {line}");
        }
    }
    Ok(ack.is_positive() && delivered)
}

/// The message's record once none of its deliveries is pending.
async fn settled(journal: &Journal, control_id: &str) -> Result<MessageRecord, String> {
    let give_up = Instant::now() + DELIVERY_PATIENCE;
    loop {
        let query = Query { control_id: Some(ControlId(control_id.to_owned())), limit: 1, ..Query::default() };
        let found = journal.search(query).await.map_err(|e| e.to_string())?;
        let first = found.first().ok_or("the journal does not have the message")?;
        let waiting = first.deliveries.iter().any(|d| d.state == DeliveryState::Pending);
        if !waiting || Instant::now() >= give_up {
            return journal.show(first.id).await.map_err(|e| e.to_string());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Files of resources that are new or different, by their path below the folder.
fn changed(folder: &Path, shown: &mut BTreeMap<PathBuf, Vec<u8>>) -> std::io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    for kind in std::fs::read_dir(folder)?.filter_map(Result::ok).filter(|e| e.path().is_dir()) {
        for file in std::fs::read_dir(kind.path())?.filter_map(Result::ok) {
            let path = file.path();
            if path.extension().is_some_and(|e| e == "json") {
                let bytes = std::fs::read(&path)?;
                let path = path.strip_prefix(folder).map_or_else(|_| path.clone(), Path::to_path_buf);
                if shown.get(&path) != Some(&bytes) {
                    found.push((path.clone(), bytes.clone()));
                    shown.insert(path, bytes);
                }
            }
        }
    }
    // What the message is about comes first; those that it only refers to follow.
    let rank = |path: &Path| ["Patient", "Encounter", "Appointment"].iter().position(|t| path.starts_with(t)).unwrap_or(3);
    found.sort_by(|a, b| rank(&a.0).cmp(&rank(&b.0)).then_with(|| a.cmp(b)));
    Ok(found)
}

fn addresses(daemon: &Daemon, site: &Site, address: SocketAddr) {
    out!("\n{}", paint(STRONG, "Look around"));
    let line = |what: &str, place: &str| out!("  {what:<10} {}", paint(NAME, place));
    if let Some(console) = daemon.console {
        line("console", &format!("http://{console}/"));
        line("metrics", &format!("http://{console}/metrics"));
    }
    line("journal", &format!("kiln journal search --journal {}", site.journal.path.display()));
    line("send more", &format!("kiln send FILE --to {address}"));
    out!("{}", paint(FAINT, "Ctrl-C ends it and removes everything."));
}

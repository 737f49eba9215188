//! `kiln journal`: the message store, read while the daemon runs.

use crate::cli::Exit;
use crate::cli::control::Rules;
use crate::cli::journal_change;
use crate::cli::journal_dead;
use crate::cli::journal_show;
use crate::cli::paint::{BAD, FAINT, GOOD, NAME, STRONG, WARN, bytes, count, err, out, paint, plain, plural, rfc3339, table, time};
use crate::cli::patient_index;
use crate::cli::site_file::{self, NoSite};
use crate::exchange::{ControlId, MessageId, Phi, Timestamp};
use crate::journal::{DeliveryState, Disposition, Found, Query, Reader, Statistics};
use clap::Subcommand;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Look into the message store; replay or skip dead letters
#[derive(clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "Examples:
  kiln journal search --patient 4711 --type ADT
  kiln journal dead-letters --target main
  kiln journal show 1042
  kiln journal stats

All of them work while the daemon runs. `kiln journal COMMAND --help` has more.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Search(SearchArgs),
    DeadLetters(journal_dead::Args),
    Show(journal_show::Args),
    Stats(StatsArgs),
    Verify(VerifyArgs),
    Prune(journal_change::PruneArgs),
    Replay(journal_change::ReplayArgs),
    Skip(journal_change::SkipArgs),
}

/// Where the journal is.
#[derive(clap::Args)]
pub(crate) struct Place {
    /// The site file that names the journal [default: kiln.yaml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The journal's folder, instead of the site file's
    #[arg(long, value_name = "FOLDER")]
    pub journal: Option<PathBuf>,
}

impl Place {
    /// The journal's folder; faults have been printed.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        if let Some(folder) = &self.journal {
            return Some(folder.clone());
        }
        self.folder_and_rules().map(|(folder, _)| folder)
    }

    /// With it, what the site says about its messages; nothing where only a folder is named. Faults have been printed.
    pub(crate) fn folder_and_rules(&self) -> Option<(PathBuf, Rules)> {
        if let (Some(folder), None) = (&self.journal, &self.config) {
            return Some((folder.clone(), Rules::default()));
        }
        match site_file::open_if_any(self.config.as_deref(), false) {
            Ok(Some(site)) => {
                let rules = Rules { keep: Some(site.journal.keep), keep_bytes: site.journal.keep_bytes, manners: patient_index::manners(&site) };
                Some((self.journal.clone().unwrap_or(site.journal.path), rules))
            }
            Ok(None) => {
                err!("kiln: there is no kiln.yaml here; say --config FILE or --journal FOLDER");
                None
            }
            Err(NoSite::Missing | NoSite::Told) => None,
        }
    }

    fn reader(&self) -> Option<Reader> {
        open(&self.folder()?)
    }
}

/// Opens a journal for reading, or says why not.
pub(crate) fn open(folder: &Path) -> Option<Reader> {
    Reader::open(folder).map_err(|e| err!("kiln: {}", plain(&e.to_string()))).ok()
}

/// Find messages, newest first
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln journal search --patient 4711
  kiln journal search --control-id MSG00001
  kiln journal search --state dead-letter --from 2026-11-24 --limit 20

Exits 1 when nothing is found.")]
struct SearchArgs {
    #[command(flatten)]
    place: Place,
    /// A patient identifier, as it stands in PID-3
    #[arg(long, value_name = "ID")]
    patient: Option<String>,
    /// MSH-10
    #[arg(long, value_name = "ID")]
    control_id: Option<String>,
    /// `ADT^A01`, or `ADT` for all of them
    #[arg(long = "type", value_name = "TYPE")]
    message_type: Option<String>,
    /// The listener it came by
    #[arg(long)]
    listener: Option<String>,
    /// A target it goes to
    #[arg(long)]
    target: Option<String>,
    /// Has a delivery in this state
    #[arg(long, value_enum)]
    state: Option<State>,
    /// What intake decided
    #[arg(long, value_parser = ["accepted", "filtered", "unrouted", "refused"])]
    disposition: Option<String>,
    /// Received at or after, such as 2026-11-24 or 2026-11-24T08:00 (this machine's zone)
    #[arg(long, value_name = "TIME", value_parser = when)]
    from: Option<i64>,
    /// Received before
    #[arg(long, value_name = "TIME", value_parser = when)]
    to: Option<i64>,
    /// Only messages before this one: the last of the page before
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum State {
    Pending,
    Delivered,
    DeadLetter,
    Parked,
    Skipped,
    Superseded,
}

impl From<State> for DeliveryState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Delivered => Self::Delivered,
            State::DeadLetter => Self::DeadLetter,
            State::Parked => Self::Parked,
            State::Skipped => Self::Skipped,
            State::Superseded => Self::Superseded,
        }
    }
}

/// Count messages and deliveries
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln journal stats
  kiln journal stats --json | jq .targets")]
struct StatsArgs {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Read every message and delivery, and say whether all is sound
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln journal verify
  kiln journal verify --journal /backup/journal

Exits 1 if something is damaged.")]
struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Exit {
    match &args.command {
        Command::Search(a) => search(a),
        Command::DeadLetters(a) => journal_dead::run(a),
        Command::Show(a) => journal_show::run(a),
        Command::Stats(a) => stats(a),
        Command::Verify(a) => verify(a),
        Command::Prune(a) => journal_change::prune(a),
        Command::Replay(a) => journal_change::replay(a),
        Command::Skip(a) => journal_change::skip(a),
    }
}

pub(crate) fn when(text: &str) -> Result<i64, String> {
    if let Ok(t) = text.parse::<jiff::Timestamp>() {
        return Ok(t.as_millisecond());
    }
    let civil = text.parse::<jiff::civil::DateTime>().or_else(|_| text.parse::<jiff::civil::Date>().map(|d| d.to_datetime(jiff::civil::Time::midnight())));
    let zoned = civil.ok().and_then(|c| c.to_zoned_datetime(jiff::tz::TimeZone::system()).ok());
    zoned.map(|z| z.timestamp().as_millisecond()).ok_or_else(|| "write 2026-11-24, 2026-11-24T08:00 or 2026-11-24T08:00:00Z".to_owned())
}

fn search(args: &SearchArgs) -> Exit {
    let Some(reader) = args.place.reader() else { return Exit::CouldNot };
    let query = Query {
        term: args.patient.clone().map(Phi::new),
        control_id: args.control_id.clone().map(ControlId),
        message_type: args.message_type.clone(),
        listener: args.listener.clone(),
        from: args.from.map(Timestamp),
        to: args.to.map(Timestamp),
        state: args.state.map(DeliveryState::from),
        target: args.target.clone(),
        disposition: args.disposition.clone(),
        before: args.before.map(MessageId),
        limit: args.limit as usize,
        ..Query::default()
    };
    let found = match reader.search(&query) {
        Ok(found) => found,
        Err(e) => {
            err!("kiln: {e}");
            return Exit::CouldNot;
        }
    };
    if args.json {
        found.iter().for_each(|f| out!("{}", found_json(f)));
    } else if found.is_empty() {
        err!("no message fits");
    } else {
        let rows: Vec<_> = found.iter().map(found_row).collect();
        table(&["number", "received", "listener", "type", "sender", "control ID", "is", "deliveries"], &[true], &rows);
        if found.len() == query.limit
            && let Some(last) = found.last()
        {
            err!("{}", paint(FAINT, &format!("there may be more: --before {}", last.id.0)));
        }
    }
    if found.is_empty() { Exit::Found } else { Exit::Done }
}

fn found_row(f: &Found) -> Vec<String> {
    let deliveries: Vec<_> = f.deliveries.iter().map(|d| format!("{} {}", d.target, state_painted(d.state))).collect();
    let sender = match (f.sending_application.as_str(), f.sending_facility.as_str()) {
        (a, "") => a.to_owned(),
        (a, b) => format!("{a}/{b}"),
    };
    vec![
        f.id.0.to_string(),
        time(f.received),
        f.listener.to_string(),
        plain(&f.message_type).into_owned(),
        plain(&sender).into_owned(),
        paint(NAME, &plain(&f.control_id.0)),
        disposition_painted(&f.disposition),
        deliveries.join(", "),
    ]
}

fn found_json(f: &Found) -> serde_json::Value {
    let deliveries: Vec<_> = f.deliveries.iter().map(|d| json!({ "target": &*d.target, "state": state_word(d.state) })).collect();
    json!({
        "id": f.id.0, "received": rfc3339(f.received), "listener": &*f.listener, "type": f.message_type, "sendingApplication": f.sending_application,
        "sendingFacility": f.sending_facility, "controlId": f.control_id.0, "disposition": disposition_word(&f.disposition), "bytes": f.bytes, "deliveries": deliveries,
    })
}

/// The word for a state, as `--state` takes it.
pub(crate) fn state_word(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Pending => "pending",
        DeliveryState::Delivered => "delivered",
        DeliveryState::DeadLetter => "dead-letter",
        DeliveryState::Parked => "parked",
        DeliveryState::Skipped => "skipped",
        DeliveryState::Superseded => "superseded",
    }
}

/// The same in its colour.
pub(crate) fn state_painted(state: DeliveryState) -> String {
    let style = match state {
        DeliveryState::Delivered => GOOD,
        DeliveryState::DeadLetter => BAD,
        DeliveryState::Pending | DeliveryState::Parked => WARN,
        DeliveryState::Skipped | DeliveryState::Superseded => FAINT,
    };
    paint(style, state_word(state))
}

/// The word for what intake decided.
pub(crate) fn disposition_word(disposition: &Disposition) -> &'static str {
    match disposition {
        Disposition::Accepted => "accepted",
        Disposition::Filtered => "filtered",
        Disposition::Unrouted => "unrouted",
        Disposition::Refused { .. } => "refused",
    }
}

/// The same in its colour.
pub(crate) fn disposition_painted(disposition: &Disposition) -> String {
    let style = match disposition {
        Disposition::Accepted => GOOD,
        Disposition::Filtered => FAINT,
        Disposition::Unrouted => WARN,
        Disposition::Refused { .. } => BAD,
    };
    paint(style, disposition_word(disposition))
}

fn stats(args: &StatsArgs) -> Exit {
    let Some(reader) = args.place.reader() else { return Exit::CouldNot };
    match reader.stats() {
        Ok(s) if args.json => {
            out!("{}", stats_json(&s));
            Exit::Done
        }
        Ok(s) => {
            show_stats(&s);
            Exit::Done
        }
        Err(e) => {
            err!("kiln: {e}");
            Exit::CouldNot
        }
    }
}

fn show_stats(s: &Statistics) {
    out!("{}", paint(STRONG, "Messages"));
    let rows: Vec<_> = s
        .messages
        .iter()
        .map(|m| {
            vec![
                m.listener.clone(),
                if m.message_type.is_empty() { "-".to_owned() } else { plain(&m.message_type).into_owned() },
                m.disposition.to_owned(),
                count(m.count),
            ]
        })
        .collect();
    table(&["listener", "type", "is", "count"], &[false, false, false, true], &rows);
    out!("{}, {} used again for other content\n", plural(s.duplicates, "duplicate"), plural(s.reused_control_ids, "control ID"));
    out!("{}", paint(STRONG, "Deliveries"));
    let rows: Vec<_> = s
        .targets
        .iter()
        .map(|(target, c)| {
            let dead = if c.dead_letters > 0 { paint(BAD, &count(c.dead_letters)) } else { "0".to_owned() };
            vec![target.clone(), count(c.delivered), count(c.backlog), count(c.parked), dead, c.oldest_waiting.map_or_else(|| "-".to_owned(), time)]
        })
        .collect();
    table(&["target", "delivered", "pending", "parked", "dead letters", "oldest waiting since"], &[false, true, true, true, true, false], &rows);
    out!("\n{}", paint(STRONG, "Files"));
    let rows: Vec<_> = s.segments.iter().map(|f| vec![f.file.clone(), count(f.messages), count(f.unsettled), bytes(f.bytes)]).collect();
    table(&["file", "messages", "unsettled", "size"], &[false, true, true, true], &rows);
    out!("{} in all, {} of it in write-ahead logs", bytes(s.bytes), bytes(s.wal_bytes));
}

fn stats_json(s: &Statistics) -> serde_json::Value {
    let messages: Vec<_> =
        s.messages.iter().map(|m| json!({ "listener": m.listener, "type": m.message_type, "disposition": m.disposition, "count": m.count })).collect();
    let targets: Vec<_> = s
        .targets
        .iter()
        .map(|(target, c)| {
            json!({ "target": target, "delivered": c.delivered, "backlog": c.backlog, "parked": c.parked, "deadLetters": c.dead_letters,
                "oldestWaiting": c.oldest_waiting.map(rfc3339) })
        })
        .collect();
    let segments: Vec<_> = s.segments.iter().map(|f| json!({ "file": f.file, "messages": f.messages, "unsettled": f.unsettled, "bytes": f.bytes })).collect();
    json!({
        "messages": messages, "targets": targets, "segments": segments, "duplicates": s.duplicates, "reusedControlIds": s.reused_control_ids,
        "bytes": s.bytes, "walBytes": s.wal_bytes, "indexedTo": s.indexed_to.map(|m| m.0),
    })
}

fn verify(args: &VerifyArgs) -> Exit {
    let Some(reader) = args.place.reader() else { return Exit::CouldNot };
    match reader.verify() {
        Ok(v) => {
            if args.json {
                out!("{}", json!({ "messages": v.messages, "deliveries": v.deliveries, "faults": v.faults }));
            } else {
                v.faults.iter().for_each(|f| out!("{} {}", paint(BAD, "fault:"), plain(f)));
                let verdict = if v.faults.is_empty() { paint(GOOD, "sound") } else { paint(BAD, "damaged") };
                out!("{} and {} read: {verdict}", plural(v.messages, "message"), plural(v.deliveries, "delivery"));
            }
            if v.faults.is_empty() { Exit::Done } else { Exit::Found }
        }
        Err(e) => {
            err!("kiln: {e}");
            Exit::CouldNot
        }
    }
}

//! `kiln coverage`: over many messages, which fields of which sender never reach FHIR. It prints places and counts, and no content.

use crate::cli::answers::Source;
use crate::cli::coverage_count::{Counts, Group};
use crate::cli::explain_field::uses;
use crate::cli::explain_journal;
use crate::cli::explain_subject::Subject;
use crate::cli::paint::{FAINT, NAME, STRONG, WARN, count, err, out, paint, plain, plural, table};
use crate::cli::route_choice::{self, Choice, Chosen};
use crate::cli::{Exit, coverage_guide, explain_rest};
use crate::hl7v2::{self, Message};
use crate::journal::{JournalError, Query};
use crate::route::GUIDE_OVERLAYS;
use crate::site::words;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Count which fields of which sender never reach FHIR
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln coverage messages/
  kiln coverage adt.hl7 oru.hl7 --routes site/routes
  kiln coverage --journal journal --sender LAB7
  kiln coverage messages/ --json | jq '.senders[].places[0]'
  kiln coverage --guide

A field counts where it is valued and no element of any route holds it; a component where the rest of its field is held.
Fields that Kiln itself reads (MSH-9, 10, 12, 15, 16, 18) and numbers that only count (set IDs) are left out.
Places and counts are printed, never what a message says. Exits 1 if a message could not be read, 2 if there is none; with --guide 1 if rows of the guide are missing.")]
pub(crate) struct Args {
    /// Files with messages, or folders of them: plain, MLLP-wrapped, batches, any line ends
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Take the messages of this journal's folder; without a path and this, those of the site's journal
    #[arg(long, value_name = "FOLDER")]
    journal: Option<PathBuf>,
    /// Only senders whose MSH-3 or MSH-4 is this, or both as APPLICATION/FACILITY
    #[arg(long, value_name = "NAME")]
    sender: Option<String>,
    /// Tell how much of HL7's v2-to-FHIR guide the routes do, and which of its rows are missing
    #[arg(long, conflicts_with_all = ["paths", "journal", "sender"])]
    guide: bool,
    #[command(flatten)]
    choice: Choice,
    /// At most so many rows for each sender and type, or sheets of the guide; 0 is all
    #[arg(long, default_value_t = 20, value_name = "N")]
    top: usize,
    /// Print JSON, with all rows
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Exit {
    if args.guide {
        // What ships counts whole, with what a site has to switch on.
        let Some(chosen) = args.choice.load_with(&GUIDE_OVERLAYS) else { return Exit::CouldNot };
        return coverage_guide::run(&chosen.set, args.json, args.top);
    }
    let Some(chosen) = args.choice.load() else { return Exit::CouldNot };
    let mut work = Work { args, chosen: &chosen, counts: Counts::default() };
    let done = if args.paths.is_empty() || args.journal.is_some() { work.journal() } else { Ok(()) };
    if let Err(exit) = done.and_then(|()| work.files()) {
        return exit;
    }
    let counts = work.counts;
    if args.json {
        out!("{}", as_json(&counts));
    } else {
        show(&counts, args.top);
    }
    match (counts.messages, counts.unreadable) {
        (0, 0) => {
            err!("kiln: there is no message to count{}", args.sender.as_ref().map_or(String::new(), |s| format!(" of sender {}", plain(s))));
            Exit::CouldNot
        }
        (_, 0) => Exit::Done,
        _ => Exit::Found,
    }
}

struct Work<'a> {
    args: &'a Args,
    chosen: &'a Chosen,
    counts: Counts,
}

impl Work<'_> {
    fn one(&mut self, message: Message) {
        let text = |n| message.text(message.component(message.field(0, n), 1)).trim().to_owned();
        let (application, facility) = (text(3), text(4));
        let wanted = self.args.sender.as_ref().is_none_or(|s| *s == application || *s == facility || *s == format!("{application}/{facility}"));
        if !wanted {
            return;
        }
        let kind = message.message_type();
        let subject = Subject::of(String::new(), message, self.chosen, &mut Source::Nobody);
        let mut values = uses(&subject);
        values.retain(explain_rest::is_content);
        let stopped = subject.runs.iter().any(|r| r.lineage.stop.is_some());
        self.counts.add((application, facility, kind), &values, subject.runs.is_empty(), stopped);
    }

    /// The messages of all files, one file after the other.
    fn files(&mut self) -> Result<(), Exit> {
        let mut files = Vec::new();
        for path in &self.args.paths {
            if !path.exists() {
                err!("kiln: there is no file or folder {}", path.display());
                return Err(Exit::CouldNot);
            }
            walk(path, &mut files, 0).map_err(|e| {
                err!("kiln: {}: {}", path.display(), words(&e));
                Exit::CouldNot
            })?;
        }
        let bar = self.bar(Some(files.iter().map(|(_, bytes)| *bytes).sum()));
        for (file, size) in files {
            let bytes = std::fs::read(&file).map_err(|e| {
                err!("kiln: {}: {}", file.display(), words(&e));
                Exit::CouldNot
            })?;
            let whole = bytes::Bytes::from(bytes);
            let mut there = false;
            for range in hl7v2::split(&whole) {
                there |= whole.get(range.clone()).is_some_and(|b| b.starts_with(b"MSH"));
                // A file of something else in a folder is no broken message.
                if !there && !self.args.paths.contains(&file) {
                    continue;
                }
                self.parse(whole.slice(range), route_choice::parse_options(self.chosen.listener.as_ref()));
            }
            if let Some(bar) = &bar {
                bar.inc(size);
            }
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        Ok(())
    }

    fn parse(&mut self, bytes: bytes::Bytes, options: hl7v2::ParseOptions) {
        match Message::parse(bytes, &options) {
            Ok(message) => self.one(message),
            Err(_) => self.counts.unreadable += 1,
        }
    }

    /// The messages of the journal, newest first, a page at a time.
    fn journal(&mut self) -> Result<(), Exit> {
        const PAGE: usize = 500;
        let reader = explain_journal::reader(self.args.journal.as_deref(), self.chosen)?;
        let failed = |e: JournalError| {
            err!("kiln: {}", plain(&e.to_string()));
            Exit::CouldNot
        };
        let bar = self.bar(None);
        let mut before = None;
        loop {
            let page = reader.search(&Query { before, limit: PAGE, ..Query::default() }).map_err(failed)?;
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            for found in &page {
                let record = match reader.show(found.id) {
                    Ok(record) => record,
                    // Retention took it meanwhile.
                    Err(JournalError::Missing) => continue,
                    Err(e) => return Err(failed(e)),
                };
                let listener = explain_journal::listener(&record, self.chosen);
                self.parse(record.envelope.bytes.expose().clone(), route_choice::parse_options(listener));
                if let Some(bar) = &bar {
                    bar.inc(1);
                }
            }
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        Ok(())
    }

    fn bar(&self, bytes: Option<u64>) -> Option<ProgressBar> {
        let style = |t: &str| ProgressStyle::with_template(t).unwrap_or_else(|_| ProgressStyle::default_bar());
        (std::io::stderr().is_terminal() && !self.args.json).then(|| match bytes {
            Some(bytes) => ProgressBar::new(bytes).with_style(style("{bar:40} {bytes}/{total_bytes}  {eta} left")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {pos} messages  {per_sec}  {elapsed}")),
        })
    }
}

/// Links that lead in a circle have an end.
const DEPTH_MAX: usize = 16;

fn walk(path: &Path, files: &mut Vec<(PathBuf, u64)>, depth: usize) -> std::io::Result<()> {
    let facts = std::fs::metadata(path)?;
    if !facts.is_dir() {
        files.push((path.to_path_buf(), facts.len()));
        return Ok(());
    }
    if depth > DEPTH_MAX {
        return Ok(());
    }
    let mut entries = std::fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>()?;
    entries.retain(|p| p.file_name().is_some_and(|n| !n.to_string_lossy().starts_with('.')));
    entries.sort();
    entries.iter().try_for_each(|p| walk(p, files, depth + 1))
}

fn show(counts: &Counts, top: usize) {
    for ((application, facility, kind), group) in counts.sorted() {
        let sender = match (application.as_str(), facility.as_str()) {
            ("", "") => "(no sender)".to_owned(),
            (a, "") => a.to_owned(),
            (a, f) => format!("{a}/{f}"),
        };
        out!("{}  {}  {}", paint(STRONG, &plain(&sender)), paint(NAME, &plain(kind)), plural(group.messages, "message"));
        if group.unrouted > 0 {
            out!("  {}", paint(WARN, &format!("{} taken by no route", count(group.unrouted))));
        }
        if group.stopped > 0 {
            out!("  {}", paint(WARN, &format!("{} stopped: a route requires what they lack", count(group.stopped))));
        }
        let rows = group.rows();
        let shown = if top == 0 { rows.len() } else { top.min(rows.len()) };
        let cells: Vec<Vec<String>> = rows
            .iter()
            .take(shown)
            .map(|row| {
                vec![
                    format!("  {}", paint(NAME, &row.place.to_string())),
                    count(row.lost),
                    percent(row.lost, group),
                    count(row.valued),
                    row.why().to_owned(),
                    row.place.standard_name().unwrap_or_default(),
                ]
            })
            .collect();
        if cells.is_empty() {
            out!("  {}", paint(FAINT, "everything that it sends is carried"));
        } else {
            table(&["  place", "not carried", "%", "valued", "because", "name"], &[false, true, true, true, false, false], &cells);
        }
        if shown < rows.len() {
            out!("  {}", paint(FAINT, &format!("{} more; --top 0 shows all", rows.len() - shown)));
        }
        out!("");
    }
    let unreadable = if counts.unreadable > 0 { format!(", {} not readable", count(counts.unreadable)) } else { String::new() };
    out!("{}", paint(FAINT, &format!("{} of {}{unreadable}", plural(counts.messages, "message"), plural(counts.senders(), "sender"))));
}

/// Of the group's messages.
fn percent(n: u64, group: &Group) -> String {
    format!("{:.1}", n as f64 * 100.0 / group.messages.max(1) as f64)
}

fn as_json(counts: &Counts) -> serde_json::Value {
    let senders: Vec<_> = counts
        .sorted()
        .into_iter()
        .map(|((application, facility, kind), group)| {
            let places: Vec<_> = group
                .rows()
                .iter()
                .map(|row| {
                    let share = (row.lost as f64 * 1000.0 / group.messages.max(1) as f64).round() / 10.0;
                    json!({
                        "place": row.place.to_string(), "name": row.place.standard_name(), "valued": row.valued, "notCarried": row.lost, "percent": share,
                        "unread": row.by[0], "conditionsOnly": row.by[1], "identityOnly": row.by[2], "lost": row.by[3], "dropped": row.by[4],
                    })
                })
                .collect();
            json!({
                "sendingApplication": application, "sendingFacility": facility, "type": kind, "messages": group.messages,
                "unrouted": group.unrouted, "stopped": group.stopped, "places": places,
            })
        })
        .collect();
    json!({ "messages": counts.messages, "unreadable": counts.unreadable, "senders": senders })
}

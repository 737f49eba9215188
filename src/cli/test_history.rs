//! `kiln test --history`: the journal's messages through the edited routes and through the running ones. Nothing is written.

use crate::cli::answers::Canned;
use crate::cli::paint::{BAD, FAINT, GOOD, NAME, STRONG, WARN, count, out, paint, plain, plural, time};
use crate::cli::test_changes::{Changes, Found, Section, example_text, kind_json};
use crate::cli::test_report::Format;
use crate::cli::test_run::{Arrival, run as run_message};
use crate::cli::{Exit, daemon, journal, site_file, test};
use crate::engine::Routes;
use crate::exchange::{Envelope, MessageId, Timestamp};
use crate::fhir::Answers;
use crate::journal::{JournalError, Query, Reader};
use crate::route::{LoadOptions, RouteSet};
use crate::site::{ListenerSite, Site, duration, words};
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(clap::Args)]
#[command(next_help_heading = "What would change")]
pub(crate) struct HistoryArgs {
    /// Run the journal's messages through the routes of --site and through the running ones, and show what would change
    #[arg(long, conflicts_with = "paths")]
    pub history: bool,
    /// The journal's folder [default: the one that the running site's file names]
    #[arg(long, value_name = "FOLDER", requires = "history")]
    journal: Option<PathBuf>,
    /// Only messages received since: a time such as 2026-11-24T08:00, or for how long, such as 7d
    #[arg(long, value_name = "TIME", requires = "history")]
    since: Option<String>,
    /// At most so many messages, the newest; 0 takes all
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, requires = "history")]
    limit: u64,
    /// Only messages of this type: `ADT^A01`, or `ADT` for all of them
    #[arg(long = "type", value_name = "TYPE", requires = "history")]
    message_type: Option<String>,
    /// Only messages of this listener
    #[arg(long, value_name = "NAME", requires = "history")]
    listener: Option<String>,
    /// Show the values of examples: patient data
    #[arg(long, requires = "history")]
    values: bool,
}

/// Messages that are read and compared at a time: what is in memory.
const PAGE: usize = 400;

/// One side of the comparison.
struct Side {
    set: Arc<RouteSet>,
    listeners: Vec<ListenerSite>,
}

pub(crate) fn run(args: &test::Args) -> Result<Exit, String> {
    let format = if args.json { Format::Json } else { args.format };
    if !matches!(format, Format::Text | Format::Json) {
        return Err("--history is written as text or json: its result is not a list of tests".to_owned());
    }
    let running_site = running_site(args.config.as_deref())?;
    let draft_site = draft_site(args)?;
    let folder = journal_folder(args, running_site.as_ref(), draft_site.as_ref())?;
    let draft_set = draft(args, running_site.as_ref(), draft_site.as_ref())?;
    let mut reader = Reader::open(&folder).map_err(|e| e.to_string())?;
    let program = reader.applied().map_err(|e| e.to_string())?;
    let program = program.ok_or_else(|| format!("the journal in {} has no routes yet: no daemon has run on it", folder.display()))?;
    let applied = program.applied;
    let running = Routes::unpack(&program).map_err(|e| e.to_string())?;
    // A side without a site file of its own takes the other's listeners: their zones and authorities decide what is made.
    let listeners = |own: Option<&Site>, other: Option<&Site>| own.or(other).map(|s| s.listeners.clone()).unwrap_or_default();
    let old = Side { set: running.set, listeners: listeners(running_site.as_ref(), draft_site.as_ref()) };
    let new = Side { set: draft_set, listeners: listeners(draft_site.as_ref(), running_site.as_ref()) };

    let (changes, more) = compare(&mut reader, &folder, &old, &new, &args.history)?;
    let report = Report { changes, more, running: old.set.hash().to_owned(), applied };
    let text = if format == Format::Json { report.json() } else { report.text() };
    match &args.output {
        None => out!("{}", text.trim_end_matches('\n')),
        Some(file) => {
            std::fs::write(file, anstream::adapter::strip_str(&text).to_string()).map_err(|e| format!("{}: {}", file.display(), words(&e)))?;
            out!("{}", report.summary());
        }
    }
    Ok(if report.changes.changed == 0 { Exit::Done } else { Exit::Found })
}

/// The site whose daemon runs: the file that was named, or the one here.
fn running_site(config: Option<&Path>) -> Result<Option<Site>, String> {
    site_file::open_if_any(config, false).map_err(|_| String::new())
}

/// The site of the edited files, where their folder has one.
fn draft_site(args: &test::Args) -> Result<Option<Site>, String> {
    let Some(folder) = &args.site else { return Ok(None) };
    if !folder.is_dir() {
        return Err(format!("there is no folder {}", folder.display()));
    }
    let file = folder.join(site_file::DEFAULT);
    if file.is_file() { test::open(&file).map(Some) } else { Ok(None) }
}

fn journal_folder(args: &test::Args, running: Option<&Site>, draft: Option<&Site>) -> Result<PathBuf, String> {
    let sites = || running.or(draft).map(|s| s.journal.path.clone());
    args.history.journal.clone().or_else(sites).ok_or_else(|| "there is no kiln.yaml here; say --config FILE or --journal FOLDER".to_owned())
}

/// The edited routes: those of `--site`, else the running site's files as they are now.
fn draft(args: &test::Args, running: Option<&Site>, draft: Option<&Site>) -> Result<Arc<RouteSet>, String> {
    let site = draft.or(running);
    let mut folders = match (&args.site, draft) {
        // A folder of routes without a site file.
        (Some(folder), None) => vec![folder.clone()],
        _ => site.map(|s| s.folders.clone()).unwrap_or_default(),
    };
    folders.extend(args.routes.iter().cloned());
    if folders.is_empty() {
        return Err("there are no edited routes: say --site FOLDER, or run it where kiln.yaml is".to_owned());
    }
    test::routes(&folders, &site.map_or_else(LoadOptions::default, daemon::load_options))
}

/// Compares page by page, newest first. True if there are older messages that were not looked at.
fn compare(reader: &mut Reader, folder: &Path, old: &Side, new: &Side, args: &HistoryArgs) -> Result<(Changes, bool), String> {
    let since = args.since.as_deref().map(since).transpose()?;
    let total = reader.stats().map_err(|e| e.to_string())?.messages.iter().map(|m| m.count).sum::<u64>();
    let most = if args.limit == 0 { u64::MAX } else { args.limit };
    let bar = progress(total.min(most));
    let (mut changes, mut before, mut left) = (Changes::default(), None, most);
    loop {
        // One more than wanted tells whether there are more.
        let limit = PAGE.min(usize::try_from(left).unwrap_or(PAGE).saturating_add(1));
        let query = Query { message_type: args.message_type.clone(), listener: args.listener.clone(), from: since, before, limit, ..Query::default() };
        let page = match reader.search(&query) {
            // Retention took a file away: what is left is seen by whoever opens the journal anew.
            Err(JournalError::Missing) => {
                *reader = Reader::open(folder).map_err(|e| e.to_string())?;
                reader.search(&query)
            }
            page => page,
        };
        let page = page.map_err(|e| e.to_string())?;
        let full = page.len() == limit;
        let ids: Vec<MessageId> = page.iter().map(|f| f.id).take(usize::try_from(left).unwrap_or(usize::MAX)).collect();
        if page.len() > ids.len() {
            changes.merge(compare_page(reader, &ids, old, new, args.values)?);
            bar.inc(ids.len() as u64);
            bar.finish_and_clear();
            return Ok((changes, true));
        }
        changes.merge(compare_page(reader, &ids, old, new, args.values)?);
        bar.inc(ids.len() as u64);
        left -= ids.len() as u64;
        before = ids.last().copied();
        if !full {
            bar.finish_and_clear();
            return Ok((changes, false));
        }
    }
}

/// A length of time back from now, or a time.
fn since(text: &str) -> Result<Timestamp, String> {
    match duration(text) {
        Some(back) => {
            let now = jiff::Timestamp::now().as_millisecond();
            Ok(Timestamp(now.saturating_sub(i64::try_from(back.as_millis()).unwrap_or(i64::MAX))))
        }
        None => journal::when(text).map(Timestamp).map_err(|what| format!("--since {text}: write 7d, or a time: {what}")),
    }
}

/// Reads the messages of a page and compares them on all processors.
fn compare_page(reader: &Reader, ids: &[MessageId], old: &Side, new: &Side, values: bool) -> Result<Changes, String> {
    let mut envelopes = Vec::with_capacity(ids.len());
    let asks = |side: &Side| side.set.routes().any(|(_, route)| !route.asks.is_empty());
    let asking = asks(old) || asks(new);
    for id in ids {
        match reader.envelope(*id) {
            Ok(envelope) => envelopes.push((*id, envelope, if asking { found_then(reader, *id) } else { None })),
            // Retention was faster.
            Err(JournalError::Missing) => {}
            Err(e) => return Err(format!("message {}: {e}", id.0)),
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let each = envelopes.len().div_ceil(threads).max(1);
    let mut all = Changes::default();
    std::thread::scope(|scope| {
        let work: Vec<_> = envelopes.chunks(each).map(|part| scope.spawn(move || compare_some(part, old, new, values))).collect();
        for one in work {
            match one.join() {
                Ok(changes) => all.merge(changes),
                Err(_) => return Err("a defect in kiln: comparing panicked; please report this".to_owned()),
            }
        }
        Ok(())
    })?;
    Ok(all)
}

/// What routes' questions about a message found when it was delivered or answered.
fn found_then(reader: &Reader, id: MessageId) -> Option<Canned> {
    let record = reader.show(id).ok()?;
    let of_deliveries = record.deliveries.iter().filter_map(|d| reader.answers(d.id).ok()?);
    let of_reply = reader.reply(id).ok().flatten().map(|reply| reply.answers);
    Some(Canned::of(of_deliveries.chain(of_reply).filter_map(|answers| Answers::from_json(answers.expose()))))
}

fn compare_some(messages: &[(MessageId, Envelope, Option<Canned>)], old: &Side, new: &Side, values: bool) -> Changes {
    let mut changes = Changes::default();
    for (id, envelope, answers) in messages {
        let on = |side: &Side| {
            let site = side.listeners.iter().find(|l| l.socket.name == envelope.listener);
            let arrival = Arrival {
                listener: envelope.listener.to_string(),
                received: envelope.received,
                message: *id,
                // What was found then, for the questions of both.
                answers: answers.clone(),
                // It was taken in whole: its length was judged then.
                frame_bytes_max: usize::MAX,
                ..Arrival::at(site)
            };
            run_message(envelope.bytes.expose(), &arrival, &side.set, None)
        };
        changes.add(id.0, Found::between(&on(old), &old.set, &on(new), &new.set, values));
    }
    changes
}

fn progress(total: u64) -> indicatif::ProgressBar {
    let template = "{bar:40} {pos}/{len} messages  {per_sec}  {eta} left";
    let style = indicatif::ProgressStyle::with_template(template).unwrap_or_else(|_| indicatif::ProgressStyle::default_bar());
    indicatif::ProgressBar::new(total).with_style(style)
}

struct Report {
    changes: Changes,
    /// There are older messages.
    more: bool,
    running: String,
    applied: Timestamp,
}

const SECTIONS: [Section; 7] = [Section::Identity, Section::Save, Section::Stop, Section::Routing, Section::Resource, Section::Element, Section::Finding];

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        for section in SECTIONS {
            let kinds = self.changes.of(section);
            if kinds.is_empty() {
                continue;
            }
            let style = match section {
                Section::Identity | Section::Save => BAD,
                Section::Stop | Section::Routing => WARN,
                Section::Resource | Section::Element | Section::Finding => STRONG,
            };
            // Text takes text.
            let _ = writeln!(text, "{}", paint(style, section.title()));
            for (kind, tally) in kinds {
                let how = if kind.how.is_empty() { String::new() } else { format!(": {}", plain(&kind.how)) };
                let with_values = tally.examples.iter().any(|e| e.values.is_some());
                let messages = plural(tally.messages, "message");
                if with_values {
                    let _ = writeln!(text, "  {}{how}: {messages}", paint(NAME, &plain(&kind.place)));
                    for example in &tally.examples {
                        let _ = writeln!(text, "      {}", paint(FAINT, &example_text(example)));
                    }
                } else {
                    let examples: Vec<_> = tally.examples.iter().map(example_text).collect();
                    let _ =
                        writeln!(text, "  {}{how}: {messages}  {}", paint(NAME, &plain(&kind.place)), paint(FAINT, &format!("e.g. {}", examples.join(" "))));
                }
            }
            text.push('\n');
        }
        text.push_str(&self.summary());
        text.push('\n');
        text
    }

    fn summary(&self) -> String {
        let c = &self.changes;
        let verdict = if c.changed == 0 {
            paint(GOOD, "nothing changes")
        } else {
            paint(WARN, &format!("{} would change, in {}", plural(c.changed, "message"), kinds(c.kinds.len() as u64)))
        };
        let hash: String = self.running.chars().take(12).collect();
        let mut text = format!("{} compared with the running routes ({hash}, since {}): {verdict}", plural(c.messages, "message"), time(self.applied));
        if self.more {
            text.push_str(&paint(FAINT, "\nolder messages were not looked at; --limit 0 takes all"));
        }
        if c.left_out > 0 {
            text.push_str(&paint(WARN, &format!("\n{} further changes are of kinds that had no room here", count(c.left_out))));
        }
        text
    }

    fn json(&self) -> String {
        let mut text = String::new();
        for section in SECTIONS {
            for (kind, tally) in self.changes.of(section) {
                let _ = writeln!(text, "{}", kind_json(kind, tally));
            }
        }
        let c = &self.changes;
        let counts = json!({
            "messages": c.messages, "changed": c.changed, "kinds": c.kinds.len(), "leftOut": c.left_out, "older": self.more, "running": self.running,
        });
        let _ = writeln!(text, "{counts}");
        text
    }
}

fn kinds(n: u64) -> String {
    if n == 1 { "one kind of change".to_owned() } else { format!("{} kinds of change", count(n)) }
}

//! `kiln journal dead-letters`: what was given up and waits for somebody to act, with the reasons.

use crate::cli::Exit;
use crate::cli::journal::{Place, open};
use crate::cli::journal_filter::Filter;
use crate::cli::paint::{BAD, FAINT, NAME, STRONG, count, err, out, paint, plain, rfc3339, table, time};
use crate::exchange::MessageId;
use crate::journal::{DeliveryState, Found, FoundDelivery, Query};
use serde_json::json;
use std::collections::BTreeMap;

/// List what was given up, with the reasons
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln journal dead-letters
  kiln journal dead-letters --code http-422 --type ORU --since 2026-11-24
  kiln journal dead-letters --reason 'table administrative-sex'
  kiln journal dead-letters --by-reason               how many of each kind

The same options say what `kiln journal replay` and `kiln journal skip` are about. Exits 1 when there is none.")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    filter: Filter,
    /// Count them by target, route, code and reason
    #[arg(long)]
    by_reason: bool,
    /// Only messages before this one: the last of the page before
    #[arg(long, value_name = "NUMBER", conflicts_with = "by_reason")]
    before: Option<u64>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000), conflicts_with = "by_reason")]
    limit: u32,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Exit {
    let Some(reader) = args.place.folder().and_then(|folder| open(&folder)) else { return Exit::CouldNot };
    if args.by_reason {
        return match args.filter.find(&reader, DeliveryState::DeadLetter) {
            Ok(found) => by_reason(&found, args.json),
            Err(exit) => exit,
        };
    }
    let query = Query { before: args.before.map(MessageId), limit: args.limit as usize, ..args.filter.query(DeliveryState::DeadLetter) };
    let found = match reader.search(&query) {
        Ok(found) => found,
        Err(e) => {
            err!("kiln: {e}");
            return Exit::CouldNot;
        }
    };
    let wanted = || found.iter().flat_map(|f| f.deliveries.iter().filter(|d| d.wanted).map(move |d| (f, d)));
    if args.json {
        wanted().for_each(|(f, d)| out!("{}", as_json(f, d)));
    } else if found.is_empty() {
        err!("no dead letter fits");
    } else {
        let rows: Vec<_> = wanted().map(|(f, d)| row(f, d)).collect();
        table(&["number", "received", "type", "route", "target", "code", "reason"], &[true], &rows);
        if found.len() == query.limit
            && let Some(last) = found.last()
        {
            err!("{}", paint(FAINT, &format!("there may be more: --before {}", last.id.0)));
        }
    }
    if found.is_empty() { Exit::Found } else { Exit::Done }
}

fn row(f: &Found, d: &FoundDelivery) -> Vec<String> {
    vec![
        f.id.0.to_string(),
        time(f.received),
        plain(&f.message_type).into_owned(),
        paint(NAME, &d.route),
        d.target.to_string(),
        paint(BAD, &plain(&d.code)),
        plain(&d.summary).into_owned(),
    ]
}

fn as_json(f: &Found, d: &FoundDelivery) -> serde_json::Value {
    json!({
        "id": f.id.0, "delivery": d.number, "received": rfc3339(f.received), "listener": &*f.listener, "type": f.message_type,
        "sendingApplication": f.sending_application, "sendingFacility": f.sending_facility, "controlId": f.control_id.0,
        "route": &*d.route, "target": &*d.target, "code": d.code, "reason": d.summary,
    })
}

/// The kinds of dead letters, the most frequent first. Numbers in a reason (which OBX, which line) stay: they are what is to be mended.
fn by_reason(found: &[Found], as_lines: bool) -> Exit {
    let mut kinds: BTreeMap<(&str, &str, &str, &str), (u64, u64)> = BTreeMap::new();
    for (f, d) in found.iter().flat_map(|f| f.deliveries.iter().filter(|d| d.wanted).map(move |d| (f, d))) {
        let kind = kinds.entry((&*d.target, &*d.route, d.code.as_str(), d.summary.as_str())).or_insert((0, f.id.0));
        kind.0 += 1;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (n, _))| std::cmp::Reverse(*n));
    if as_lines {
        for ((target, route, code, reason), (n, newest)) in &kinds {
            out!("{}", json!({ "target": target, "route": route, "code": code, "reason": reason, "count": n, "newest": newest }));
        }
    } else if kinds.is_empty() {
        err!("no dead letter fits");
    } else {
        let rows: Vec<_> = kinds
            .iter()
            .map(|((target, route, code, reason), (n, newest))| {
                let newest = newest.to_string();
                vec![paint(STRONG, &count(*n)), newest, (*target).to_owned(), paint(NAME, route), paint(BAD, &plain(code)), plain(reason).into_owned()]
            })
            .collect();
        table(&["count", "newest", "target", "route", "code", "reason"], &[true, true], &rows);
    }
    if kinds.is_empty() { Exit::Found } else { Exit::Done }
}

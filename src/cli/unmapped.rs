//! `kiln unmapped`: codes that no table knows and authorities that no naming system knows, by sender; and the rows that make them known.

use crate::cli::Exit;
use crate::cli::control::{self, Item, ReplayRequest, Request};
use crate::cli::journal::{Place, open};
use crate::cli::journal_edit::who;
use crate::cli::journal_filter::Filter;
use crate::cli::paint::{FAINT, GOOD, NAME, STRONG, count, err, out, paint, plain, plural, rfc3339, table, time};
use crate::cli::site_file::{self, NoSite};
use crate::cli::unmapped_row::{Row, Written, write_rows};
use crate::journal::{DeliveryState, Reader, UnknownCount, UnknownList};
use crate::site::words;
use clap::Subcommand;
use serde_json::json;
use std::path::Path;

/// The word that stands for the naming systems where a table's name stands for a table.
const SYSTEMS: &str = "systems";

/// List unknown codes and authorities, and make them known
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  kiln unmapped                                       what is not known, by sender, with an example of each
  kiln unmapped --table administrative-sex --json
  kiln unmapped add administrative-sex Q=other        writes the row, checks the site, reloads, and tries again what waited
  kiln unmapped add systems LAB7=urn:oid:1.2.3.4      the same for an authority or coding system
  kiln journal show 1042                              the example itself

Counted is what deliveries met, each once. Codes are what senders wrote: this prints what may be patient data. Exits 1 when there is nothing.")]
pub(crate) struct Args {
    #[command(flatten)]
    list: ListArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Add(AddArgs),
}

#[derive(clap::Args)]
struct ListArgs {
    #[command(flatten)]
    place: Place,
    /// Only of this table; `systems` for authorities and coding systems
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// Only from this sender (MSH-3 or MSH-4)
    #[arg(long)]
    sender: Option<String>,
    /// Only by this listener
    #[arg(long)]
    listener: Option<String>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Write rows into the site's own table, check, reload, and try again what waited for them
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln unmapped add administrative-sex Q=other
  kiln unmapped add admit-source 7=emd 8=outp --dry-run
  kiln unmapped add systems LAB7=urn:oid:1.2.3.4

The row goes into the site's own `table:` or `extend:` of that name, or into a new `extend:` in own-codes.yaml of its first folder of routes;
everything else in the file stays as it is. Nothing is written if the site would have a fault then.")]
struct AddArgs {
    #[command(flatten)]
    place: Place,
    /// The table; `systems` for an authority or coding system
    table: String,
    /// The code as it is sent, and what it becomes; of `systems`, a namespace or OID and its URI
    #[arg(value_name = "CODE=VALUE", required = true, value_parser = pair)]
    rows: Vec<(String, String)>,
    /// Show the difference, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Don't try again what waited
    #[arg(long)]
    no_replay: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (code, value) = text.split_once('=').ok_or("write CODE=VALUE")?;
    if code.is_empty() || value.is_empty() || text.contains(['\n', '\r']) {
        return Err("write CODE=VALUE, both on one line and neither empty".to_owned());
    }
    Ok((code.to_owned(), value.to_owned()))
}

pub(crate) fn run(args: &Args) -> Exit {
    match &args.command {
        None => list(&args.list),
        Some(Command::Add(add)) => match made_known(add) {
            Ok(exit) => exit,
            Err(what) => {
                err!("kiln: {}", what.lines().map(plain).collect::<Vec<_>>().join("\n"));
                Exit::CouldNot
            }
        },
    }
}

fn list(args: &ListArgs) -> Exit {
    let Some(reader) = args.place.folder().and_then(|folder| open(&folder)) else { return Exit::CouldNot };
    let found = match reader.unknown() {
        Ok(found) => found,
        Err(e) => {
            err!("kiln: {e}");
            return Exit::CouldNot;
        }
    };
    let fits = |one: &&UnknownCount| {
        let what = &one.what;
        args.table.as_deref().is_none_or(|wanted| wanted == name(&what.list))
            && args.sender.as_deref().is_none_or(|wanted| wanted == what.application || wanted == what.facility)
            && args.listener.as_deref().is_none_or(|wanted| wanted == what.listener)
    };
    let found: Vec<&UnknownCount> = found.iter().filter(fits).collect();
    if args.json {
        found.iter().for_each(|one| out!("{}", as_json(one)));
    } else if found.is_empty() {
        err!("every code and authority is known");
    } else {
        show(&found);
    }
    if found.is_empty() { Exit::Found } else { Exit::Done }
}

fn name(list: &UnknownList) -> &str {
    match list {
        UnknownList::Table(name) => name,
        UnknownList::Systems => SYSTEMS,
    }
}

fn show(found: &[&UnknownCount]) {
    let mut last = None;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let print = |rows: &mut Vec<Vec<String>>| {
        if !rows.is_empty() {
            table(&["count", "table", "code", "where", "newest", "example"], &[true], rows);
            out!("");
            rows.clear();
        }
    };
    for one in found {
        let what = &one.what;
        let sender = (what.listener.as_str(), what.application.as_str(), what.facility.as_str());
        if last != Some(sender) {
            print(&mut rows);
            let from = [sender.1, sender.2].iter().filter(|part| !part.is_empty()).map(|part| plain(part).into_owned()).collect::<Vec<_>>().join("/");
            out!("{} {}", paint(STRONG, if from.is_empty() { "an unnamed sender" } else { &from }), paint(FAINT, &format!("by {}", plain(sender.0))));
            last = Some(sender);
        }
        rows.push(vec![
            count(what.count),
            plain(name(&what.list)).into_owned(),
            paint(NAME, &plain(what.code.expose())),
            plain(&what.place).into_owned(),
            time(what.at),
            format!("message {}", what.example.0),
        ]);
    }
    print(&mut rows);
    err!("{}", paint(FAINT, "`kiln unmapped add TABLE CODE=VALUE` makes one known"));
}

fn as_json(one: &UnknownCount) -> serde_json::Value {
    let what = &one.what;
    json!({
        "listener": what.listener, "sendingApplication": what.application, "sendingFacility": what.facility, "table": name(&what.list),
        "code": what.code.expose(), "place": what.place, "count": what.count, "first": rfc3339(one.first), "last": rfc3339(what.at), "example": what.example.0,
    })
}

/// Writes the rows, and has the daemon know them.
fn made_known(args: &AddArgs) -> Result<Exit, String> {
    let site = match site_file::open_if_any(args.place.config.as_deref(), false) {
        Ok(Some(site)) => site,
        Ok(None) => return Err("there is no kiln.yaml here; say --config FILE: the row is written into the site's own files".to_owned()),
        Err(NoSite::Missing | NoSite::Told) => return Ok(Exit::CouldNot),
    };
    let rows: Vec<Row> = args.rows.iter().map(|(code, value)| Row { code: code.clone(), value: value.clone() }).collect();
    let table = (args.table != SYSTEMS).then_some(args.table.as_str());
    match write_rows(&site, table, &rows, args.dry_run)? {
        Written::Shown => return Ok(Exit::Done),
        Written::Faults(told) => {
            err!("{}", told.trim_end());
            err!("kiln: nothing was written");
            return Ok(Exit::Found);
        }
        Written::To(path) => out!("{} {}", paint(GOOD, &format!("{} written to", plural(rows.len() as u64, "row"))), path.display()),
    }
    let folder = args.place.journal.clone().unwrap_or_else(|| site.journal.path.clone());
    if !folder.join("state.db").is_file() {
        return Ok(Exit::Done);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| words(&e))?;
    let Some((_, rules)) = args.place.folder_and_rules() else { return Ok(Exit::CouldNot) };
    let ask = |request: &Request| runtime.block_on(control::ask_or_do(&folder, request, &rules));
    // Without a daemon the next start reads the files anyway.
    if ask(&Request::Status).is_ok() {
        match ask(&Request::Reload) {
            Ok(done) if done.said.is_empty() => out!("{}", paint(FAINT, "the daemon had it already")),
            Ok(done) => done.said.iter().for_each(|line| out!("{}", plain(line))),
            Err(what) => {
                err!("kiln: the rows are written, but the daemon refused the site:\n{what}");
                return Ok(Exit::Found);
            }
        }
    }
    let codes = rows.iter().map(|row| row.code.clone()).collect();
    ask(&Request::Known { table: table.map(str::to_owned), codes })?;
    if args.no_replay {
        return Ok(Exit::Done);
    }
    let items = waiting(&folder, table).map_err(|_| "what waits cannot be read".to_owned())?;
    if items.is_empty() {
        out!("{}", paint(FAINT, "nothing waited for it"));
        return Ok(Exit::Done);
    }
    let done = ask(&Request::Replay(ReplayRequest { items, by: who(), ..ReplayRequest::default() }))?;
    out!("{} will be tried again", paint(GOOD, &plural(done.deliveries, "delivery")));
    if !done.superseded.is_empty() {
        out!("{} superseded by later messages; `kiln journal replay --state superseded --superseded` sends them all the same", done.superseded.len());
    }
    Ok(Exit::Done)
}

/// Dead letters that stopped at this table, or that nothing identifies because nobody knew the authority.
fn waiting(folder: &Path, table: Option<&str>) -> Result<Vec<Item>, Exit> {
    let reader = Reader::open(folder).map_err(|_| Exit::CouldNot)?;
    let filter = match table {
        Some(name) => Filter { code: Some("unmapped-code".to_owned()), reason: Some(format!("table {name} ")), ..Filter::default() },
        None => Filter { code: Some("no-identity".to_owned()), ..Filter::default() },
    };
    let mut found = filter.find(&reader, DeliveryState::DeadLetter)?;
    found.reverse();
    let wanted = |f: &crate::journal::Found| f.deliveries.iter().filter(|d| d.wanted).map(|d| d.number).collect();
    Ok(found.iter().map(|f| Item { message: f.id.0, deliveries: Some(wanted(f)) }).collect())
}

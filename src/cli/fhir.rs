//! `kiln fhir`: reads from a FHIR server, with the credentials of the site file.

use crate::cli::Exit;
use crate::cli::fhir_target::{self, SiteArgs};
use crate::cli::paint::{colour_json, count, err, out, plain, plural, print_bytes};
use crate::target::{Fault, FhirTarget, PageFault, Setback};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::IsTerminal as _;

/// Read from a FHIR server: a resource, or a search over all its pages
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln fhir get main Patient/12
  kiln fhir search main 'Patient?name=Meier&_sort=birthdate'
  kiln fhir search https://fhir.example/r4 Encounter --all --ndjson > encounters.ndjson

A target's address, credentials, TLS and proxy come from kiln.yaml. What is printed may be patient data.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Get(GetArgs),
    Search(SearchArgs),
}

/// Read resources by their ids
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln fhir get main Patient/12
  kiln fhir get main Patient/12/_history/3 Encounter/7 --ndjson
  kiln fhir get https://fhir.example/r4 metadata

Exits 0 when all were read, 1 when one is not there or was refused, 2 when the server could not be asked.")]
struct GetArgs {
    /// A FHIR target of the site file, or a server's URL
    target: String,
    /// `Type/id`, `Type/id/_history/version`, or another path below the server's base
    #[arg(required = true, value_name = "REFERENCE")]
    references: Vec<String>,
    /// One line for each resource, without spaces
    #[arg(long, visible_alias = "json")]
    ndjson: bool,
    #[command(flatten)]
    site: SiteArgs,
}

/// Search, and print all matches
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln fhir search main 'Patient?name=Meier'
  kiln fhir search main 'Encounter?status=in-progress&_include=Encounter:subject&_sort=-date' --limit 500
  kiln fhir search main Patient 'birthdate=lt1950-01-01' --all --ndjson > old.ndjson

Pages are followed by their `next` links; where a server gives none although there is more, by `_offset`. Prints one Bundle, or with --ndjson a
line for each resource as it comes. Exits 0 when all that was asked for was read, 1 when the server refused or stopped early, 2 when it could not be asked.")]
struct SearchArgs {
    /// A FHIR target of the site file, or a server's URL
    target: String,
    /// `Type?parameter=value&...`; further arguments are parameters
    #[arg(required = true, value_name = "QUERY")]
    query: Vec<String>,
    /// At most so many matches
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// All matches
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// So many at a time, unless the query has a `_count`
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    page: u16,
    /// One line for each resource, as it comes, without spaces
    #[arg(long, visible_alias = "json")]
    ndjson: bool,
    #[command(flatten)]
    site: SiteArgs,
}

pub(crate) fn run(args: &Args) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            err!("kiln: {e}");
            return Exit::CouldNot;
        }
    };
    let done = match &args.command {
        Command::Get(get) => fhir_target::open(&get.target, &get.site).map(|target| runtime.block_on(get_all(&target, get))),
        Command::Search(search) => fhir_target::open(&search.target, &search.site).and_then(|target| runtime.block_on(search_all(&target, search))),
    };
    done.unwrap_or_else(|what| {
        err!("kiln: {}", plain(&what));
        Exit::CouldNot
    })
}

async fn get_all(target: &FhirTarget, args: &GetArgs) -> Exit {
    let mut exit = Exit::Done;
    for reference in &args.references {
        match target.read(reference.trim_start_matches('/')).await {
            Ok(resource) => print(&resource, args.ndjson),
            Err(setback) => match told(&setback) {
                Exit::CouldNot => return Exit::CouldNot,
                found => exit = found,
            },
        }
    }
    exit
}

async fn search_all(target: &FhirTarget, args: &SearchArgs) -> Result<Exit, String> {
    let limit = if args.all { u64::MAX } else { args.limit };
    let page_size = usize::from(args.page).min(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut search = target.search_all(&query(&args.query), page_size)?;
    let bar = bar();
    let (mut kept, mut matches) = (Vec::new(), 0);
    let exit = loop {
        let entries = match search.page().await {
            Ok(Some(entries)) => entries,
            Ok(None) => break Exit::Done,
            Err(fault) => {
                bar.suspend(|| stopped(&fault, matches));
                break match fault {
                    PageFault::Setback(setback) if setback.fault != Fault::Message && matches == 0 => Exit::CouldNot,
                    _ => Exit::Found,
                };
            }
        };
        for entry in entries {
            let is_match = entry.pointer("/search/mode").and_then(Value::as_str).is_none_or(|mode| mode == "match");
            if is_match && matches == limit {
                continue;
            }
            matches += u64::from(is_match);
            match (args.ndjson, entry.get("resource")) {
                (true, Some(resource)) => bar.suspend(|| print(resource, true)),
                (true, None) => {}
                (false, _) => kept.push(entry),
            }
        }
        if let Some(total) = search.total {
            bar.set_length(total.min(limit));
        }
        bar.set_position(matches);
        if matches >= limit {
            break Exit::Done;
        }
    };
    bar.finish_and_clear();
    if !args.ndjson && exit != Exit::CouldNot {
        let mut bundle = json!({ "resourceType": "Bundle", "type": "searchset" });
        if let (Some(total), Value::Object(fields)) = (search.total, &mut bundle) {
            fields.insert("total".to_owned(), json!(total));
        }
        // FHIR has no empty lists.
        if let (false, Value::Object(fields)) = (kept.is_empty(), &mut bundle) {
            fields.insert("entry".to_owned(), Value::Array(kept));
        }
        print(&bundle, false);
    }
    if std::io::stderr().is_terminal() && exit == Exit::Done {
        let of = search.total.filter(|t| *t > matches).map_or(String::new(), |t| format!(" of {}; --all gives the rest", count(t)));
        err!("{}{of}", plural(matches, "match").replace("matchs", "matches"));
    }
    Ok(exit)
}

/// `Patient?name=Meier` and further parameters in one.
fn query(words: &[String]) -> String {
    let (first, rest) = words.split_first().expect("clap wants one at least");
    rest.iter().fold(first.trim_start_matches('/').to_owned(), |all, word| {
        let joint = if all.contains('?') { '&' } else { '?' };
        format!("{all}{joint}{}", word.trim_start_matches(['?', '&']))
    })
}

fn print(resource: &Value, one_line: bool) {
    if one_line {
        let mut line = resource.to_string();
        line.push('\n');
        print_bytes(line.as_bytes());
    } else {
        out!("{}", colour_json(resource.to_string().as_bytes()));
    }
}

/// A person at the terminal sees how far it is; a pipe does not.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {per_sec} {elapsed}");
    let bar = ProgressBar::new(0);
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

fn stopped(fault: &PageFault, matches: u64) {
    if matches > 0 {
        err!("kiln: only the first {} could be read:", count(matches));
    }
    match fault {
        PageFault::Setback(setback) => {
            told(setback);
        }
        PageFault::NoPages => err!("kiln: the server gives no `next` link and no `_offset`, although there may be more; --page asks for more at once"),
        PageFault::ElsewhereLink => err!("kiln: the server's `next` link leads to another server, which does not get these credentials"),
    }
}

/// Says what went wrong, with the server's own words: the person asked for them by name.
fn told(setback: &Setback) -> Exit {
    err!("kiln: {}", plain(&setback.summary));
    let outcome = setback.detail.as_ref().and_then(|d| serde_json::from_str::<Value>(d.expose()).ok());
    let issues = outcome.as_ref().and_then(|o| o.get("issue")).and_then(Value::as_array);
    for issue in issues.into_iter().flatten() {
        let said = issue.get("diagnostics").or_else(|| issue.pointer("/details/text")).and_then(Value::as_str);
        if let Some(said) = said {
            err!("  {}", plain(said));
        }
    }
    if setback.fault == Fault::Message { Exit::Found } else { Exit::CouldNot }
}

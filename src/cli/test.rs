//! `kiln test`: messages with what is expected of them, beside routes.

use crate::cli::answers::Canned;
use crate::cli::paint::{err, plain};
use crate::cli::test_compare::{Deviation, compare};
use crate::cli::test_coverage::{Coverage, Files};
use crate::cli::test_fixture::{Expectation, Given, expectation_of, find, site_above};
use crate::cli::test_history;
use crate::cli::test_report::{self, Format, Outcome, Report, Status};
use crate::cli::test_run::{Arrival, named, run as run_message};
use crate::cli::{Exit, daemon, message_file, route_set, site_file};
use crate::diagnostic::{Severity, render};
use crate::route::{LoadOptions, RouteSet};
use crate::site::{ListenerSite, words};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Run messages through the routes and compare with what is expected of them
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln test                          every fixture of the site in this folder
  kiln test tests/adt --update       writes what is made now as what is expected; read the difference before you keep it
  kiln test --format junit --output report.xml
  kiln test --history --site draft --since 7d      what would change, over the messages that the journal has

A fixture is a message NAME.hl7 and NAME.expected.json beside it, in a folder of routes or in tests/; docs/testing.md says more.
Exits 0 when all is as expected, 1 when something is not, 2 when there is nothing to run or it cannot be run.")]
pub(crate) struct Args {
    /// Messages, expectations, or folders of them [default: the site's folders of routes, tests/ and fixtures/]
    paths: Vec<PathBuf>,
    /// A folder with a site or with routes, whose routes count
    #[arg(long, value_name = "FOLDER")]
    pub site: Option<PathBuf>,
    /// A site file [default: the nearest kiln.yaml of each path]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A folder or file of routes that stand above the site's; may be repeated
    #[arg(long, value_name = "FOLDER")]
    pub routes: Vec<PathBuf>,
    /// Only fixtures whose path or note has this text in it
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Write what is made as what is expected: missing files and changed ones; deletes none
    #[arg(long, conflicts_with = "history")]
    update: bool,
    /// How the result is written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// Where the report goes; the terminal then shows it as text
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Lines of differences that are shown for each fixture; 0 shows all
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    lines: usize,
    /// Name the fixtures that are as expected, too
    #[arg(long, short)]
    verbose: bool,
    /// Show which lines and conditions no fixture tried
    #[arg(long, value_name = "FILES", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "own", conflicts_with = "history")]
    coverage: Option<Files>,
    /// Write the coverage as an lcov trace file, for tools
    #[arg(long, value_name = "FILE", conflicts_with = "history")]
    coverage_lcov: Option<PathBuf>,
    /// Exit 1 if less than this share of lines and branches is covered
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100), conflicts_with = "history")]
    coverage_min: Option<u8>,
    #[command(flatten)]
    pub history: test_history::HistoryArgs,
}

/// A site's routes, and how its listeners take messages.
pub(crate) struct Bench {
    pub(crate) set: Arc<RouteSet>,
    pub(crate) listeners: Vec<ListenerSite>,
}

pub(crate) fn run(args: &Args) -> Exit {
    let done = if args.history.history { test_history::run(args) } else { fixtures(args) };
    done.unwrap_or_else(|what| {
        if !what.is_empty() {
            err!("kiln: {}", plain(&what));
        }
        Exit::CouldNot
    })
}

/// What was asked for but cannot be: an empty text if it has been printed.
type Could<T> = Result<T, String>;

fn fixtures(args: &Args) -> Could<Exit> {
    let began = Instant::now();
    let mut report = Report::new(if args.json { Format::Json } else { args.format }, args.lines, args.verbose);
    let groups = groups(args)?;
    let covered = args.coverage.is_some() || args.coverage_lcov.is_some() || args.coverage_min.is_some();
    let mut coverage = covered.then(Coverage::default);
    let mut places: Vec<String> = Vec::new();
    for (site, paths) in groups {
        let bench = bench(site.as_deref(), args)?;
        if let Some(coverage) = &mut coverage {
            coverage.expect(&bench.set);
        }
        places.extend(paths.iter().map(|p| p.display().to_string()));
        for file in find(&paths)? {
            report.extend(fixture(&bench, &file, args, coverage.as_mut()));
        }
    }
    if report.outcomes.is_empty() {
        return Err(match &args.filter {
            Some(text) => format!("no fixture has {text} in its path or note"),
            None if places.is_empty() => {
                "there are no fixtures: put a message into tests/NAME.hl7 and run `kiln test --update`, which writes what it makes beside it".to_owned()
            }
            None => format!("there are no messages (*.hl7) in {}: put one there and run `kiln test --update`", places.join(", ")),
        });
    }
    report.seconds = began.elapsed().as_secs_f64();
    report.coverage = coverage.map(|c| c.only(args.coverage.unwrap_or(Files::Own)));
    if let (Some(file), Some(coverage)) = (&args.coverage_lcov, &report.coverage) {
        std::fs::write(file, coverage.lcov()).map_err(|e| format!("{}: {}", file.display(), words(&e)))?;
    }
    test_report::show(&report, args.output.as_deref())?;
    if let (Some(least), Some(coverage)) = (args.coverage_min, &report.coverage)
        && coverage.percent() < f64::from(least)
    {
        err!("kiln: {:.0} % of lines and branches are covered, and --coverage-min asks for {least} %", coverage.percent());
        return Ok(Exit::Found);
    }
    Ok(if report.all_well() { Exit::Done } else { Exit::Found })
}

/// The paths by the site that they belong to.
fn groups(args: &Args) -> Could<BTreeMap<Option<PathBuf>, Vec<PathBuf>>> {
    let told = match (&args.config, &args.site) {
        (Some(file), _) => Some(Some(file.clone())),
        // A folder of routes without a site file is as good.
        (None, Some(folder)) => Some(Some(folder.join(site_file::DEFAULT)).filter(|file| file.is_file())),
        (None, None) => None,
    };
    let mut groups: BTreeMap<Option<PathBuf>, Vec<PathBuf>> = BTreeMap::new();
    for path in &args.paths {
        let here = || Some(PathBuf::from(site_file::DEFAULT)).filter(|file| file.is_file());
        let site = told.clone().unwrap_or_else(|| site_above(path).or_else(here));
        groups.entry(site).or_default().push(path.clone());
    }
    if args.paths.is_empty() {
        let site = told.unwrap_or_else(|| Some(site_file::DEFAULT.into()).filter(|file: &PathBuf| file.is_file()));
        let home = site.as_deref().and_then(Path::parent).map(Path::to_path_buf).or_else(|| args.site.clone()).unwrap_or_default();
        let mut folders = match &site {
            Some(file) => open(file)?.folders,
            None => vec![home.join("routes")],
        };
        folders.extend(["tests", "fixtures"].map(|name| home.join(name)));
        folders.retain(|folder| folder.is_dir());
        groups.insert(site, folders);
    }
    Ok(groups)
}

/// Reads a site file; its faults are printed.
pub(crate) fn open(file: &Path) -> Could<crate::site::Site> {
    site_file::open(file, Vec::new(), false).map_err(|no| match no {
        site_file::NoSite::Missing => format!("there is no file {}", file.display()),
        site_file::NoSite::Told => String::new(),
    })
}

fn bench(site: Option<&Path>, args: &Args) -> Could<Bench> {
    let site = site.map(open).transpose()?;
    let mut folders = site.as_ref().map(|s| s.folders.clone()).unwrap_or_default();
    if let (None, Some(folder)) = (&site, &args.site) {
        if !folder.exists() {
            return Err(format!("there is no folder {}", folder.display()));
        }
        folders.push(folder.clone());
    } else if site.is_none() && Path::new("routes").is_dir() && args.routes.is_empty() {
        folders.push("routes".into());
    }
    if let Some(missing) = args.routes.iter().find(|p| !p.exists()) {
        return Err(format!("there is no file or folder {}", missing.display()));
    }
    folders.extend(args.routes.iter().cloned());
    let options = site.as_ref().map_or_else(LoadOptions::default, daemon::load_options);
    Ok(Bench { set: routes(&folders, &options)?, listeners: site.map(|s| s.listeners).unwrap_or_default() })
}

/// Loads routes; their faults are printed.
pub(crate) fn routes(folders: &[PathBuf], options: &LoadOptions) -> Could<Arc<RouteSet>> {
    let (loaded, _) = route_set::load_folders(folders, options).map_err(|e| e.to_string())?;
    let errors: Vec<_> = loaded.diagnostics.iter().filter(|d| d.severity == Severity::Error).cloned().collect();
    if !errors.is_empty() {
        err!("{}", render(&loaded.sources, &errors, site_file::style()).trim_end());
    }
    loaded.set.ok_or_else(String::new)
}

/// One message file; nothing if it is filtered out.
fn fixture(bench: &Bench, file: &Path, args: &Args, coverage: Option<&mut Coverage>) -> Option<Outcome> {
    let began = Instant::now();
    let expected_at = expectation_of(file);
    let mut outcome = Outcome::new(file.display().to_string());
    let told = |what: &Outcome| args.filter.as_ref().is_none_or(|text| what.name.contains(text.as_str()) || what.note.contains(text.as_str()));
    match Expectation::read(&expected_at) {
        Err(what) => outcome.error = Some(what),
        Ok(expectation) => {
            outcome.note = expectation.as_ref().and_then(|e| e.note.clone()).unwrap_or_default();
            if told(&outcome)
                && let Err(what) = judge(bench, file, &expected_at, expectation, args.update, coverage, &mut outcome)
            {
                outcome.error = Some(what);
            }
        }
    }
    if outcome.error.is_some() {
        outcome.status = Status::Error;
    }
    outcome.seconds = began.elapsed().as_secs_f64();
    told(&outcome).then_some(outcome)
}

fn judge(
    bench: &Bench,
    file: &Path,
    expected_at: &Path,
    expectation: Option<Expectation>,
    update: bool,
    mut coverage: Option<&mut Coverage>,
    outcome: &mut Outcome,
) -> Result<(), String> {
    if !file.exists() {
        return Err(format!("{} expects something of {}, which is not there", expected_at.display(), file.display()));
    }
    let messages = message_file::read(file).map_err(|e| format!("{}: {}", file.display(), words(&e)))?;
    if messages.is_empty() {
        return Err(format!("{}: there is no message in it", file.display()));
    }
    let own = expectation.as_ref().map(|e| e.given.clone()).unwrap_or_default();
    let given = own.or(Given::of_folders(file)?);
    let arrival = Arrival { answers: Canned::beside(file)?, ..given.arrival(&bench.listeners)? };
    let only = given.routes.as_ref().map(|names| names.iter().map(|name| named(&bench.set, name)).collect::<Result<Vec<_>, _>>()).transpose()?;
    let made: Vec<Map<String, Value>> = messages
        .into_iter()
        .map(|bytes| {
            let ran = run_message(&bytes.into(), &arrival, &bench.set, only.as_deref());
            for (route, made) in &ran.routes {
                if let Err(stop) = made {
                    outcome.hints.push(format!("route {} stops: {} {}", bench.set.info(*route).name, stop.text, stop.line).trim_end().to_owned());
                }
            }
            if let Some(coverage) = coverage.as_deref_mut() {
                coverage.add(&ran, &arrival, &bench.set);
            }
            ran.told(&bench.set)
        })
        .collect();
    outcome.deviations = match &expectation {
        Some(e) => deviations(&e.cases, &made),
        None => Vec::new(),
    };
    outcome.status = match (&expectation, outcome.deviations.is_empty(), update) {
        // What an empty file expects is for --update to say.
        (Some(e), true, true) if e.cases.iter().all(Map::is_empty) => Status::Created,
        (Some(_), true, _) => Status::Passed,
        (Some(_), false, false) => Status::Failed,
        (Some(_), false, true) => Status::Updated,
        (None, _, false) => Status::New,
        (None, _, true) => Status::Created,
    };
    if matches!(outcome.status, Status::Created | Status::Updated) {
        let text = expectation.unwrap_or_default().write(made);
        std::fs::write(expected_at, text).map_err(|e| format!("{}: {}", expected_at.display(), words(&e)))?;
    }
    Ok(())
}

fn deviations(expected: &[Map<String, Value>], made: &[Map<String, Value>]) -> Vec<Deviation> {
    let mut found = Vec::new();
    for (n, (a, b)) in expected.iter().zip(made).enumerate() {
        let mut of_message = compare(a, b);
        if made.len() > 1 {
            // The message's place in its file.
            of_message.iter_mut().for_each(|d| d.route = format!("message {}{}{}", n + 1, if d.route.is_empty() { "" } else { ", " }, d.route));
        }
        found.extend(of_message);
    }
    if expected.len() != made.len() {
        let count = |n: usize| Some(Value::from(n));
        found.push(Deviation {
            route: String::new(),
            resource: String::new(),
            place: "messages in the file".to_owned(),
            change: crate::fhir::Change::Changed,
            old: count(expected.len()),
            new: count(made.len()),
        });
    }
    found
}

//! `kiln check`: judges site and route files without starting anything.

use crate::cli::paint::{BAD, GOOD, WARN, err, out, paint, plural};
use crate::cli::route_set::{self, Counted};
use crate::cli::{Exit, check_fix, control, daemon, servers, site_file};
use crate::diagnostic::{Diagnostic, Severity, Sources, Style, render};
use crate::route::{LoadOptions, RouteSet};
use crate::site::{Site, words};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Check site and route files: every fault with its file, line and column
#[derive(clap::Args)]
#[command(after_help = "Examples:
  kiln check                     kiln.yaml here, and the routes that it names
  kiln check site/ routes/adt.yaml
  kiln check --format github     for a workflow's annotations
  kiln check --online            asks each FHIR server what it can do; nothing is written there
  kiln check --fix --dry-run     what would be mended, as a diff

--fix mends slips that have one cure (a misspelt word, a field in quotes), in files of the site only, and sets indentation and blanks right.
Exits 0 when nothing is wrong, 1 for a fault or, with --dry-run, for something to change, 2 when a file cannot be read or there is nothing to check.")]
pub(crate) struct Args {
    /// Site files, route files, or folders of either
    paths: Vec<PathBuf>,
    /// How faults are written
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// Ask the FHIR servers, too: can they do what the routes want?
    #[arg(long)]
    online: bool,
    /// The same as --format json
    #[arg(long)]
    json: bool,
    /// Write what is certainly meant into the files, and lay them out; then check
    #[arg(long)]
    fix: bool,
    /// Show what --fix would change, and change nothing
    #[arg(long, requires = "fix")]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// With the line, a caret and the cure
    Human,
    /// One JSON object per line
    Json,
    /// GitHub's workflow commands
    Github,
    /// file:line:column: error[K203]: text
    Short,
}

pub(crate) fn run(args: &Args) -> Exit {
    match check(args) {
        Ok(exit) => exit,
        Err(what) => {
            err!("kiln: {what}");
            Exit::CouldNot
        }
    }
}

fn check(args: &Args) -> Result<Exit, String> {
    let mut report = Report { style: style(args), errors: 0, warnings: 0 };
    let mut sites = Vec::new();
    let mut folders = Vec::new();
    for path in &args.paths {
        let site = path.join(site_file::DEFAULT);
        if path.is_dir() && site.is_file() {
            sites.push(site);
        } else if !path.exists() {
            return Err(format!("there is no file or folder {}", path.display()));
        } else if path.is_dir() || is_route_file(path)? {
            folders.push(path.clone());
        } else {
            sites.push(path.clone());
        }
    }
    if args.paths.is_empty() {
        if Path::new(site_file::DEFAULT).is_file() {
            sites.push(site_file::DEFAULT.into());
        } else if Path::new("routes").is_dir() {
            folders.push("routes".into());
        }
    }
    if sites.is_empty() {
        let found = crate::site::read_folders(&folders).map_err(|e| words(&e))?;
        if found.is_empty() {
            let looked = if folders.is_empty() { "here".to_owned() } else { folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ") };
            return Err(format!("there was nothing to check: no {} and no route file in {looked}", site_file::DEFAULT));
        }
    }
    if args.fix {
        let machine = args.json || args.format != Format::Human;
        let changes = check_fix::fix(&sites, &folders, args.dry_run, machine && !args.dry_run)?;
        if args.dry_run {
            return Ok(if changes { Exit::Found } else { Exit::Done });
        }
    }
    let mut counted = Counted::default();
    for path in &sites {
        let loaded = site_file::read(path, Vec::new(), false).map_err(|e| format!("{}: {}", path.display(), words(&e)))?;
        report.add(&loaded.sources, &loaded.diagnostics);
        let (mut all, options) = match &loaded.site {
            Some(site) => (site.folders.clone(), daemon::load_options(site)),
            // Its routes are looked at all the same; which listeners and targets there are is not known then.
            None => (vec![path.with_file_name("routes")], LoadOptions::default()),
        };
        all.extend(folders.iter().cloned());
        let (set, own) = routes(&mut report, &all, &options)?;
        counted.add(own);
        if let (true, Some(site), Some(set)) = (args.online, &loaded.site, set) {
            report.add(&loaded.sources, &online(site, &set)?);
        }
        if let Some(site) = loaded.site.as_ref().filter(|_| report.errors == 0) {
            report.ask_the_daemon(&site.journal.path);
        }
    }
    if sites.is_empty() && args.online {
        return Err("--online asks the targets of a site file, and there is none".to_owned());
    }
    if sites.is_empty() {
        counted.add(routes(&mut report, &folders, &LoadOptions::default())?.1);
    }
    report.end(counted, args);
    Ok(if report.errors > 0 { Exit::Found } else { Exit::Done })
}

/// The routes, if they are without errors, and how many there are.
fn routes(report: &mut Report, folders: &[PathBuf], options: &LoadOptions) -> Result<(Option<Arc<RouteSet>>, Counted), String> {
    let (loaded, counted) = route_set::load_folders(folders, options).map_err(|e| e.to_string())?;
    report.add(&loaded.sources, &loaded.diagnostics);
    Ok((loaded.set, counted))
}

fn online(site: &Site, set: &RouteSet) -> Result<Vec<Diagnostic>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| words(&e))?;
    Ok(runtime.block_on(servers::ask(site, set)))
}

/// A route file begins with one of the words that say what a document is.
fn is_route_file(path: &Path) -> Result<bool, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {}", path.display(), words(&e)))?;
    let first = text.lines().map(str::trim_end).find(|l| !l.is_empty() && !l.starts_with('#') && *l != "---").unwrap_or("");
    let key = first.split(':').next().unwrap_or("");
    Ok(matches!(key, "map" | "route" | "table" | "systems" | "segment" | "datatype" | "extend"))
}

fn style(args: &Args) -> Style {
    match (args.json, args.format) {
        (true, _) | (_, Format::Json) => Style::Json,
        (_, Format::Github) => Style::Github,
        (_, Format::Short) => Style::Short,
        (_, Format::Human) => Style::Human { color: anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never },
    }
}

struct Report {
    style: Style,
    errors: u64,
    warnings: u64,
}

impl Report {
    fn add(&mut self, sources: &Sources, diagnostics: &[Diagnostic]) {
        let text = render(sources, diagnostics, self.style);
        if !text.is_empty() {
            out!("{}", text.trim_end_matches('\n'));
        }
        let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count() as u64;
        self.errors += errors;
        self.warnings += diagnostics.len() as u64 - errors;
    }

    /// What no file shows, such as a port that is taken or deliveries that wait for a route that is gone, the daemon on this site knows.
    fn ask_the_daemon(&mut self, journal: &Path) {
        if let Some(why) = control::last_refusal(journal) {
            self.errors += 1;
            let told = format!("{} the daemon that runs on this site refused it as it was saved last:\n{why}", paint(BAD, "error:"));
            if matches!(self.style, Style::Human { .. }) { out!("{told}\n") } else { err!("{told}") }
        }
    }

    fn end(&self, counted: Counted, args: &Args) {
        if args.json || args.format != Format::Human {
            return;
        }
        let files = format!("{}, {}, {}", plural(counted.routes, "route"), plural(counted.maps, "map"), plural(counted.tables, "table"));
        let faults = match (self.errors, self.warnings) {
            (0, 0) => paint(GOOD, "no faults"),
            (0, w) => paint(WARN, &plural(w, "warning")),
            (e, 0) => paint(BAD, &plural(e, "fault")),
            (e, w) => format!("{}, {}", paint(BAD, &plural(e, "fault")), paint(WARN, &plural(w, "warning"))),
        };
        out!("{files}: {faults}");
    }
}

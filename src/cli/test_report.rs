//! The result of a test run: text for people, JSON lines, JUnit's XML and TAP 14.

use crate::cli::paint::{BAD, FAINT, GOOD, NAME, STRONG, WARN, out, paint, plain, plural};
use crate::cli::test_compare::Deviation;
use crate::cli::test_coverage::Coverage;
use crate::site::words;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// With colours, for people
    Text,
    /// One JSON object per fixture, and one with the counts
    Json,
    /// JUnit's XML
    Junit,
    /// Test Anything Protocol, version 14
    Tap,
}

/// How a fixture ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Passed,
    Failed,
    /// It has no expectation yet.
    New,
    /// Its expectation was written for the first time.
    Created,
    /// Its expectation was written anew.
    Updated,
    /// It could not be run.
    Error,
}

impl Status {
    const fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::New => "new",
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Error => "error",
        }
    }

    const fn is_well(self) -> bool {
        matches!(self, Self::Passed | Self::Created | Self::Updated)
    }
}

/// One fixture's result.
pub(crate) struct Outcome {
    /// The message's file.
    pub(crate) name: String,
    /// `note` of its expectation.
    pub(crate) note: String,
    pub(crate) status: Status,
    pub(crate) deviations: Vec<Deviation>,
    /// Why it could not be run.
    pub(crate) error: Option<String>,
    /// Sentences about routes that stopped.
    pub(crate) hints: Vec<String>,
    pub(crate) seconds: f64,
}

impl Outcome {
    pub(crate) fn new(name: String) -> Self {
        Self { name, note: String::new(), status: Status::Passed, deviations: Vec::new(), error: None, hints: Vec::new(), seconds: 0.0 }
    }

    /// Everything about it, a line each, without colours.
    fn lines(&self, most: usize) -> Vec<String> {
        let mut lines: Vec<String> = self.error.iter().map(|e| plain(e).into_owned()).collect();
        if self.status == Status::New {
            lines.push(NEW.to_owned());
        }
        lines.extend(self.deviations.iter().take(most).map(Deviation::text));
        lines.extend(rest(self.deviations.len(), most));
        if self.has_outcome() {
            lines.extend(self.hints.iter().map(|hint| plain(hint).into_owned()));
        }
        lines
    }

    /// True if it is about what a route came to, which the hints explain.
    fn has_outcome(&self) -> bool {
        self.deviations.iter().any(|d| d.place == "outcome")
    }
}

const NEW: &str = "nothing is expected of it yet: `kiln test --update` writes what it makes now";

fn rest(all: usize, most: usize) -> Option<String> {
    (all > most).then(|| format!("… and {}", plural((all - most) as u64, "further difference")))
}

/// All results.
pub(crate) struct Report {
    format: Format,
    /// Lines shown for each fixture.
    most: usize,
    verbose: bool,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) seconds: f64,
    /// What of the routes was tried, where it was asked for.
    pub(crate) coverage: Option<Coverage>,
}

impl Report {
    pub(crate) fn new(format: Format, lines: usize, verbose: bool) -> Self {
        Self { format, most: if lines == 0 { usize::MAX } else { lines }, verbose, outcomes: Vec::new(), seconds: 0.0, coverage: None }
    }

    pub(crate) fn extend(&mut self, outcome: Option<Outcome>) {
        self.outcomes.extend(outcome);
    }

    pub(crate) fn all_well(&self) -> bool {
        self.outcomes.iter().all(|o| o.status.is_well())
    }

    fn count(&self, status: Status) -> u64 {
        self.outcomes.iter().filter(|o| o.status == status).count() as u64
    }
}

/// Writes the report to the file or to standard output. With a file, standard output gets it as text.
pub(crate) fn show(report: &Report, output: Option<&Path>) -> Result<(), String> {
    let text = match report.format {
        Format::Text => text(report),
        Format::Json => jsonl(report),
        Format::Junit => junit(report),
        Format::Tap => tap(report),
    };
    match output {
        None => out!("{}", text.trim_end_matches('\n')),
        Some(file) => {
            let bare = anstream::adapter::strip_str(&text).to_string();
            std::fs::write(file, bare).map_err(|e| format!("{}: {}", file.display(), words(&e)))?;
            out!("{}", self::text(report).trim_end_matches('\n'));
        }
    }
    Ok(())
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for o in &report.outcomes {
        let (style, word) = match o.status {
            Status::Passed if report.verbose => (GOOD, "ok"),
            Status::Passed => continue,
            Status::Failed => (BAD, "FAILED"),
            Status::New => (WARN, "NEW"),
            Status::Created => (GOOD, "created"),
            Status::Updated => (WARN, "updated"),
            Status::Error => (BAD, "ERROR"),
        };
        let note = if o.note.is_empty() { String::new() } else { format!("  {}", paint(FAINT, &plain(&o.note))) };
        line(&mut text, format_args!("{} {}{note}", paint(style, word), paint(STRONG, &plain(&o.name))));
        if let Some(error) = &o.error {
            line(&mut text, format_args!("    {}", plain(error)));
        }
        if o.status == Status::New {
            line(&mut text, format_args!("    {NEW}"));
        }
        deviations(&mut text, o, report.most);
    }
    if !text.is_empty() {
        text.push('\n');
    }
    if let Some(coverage) = &report.coverage {
        text.push_str(&coverage.text());
        text.push('\n');
    }
    text.push_str(&summary(report));
    text.push('\n');
    text
}

/// Deviations under headings of route and resource.
fn deviations(text: &mut String, o: &Outcome, most: usize) {
    let (mut route, mut resource) = ("", "");
    for d in o.deviations.iter().take(most) {
        if d.route != route {
            (route, resource) = (&d.route, "");
            if !route.is_empty() {
                let word = if route.starts_with("message ") { "" } else { "route " };
                line(text, format_args!("    {word}{}", paint(NAME, &plain(route))));
            }
        }
        if d.resource != resource {
            resource = &d.resource;
            if !resource.is_empty() {
                line(text, format_args!("      {}", plain(resource)));
            }
        }
        let indent = if d.resource.is_empty() { if d.route.is_empty() { "    " } else { "      " } } else { "        " };
        line(text, format_args!("{indent}{}", d.line()));
    }
    if let Some(rest) = rest(o.deviations.len(), most) {
        line(text, format_args!("    {}", paint(FAINT, &format!("{rest}; --lines 0 shows all"))));
    }
    if o.has_outcome() {
        o.hints.iter().for_each(|hint| line(text, format_args!("    {}", paint(FAINT, &plain(hint)))));
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Text takes text.
    let _ = writeln!(text, "{line}");
}

fn summary(report: &Report) -> String {
    let mut parts = Vec::new();
    for (status, style, word) in [
        (Status::Passed, GOOD, "passed"),
        (Status::Failed, BAD, "failed"),
        (Status::Error, BAD, "could not be run"),
        (Status::New, WARN, "without an expectation"),
        (Status::Created, GOOD, "created"),
        (Status::Updated, WARN, "updated"),
    ] {
        let count = report.count(status);
        if count > 0 || status == Status::Passed {
            parts.push(paint(if count > 0 { style } else { FAINT }, &format!("{count} {word}")));
        }
    }
    format!("{}: {} in {:.2} s", plural(report.outcomes.len() as u64, "fixture"), parts.join(", "), report.seconds)
}

fn jsonl(report: &Report) -> String {
    let mut text = String::new();
    for o in &report.outcomes {
        let deviations: Vec<_> = o.deviations.iter().map(Deviation::json).collect();
        let row = json!({
            "fixture": o.name, "note": o.note, "status": o.status.word(), "seconds": o.seconds, "differences": deviations, "error": o.error, "stops": o.hints,
        });
        line(&mut text, format_args!("{row}"));
    }
    let counts = json!({
        "fixtures": report.outcomes.len(), "passed": report.count(Status::Passed), "failed": report.count(Status::Failed), "errors": report.count(Status::Error),
        "new": report.count(Status::New), "created": report.count(Status::Created), "updated": report.count(Status::Updated), "seconds": report.seconds,
    });
    report.coverage.iter().flat_map(Coverage::json).for_each(|row| line(&mut text, format_args!("{row}")));
    line(&mut text, format_args!("{counts}"));
    text
}

/// JUnit's XML as CI servers read it: a suite per folder, a case per fixture.
fn junit(report: &Report) -> String {
    let folder = |o: &Outcome| Path::new(&o.name).parent().map_or_else(String::new, |p| p.display().to_string());
    let totals = |outcomes: &[&Outcome]| {
        let of = |wanted: &[Status]| outcomes.iter().filter(|o| wanted.contains(&o.status)).count();
        format!(
            "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"0\" time=\"{:.3}\"",
            outcomes.len(),
            of(&[Status::Failed, Status::New]),
            of(&[Status::Error]),
            outcomes.iter().map(|o| o.seconds).sum::<f64>()
        )
    };
    let mut suites: Vec<(String, Vec<&Outcome>)> = Vec::new();
    for o in &report.outcomes {
        let name = folder(o);
        match suites.iter_mut().find(|(n, _)| *n == name) {
            Some((_, cases)) => cases.push(o),
            None => suites.push((name, vec![o])),
        }
    }
    let all: Vec<&Outcome> = report.outcomes.iter().collect();
    let mut text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"kiln test\" {}>\n", totals(&all));
    for (name, cases) in &suites {
        let name = if name.is_empty() { "." } else { name };
        line(&mut text, format_args!("  <testsuite name=\"{}\" {}>", xml(name), totals(cases)));
        for o in cases {
            let case = Path::new(&o.name).file_name().map_or_else(|| o.name.clone(), |n| n.to_string_lossy().into_owned());
            let open = format!("    <testcase name=\"{}\" classname=\"{}\" file=\"{}\" time=\"{:.3}\"", xml(&case), xml(name), xml(&o.name), o.seconds);
            let element = match o.status {
                Status::Failed | Status::New => "failure",
                Status::Error => "error",
                Status::Passed | Status::Created | Status::Updated => {
                    line(&mut text, format_args!("{open}/>"));
                    continue;
                }
            };
            let lines = o.lines(report.most);
            let first = lines.first().map_or("", String::as_str);
            line(&mut text, format_args!("{open}>"));
            line(&mut text, format_args!("      <{element} message=\"{}\" type=\"{}\">{}</{element}>", xml(first), o.status.word(), xml(&lines.join("\n"))));
            line(&mut text, format_args!("    </testcase>"));
        }
        line(&mut text, format_args!("  </testsuite>"));
    }
    text.push_str("</testsuites>\n");
    text
}

/// Text in XML, in elements and attributes. XML 1.0 has no way to say most control characters (section 2.2): they become U+FFFD.
fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' => safe.push(c),
            '\u{0}'..='\u{1f}' | '\u{7f}' | '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// TAP 14 (<https://testanything.org/tap-version-14-specification.html>): what went wrong stands in a block of YAML.
fn tap(report: &Report) -> String {
    let mut text = format!("TAP version 14\n1..{}\n", report.outcomes.len());
    for (n, o) in report.outcomes.iter().enumerate() {
        let ok = if o.status.is_well() { "ok" } else { "not ok" };
        // `#` begins a directive, and `\` says that it does not.
        let name = plain(&o.name).replace('\\', "\\\\").replace('#', "\\#");
        line(&mut text, format_args!("{ok} {} - {name}", n + 1));
        if !o.status.is_well() {
            line(&mut text, format_args!("  ---"));
            line(&mut text, format_args!("  status: {}", o.status.word()));
            line(&mut text, format_args!("  differences:"));
            // A JSON string is a YAML string.
            o.lines(report.most).iter().for_each(|l| line(&mut text, format_args!("    - {}", json!(l))));
            line(&mut text, format_args!("  ..."));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_holds_whatever_a_message_holds() {
        assert_eq!(xml("a<b>&\"c\"\u{1b}[2J\u{0}"), "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}[2J\u{fffd}");
    }
}

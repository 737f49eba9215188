//! Which lines and conditions of the routes the fixtures tried, and which they never did.

use crate::cli::paint::{BAD, FAINT, GOOD, NAME, STRONG, WARN, paint, plain};
use crate::cli::test_run::{Arrival, Ran};
use crate::route::{RouteSet, Spot, Survey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Which files are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Files {
    /// The site's own files; the shipped ones if it has none
    Own,
    /// Shipped ones, too
    All,
}

/// What the fixtures did to every line and condition.
#[derive(Default)]
pub(crate) struct Coverage {
    lines: BTreeMap<Spot, Line>,
    conditions: BTreeMap<Spot, Condition>,
}

struct Line {
    map: String,
    element: String,
    ran: u64,
    made: u64,
}

struct Condition {
    map: String,
    text: String,
    held: u64,
    failed: u64,
}

/// Covered and all: lines that ran, lines that made something, branches that were taken.
#[derive(Clone, Copy, Default)]
struct Totals {
    lines: u64,
    ran: u64,
    made: u64,
    branches: u64,
    taken: u64,
}

impl Coverage {
    /// Adds everything that a route set can run.
    pub(crate) fn expect(&mut self, set: &RouteSet) {
        let Survey { lines, conditions } = set.survey_all();
        for l in lines {
            self.lines.entry(l.at).or_insert(Line { map: l.map.to_string(), element: l.element, ran: 0, made: 0 });
        }
        for c in conditions {
            self.conditions.entry(c.at).or_insert(Condition { map: c.map.to_string(), text: c.text, held: 0, failed: 0 });
        }
    }

    /// Runs the message's routes once more, and notes what they did.
    pub(crate) fn add(&mut self, ran: &Ran, arrival: &Arrival, set: &RouteSet) {
        let Some(message) = &ran.message else { return };
        for ((route, _), found) in ran.routes.iter().zip(&ran.found) {
            let lineage = set.lineage(*route, message.expose(), &arrival.context(found));
            for line in lineage.lines {
                if let Some(known) = self.lines.get_mut(&line.at) {
                    known.ran += line.ran;
                    known.made += line.made;
                }
            }
            for condition in lineage.conditions {
                if let Some(known) = self.conditions.get_mut(&condition.at) {
                    known.held += condition.held;
                    known.failed += condition.failed;
                }
            }
        }
    }

    /// Leaves out what is not asked for.
    pub(crate) fn only(mut self, files: Files) -> Self {
        let own = |at: &Spot| !at.file().starts_with("shipped/");
        if files == Files::Own && self.lines.keys().chain(self.conditions.keys()).any(own) {
            self.lines.retain(|at, _| own(at));
            self.conditions.retain(|at, _| own(at));
        }
        self
    }

    /// Lines that made something and branches that were taken, of all that there are, in percent; a set without any is covered.
    pub(crate) fn percent(&self) -> f64 {
        let t = self.totals(|_, _| true);
        share(t.made + t.taken, t.lines + t.branches)
    }

    fn totals(&self, of: impl Fn(&Spot, &str) -> bool) -> Totals {
        let mut t = Totals::default();
        for (_, l) in self.lines.iter().filter(|(at, l)| of(at, &l.map)) {
            t.lines += 1;
            t.ran += u64::from(l.ran > 0);
            t.made += u64::from(l.made > 0);
        }
        for (_, c) in self.conditions.iter().filter(|(at, c)| of(at, &c.map)) {
            t.branches += 2;
            t.taken += u64::from(c.held > 0) + u64::from(c.failed > 0);
        }
        t
    }

    /// What was never tried, by file and map.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", paint(STRONG, "Coverage"));
        // Text takes text.
        for (file, map) in self.maps() {
            let t = self.totals(|at, of| at.file() == file && of == map);
            let style = if t.made == t.lines && t.taken == t.branches { GOOD } else { WARN };
            let _ = writeln!(text, "  {}  {}  {}", paint(NAME, &plain(&file)), plain(&map), paint(style, &told(t)));
            for (at, what) in self.gaps(&file, &map) {
                let _ = writeln!(text, "    {}  {}", paint(FAINT, &plain(&at.line)), what);
            }
        }
        let _ = writeln!(text, "  {}: {}", paint(STRONG, "in all"), told(self.totals(|_, _| true)));
        text
    }

    /// Files and the maps in them, in the order of lines.
    fn maps(&self) -> Vec<(String, String)> {
        let mut places: Vec<(&Spot, &String)> =
            self.lines.iter().map(|(at, l)| (at, &l.map)).chain(self.conditions.iter().map(|(at, c)| (at, &c.map))).collect();
        places.sort_by_key(|(at, _)| (at.file(), at.line_number(), at.column));
        let mut maps: Vec<(String, String)> = Vec::new();
        for (at, map) in places {
            let one = (at.file().to_owned(), map.clone());
            if !maps.contains(&one) {
                maps.push(one);
            }
        }
        maps
    }

    fn gaps(&self, file: &str, map: &str) -> Vec<(&Spot, String)> {
        let mut gaps = Vec::new();
        for (at, l) in self.lines.iter().filter(|(at, l)| at.file() == file && l.map == map) {
            match (l.ran, l.made) {
                (0, _) => gaps.push((at, format!("{} {}", plain(&l.element), paint(BAD, "never ran")))),
                (_, 0) => gaps.push((at, format!("{} {}", plain(&l.element), paint(WARN, "ran and never made anything")))),
                _ => {}
            }
        }
        for (at, c) in self.conditions.iter().filter(|(at, c)| at.file() == file && c.map == map) {
            let what = match (c.held, c.failed) {
                (0, 0) => paint(BAD, "was never asked"),
                (0, _) => paint(WARN, "never held"),
                (_, 0) => paint(WARN, "always held"),
                _ => continue,
            };
            gaps.push((at, format!("`{}` {what}", plain(&c.text))));
        }
        gaps.sort_by_key(|(at, _)| (at.line_number(), at.column));
        // Several of one name in one line.
        gaps.dedup_by(|(a, what), (b, same)| a.line == b.line && what == same);
        gaps
    }

    /// A row a file and map, and one with the totals.
    pub(crate) fn json(&self) -> Vec<Value> {
        let figures = |t: Totals| {
            json!({ "lines": t.lines, "linesRan": t.ran, "linesMade": t.made, "branches": t.branches, "branchesTaken": t.taken,
                "percent": rounded(share(t.made + t.taken, t.lines + t.branches)) })
        };
        let mut rows = Vec::new();
        for (file, map) in self.maps() {
            let gaps: Vec<_> = self
                .gaps(&file, &map)
                .into_iter()
                .map(|(at, what)| json!({ "line": at.line_number(), "column": at.column, "what": anstream::adapter::strip_str(&what).to_string() }))
                .collect();
            let totals = figures(self.totals(|at, of| at.file() == file && of == map));
            rows.push(json!({ "coverage": { "file": file, "map": map, "totals": totals, "gaps": gaps } }));
        }
        rows.push(json!({ "coverage": { "totals": figures(self.totals(|_, _| true)) } }));
        rows
    }

    /// The trace file of lcov (geninfo(1)): a line counts as often as it made something, and a condition has two branches.
    pub(crate) fn lcov(&self) -> String {
        let mut files: BTreeMap<&str, (BTreeMap<usize, u64>, Vec<(usize, u64, u64)>)> = BTreeMap::new();
        for (at, l) in &self.lines {
            // Several elements may stand in one line; one that never made anything keeps it uncovered.
            let lines = &mut files.entry(at.file()).or_default().0;
            lines.entry(at.line_number()).and_modify(|n| *n = (*n).min(l.made)).or_insert(l.made);
        }
        for (at, c) in &self.conditions {
            files.entry(at.file()).or_default().1.push((at.line_number(), c.held, c.failed));
        }
        let mut text = String::new();
        for (file, (lines, conditions)) in files {
            let _ = writeln!(text, "TN:\nSF:{file}");
            for (block, (line, held, failed)) in conditions.iter().enumerate() {
                for (branch, count) in [held, failed].into_iter().enumerate() {
                    // A dash: the condition was never asked.
                    let count = if held + failed == 0 { "-".to_owned() } else { count.to_string() };
                    let _ = writeln!(text, "BRDA:{line},{block},{branch},{count}");
                }
            }
            let taken = conditions.iter().flat_map(|(_, held, failed)| [held, failed]).filter(|n| **n > 0).count();
            let _ = writeln!(text, "BRF:{}\nBRH:{taken}", conditions.len() * 2);
            for (line, made) in &lines {
                let _ = writeln!(text, "DA:{line},{made}");
            }
            let _ = writeln!(text, "LF:{}\nLH:{}\nend_of_record", lines.len(), lines.values().filter(|n| **n > 0).count());
        }
        text
    }
}

fn told(t: Totals) -> String {
    let lines = format!("{} of {} lines made something ({:.0} %), {} ran ({:.0} %)", t.made, t.lines, share(t.made, t.lines), t.ran, share(t.ran, t.lines));
    let branches = format!("{} of {} branches ({:.0} %)", t.taken, t.branches, share(t.taken, t.branches));
    match (t.lines, t.branches) {
        (0, _) => branches,
        (_, 0) => lines,
        _ => format!("{lines}; {branches}"),
    }
}

/// In percent, rounded down: 100 means all.
fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 100.0 } else { (part as f64 * 100.0 / all as f64).floor() }
}

fn rounded(percent: f64) -> u64 {
    percent as u64
}

//! `kiln coverage --guide`: how much of HL7's v2-to-FHIR guide the routes do.

use crate::cli::Exit;
use crate::cli::paint::{FAINT, NAME, STRONG, WARN, count, out, paint, plain, table};
use crate::route::{GuideCoverage, GuideRow, RouteSet, Sheets, Verdict};
use serde_json::json;
use std::collections::BTreeMap;

/// Rows by what became of them.
#[derive(Clone, Copy, Default)]
struct Totals {
    rows: u64,
    done: u64,
    reasons: u64,
    missing: u64,
}

impl Totals {
    fn add(&mut self, verdict: &Verdict) {
        let counter = match verdict {
            Verdict::Done(_) => &mut self.done,
            Verdict::Reason(_) => &mut self.reasons,
            Verdict::Missing => &mut self.missing,
            Verdict::NoSource => return,
        };
        *counter += 1;
        self.rows += 1;
    }

    fn json(self) -> serde_json::Value {
        json!({ "rows": self.rows, "done": self.done, "reasons": self.reasons, "missing": self.missing, "percent": self.percent() })
    }

    /// Done, of all, with one digit; rounded down, so that 100 means all.
    fn percent(self) -> f64 {
        if self.rows == 0 { 100.0 } else { (self.done as f64 * 1000.0 / self.rows as f64).floor() / 10.0 }
    }
}

/// Prints it; `top` sheets with missing rows at most, 0 for all. Found something: rows are missing, or a reason is not needed.
pub(crate) fn run(set: &RouteSet, as_json: bool, top: usize) -> Exit {
    let coverage = set.guide_coverage();
    let mut by: BTreeMap<Sheets, Totals> = BTreeMap::new();
    let mut all = Totals::default();
    for (row, verdict) in &coverage.rows {
        by.entry(row.kind).or_default().add(verdict);
        all.add(verdict);
    }
    if as_json {
        out!("{}", json_of(&coverage, &by, all));
    } else {
        text(&coverage, &by, all, top);
    }
    if all.missing > 0 || !coverage.unused.is_empty() { Exit::Found } else { Exit::Done }
}

fn text(coverage: &GuideCoverage, by: &BTreeMap<Sheets, Totals>, all: Totals, top: usize) {
    let line = |name: &str, t: Totals| vec![name.to_owned(), count(t.rows), count(t.done), count(t.reasons), count(t.missing), format!("{:.1} %", t.percent())];
    let mut cells: Vec<Vec<String>> = by.iter().map(|(kind, t)| line(kind.name(), *t)).collect();
    cells.push(line("in all", all));
    out!("{}", paint(STRONG, "Rows of HL7's v2-to-FHIR guide that name a FHIR target"));
    table(&["sheets", "rows", "done", "with a reason", "missing", "done"], &[false, true, true, true, true, true], &cells);
    let beside = coverage.rows.iter().filter(|(_, v)| *v == Verdict::NoSource).count();
    out!("{}", paint(FAINT, &format!("{} rows name a code of FHIR and none of v2; they are not counted", count(beside as u64))));
    let mut sheets: Vec<(Sheets, &str, u64, Vec<&GuideRow>)> = Vec::new();
    for (row, verdict) in &coverage.rows {
        match sheets.iter_mut().find(|s| s.0 == row.kind && s.1 == row.sheet) {
            Some(known) => known.2 += u64::from(*verdict != Verdict::NoSource),
            None => sheets.push((row.kind, row.sheet, u64::from(*verdict != Verdict::NoSource), Vec::new())),
        }
        if *verdict == Verdict::Missing
            && let Some(known) = sheets.iter_mut().find(|s| s.0 == row.kind && s.1 == row.sheet)
        {
            known.3.push(row);
        }
    }
    sheets.retain(|s| !s.3.is_empty());
    sheets.sort_by_key(|s| std::cmp::Reverse(s.3.len()));
    let shown = if top == 0 { sheets.len() } else { top.min(sheets.len()) };
    if shown > 0 {
        out!("");
        let cells: Vec<Vec<String>> =
            sheets.iter().take(shown).map(|s| vec![paint(NAME, &plain(s.1)), s.0.name().to_owned(), count(s.3.len() as u64), count(s.2)]).collect();
        table(&["sheet", "kind", "missing", "rows"], &[false, false, true, true], &cells);
    }
    if shown < sheets.len() {
        out!("{}", paint(FAINT, &format!("{} more; --top 0 shows all, --json the rows", sheets.len() - shown)));
    }
    for pattern in &coverage.unused {
        out!("{}", paint(WARN, &format!("no row needs the reason of {}", plain(pattern))));
    }
}

fn json_of(coverage: &GuideCoverage, by: &BTreeMap<Sheets, Totals>, all: Totals) -> serde_json::Value {
    let rows: Vec<_> = coverage
        .rows
        .iter()
        .map(|(row, verdict)| {
            let (state, line, reason) = match verdict {
                Verdict::Done(proof) => ("done", Some(&proof.line), None),
                Verdict::Reason(text) => ("reason", None, Some(text)),
                Verdict::Missing => ("missing", None, None),
                Verdict::NoSource => ("no-source", None, None),
            };
            json!({ "kind": row.kind.name(), "sheet": row.sheet, "row": row.number, "source": row.source, "condition": row.condition, "target": row.target,
                "state": state, "line": line, "reason": reason })
        })
        .collect();
    let kinds: serde_json::Map<_, _> = by.iter().map(|(kind, t)| (kind.name().to_owned(), t.json())).collect();
    json!({ "total": all.json(), "kinds": kinds, "unusedReasons": coverage.unused, "rows": rows })
}

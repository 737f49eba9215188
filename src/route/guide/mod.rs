//! The proof of coverage: each row of HL7's v2-to-FHIR guide that names a FHIR target, and the compiled line that does it, or why none does.
//!
//! A row is done where a line writes that element from that field. Conditions are not compared: the guide has them as text.

mod at;
mod facts;
mod judge;
mod reader;
mod reasons;
mod rows;
mod target;

pub use judge::Proof;
pub use rows::{GuideRow, Sheets};

use crate::route::guide::judge::Judge;
use crate::route::guide::reasons::Reasons;
use crate::route::program::RouteSet;

/// The shipped overlays that follow rows which the guide leaves to the site; a site switches them on one by one.
pub const GUIDE_OVERLAYS: [&str; 5] = ["provenance", "encounter-history", "immunization-orders", "person-vip", "business-event"];

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This line does it.
    Done(Proof),
    /// It is not followed, for this reason.
    Reason(String),
    /// Neither.
    Missing,
    /// A code of FHIR beside which the guide names none of v2: there is nothing to map.
    NoSource,
}

/// The guide against a route set.
pub struct GuideCoverage {
    /// All rows with their verdicts, in the order of the sheets.
    pub rows: Vec<(GuideRow, Verdict)>,
    /// Reasons and readings that no row needs.
    pub unused: Vec<String>,
}

impl RouteSet {
    /// What of the guide the routes do. Rows are read as `docs/guide-reasons.yaml` says.
    pub fn guide_coverage(&self) -> GuideCoverage {
        let mut reasons = Reasons::read(include_str!("../../../docs/guide-reasons.yaml"));
        let mut judge = Judge::new(self);
        let mut rows = Vec::new();
        for row in rows::rows() {
            if row.kind == Sheets::Codes && row.source.is_empty() {
                rows.push((row, Verdict::NoSource));
                continue;
            }
            let name = row.name();
            let read = reasons.reads.iter_mut().find(|e| e.fits(&name)).map(|e| {
                e.used = true;
                e.text.as_str()
            });
            let carried =
                reasons.carried.iter_mut().filter(|e| row.kind == Sheets::Codes && row.source == row.target && e.pattern == row.sheet).find_map(|e| {
                    e.used = true;
                    let line = rows.iter().find_map(|(r, v): &(GuideRow, Verdict)| match v {
                        Verdict::Done(proof) if r.name().starts_with(&e.text) => Some(proof.line.clone()),
                        _ => None,
                    })?;
                    Some(Proof { line, how: "the code as sent" })
                });
            let verdict = match carried.or_else(|| judge.row(&row, read)) {
                Some(proof) => Verdict::Done(proof),
                None => match reasons.reasons.iter_mut().find(|e| e.fits(&name)) {
                    Some(entry) => {
                        entry.used = true;
                        Verdict::Reason(entry.text.clone())
                    }
                    None => Verdict::Missing,
                },
            };
            rows.push((row, verdict));
        }
        let entries = reasons.reads.iter().chain(&reasons.carried).chain(&reasons.reasons);
        let unused = entries.filter(|e| !e.used).map(|e| e.pattern.clone()).collect();
        GuideCoverage { rows, unused }
    }
}

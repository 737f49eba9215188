//! Why a value went nowhere: the lines that read it and made nothing, the lines that did not run, or that there is none.

use crate::cli::explain_subject::Run;
use crate::hl7v2::Address;
use crate::route::{CodeLine, Spot, Step, Survey, Use, ValueUse};

/// A reason, and where it stands.
pub(crate) struct Why {
    /// A sentence without the message's content.
    pub text: String,
    /// The line that it is about.
    pub at: Option<Spot>,
    /// What happened there.
    pub steps: Vec<Step>,
}

impl Why {
    fn new(text: String, at: Option<&Spot>) -> Self {
        Self { text, at: at.cloned(), steps: Vec::new() }
    }
}

/// All reasons, the most telling first.
pub(crate) fn why(run: &Run, survey: &Survey, value: &ValueUse) -> Vec<Why> {
    let mut found = Vec::new();
    let lineage = &run.lineage;
    let route = &lineage.route;
    if value.used == Use::Dropped {
        // The line that takes the least: of a field, not of the whole segment.
        let holding = lineage.dropped.iter().filter(|d| d.part.start <= value.part.start && value.part.end <= d.part.end);
        if let Some(dropped) = holding.min_by_key(|d| d.part.end - d.part.start) {
            return vec![Why::new(format!("{} takes it away", dropped.map), Some(&dropped.at))];
        }
    }
    for f in lineage.findings.iter().filter(|f| about(&f.place, &value.place)) {
        found.push(Why::new(format!("{}: {}", f.kind, f.text), spot_of(run, &f.line).as_ref()));
    }
    if let Some(stop) = lineage.stop.as_ref().filter(|s| s.places.iter().any(|p| about(p, &value.place))) {
        found.push(Why::new(format!("the run stopped here: {}: {}", stop.kind, stop.text), spot_of(run, &stop.line).as_ref()));
    }
    let purpose = if value.used == Use::Deletes { Use::Condition } else { value.used };
    for line in lineage.lines.iter().filter(|l| l.read.iter().any(|(place, how)| *how == purpose && place.touches(&value.place))) {
        let told = found.iter().any(|w: &Why| w.at.as_ref().is_some_and(|at| at.line == line.at.line));
        if told || matches!(value.used, Use::Unread | Use::Identity) {
            continue;
        }
        let text = match (line.made, value.used) {
            (0, Use::Condition) => format!("{} looks at it in a condition, and made nothing", line.map),
            (0, _) => format!("{} reads it, and made nothing of it", line.map),
            (_, Use::Condition) => format!("{} looks at it in a condition only", line.map),
            _ => format!("{} reads it, and took something else", line.map),
        };
        found.push(Why { text, at: Some(line.at.clone()), steps: line.without.clone() });
    }
    if !found.is_empty() {
        return found;
    }
    match value.used {
        Use::Condition => {
            if lineage.order_by.iter().filter_map(|p| place_of(p)).any(|p| p.touches(&value.place.anywhere())) {
                found.push(Why::new("the route's `order-by` keeps its messages in order by it".to_owned(), None));
            }
            for condition in lineage.conditions.iter().filter(|c| names(&c.text, &value.place)) {
                let truth = if condition.held > 0 { "holds" } else { "does not hold" };
                found.push(Why::new(format!("only the condition `{}` looks at it; it {truth}", condition.text), Some(&condition.at)));
            }
            if found.is_empty() {
                found.push(Why::new("it was looked at, and nothing was made of it".to_owned(), None));
            }
        }
        Use::Identity => found.push(Why::new("it is part of the identity of a resource, and in no element".to_owned(), None)),
        _ => {
            let field = value.place.of_field();
            let reading: Vec<&CodeLine> =
                survey.lines.iter().filter(|l| l.places.iter().filter_map(|p| place_of(p)).any(|place| place.touches(&value.place.anywhere()))).collect();
            for line in &reading {
                match lineage.lines.iter().find(|l| l.at == line.at) {
                    Some(ran) if ran.made == 0 => {
                        found.push(Why {
                            text: format!("the line of {} ran, and did not take it", line.map),
                            at: Some(line.at.clone()),
                            steps: ran.without.clone(),
                        });
                    }
                    Some(_) => {}
                    None => found.extend(not_run(run, survey, line)),
                }
            }
            if found.is_empty() && !reading.is_empty() {
                let at = reading.first().map(|l| &l.at);
                let what = if value.place.component.is_some() { format!("no line reads this part of {field}") } else { format!("{field} was not read") };
                found.push(Why::new(format!("{what}; {field} itself is read"), at));
            }
            if found.is_empty() {
                let segment = survey.lines.iter().flat_map(|l| &l.places).filter_map(|p| place_of(p)).any(|p| p.segment == value.place.segment);
                let what = if segment {
                    format!("no line of route {route} reads {field}")
                } else {
                    format!("no line of route {route} reads the segment {}", field.segment)
                };
                found.push(Why::new(what, None));
            }
        }
    }
    found
}

/// Why a line that reads the value did not run, if it did not.
pub(crate) fn not_run(run: &Run, survey: &Survey, line: &CodeLine) -> Option<Why> {
    let lineage = &run.lineage;
    if lineage.lines.iter().any(|l| l.at == line.at) {
        return None;
    }
    for at in &line.under {
        if let Some(condition) = lineage.conditions.iter().find(|c| c.at == *at && c.held == 0) {
            let text = format!("{} would read it, but the condition `{}` does not hold", line.map, condition.text);
            return Some(Why { steps: Vec::new(), text, at: Some(at.clone()) });
        }
    }
    let of_map = |l: &crate::route::LineUse| l.map == line.map;
    let text = if lineage.lines.iter().any(of_map) {
        match line.under.last().and_then(|at| survey.conditions.iter().find(|c| c.at == *at)) {
            Some(condition) => format!("{} would read it, but the line stands under `{}`, which was not asked", line.map, condition.text),
            None => format!("{} would read it, but the line did not run: what it repeats over is empty, or an earlier alternative held", line.map),
        }
    } else {
        format!("{} would read it, but that map had nothing to run on", line.map)
    };
    Some(Why { text, at: Some(line.at.clone()), steps: Vec::new() })
}

/// `PID-11 (XAD.12)` is PID-11; several are divided by commas.
fn about(places: &str, place: &Address) -> bool {
    places.split(", ").filter_map(place_of).any(|p| p.touches(&place.anywhere()))
}

/// A place as a route file writes it: anchors and `[last]` say nothing about which field it is.
pub(crate) fn place_of(written: &str) -> Option<Address> {
    let written = written.split(' ').next()?.replace("[last]", "");
    let (segment, rest) = written.split_once('-')?;
    let segment = segment.rsplit('.').next()?;
    Address::read(&format!("{segment}-{rest}")).map(|a| a.anywhere())
}

/// Does a condition name the field?
fn names(condition: &str, place: &Address) -> bool {
    let words = condition.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '[' | ']')));
    words.filter_map(place_of).any(|p| p.touches(&place.anywhere()))
}

/// `routes/adt.yaml:12` as a place.
fn spot_of(run: &Run, line: &str) -> Option<Spot> {
    let known = run.lineage.lines.iter().find(|l| *l.at.line == *line).map(|l| l.at.clone());
    known.or_else(|| (!line.is_empty()).then(|| Spot { line: std::sync::Arc::from(line), column: 1 }))
}

//! Whether a compiled line does what a row of the guide says.

use crate::fhir;
use crate::hl7v2::{self, Version};
use crate::route::code::table_system;
use crate::route::code::{Code, On, Table};
use crate::route::guide::at::At;
use crate::route::guide::facts::{Fact, Facts};
use crate::route::guide::reader::segment;
use crate::route::guide::rows::{GuideRow, Sheets};
use crate::route::guide::target::{Wanted, wanted};
use crate::route::program::{RouteId, RouteSet};
use std::collections::{BTreeSet, HashMap};

/// Where a row is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// `shipped/routes/segments/pid-patient.yaml:7`.
    pub line: String,
    /// A few words about what does it, where the line alone does not tell.
    pub how: &'static str,
}

pub(crate) struct Judge<'s> {
    set: &'s RouteSet,
    facts: Facts,
    /// Facts by each v2 place that they take their content from, by all that it lies in, and by the places within the types on the way.
    values: HashMap<String, Vec<usize>>,
    /// The same for what they hang on.
    asked: HashMap<String, Vec<usize>>,
    /// Of the sheet at hand: the URL behind `extension[1]`.
    urls: HashMap<String, String>,
    sheet: (Sheets, &'static str),
    routes: Vec<RouteId>,
}

impl<'s> Judge<'s> {
    pub(crate) fn new(set: &'s RouteSet) -> Self {
        let facts = Facts::of(set);
        let (mut values, mut asked) = (HashMap::new(), HashMap::new());
        let mut known: HashMap<String, Vec<String>> = HashMap::new();
        for (n, fact) in facts.list.iter().enumerate() {
            index(&mut values, &fact.places, n, &mut known);
            index(&mut asked, &fact.asked, n, &mut known);
        }
        Self { set, facts, values, asked, urls: HashMap::new(), sheet: (Sheets::Messages, ""), routes: Vec::new() }
    }

    /// The line that does it; rows come in the order of their sheets. `read` is how to read the row's target, where that is misspelt.
    pub(crate) fn row(&mut self, row: &GuideRow, read: Option<&str>) -> Option<Proof> {
        if self.sheet != (row.kind, row.sheet) {
            self.sheet = (row.kind, row.sheet);
            self.urls.clear();
            if row.kind == Sheets::Messages {
                self.routes = self.routes_of(row.sheet);
            }
        }
        match row.kind {
            Sheets::Codes => self.code(row),
            Sheets::Messages => self.message(row, read),
            Sheets::Segments | Sheets::Datatypes => self.element(row, read),
        }
    }

    fn element(&mut self, row: &GuideRow, read: Option<&str>) -> Option<Proof> {
        let (source_type, target_type) = row.sheet.split_once('[')?;
        let base = target_type.trim_end_matches(']').split('-').next()?;
        let text = read.unwrap_or(row.target);
        let mut wanted = wanted(base, text, row.assigned, &mut self.urls);
        // What a whole segment becomes may hang on its being there.
        wanted.iter_mut().for_each(|w| w.hangs |= row.kind == Sheets::Segments && !row.source.contains('-'));
        let source = match (row.kind, row.source) {
            (_, "") => source_type.to_owned(),
            (Sheets::Datatypes, s) => s.replace('-', "."),
            (_, s) => s.trim().to_owned(),
        };
        let whole = source.split(['-', '.']).next().unwrap_or(&source).to_owned();
        wanted.iter().find_map(|w| {
            let direct = self.find(w, &source, &whole, row.kind);
            direct.or_else(|| (row.kind == Sheets::Segments).then(|| self.find_behind(w, &source, &whole)).flatten())
        })
    }

    fn find(&self, wanted: &Wanted, source: &str, whole: &str, kind: Sheets) -> Option<Proof> {
        let list = |index: &HashMap<String, Vec<usize>>, key: &str| index.get(key).cloned().unwrap_or_default();
        let of = |n: &usize| self.facts.list.get(*n);
        // What a map does by itself tells the line of that map.
        let mine = |f: &&Fact| kind == Sheets::Segments && f.route.is_some() || kind == Sheets::Datatypes;
        // A type's sheet for a resource is about the map between the two; one for a part of a value, about a map of the whole.
        let of_type = |f: &Fact| f.source.as_deref().is_some_and(|s| names(s).contains(&whole));
        let resource = fhir::type_named(wanted.at.root).is_some_and(|t| t.kind() == fhir::Kind::Resource);
        let part = wanted.at.steps.is_empty() && source.contains('.') && !source.ends_with(".1");
        let right = |f: &Fact| match kind {
            Sheets::Datatypes if resource => of_type(f) || f.route.is_some() && f.at.types.contains(&wanted.at.root),
            Sheets::Datatypes if part => f.whole || of_type(f) && f.at.steps.is_empty(),
            Sheets::Segments => !wanted.at.steps.is_empty(),
            _ => true,
        };
        let fits = |f: &&Fact| matches(&f.at, &wanted.at, kind) && mine(f) && right(f);
        let best = |found: Vec<&Fact>| found.into_iter().min_by_key(|f| (f.route.is_some() == (kind == Sheets::Datatypes), f.at.steps.len())).map(proof);
        if let Some(constant) = &wanted.constant {
            let same = |f: &&Fact| f.constant.as_deref().is_some_and(|c| c.trim_end_matches('/') == constant.trim_end_matches('/'));
            let near: Vec<usize> = [list(&self.values, source), list(&self.asked, source)].concat();
            let found: Vec<&Fact> = near.iter().filter_map(of).filter(same).filter(fits).collect();
            if let Some(proof) = best(found) {
                return Some(proof);
            }
            // A constant that stands there whatever is sent.
            let always = |f: &&Fact| f.asked.iter().all(|a| a == whole);
            let found: Vec<&Fact> = list(&self.asked, whole).iter().filter_map(of).filter(always).filter(same).filter(fits).collect();
            return best(found);
        }
        let referring = || [list(&self.values, whole), list(&self.asked, whole)].concat();
        let refers: Vec<&Fact> = referring().iter().filter_map(of).filter(|f| f.refers).filter(fits).collect();
        let found: Vec<&Fact> = list(&self.values, source).iter().filter_map(of).filter(fits).collect();
        if let Some(proof) = best(found).or_else(|| best(refers)) {
            return Some(proof);
        }
        // An extension's URL, or an element of constants, hangs on the field without holding it.
        if wanted.hangs {
            let found: Vec<&Fact> = list(&self.asked, source).iter().filter_map(of).filter(fits).collect();
            if let Some(proof) = best(found) {
                return Some(proof);
            }
        }
        None
    }

    /// An element of a resource of the route that is referred to: the reference is there, and the resource's own lines make the element.
    fn find_behind(&self, wanted: &Wanted, source: &str, whole: &str) -> Option<Proof> {
        let cut = wanted.at.steps.iter().position(|s| s.starts_with('('))?;
        let (before, behind) = wanted.at.steps.split_at_checked(cut + 1)?;
        let mut inner = At::root(before.last()?.trim_matches(['(', ')']))?;
        for step in behind {
            inner = match step.strip_prefix("extension(") {
                Some(url) => inner.extension(url.trim_end_matches(')')),
                None => inner.step(step),
            };
        }
        let near = [&self.values, &self.asked].into_iter().filter_map(|i| i.get(whole)).flatten().filter_map(|n| self.facts.list.get(*n));
        let mut outer = wanted.at.clone();
        outer.steps.truncate(cut + 1);
        let referred = near.into_iter().any(|f| f.refers && matches(&f.at, &outer, Sheets::Segments));
        let inner = Wanted { at: inner, constant: wanted.constant.clone(), hangs: wanted.hangs };
        referred.then(|| self.find(&inner, source, whole, Sheets::Segments)).flatten()
    }

    fn message(&mut self, row: &GuideRow, read: Option<&str>) -> Option<Proof> {
        let text = read.unwrap_or(row.target);
        let base = text.split(['[', '.', '(']).next()?;
        let wanted = wanted(base, text, "", &mut self.urls);
        let segment = row.source.rsplit(['.', ':']).next()?;
        let near = [&self.values, &self.asked].into_iter().filter_map(|i| i.get(segment)).flatten();
        let facts: Vec<&Fact> = near.filter_map(|n| self.facts.list.get(*n)).filter(|f| f.route.is_some_and(|r| self.routes.contains(&r))).collect();
        wanted.iter().find_map(|w| facts.iter().filter(|f| matches(&f.at, &w.at, Sheets::Segments)).min_by_key(|f| f.at.steps.len()).map(|f| proof(f)))
    }

    /// The routes that take an event with that structure.
    fn routes_of(&self, structure: &str) -> Vec<RouteId> {
        let mut events: BTreeSet<&str> = BTreeSet::new();
        for version in Version::ALL {
            events.extend(hl7v2::events(version).filter(|(_, s)| *s == structure).map(|(event, _)| event));
        }
        let takes = |on: &On| match on {
            On::Event { code, event: Some(event), .. } => events.contains(format!("{code}^{event}").as_str()),
            On::Event { code, event: None, .. } => events.iter().any(|e| e.split('^').next() == Some(code)),
            _ => false,
        };
        let routes = self.set.routes().map(|(id, _)| id);
        routes.filter(|id| self.set.program(*id).is_some_and(|(_, _, route)| route.on.iter().any(takes))).collect()
    }

    fn code(&self, row: &GuideRow) -> Option<Proof> {
        let code: &Code = &self.set.code;
        let digits: String = row.table.chars().filter(char::is_ascii_digit).collect();
        let number = digits.get(digits.len().saturating_sub(4)..).unwrap_or("");
        let number = format!("{number:0>4}");
        let target = row.target.trim();
        for table in code.tables.iter().filter(|t| t.from.iter().any(|f| *f == number)) {
            let Some(found) = table.rows.get(row.source) else { continue };
            let system = found.system.as_deref().or_else(|| table.to.and_then(|set| set.systems().next()));
            let same = |s: &str| s.trim_end_matches('/') == row.system.trim_end_matches('/');
            if found.code == target && (row.system.is_empty() || system.is_none_or(same) || table.to.is_some_and(|set| set.systems().any(same))) {
                return Some(Proof { line: table.line.to_string(), how: "" });
            }
        }
        // The code that was sent, with the URI of its table: what a code becomes that no table changes.
        let kept = row.source == target && (row.system.is_empty() || row.system == table_system(&number));
        let about = |t: &&Table| t.from.iter().any(|f| *f == number) && t.to.is_none_or(|set| set.systems().any(|s| s == row.system));
        let changed = code.tables.iter().filter(about).any(|t| t.rows.get(row.source).is_some_and(|r| r.code != target));
        if !kept || changed {
            return None;
        }
        let systems = self.values.get("CWE.3")?.iter().filter_map(|n| self.facts.list.get(*n));
        let line = systems.filter(|f| f.route.is_none() && f.at.to_string() == "CodeableConcept.coding.system").min_by_key(|f| f.spot.clone())?;
        Some(Proof { how: "the code as sent", ..proof(line) })
    }
}

fn proof(fact: &Fact) -> Proof {
    Proof { line: fact.spot.line.to_string(), how: "" }
}

/// Does the fact write the wanted element, or something in it?
fn matches(at: &At, wanted: &At, kind: Sheets) -> bool {
    if wanted.steps.is_empty() && kind == Sheets::Datatypes {
        // A value as such: the element that takes it is of that type.
        return at.types.last().is_some_and(|t| same_type(t, wanted.root)) || at.types.contains(&wanted.root) && !is_primitive(wanted.root);
    }
    at.types.iter().enumerate().any(|(n, ty)| *ty == wanted.root && at.steps.get(n..).is_some_and(|rest| rest.starts_with(&wanted.steps)))
}

fn is_primitive(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
}

fn same_type(a: &str, b: &str) -> bool {
    const KIN: [&[&str]; 3] = [&["string", "markdown"], &["uri", "url", "canonical"], &["dateTime", "instant", "date"]];
    a == b || KIN.iter().any(|k| k.contains(&a) && k.contains(&b))
}

fn index(index: &mut HashMap<String, Vec<usize>>, places: &BTreeSet<String>, n: usize, known: &mut HashMap<String, Vec<String>>) {
    for place in places {
        let keys = known.entry(place.clone()).or_insert_with(|| keys(place));
        for key in keys.iter() {
            let list = index.entry(key.clone()).or_default();
            if list.last() != Some(&n) {
                list.push(n);
            }
        }
    }
}

/// `PID-5.1.1` as `PID-5.1`, `PID-5`, `PID`, and as `XPN.1.1`, `XPN.1`, `FN.1`.
fn keys(place: &str) -> Vec<String> {
    let mut keys = vec![place.to_owned()];
    let whole = segment(place);
    let mut ty = if place.contains('-') {
        keys.push(whole.to_owned());
        place
            .split('-')
            .nth(1)
            .and_then(|rest| rest.split('.').next())
            .and_then(|n| n.parse().ok())
            .and_then(|n| hl7v2::newest_field(whole, n))
            .map(|f| f.1.datatype())
    } else {
        Some(place.split('.').next().unwrap_or(place)).and_then(hl7v2::newest_datatype).map(|d| d.id())
    };
    let field_end = place.find('.').unwrap_or(place.len());
    if field_end < place.len() {
        for (at, _) in place.match_indices('.') {
            keys.push(place.get(..at).unwrap_or("").to_owned());
        }
    }
    let rest: Vec<&str> = place.get(field_end..).unwrap_or("").split('.').filter(|s| !s.is_empty()).collect();
    for n in 0..=rest.len() {
        let Some(name) = ty else { break };
        let below = rest.get(n..).unwrap_or_default();
        for name in names(name) {
            keys.push(name.to_owned());
            if below.is_empty() {
                keys.push(format!("{name}.1"));
            }
            for m in 1..=below.len() {
                keys.push(format!("{name}.{}", below.get(..m).unwrap_or_default().join(".")));
            }
        }
        ty = below.first().and_then(|c| c.parse().ok()).and_then(|c| hl7v2::newest_datatype(name)?.component(c)).map(|f| f.datatype());
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Types that one map reads, since a field has the type of the newest version that has it.
fn names(name: &str) -> Vec<&str> {
    match name {
        "CWE" | "CE" | "CNE" | "CF" => vec!["CWE", "CE", "CNE", "CF", "IS"],
        "DTM" | "TS" => vec!["DTM", "TS"],
        other => vec![other],
    }
}

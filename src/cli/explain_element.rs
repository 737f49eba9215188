//! `kiln explain MESSAGE Patient.birthDate`: where an element comes from; and where there is none, why not.

use crate::cli::Exit;
use crate::cli::explain_json as shape;
use crate::cli::explain_subject::{Run, Subject};
use crate::cli::explain_text as text;
use crate::cli::explain_why::not_run;
use crate::cli::paint::{FAINT, STRONG, WARN, out, paint, plain};
use crate::diagnostic::suggest;
use crate::fhir::{self, Kind, Type};
use crate::route::{CodeLine, Outcome, ResourceLineage};
use serde_json::json;

/// `Patient.name[0].family`, in parts.
pub(crate) struct Wanted {
    /// `Patient`, or a resource's name in the route: `patient`, `observation[2]`.
    resource: String,
    /// The type, if that is what was written.
    ty: Option<Type>,
    /// Elements with an index, if there was one.
    path: Vec<(String, Option<usize>)>,
}

impl Wanted {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it, and what was probably meant.
    pub(crate) fn read(written: &str, subject: &Subject) -> Result<Self, String> {
        let mut pieces = pieces(written).into_iter();
        let resource = pieces.next().unwrap_or_default();
        let named = subject.runs.iter().flat_map(|r| &r.lineage.resources).find(|r| r.name == resource || r.name.split('[').next() == Some(&resource));
        let ty = fhir::type_named(&resource).filter(|t| t.kind() == Kind::Resource);
        let of = match (ty, named) {
            (Some(ty), _) => ty,
            (None, Some(named)) => match fhir::type_named(named.resource_type) {
                Some(ty) => ty,
                None => return Err(format!("there is no resource {resource}")),
            },
            (None, None) => return Err(unknown_resource(&resource, written, subject)),
        };
        let mut path = Vec::new();
        let mut at = Some(of);
        for piece in pieces {
            let (name, index) = match piece.strip_suffix(']').and_then(|p| p.split_once('[')).filter(|(_, n)| *n != "x") {
                Some((name, index)) => match index.parse() {
                    Ok(index) => (name.to_owned(), Some(index)),
                    Err(_) => return Err(format!("{piece}: an index is a number from 0, as in name[0]")),
                },
                None => (piece.trim_end_matches("[x]").to_owned(), None),
            };
            at = match at {
                None => None,
                Some(ty) => step(ty, &name)?,
            };
            path.push((name, index));
        }
        Ok(Self { resource, ty, path })
    }

    fn is(&self, resource: &ResourceLineage) -> bool {
        match self.ty {
            Some(ty) => ty.name() == resource.resource_type,
            None => resource.name == self.resource || resource.name.split('[').next() == Some(&self.resource),
        }
    }

    /// Is the element it, or a part of it?
    fn holds(&self, path: &str) -> bool {
        let mut parts = pieces(path).into_iter().skip(1);
        self.path.iter().all(|(name, index)| {
            let Some(part) = parts.next() else { return false };
            let (element, n) = match part.strip_suffix(']').and_then(|p| p.split_once('[')) {
                Some((element, n)) => (element.to_owned(), n.parse::<usize>().ok()),
                None => (part, None),
            };
            let choice = element.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()));
            (element == *name || (choice && is_choice(name))) && (index.is_none() || *index == n)
        })
    }

    /// `Patient.name` and `Patient.name.family`: without indices, from the longest.
    fn prefixes(&self, resource_type: &str) -> Vec<String> {
        let names: Vec<&str> = self.path.iter().map(|(n, _)| n.as_str()).collect();
        (1..=names.len()).rev().map(|n| format!("{resource_type}.{}", names.get(..n).unwrap_or_default().join("."))).collect()
    }
}

/// Divides at points, but not within `value[x]`.
fn pieces(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

/// Is there any choice of that name? `deceased` stands for `deceasedBoolean`, but `name` not for `nameSuffix`.
fn is_choice(name: &str) -> bool {
    fhir::types().any(|t| t.element(&format!("{name}[x]")).is_some_and(|e| e.is_choice()))
}

/// The type of an element; `None` where types end to be known.
fn step(ty: Type, name: &str) -> Result<Option<Type>, String> {
    let bare = name.strip_prefix('_').unwrap_or(name);
    if let Some(element) = ty.element(bare).or_else(|| ty.element(&format!("{bare}[x]"))) {
        return Ok(if element.is_choice() || name.starts_with('_') { None } else { element.types().next().filter(|t| t.kind() != Kind::Resource) });
    }
    if let Some((_, branch)) = ty.property(bare) {
        return Ok(Some(branch));
    }
    let names: Vec<&str> = ty.elements().map(|e| e.name()).collect();
    let help = suggest(bare, names.iter().copied()).map_or_else(|| format!("; it has {}", names.join(", ")), |n| format!("; did you mean {n}?"));
    Err(format!("{} has no element {}{help}", ty.name(), plain(name)))
}

fn unknown_resource(word: &str, written: &str, subject: &Subject) -> String {
    if crate::hl7v2::newest_segment(word).is_some() {
        let (first, rest) = written.split_once('.').unwrap_or((word, "1"));
        return format!("{word} is a segment, and its fields are written with a hyphen: {first}-{}", plain(rest));
    }
    let mut names: Vec<&str> = subject.runs.iter().flat_map(|r| &r.lineage.resources).map(|r| r.name.as_str()).collect();
    names.extend(fhir::types().filter(|t| t.kind() == Kind::Resource).map(|t| t.name()));
    let help = suggest(word, names.iter().copied()).map_or_else(
        || "; write a field (PID-7), a resource of FHIR (Patient.birthDate), or one by its name in the route".to_owned(),
        |n| format!("; did you mean {n}?"),
    );
    format!("there is no resource or segment {}{help}", plain(word))
}

/// Explains an element.
pub(crate) fn explain(subject: &Subject, wanted: &Wanted, json: bool) -> Exit {
    let mut found = 0;
    let mut routes = Vec::new();
    if !json {
        text::heading(subject);
    }
    for run in &subject.runs {
        let (mut resources, mut missing) = (Vec::new(), Vec::new());
        for resource in run.lineage.resources.iter().filter(|r| wanted.is(r)) {
            let elements: Vec<_> = resource.elements.iter().filter(|e| wanted.holds(&e.path)).collect();
            let deletes: Vec<_> = resource.deletes.iter().filter(|d| wanted.holds(&d.path) || wanted.path.is_empty()).collect();
            if elements.is_empty() && deletes.is_empty() && matches!(resource.outcome, Outcome::Saved(_) | Outcome::Stopped) {
                continue;
            }
            found += elements.len() + deletes.len();
            if json {
                let elements: Vec<_> = elements.iter().map(|e| shape::element(run, &subject.message, e)).collect();
                let deletes: Vec<_> = deletes
                    .iter()
                    .map(|d| json!({ "path": d.path, "from": d.from.iter().map(ToString::to_string).collect::<Vec<_>>(), "map": &*d.map, "at": shape::spot(run, &d.at) }))
                    .collect();
                let identity: Vec<_> = resource.identity.iter().map(|i| json!({ "system": i.system, "value": i.value })).collect();
                resources.push(json!({
                    "name": resource.name, "type": resource.resource_type, "save": resource.save, "outcome": outcome(run, resource), "identity": identity,
                    "elements": elements, "deletes": deletes,
                }));
                continue;
            }
            let saved = format!("{}, {}: {}", resource.resource_type, resource.save, outcome(run, resource));
            out!("{} {}", paint(STRONG, &plain(&resource.name)), paint(FAINT, &saved));
            resource.identity.iter().for_each(|i| out!("{}", paint(FAINT, &format!("  identity {}|{}", plain(&i.system), plain(&i.value)))));
            elements.iter().for_each(|e| text::element(run, &subject.message, e));
            for d in deletes {
                let from: Vec<_> = d.from.iter().map(ToString::to_string).collect();
                out!("{}  deleted: {} is \"\"", paint(STRONG, &d.path), from.join(", "));
                out!("└ {}  {}", d.map, text::line(run, &d.at));
            }
            out!("");
        }
        if found == 0 {
            missing = nothing(run, wanted);
        }
        if json {
            let why: Vec<_> = missing.iter().map(|w| shape::why(run, w)).collect();
            routes.push(json!({ "route": &*run.lineage.route, "taken": run.lineage.taken, "stop": run.lineage.stop.as_ref().map(shape::stop), "resources": resources, "why": why }));
        } else if !missing.is_empty() {
            out!("{} makes no {}", paint(WARN, &format!("route {}", run.lineage.route)), plain(&wanted.written()));
            missing.iter().for_each(|w| text::reason(run, w, "  "));
        }
    }
    if json {
        out!(
            "{}",
            json!({ "message": subject.name, "type": subject.message.message_type(), "element": wanted.written(), "routes": routes, "notes": subject.notes })
        );
    }
    if found > 0 { Exit::Done } else { Exit::Found }
}

impl Wanted {
    fn written(&self) -> String {
        let mut text = self.resource.clone();
        for (name, index) in &self.path {
            text.push('.');
            text.push_str(name);
            if let Some(index) = index {
                text.push_str(&format!("[{index}]"));
            }
        }
        text
    }
}

/// What became of a resource, in words.
fn outcome(run: &Run, resource: &ResourceLineage) -> String {
    match resource.outcome {
        Outcome::Saved(_) => "saved".to_owned(),
        Outcome::Joined(other) => format!("one with {}", run.lineage.resources.get(other).map_or("another", |r| &r.name)),
        Outcome::NotMade(why) => format!("not made: {why}"),
        Outcome::Stopped => "not made: the run stopped".to_owned(),
    }
}

/// Why the element is not there.
fn nothing(run: &Run, wanted: &Wanted) -> Vec<crate::cli::explain_why::Why> {
    use crate::cli::explain_why::Why;
    let survey = run.set.survey(run.route);
    let types: Vec<&str> = match wanted.ty {
        Some(ty) => vec![ty.name()],
        None => run.lineage.resources.iter().filter(|r| wanted.is(r)).map(|r| r.resource_type).collect(),
    };
    let mut found = Vec::new();
    for prefix in types.iter().flat_map(|t| wanted.prefixes(t)) {
        // `deceased` stands for each branch.
        let lines: Vec<&CodeLine> = survey.lines.iter().filter(|l| l.element == prefix || l.element.starts_with(&format!("{prefix}[x]"))).collect();
        for line in &lines {
            match run.lineage.lines.iter().find(|l| l.at == line.at) {
                Some(ran) if ran.made == 0 => {
                    let from = if line.places.is_empty() { String::new() } else { format!(" of {}", line.places.join(", ")) };
                    found.push(Why {
                        text: format!("the line of {} ran, and made nothing{from}", line.map),
                        at: Some(line.at.clone()),
                        steps: ran.without.clone(),
                    });
                }
                Some(_) => found.push(Why { text: format!("{} makes {prefix}, without this part", line.map), at: Some(line.at.clone()), steps: Vec::new() }),
                None => found.extend(not_run(run, &survey, line)),
            }
        }
        if !lines.is_empty() {
            break;
        }
    }
    if found.is_empty() {
        let text = if wanted.path.is_empty() || !run.lineage.resources.iter().any(|r| wanted.is(r)) {
            format!("no {} is made of this message", wanted.resource)
        } else {
            format!("no line of route {} makes it", run.lineage.route)
        };
        found.push(Why { text, at: None, steps: Vec::new() });
    }
    found
}

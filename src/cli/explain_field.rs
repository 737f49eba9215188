//! `kiln explain MESSAGE PID-7`: everywhere a value went; and where it went nowhere, why.

use crate::cli::Exit;
use crate::cli::explain_json as shape;
use crate::cli::explain_subject::{Run, Subject};
use crate::cli::explain_text as text;
use crate::cli::explain_why::{Why, why};
use crate::cli::paint::{FAINT, STRONG, WARN, out, paint, plain};
use crate::diagnostic::suggest;
use crate::hl7v2::{Address, Message, Part, newest_datatype, newest_field, newest_segment, segment_ids};
use crate::route::{ElementLineage, Survey, Use, ValueUse};
use serde_json::{Value, json};

/// Is the place one that some release or this message has?
///
/// # Errors
/// What is wrong, and what was probably meant.
pub(crate) fn check(address: &Address, message: &Message) -> Result<(), String> {
    let there = message.segments_named(&address.segment).next().is_some();
    let Some(segment) = newest_segment(&address.segment) else {
        if there {
            return Ok(());
        }
        let mut known: Vec<String> = (0..message.segment_count()).map(|n| message.segment_name(n).to_uppercase()).collect();
        known.extend(segment_ids().map(str::to_owned));
        let near = suggest(&address.segment, known.iter().map(String::as_str)).map_or(String::new(), |n| format!("; did you mean {n}?"));
        return Err(format!("there is no segment {}{near}", address.segment));
    };
    let Some(n) = address.field else { return Ok(()) };
    let sent = message.segments_named(&address.segment).any(|s| message.field_count(s) >= usize::from(n));
    let Some((_, field)) = newest_field(&address.segment, usize::from(n)) else {
        return if sent { Ok(()) } else { Err(format!("{} has no field {n}; it has {}", address.segment, segment.field_count())) };
    };
    let (Some(c), Some(datatype)) = (address.component, newest_datatype(field.datatype())) else { return Ok(()) };
    if datatype.component(usize::from(c)).is_none() && c > 1 && !sent {
        return Err(format!("{}-{n} is a {}, which has {} components", address.segment, datatype.id(), datatype.component_count()));
    }
    Ok(())
}

/// Explains a place.
pub(crate) fn explain(subject: &Subject, wanted: &Address, json: bool) -> Exit {
    let message = &subject.message;
    let surveys: Vec<Survey> = subject.runs.iter().map(|r| r.set.survey(r.route)).collect();
    let values = values(subject, wanted);
    let mut everywhere = !values.is_empty();
    let mut shapes = Vec::new();
    if !json {
        text::heading(subject);
        if values.is_empty() {
            let name = wanted.standard_name().map_or(String::new(), |n| format!("  {}", paint(FAINT, &n)));
            let there = message.segments_named(&wanted.segment).next().is_some();
            let what = if there { "is empty in this message" } else { "is not there: the message has no such segment" };
            out!("{}{name} {what}", paint(STRONG, &wanted.to_string()));
            for (run, survey) in subject.runs.iter().zip(&surveys) {
                readers(run, survey, wanted);
            }
        }
    }
    for (address, part) in &values {
        let mut went = Vec::new();
        let mut carried = false;
        if !json {
            out!("{}", text::place(message, address, *part));
        }
        for (run, survey) in subject.runs.iter().zip(&surveys) {
            let to = targets(run, *part);
            let made = if run.set.info(run.route).messages { "message" } else { "element" };
            let value = run.lineage.values.iter().find(|v| v.part == *part);
            let used = value.map_or(Use::Unread, |v| v.used);
            let deletes: Vec<_> = run.lineage.resources.iter().flat_map(|r| &r.deletes).filter(|d| d.from.contains(address)).collect();
            let reasons = match value {
                Some(value) if to.is_empty() && deletes.is_empty() && used != Use::Carried => why(run, survey, value),
                _ => Vec::new(),
            };
            carried |= !to.is_empty() || !deletes.is_empty() || used == Use::Carried;
            if json {
                went.push(one(run, message, used, &to, &reasons));
                continue;
            }
            for (names, element) in alike(&to) {
                out!("  → {} {}  {}", paint(FAINT, &plain(&names)), paint(STRONG, &element.path), text::value(&element.value));
                if let Some(stage) = element.stages.last() {
                    let at = stage.at.as_ref().map_or(String::new(), |at| format!("  {}", text::line(run, at)));
                    out!("      {}{at}", stage.map);
                }
                let mut told = Vec::new();
                for step in element.stages.iter().flat_map(|s| &s.steps) {
                    if told.contains(&step) {
                        continue;
                    }
                    told.push(step);
                    out!("      · {}", text::words(step));
                }
            }
            for d in deletes {
                out!("  → {} is deleted  {}", paint(STRONG, &d.path), text::line(run, &d.at));
            }
            if to.is_empty() && used == Use::Carried {
                out!("  → {}", paint(FAINT, "a resource that this message describes twice in the same words"));
            }
            if !reasons.is_empty() {
                out!("  {}", paint(WARN, &format!("in no {made}")));
                reasons.iter().for_each(|w| text::reason(run, w, "    "));
            }
        }
        everywhere &= carried;
        shapes.push((address, part, went));
    }
    if json {
        let values: Vec<Value> = shapes
            .into_iter()
            .map(|(address, part, went)| {
                let mut place = shape::place(message, address, *part);
                if let Some(fields) = place.as_object_mut() {
                    fields.insert("routes".to_owned(), Value::Array(went));
                }
                place
            })
            .collect();
        out!("{}", json!({ "message": subject.name, "type": message.message_type(), "field": wanted.to_string(), "values": values, "notes": subject.notes }));
    }
    if everywhere { Exit::Done } else { Exit::Found }
}

/// The valued places that are meant, as deep as they go, and what says `""`.
fn values(subject: &Subject, wanted: &Address) -> Vec<(Address, Part)> {
    let message = &subject.message;
    let mut found = Vec::new();
    for segment in message.segments_named(&wanted.segment) {
        for (field, part) in message.valued_leaves(segment) {
            let address = message.address(segment, field, part);
            // `PID-5.1` of a value without components is the value itself, and so is `PID-5[1]` of one that does not repeat.
            let whole = Address {
                occurrence: address.occurrence.or(Some(1)),
                repetition: address.repetition.or(Some(1)),
                component: address.component.or(Some(1)),
                subcomponent: address.subcomponent.or(Some(1)),
                ..address.clone()
            };
            if wanted.holds(&address) || wanted.holds(&whole) {
                found.push((address, part));
            }
        }
        for field in 1..=message.field_count(segment) {
            let Ok(number) = u16::try_from(field) else { break };
            let part = message.field(segment, field);
            let address = message.address(segment, number, part);
            if message.is_null(part) && wanted.holds(&address) {
                found.push((address, part));
            }
        }
    }
    found
}

/// The elements and fields that hold a value, with the names of their resources and messages.
fn targets(run: &Run, part: Part) -> Vec<(&str, &ElementLineage)> {
    let holds = |e: &&ElementLineage| {
        e.from.iter().any(|(_, p)| if e.refers { p.start == part.start && p.end == part.end } else { p.start <= part.start && part.end <= p.end })
    };
    let resources = run.lineage.resources.iter().flat_map(|r| r.elements.iter().map(move |e| (r.name.as_str(), e)));
    let messages = run.lineage.messages.iter().flat_map(|m| m.fields.iter().map(move |f| (m.name.as_str(), f)));
    resources.chain(messages).filter(|(_, e)| holds(e)).collect()
}

/// The same place of several messages in one, where it came about in the same way.
fn alike<'r>(to: &[(&str, &'r ElementLineage)]) -> Vec<(String, &'r ElementLineage)> {
    const NAMED: usize = 3;
    let mut found: Vec<(Vec<&str>, &ElementLineage)> = Vec::new();
    for (name, element) in to {
        match found.iter_mut().find(|(_, known)| known == element) {
            Some((names, _)) => names.push(name),
            None => found.push((vec![name], element)),
        }
    }
    let names = |names: &[&str]| match names.len().checked_sub(NAMED) {
        Some(more) if more > 0 => format!("{} and {more} more", names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ")),
        _ => names.join(", "),
    };
    found.into_iter().map(|(all, element)| (names(&all), element)).collect()
}

/// Which lines would read a place that is empty.
fn readers(run: &Run, survey: &Survey, wanted: &Address) {
    let reads = |places: &[String]| places.iter().filter_map(|p| crate::cli::explain_why::place_of(p)).any(|p| p.touches(&wanted.anywhere()));
    let lines: Vec<_> = survey.lines.iter().filter(|l| reads(&l.places)).collect();
    if lines.is_empty() {
        out!("  no line of route {} reads it", run.lineage.route);
    }
    for line in lines {
        out!("  {} would read it  {}", line.map, text::line(run, &line.at));
    }
}

fn one(run: &Run, message: &Message, used: Use, to: &[(&str, &ElementLineage)], reasons: &[Why]) -> Value {
    let key = if run.set.info(run.route).messages { "message" } else { "resource" };
    let to: Vec<_> = to
        .iter()
        .map(|(name, element)| {
            let mut shape = shape::element(run, message, element);
            if let Some(fields) = shape.as_object_mut() {
                fields.insert(key.to_owned(), json!(name));
            }
            shape
        })
        .collect();
    let why: Vec<_> = reasons.iter().map(|w| shape::why(run, w)).collect();
    json!({ "route": &*run.lineage.route, "used": shape::use_word(used), "to": to, "why": why })
}

/// The best use that any route makes of each valued place.
pub(crate) fn uses(subject: &Subject) -> Vec<ValueUse> {
    let message = &subject.message;
    let mut best: Vec<ValueUse> = Vec::new();
    for run in &subject.runs {
        if best.is_empty() {
            best.clone_from(&run.lineage.values);
            continue;
        }
        for (known, other) in best.iter_mut().zip(&run.lineage.values) {
            known.used = known.used.max(other.used);
        }
    }
    if subject.runs.is_empty() {
        for segment in 0..message.segment_count() {
            for (field, part) in message.valued_leaves(segment).into_iter().filter(|(field, _)| segment > 0 || *field > 2) {
                best.push(ValueUse { place: message.address(segment, field, part), part, used: Use::Unread });
            }
        }
    }
    best
}

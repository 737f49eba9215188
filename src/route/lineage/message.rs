//! Lineage of the messages that a route makes: for each value of each of them, the values, lines and steps that it is owed to.

use crate::hl7v2::{Address, Message, ParseOptions, Part};
use crate::route::lineage::{ElementLineage, Fields, Spot, Stage};
use crate::route::run::{Source, Trace};
use serde_json::Value;
use std::sync::Arc;

/// A message that the run made.
#[derive(Clone, PartialEq)]
pub struct MessageLineage {
    /// `message`, or `message[2]` where there are several, from 1.
    pub name: String,
    /// `ORU^R01`.
    pub message_type: String,
    /// Its values, each by its place: `PID-5.1`. A path is an [`Address`] of the message that was made.
    pub fields: Vec<ElementLineage>,
    /// False if the run stopped, so that nothing is sent.
    pub made: bool,
}

pub(crate) fn messages(trace: &Trace, stopped: bool, fields: &Fields<'_>) -> Vec<MessageLineage> {
    let all = &trace.drafts.messages;
    let one = |(n, notes): (usize, &crate::route::run::DraftNotes)| {
        let name = if all.len() > 1 { format!("message[{}]", n + 1) } else { "message".to_owned() };
        let options = ParseOptions { charset: Some(notes.charset), ..ParseOptions::default() };
        let made = Message::parse(notes.bytes.clone().into(), &options).ok();
        let message_type = made.as_ref().map(Message::message_type).unwrap_or_default();
        let fields = made.map(|made| values(trace, &notes.tags, &made, fields)).unwrap_or_default();
        MessageLineage { name, message_type, fields, made: !stopped }
    };
    all.iter().enumerate().map(one).collect()
}

/// The values of a finished message. MSH-1 and MSH-2 are none.
fn values(trace: &Trace, tags: &[u32], made: &Message, fields: &Fields<'_>) -> Vec<ElementLineage> {
    let mut found = Vec::new();
    for (segment, address) in made.segment_addresses().into_iter().enumerate() {
        let Some(notes) = tags.get(segment).and_then(|tag| trace.notes(*tag)) else { continue };
        let first = if segment == 0 { 3 } else { 1 };
        for field in first..=u16::try_from(made.field_count(segment)).unwrap_or(u16::MAX) {
            for (r, repetition) in made.repetitions(made.field(segment, usize::from(field))).enumerate() {
                for (leaf, path) in leaves(made, repetition) {
                    let (from, stages) = notes.trail(field, r, &path, fields.message);
                    let place = made.address_within(address.clone(), segment, field, leaf);
                    found.push(element(&place, made, leaf, from, &stages, fields));
                }
            }
        }
    }
    found
}

/// The deepest parts that say something, `""` too, with component and subcomponent.
fn leaves(made: &Message, repetition: Part) -> Vec<(Part, [u16; 2])> {
    let mut found = Vec::new();
    for c in 1..=made.component_count(repetition) {
        let component = made.component(repetition, c);
        for s in 1..=made.subcomponent_count(component) {
            let leaf = made.subcomponent(component, s);
            if made.is_valued(leaf) || made.is_null(leaf) {
                found.push((leaf, [u16::try_from(c).unwrap_or(u16::MAX), u16::try_from(s).unwrap_or(u16::MAX)]));
            }
        }
    }
    found
}

fn line(at: &Option<Spot>) -> Option<&str> {
    at.as_ref().map(|at| &*at.line)
}

fn element(place: &Address, made: &Message, leaf: Part, from: Vec<Part>, sources: &[&Source], fields: &Fields<'_>) -> ElementLineage {
    let text = if made.is_null(leaf) { "\"\"".into() } else { made.text(leaf) };
    let from = from.into_iter().filter(|p| !p.is_empty()).map(|p| (fields.address(p), p)).collect();
    let mut stages: Vec<Stage> = Vec::new();
    for source in sources {
        let stage =
            Stage { map: Arc::clone(&source.head), at: source.spot.clone(), place: source.part.map(|p| fields.address(p)), steps: source.steps.clone() };
        match stages.last_mut() {
            // A line or a map as a whole, and then what in it: one stage says both.
            Some(last) if last.map == stage.map && (last.at.is_none() || line(&last.at) == line(&stage.at)) => {
                last.at = stage.at;
                last.place = stage.place.or(last.place.take());
                for step in stage.steps {
                    if !last.steps.contains(&step) {
                        last.steps.push(step);
                    }
                }
            }
            _ => stages.push(stage),
        }
    }
    ElementLineage { path: place.to_string(), value: Value::String(text.into_owned()), from, refers: false, stages }
}

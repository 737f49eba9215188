//! A conformance profile (HL7 chapter 2.B): what one sender's messages must hold, beyond or in place of the dictionary.

use crate::hl7v2::{Address, Conformance, Fault, Level, Location, Message, Part, newest_table, table};
use std::sync::Arc;

/// What a listener holds its messages to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validation {
    /// The dictionary of the release that MSH-12 names.
    pub dictionary: bool,
    /// Profiles; those that are for the message's type count.
    pub profiles: Vec<Arc<Profile>>,
}

/// A profile.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Its name, for the sentences.
    pub name: String,
    /// The types of messages that it is for: `ADT^A01`, `ADT`; none for all.
    pub messages: Vec<String>,
    /// What it says of places, in its order.
    pub rules: Vec<Rule>,
}

/// What a profile says of one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// A segment, field, component or subcomponent, without occurrence or repetition.
    pub place: Address,
    /// Whether it must or must not be there.
    pub usage: ProfileUsage,
    /// Under which condition; without one always.
    pub when: Option<Predicate>,
    /// At least so many, if there are any: segments of a message, or repetitions of a field.
    pub min: u32,
    /// At most so many; `None` for no limit.
    pub max: Option<u32>,
    /// The longest value in characters.
    pub length: Option<u32>,
    /// The codes that are allowed; empty for all.
    pub codes: Vec<String>,
    /// The HL7 table that holds the codes, `0001`.
    pub table: Option<String>,
}

/// Usage of chapter 2.B, section 2.B.7.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileUsage {
    /// R: must be there and have a value.
    Required,
    /// RE: must be sent if the sender has it; its absence tells nothing.
    RequiredOrEmpty,
    /// O: nothing is said.
    Optional,
    /// C: required while its condition holds, else forbidden.
    Conditional,
    /// X: must not be there.
    NotSupported,
}

/// A condition on a place of the same segment, else of the first segment of its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicate {
    /// Which.
    pub place: Address,
    /// It holds one of these; empty: it is valued.
    pub codes: Vec<String>,
}

/// An acknowledgement names at most so many faults.
const FAULTS_MAX: usize = 100;

impl Validation {
    /// Everything that the message does against what it is held to, the dictionary's first. Empty: it conforms.
    pub fn faults(&self, message: &Message) -> Vec<Fault> {
        let mut found = Vec::new();
        if self.dictionary {
            found.extend(message.breaches(Conformance::Validation, &[]).into_iter().map(|breach| breach.fault()));
        }
        let kind = message.message_type();
        for profile in self.profiles.iter().filter(|profile| profile.is_for(&kind)) {
            for rule in &profile.rules {
                rule.check(message, &profile.name, &mut found);
                if found.len() >= FAULTS_MAX {
                    break;
                }
            }
        }
        found.truncate(FAULTS_MAX);
        found
    }
}

impl Profile {
    /// Is it for messages of that type?
    fn is_for(&self, kind: &str) -> bool {
        let fits = |wanted: &String| wanted == kind || kind.split_once('^').is_some_and(|(first, _)| wanted == first);
        self.messages.is_empty() || self.messages.iter().any(fits)
    }
}

impl Predicate {
    /// Does it hold for the segment?
    fn holds(&self, message: &Message, segment: usize) -> bool {
        let at = if message.is_segment(segment, &self.place.segment) { Some(segment) } else { message.segments_named(&self.place.segment).next() };
        let Some(at) = at else { return false };
        if self.place.field.is_none() {
            return true;
        }
        parts(message, at, &self.place).into_iter().any(|(part, _)| {
            message.is_valued(part) && (self.codes.is_empty() || self.codes.iter().any(|code| *code == message.text(leaf(message, part)).trim()))
        })
    }
}

impl Rule {
    fn check(&self, message: &Message, profile: &str, found: &mut Vec<Fault>) {
        let segments: Vec<usize> = message.segments_named(&self.place.segment).collect();
        if self.place.field.is_none() {
            self.segments(message, &segments, profile, found);
            return;
        }
        for (n, segment) in segments.iter().enumerate() {
            let sequence = u32::try_from(n + 1).unwrap_or(u32::MAX);
            self.values(message, *segment, sequence, profile, found);
        }
    }

    /// What the usage comes to for one segment: must it be there, and may it?
    fn demands(&self, message: &Message, segment: usize) -> (bool, bool) {
        let holds = self.when.as_ref().is_none_or(|when| when.holds(message, segment));
        match self.usage {
            ProfileUsage::Required => (holds, true),
            ProfileUsage::RequiredOrEmpty | ProfileUsage::Optional => (false, true),
            ProfileUsage::Conditional => (holds, holds),
            ProfileUsage::NotSupported => (false, !holds),
        }
    }

    fn segments(&self, message: &Message, there: &[usize], profile: &str, found: &mut Vec<Fault>) {
        let name = &self.place.segment;
        let at = |sequence| Location { segment: name.clone(), sequence, ..Location::default() };
        let count = u32::try_from(there.len()).unwrap_or(u32::MAX);
        let (needed, allowed) = self.demands(message, usize::MAX);
        let mut fault = |location, text: String| found.push(Fault::new(location, Fault::SEGMENT_SEQUENCE, text));
        match count {
            0 if needed => fault(at(1), format!("{name} is required by the profile {profile}, and missing")),
            0 => {}
            _ if !allowed => fault(at(1), format!("{name} is not allowed by the profile {profile}")),
            n if n < self.min => fault(at(n), format!("{name} stands {n} times, and the profile {profile} wants at least {}", self.min)),
            n => {
                if let Some(max) = self.max.filter(|max| n > *max) {
                    fault(at(max + 1), format!("{name} stands {n} times, and the profile {profile} allows at most {max}"));
                }
            }
        }
    }

    fn values(&self, message: &Message, segment: usize, sequence: u32, profile: &str, found: &mut Vec<Fault>) {
        let number = |n: Option<u16>| u32::from(n.unwrap_or(0));
        let here = |repetition: u32| Location {
            segment: self.place.segment.clone(),
            sequence,
            field: number(self.place.field),
            repetition,
            component: number(self.place.component),
            subcomponent: number(self.place.subcomponent),
        };
        let (needed, allowed) = self.demands(message, segment);
        let mut fault = |repetition, code, text: &dyn Fn(&str) -> String| {
            let location = here(repetition);
            let text = text(&location.path());
            found.push(Fault::new(location, code, text));
        };
        let all = parts(message, segment, &self.place);
        let valued = all.iter().filter(|(part, _)| message.is_valued(*part) || message.is_null(*part)).count();
        let of_component = self.place.component.is_some();
        if needed && (valued == 0 || (of_component && valued < all.len())) {
            let empty = all.iter().find(|(part, _)| part.is_empty()).map_or(0, |(_, n)| *n);
            // A component is missed where its field is: what a field that is not there lacks, the rule of the field says.
            if !of_component || !all.is_empty() {
                fault(empty, Fault::REQUIRED_FIELD_MISSING, &|place| format!("{place} is required by the profile {profile}, and empty"));
            }
        }
        if !allowed && valued > 0 {
            fault(0, Fault::DATA_TYPE, &|place| format!("{place} is not allowed by the profile {profile}, and has a value"));
            return;
        }
        if !of_component {
            let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
            if let Some(max) = self.max.filter(|max| count > *max) {
                fault(max + 1, Fault::DATA_TYPE, &|place| format!("{place}: there are {count} repetitions, and the profile {profile} allows at most {max}"));
            }
            if count > 0 && count < self.min {
                fault(count, Fault::REQUIRED_FIELD_MISSING, &|place| {
                    format!("{place}: there are {count} repetitions, and the profile {profile} wants at least {}", self.min)
                });
            }
        }
        for (part, repetition) in all.into_iter().filter(|(part, _)| message.is_valued(*part)) {
            if let Some(longest) = self.length {
                let characters = message.text(part).chars().count();
                if characters > longest as usize {
                    fault(repetition, Fault::VALUE_TOO_LONG, &|place| {
                        format!("{place} has {characters} characters, and the profile {profile} allows at most {longest}")
                    });
                }
            }
            let code = message.text(leaf(message, part));
            if !self.allows(message, code.trim()) {
                let from = self.table.as_ref().map_or_else(String::new, |table| format!(" (table {table})"));
                fault(repetition, Fault::TABLE_VALUE, &|place| format!("{place} has a code that the profile {profile} does not have{from}"));
            }
        }
    }

    fn allows(&self, message: &Message, code: &str) -> bool {
        let listed = self.codes.iter().any(|known| known == code);
        match &self.table {
            None => self.codes.is_empty() || listed,
            Some(id) => listed || table(message.version(), id).or_else(|| newest_table(id)).is_none_or(|table| table.contains(code)),
        }
    }
}

/// The parts at a place of one segment, each with its repetition's number; a field's repetitions that hold nothing are left out for a component.
fn parts(message: &Message, segment: usize, place: &Address) -> Vec<(Part, u32)> {
    let Some(field) = place.field else { return Vec::new() };
    let repetitions = message.repetitions(message.field(segment, usize::from(field))).zip(1..);
    repetitions
        .filter(|(part, _)| place.component.is_none() || message.is_valued(*part))
        .map(|(part, n)| {
            let part = place.component.map_or(part, |c| message.component(part, usize::from(c)));
            (place.subcomponent.map_or(part, |s| message.subcomponent(part, usize::from(s))), n)
        })
        .collect()
}

/// The value that a code is: of a repetition its first component's first subcomponent.
fn leaf(message: &Message, part: Part) -> Part {
    if part.level == Level::Subcomponent { part } else { message.subcomponent(message.component(part, 1), 1) }
}

//! Does a finished message keep to the abstract syntax and the segment definitions of the release that it names?

use crate::hl7v2::dictionary::{FieldDef, SegmentDef, Usage, nearest};
use crate::hl7v2::{Address, ClockTime, Fault, Level, Location, Message, Moment, NodeId, Part, Placement, Structure, datatype, segment, structure, table};
use std::collections::HashMap;

/// Something that a message does and its release does not allow. It names places and never contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// `PID-3`, `OBX[2]-5`, or a segment or group.
    pub place: String,
    /// A sentence that names the place.
    pub text: String,
    /// What it is to a sender: a code of table 0357.
    pub code: u16,
}

impl Breach {
    /// The same for the message's sender, with its place as ERR-2 has it.
    pub fn fault(&self) -> Fault {
        let number = |n: Option<u16>| u32::from(n.unwrap_or(0));
        let location = Address::read(&self.place).map_or_else(Location::default, |place| Location {
            sequence: place.occurrence.unwrap_or(1),
            field: number(place.field),
            repetition: place.repetition.unwrap_or(0),
            component: number(place.component),
            subcomponent: number(place.subcomponent),
            segment: place.segment,
        });
        Fault::new(location, self.code, self.text.clone())
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conformance {
    /// Segments and groups: what must be there, what may not, and how often.
    Structure,
    /// That, the fields that each segment must have (usage R), how often fields repeat, and that numbers, dates and times are such.
    Everything,
    /// That, codes of the tables that HL7 defines, and lengths: what a listener's `validate: dictionary` asks.
    Validation,
}

/// A message that breaks every rule must not fill the memory.
const MOST: usize = 100;

impl Message {
    /// Everything that the message does against its release (MSH-12, else the nearest that has the structure). `extra` are the declared
    /// segments that the structure lacks, each with the one that it follows; segments whose names begin with Z are nobody's business.
    pub fn breaches(&self, what: Conformance, extra: &[(&str, &str)]) -> Vec<Breach> {
        let mut found = Vec::new();
        if let Some(structure) = self.judged_by() {
            let placement = self.place(structure, extra);
            self.segments_in_place(structure, &placement, &mut found);
            groups_in_full(structure, &placement, &mut found);
        }
        if what != Conformance::Structure {
            for n in 0..self.segment_count() {
                self.fields(n, what, &mut found);
            }
        }
        found.truncate(MOST);
        found
    }

    /// Releases before 2.7 name RSP_K21, the one patient of another answer, for RSP^K22 too, which their text writes with any number of candidates
    /// (chapter 3, section 3.3.57); from 2.7 on that is RSP_K22.
    fn judged_by(&self) -> Option<Structure> {
        let own = self.structure()?;
        if own.id() == "RSP_K21" && self.message_type().starts_with("RSP^K22") {
            return nearest(self.version(), |v| structure(v, "RSP_K22")).or(Some(own));
        }
        Some(own)
    }

    fn segments_in_place(&self, structure: Structure, placement: &Placement, found: &mut Vec<Breach>) {
        for (n, place) in placement.segments.iter().enumerate() {
            let name = self.segment_name(n).to_ascii_uppercase();
            if place.node.is_none() && !name.starts_with('Z') {
                let place = self.address_of_segment(n).to_string();
                let text = format!("{place} has no place there in {} of {}", structure.id(), structure.version().name());
                found.push(Breach { place, text, code: Fault::SEGMENT_SEQUENCE });
            }
            if found.len() >= MOST {
                return;
            }
        }
    }

    fn fields(&self, n: usize, what: Conformance, found: &mut Vec<Breach>) {
        let name = self.segment_name(n).to_ascii_uppercase();
        let Some(definition) = nearest(self.version(), |v| segment(v, &name)) else { return };
        if found.len() >= MOST {
            return;
        }
        let address = self.address_of_segment(n);
        for f in 1..=definition.field_count() {
            let Some(def) = definition.field(f) else { continue };
            let whole = self.field(n, f);
            let place = || format!("{address}-{f}");
            if def.usage() == Usage::Required && whole.is_empty() {
                found.push(required(&definition, &def, place(), self));
                continue;
            }
            if n == 0 && f <= 2 {
                continue;
            }
            let repetitions = self.repetition_count(whole);
            if let Some(most) = def.max().filter(|most| repetitions > *most as usize && !def_repeats_anywhere(&name, f)) {
                found.push(Breach {
                    place: place(),
                    text: format!("{} has {repetitions} repetitions, and at most {most} are allowed in {}", place(), self.version().name()),
                    code: Fault::DATA_TYPE,
                });
            }
            for repetition in self.repetitions(whole) {
                self.value(repetition, def.datatype(), &place(), found);
                if what == Conformance::Validation {
                    self.length_and_code(repetition, &def, &place(), found);
                }
            }
        }
    }

    /// A value of a primitive type; in a composite, each component by its own.
    fn value(&self, part: Part, of: &'static str, place: &str, found: &mut Vec<Breach>) {
        if !self.is_valued(part) || found.len() >= MOST {
            return;
        }
        let wanted = match of {
            "NM" | "SI" | "DT" | "TM" | "DTM" | "TS" => of,
            _ => {
                let Some(definition) = nearest(self.version(), |v| datatype(v, of)).filter(|d| !d.is_primitive()) else { return };
                for c in 1..=definition.component_count() {
                    let inner = if part.level == crate::hl7v2::Level::Component { self.subcomponent(part, c) } else { self.component(part, c) };
                    if let Some(component) = definition.component(c).filter(|_| !inner.is_empty()) {
                        self.value(inner, component.datatype(), &format!("{place}.{c}"), found);
                    }
                }
                return;
            }
        };
        let text = self.text(self.first_leaf(part));
        let text = text.trim();
        let number = |text: &str| {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            digits.bytes().any(|b| b.is_ascii_digit()) && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') && digits.matches('.').count() < 2
        };
        let fits = match wanted {
            "NM" => number(text),
            "SI" => text.bytes().all(|b| b.is_ascii_digit()),
            "TM" => ClockTime::read(text).is_some(),
            "DT" => Moment::read(text).is_some_and(|m| !m.has_time()),
            _ => Moment::read(text).is_some(),
        };
        if !fits && !text.is_empty() {
            let kind = match wanted {
                "NM" => "a number",
                "SI" => "a whole number",
                "TM" => "a time of day",
                "DT" => "a date",
                _ => "a date, with or without a time",
            };
            found.push(Breach { place: place.to_owned(), text: format!("{place} is a {wanted}, {kind}, and its value is none"), code: Fault::DATA_TYPE });
        }
    }

    /// The length that the release gives, which from 2.7 on only primitive types have, and the code of a table that HL7 defines; in a composite those of
    /// each component.
    fn length_and_code(&self, part: Part, def: &FieldDef, place: &str, found: &mut Vec<Breach>) {
        if !self.is_valued(part) || found.len() >= MOST {
            return;
        }
        let release = self.version().name();
        if let Some(longest) = def.length() {
            let characters = self.text(part).chars().count();
            if characters > longest as usize {
                let text = format!("{place} has {characters} characters, and at most {longest} are allowed in {release}");
                found.push(Breach { place: place.to_owned(), text, code: Fault::VALUE_TOO_LONG });
            }
        }
        let composite = nearest(self.version(), |v| datatype(v, def.datatype())).filter(|d| !d.is_primitive());
        if let Some(table) = def.table().and_then(|id| table(self.version(), id)).filter(|table| table.is_hl7() && table.codes().next().is_some()) {
            let code = self.text(self.first_leaf(part));
            if !code.trim().is_empty() && !table.contains(code.trim()) {
                let text = format!("{place} has a code that table {} ({}) of {release} does not have", table.id(), table.name());
                found.push(Breach { place: place.to_owned(), text, code: Fault::TABLE_VALUE });
            }
        }
        if part.level >= Level::Component {
            return;
        }
        for c in (1..=composite.map_or(0, |d| d.component_count())).take(self.component_count(part)) {
            if let Some(component) = composite.and_then(|d| d.component(c)) {
                // The code of the whole is that of its first component.
                if c > 1 || component.table().is_none() || component.table() != def.table() {
                    self.length_and_code(self.component(part, c), &component, &format!("{place}.{c}"), found);
                }
            }
        }
    }

    fn first_leaf(&self, part: Part) -> Part {
        self.subcomponent(self.component(part, 1), 1)
    }
}

fn required(definition: &SegmentDef, def: &FieldDef, place: String, message: &Message) -> Breach {
    let text = format!("{place} ({}) is required in {} of {}, and empty", def.name(), definition.id(), message.version().name());
    Breach { place, text, code: Fault::REQUIRED_FIELD_MISSING }
}

/// Releases differ in whether a field repeats, and senders do as the newer ones say.
fn def_repeats_anywhere(segment_id: &str, field: usize) -> bool {
    crate::hl7v2::Version::ALL.iter().any(|v| segment(*v, segment_id).and_then(|s| s.field(field)).is_some_and(|f| f.max() != Some(1)))
}

/// What each group that is there must hold, and how often at most.
fn groups_in_full(structure: Structure, placement: &Placement, found: &mut Vec<Breach>) {
    // (group instance, node) -> how often.
    let mut counts: HashMap<(u32, NodeId), u32> = HashMap::new();
    for place in &placement.segments {
        if let Some(node) = place.node {
            *counts.entry((place.group, node)).or_default() += 1;
        }
    }
    for instance in &placement.groups {
        if let Some(parent) = instance.parent {
            *counts.entry((parent, instance.node)).or_default() += 1;
        }
    }
    for (n, instance) in placement.groups.iter().enumerate() {
        let own = u32::try_from(n).unwrap_or(u32::MAX);
        let count = |child: NodeId| counts.get(&(own, child)).copied().unwrap_or(0);
        let group = structure.node(instance.node);
        let within = if instance.parent.is_none() { structure.id().to_owned() } else { format!("the group {} of {}", group.name, structure.id()) };
        if group.is_choice {
            if structure.children(instance.node).all(|child| count(child) == 0) {
                found.push(Breach {
                    place: group.name.to_owned(),
                    text: format!("{within} has none of what it is a choice of"),
                    code: Fault::SEGMENT_SEQUENCE,
                });
            }
            continue;
        }
        for child in structure.children(instance.node) {
            let node = structure.node(child);
            let there = count(child);
            if there < node.min {
                let what = if node.is_group { format!("the group {}", node.name) } else { node.name.to_owned() };
                found.push(Breach {
                    place: node.name.to_owned(),
                    text: format!("{what} is required in {within} of {}, and missing", structure.version().name()),
                    code: Fault::SEGMENT_SEQUENCE,
                });
            } else if let Some(most) = node.max.filter(|most| there > *most) {
                found.push(Breach {
                    place: node.name.to_owned(),
                    text: format!("{} stands {there} times in {within}, and at most {most} are allowed", node.name),
                    code: Fault::SEGMENT_SEQUENCE,
                });
            }
            if found.len() >= MOST {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Conformance;
    use crate::hl7v2::{Message, ParseOptions};

    fn told(text: &str) -> Vec<String> {
        let message = Message::parse(text.as_bytes().to_vec().into(), &ParseOptions::default()).expect("a message");
        message.breaches(Conformance::Everything, &[]).into_iter().map(|b| b.text).collect()
    }

    const GOOD: &str = "MSH|^~\\&|A|B|C|D|20260401||ADT^A01^ADT_A01|1|P|2.5\rEVN||20260401\rPID|1||4711||Meier^Eva||19700102\rPV1||I\r";

    #[test]
    fn a_message_that_keeps_to_its_release_breaks_nothing() {
        assert_eq!(told(GOOD), Vec::<String>::new());
        assert_eq!(told(&GOOD.replace("PV1||I\r", "PV1||I\rZPI|1\rOBX|1|ST|a||b||||||F\rOBX|2|ST|a||b||||||F\r")), Vec::<String>::new());
    }

    #[test]
    fn each_breach_names_its_place() {
        assert_eq!(told(&GOOD.replace("||4711|", "|||")), ["PID-3 (Patient Identifier List) is required in PID of 2.5, and empty"]);
        assert_eq!(told(&GOOD.replace("PV1||I\r", "")), ["PV1 is required in ADT_A01 of 2.5, and missing"]);
        assert_eq!(told(&GOOD.replace("19700102", "born")), ["PID-7 is a TS, a date, with or without a time, and its value is none"]);
        assert_eq!(told(&GOOD.replace("PID|1|", "PID|one|")), ["PID-1 is a SI, a whole number, and its value is none"]);
        assert_eq!(told(&GOOD.replace("PV1||I\r", "PV1||I\rSCH||1\r")).first().map(String::as_str), Some("SCH has no place there in ADT_A01 of 2.5"));
        assert_eq!(told(&GOOD.replace("EVN||20260401\r", "EVN||20260401\rEVN||20260401\r")).first().map(|t| t.starts_with("EVN")), Some(true));
        assert_eq!(
            told(&GOOD.replace("PV1||I\r", "PV1||I\rOBX|1|ST\r")),
            ["OBX-3 (Observation Identifier) is required in OBX of 2.5, and empty", "OBX-11 (Observation Result Status) is required in OBX of 2.5, and empty"]
        );
    }
}

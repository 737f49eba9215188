//! Where a value stands, as analysts write it: `PID-5.1`, `OBX[2]-5[1].1.2`. Read from text, found for a part, matched against each other.

use crate::hl7v2::{Level, Message, Part, newest_datatype, newest_field, newest_segment};
use std::collections::HashMap;
use std::fmt;

/// A place in messages. What is `None` is not said: `PID-5` means all repetitions and components of the field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// `PID`, in capitals.
    pub segment: String,
    /// Which of the segments of that name, from 1.
    pub occurrence: Option<u32>,
    /// The field, from 1; without it the whole segment is meant.
    pub field: Option<u16>,
    /// Which repetition of the field, from 1.
    pub repetition: Option<u32>,
    /// The component, from 1.
    pub component: Option<u16>,
    /// The subcomponent, from 1.
    pub subcomponent: Option<u16>,
}

impl Address {
    /// Reads `PID`, `PID-7`, `PID-5.1`, `PID-3[2].4.1`, `OBX[2]-5`. `None` for anything else.
    pub fn read(text: &str) -> Option<Self> {
        let (segment, rest) = text.trim().split_once('-').map_or((text.trim(), None), |(s, r)| (s, Some(r)));
        let (name, occurrence) = indexed(segment)?;
        let name = name.to_ascii_uppercase();
        let named = name.len() == 3 && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
        if !named {
            return None;
        }
        let mut address = Self { segment: name, occurrence, field: None, repetition: None, component: None, subcomponent: None };
        let Some(rest) = rest else { return Some(address) };
        let mut pieces = rest.split('.');
        let (field, repetition) = indexed(pieces.next()?)?;
        address.field = Some(number(field)?);
        address.repetition = repetition;
        address.component = pieces.next().map(number).map_or(Some(None), |n| n.map(Some))?;
        address.subcomponent = pieces.next().map(number).map_or(Some(None), |n| n.map(Some))?;
        pieces.next().is_none().then_some(address)
    }

    /// Does this place hold the other one? What is not said here holds everything.
    pub fn holds(&self, other: &Self) -> bool {
        fn fits<T: PartialEq>(wanted: Option<T>, there: Option<T>) -> bool {
            wanted.is_none() || wanted == there
        }
        self.segment == other.segment
            && fits(self.occurrence, other.occurrence)
            && fits(self.field, other.field)
            && fits(self.repetition, other.repetition)
            && fits(self.component, other.component)
            && fits(self.subcomponent, other.subcomponent)
    }

    /// Is one within the other, either way? `PID-5` and `PID-5.1` touch, `PID-5.1` and `PID-5.2` do not.
    pub fn touches(&self, other: &Self) -> bool {
        fn fits<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        self.segment == other.segment
            && fits(self.occurrence, other.occurrence)
            && fits(self.field, other.field)
            && fits(self.repetition, other.repetition)
            && fits(self.component, other.component)
            && fits(self.subcomponent, other.subcomponent)
    }

    /// The standard's name: `Patient Name`, `Patient Name: Family Name`; nothing where no release defines the place.
    pub fn standard_name(&self) -> Option<String> {
        let Some(field) = self.field else { return newest_segment(&self.segment).map(|s| s.name().to_owned()) };
        let field = newest_field(&self.segment, usize::from(field))?.1;
        let mut name = field.name().to_owned();
        let mut datatype = field.datatype();
        for n in [self.component, self.subcomponent].into_iter().flatten() {
            let Some(piece) = newest_datatype(datatype).and_then(|d| d.component(usize::from(n))) else { break };
            name.push_str(": ");
            name.push_str(piece.name());
            datatype = piece.datatype();
        }
        Some(name)
    }

    /// Is it a set ID or another number that only counts (data type SI)?
    pub fn is_sequence(&self) -> bool {
        self.field.and_then(|n| newest_field(&self.segment, usize::from(n))).is_some_and(|(_, f)| f.datatype() == "SI")
    }

    /// The field alone, of any occurrence: `PID-5`.
    pub fn of_field(&self) -> Self {
        Self { occurrence: None, repetition: None, component: None, subcomponent: None, ..self.clone() }
    }

    /// The same place in any occurrence of the segment and any repetition: `PID-5.1.2`.
    pub fn anywhere(&self) -> Self {
        Self { occurrence: None, repetition: None, ..self.clone() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.segment)?;
        if let Some(n) = self.occurrence {
            write!(f, "[{n}]")?;
        }
        if let Some(n) = self.field {
            write!(f, "-{n}")?;
        }
        if let Some(n) = self.repetition {
            write!(f, "[{n}]")?;
        }
        if let Some(n) = self.component {
            write!(f, ".{n}")?;
        }
        if let Some(n) = self.subcomponent {
            write!(f, ".{n}")?;
        }
        Ok(())
    }
}

/// `OBX[2]` is `OBX` and 2.
fn indexed(text: &str) -> Option<(&str, Option<u32>)> {
    let Some((name, index)) = text.split_once('[') else { return Some((text, None)) };
    let n = index.strip_suffix(']')?.parse().ok().filter(|n| *n > 0)?;
    Some((name, Some(n)))
}

fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n > 0)
}

impl Message {
    /// The place of a part of a field: as deep as the message goes there, and an index only where there is more than one.
    pub fn address(&self, segment: usize, field: u16, part: Part) -> Address {
        self.address_within(self.address_of_segment(segment), segment, field, part)
    }

    /// The same for a segment whose place is known: to find that takes a look at all segments.
    pub fn address_within(&self, segment_address: Address, segment: usize, field: u16, part: Part) -> Address {
        let mut address = segment_address;
        address.field = Some(field);
        let whole = self.field(segment, usize::from(field));
        if part.level == Level::Field {
            return address;
        }
        let place = |pieces: &mut dyn Iterator<Item = Part>| pieces.take_while(|p| p.start <= part.start).count().max(1);
        let repetitions = self.repetition_count(whole);
        let nth = place(&mut self.repetitions(whole));
        address.repetition = (repetitions > 1).then(|| u32::try_from(nth).unwrap_or(u32::MAX));
        if part.level == Level::Repetition {
            return address;
        }
        let repetition = self.repetition(whole, nth);
        let components = self.component_count(repetition);
        if components <= 1 && self.subcomponent_count(self.component(repetition, 1)) <= 1 {
            return address;
        }
        let nth = place(&mut (1..=components).map(|n| self.component(repetition, n)));
        address.component = u16::try_from(nth).ok();
        let component = self.component(repetition, nth);
        let subcomponents = self.subcomponent_count(component);
        if part.level == Level::Subcomponent && subcomponents > 1 {
            address.subcomponent = u16::try_from(place(&mut (1..=subcomponents).map(|n| self.subcomponent(component, n)))).ok();
        }
        address
    }

    /// A segment's place: `PID`, or `OBX[2]` where there are several.
    pub fn address_of_segment(&self, segment: usize) -> Address {
        let name = self.segment_name(segment).to_ascii_uppercase();
        let same = self.segments_named(&name).count();
        let before = self.segments_named(&name).take_while(|n| *n <= segment).count();
        let occurrence = (same > 1).then(|| u32::try_from(before).unwrap_or(u32::MAX));
        Address { segment: name, occurrence, field: None, repetition: None, component: None, subcomponent: None }
    }

    /// The places of all segments, in order.
    pub fn segment_addresses(&self) -> Vec<Address> {
        let mut seen: HashMap<String, u32> = HashMap::new();
        let mut all: Vec<Address> = Vec::with_capacity(self.segment_count());
        for n in 0..self.segment_count() {
            let segment = self.segment_name(n).to_ascii_uppercase();
            let nth = seen.entry(segment.clone()).or_default();
            *nth += 1;
            all.push(Address { segment, occurrence: Some(*nth), field: None, repetition: None, component: None, subcomponent: None });
        }
        all.iter_mut().filter(|a| seen.get(&a.segment) == Some(&1)).for_each(|a| a.occurrence = None);
        all
    }

    /// The deepest parts of a segment that the sender valued, each with its field; MSH-1 and MSH-2 among them.
    pub fn valued_leaves(&self, segment: usize) -> Vec<(u16, Part)> {
        let mut leaves = Vec::new();
        for n in 1..=self.field_count(segment) {
            let Ok(field) = u16::try_from(n) else { break };
            for repetition in self.repetitions(self.field(segment, n)) {
                for c in 1..=self.component_count(repetition) {
                    let component = self.component(repetition, c);
                    for s in 1..=self.subcomponent_count(component) {
                        let leaf = self.subcomponent(component, s);
                        if self.is_valued(leaf) {
                            leaves.push((field, leaf));
                        }
                    }
                }
            }
        }
        leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hl7v2::ParseOptions;
    use proptest::prelude::*;

    #[test]
    fn notation_is_read_and_written() {
        for text in ["PID", "PID-7", "PID-5.1", "PID-5.1.2", "OBX[2]-5", "PID-3[2].4.1", "ZPI[1]-3"] {
            assert_eq!(Address::read(text).expect(text).to_string(), text);
        }
        assert_eq!(Address::read("pid-7").expect("small letters").to_string(), "PID-7");
        for text in ["", "PI", "PIDX", "PID-", "PID-x", "PID-0", "PID-5.", "PID-5.1.2.3", "PID-3[0]", "PID-3[2", "Patient.name", "PID.5", "3ID-1", "PID-+5"] {
            assert!(Address::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn every_leaf_has_its_place() {
        let text = "MSH|^~\\&|A|B|||||ADT^A01|1|P|2.5\rPID|1||11^^^H&1.2&ISO~22^^^H||Doe^Jo\rNK1|1|x\rNK1|2|y\r";
        let message = Message::parse(text.as_bytes().to_vec().into(), &ParseOptions::default()).expect("a message");
        let places = |n: usize| message.valued_leaves(n).into_iter().map(|(f, p)| message.address(n, f, p).to_string()).collect::<Vec<_>>();
        assert_eq!(places(1), ["PID-1", "PID-3[1].1", "PID-3[1].4.1", "PID-3[1].4.2", "PID-3[1].4.3", "PID-3[2].1", "PID-3[2].4", "PID-5.1", "PID-5.2"]);
        assert_eq!(places(3), ["NK1[2]-1", "NK1[2]-2"]);
        let all = Address::read("PID-3.4").expect("a place");
        let wanted = Address { repetition: Some(1), subcomponent: Some(2), ..all.clone() };
        assert!(all.holds(&wanted) && !wanted.holds(&all) && wanted.touches(&all));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in ".{0,20}") {
            if let Some(address) = Address::read(&text) {
                prop_assert_eq!(Address::read(&address.to_string()), Some(address));
            }
        }
    }
}

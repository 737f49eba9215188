//! Messages that a route makes, in expectations and comparisons: as segments a line, compared by field.

use crate::fhir::Change;
use crate::hl7v2::{Address, Draft, Message, ParseOptions};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Each message as a list of its segments, which are read and reviewed a line each.
pub(crate) fn statements(drafts: &[Draft]) -> Vec<Value> {
    drafts.iter().map(|draft| text(&draft.bytes).split_terminator('\r').map(Value::from).collect()).collect()
}

/// A message in its own character set as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    let parsed = Message::parse(bytes.to_vec().into(), &ParseOptions::default());
    parsed.map_or_else(|_| String::from_utf8_lossy(bytes).into_owned(), |message| message.charset().decode(bytes).into_owned())
}

/// One thing in which two lists of messages differ.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    /// Which message, from 1; `None` where there is one on both sides.
    pub(crate) number: Option<usize>,
    /// The field, the segment, or nothing for a whole message.
    pub(crate) place: Option<Address>,
    pub(crate) change: Change,
    pub(crate) old: Option<Value>,
    pub(crate) new: Option<Value>,
}

impl Difference {
    /// `message[2] PID-5.1`.
    pub(crate) fn told(&self) -> String {
        let message = self.number.map_or_else(|| "message".to_owned(), |n| format!("message[{n}]"));
        self.place.as_ref().map_or_else(|| message.clone(), |place| format!("{message} {place}"))
    }

    /// The same for any message, segment and repetition: `message PID-5.1`.
    pub(crate) fn shape(&self) -> String {
        self.place.as_ref().map_or_else(|| "message".to_owned(), |place| format!("message {}", place.anywhere()))
    }
}

/// All differences, message by message, in the order of segments.
pub(crate) fn differences(old: &[Value], new: &[Value]) -> Vec<Difference> {
    let mut found = Vec::new();
    let several = old.len() > 1 || new.len() > 1;
    for n in 0..old.len().max(new.len()) {
        let number = several.then_some(n + 1);
        match (old.get(n), new.get(n)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => one(number, a, b, &mut found),
            (a, b) => {
                let change = if a.is_some() { Change::Removed } else { Change::Added };
                found.push(Difference { number, place: None, change, old: a.cloned(), new: b.cloned() });
            }
        }
    }
    found
}

/// A message, whichever way it is written down: a list of segments, or one text.
fn read(value: &Value) -> Option<Message> {
    let segments: Vec<&str> = match value {
        Value::Array(segments) => segments.iter().filter_map(Value::as_str).collect(),
        other => vec![other.as_str()?],
    };
    // The text is decoded already: what MSH-18 says was about its bytes, so the delimiters alone decide here.
    let bytes = (segments.join("\r") + "\r").into_bytes();
    let mut header = bytes.splitn(2, |b| *b == b'\r');
    let (first, rest) = (header.next()?, header.next().unwrap_or_default());
    let separator = *first.get(3)?;
    let mut fields: Vec<&[u8]> = first.split(|b| *b == separator).collect();
    if let Some(charset) = fields.get_mut(17) {
        *charset = b"UNICODE UTF-8";
    }
    let mut whole = fields.join(&separator);
    whole.push(b'\r');
    whole.extend_from_slice(rest);
    Message::parse(whole.into(), &ParseOptions { charset: crate::hl7v2::Charset::named("UNICODE UTF-8"), ..ParseOptions::default() }).ok()
}

fn one(number: Option<usize>, old: &Value, new: &Value, found: &mut Vec<Difference>) {
    let whole = |place: Option<Address>, change| Difference { number, place, change, old: Some(old.clone()), new: Some(new.clone()) };
    let (Some(a), Some(b)) = (read(old), read(new)) else { return found.push(whole(None, Change::Changed)) };
    let before = found.len();
    let (mine, theirs) = (Values::of(&a), Values::of(&b));
    let side = |m: &Message, segment: &Address| {
        let n = m.segment_addresses().iter().position(|s| first(s) == *segment)?;
        Some(Value::from(String::from_utf8_lossy(m.segment_bytes(n)).into_owned()))
    };
    for (segment, shown) in mine.segments.iter().filter(|(s, _)| !theirs.segments.contains_key(s)) {
        found.push(Difference { number, place: Some(shown.clone()), change: Change::Removed, old: side(&a, segment), new: None });
    }
    for (segment, shown) in theirs.segments.iter().filter(|(s, _)| !mine.segments.contains_key(s)) {
        found.push(Difference { number, place: Some(shown.clone()), change: Change::Added, old: None, new: side(&b, segment) });
    }
    let of = |place: &Address| Address { field: None, repetition: None, component: None, subcomponent: None, ..place.clone() };
    let in_both = |place: &Address| mine.segments.contains_key(&of(place)) && theirs.segments.contains_key(&of(place));
    let all: BTreeSet<&Address> = mine.texts.keys().chain(theirs.texts.keys()).filter(|p| in_both(p)).collect();
    for place in all {
        let (old, new) = (mine.texts.get(place), theirs.texts.get(place));
        let change = match (old, new) {
            (Some((_, x)), Some((_, y))) if x == y => continue,
            (Some(_), None) => Change::Removed,
            (None, _) => Change::Added,
            _ => Change::Changed,
        };
        let shown = new.or(old).map(|(shown, _)| shown.clone());
        let value = |side: Option<&(Address, String)>| side.map(|(_, text)| Value::from(text.as_str()));
        found.push(Difference { number, place: shown, change, old: value(old), new: value(new) });
    }
    if found.len() > before {
        return;
    }
    // The same values, in other places or other letters.
    let names = |m: &Message| (0..m.segment_count()).map(|n| m.segment_name(n).to_owned()).collect::<Vec<_>>();
    if names(&a) != names(&b) {
        return found.push(whole(None, Change::Reordered));
    }
    for (n, address) in a.segment_addresses().into_iter().enumerate() {
        let bytes = |m: &Message| Value::from(String::from_utf8_lossy(m.segment_bytes(n)).into_owned());
        if a.segment_bytes(n) != b.segment_bytes(n) {
            found.push(Difference { number, place: Some(address), change: Change::Changed, old: Some(bytes(&a)), new: Some(bytes(&b)) });
        }
    }
    if found.len() == before {
        found.push(whole(None, Change::Changed));
    }
}

/// What stands alone is the first: so that a second segment, repetition or component does not make it another.
fn first(address: &Address) -> Address {
    let mut first = address.clone();
    first.occurrence = first.occurrence.or(Some(1));
    if first.field.is_some() {
        first.repetition = first.repetition.or(Some(1));
        first.component = first.component.or(Some(1));
        first.subcomponent = first.subcomponent.or(Some(1));
    }
    first
}

/// What a message says, each by its place with all indices, and as it is shown.
#[derive(Default)]
struct Values {
    segments: BTreeMap<Address, Address>,
    texts: BTreeMap<Address, (Address, String)>,
}

impl Values {
    fn of(message: &Message) -> Self {
        let mut values = Self::default();
        for (segment, address) in message.segment_addresses().into_iter().enumerate() {
            for field in 1..=u16::try_from(message.field_count(segment)).unwrap_or(u16::MAX) {
                for repetition in message.repetitions(message.field(segment, usize::from(field))) {
                    for c in 1..=message.component_count(repetition) {
                        let component = message.component(repetition, c);
                        for s in 1..=message.subcomponent_count(component) {
                            let leaf = message.subcomponent(component, s);
                            let text = if message.is_null(leaf) { "\"\"".into() } else { message.text(leaf) };
                            if message.is_null(leaf) || message.is_valued(leaf) {
                                let shown = message.address_within(address.clone(), segment, field, leaf);
                                values.texts.insert(first(&shown), (shown, text.into_owned()));
                            }
                        }
                    }
                }
            }
            values.segments.insert(first(&address), address);
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::{differences, statements};
    use crate::hl7v2::Draft;
    use serde_json::Value;

    fn made(text: &str) -> Vec<Value> {
        statements(&[Draft { place: String::new(), bytes: text.as_bytes().to_vec(), charset: crate::hl7v2::Charset::UTF_8 }])
    }

    fn told(old: &str, new: &str) -> Vec<String> {
        differences(&made(old), &made(new)).iter().map(|d| format!("{} {:?}", d.told(), d.change)).collect()
    }

    #[test]
    fn what_differs_is_told_by_field() {
        let old = "MSH|^~\\&|A|B\rPID|1||1^^^H~2||Meier^Eva\rOBX|1|ST|x\r";
        assert!(told(old, old).is_empty());
        assert_eq!(told(old, &old.replace("Eva", "Ida")), ["message PID-5.2 Changed"]);
        assert_eq!(told(old, &old.replace("~2", "")), ["message PID-3[2] Removed"]);
        assert_eq!(told(old, &format!("{old}OBX|2|ST|y\r")), ["message OBX[2] Added"]);
        assert_eq!(told(old, &old.replace("Eva\r", "Eva||\r")), ["message PID Changed"]);
        assert_eq!(told(old, &format!("{}\rOBX|1|ST|x\rPID|1||1^^^H~2||Meier^Eva\r", "MSH|^~\\&|A|B")), ["message Reordered"]);
    }
}

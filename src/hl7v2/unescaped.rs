//! Delimiters in OBX-5 that should have been escaped (chapter 2, section 2.7), as far as a rule can tell them from real ones.
//!
//! The rule: OBX-2 is ST, TX or FT, types that have no components; so `^` and `&` in OBX-5 are text. A field separator in OBX-5 moves the fields behind
//! it. So if OBX-11 is no code of table 0085, and of the fields behind it exactly one is, then as many separators as it moved by are text too.
//! A repetition separator stays what it is: text in several lines comes that way. Escape sequences stay too.

use crate::hl7v2::{Level, Message, Part, Version, table};

/// OBX-11, the result's status, tells where the fields stand.
const STATUS: usize = 11;

impl Message {
    /// The text with such delimiters escaped; `None` if there is none.
    pub(in crate::hl7v2) fn with_observations_escaped(&self) -> Option<Vec<u8>> {
        let escape = self.delimiters.escape?;
        let mut out: Option<Vec<u8>> = None;
        let mut copied = 0;
        for obx in self.segments_named("OBX") {
            let Some(value) = self.text_value(obx) else { continue };
            let bytes = self.raw(value);
            if !bytes.iter().any(|b| self.name_of_delimiter(*b).is_some()) {
                continue;
            }
            let out = out.get_or_insert_with(|| Vec::with_capacity(self.text.len() + 64));
            out.extend_from_slice(self.text.get(copied..value.start as usize).unwrap_or_default());
            for byte in bytes {
                match self.name_of_delimiter(*byte) {
                    Some(name) => out.extend([escape, name, escape]),
                    None => out.push(*byte),
                }
            }
            copied = value.end as usize;
        }
        let mut out = out?;
        out.extend_from_slice(self.text.get(copied..).unwrap_or_default());
        Some(out)
    }

    /// The letter of the escape sequence for a delimiter that text of one field cannot hold.
    fn name_of_delimiter(&self, byte: u8) -> Option<u8> {
        match byte {
            b if b == self.delimiters.field => Some(b'F'),
            b if b == self.delimiters.component => Some(b'S'),
            b if Some(b) == self.delimiters.subcomponent => Some(b'T'),
            _ => None,
        }
    }

    /// OBX-5 as the rule finds it, if OBX-2 is a text.
    fn text_value(&self, obx: usize) -> Option<Part> {
        if !matches!(self.raw(self.field(obx, 2)).to_ascii_uppercase().as_slice(), b"ST" | b"TX" | b"FT") {
            return None;
        }
        let (first, moved) = (self.field(obx, 5), self.status_moved_by(obx)?);
        Some(Part { start: first.start, end: self.field(obx, 5 + moved).end, level: Level::Field }).filter(|value| !value.is_empty() && first.start > 0)
    }

    /// How many fields OBX-11 stands too far to the right; `None` if nothing tells.
    fn status_moved_by(&self, obx: usize) -> Option<usize> {
        let is_status = |n: usize| {
            let text = self.text(self.field(obx, n));
            let known = |version| table(version, "0085").is_some_and(|table| table.contains(&text));
            !text.is_empty() && (known(self.version) || known(Version::V291))
        };
        let fields = self.field_count(obx);
        if fields < STATUS || is_status(STATUS) {
            return Some(0);
        }
        let mut moved = (STATUS + 1..=fields).filter(|n| is_status(*n)).map(|n| n - STATUS);
        match (moved.next(), moved.next()) {
            (Some(by), None) => Some(by),
            // Without a status nothing tells how far; what has no separator too many may still hold components.
            (None, _) if fields <= fields_of_obx(self.version) => Some(0),
            _ => None,
        }
    }
}

/// How many fields OBX has in a release.
fn fields_of_obx(version: Version) -> usize {
    crate::hl7v2::segment(version, "OBX").map_or(STATUS, |obx| obx.field_count())
}

#[cfg(test)]
mod tests {
    use crate::hl7v2::{Message, ParseOptions};
    use proptest::prelude::*;

    fn parse(obx: &str) -> Message {
        let text = format!("MSH|^~\\&|A|B|C|D|2026||ORU^R01|1|P|2.5\r{obx}\rNTE|1||a^b\r");
        let options = ParseOptions { unescaped: true, ..ParseOptions::default() };
        Message::parse(text.into_bytes().into(), &options).expect("it can be read")
    }

    #[test]
    fn the_rule_tells_text_from_delimiters() {
        for (obx, value, status, repaired) in [
            ("OBX|1|ST|c||a^b & c||||||F", "a^b & c", "F", true),
            ("OBX|1|TX|c||a|b|c||||||F", "a|b|c", "F", true),
            ("OBX|1|FT|c||a\\S\\b^c\\.br\\d||||||F", "a^b^c\nd", "F", true),
            ("OBX|1|ST|c||a^b", "a^b", "", true),
            // Nothing to do, or nothing that tells.
            ("OBX|1|ST|c||a b||||||F", "a b", "F", false),
            ("OBX|1|NM|c||1^2||||||F", "1", "F", false),
            ("OBX|1|CE|c||1^2||||||F", "1", "F", false),
            ("OBX|1|ST|c||a|b||||||F|F", "a", "", false),
        ] {
            let message = parse(obx);
            let component = |field| message.text(message.component(message.field(1, field), 1)).into_owned();
            assert_eq!((component(5).as_str(), component(11).as_str(), message.unescaped), (value, status, repaired), "{obx}");
            assert_eq!((message.segment_count(), message.component_count(message.field(2, 3))), (3, 2), "{obx}: what follows is as it was");
        }
        let message = parse("OBX|1|TX|c||a~b&c||||||F");
        let second = message.repetition(message.field(1, 5), 2);
        assert_eq!((message.repetition_count(message.field(1, 5)), message.text(second).as_ref()), (2, "b&c"), "repetitions stay");
    }

    proptest! {
        #[test]
        fn no_value_breaks_it(value in "[a-c|^~&\\\\]{0,20}", kind in prop::sample::select(vec!["ST", "TX", "NM", "FT", ""])) {
            let message = parse(&format!("OBX|1|{kind}|c||{value}||||||F"));
            prop_assert_eq!(message.segment_count(), 3);
            prop_assert!(!message.unescaped || message.is_segment(1, "OBX"));
        }
    }
}

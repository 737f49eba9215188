//! v2 parts as text: the first leaf, what a person reads, what was sent.

use crate::hl7v2::{Level, Part};
use crate::route::run::Run;
use crate::route::run::value::Value;
use std::borrow::Cow;

impl<'m> Run<'m> {
    /// One level down; component 1 of a simpler value is the value itself.
    // In line and by numbers, so that parts stay in registers: reading back at once what was stored just now is slow.
    #[inline(always)]
    pub(crate) fn down(&self, part: Part, n: u16) -> Part {
        let delimiters = self.message.delimiters();
        let (delimiter, level) = match part.level {
            Level::Field => (None, Level::Component),
            Level::Repetition => (Some(delimiters.component), Level::Component),
            Level::Component if !self.subcomponents && part.start >= HEADER => {
                return Part { start: if n == 1 { part.start } else { part.end }, end: part.end, level: Level::Subcomponent };
            }
            Level::Component => (delimiters.subcomponent, Level::Subcomponent),
            Level::Subcomponent => (None, Level::Subcomponent),
        };
        let (start, end) = match delimiter {
            // MSH-1 and MSH-2 hold the delimiters themselves.
            Some(delimiter) if part.start >= HEADER => self.bounds(part.start, part.end, level, delimiter, n),
            _ => self.bounds_otherwise(part.start, part.end, part.level, n),
        };
        Part { start, end, level }
    }

    fn bounds_otherwise(&self, start: u32, end: u32, level: Level, n: u16) -> (u32, u32) {
        let part = Part { start, end, level };
        let found = match level {
            Level::Field if start >= HEADER => self.down(self.message.repetition(part, 1), n),
            Level::Field | Level::Repetition => self.message.component(part, usize::from(n)),
            Level::Component | Level::Subcomponent => self.message.subcomponent(part, usize::from(n)),
        };
        (found.start, found.end)
    }

    /// Where piece `n` of a repetition or component begins and ends.
    fn bounds(&self, start: u32, end: u32, level: Level, delimiter: u8, n: u16) -> (u32, u32) {
        let mut pieces = self.pieces.borrow_mut();
        let ends = pieces.ends(self.message, Part { start, end, level }, delimiter);
        let n = usize::from(n);
        match (n.checked_sub(1).and_then(|n| ends.get(n)), n.checked_sub(2).and_then(|n| ends.get(n))) {
            (None, _) => (end, end),
            (Some(to), None) => (start, *to),
            (Some(to), Some(before)) => ((before + 1).min(end), *to),
        }
    }

    /// Which pieces of a value hold anything: bit `n` for piece `n`; all where that is not known.
    pub(crate) fn sent_pieces(&self, part: Part) -> u64 {
        let pieces = match part.level {
            _ if part.start < HEADER => None,
            Level::Field => None,
            Level::Subcomponent => return if part.is_empty() { 0 } else { 2 },
            Level::Component if !self.subcomponents => return if part.is_empty() { 0 } else { 2 },
            Level::Repetition => Some((self.message.delimiters().component, Level::Component)),
            Level::Component => self.message.delimiters().subcomponent.map(|delimiter| (delimiter, Level::Subcomponent)),
        };
        let Some((delimiter, level)) = pieces else { return u64::MAX };
        let mut known = self.pieces.borrow_mut();
        let (mut sent, mut start) = (0, part.start);
        for (n, end) in (1..64).zip(known.ends(self.message, Part { level, ..part }, delimiter)) {
            sent |= u64::from(start < *end) << n;
            start = end + 1;
        }
        sent
    }

    /// The first primitive of a value: a composite stands for its first component.
    #[inline(always)]
    pub(crate) fn leaf(&self, part: Part) -> Part {
        if part.start < HEADER || part.level == Level::Field {
            return self.leaf_once(part);
        }
        Part { start: part.start, end: self.leaf_end(part.start, part.end, part.level), level: Level::Subcomponent }
    }

    fn leaf_end(&self, start: u32, end: u32, level: Level) -> u32 {
        let delimiters = self.message.delimiters();
        let raw = self.message.raw(Part { start, end, level });
        let subcomponent = delimiters.subcomponent.unwrap_or(delimiters.component);
        let length = match (level, delimiters.subcomponent) {
            (Level::Subcomponent, _) | (Level::Component, None) => None,
            (Level::Component, _) if !self.subcomponents => None,
            (Level::Component, Some(subcomponent)) => raw.iter().position(|b| *b == subcomponent),
            _ if !self.subcomponents => raw.iter().position(|b| *b == delimiters.component),
            _ => raw.iter().position(|b| *b == subcomponent || *b == delimiters.component),
        };
        length.and_then(|n| u32::try_from(n).ok()).map_or(end, |n| start + n)
    }

    fn leaf_once(&self, part: Part) -> Part {
        let mut at = part;
        if at.level == Level::Field {
            at = self.message.repetition(at, 1);
            if at.start >= HEADER {
                return self.leaf(at);
            }
        }
        if at.level == Level::Repetition {
            at = self.message.component(at, 1);
        }
        if at.level == Level::Component {
            at = self.message.subcomponent(at, 1);
        }
        at
    }

    pub(crate) fn leaf_text(&self, part: Part) -> Cow<'m, str> {
        let leaf = self.leaf(part);
        if !self.message.is_valued(leaf) {
            return Cow::Borrowed("");
        }
        self.note(|t| t.read(leaf));
        self.text_at(leaf)
    }

    /// A part as a person reads it: nearly always a slice of the message.
    pub(crate) fn text_at(&self, part: Part) -> Cow<'m, str> {
        let slice = self.text.and_then(|text| text.get(part.start as usize..part.end as usize));
        match slice {
            Some(slice) if !self.escapes || !slice.bytes().any(|b| Some(b) == self.message.delimiters().escape) => Cow::Borrowed(slice),
            _ => self.message.text(part),
        }
    }

    #[inline(always)]
    pub(crate) fn is_valued(&self, part: Part) -> bool {
        // A value that begins with a letter or digit needs no second look.
        match self.message.raw(part).first() {
            None => false,
            Some(b) if b.is_ascii_alphanumeric() => true,
            Some(_) => self.has_content(part.start, part.end, part.level),
        }
    }

    /// `""^""` is no content.
    fn has_content(&self, start: u32, end: u32, level: Level) -> bool {
        let part = Part { start, end, level };
        if !self.message.is_valued(part) {
            return false;
        }
        let raw = self.message.raw(part);
        if !raw.contains(&b'"') {
            return true;
        }
        let delimiters = self.message.delimiters();
        raw.split(|b| Some(*b) == delimiters.repetition || *b == delimiters.component || Some(*b) == delimiters.subcomponent)
            .any(|piece| !piece.is_empty() && piece != b"\"\"")
    }

    /// Any value as text, for comparisons and text functions.
    pub(crate) fn text_of(&self, value: &Value<'m>) -> Cow<'m, str> {
        match value {
            Value::Part(part) => self.leaf_text(*part),
            // A constant that was passed as a parameter is a value of FHIR already.
            Value::Node(node) => node.1.as_text().map_or(Cow::Borrowed(""), |text| Cow::Owned(text.to_owned())),
            Value::Fhir(json, ty) => self.fhir_text(json, *ty),
            Value::Segment(_) | Value::Piece(_) | Value::Made(_) | Value::Null => Cow::Borrowed(""),
            Value::Text(text) | Value::Moment(text) => text.clone(),
            Value::Number(n) => Cow::Owned(plain(n)),
            Value::Whole(n) => Cow::Owned(n.to_string()),
            Value::Bool(b) => Cow::Borrowed(if *b { "true" } else { "false" }),
            Value::Duration(span) => Cow::Owned(span.count.to_string()),
            Value::Row(row) => Cow::Owned(row.code.clone()),
            Value::Sn(sn) => Cow::Owned(sn.concat()),
            Value::Group(group) => group.first().map_or(Cow::Borrowed(""), |first| self.text_of(first)),
        }
    }

    /// As a person reads it: names in the order they are spoken, addresses with commas, codes by their text.
    pub(crate) fn readable(&self, value: &Value<'m>, datatype: Option<&str>) -> Cow<'m, str> {
        let part = match value {
            Value::Part(part) => part,
            Value::Fhir(json, ty) => return self.fhir_readable(json, *ty),
            other => return self.text_of(other),
        };
        let whole = if part.level == Level::Field { self.message.repetition(*part, 1) } else { *part };
        let piece = |n: u16| {
            let part = self.down(whole, n);
            if self.is_valued(part) { self.leaf_text(part) } else { Cow::Borrowed("") }
        };
        let (order, separator): (&[u16], &str) = match datatype {
            Some("XPN" | "PN") => (&[5, 2, 3, 1, 4, 6], " "),
            Some("XCN" | "CNN" | "PPN") => (&[6, 3, 4, 2, 5, 7], " "),
            Some("XAD" | "AD" | "SAD") => (&[1, 2, 5, 3, 4, 6], ", "),
            Some("CWE" | "CE" | "CNE" | "CF") => {
                let text = [9, 2, 1, 5, 4].into_iter().map(piece).find(|t| !t.is_empty());
                return text.unwrap_or(Cow::Borrowed(""));
            }
            Some("XON" | "FN" | "CX" | "EI" | "HD" | "DLN" | "MSG" | "PT" | "DR" | "TS") | None => return self.leaf_text(whole),
            Some("SN" | "NR" | "CQ" | "MO") => (&[1, 2, 3, 4], " "),
            Some(_) => (&[1, 2, 3, 4, 5, 6, 7, 8], " "),
        };
        let parts: Vec<Cow<'m, str>> = order.iter().map(|n| piece(*n)).filter(|p| !p.is_empty()).collect();
        match parts.as_slice() {
            [one] => one.clone(),
            several => Cow::Owned(several.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(separator)),
        }
    }
}

/// No field behind MSH-2 begins earlier than this.
const HEADER: u32 = 16;

/// A decimal without an exponent.
pub(crate) fn plain(n: &crate::route::decimal::Decimal) -> String {
    n.to_plain_string()
}

/// Nothing but blanks. What begins with a letter, digit or sign needs no search.
pub(crate) fn is_blank(text: &str) -> bool {
    !text.as_bytes().first().is_some_and(u8::is_ascii_graphic) && text.trim().is_empty()
}

/// Without blanks around it.
pub(crate) fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) if first.is_ascii_graphic() && last.is_ascii_graphic() => text,
        _ => match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        },
    }
}

/// A code as FHIR allows it: no blanks but single ones within.
pub(crate) fn without_blanks<'t>(text: &Cow<'t, str>) -> Cow<'t, str> {
    if text.bytes().all(|b| b.is_ascii_graphic()) {
        return text.clone();
    }
    Cow::Owned(text.split_whitespace().collect::<Vec<&str>>().join(" "))
}

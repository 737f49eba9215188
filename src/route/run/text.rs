//! v2 parts as text: the first leaf, what a person reads, what was sent.

use crate::hl7v2::{Level, Part};
use crate::route::run::Run;
use crate::route::run::value::Value;
use std::borrow::Cow;

impl<'m> Run<'m> {
    /// One level down; component 1 of a simpler value is the value itself.
    pub(crate) fn down(&self, part: Part, n: u16) -> Part {
        // MSH-1 and MSH-2 hold the delimiters themselves.
        if part.start < HEADER || part.level == Level::Subcomponent {
            return self.down_once(part, n);
        }
        let whole = if part.level == Level::Field { self.message.repetition(part, 1) } else { part };
        let n = usize::from(n);
        let found = self.with_ends(whole, |level, ends| {
            let Some(end) = n.checked_sub(1).and_then(|n| ends.get(n)).copied() else { return Part { start: whole.end, end: whole.end, level } };
            let start = if n <= 1 { whole.start } else { ends.get(n - 2).map_or(whole.end, |before| (before + 1).min(whole.end)) };
            Part { start, end, level }
        });
        found.unwrap_or_else(|| self.down_once(part, n as u16))
    }

    /// Where the pieces of a repetition or component end, and what they are. The lines of a map ask one value for one component after the
    /// other, so its delimiters are found once.
    fn with_ends<T>(&self, whole: Part, ask: impl FnOnce(Level, &[u32]) -> T) -> Option<T> {
        let delimiters = self.message.delimiters();
        let (place, delimiter, level) = match whole.level {
            Level::Component => (1, delimiters.subcomponent?, Level::Subcomponent),
            _ => (0, delimiters.component, Level::Component),
        };
        let mut pieces = self.pieces.borrow_mut();
        let known = pieces.get_mut(place)?;
        if known.start != whole.start || known.end != whole.end {
            known.start = whole.start;
            known.end = whole.end;
            known.ends.clear();
            let raw = self.message.raw(whole);
            known.ends.extend(raw.iter().zip(whole.start..).filter(|(b, _)| **b == delimiter).map(|(_, at)| at));
            known.ends.push(whole.end);
        }
        Some(ask(level, &known.ends))
    }

    /// Which pieces of a value hold anything: bit `n` for piece `n`; all where that is not known.
    pub(crate) fn sent_pieces(&self, part: Part) -> u64 {
        let pieces = match part.level {
            _ if part.start < HEADER => None,
            Level::Field => None,
            Level::Subcomponent => Some(if part.is_empty() { 0 } else { 2 }),
            Level::Repetition | Level::Component => self.with_ends(part, |_, ends| {
                let (mut sent, mut start) = (0, part.start);
                for (n, end) in (1..64).zip(ends) {
                    sent |= u64::from(start < *end) << n;
                    start = end + 1;
                }
                sent
            }),
        };
        pieces.unwrap_or(u64::MAX)
    }

    fn down_once(&self, part: Part, n: u16) -> Part {
        match part.level {
            Level::Field | Level::Repetition => self.message.component(part, usize::from(n)),
            Level::Component | Level::Subcomponent => self.message.subcomponent(part, usize::from(n)),
        }
    }

    /// The first primitive of a value: a composite stands for its first component.
    pub(crate) fn leaf(&self, part: Part) -> Part {
        if part.start < HEADER {
            return self.leaf_once(part);
        }
        let delimiters = self.message.delimiters();
        let whole = if part.level == Level::Field { self.message.repetition(part, 1) } else { part };
        let ends = |b: &u8| Some(*b) == delimiters.subcomponent || (*b == delimiters.component && whole.level < Level::Component);
        let length = match whole.level {
            Level::Subcomponent => None,
            _ => self.message.raw(whole).iter().position(ends),
        };
        let end = length.and_then(|n| u32::try_from(n).ok()).map_or(whole.end, |n| whole.start + n);
        Part { start: whole.start, end, level: Level::Subcomponent }
    }

    fn leaf_once(&self, part: Part) -> Part {
        let mut at = part;
        if at.level == Level::Field {
            at = self.message.repetition(at, 1);
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

    pub(crate) fn is_valued(&self, part: Part) -> bool {
        // A value that begins with a letter or digit needs no second look.
        match self.message.raw(part).first() {
            None => false,
            Some(b) if b.is_ascii_alphanumeric() => true,
            Some(_) => self.message.is_valued(part) && self.has_content(part),
        }
    }

    /// `""^""` is no content.
    fn has_content(&self, part: Part) -> bool {
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
            Value::Segment(_) | Value::Piece(_) | Value::Made(_) | Value::Null => Cow::Borrowed(""),
            Value::Text(text) | Value::Moment(text) => text.clone(),
            Value::Number(n) => Cow::Owned(plain(n)),
            Value::Bool(b) => Cow::Borrowed(if *b { "true" } else { "false" }),
            Value::Duration(span) => Cow::Owned(span.count.to_string()),
            Value::Row(row) => Cow::Owned(row.code.clone()),
            Value::Sn(sn) => Cow::Owned(sn.concat()),
            Value::Group(group) => group.first().map_or(Cow::Borrowed(""), |first| self.text_of(first)),
        }
    }

    /// As a person reads it: names in the order they are spoken, addresses with commas, codes by their text.
    pub(crate) fn readable(&self, value: &Value<'m>, datatype: Option<&str>) -> Cow<'m, str> {
        let Value::Part(part) = value else { return self.text_of(value) };
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
pub(crate) fn plain(n: &crate::route::code::Decimal) -> String {
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

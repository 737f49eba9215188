//! Messages that a route writes: values as trees without delimiters, segments that keep every byte which nobody changed, and the finished bytes.

use crate::hl7v2::escape::escape;
use crate::hl7v2::{Charset, Delimiters, Level, Message, Part};
use std::collections::BTreeMap;

/// A finished message for a target that takes messages: the pair to `fhir::Saves`. It cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft {
    /// What tells the messages of one source message apart, the same on every run: the route, and the place of the value that was split by.
    pub place: String,
    /// The message, each segment ended by CR.
    pub bytes: Vec<u8>,
    /// The set that its letters are written in, whatever its MSH-18 says.
    pub charset: Charset,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Draft({}, <patient data>)", self.place)
    }
}

/// How a message is written: what parts its values, and the bytes of its letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coding {
    /// MSH-1 and MSH-2.
    pub delimiters: Delimiters,
    /// MSH-18.
    pub charset: Charset,
}

impl Coding {
    /// What Kiln writes where nothing is copied: `|^~\&` and UTF-8.
    pub const OWN: Coding = Coding { delimiters: Delimiters::STANDARD, charset: Charset::UTF_8 };
}

/// A value of any depth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes in the draft's own coding, delimiters and escapes included, and how deep they are.
    Sent(Vec<u8>, Level),
    /// Text, not escaped yet.
    Text(String),
    /// `""`.
    Null,
    /// Components or subcomponents in order.
    Parts(Vec<Piece>),
}

impl Piece {
    /// No value.
    pub const fn empty() -> Piece {
        Piece::Parts(Vec::new())
    }

    /// A constant of a composite as an analyst writes it, in HL7's standard delimiters and escapes. `level` is where it goes to: components
    /// are parted by `^`, those of a component by `&`.
    pub fn standard(text: &str, level: Level) -> Piece {
        let (delimiter, below) = match level {
            Level::Field | Level::Repetition => ('^', Level::Component),
            Level::Component => ('&', Level::Subcomponent),
            Level::Subcomponent => return Self::leaf(text),
        };
        if text == "\"\"" {
            return Piece::Null;
        }
        if !text.contains(['^', '&']) {
            return Self::leaf(text);
        }
        Piece::Parts(text.split(delimiter).map(|part| Self::standard(part, below)).collect())
    }

    fn leaf(text: &str) -> Piece {
        if text == "\"\"" {
            return Piece::Null;
        }
        let plain = crate::hl7v2::escape::unescape(text.as_bytes(), &Delimiters::STANDARD, Charset::UTF_8, Charset::UTF_8);
        Piece::Text(plain.into_owned())
    }

    /// The value's components (of a repetition) or subcomponents (of a component).
    fn into_parts(self, delimiters: &Delimiters) -> Vec<Piece> {
        match self {
            Piece::Parts(parts) => parts,
            Piece::Sent(bytes, level) => {
                let (delimiter, below) = match level {
                    Level::Field | Level::Repetition => (Some(delimiters.component), Level::Component),
                    Level::Component => (delimiters.subcomponent, Level::Subcomponent),
                    Level::Subcomponent => (None, Level::Subcomponent),
                };
                match delimiter {
                    _ if bytes.is_empty() => Vec::new(),
                    Some(delimiter) => bytes.split(|b| *b == delimiter).map(|part| Piece::Sent(part.to_vec(), below)).collect(),
                    None => vec![Piece::Sent(bytes, below)],
                }
            }
            other => vec![other],
        }
    }

    /// Puts a value at `path` (component, then subcomponent, from 1) and leaves the rest as it is. An empty path takes the whole value's place.
    pub fn set(&mut self, path: &[u16], value: Piece, delimiters: &Delimiters) {
        let Some((first, rest)) = path.split_first() else {
            *self = value;
            return;
        };
        let mut parts = std::mem::replace(self, Piece::empty()).into_parts(delimiters);
        let n = usize::from(*first).max(1);
        if parts.len() < n {
            parts.resize(n, Piece::empty());
        }
        if let Some(part) = parts.get_mut(n - 1) {
            part.set(rest, value, delimiters);
        }
        *self = Piece::Parts(parts);
    }

    /// True if nothing would be written.
    pub fn is_empty(&self) -> bool {
        match self {
            Piece::Sent(bytes, _) => bytes.is_empty(),
            Piece::Text(text) => text.is_empty(),
            Piece::Null => false,
            Piece::Parts(parts) => parts.iter().all(Piece::is_empty),
        }
    }

    /// Appends the value as it stands at `level`; what comes from another depth changes its delimiters. False if a letter is not in the
    /// character set, or a component did not fit into a place without parts.
    fn write(&self, level: Level, coding: &Coding, out: &mut Vec<u8>) -> bool {
        let delimiters = &coding.delimiters;
        match self {
            Piece::Sent(bytes, own) => {
                let parted = bytes.iter().any(|b| *b == delimiters.component || Some(*b) == delimiters.subcomponent);
                if *own == level || !parted || (level <= Level::Repetition && *own <= Level::Repetition) {
                    out.extend_from_slice(bytes);
                    return true;
                }
                Piece::Parts(self.clone().into_parts(delimiters)).write(level, coding, out)
            }
            Piece::Text(text) => {
                let (text, well) = coding.charset.fit(text);
                let mut escaped = Vec::with_capacity(text.len());
                escape(&text, delimiters, &mut escaped);
                coding.charset.encode(&String::from_utf8_lossy(&escaped), out) && well
            }
            Piece::Null => {
                out.extend_from_slice(b"\"\"");
                true
            }
            Piece::Parts(parts) => {
                let (delimiter, below) = match level {
                    Level::Field | Level::Repetition => (Some(delimiters.component), Level::Component),
                    Level::Component => (delimiters.subcomponent, Level::Subcomponent),
                    Level::Subcomponent => (None, Level::Subcomponent),
                };
                let last = parts.iter().rposition(|p| !p.is_empty()).map_or(0, |n| n + 1);
                let mut well = true;
                for (n, part) in parts.iter().take(last).enumerate() {
                    if n > 0 {
                        match delimiter {
                            Some(delimiter) => out.push(delimiter),
                            // The first value is kept, as HL7's rule for a part that has grown parts has it (chapter 2, section 2.8).
                            None => return false,
                        }
                    }
                    well &= part.write(below, coding, out);
                }
                well
            }
        }
    }
}

impl Message {
    /// How this message is written.
    pub fn coding(&self) -> Coding {
        Coding { delimiters: self.delimiters, charset: self.text_charset }
    }

    /// A part for a draft: byte for byte where the draft is written like this message, else with the draft's delimiters and letters.
    pub fn draft_piece(&self, part: Part, coding: &Coding) -> Piece {
        let level = part.level.max(Level::Repetition);
        Piece::Sent(self.recoded(self.raw(part), coding), level)
    }

    /// A whole segment for a draft.
    pub fn draft_segment(&self, segment: usize, coding: &Coding) -> DraftSegment {
        let name = self.segment_name(segment).to_owned();
        let bytes = self.segment_bytes(segment);
        let is_header = is_header(&name);
        let bytes = match bytes.get(self.header_end as usize..) {
            _ if *coding == self.coding() => bytes.to_vec(),
            // The delimiters' own fields are written anew.
            Some(rest) if is_header => {
                let mut out = [name.as_bytes(), &[coding.delimiters.field], &coding.delimiters.encoding_characters()].concat();
                out.extend(self.recoded(rest, coding));
                out
            }
            _ => self.recoded(bytes, coding),
        };
        DraftSegment { is_header, name, tag: 0, sent: Some(bytes), fields: BTreeMap::new() }
    }

    /// Has a draft's character set all letters of these bytes?
    pub fn fits(&self, bytes: &[u8], coding: &Coding) -> bool {
        let own = self.coding().charset;
        own == coding.charset || coding.charset.fit(&own.decode(bytes)).1
    }

    /// Letters that stand as bytes of the message's own set: `\XC4\`, several side by side for one letter; and how many characters follow
    /// the first escape. Nothing for plain ASCII and for what controls the line.
    fn hexadecimal_letters(&self, escape: char, rest: &str) -> Option<(String, usize)> {
        let mut raw = String::new();
        let mut left = rest;
        while let Some((body, more)) = left.strip_prefix('X').and_then(|_| left.split_once(escape)) {
            raw.extend([escape]);
            raw.push_str(body);
            raw.push(escape);
            match more.strip_prefix(escape).filter(|next| next.starts_with('X')) {
                Some(next) => left = next,
                None => break,
            }
        }
        let letters = crate::hl7v2::escape::unescape(raw.as_bytes(), &self.delimiters, Charset::UTF_8, self.charset);
        let foreign = !letters.is_ascii() && !letters.contains(escape) && !letters.contains(char::is_control);
        foreign.then(|| (letters.into_owned(), raw.chars().count() - 1))
    }

    fn recoded(&self, bytes: &[u8], coding: &Coding) -> Vec<u8> {
        let own = self.coding();
        if own == *coding {
            return bytes.to_vec();
        }
        let text = own.charset.decode(bytes);
        let (from, to) = (own.delimiters, coding.delimiters);
        let mut out = Vec::with_capacity(text.len() + 8);
        let mut plain = String::new();
        let flush = |plain: &mut String, out: &mut Vec<u8>| {
            let mut escaped = Vec::new();
            escape(&coding.charset.fit(plain).0, &to, &mut escaped);
            coding.charset.encode(&String::from_utf8_lossy(&escaped), out);
            plain.clear();
        };
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let byte = u8::try_from(c).ok().filter(u8::is_ascii);
            let delimiter = match byte {
                Some(b) if b == from.field => Some(to.field),
                Some(b) if b == from.component => Some(to.component),
                Some(b) if Some(b) == from.repetition => to.repetition.or(Some(b' ')),
                Some(b) if Some(b) == from.subcomponent => to.subcomponent.or(Some(b' ')),
                _ => None,
            };
            if let Some(delimiter) = delimiter {
                flush(&mut plain, &mut out);
                out.push(delimiter);
                continue;
            }
            if byte.is_some() && byte == from.escape {
                // A sequence for one of the message's own delimiters is that character, which may be an ordinary one here.
                let sequence: Option<&str> = rest.as_str().split_once(c).map(|(body, _)| body).filter(|body| body.len() <= 40);
                let own_delimiter = sequence.filter(|_| from != to).and_then(|body| match body {
                    "F" => Some(from.field),
                    "S" => Some(from.component),
                    "R" => from.repetition,
                    "T" => from.subcomponent,
                    "E" => from.escape,
                    _ => None,
                });
                if let Some(byte) = own_delimiter {
                    plain.push(char::from(byte));
                    rest.by_ref().take(2).for_each(drop);
                    continue;
                }
                if let Some((letters, length)) = self.hexadecimal_letters(c, rest.as_str()).filter(|_| own.charset != coding.charset) {
                    plain.push_str(&letters);
                    rest.by_ref().take(length).for_each(drop);
                    continue;
                }
                if let (Some(body), Some(escape)) = (sequence, to.escape) {
                    flush(&mut plain, &mut out);
                    out.push(escape);
                    coding.charset.encode(body, &mut out);
                    out.push(escape);
                    let skip = body.chars().count() + 1;
                    rest.by_ref().take(skip).for_each(drop);
                    continue;
                }
            }
            plain.push(c);
        }
        flush(&mut plain, &mut out);
        out
    }
}

/// A segment being written. What nobody sets keeps its bytes.
#[derive(Clone, Debug)]
pub struct DraftSegment {
    name: String,
    is_header: bool,
    /// Its maker's number for it; 0 is none. No part of the message.
    tag: u32,
    /// As sent, in the draft's coding.
    sent: Option<Vec<u8>>,
    /// Fields that were set, with their repetitions.
    fields: BTreeMap<u16, Vec<Piece>>,
}

fn is_header(name: &str) -> bool {
    ["MSH", "FHS", "BHS"].iter().any(|h| name.eq_ignore_ascii_case(h))
}

impl DraftSegment {
    /// A new one without fields.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), is_header: is_header(name), tag: 0, sent: None, fields: BTreeMap::new() }
    }

    /// `PID`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number that its maker gave it; 0 if none.
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// A number by which its maker knows it again.
    pub fn set_tag(&mut self, tag: u32) {
        self.tag = tag;
    }

    /// True if no line set anything and nothing was copied.
    pub fn is_empty(&self) -> bool {
        self.sent.is_none() && self.fields.values().flatten().all(Piece::is_empty)
    }

    /// Gives a field these repetitions; none empties it.
    pub fn set(&mut self, field: u16, repetitions: Vec<Piece>) {
        self.fields.insert(field, repetitions);
    }

    /// The repetitions that a field has now.
    pub fn repetitions(&self, field: u16, delimiters: &Delimiters) -> Vec<Piece> {
        if let Some(set) = self.fields.get(&field) {
            return set.clone();
        }
        let bytes = self.sent_field(field, delimiters);
        if bytes.is_empty() {
            return Vec::new();
        }
        let repetition = |bytes: &[u8]| Piece::Sent(bytes.to_vec(), Level::Repetition);
        match delimiters.repetition {
            Some(delimiter) => bytes.split(|b| *b == delimiter).map(repetition).collect(),
            None => vec![repetition(bytes)],
        }
    }

    /// A field's first repetition as it will be written.
    pub fn written(&self, field: u16, coding: &Coding) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(first) = self.repetitions(field, &coding.delimiters).first() {
            first.write(Level::Repetition, coding, &mut out);
        }
        out
    }

    fn sent_field(&self, field: u16, delimiters: &Delimiters) -> &[u8] {
        let n = usize::from(field) - usize::from(self.is_header && field > 0);
        let sent = self.sent.as_deref().unwrap_or_default();
        if n == 0 { &[] } else { sent.split(|b| *b == delimiters.field).nth(n).unwrap_or_default() }
    }

    /// Appends the segment without its end. False if something could not be written as it was meant.
    pub fn write(&self, coding: &Coding, out: &mut Vec<u8>) -> bool {
        if let (Some(sent), true) = (&self.sent, self.fields.is_empty()) {
            out.extend_from_slice(sent);
            return true;
        }
        let delimiters = &coding.delimiters;
        let skipped = u16::from(self.is_header);
        let sent: Vec<&[u8]> = self.sent.as_deref().map(|s| s.split(|b| *b == delimiters.field).collect()).unwrap_or_default();
        let highest = usize::from(self.fields.keys().last().map_or(0, |n| n.saturating_sub(skipped)));
        let mut pieces: Vec<Vec<u8>> = Vec::with_capacity(highest + 1);
        let mut well = true;
        for n in 0..=highest.max(sent.len().saturating_sub(1)) {
            let number = u16::try_from(n).unwrap_or(u16::MAX).saturating_add(skipped);
            let set = if n == 0 || (self.is_header && n == 1) { None } else { self.fields.get(&number) };
            let mut bytes = Vec::new();
            match set {
                Some(repetitions) => {
                    for (r, repetition) in repetitions.iter().enumerate() {
                        if r > 0 {
                            bytes.push(delimiters.repetition.unwrap_or(b' '));
                        }
                        well &= repetition.write(Level::Repetition, coding, &mut bytes);
                    }
                }
                None if n == 0 => bytes.extend_from_slice(sent.first().map_or(self.name.as_bytes(), |s| s)),
                None if self.is_header && n == 1 => bytes.extend(delimiters.encoding_characters()),
                None => bytes.extend_from_slice(sent.get(n).copied().unwrap_or_default()),
            }
            pieces.push(bytes);
        }
        // What the sender had after its last value stays; what Kiln adds has no empty end.
        let shortest = sent.len().min(pieces.len());
        while pieces.len() > shortest.max(1) && pieces.last().is_some_and(Vec::is_empty) {
            pieces.pop();
        }
        out.extend_from_slice(&pieces.join(&delimiters.field));
        well
    }
}

#[cfg(test)]
mod tests {
    use super::{Coding, DraftSegment, Piece};
    use crate::hl7v2::{Level, Message, ParseOptions};
    use bytes::Bytes;

    fn message(text: &str) -> Message {
        Message::parse(Bytes::from(text.to_owned()), &ParseOptions::default()).expect("it parses")
    }

    fn written(segment: &DraftSegment, coding: &Coding) -> String {
        let mut out = Vec::new();
        segment.write(coding, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_nobody_sets_keeps_its_bytes() {
        let m = message("MSH|^~\\&|A||B\rPID|1||x^^^^~y\\T\\z^|||\r");
        let coding = m.coding();
        let mut pid = m.draft_segment(1, &coding);
        assert_eq!(written(&pid, &coding), "PID|1||x^^^^~y\\T\\z^|||");
        pid.set(5, vec![Piece::Text("a|b".to_owned())]);
        assert_eq!(written(&pid, &coding), "PID|1||x^^^^~y\\T\\z^||a\\F\\b|");
        let mut repetitions = pid.repetitions(3, &coding.delimiters);
        repetitions[0].set(&[4, 2], Piece::Text("1.2".to_owned()), &coding.delimiters);
        pid.set(3, repetitions);
        assert_eq!(written(&pid, &coding), "PID|1||x^^^&1.2~y\\T\\z^||a\\F\\b|");
        let mut header = m.draft_segment(0, &coding);
        header.set(5, vec![Piece::Text("WARD".to_owned())]);
        assert_eq!(written(&header, &coding), "MSH|^~\\&|A||WARD");
    }

    #[test]
    fn parts_change_their_depth_and_their_delimiters() {
        let m = message("MSH#!@%*#A#H!1.2!ISO\rPID#a@b!c*d%R%\r");
        let hd = m.draft_piece(m.repetition(m.field(0, 4), 1), &m.coding());
        let mut cx = Piece::Text("7".to_owned());
        cx.set(&[4], hd, &m.delimiters());
        let mut pid = DraftSegment::new("PID");
        pid.set(3, vec![cx]);
        assert_eq!(written(&pid, &m.coding()), "PID###7!!!H*1.2*ISO");
        let own = m.draft_segment(1, &Coding::OWN);
        assert_eq!(written(&own, &Coding::OWN), "PID|a~b^c&d@");
        assert_eq!(written(&m.draft_segment(0, &Coding::OWN), &Coding::OWN).get(..4), Some("MSH|"));
    }

    #[test]
    fn letters_that_stand_as_bytes_become_letters_of_another_set() {
        let m = message("MSH|^~\\&|A|||||||||||||||8859/1\rPID|M\\XFC\\ller\\X0D\\\\X41\\\\F\\\r");
        let pid = m.draft_segment(1, &Coding::OWN);
        assert_eq!(written(&pid, &Coding::OWN), "PID|Müller\\X0D\\\\X41\\\\F\\");
        assert!(m.fits(m.segment_bytes(1), &Coding::OWN));
        let m = message("MSH|^~\\&|A|||||||||||||||UNICODE UTF-8\rPID|M\\XC3\\\\XBC\\l\r");
        let ascii = Coding { charset: crate::hl7v2::Charset::ASCII, ..Coding::OWN };
        assert_eq!(written(&m.draft_segment(1, &ascii), &ascii), "PID|Mul");
    }

    #[test]
    fn constants_are_read_in_the_standard_delimiters() {
        let mut segment = DraftSegment::new("PV1");
        segment.set(3, vec![Piece::standard("A^12^^H&1.2&ISO", Level::Repetition)]);
        segment.set(4, vec![Piece::standard("x\\T\\y", Level::Repetition), Piece::Null]);
        let mut cx = Piece::Text("1".to_owned());
        cx.set(&[4], Piece::standard("H&1.2&ISO", Level::Component), &Coding::OWN.delimiters);
        segment.set(5, vec![cx]);
        assert_eq!(written(&segment, &Coding::OWN), "PV1|||A^12^^H&1.2&ISO|x\\T\\y~\"\"|1^^^H&1.2&ISO");
    }
}

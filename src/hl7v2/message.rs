//! A parsed message: look-ups by position. It owns its bytes; a [`Part`] is a place in them.

use crate::exchange::ControlId;
use crate::hl7v2::dictionary::nearest;
use crate::hl7v2::escape::unescape;
use crate::hl7v2::index::Index;
use crate::hl7v2::{Charset, Delimiters, Structure, Version, event_structure, structure};
use bytes::Bytes;
use memchr::memchr;
use std::borrow::Cow;

/// How deep a [`Part`] is.
// Of a word's size, so that a part is copied in whole words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Level {
    /// A field with all of its repetitions.
    Field,
    /// One repetition of a field.
    Repetition,
    /// A component.
    Component,
    /// A subcomponent.
    Subcomponent,
}

/// A place in a message: a range of its bytes, and what it is. Empty where the sender sent nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// Field, repetition, component or subcomponent.
    pub level: Level,
}

impl Part {
    /// A part that is not there.
    pub const fn absent(level: Level) -> Part {
        Part { start: 0, end: 0, level }
    }

    /// True when there are no bytes at all.
    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }
}

/// A message with its index. Made by [`Message::parse`]. It cannot be printed.
pub struct Message {
    /// What was scanned: the frame itself, or its text in UTF-8 where the character set hides delimiters.
    pub(in crate::hl7v2) text: Bytes,
    /// What was received.
    pub(in crate::hl7v2) frame: Bytes,
    pub(in crate::hl7v2) index: Index,
    pub(in crate::hl7v2) delimiters: Delimiters,
    /// Where MSH-2 ends: nothing up to there has components or escapes.
    pub(in crate::hl7v2) header_end: u32,
    pub(in crate::hl7v2) version: Version,
    pub(in crate::hl7v2) charset: Charset,
    pub(in crate::hl7v2) text_charset: Charset,
    pub(in crate::hl7v2) charset_guessed: bool,
    /// What MSH lacked and was filled in: the type with its event; empty if it was MSH-2 alone.
    pub(in crate::hl7v2) filled: Option<String>,
    /// True if delimiters in OBX-5 were taken for text: `text` has them escaped.
    pub(in crate::hl7v2) unescaped: bool,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Message(<patient data>)")
    }
}

impl Message {
    /// How many segments; MSH is segment 0.
    pub fn segment_count(&self) -> usize {
        self.index.segments.len()
    }

    /// A segment's name as sent, also in lower case; empty for a number that is too large or a name that is no text.
    pub fn segment_name(&self, segment: usize) -> &str {
        let Some(place) = self.index.segments.get(segment) else { return "" };
        let end = match self.separators(segment).first() {
            Some(separator) => *separator,
            None => place.end,
        };
        std::str::from_utf8(self.slice(place.start, end)).unwrap_or("")
    }

    /// Is the segment of that name? Capitals and small letters are the same.
    pub fn is_segment(&self, segment: usize, name: &str) -> bool {
        let Some(place) = self.index.segments.get(segment) else { return name.is_empty() };
        let end = self.separators(segment).first().copied().unwrap_or(place.end);
        self.slice(place.start, end).eq_ignore_ascii_case(name.as_bytes())
    }

    /// The name that most segments have, how many have it, and the number of the first of them, from 1: what makes a message long.
    pub fn most_frequent(&self) -> Option<(&str, usize, usize)> {
        let mut counted: std::collections::BTreeMap<&str, (usize, usize)> = std::collections::BTreeMap::new();
        for segment in 0..self.segment_count() {
            counted.entry(self.segment_name(segment)).or_insert((0, segment + 1)).0 += 1;
        }
        counted.into_iter().max_by_key(|(_, (times, _))| *times).map(|(name, (times, first))| (name, times, first))
    }

    /// The numbers of all segments of that name, in order.
    pub fn segments_named(&self, name: &str) -> impl Iterator<Item = usize> {
        (0..self.segment_count()).filter(move |n| self.is_segment(*n, name))
    }

    /// All bytes of a segment as they were scanned, without its end.
    pub fn segment_bytes(&self, segment: usize) -> &[u8] {
        self.index.segments.get(segment).map_or(&[], |s| self.slice(s.start, s.end))
    }

    /// How many fields the segment has, trailing empty ones included.
    pub fn field_count(&self, segment: usize) -> usize {
        self.separators(segment).len() + usize::from(self.is_header(segment))
    }

    /// Which of the first 63 fields of a segment hold anything, if only delimiters: bit `n` for field `n`.
    pub fn sent_fields(&self, segment: usize) -> u64 {
        let Some(place) = self.index.segments.get(segment) else { return 0 };
        let separators = self.separators(segment);
        let ends = separators.iter().skip(1).chain(std::iter::once(&place.end));
        let first = if self.is_header(segment) { 2 } else { 1 };
        let mut sent = if first == 2 { 2 } else { 0 };
        for ((n, start), end) in (first..64).zip(separators).zip(ends) {
            sent |= u64::from(start + 1 < *end) << n;
        }
        sent
    }

    /// Field `n` of a segment, from 1. MSH-1 is the field separator, MSH-2 the encoding characters (chapter 2, section 2.14.9).
    #[inline]
    pub fn field(&self, segment: usize, n: usize) -> Part {
        let absent = Part::absent(Level::Field);
        let Some(place) = self.index.segments.get(segment) else { return absent };
        let separators = self.separators(segment);
        let n = if self.is_header(segment) {
            match (n, separators.first()) {
                (1, Some(at)) => return Part { start: *at, end: *at + 1, level: Level::Field },
                _ => n.wrapping_sub(1),
            }
        } else {
            n
        };
        let Some(start) = n.checked_sub(1).and_then(|n| separators.get(n)) else { return absent };
        Part { start: *start + 1, end: separators.get(n).copied().unwrap_or(place.end), level: Level::Field }
    }

    /// The segment and field that a part stands in; the outermost ones for a part that is not there.
    pub fn place_of(&self, part: Part) -> (usize, usize) {
        let segment = self.index.segments.partition_point(|s| s.start <= part.start).saturating_sub(1);
        let before = self.separators(segment).partition_point(|s| *s < part.start);
        (segment, before + usize::from(self.is_header(segment)))
    }

    /// All repetitions of a field, empty ones between others included; none for an empty field. A lower part gives itself.
    pub fn repetitions(&self, part: Part) -> Repetitions<'_> {
        let delimiter = if part.level == Level::Field && !self.is_in_header(part) { self.delimiters.repetition } else { None };
        let next = if part.is_empty() { None } else { Some(part.start) };
        Repetitions { message: self, delimiter, next, end: part.end, level: part.level.max(Level::Repetition) }
    }

    /// How many repetitions a field has; 0 for an empty one.
    pub fn repetition_count(&self, part: Part) -> usize {
        self.repetitions(part).count()
    }

    /// Repetition `n` of a field, from 1.
    pub fn repetition(&self, part: Part, n: usize) -> Part {
        match part.level {
            Level::Field => {
                let delimiter = if self.is_in_header(part) { None } else { self.delimiters.repetition };
                self.piece(part, delimiter, n, Level::Repetition)
            }
            _ if n == 1 => part,
            level => Part::absent(level),
        }
    }

    /// Component `n`, from 1; of a field, that of its first repetition. Component 1 of a value without components is the value
    /// itself (chapter 2, section 2.5.3).
    pub fn component(&self, part: Part, n: usize) -> Part {
        match part.level {
            Level::Field => self.component(self.repetition(part, 1), n),
            Level::Repetition => {
                let delimiter = if self.is_in_header(part) { None } else { Some(self.delimiters.component) };
                self.piece(part, delimiter, n, Level::Component)
            }
            _ if n == 1 => part,
            level => Part::absent(level),
        }
    }

    /// Subcomponent `n`, from 1; of a field or repetition, that of its first component.
    pub fn subcomponent(&self, part: Part, n: usize) -> Part {
        match part.level {
            Level::Field | Level::Repetition => self.subcomponent(self.component(part, 1), n),
            Level::Component => {
                let delimiter = if self.is_in_header(part) { None } else { self.delimiters.subcomponent };
                self.piece(part, delimiter, n, Level::Subcomponent)
            }
            Level::Subcomponent if n == 1 => part,
            Level::Subcomponent => Part::absent(Level::Subcomponent),
        }
    }

    /// How many components a repetition has (of a field, its first one); 0 for an empty one.
    pub fn component_count(&self, part: Part) -> usize {
        let part = if part.level == Level::Field { self.repetition(part, 1) } else { part };
        let bytes = self.raw(part);
        match part.level {
            _ if bytes.is_empty() => 0,
            Level::Repetition if !self.is_in_header(part) => memchr::memchr_iter(self.delimiters.component, bytes).count() + 1,
            _ => 1,
        }
    }

    /// How many subcomponents a component has; 0 for an empty one.
    pub fn subcomponent_count(&self, part: Part) -> usize {
        let part = if part.level < Level::Component { self.component(part, 1) } else { part };
        let bytes = self.raw(part);
        match (part.level, self.delimiters.subcomponent) {
            _ if bytes.is_empty() => 0,
            (Level::Component, Some(delimiter)) if !self.is_in_header(part) => memchr::memchr_iter(delimiter, bytes).count() + 1,
            _ => 1,
        }
    }

    /// The part's bytes as they were scanned, delimiters and escapes included.
    #[inline]
    pub fn raw(&self, part: Part) -> &[u8] {
        self.slice(part.start, part.end)
    }

    /// The part as a person reads it: decoded, escape sequences resolved. Borrowed where nothing had to change.
    pub fn text(&self, part: Part) -> Cow<'_, str> {
        if self.is_in_header(part) {
            return self.text_charset.decode(self.raw(part));
        }
        unescape(self.raw(part), &self.delimiters, self.text_charset, self.charset)
    }

    /// The whole text where the bytes that were scanned are its UTF-8: then a part without an escape character is a slice of it.
    pub fn as_utf8(&self) -> Option<&str> {
        let same = self.text_charset.is_utf8() || (self.text.is_ascii() && !self.text_charset.has_shifts());
        if same { std::str::from_utf8(&self.text).ok() } else { None }
    }

    /// Does an escape character stand anywhere behind MSH-2?
    pub fn has_escapes(&self) -> bool {
        self.delimiters.escape.is_some_and(|escape| memchr(escape, self.text.get(self.header_end as usize..).unwrap_or_default()).is_some())
    }

    /// Does a subcomponent delimiter stand anywhere behind MSH-2?
    pub fn has_subcomponents(&self) -> bool {
        self.delimiters.subcomponent.is_some_and(|delimiter| memchr(delimiter, self.text.get(self.header_end as usize..).unwrap_or_default()).is_some())
    }

    /// May `""` stand somewhere, by which a sender deletes (chapter 2, section 2.5.3.5)?
    pub fn has_nulls(&self) -> bool {
        memchr::memmem::find(&self.text, b"\"\"").is_some()
    }

    /// The part as it was sent, decoded but with delimiters and escape sequences.
    pub fn raw_text(&self, part: Part) -> Cow<'_, str> {
        self.text_charset.decode(self.raw(part))
    }

    /// True when the sender sent a value: something that is not only delimiters, and not `""`.
    pub fn is_valued(&self, part: Part) -> bool {
        let bytes = self.raw(part);
        if self.is_in_header(part) {
            return !bytes.is_empty();
        }
        bytes != b"\"\"" && bytes.iter().any(|b| !self.delimiters.separates(*b))
    }

    /// True for exactly `""`: the receiver is asked to delete what it has (chapter 2, section 2.5.3.5).
    pub fn is_null(&self, part: Part) -> bool {
        self.raw(part) == b"\"\""
    }

    /// The release that MSH-12 means.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What MSH-1 and MSH-2 declare.
    #[inline]
    pub fn delimiters(&self) -> Delimiters {
        self.delimiters
    }

    /// The set that the bytes were read in.
    pub fn charset(&self) -> Charset {
        self.charset
    }

    /// True when neither the listener nor MSH-18 told a known character set: UTF-8 was taken if the bytes were, else Latin-1.
    pub fn charset_guessed(&self) -> bool {
        self.charset_guessed
    }

    /// How many lines began like no segment and were read as part of the segment before them.
    pub fn wrapped_lines(&self) -> u32 {
        self.index.wrapped_lines
    }

    /// `ADT^A01`; without an event only the type; empty when MSH-9 is.
    pub fn message_type(&self) -> String {
        if let Some(filled) = self.filled.as_ref().filter(|filled| !filled.is_empty()) {
            return filled.clone();
        }
        let field = self.field(0, 9);
        let part = |n| self.text(self.component(field, n)).trim().to_owned();
        match (part(1), part(2)) {
            (kind, event) if event.is_empty() => kind,
            (kind, event) => format!("{kind}^{event}"),
        }
    }

    /// MSH-10 as sent.
    pub fn control_id(&self) -> ControlId {
        ControlId(self.raw_text(self.field(0, 10)).into_owned())
    }

    /// The structure's id: MSH-9.3 where the dictionary has it, else what the event has in this release, in an older, in a newer one.
    /// A message without an event takes it from EVN-1, else the first event of its type (`ORU` is ORU^R01).
    pub fn structure_id(&self) -> Option<&'static str> {
        let named = self.text(self.component(self.field(0, 9), 3));
        if let Some(found) = nearest(self.version, |v| structure(v, named.trim())) {
            return Some(found.id());
        }
        let mut event = self.message_type();
        if !event.contains('^') {
            let kind = event.clone();
            let evn = self.segments_named("EVN").next().map(|evn| self.text(self.component(self.field(evn, 1), 1)).trim().to_owned());
            event = match evn.filter(|e| !e.is_empty()) {
                Some(evn) => format!("{kind}^{evn}"),
                None => {
                    let prefix = format!("{kind}^");
                    return event_structure(self.version, &kind)
                        .or_else(|| nearest(self.version, |v| crate::hl7v2::events(v).find(|(event, _)| event.starts_with(&prefix)).map(|(_, id)| id)));
                }
            };
        }
        event_structure(self.version, &event)
    }

    /// The abstract syntax of this message, from its release, else from the nearest one that has it.
    pub fn structure(&self) -> Option<Structure> {
        let id = self.structure_id()?;
        nearest(self.version, |v| structure(v, id))
    }

    /// What [`Part`]s are places in: the frame, or its text in UTF-8 where the character set hides delimiters.
    pub fn bytes(&self) -> &[u8] {
        &self.text
    }

    /// The bytes of a slice of [`Message::bytes`], held together with it instead of being copied; `None` for a text from elsewhere.
    pub fn share(&self, text: &str) -> Option<Bytes> {
        let (whole, part) = (self.text.as_ptr_range(), text.as_bytes().as_ptr_range());
        (whole.start <= part.start && part.end <= whole.end).then(|| self.text.slice_ref(text.as_bytes()))
    }

    /// What was read, byte for byte.
    pub fn write(&self) -> &[u8] {
        &self.frame
    }

    #[inline]
    fn slice(&self, start: u32, end: u32) -> &[u8] {
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }

    #[inline]
    fn separators(&self, segment: usize) -> &[u32] {
        let Some(place) = self.index.segments.get(segment) else { return &[] };
        let end = self.index.segments.get(segment + 1).map_or(self.index.separators.len(), |next| next.first as usize);
        self.index.separators.get(place.first as usize..end).unwrap_or_default()
    }

    fn is_header(&self, segment: usize) -> bool {
        // In their order: a batch of 64 MiB has many.
        u32::try_from(segment).is_ok_and(|segment| self.index.headers.binary_search(&segment).is_ok())
    }

    /// MSH-1 and MSH-2 hold delimiters, not values.
    #[inline]
    fn is_in_header(&self, part: Part) -> bool {
        part.end <= self.header_end
    }

    /// The `n`th piece of a part between delimiters, from 1.
    fn piece(&self, part: Part, delimiter: Option<u8>, n: usize, level: Level) -> Part {
        let Some(mut skip) = n.checked_sub(1) else { return Part::absent(level) };
        let Some(delimiter) = delimiter else {
            return if skip == 0 { Part { level, ..part } } else { Part::absent(level) };
        };
        let mut start = part.start;
        loop {
            let length = memchr(delimiter, self.slice(start, part.end));
            let end = length.map_or(part.end, |length| start + u32::try_from(length).unwrap_or(0));
            if skip == 0 {
                return Part { start, end, level };
            }
            if length.is_none() {
                return Part::absent(level);
            }
            start = end + 1;
            skip -= 1;
        }
    }
}

/// The repetitions of a field, in order.
#[derive(Clone)]
pub struct Repetitions<'a> {
    message: &'a Message,
    delimiter: Option<u8>,
    next: Option<u32>,
    end: u32,
    level: Level,
}

impl Iterator for Repetitions<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let start = self.next?;
        let length = self.delimiter.and_then(|d| memchr(d, self.message.slice(start, self.end)));
        let end = length.map_or(self.end, |length| start + u32::try_from(length).unwrap_or(0));
        self.next = length.map(|_| end + 1);
        Some(Part { start, end, level: self.level })
    }
}

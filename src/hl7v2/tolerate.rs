//! Rules that senders break, and that a message can be read without: which of them a message breaks, and which a listener minds.

use crate::hl7v2::header::message_start;
use crate::hl7v2::{Fault, Location, Message};
use memchr::memchr;

/// Which broken rules are taken. Those that say how a message is read are in [`crate::hl7v2::ParseOptions`] too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerate {
    /// A byte order mark, blanks or blank lines before MSH.
    pub leading: bool,
    /// Segments that end with LF or CRLF (chapter 2, section 2.5.4: the terminator is CR and cannot be changed).
    pub line_feeds: bool,
    /// Segment names in small letters (section 2.5.1).
    pub segment_case: bool,
    /// Line breaks within values.
    pub broken_lines: bool,
    /// Several messages in one frame (appendix C: one).
    pub concatenated: bool,
    /// An empty MSH-2, and an MSH-9 without an event.
    pub header: bool,
    /// Delimiters in OBX-5 that are not escaped (section 2.7).
    pub unescaped: bool,
}

impl Default for Tolerate {
    fn default() -> Self {
        Self { leading: true, line_feeds: true, segment_case: true, broken_lines: true, concatenated: true, header: false, unescaped: false }
    }
}

impl Tolerate {
    /// All of it, or nothing.
    pub fn all(on: bool) -> Self {
        Self { leading: on, line_feeds: on, segment_case: on, broken_lines: on, concatenated: on, header: on, unescaped: on }
    }

    /// Is it taken?
    pub fn takes(&self, oddity: Oddity) -> bool {
        match oddity {
            Oddity::Leading => self.leading,
            Oddity::LineFeeds => self.line_feeds,
            Oddity::SegmentCase => self.segment_case,
            Oddity::BrokenLines => self.broken_lines,
            Oddity::Concatenated => self.concatenated,
            Oddity::Header => self.header,
            Oddity::Unescaped => self.unescaped,
        }
    }
}

/// A rule that a message breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// Something stands before MSH.
    Leading,
    /// Segments end with LF or CRLF.
    LineFeeds,
    /// Names of segments in small letters.
    SegmentCase,
    /// Lines that begin like no segment.
    BrokenLines,
    /// A second MSH.
    Concatenated,
    /// Something of MSH was filled in.
    Header,
    /// Delimiters in OBX-5 were taken for text.
    Unescaped,
}

impl Oddity {
    /// The switch of `tolerate:`, which is also the label of its count.
    pub fn switch(self) -> &'static str {
        match self {
            Oddity::Leading => "leading",
            Oddity::LineFeeds => "line-feeds",
            Oddity::SegmentCase => "segment-case",
            Oddity::BrokenLines => "broken-lines",
            Oddity::Concatenated => "concatenated",
            Oddity::Header => "header",
            Oddity::Unescaped => "unescaped",
        }
    }

    /// What a sender is told whose message is refused for it.
    pub fn fault(self) -> Fault {
        let (place, code, what) = match self {
            Oddity::Leading => (Location::default(), Fault::SEGMENT_SEQUENCE, "something stands before MSH"),
            Oddity::LineFeeds => (Location::default(), Fault::DATA_TYPE, "segments end with a line feed, not with a carriage return alone"),
            Oddity::SegmentCase => (Location::default(), Fault::SEGMENT_SEQUENCE, "names of segments are written in small letters"),
            Oddity::BrokenLines => (Location::default(), Fault::SEGMENT_SEQUENCE, "a line begins like no segment"),
            Oddity::Concatenated => {
                (Location { segment: "MSH".to_owned(), sequence: 2, ..Location::default() }, Fault::SEGMENT_SEQUENCE, "a second message stands in the frame")
            }
            Oddity::Header => (Location::field("MSH", 9), Fault::REQUIRED_FIELD_MISSING, "MSH lacks a field that it needs"),
            Oddity::Unescaped => (Location::field("OBX", 5), Fault::DATA_TYPE, "delimiters in text are not escaped"),
        };
        Fault::new(place, code, format!("{what}, which this listener does not take (tolerate: {})", self.switch()))
    }
}

impl Message {
    /// The rules that this message breaks and was read without, in a fixed order.
    pub fn oddities(&self) -> impl Iterator<Item = Oddity> {
        let small = || {
            let name = |n| self.segment_bytes(n).get(..3).unwrap_or_default();
            (0..self.segment_count()).any(|n| name(n).iter().any(u8::is_ascii_lowercase))
        };
        let second = || (1..self.segment_count()).any(|n| self.segment_bytes(n).get(..4).is_some_and(|head| is_msh(head, self.delimiters.field)));
        [
            (message_start(&self.text) > 0).then_some(Oddity::Leading),
            memchr(b'\n', &self.text).map(|_| Oddity::LineFeeds),
            small().then_some(Oddity::SegmentCase),
            (self.wrapped_lines() > 0).then_some(Oddity::BrokenLines),
            second().then_some(Oddity::Concatenated),
            self.filled.is_some().then_some(Oddity::Header),
            self.unescaped.then_some(Oddity::Unescaped),
        ]
        .into_iter()
        .flatten()
    }
}

fn is_msh(head: &[u8], field: u8) -> bool {
    matches!(head.split_last(), Some((last, name)) if *last == field && name.eq_ignore_ascii_case(b"MSH"))
}

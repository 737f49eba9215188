//! From a frame to a message: header, character set, index.

use crate::hl7v2::charset::{Named, declared, lookup};
use crate::hl7v2::escape::first_unreadable;
use crate::hl7v2::header::{hiding_charset, message_start};
use crate::hl7v2::index::Index;
use crate::hl7v2::wide::Wide;
use crate::hl7v2::{Charset, Delimiters, Fault, Location, Message, Version, event_structure, events};
use bytes::Bytes;
use memchr::{memchr, memchr2};

/// How to read a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParseOptions {
    /// Used whatever MSH-18 says: the sender lies.
    pub charset: Option<Charset>,
    /// Used where MSH-18 says nothing, or nothing known.
    pub charset_otherwise: Option<Charset>,
    /// Fill in an empty MSH-2, and an event that MSH-9 lacks and EVN-1 has.
    pub header: bool,
    /// Take delimiters in OBX-5 for text where a rule tells that they are.
    pub unescaped: bool,
}

/// Begins an escape sequence of ISO 2022.
const ESC: u8 = 0x1B;

/// Offsets in an index are 32 bits wide.
const MESSAGE_BYTES_MAX: usize = u32::MAX as usize - 1;

impl Message {
    /// Reads a frame's payload. Content never makes this fail: only an MSH that cannot be read, and bytes that the character set
    /// cannot decode. Tolerated: a byte order mark, framing bytes and blank lines around the message, CR, LF and CRLF (also mixed),
    /// no end at the last segment. A line that begins like no segment is read as part of the segment before it.
    pub fn parse(frame: Bytes, options: &ParseOptions) -> Result<Message, Fault> {
        if frame.len() > MESSAGE_BYTES_MAX {
            return Err(Fault::new(Location::default(), Fault::INTERNAL, "the message is larger than 4 GiB"));
        }
        let wide = Wide::detect(&frame).map(|(wide, _)| wide);
        let text = match wide {
            Some(wide) => Bytes::from(wide.decode(&frame).map_err(|at| undecodable_wide(wide, &frame, at))?),
            None => frame.clone(),
        };
        let start = message_start(&text);
        let rest = text.get(start..).unwrap_or_default();
        let (delimiters, header_length) =
            Delimiters::read(rest).or_else(|fault| if options.header { Delimiters::assumed(rest).ok_or(fault) } else { Err(fault) })?;
        let line_end = memchr2(b'\r', b'\n', rest).map_or(text.len(), |n| start + n);

        let mut index = Index::with_room_for(text.len());
        index.scan(&text, start, line_end, delimiters.field);
        let mut message = Message {
            text,
            frame,
            index,
            delimiters,
            header_end: u32::try_from(start + header_length).unwrap_or(u32::MAX),
            version: Version::V25,
            charset: Charset::UTF_8,
            text_charset: Charset::UTF_8,
            charset_guessed: false,
            filled: (header_length == 4).then(String::new),
            unescaped: false,
        };
        match wide {
            Some(wide) => message.charset = Charset::wide(wide),
            None => message.choose_charset(options)?,
        }

        if wide.is_none() && message.charset.hides_delimiters() {
            let decoded = message.charset.to_utf8(&message.frame).map_err(|at| message.undecodable(at))?;
            message.text = Bytes::from(decoded);
            message.text_charset = Charset::UTF_8;
            message.index_again(header_length);
        } else {
            message.text_charset = if wide.is_some() { Charset::UTF_8 } else { message.charset };
            message.index.scan(&message.text, line_end, message.text.len(), delimiters.field);
            match message.text_charset.first_undecodable(&message.text) {
                Some(_) if message.charset_guessed => (message.charset, message.text_charset) = (Charset::LATIN_1, Charset::LATIN_1),
                // Alternate sets, which escape sequences change to, may hold what the first one cannot.
                Some(_) => {
                    if let Some(at) = first_unreadable(&message.text, &delimiters, message.text_charset) {
                        return Err(message.undecodable(at));
                    }
                }
                None => {}
            }
        }
        message.version = Version::of(&message.text(message.component(message.field(0, 12), 1)));
        if options.header {
            message.fill_event();
        }
        if options.unescaped
            && let Some(text) = message.with_observations_escaped()
        {
            message.text = Bytes::from(text);
            message.unescaped = true;
            message.index_again(header_length);
        }
        Ok(message)
    }

    /// The text is another one now; MSH-1 and MSH-2 are the same.
    fn index_again(&mut self, header_length: usize) {
        self.index = Index::with_room_for(self.text.len());
        let start = message_start(&self.text);
        self.header_end = u32::try_from(start + header_length).unwrap_or(u32::MAX);
        self.index.scan(&self.text, start, self.text.len(), self.delimiters.field);
    }

    /// Where MSH-9 has no event: that of EVN-1, with the type of MSH-9.1, else the only one that has such an event.
    fn fill_event(&mut self) {
        let field = self.field(0, 9);
        let part = |n| self.text(self.component(field, n)).trim().to_owned();
        let (kind, event) = (part(1), part(2));
        if !event.is_empty() {
            return;
        }
        let evn = self.segments_named("EVN").next().map(|evn| self.text(self.component(self.field(evn, 1), 1)).trim().to_owned());
        let Some(evn) = evn.filter(|evn| !evn.is_empty()) else { return };
        let mut types = events(self.version()).filter_map(|(known, _)| known.split_once('^')).filter(|(_, e)| *e == evn).map(|(kind, _)| kind);
        let filled = match (kind.is_empty(), types.next()) {
            (true, Some(only)) if types.all(|other| other == only) => Some(format!("{only}^{evn}")),
            (false, _) if event_structure(self.version(), &format!("{kind}^{evn}")).is_some() => Some(format!("{kind}^{evn}")),
            _ => None,
        };
        self.filled = filled.or_else(|| self.filled.take());
    }

    /// The listener's set, else MSH-18; where that says nothing or nothing known: UTF-8 if the bytes are, else Latin-1.
    fn choose_charset(&mut self, options: &ParseOptions) -> Result<(), Fault> {
        if let Some(charset) = options.charset {
            self.charset = charset;
            return Ok(());
        }
        // Characters that hide delimiters may stand in MSH itself; then MSH-18 seems to be further to the right.
        let has_escapes = self.segment_bytes(0).contains(&ESC);
        if !self.segment_bytes(0).is_ascii() || has_escapes {
            let hiding = (18..=self.field_count(0)).find_map(|n| hiding_charset(self.raw(self.field(0, n)), self.delimiters, has_escapes));
            if let Some(charset) = hiding {
                self.charset = charset;
                return Ok(());
            }
        }
        let sent = self.field(0, 18);
        let otherwise = options.charset_otherwise.map_or(Named::Unknown, Named::Readable);
        let named = match self.repetition_count(sent) {
            0 => Named::Unknown,
            1 => lookup(&self.text(sent)),
            _ => {
                let names: Vec<String> = self.repetitions(sent).map(|name| self.text(name).into_owned()).collect();
                declared(names.iter().map(String::as_str), memchr(ESC, &self.frame).is_some())
            }
        };
        match if named == Named::Unknown { otherwise } else { named } {
            Named::Readable(charset) => self.charset = charset,
            Named::Refused(name @ ("UNICODE UTF-16" | "UNICODE UTF-32")) => {
                let text = format!("MSH-18 says {name}, and the message is not written in it; over MLLP it cannot be");
                return Err(Fault::new(Location::field("MSH", 18), Fault::TABLE_VALUE, text));
            }
            Named::Refused(name) => {
                let text = format!("the character set {name} in MSH-18 is not supported");
                return Err(Fault::new(Location::field("MSH", 18), Fault::TABLE_VALUE, text));
            }
            Named::Unknown => {
                self.charset_guessed = true;
                self.charset = Charset::UTF_8;
            }
        }
        Ok(())
    }

    /// Names the place of a byte that cannot be decoded: its offset in the frame, and the field around it.
    fn undecodable(&self, at: usize) -> Fault {
        let mut index = Index::with_room_for(self.frame.len());
        index.scan(&self.frame, message_start(&self.frame), self.frame.len(), self.delimiters.field);
        let name = |n: usize| {
            let line = index.segments.get(n).and_then(|s| self.frame.get(s.start as usize..s.end as usize)).unwrap_or_default();
            line.get(..memchr(self.delimiters.field, line).unwrap_or(line.len())).unwrap_or_default()
        };
        let mut location = Location::default();
        if let Some(n) = index.segments.partition_point(|s| s.start as usize <= at).checked_sub(1) {
            let bounds = |n: usize| index.segments.get(n).map_or(index.separators.len(), |s| s.first as usize);
            let separators = index.separators.get(bounds(n)..bounds(n + 1)).unwrap_or_default();
            let before = separators.iter().filter(|s| (**s as usize) < at).count();
            location = Location {
                segment: segment_name(name(n)).to_owned(),
                sequence: u32::try_from((0..=n).filter(|other| name(*other) == name(n)).count()).unwrap_or(0),
                field: u32::try_from(before + usize::from(n == 0)).unwrap_or(0),
                ..Location::default()
            };
        }
        let text = format!("byte {at} of the message, in {}, cannot be read in the character set {}", location.path(), self.charset.name());
        Fault::new(location, Fault::DATA_TYPE, text)
    }
}

/// The place is where the text that can be read ends.
fn undecodable_wide(wide: Wide, frame: &[u8], at: usize) -> Fault {
    let readable = wide.decode(frame.get(..at).unwrap_or_default()).unwrap_or_default();
    let lines: Vec<&str> = readable.split(['\r', '\n']).collect();
    let mut location = Location::default();
    if let (Some(separator), Some(line)) = (readable.trim_start().chars().nth(3), lines.last()) {
        let name = |line: &str| segment_name(line.split(separator).next().unwrap_or_default().as_bytes()).to_owned();
        let fields = u32::try_from(line.matches(separator).count()).unwrap_or(0);
        let sequence = u32::try_from(lines.iter().filter(|other| name(other) == name(line)).count()).unwrap_or(0);
        location = Location { segment: name(line), sequence, field: fields + u32::from(name(line) == "MSH"), ..location };
    }
    let text = format!("byte {at} of the message, in {}, cannot be read in the character set {}", location.path(), wide.name());
    Fault::new(location, Fault::DATA_TYPE, text)
}

/// A segment's name, if it is one: what a message that is cut in the wrong places has there may be anything, also a patient's name.
fn segment_name(name: &[u8]) -> &str {
    let is_name = matches!(name, [b'A'..=b'Z', b'A'..=b'Z' | b'0'..=b'9', b'A'..=b'Z' | b'0'..=b'9']);
    std::str::from_utf8(name).ok().filter(|_| is_name).unwrap_or("")
}

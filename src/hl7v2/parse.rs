//! From a frame to a message: header, character set, index.

use crate::hl7v2::charset::{Named, declared, lookup};
use crate::hl7v2::header::{hiding_charset, message_start};
use crate::hl7v2::index::Index;
use crate::hl7v2::wide::Wide;
use crate::hl7v2::{Charset, Delimiters, Fault, Location, Message, Version};
use bytes::Bytes;
use memchr::{memchr, memchr2};

/// How to read a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParseOptions {
    /// The listener's character set: used whatever MSH-18 says.
    pub charset: Option<Charset>,
}

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
        if let Some((wide, _)) = Wide::detect(&frame) {
            let text = format!("the message is written in {}, which is not read here", wide.name());
            return Err(Fault::new(Location::field("MSH", 18), Fault::TABLE_VALUE, text));
        }
        let start = message_start(&frame);
        let (delimiters, header_length) = Delimiters::read(frame.get(start..).unwrap_or_default())?;
        let line_end = memchr2(b'\r', b'\n', frame.get(start..).unwrap_or_default()).map_or(frame.len(), |n| start + n);

        let mut index = Index::with_room_for(frame.len());
        index.scan(&frame, start, line_end, delimiters.field);
        let mut message = Message {
            text: frame.clone(),
            frame,
            index,
            delimiters,
            header_end: u32::try_from(start + header_length).unwrap_or(u32::MAX),
            version: Version::V25,
            charset: Charset::UTF_8,
            text_charset: Charset::UTF_8,
            charset_guessed: false,
        };
        message.choose_charset(options)?;

        if message.charset.hides_delimiters() {
            let decoded = message.charset.to_utf8(&message.frame).map_err(|at| message.undecodable(at))?;
            message.text = Bytes::from(decoded);
            message.text_charset = Charset::UTF_8;
            message.index = Index::with_room_for(message.text.len());
            let start = message_start(&message.text);
            message.header_end = u32::try_from(start + header_length).unwrap_or(u32::MAX);
            message.index.scan(&message.text, start, message.text.len(), delimiters.field);
        } else {
            message.text_charset = message.charset;
            message.index.scan(&message.text, line_end, message.text.len(), delimiters.field);
            match message.charset.first_undecodable(&message.text) {
                Some(_) if message.charset_guessed => (message.charset, message.text_charset) = (Charset::LATIN_1, Charset::LATIN_1),
                Some(at) => return Err(message.undecodable(at)),
                None => {}
            }
        }
        message.version = Version::of(&message.text(message.component(message.field(0, 12), 1)));
        Ok(message)
    }

    /// The listener's set, else MSH-18; where that says nothing or nothing known: UTF-8 if the bytes are, else Latin-1.
    fn choose_charset(&mut self, options: &ParseOptions) -> Result<(), Fault> {
        if let Some(charset) = options.charset {
            self.charset = charset;
            return Ok(());
        }
        // Characters that hide delimiters may stand in MSH itself; then MSH-18 seems to be further to the right.
        if !self.segment_bytes(0).is_ascii() || self.segment_bytes(0).contains(&0x1B) {
            let hiding = (18..=self.field_count(0)).find_map(|n| hiding_charset(self.raw(self.field(0, n)), self.delimiters));
            if let Some(charset) = hiding {
                self.charset = charset;
                return Ok(());
            }
        }
        let sent = self.field(0, 18);
        let named = match self.repetition_count(sent) {
            0 => Named::Unknown,
            1 => lookup(&self.text(sent)),
            _ => {
                let names: Vec<String> = self.repetitions(sent).map(|name| self.text(name).into_owned()).collect();
                declared(names.iter().map(String::as_str))
            }
        };
        match named {
            Named::Readable(charset) => self.charset = charset,
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

/// A segment's name, if it is one: what a message that is cut in the wrong places has there may be anything, also a patient's name.
fn segment_name(name: &[u8]) -> &str {
    let is_name = matches!(name, [b'A'..=b'Z', b'A'..=b'Z' | b'0'..=b'9', b'A'..=b'Z' | b'0'..=b'9']);
    std::str::from_utf8(name).ok().filter(|_| is_name).unwrap_or("")
}

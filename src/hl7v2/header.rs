//! MSH alone: what intake needs before anything else of a message is looked at.

use crate::exchange::ControlId;
use crate::hl7v2::charset::{Named, declared};
use crate::hl7v2::wide::Wide;
use crate::hl7v2::{Charset, Delimiters, Fault, Version};
use memchr::memchr2;
use std::borrow::Cow;

/// The last field of MSH that any release defines, and some more.
const FIELDS_MAX: usize = 32;

/// A header is a few hundred bytes; of a frame without any segment end no more than this is looked at and kept.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// The first segment of a message. It owns its bytes, and holds them as sent; of UTF-16 and UTF-32, their text in UTF-8.
#[derive(Clone)]
pub struct Header {
    line: Box<[u8]>,
    delimiters: Delimiters,
    /// Offsets in `line` of the field separators, MSH-1 first.
    separators: Vec<u32>,
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Header(<as sent>)")
    }
}

impl Header {
    /// Reads the MSH segment that a frame begins with; the rest is not looked at.
    pub fn read(frame: &[u8]) -> Result<Header, Fault> {
        Self::read_filled(frame, false)
    }

    /// The same. `fill`: an empty MSH-2 is read as `^~\&`.
    pub fn read_filled(frame: &[u8], fill: bool) -> Result<Header, Fault> {
        let wide = Wide::detect(frame).map(|(wide, _)| wide);
        let decoded = wide.map(|wide| {
            let frame = frame.get(..HEADER_BYTES_MAX * wide.unit_bytes()).unwrap_or(frame);
            // What cannot be read is told by who reads the whole message; here it ends what there is.
            wide.decode(frame).or_else(|at| wide.decode(frame.get(..at).unwrap_or_default())).unwrap_or_default()
        });
        let frame = decoded.as_ref().map_or(frame, String::as_bytes);
        let frame = frame.get(message_start(frame)..).unwrap_or_default();
        let frame = frame.get(..HEADER_BYTES_MAX).unwrap_or(frame);
        let (delimiters, encoding_end) = Delimiters::read(frame).or_else(|fault| if fill { Delimiters::assumed(frame).ok_or(fault) } else { Err(fault) })?;
        let mut line = frame.get(..memchr2(b'\r', b'\n', frame).unwrap_or(frame.len())).unwrap_or_default();
        while let [rest @ .., 0x1C | 0x0B] = line {
            line = rest;
        }
        let separators = separators(line, delimiters.field, encoding_end, |_| false);
        let mut header = Header { line: line.into(), delimiters, separators };
        if wide.is_some() {
            return Ok(header);
        }
        if let Some(charset) = header.names_hiding_charset() {
            let mut hidden = Hidden { has_leads: !charset.has_shifts(), ..Hidden::default() };
            header.separators = self::separators(line, delimiters.field, encoding_end, |byte| hidden.hides(byte));
        }
        Ok(header)
    }

    /// True when the segment holds characters that a delimiter byte may be part of, in a set that MSH-18 names. Such bytes may
    /// have been taken for separators, so that MSH-18 seems to stand further to the right than it does.
    fn names_hiding_charset(&self) -> Option<Charset> {
        let has_escapes = self.line.contains(&ESC);
        if self.line.is_ascii() && !has_escapes {
            return None;
        }
        // However many bytes of letters look like separators before it. The segment's name and MSH-2 are the first two.
        let mut fields = self.line.split(|b| *b == self.delimiters.field).skip(17);
        fields.find_map(|field| hiding_charset(field, self.delimiters, has_escapes))
    }

    /// What MSH-1 and MSH-2 declare.
    pub fn delimiters(&self) -> Delimiters {
        self.delimiters
    }

    /// MSH-`n` as sent; empty when it is not there.
    pub fn raw(&self, n: usize) -> &[u8] {
        let at = |n: usize| self.separators.get(n).map(|at| *at as usize);
        if n == 1 {
            return self.line.get(3..4).unwrap_or_default();
        }
        let Some(start) = n.checked_sub(2).and_then(at) else { return &[] };
        self.line.get(start + 1..at(n - 1).unwrap_or(self.line.len())).unwrap_or_default()
    }

    /// MSH-`n` as text, delimiters and escapes as sent; bytes that are not UTF-8 are read as Latin-1.
    pub fn text(&self, n: usize) -> Cow<'_, str> {
        as_text(self.raw(n))
    }

    /// A component of MSH-`n`, from 1, without blanks around it.
    pub fn component(&self, n: usize, component: usize) -> Cow<'_, str> {
        let field = self.raw(n);
        let first = self.delimiters.repetition.and_then(|r| field.split(|b| *b == r).next()).unwrap_or(field);
        let bytes = component.checked_sub(1).and_then(|n| first.split(|b| *b == self.delimiters.component).nth(n)).unwrap_or_default();
        as_text(bytes.trim_ascii())
    }

    /// MSH-3 as sent.
    pub fn sending_application(&self) -> Cow<'_, str> {
        self.text(3)
    }

    /// MSH-4 as sent.
    pub fn sending_facility(&self) -> Cow<'_, str> {
        self.text(4)
    }

    /// MSH-5 as sent.
    pub fn receiving_application(&self) -> Cow<'_, str> {
        self.text(5)
    }

    /// MSH-6 as sent.
    pub fn receiving_facility(&self) -> Cow<'_, str> {
        self.text(6)
    }

    /// MSH-7 as sent.
    pub fn message_time(&self) -> Cow<'_, str> {
        self.text(7)
    }

    /// `ADT^A01`; without an event only the type; empty when MSH-9 is.
    pub fn message_type(&self) -> String {
        match (self.component(9, 1), self.component(9, 2)) {
            (kind, event) if event.is_empty() => kind.into_owned(),
            (kind, event) => format!("{kind}^{event}"),
        }
    }

    /// MSH-10 as sent.
    pub fn control_id(&self) -> ControlId {
        ControlId(self.text(10).into_owned())
    }

    /// MSH-11 as sent.
    pub fn processing_id(&self) -> Cow<'_, str> {
        self.text(11)
    }

    /// The release that MSH-12 means.
    pub fn version(&self) -> Version {
        Version::of(&self.component(12, 1))
    }

    /// MSH-15: when the sender wants an accept acknowledgement (`AL`, `NE`, `ER`, `SU`); empty in original mode.
    pub fn accept_acknowledgement(&self) -> Cow<'_, str> {
        self.component(15, 1)
    }

    /// MSH-16: when the sender wants an application acknowledgement.
    pub fn application_acknowledgement(&self) -> Cow<'_, str> {
        self.component(16, 1)
    }

    /// MSH-18 as sent.
    pub fn character_set(&self) -> Cow<'_, str> {
        self.text(18)
    }
}

const ESC: u8 = 0x1B;

/// The set that a field names, if delimiter bytes may be part of its characters (the last repetition may name one to shift to).
/// `has_escapes`: there are escape sequences of ISO 2022 around.
pub(in crate::hl7v2) fn hiding_charset(field: &[u8], delimiters: Delimiters, has_escapes: bool) -> Option<Charset> {
    let names = field.split(|b| Some(*b) == delimiters.repetition).filter_map(|name| std::str::from_utf8(name).ok());
    match declared(names, has_escapes) {
        Named::Readable(charset) if charset.hides_delimiters() => Some(charset),
        _ => None,
    }
}

/// The offsets of MSH's field separators, MSH-1 first.
fn separators(line: &[u8], field: u8, from: usize, mut hides: impl FnMut(u8) -> bool) -> Vec<u32> {
    let mut found = Vec::with_capacity(FIELDS_MAX);
    found.push(3);
    for (at, byte) in line.iter().enumerate().skip(from) {
        if !hides(*byte) && *byte == field {
            found.push(u32::try_from(at).unwrap_or(u32::MAX));
            if found.len() == FIELDS_MAX {
                break;
            }
        }
    }
    found
}

/// Tells which bytes are the second of a character (BIG-5, GB 18030, KS X 1001) or stand in a shifted run (ISO 2022).
#[derive(Default)]
struct Hidden {
    /// False where bytes beyond ASCII stand alone.
    has_leads: bool,
    lead: bool,
    escape: [u8; 3],
    shifted: bool,
}

impl Hidden {
    fn hides(&mut self, byte: u8) -> bool {
        if self.lead {
            self.lead = false;
            return true;
        }
        let [_, b, c] = self.escape;
        self.escape = [b, c, byte];
        match self.escape {
            [ESC, b'$', _] => self.shifted = true,
            [ESC, b'(', _] => {
                self.shifted = false;
                return true;
            }
            _ => self.lead = self.has_leads && byte >= 0x81,
        }
        self.shifted || self.lead
    }
}

fn as_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|b| char::from(*b)).collect()),
    }
}

/// Where the message begins: after a byte order mark, framing bytes, blanks and blank lines.
pub(in crate::hl7v2) fn message_start(frame: &[u8]) -> usize {
    let mut start = 0;
    while let Some(rest) = frame.get(start..) {
        match rest {
            [0xEF, 0xBB, 0xBF, ..] => start += 3,
            [b'\r' | b'\n' | b' ' | b'\t' | 0x0B | 0x1C, ..] => start += 1,
            _ => break,
        }
    }
    start
}

/// The segment by which a file or a batch begins, or ends (HL7 chapter 2, section 2.10.3), if the frame begins with one.
pub fn batch_segment(frame: &[u8]) -> Option<&'static str> {
    let name = frame.get(message_start(frame)..)?.first_chunk::<3>()?;
    ["FHS", "BHS", "BTS", "FTS"].into_iter().find(|batch| name.eq_ignore_ascii_case(batch.as_bytes()))
}

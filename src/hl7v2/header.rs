//! MSH alone: what intake needs before anything else of a message is looked at.

use crate::exchange::ControlId;
use crate::hl7v2::{Delimiters, Fault, Version};
use memchr::{memchr, memchr2};
use std::borrow::Cow;

/// The last field of MSH that any release defines, and some more.
const FIELDS_MAX: usize = 32;

/// A header is a few hundred bytes; of a frame without any segment end no more than this is looked at and kept.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// The first segment of a message. It owns its bytes, and holds them as sent.
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
        let frame = frame.get(message_start(frame)..).unwrap_or_default();
        let frame = frame.get(..HEADER_BYTES_MAX).unwrap_or(frame);
        let (delimiters, encoding_end) = Delimiters::read(frame)?;
        let mut line = frame.get(..memchr2(b'\r', b'\n', frame).unwrap_or(frame.len())).unwrap_or_default();
        while let [rest @ .., 0x1C | 0x0B] = line {
            line = rest;
        }
        let mut separators = Vec::with_capacity(FIELDS_MAX);
        separators.push(3);
        let mut at = encoding_end;
        while separators.len() < FIELDS_MAX
            && let Some(n) = line.get(at..).and_then(|rest| memchr(delimiters.field, rest))
        {
            separators.push(u32::try_from(at + n).unwrap_or(u32::MAX));
            at += n + 1;
        }
        Ok(Header { line: line.into(), delimiters, separators })
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

/// UTF-16 in either byte order, with or without its mark.
pub(in crate::hl7v2) fn is_utf16(frame: &[u8]) -> bool {
    matches!(frame, [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] | [b'M', 0, b'S', 0, ..] | [0, b'M', 0, b'S', ..])
}

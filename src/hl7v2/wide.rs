//! UNICODE UTF-16 and UTF-32 (table 0211): text whose bytes are found in pairs or fours, and what tells so from the first bytes.

use bytes::Bytes;
use encoding_rs::{DecoderResult, UTF_16BE, UTF_16LE};

/// An encoding with more than one byte to each character, ASCII included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hl7v2) enum Wide {
    Utf16Le,
    Utf16Be,
    Utf32Le,
    Utf32Be,
}

impl Wide {
    /// What the first bytes of a text tell: a byte order mark, or ASCII with zeros around it. With it the mark's length in bytes.
    pub(in crate::hl7v2) fn detect(bytes: &[u8]) -> Option<(Wide, usize)> {
        let ascii = |b: u8| b != 0 && b.is_ascii();
        Some(match *bytes {
            [0xFF, 0xFE, 0, 0, ..] => (Wide::Utf32Le, 4),
            [0, 0, 0xFE, 0xFF, ..] => (Wide::Utf32Be, 4),
            [0xFF, 0xFE, ..] => (Wide::Utf16Le, 2),
            [0xFE, 0xFF, ..] => (Wide::Utf16Be, 2),
            [a, 0, 0, 0, ..] if ascii(a) => (Wide::Utf32Le, 0),
            [0, 0, 0, a, ..] if ascii(a) => (Wide::Utf32Be, 0),
            [a, 0, b, 0, ..] if ascii(a) && ascii(b) => (Wide::Utf16Le, 0),
            [0, a, 0, b, ..] if ascii(a) && ascii(b) => (Wide::Utf16Be, 0),
            _ => return None,
        })
    }

    /// Bytes of one unit: 2 or 4.
    pub(in crate::hl7v2) fn unit_bytes(self) -> usize {
        match self {
            Wide::Utf16Le | Wide::Utf16Be => 2,
            Wide::Utf32Le | Wide::Utf32Be => 4,
        }
    }

    /// The name that HTTP has for it (IANA's character set registry), with the order of its bytes: none of ours begins with a mark (RFC 2781, section 3.3).
    pub(in crate::hl7v2) fn http_name(self) -> &'static str {
        match self {
            Wide::Utf16Le => "UTF-16LE",
            Wide::Utf16Be => "UTF-16BE",
            Wide::Utf32Le => "UTF-32LE",
            Wide::Utf32Be => "UTF-32BE",
        }
    }

    /// The unit at an offset, which is a whole number of units; `None` behind the last whole one.
    pub(in crate::hl7v2) fn unit(self, bytes: &[u8], at: usize) -> Option<u32> {
        let pair = || bytes.get(at..)?.first_chunk::<2>();
        let four = || bytes.get(at..)?.first_chunk::<4>();
        Some(match self {
            Wide::Utf16Le => u16::from_le_bytes(*pair()?).into(),
            Wide::Utf16Be => u16::from_be_bytes(*pair()?).into(),
            Wide::Utf32Le => u32::from_le_bytes(*four()?),
            Wide::Utf32Be => u32::from_be_bytes(*four()?),
        })
    }

    /// The table's name.
    pub(in crate::hl7v2) fn name(self) -> &'static str {
        if self.unit_bytes() == 2 { "UNICODE UTF-16" } else { "UNICODE UTF-32" }
    }

    /// The text without its byte order mark, or the offset of the first byte that is no part of a character.
    pub(in crate::hl7v2) fn decode(self, bytes: &[u8]) -> Result<String, usize> {
        let mark = match Self::detect(bytes) {
            Some((wide, mark)) if wide == self => mark,
            _ => 0,
        };
        let rest = bytes.get(mark..).unwrap_or_default();
        let encoding = match self {
            Wide::Utf16Le => UTF_16LE,
            Wide::Utf16Be => UTF_16BE,
            Wide::Utf32Le | Wide::Utf32Be => return self.decode_fours(rest).map_err(|at| at + mark),
        };
        let mut decoder = encoding.new_decoder_without_bom_handling();
        let mut text = String::with_capacity(decoder.max_utf8_buffer_length_without_replacement(rest.len()).unwrap_or(rest.len()));
        match decoder.decode_to_string_without_replacement(rest, &mut text, true) {
            (DecoderResult::InputEmpty, _) => Ok(text),
            (DecoderResult::Malformed(length, after), read) => Err(mark + read.saturating_sub(usize::from(length) + usize::from(after))),
            (DecoderResult::OutputFull, read) => Err(mark + read),
        }
    }

    fn decode_fours(self, bytes: &[u8]) -> Result<String, usize> {
        let mut text = String::with_capacity(bytes.len() / 4);
        for at in (0..bytes.len()).step_by(4) {
            text.push(self.unit(bytes, at).and_then(char::from_u32).ok_or(at)?);
        }
        Ok(text)
    }

    /// Appends text in this encoding, without a byte order mark.
    pub(in crate::hl7v2) fn encode(self, text: &str, out: &mut Vec<u8>) {
        match self {
            Wide::Utf16Le => text.encode_utf16().for_each(|unit| out.extend(unit.to_le_bytes())),
            Wide::Utf16Be => text.encode_utf16().for_each(|unit| out.extend(unit.to_be_bytes())),
            Wide::Utf32Le => text.chars().for_each(|c| out.extend(u32::from(c).to_le_bytes())),
            Wide::Utf32Be => text.chars().for_each(|c| out.extend(u32::from(c).to_be_bytes())),
        }
    }
}

/// `UNICODE UTF-16` or `UNICODE UTF-32` if that is what the bytes are written in. MLLP cannot carry these: its framing bytes are parts of their characters.
pub fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    Wide::detect(bytes).map(|(wide, _)| wide.name())
}

/// An answer as the sender of `frame` reads it: in UTF-16 or UTF-32, without a byte order mark, if that is what it wrote. `answer` is UTF-8 then.
pub fn in_encoding_of(frame: &[u8], answer: Bytes) -> Bytes {
    let Some((wide, _)) = Wide::detect(frame).filter(|_| Wide::detect(&answer).is_none()) else { return answer };
    let mut out = Vec::with_capacity(answer.len() * wide.unit_bytes());
    wide.encode(&String::from_utf8_lossy(&answer), &mut out);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::Wide;

    #[test]
    fn every_order_reads_what_it_writes_with_and_without_its_mark() {
        let text = "MSH|^~\\&|Müller\u{1F600}\r";
        for wide in [Wide::Utf16Le, Wide::Utf16Be, Wide::Utf32Le, Wide::Utf32Be] {
            for mark in ["", "\u{FEFF}"] {
                let mut bytes = Vec::new();
                wide.encode(mark, &mut bytes);
                wide.encode(text, &mut bytes);
                assert_eq!(Wide::detect(&bytes).map(|(found, _)| found), Some(wide));
                assert_eq!(wide.decode(&bytes), Ok(text.to_owned()), "{wide:?} {mark:?}");
            }
        }
        assert_eq!(Wide::detect(b"MSH|^~\\&|"), None);
    }

    #[test]
    fn the_first_bad_byte_is_named() {
        assert_eq!(Wide::Utf16Le.decode(b"M\0\x00\xD8S\0"), Err(2), "half a pair of surrogates");
        assert_eq!(Wide::Utf16Be.decode(b"\0M\0"), Err(2), "half a unit");
        assert_eq!(Wide::Utf32Be.decode(b"\0\0\0M\0\x11\0\0"), Err(4), "no such character");
    }
}

//! The delimiters that MSH-1 and MSH-2 declare (HL7 chapter 2, section 2.5.4), odd ones included.

use crate::hl7v2::{Fault, Location};
use nom::bytes::complete::{tag_no_case, take, take_till};
use nom::{IResult, Parser};

/// What separates and escapes in a message. MSH-1 and the first character of MSH-2 are always there, the others may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delimiters {
    /// `|`
    pub field: u8,
    /// `^`
    pub component: u8,
    /// `~`
    pub repetition: Option<u8>,
    /// `\`
    pub escape: Option<u8>,
    /// `&`
    pub subcomponent: Option<u8>,
    /// `#`, from 2.7.
    pub truncation: Option<u8>,
}

impl Delimiters {
    /// `|^~\&`, which the standard recommends.
    pub const STANDARD: Delimiters =
        Delimiters { field: b'|', component: b'^', repetition: Some(b'~'), escape: Some(b'\\'), subcomponent: Some(b'&'), truncation: None };

    /// Reads MSH-1 and MSH-2 from bytes that begin with `MSH` (or `FHS`, `BHS`). Gives the delimiters and where MSH-2 ends.
    ///
    /// Two habits of real senders are understood: an escape character that somebody's code doubled (`^~\\&`), and one that is
    /// missing (`^~&`). Delimiters that cannot be told apart, or that are letters or digits, make the header unreadable.
    pub(in crate::hl7v2) fn read(bytes: &[u8]) -> Result<(Delimiters, usize), Fault> {
        let Ok((_, (field, encoding))) = header_start(bytes) else {
            return Err(Fault::new(Location::default(), Fault::INTERNAL, "the message does not begin with a readable MSH segment"));
        };
        let fault = |code, text: &str| Err(Fault::new(Location::field("MSH", 2), code, text));
        if !is_delimiter(field) {
            return Err(Fault::new(Location::field("MSH", 1), Fault::INTERNAL, "MSH-1 is not a usable field separator"));
        }
        if encoding.iter().any(|c| !is_delimiter(*c)) {
            return fault(Fault::DATA_TYPE, "MSH-2 has an encoding character that is not ASCII punctuation");
        }
        let (component, repetition, escape, subcomponent, truncation) = match *encoding {
            [] => return fault(Fault::REQUIRED_FIELD_MISSING, "MSH-2 (encoding characters) is empty"),
            [c] => (c, None, None, None, None),
            [c, r] => (c, Some(r), None, None, None),
            [c, r, b'&'] => (c, Some(r), None, Some(b'&'), None),
            [c, r, e] => (c, Some(r), Some(e), None, None),
            [c, r, e, s] => (c, Some(r), Some(e), Some(s), None),
            [c, r, e, doubled, s] if e == doubled => (c, Some(r), Some(e), Some(s), None),
            [c, r, e, s, t, ..] => (c, Some(r), Some(e), Some(s), Some(t)),
        };
        let delimiters = Delimiters { field, component, repetition, escape, subcomponent, truncation };
        let all = [Some(field), Some(component), repetition, escape, subcomponent, truncation];
        if all.iter().enumerate().any(|(n, c)| c.is_some() && all.iter().skip(n + 1).any(|later| later == c)) {
            return fault(Fault::DATA_TYPE, "MSH-2 uses one encoding character for two purposes");
        }
        Ok((delimiters, 4 + encoding.len()))
    }

    /// For an MSH whose MSH-2 is empty, `MSH||`: those of the standard around its field separator. Gives also where MSH-2 ends.
    pub(in crate::hl7v2) fn assumed(bytes: &[u8]) -> Option<(Delimiters, usize)> {
        let (_, (field, encoding)) = header_start(bytes).ok()?;
        let is_one_of_them = Self::STANDARD.encoding_characters().contains(&field);
        (encoding.is_empty() && is_delimiter(field) && !is_one_of_them).then_some((Delimiters { field, ..Self::STANDARD }, 4))
    }

    /// MSH-2 as it is written for these delimiters.
    pub fn encoding_characters(&self) -> Vec<u8> {
        let mut out = vec![self.component];
        match (self.escape, self.subcomponent) {
            (None, Some(subcomponent)) => out.extend(self.repetition.into_iter().chain([subcomponent])),
            _ => out.extend([self.repetition, self.escape, self.subcomponent, self.truncation].into_iter().map_while(|c| c)),
        }
        out
    }

    /// Is it one of those that separate (not the escape or truncation character)?
    pub(in crate::hl7v2) fn separates(&self, byte: u8) -> bool {
        byte == self.field || byte == self.component || Some(byte) == self.repetition || Some(byte) == self.subcomponent
    }
}

/// A delimiter must be one byte in every character set that Kiln reads, and must not end a segment or look like text.
fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphanumeric() && !matches!(byte, b'\r' | b'\n' | 0 | b' ' | b'"' | 0x0B | 0x1C)
}

fn header_start(bytes: &[u8]) -> IResult<&[u8], (u8, &[u8])> {
    let (rest, _) = nom::branch::alt((tag_no_case("MSH"), tag_no_case("FHS"), tag_no_case("BHS"))).parse(bytes)?;
    let (rest, field) = take(1usize).parse(rest)?;
    let field = field.first().copied().unwrap_or(b'|');
    let (rest, encoding) = take_till(|b| b == field || b == b'\r' || b == b'\n' || b == 0x1C).parse(rest)?;
    Ok((rest, (field, encoding)))
}

#[cfg(test)]
mod tests {
    use super::Delimiters;

    #[test]
    fn habits_of_real_senders() {
        let read = |text: &str| Delimiters::read(text.as_bytes());
        assert_eq!(read(r"MSH|^~\&|A").map(|d| d.0), Ok(Delimiters::STANDARD));
        assert_eq!(read(r"MSH|^~\\&|A").map(|d| d.0), Ok(Delimiters::STANDARD));
        assert_eq!(read(r"msh|^~\&#|A").map(|d| d.0), Ok(Delimiters { truncation: Some(b'#'), ..Delimiters::STANDARD }));
        assert_eq!(read("MSH|^~&|A").map(|d| d.0), Ok(Delimiters { escape: None, ..Delimiters::STANDARD }));
        assert_eq!(read("MSH|^~").map(|d| d.0), Ok(Delimiters { escape: None, subcomponent: None, ..Delimiters::STANDARD }));
        for bad in ["MSH", "MSH||A", "MSH|????|A", "MSH|&&&&|A", "MSHA^~", "PID|^~\\&|", "MSH|^\u{2dc}\\&|", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in [r"MSH|^~\&|A", r"MSH#!@%*#A", r"MSH|^~\&#|A", "MSH|^~&|A", "MSH|^~|A"] {
            let (delimiters, end) = Delimiters::read(text.as_bytes()).expect("these are readable");
            assert_eq!(delimiters.encoding_characters(), text.as_bytes()[4..end]);
        }
    }
}

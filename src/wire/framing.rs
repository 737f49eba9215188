//! What begins and ends a frame, and which other ways of sending a message a listener takes.

use std::fmt;

/// Start of a frame, `<VT>`.
pub(in crate::wire) const START: u8 = 0x0B;
/// End of a frame, `<FS>`. It cannot be part of a character in any set that HL7 table 0211 allows over MLLP.
pub(in crate::wire) const END: u8 = 0x1C;
/// The byte that follows `<FS>`; some peers leave it out.
pub(in crate::wire) const CARRIAGE_RETURN: u8 = 0x0D;

/// A mark is a few bytes.
const MARK_BYTES_MAX: usize = 8;

/// The bytes before and after a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Framing {
    start: Box<[u8]>,
    end: Box<[u8]>,
}

impl Framing {
    /// A framing of other bytes than MLLP's. `None` if no frame could be told by it: each mark has 1 to 8 bytes, its first one is a control character
    /// that no message holds (not CR, LF or a tab), and the start does not begin as MLLP's does.
    pub fn new(start: &[u8], end: &[u8]) -> Option<Self> {
        let usable = |mark: &[u8]| (1..=MARK_BYTES_MAX).contains(&mark.len()) && mark.first().is_some_and(|b| *b < 0x20 && !matches!(b, b'\r' | b'\n' | b'\t'));
        let fine = usable(start) && usable(end) && start.first() != Some(&START);
        fine.then(|| Self { start: start.into(), end: end.into() })
    }

    /// Reads `02 / 03 0D`: the bytes before a message and after it, in hexadecimal.
    pub fn read(text: &str) -> Option<Self> {
        let bytes = |mark: &str| mark.split_whitespace().map(|b| if b.len() == 2 { u8::from_str_radix(b, 16).ok() } else { None }).collect::<Option<Vec<u8>>>();
        let (start, end) = text.split_once('/')?;
        Self::new(&bytes(start)?, &bytes(end)?)
    }

    /// What comes before a message.
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// What comes after it.
    pub fn end(&self) -> &[u8] {
        &self.end
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |mark: &[u8]| mark.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(" ");
        write!(f, "{} / {}", hex(&self.start), hex(&self.end))
    }
}

impl fmt::Debug for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Framing({self})")
    }
}

/// How a message was framed. Its answer is framed the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// `<VT> message <FS><CR>`.
    #[default]
    Mllp,
    /// The listener's other framing bytes.
    Other,
    /// None at all.
    Bare,
}

/// What a decoder takes besides MLLP. The default is MLLP alone, with bytes between frames skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tolerance {
    /// Messages without any framing: one begins with MSH, FHS or BHS, and ends where the next one begins, at `<FS>`, or when nothing more comes.
    pub unframed: bool,
    /// Frames without `<FS>`: one ends where the next one begins, or when nothing more comes after a segment's end.
    pub no_end: bool,
    /// Frames in these bytes too.
    pub other: Option<Framing>,
}

impl Tolerance {
    /// Does a pause end a message? Then somebody must tell the decoder of it.
    pub fn waits_for_pauses(&self) -> bool {
        self.unframed || self.no_end
    }
}

#[cfg(test)]
mod tests {
    use super::Framing;

    #[test]
    fn framings_that_can_be_told_from_messages() {
        assert_eq!(Framing::read("02 / 03 0D").map(|f| f.to_string()), Some("02 / 03 0D".to_owned()));
        for bad in ["", "02", "02 /", "/ 03", "0B / 1C", "0D / 03", "02 / 0A", "4D / 03", "2 / 3", "xx / 03", "02 / 03 03 03 03 03 03 03 03 03", "02 / é"] {
            assert_eq!(Framing::read(bad), None, "{bad}");
        }
    }
}

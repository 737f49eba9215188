//! Several messages in one file: batch wrappers and framing bytes are not part of any.

use crate::hl7v2::header::message_start;
use std::ops::Range;

/// The places of the messages in a file: a message begins at a line with MSH and ends before the next one, before a batch or file
/// wrapper (FHS, BHS, BTS, FTS), or at an MLLP framing byte. Lines that no MSH heads are a range of their own, so that reading it
/// says what is wrong instead of losing it.
pub fn split(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let mut open: Option<(usize, usize)> = None;
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let length = rest.iter().position(|b| matches!(b, b'\r' | b'\n' | 0x0B | 0x1C)).unwrap_or(rest.len());
        let line = rest.get(..length).unwrap_or_default();
        let lead = message_start(line);
        let text = line.get(lead..).unwrap_or_default();
        let ends_frame = matches!(rest.get(length), Some(0x0B | 0x1C));
        let stop = at + length + usize::from(matches!(rest.get(length), Some(b'\r' | b'\n')));
        if is_header(text, &[b"MSH"]) {
            out.extend(open.take().map(|(start, end)| start..end));
            open = Some((at + lead, stop));
        } else if is_header(text, &[b"FHS", b"BHS", b"BTS", b"FTS"]) {
            out.extend(open.take().map(|(start, end)| start..end));
        } else if !text.is_empty() {
            open = Some((open.map_or(at + lead, |(start, _)| start), stop));
        }
        // FS before each CR is an oddity of one sender, not the end of its message: what follows decides.
        if ends_frame && begins_message(bytes.get(stop + 1..).unwrap_or_default()) {
            out.extend(open.take().map(|(start, end)| start..end));
        }
        at = (at + length + 1).max(at + 1);
    }
    out.extend(open.map(|(start, end)| start..end));
    out
}

/// Is the line such a segment? A wrapper's name may stand alone, or be followed by a separator.
fn is_header(line: &[u8], names: &[&[u8; 3]]) -> bool {
    let (name, after) = line.split_at(line.len().min(3));
    names.iter().any(|n| name.eq_ignore_ascii_case(*n)) && !after.first().is_some_and(u8::is_ascii_alphanumeric)
}

fn begins_message(rest: &[u8]) -> bool {
    let rest = rest.get(message_start(rest)..).unwrap_or_default();
    rest.is_empty() || is_header(rest, &[b"MSH", b"FHS", b"BHS", b"BTS", b"FTS"])
}

#[cfg(test)]
mod tests {
    use super::split;
    use proptest::prelude::*;

    fn texts(file: &str) -> Vec<&str> {
        split(file.as_bytes()).into_iter().map(|r| &file[r]).collect()
    }

    #[test]
    fn shapes_of_files() {
        assert_eq!(texts("MSH|1\rPID|\rMSH|2\rPID|"), ["MSH|1\rPID|\r", "MSH|2\rPID|"]);
        assert_eq!(texts("FHS|^~\\&\r\nBHS|\r\nMSH|1\r\nPID|\r\nBTS|1\r\nFTS"), ["MSH|1\r\nPID|\r"]);
        assert_eq!(texts("\u{b}MSH|1\rPID|\r\u{1c}\r\u{b}MSH|2\r\u{1c}\r"), ["MSH|1\rPID|\r", "MSH|2\r"]);
        assert_eq!(texts("\u{feff}MSH|1\n\nPID|\n"), ["MSH|1\n\nPID|\n"]);
        assert_eq!(texts("MSH|1|2.1\u{1c}\rPID|1\u{1c}\r"), ["MSH|1|2.1\u{1c}\rPID|1"]);
        assert_eq!(texts("EVN|1\rMSH|1\r"), ["EVN|1\r", "MSH|1\r"]);
        assert_eq!(texts("MSH|1\rMSH|2\r"), ["MSH|1\r", "MSH|2\r"]);
        assert_eq!(texts("nothing here"), ["nothing here"]);
        assert_eq!(texts("\r\n"), [""; 0]);
    }

    proptest! {
        #[test]
        fn ranges_are_in_order_and_inside(bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(0x1C), Just(b'M'), any::<u8>()], 0..80)) {
            let mut before = 0;
            for range in split(&bytes) {
                prop_assert!(before <= range.start && range.start < range.end && range.end <= bytes.len());
                before = range.end;
            }
        }
    }
}

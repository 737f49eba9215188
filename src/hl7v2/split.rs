//! Several messages in one file: batch wrappers and framing bytes are not part of any.

use crate::hl7v2::batch::{BatchItem, batch_items};
use std::ops::Range;

/// The places of the messages in a file: a message begins at a line with MSH and ends before the next one, before a batch or file
/// wrapper (FHS, BHS, BTS, FTS), or at an MLLP framing byte. Lines that no MSH heads are a range of their own, so that reading it
/// says what is wrong instead of losing it. What the wrappers say is told by [`crate::hl7v2::Splitter`].
pub fn split(bytes: &[u8]) -> Vec<Range<usize>> {
    let place = |range: Range<u64>| Some(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?);
    let all = batch_items(bytes).into_iter();
    all.filter_map(|piece| match piece {
        BatchItem::Message(extract) | BatchItem::Stray(extract) => place(extract.range),
        BatchItem::Opened(..) | BatchItem::Closed(_) => None,
    })
    .collect()
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

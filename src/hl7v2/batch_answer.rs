//! The wrapper around acknowledgements that answer a file or a batch (HL7 chapter 2, sections 2.10.3.3, 2.14.2 BHS and 2.14.7 FHS).

use crate::hl7v2::{Delimiters, Fault, Header, Wrapper, Writer};

/// What the wrapper of an answer is made of.
pub struct WrapperAnswer<'a> {
    /// FHS or BHS of what is answered; nothing when there was none that can be read.
    pub header: Option<&'a Header>,
    /// How many batches or messages the answer holds.
    pub count: usize,
    /// What was wrong with the wrapper that is answered: becomes a comment.
    pub faults: &'a [Fault],
    /// Our BHS-7, such as `20260309142501.123+0100`.
    pub time: &'a str,
    /// Our BHS-11.
    pub control_id: &'a str,
    /// BHS-3 when there is no header to take it from.
    pub application: &'a str,
    /// BHS-4 when there is no header to take it from.
    pub facility: &'a str,
}

/// A comment is cut after so many characters, as ST asks of BHS-10.
const COMMENT_CHARACTERS_MAX: usize = 80;

/// Wraps `inner`, which holds whole messages or batches. Sender and receiver are swapped, delimiters are the sender's, BHS-12 or FHS-12 (reference
/// control ID) is its BHS-11 or FHS-11.
pub fn wrap_answer(wrapper: Wrapper, answer: &WrapperAnswer<'_>, inner: &[u8]) -> Vec<u8> {
    let delimiters = answer.header.map_or(Delimiters::STANDARD, Header::delimiters);
    let sent = |n| answer.header.map_or_else(Vec::new, |header| header.raw(n).iter().copied().filter(|b| !matches!(b, 0x0B | 0x1C)).collect::<Vec<u8>>());
    let comment: String = answer.faults.iter().map(Fault::sentence).collect::<Vec<_>>().join("; ").chars().take(COMMENT_CHARACTERS_MAX).collect();
    let mut head = Writer::new(delimiters);
    head.header(wrapper.header());
    if answer.header.is_some() {
        for n in [5, 6, 3, 4] {
            head.field().raw(&sent(n));
        }
    } else {
        head.field().text(answer.application).field().text(answer.facility).skip_fields(2);
    }
    head.field().text(answer.time).skip_fields(2).field().text(&comment).field().text(answer.control_id).field().raw(&sent(11));
    let mut tail = Writer::new(delimiters);
    tail.segment(wrapper.trailer()).field().text(&answer.count.to_string()).field().text(&comment);
    let mut bytes = head.finish();
    bytes.extend_from_slice(inner);
    bytes.extend(tail.finish());
    bytes
}

#[cfg(test)]
mod tests {
    use super::{WrapperAnswer, wrap_answer};
    use crate::hl7v2::{Fault, Header, Location, Wrapper};

    #[test]
    fn a_batch_is_answered_by_a_batch() {
        let header = Header::read(b"BHS|^~\\&|A|B|C|D|2026||n|c|ID1\r").expect("it can be read");
        let faults = [Fault::new(Location::field("BTS", 1), Fault::INTERNAL, "BTS-1 says 2 messages, and 1 came")];
        let answer = WrapperAnswer { header: Some(&header), count: 1, faults: &faults, time: "2026", control_id: "K1", application: "X", facility: "Y" };
        let text = String::from_utf8(wrap_answer(Wrapper::Batch, &answer, b"MSH|...\r")).expect("it is ASCII");
        assert_eq!(text, "BHS|^~\\&|C|D|A|B|2026|||BTS-1 says 2 messages, and 1 came|K1|ID1\rMSH|...\rBTS|1|BTS-1 says 2 messages, and 1 came\r");
        let bare = WrapperAnswer { header: None, faults: &[], ..answer };
        let text = String::from_utf8(wrap_answer(Wrapper::File, &bare, b"")).expect("it is ASCII");
        assert_eq!(text, "FHS|^~\\&|X|Y|||2026||||K1\rFTS|1\r");
    }
}

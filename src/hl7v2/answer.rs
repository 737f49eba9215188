//! Reads an acknowledgement as a sender needs it: leniently, because a sender must also understand a receiver that writes badly.

use crate::hl7v2::AckCode;
use crate::hl7v2::header::message_start;
use crate::hl7v2::wide::Wide;
use std::borrow::Cow;

/// What an acknowledgement says (HL7 chapter 2, sections 2.14.8 and 2.14.5). Text as sent. It cannot be printed whole: ERR-8 may quote a patient.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// MSA-1.
    pub code: String,
    /// MSA-2.
    pub control_id: String,
    /// MSA-3.
    pub text: String,
    /// One per ERR segment.
    pub errors: Vec<AnswerError>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({}, <as sent>)", self.code)
    }
}

/// One ERR segment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AnswerError {
    /// ERR-2 (or ERR-1 up to 2.4), with carets.
    pub location: String,
    /// ERR-3.1, the code of table 0357; up to 2.4 the code in ERR-1.4.
    pub code: String,
    /// ERR-4.
    pub severity: String,
    /// ERR-8, or ERR-3.2 where it is empty.
    pub text: String,
}

impl std::fmt::Debug for AnswerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AnswerError({}, <as sent>)", self.code)
    }
}

impl Answer {
    /// `None` if there is no MSA segment. UTF-16 and UTF-32 are told by the first bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = narrow(bytes);
        // Most messages are none, and are not looked at further.
        let mut msa = msa(&bytes)?.map(|field| String::from_utf8_lossy(field).into_owned());
        let mut next = || msa.next().unwrap_or_default();
        let (code, control_id, text) = (next().trim().to_owned(), next(), next());
        let message = String::from_utf8_lossy(bytes.get(message_start(&bytes)..).unwrap_or_default());
        let separator = message.strip_prefix("MSH").and_then(|rest| rest.chars().next()).unwrap_or('|');
        let component = message.chars().nth(4).unwrap_or('^');
        let subcomponent = message.chars().nth(7).unwrap_or('&');
        let errors = message.split(['\r', '\n']).map(|segment| segment.split(separator).collect::<Vec<&str>>()).filter(|fields| fields.first() == Some(&"ERR"));
        let errors = errors.map(|fields| {
            let field = |n: usize| fields.get(n).copied().unwrap_or("").to_owned();
            let coded = field(3);
            let mut parts = coded.split(component);
            let code = parts.next().unwrap_or("").to_owned();
            let name = parts.next().unwrap_or("").to_owned();
            // Up to 2.4 all is in ERR-1: segment, sequence, field, code and text.
            let old = field(1);
            let old_code = old.split(component).nth(3).and_then(|coded| coded.split(subcomponent).next()).unwrap_or("").to_owned();
            let code = Some(code).filter(|c| !c.is_empty()).unwrap_or(old_code);
            let text = Some(field(8)).filter(|t| !t.is_empty()).unwrap_or(name);
            let location = Some(field(2)).filter(|t| !t.is_empty()).unwrap_or(old);
            AnswerError { location, code, severity: field(4), text }
        });
        Some(Self { code, control_id, text, errors: errors.collect() })
    }

    /// MSA-1 as a code of table 0008; `None` for anything else.
    pub fn ack_code(&self) -> Option<AckCode> {
        AckCode::named(&self.code)
    }

    /// AA or CA.
    pub fn is_positive(&self) -> bool {
        self.ack_code().is_some_and(AckCode::is_positive)
    }

    /// True if MSA-2 is this MSH-10, blanks around either left aside. An empty MSH-10 is answered by nothing.
    pub fn answers(&self, control_id: &[u8]) -> bool {
        let sent = String::from_utf8_lossy(control_id);
        !sent.trim().is_empty() && self.control_id.trim() == sent.trim()
    }
}

/// Text in UTF-16 or UTF-32 as UTF-8, as far as it can be read; anything else as it is.
pub(in crate::hl7v2) fn narrow(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some((wide, _)) = Wide::detect(bytes) else { return Cow::Borrowed(bytes) };
    let text = wide.decode(bytes).or_else(|at| wide.decode(bytes.get(..at).unwrap_or_default()));
    Cow::Owned(text.unwrap_or_default().into_bytes())
}

/// The fields of a message's first MSA as sent, MSA-1 first; `None` if it has none. The field separator is that of MSH, else `|`.
pub(in crate::hl7v2) fn msa(message: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let message = message.get(message_start(message)..)?;
    let separator = message.strip_prefix(b"MSH").and_then(|rest| rest.first()).copied().unwrap_or(b'|');
    let begins = |at: &usize| {
        let (before, line) = message.split_at_checked(*at).unwrap_or_default();
        let after = line.get(3);
        before.last().is_none_or(|b| matches!(b, b'\r' | b'\n')) && after.is_none_or(|b| *b == separator || matches!(b, b'\r' | b'\n'))
    };
    let line = message.get(memchr::memmem::find_iter(message, b"MSA").find(begins)?..)?;
    let line = line.get(..memchr::memchr2(b'\r', b'\n', line).unwrap_or(line.len()))?;
    Some(line.split(move |b| *b == separator).skip(1))
}

/// MSA-1 and MSA-2 without allocating, for those who read many. Not of text in UTF-16 or UTF-32.
pub fn answered(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = msa(bytes)?;
    Some((fields.next()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_receivers_write() {
        let ack =
            Answer::read(b"MSH|^~\\&|K|||||ACK|1|P|2.5\rMSA|AE|42|no\rERR||PID^1^3|101^Required field missing^HL70357|E||||PID-3 is empty\r").expect("an MSA");
        assert_eq!((ack.code.as_str(), ack.control_id.as_str(), ack.is_positive()), ("AE", "42", false));
        let error = AnswerError { location: "PID^1^3".into(), code: "101".into(), severity: "E".into(), text: "PID-3 is empty".into() };
        assert_eq!(ack.errors, [error]);
        assert_eq!(Answer::read(b"MSH#*~\\&#K\nMSA#AA#7").map(|a| a.control_id).as_deref(), Some("7"));
        assert_eq!(Answer::read(b"MSH|^~\\&|K\r"), None);
        assert_eq!(Answer::read(b""), None);
        for none in [&b"MSH|^~\\&|K\rNTE|1||MSA|AA|7\r"[..], b"MSH|^~\\&|K\rMSAX|AA|7\r"] {
            assert_eq!(Answer::read(none), None, "{}", none.escape_ascii());
        }
        let wide: Vec<u8> = "MSH|^~\\&|K\rMSA|AE|7|Müller\r".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let ack = Answer::read(&wide).expect("an MSA");
        assert_eq!((ack.code.as_str(), ack.control_id.as_str(), ack.text.as_str()), ("AE", "7", "Müller"));
        assert_eq!(answered(b"MSH|^~\\&|K\rMSA|AA|42\r"), Some((&b"AA"[..], &b"42"[..])));
        assert_eq!(answered(b"MSH|^~\\&|K\rMSA|AA"), None);
        assert_eq!(answered(b"MS"), None);
    }

    #[test]
    fn an_old_release_has_its_code_in_err_1() {
        let ack = Answer::read(b"MSH|^~\\&|K\rMSA|AR|42|full\rERR|MSH^1^9^207&Application internal error&HL70357\r").expect("an MSA");
        assert_eq!(ack.errors.first().map(|e| e.code.as_str()), Some("207"));
    }

    #[test]
    fn only_its_own_control_id_is_answered() {
        let answer = |id: &str| Answer { control_id: id.into(), ..Answer::default() };
        assert!(answer("42").answers(b"42") && answer("42 ").answers(b" 42"));
        assert!(!answer("42").answers(b"43") && !answer("42").answers(b"4") && !answer("").answers(b"") && !answer(" ").answers(b" "));
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let ack = Answer::read(b"MSH|^~\\&|K\rMSA|AE|42|Meier\rERR||||E||||Meier\r").expect("an MSA");
        assert!(!format!("{ack:?} {:?}", ack.errors).contains("Meier"));
    }
}

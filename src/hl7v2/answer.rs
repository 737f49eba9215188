//! Reads an acknowledgement as a sender needs it: leniently, because a sender must also understand a receiver that writes badly.

use crate::hl7v2::AckCode;
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
    /// MSH-15: whether the acknowledgement itself is to be acknowledged (`AL`, `SU`).
    pub accept_acknowledgement: String,
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
        let text = match Wide::detect(bytes) {
            Some((wide, _)) => Cow::Owned(wide.decode(bytes).or_else(|at| wide.decode(bytes.get(..at).unwrap_or_default())).ok()?),
            // Most messages are none, and are not looked at further.
            None if memchr::memmem::find(bytes, b"MSA").is_none() => return None,
            None => String::from_utf8_lossy(bytes),
        };
        let text = text.trim_start_matches(['\u{feff}', '\r', '\n', ' ']);
        let separator = text.strip_prefix("MSH").and_then(|rest| rest.chars().next()).unwrap_or('|');
        let component = text.chars().nth(4).unwrap_or('^');
        let subcomponent = text.chars().nth(7).unwrap_or('&');
        let mut answer: Option<Self> = None;
        let mut errors = Vec::new();
        let mut accept_acknowledgement = String::new();
        for segment in text.split(['\r', '\n']) {
            let fields: Vec<&str> = segment.split(separator).collect();
            let field = |n: usize| fields.get(n).copied().unwrap_or("").to_owned();
            match fields.first() {
                Some(&"MSH") => accept_acknowledgement = field(14),
                Some(&"MSA") if answer.is_none() => {
                    answer = Some(Self { code: field(1).trim().to_owned(), control_id: field(2), text: field(3), ..Self::default() });
                }
                Some(&"ERR") => {
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
                    errors.push(AnswerError { location, code, severity: field(4), text });
                }
                _ => {}
            }
        }
        answer.map(|answer| Self { errors, accept_acknowledgement, ..answer })
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

/// MSA-1 and MSA-2 without allocating, for those who read many.
pub fn answered(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let separator = bytes.get(3)?;
    let at = memchr::memmem::find(bytes, b"\rMSA")? + 4;
    let rest = bytes.get(at..)?;
    let end = memchr::memchr(b'\r', rest).unwrap_or(rest.len());
    let mut fields = rest.get(..end)?.split(|b| b == separator).skip(1);
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

//! Reads an acknowledgement as `kiln send` needs it: leniently, because a sender must also understand a receiver that writes badly.

/// What an acknowledgement says. Text as sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ack {
    /// MSA-1.
    pub code: String,
    /// MSA-2.
    pub control_id: String,
    /// MSA-3.
    pub text: String,
    /// One per ERR segment.
    pub errors: Vec<AckError>,
}

/// One ERR segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AckError {
    /// ERR-2 (or ERR-1 up to 2.4), with carets.
    pub location: String,
    /// ERR-3.1, the code of table 0357.
    pub code: String,
    /// ERR-4.
    pub severity: String,
    /// ERR-8, or ERR-3.2 where it is empty.
    pub text: String,
}

impl Ack {
    /// `None` if there is no MSA segment.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let separator = text.strip_prefix("MSH").and_then(|rest| rest.chars().next()).unwrap_or('|');
        let component = text.chars().nth(4).unwrap_or('^');
        let mut ack = None;
        let mut errors = Vec::new();
        for segment in text.split(['\r', '\n']) {
            let fields: Vec<&str> = segment.split(separator).collect();
            let field = |n: usize| fields.get(n).copied().unwrap_or("").to_owned();
            match fields.first() {
                Some(&"MSA") if ack.is_none() => ack = Some(Self { code: field(1), control_id: field(2), text: field(3), errors: Vec::new() }),
                Some(&"ERR") => {
                    let coded = field(3);
                    let mut parts = coded.split(component);
                    let code = parts.next().unwrap_or("").to_owned();
                    let name = parts.next().unwrap_or("").to_owned();
                    let text = Some(field(8)).filter(|t| !t.is_empty()).unwrap_or(name);
                    let location = Some(field(2)).filter(|t| !t.is_empty()).unwrap_or_else(|| field(1));
                    errors.push(AckError { location, code, severity: field(4), text });
                }
                _ => {}
            }
        }
        ack.map(|ack| Self { errors, ..ack })
    }

    /// AA or CA.
    pub(crate) fn is_positive(&self) -> bool {
        matches!(self.code.as_str(), "AA" | "CA")
    }
}

/// MSA-1 and MSA-2 without allocating, for the load generator.
pub(crate) fn code_and_control_id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
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
            Ack::read(b"MSH|^~\\&|K|||||ACK|1|P|2.5\rMSA|AE|42|no\rERR||PID^1^3|101^Required field missing^HL70357|E||||PID-3 is empty\r").expect("an MSA");
        assert_eq!((ack.code.as_str(), ack.control_id.as_str(), ack.is_positive()), ("AE", "42", false));
        let error = AckError { location: "PID^1^3".into(), code: "101".into(), severity: "E".into(), text: "PID-3 is empty".into() };
        assert_eq!(ack.errors, [error]);
        assert_eq!(Ack::read(b"MSH#*~\\&#K\nMSA#AA#7").map(|a| a.control_id).as_deref(), Some("7"));
        assert_eq!(Ack::read(b"MSH|^~\\&|K\r"), None);
        assert_eq!(Ack::read(b""), None);
        assert_eq!(code_and_control_id(b"MSH|^~\\&|K\rMSA|AA|42\r"), Some((&b"AA"[..], &b"42"[..])));
        assert_eq!(code_and_control_id(b"MSH|^~\\&|K\rMSA|AA"), None);
        assert_eq!(code_and_control_id(b"MS"), None);
    }
}

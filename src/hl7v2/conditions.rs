//! Which acknowledgements a message asks for: MSH-15 and MSH-16 (HL7 chapter 2, sections 2.9.2, 2.9.3 and 2.14.9.15), and MSA of those that come in.

use crate::exchange::ControlId;
use crate::hl7v2::answer::{msa, narrow};
use crate::hl7v2::{AckCode, Header};

/// For which outcomes an acknowledgement is wanted (HL7 table 0155).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// AL: always.
    Always,
    /// NE: never.
    Never,
    /// ER: on errors and rejections only.
    Error,
    /// SU: on success only.
    Success,
}

impl Condition {
    /// All of the table.
    pub const ALL: [Condition; 4] = [Condition::Always, Condition::Never, Condition::Error, Condition::Success];

    /// `AL`.
    pub const fn name(self) -> &'static str {
        match self {
            Condition::Always => "AL",
            Condition::Never => "NE",
            Condition::Error => "ER",
            Condition::Success => "SU",
        }
    }

    /// The condition of that code, in either case.
    pub fn named(name: &str) -> Option<Condition> {
        Self::ALL.into_iter().find(|condition| condition.name().eq_ignore_ascii_case(name))
    }

    /// Whether it wants a positive or a negative acknowledgement.
    pub const fn asks(self, positive: bool) -> bool {
        match self {
            Condition::Always => true,
            Condition::Never => false,
            Condition::Error => !positive,
            Condition::Success => positive,
        }
    }
}

/// What a message asks for, for both of its acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// MSH-15: the accept acknowledgement (CA, CE, CR).
    pub accept: Condition,
    /// MSH-16: the application acknowledgement (AA, AE, AR).
    pub application: Condition,
}

impl Conditions {
    /// Original mode, which is the same as these two by section 2.14.9.15.
    pub const ORIGINAL: Conditions = Conditions { accept: Condition::Never, application: Condition::Always };

    /// What a header says; `None` in original mode, where both fields are empty. Where one is empty, nobody waits for that acknowledgement: NE.
    /// A code that table 0155 lacks is read as AL: an answer too many is ignored, one too few is waited for.
    pub fn of(header: &Header) -> Option<Conditions> {
        let read = |text: &str| match text {
            "" | "\"\"" => Condition::Never,
            text => Condition::named(text).unwrap_or(Condition::Always),
        };
        let (accept, application) = (header.accept_acknowledgement(), header.application_acknowledgement());
        let empty = |text: &str| matches!(text, "" | "\"\"");
        (!empty(&accept) || !empty(&application)).then(|| Conditions { accept: read(&accept), application: read(&application) })
    }

    /// False if the one acknowledgement that may come is the application's: then it answers at once, as in original mode.
    pub fn has_two_stages(self) -> bool {
        self.accept != Condition::Never
    }
}

/// What MSA of an acknowledgement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// MSA-1; `None` if table 0008 lacks it.
    pub code: Option<AckCode>,
    /// MSA-2 as sent: MSH-10 of the message that is acknowledged.
    pub control_id: ControlId,
}

impl Acknowledged {
    /// Reads the first MSA of a message, which may be unreadable otherwise; `None` if it has none.
    pub fn read(message: &[u8]) -> Option<Acknowledged> {
        let message = narrow(message);
        let mut fields = msa(&message)?.map(String::from_utf8_lossy);
        let code = fields.next().and_then(|code| AckCode::named(code.trim()));
        Some(Acknowledged { code, control_id: ControlId(fields.next().unwrap_or_default().trim().to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(conditions: &str) -> Header {
        Header::read(format!("MSH|^~\\&|A|B|C|D|20260301||ADT^A01|1|P|2.5|||{conditions}\r").as_bytes()).expect("it is readable")
    }

    #[test]
    fn both_empty_is_original_mode_and_one_empty_is_never() {
        use Condition::{Always, Error, Never, Success};
        assert_eq!(Conditions::of(&header("|")), None);
        assert_eq!(Conditions::of(&header("\"\"|\"\"")), None);
        for (written, accept, application) in [
            ("AL|NE", Always, Never),
            ("AL", Always, Never),
            ("|AL", Never, Always),
            ("er|Su", Error, Success),
            ("AL^x| ER ", Always, Error),
            ("??|NE", Always, Never),
        ] {
            assert_eq!(Conditions::of(&header(written)), Some(Conditions { accept, application }), "{written}");
        }
    }

    #[test]
    fn msa_is_found_wherever_it_stands() {
        let found = Acknowledged::read(b"MSH|^~\\&|A\rSFT|x\r\nMSA|CA|K12A|text\r").expect("there is one");
        assert_eq!((found.code, found.control_id.0.as_str()), (Some(AckCode::CommitAccept), "K12A"));
        assert_eq!(Acknowledged::read(b"MSH|^~\\&|A\rMSA|XX|").map(|a| (a.code, a.control_id.0)), Some((None, String::new())));
        assert_eq!(Acknowledged::read(b"MSH|^~\\&|A\rMSAX|CA|1\r"), None);
    }
}

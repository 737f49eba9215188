//! What is wrong with a message, told to its sender: becomes ERR-2, ERR-3 and ERR-8.

/// Where in the message, in the manner of ERL (HL7 chapter 2A). A number that is 0 says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// `PID`; empty when no segment can be named.
    pub segment: String,
    /// Which of the segments of that name, from 1.
    pub sequence: u32,
    /// The field, from 1.
    pub field: u32,
    /// The repetition, from 1.
    pub repetition: u32,
    /// The component, from 1.
    pub component: u32,
    /// The subcomponent, from 1.
    pub subcomponent: u32,
}

impl Location {
    /// A field of the first segment of that name.
    pub fn field(segment: &str, field: u32) -> Self {
        Self { segment: segment.to_owned(), sequence: 1, field, ..Self::default() }
    }

    /// `MSH-9`, `PID[2]-3[1].4`, or `the message`.
    pub fn path(&self) -> String {
        if self.segment.is_empty() {
            return "the message".to_owned();
        }
        let mut path = self.segment.clone();
        if self.sequence > 1 {
            path.push_str(&format!("[{}]", self.sequence));
        }
        for (sign, number) in [("-", self.field), (".", self.component), (".", self.subcomponent)] {
            if number == 0 {
                break;
            }
            path.push_str(&format!("{sign}{number}"));
            if sign == "-" && self.repetition > 1 {
                path.push_str(&format!("[{}]", self.repetition));
            }
        }
        path
    }
}

/// One fault. Its text never holds a value from the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub location: Location,
    /// HL7 table 0357.
    pub code: u16,
    /// A sentence for the sender, without patient data.
    pub text: String,
}

impl Fault {
    /// The segments are not in the order that the structure wants.
    pub const SEGMENT_SEQUENCE: u16 = 100;
    /// A required field is missing.
    pub const REQUIRED_FIELD_MISSING: u16 = 101;
    /// A value is not of its data type.
    pub const DATA_TYPE: u16 = 102;
    /// A code is not in its table.
    pub const TABLE_VALUE: u16 = 103;
    /// A value is too long (from 2.7).
    pub const VALUE_TOO_LONG: u16 = 104;
    /// MSH-9.1 is not supported.
    pub const MESSAGE_TYPE: u16 = 200;
    /// MSH-9.2 is not supported.
    pub const EVENT: u16 = 201;
    /// MSH-11 is not supported.
    pub const PROCESSING_ID: u16 = 202;
    /// MSH-12 is not supported.
    pub const VERSION: u16 = 203;
    /// An identifier is not known.
    pub const UNKNOWN_KEY: u16 = 204;
    /// An identifier exists already.
    pub const DUPLICATE_KEY: u16 = 205;
    /// Anything else.
    pub const INTERNAL: u16 = 207;

    /// A fault at a place.
    pub fn new(location: Location, code: u16, text: impl Into<String>) -> Self {
        Self { location, code, text: text.into() }
    }

    /// The text, with its place before it unless it names that itself.
    pub fn sentence(&self) -> String {
        let path = self.location.path();
        if self.text.contains(&path) { self.text.clone() } else { format!("{path}: {}", self.text) }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.sentence(), self.code)
    }
}

impl std::error::Error for Fault {}

/// The words of table 0357 for a code; nothing for a code that the table lacks.
pub fn fault_words(code: u16) -> Option<&'static str> {
    Some(match code {
        0 => "Message accepted",
        100 => "Segment sequence error",
        101 => "Required field missing",
        102 => "Data type error",
        103 => "Table value not found",
        104 => "Value too long",
        200 => "Unsupported message type",
        201 => "Unsupported event code",
        202 => "Unsupported processing id",
        203 => "Unsupported version id",
        204 => "Unknown key identifier",
        205 => "Duplicate key identifier",
        206 => "Application record locked",
        207 => "Application internal error",
        _ => return None,
    })
}

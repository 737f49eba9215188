//! The ways from a v2 value to FHIR.

use crate::fhir;
use crate::hl7v2;
use crate::route::code::{Line, X};
use std::collections::HashMap;
use std::sync::Arc;

/// How a value becomes FHIR, and where the line stands that says so.
pub(crate) struct Conversion {
    pub(crate) join: Join,
    /// JSON name of the element or choice branch.
    pub(crate) name: &'static str,
    /// For data-absent-reason and companions: `_birthDate`.
    pub(crate) companion: &'static str,
    /// `PID-7`, for findings.
    pub(crate) place: Arc<str>,
    pub(crate) line: Line,
    /// The element cannot repeat: only the first value is used, the rest is reported.
    pub(crate) single: bool,
}

/// The ways from a value to FHIR (section 8 of the language).
pub(crate) enum Join {
    /// Already what is wanted.
    Same,
    /// A resource that was found, to be referred to.
    Found,
    /// A primitive, unescaped, to string, markdown, id, uri...
    Text,
    /// Any code as sent, blanks removed.
    Code,
    /// The v2 table and the value set hold the same codes.
    SameCodes(fhir::ValueSet),
    /// By a table, to a code.
    Table(usize),
    Boolean,
    BooleanTable(usize),
    Decimal,
    Integer(i64),
    Date,
    DateTime,
    Instant,
    Time,
    /// An HD (or a coding system's name) to a URI by `systems`. `identifier`: an empty one takes the listener's authority;
    /// `entity`: it is an EI, whose components 2 to 4 are the authority.
    System {
        identifier: bool,
        entity: bool,
    },
    /// A reference to a URI, as text.
    Uri,
    /// A coded primitive or text to CodeableConcept or Coding.
    Concept {
        coding: bool,
        table: Option<CodeTable>,
        translate: Option<usize>,
        text: bool,
    },
    /// By a map; for coded targets, the v2 table that gives a missing system, and the table that translates.
    Map {
        map: usize,
        arguments: Vec<X>,
        coded: Option<Coded>,
    },
    /// By a map that makes a resource: the result refers to it.
    Reference {
        map: usize,
        arguments: Vec<X>,
        resource: &'static str,
    },
    /// By the type that OBX-2 names at run time.
    Varies(HashMap<&'static str, (Join, &'static str)>),
    /// A duration to FHIR's Duration.
    Duration,
    /// A number to a quantity's value or to text.
    NumberText,
}

/// For CWE and CE to CodeableConcept and Coding.
pub(crate) struct Coded {
    pub(crate) coding: bool,
    pub(crate) table: Option<CodeTable>,
    pub(crate) translate: Option<usize>,
}

/// A v2 code table, found before a message needs it.
#[derive(Clone)]
pub(crate) struct CodeTable {
    pub(crate) id: &'static str,
    pub(crate) newest: Option<hl7v2::Table>,
    /// Its URI as a code system.
    pub(crate) system: Arc<str>,
}

impl CodeTable {
    pub(crate) fn new(id: &'static str) -> Self {
        Self { id, newest: hl7v2::newest_table(id), system: table_system(id).into() }
    }
}

/// The FHIR URI of an HL7 v2 table (terminology.hl7.org).
pub(crate) fn table_system(number: &str) -> String {
    format!("http://terminology.hl7.org/CodeSystem/v2-{number}")
}

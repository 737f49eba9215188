//! Static types of expressions, and how v2 paths get theirs from the dictionary and from a site's own definitions.

use crate::fhir;
use crate::hl7v2;
use crate::route::names::intern;
use crate::route::tree::{DatatypeDoc, SegmentDoc};
use std::collections::HashMap;

/// The static type of an expression's values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ty {
    /// A v2 field, component or subcomponent: its data type, and the table that codes it.
    V2 {
        /// `CX`, `ST`, `varies`.
        datatype: &'static str,
        /// `0001`.
        table: Option<&'static str>,
    },
    /// A whole segment.
    Segment(&'static str),
    /// A FHIR value that a map made.
    Fhir(fhir::Type),
    /// An element of FHIR that is of one of several types.
    Choice(Vec<fhir::Type>),
    /// A reference to a resource of the route; the FHIR types it may be of.
    Resource(Vec<&'static str>),
    /// Text made by a function or written as a literal.
    Text,
    /// An exact decimal.
    Number,
    /// True or false.
    Bool,
    /// A length of time.
    Duration,
    /// A point in time in v2's notation, as long as its precision.
    Moment,
    /// `message`, only for `raw()`.
    Message,
    /// `nothing` and `null`.
    Nothing,
}

impl Ty {
    /// As an analyst would call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Ty::V2 { datatype, table: Some(table) } => format!("{datatype} (table {table})"),
            Ty::V2 { datatype, .. } => (*datatype).to_owned(),
            Ty::Segment(name) => format!("segment {name}"),
            Ty::Fhir(ty) => ty.name().to_owned(),
            Ty::Choice(types) => types.iter().map(|t| t.name()).collect::<Vec<_>>().join(" or "),
            Ty::Resource(types) => format!("a reference to {}", types.join(" or ")),
            Ty::Text => "text".to_owned(),
            Ty::Number => "a number".to_owned(),
            Ty::Bool => "true or false".to_owned(),
            Ty::Duration => "a duration".to_owned(),
            Ty::Moment => "a time".to_owned(),
            Ty::Message => "the message".to_owned(),
            Ty::Nothing => "nothing".to_owned(),
        }
    }
}

/// A type, and whether there may be more than one value of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Typed {
    pub(crate) ty: Ty,
    pub(crate) many: bool,
}

impl Typed {
    pub(crate) fn one(ty: Ty) -> Self {
        Self { ty, many: false }
    }
}

/// What the checker needs to know of a field or component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldType {
    pub(crate) datatype: &'static str,
    pub(crate) table: Option<&'static str>,
    pub(crate) repeats: bool,
}

/// The v2 side of the type system: the dictionary's newest word, with a site's Z-segments and data types added.
#[derive(Default)]
pub(crate) struct V2Types {
    segments: HashMap<String, HashMap<u16, FieldType>>,
    datatypes: HashMap<String, HashMap<u16, FieldType>>,
    /// `types:` of the route being compiled, or of all routes of this program: what a field of varying type is.
    pub(crate) named: HashMap<(String, u16), &'static str>,
    /// `(ZPI, PID)`: where declared segments stand.
    pub(crate) places: Vec<(String, String)>,
}

impl V2Types {
    /// Adds a `segment:` document.
    pub(crate) fn declare_segment(&mut self, doc: &SegmentDoc) {
        let fields = doc.fields.iter().map(|(n, f)| (*n, declared(&f.datatype.text, f.table.as_ref().map(|t| t.text.as_str()), f.repeats)));
        self.segments.insert(doc.name.text.clone(), fields.collect());
        if let Some(after) = &doc.after {
            self.places.push((doc.name.text.clone(), after.text.clone()));
        }
    }

    /// Adds a `datatype:` document.
    pub(crate) fn declare_datatype(&mut self, doc: &DatatypeDoc) {
        let parts = doc.components.iter().map(|(n, f)| (*n, declared(&f.datatype.text, f.table.as_ref().map(|t| t.text.as_str()), f.repeats)));
        self.datatypes.insert(doc.name.text.clone(), parts.collect());
    }

    /// `QPD-3`, `QIP`: the field has that type, if its own varies.
    pub(crate) fn name_field(&mut self, path: &str, datatype: &str) {
        let Some((segment, n)) = path.split_once('-').and_then(|(segment, n)| Some((segment, n.parse::<u16>().ok()?))) else { return };
        if self.is_datatype(datatype) && self.field(segment, n).is_some_and(|f| f.datatype == "varies") {
            self.named.insert((segment.to_owned(), n), intern(datatype));
        }
    }

    /// Is there a segment of that name, in any version or declared here?
    pub(crate) fn is_segment(&self, name: &str) -> bool {
        self.segments.contains_key(name) || hl7v2::newest_segment(name).is_some()
    }

    /// Is there a data type of that name?
    pub(crate) fn is_datatype(&self, name: &str) -> bool {
        self.datatypes.contains_key(name) || hl7v2::newest_datatype(name).is_some() || matches!(name, "varies" | "TS" | "CE")
    }

    /// A field's type in the newest version that has it, as HL7's compatibility rule (chapter 2, section 2.8) lets older ones be read.
    pub(crate) fn field(&self, segment: &str, n: u16) -> Option<FieldType> {
        if let Some(fields) = self.segments.get(segment) {
            return fields.get(&n).copied();
        }
        let field = typed_field(segment, successive(segment, n))?;
        let repeats = field.max() != Some(1);
        if let Some(datatype) = self.named.get(&(segment.to_owned(), n)) {
            return Some(FieldType { datatype, table: None, repeats: true });
        }
        Some(FieldType { datatype: field.datatype(), table: field.table().or_else(|| older_table(segment, n)), repeats })
    }

    /// A component's type. Component 1 of a primitive is the value itself.
    pub(crate) fn component(&self, datatype: &str, n: u16) -> Option<FieldType> {
        if let Some(parts) = self.datatypes.get(datatype) {
            return parts.get(&n).copied();
        }
        let found = hl7v2::newest_datatype(datatype);
        match found {
            Some(def) if !def.is_primitive() => {
                let current = def.component(usize::from(n)).filter(is_current);
                let component = current.or_else(|| older_component(datatype, n, true)).or_else(|| older_component(datatype, n, false))?;
                Some(FieldType { datatype: component.datatype(), table: component.table(), repeats: false })
            }
            _ if n == 1 => Some(FieldType { datatype: intern(datatype), table: None, repeats: false }),
            _ => None,
        }
    }

    /// True if a value of this type has no components.
    pub(crate) fn is_primitive(&self, datatype: &str) -> bool {
        !self.datatypes.contains_key(datatype) && hl7v2::newest_datatype(datatype).is_none_or(|d| d.is_primitive())
    }

    /// Names to suggest from.
    pub(crate) fn segment_names(&self) -> Vec<String> {
        self.segments.keys().cloned().chain(hl7v2::segment_ids().map(str::to_owned)).collect()
    }
}

fn declared(datatype: &str, table: Option<&str>, repeats: bool) -> FieldType {
    FieldType { datatype: intern(datatype), table: table.map(intern), repeats }
}

/// Parameters and columns stand in as many fields as there are, and the dictionary describes the first (chapter 5, sections 5.5.4 and 5.5.8).
fn successive(segment: &str, n: u16) -> u16 {
    const FIELDS_MAX: u16 = 200;
    match segment {
        "QPD" if (3..=FIELDS_MAX).contains(&n) => 3,
        "RDT" if (1..=FIELDS_MAX).contains(&n) => 1,
        _ => n,
    }
}

/// A field that the newest version no longer codes by a table may have had one.
fn older_table(segment: &str, n: u16) -> Option<&'static str> {
    hl7v2::Version::ALL.iter().rev().find_map(|v| hl7v2::segment(*v, segment)?.field(usize::from(n))?.table())
}

/// Components that a later version withdrew (XTN.1, TQ.4) keep the type they had.
/// The release that withdrew one often lists it as a mere ST, so a type that says more goes first.
fn older_component(datatype: &str, n: u16, telling: bool) -> Option<hl7v2::FieldDef> {
    let fits = |c: &hl7v2::FieldDef| if telling { is_current(c) && !matches!(c.datatype(), "ST" | "DR_SIMPLE") } else { !c.datatype().is_empty() };
    hl7v2::Version::ALL.iter().rev().find_map(|v| hl7v2::datatype(*v, datatype)?.component(usize::from(n)).filter(fits))
}

/// Has a type, and is not merely the memory of a withdrawn one.
fn is_current(field: &hl7v2::FieldDef) -> bool {
    !field.datatype().is_empty() && field.usage() != hl7v2::Usage::Withdrawn
}

/// The field in the newest version that uses it, else in the newest that names its type at all.
fn typed_field(segment: &str, n: u16) -> Option<hl7v2::FieldDef> {
    let newest =
        |fits: fn(&hl7v2::FieldDef) -> bool| hl7v2::Version::ALL.iter().rev().find_map(|v| hl7v2::segment(*v, segment)?.field(usize::from(n)).filter(fits));
    newest(is_current).or_else(|| newest(|f| !f.datatype().is_empty()))
}

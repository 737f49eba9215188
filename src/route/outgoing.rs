//! The compiled form of v2 output: messages, groups, segments and values (section 10 of the language).

use crate::hl7v2::{Charset, Version};
use crate::route::code::{Line, X};
use std::sync::Arc;

/// `message:` of a route.
pub(crate) struct MessageX {
    /// A message for each of these; the value stands in slot 0.
    pub(crate) each: Option<X>,
    pub(crate) when: Option<X>,
    pub(crate) copy: Copied,
    /// Where `$copy` stands, and its column.
    pub(crate) copy_at: Option<(Line, u32)>,
    /// MSH-9 and the structure of a message that does not begin as a copy: `RSP^K22^RSP_K21`.
    pub(crate) kind: Option<String>,
    /// MSH-12 of a message that begins as a copy, where a line says it: segments stand where that release has them.
    pub(crate) version: Option<Version>,
    /// MSH-18, where a line says it: the letters that are written.
    pub(crate) charset: Option<Charset>,
    /// The answer goes back to where the message came from.
    pub(crate) reply: bool,
    pub(crate) lines: Vec<PartLine>,
    pub(crate) line: Line,
}

/// `$copy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    Nothing,
    All,
    /// `message: as-received`: all, byte for byte, and no line changes it.
    AsReceived,
    Segments(Vec<String>),
}

impl Copied {
    pub(crate) fn covers(&self, segment: &str) -> bool {
        match self {
            Copied::Nothing => false,
            Copied::All | Copied::AsReceived => true,
            Copied::Segments(names) => names.iter().any(|n| n == segment),
        }
    }
}

/// `OBX: ...`, `PID.NTE: nothing`, `PATIENT: ...`: a line of a message or group.
pub(crate) struct PartLine {
    pub(crate) name: &'static str,
    pub(crate) is_group: bool,
    /// With an anchor: the segments that are meant, as a path finds them.
    pub(crate) lookup: Option<usize>,
    pub(crate) append: bool,
    pub(crate) item: PartItem,
    pub(crate) line: Line,
    pub(crate) column: u32,
    /// The v2 places that the right side reads, as written, for lineage.
    pub(crate) places: Vec<String>,
}

impl PartLine {
    /// `PID-3: ...` among the lines of a message: the line of the field says everything.
    pub(crate) fn is_field(&self) -> bool {
        matches!(&self.item, PartItem::Fields(body) if matches!(body.lines.as_slice(), [only] if only.line == self.line && only.column == self.column))
    }
}

pub(crate) enum PartItem {
    /// Takes them away.
    Nothing,
    /// Changes each that is there, or makes one.
    Fields(Box<SegmentBody>),
    /// Each value becomes a segment: as it is, or by a map.
    Segments(SegmentSource),
    List(Vec<PartItem>),
    Group(Box<GroupBody>),
}

/// Where whole segments come from.
pub(crate) struct SegmentSource {
    pub(crate) values: X,
    /// The v2 places that are read, as written.
    pub(crate) places: Vec<String>,
    pub(crate) map: Option<(usize, Vec<X>)>,
}

/// The lines of a segment.
#[derive(Default)]
pub(crate) struct SegmentBody {
    pub(crate) name: &'static str,
    /// The slot of `$each`, or of the copied segment that is being changed; that of `$from` follows it.
    pub(crate) slot: usize,
    /// The slot holds the copied segment.
    pub(crate) current: bool,
    pub(crate) each: Option<X>,
    pub(crate) when: Option<X>,
    pub(crate) from: Option<SegmentSource>,
    pub(crate) from_slot: usize,
    /// `$first`: alternatives, each a whole segment or, of a copied one, the lines that change it.
    pub(crate) first: Vec<PartItem>,
    /// `$value`: whole segments from an expression.
    pub(crate) value: Option<SegmentSource>,
    pub(crate) lines: Vec<ValueLine>,
    /// No line holds an expression.
    pub(crate) constant: bool,
}

/// The lines of a group.
pub(crate) struct GroupBody {
    pub(crate) slot: usize,
    /// In a copy: the slot holds the group's segment of that name, so that paths mean what stands in this group.
    pub(crate) current: Option<&'static str>,
    pub(crate) each: Option<X>,
    pub(crate) when: Option<X>,
    pub(crate) lines: Vec<PartLine>,
}

/// `PID-3: ...`, `PID-3.4: ...`, `CX.4.1: ...`.
pub(crate) struct ValueLine {
    /// Field, component, subcomponent in a segment; component, subcomponent in a value.
    pub(crate) at: Vec<u16>,
    pub(crate) append: bool,
    pub(crate) repeats: bool,
    pub(crate) item: ValueItem,
    /// `PID-3`, for findings.
    pub(crate) place: &'static str,
    pub(crate) line: Line,
    pub(crate) column: u32,
    /// The v2 places that the right side reads, as written, for lineage.
    pub(crate) places: Vec<String>,
}

pub(crate) enum ValueItem {
    /// `nothing`: empties the field.
    Nothing,
    X(X),
    Body(Box<ValueBody>),
    List(Vec<ValueItem>),
}

/// The lines of a composite.
#[derive(Default)]
pub(crate) struct ValueBody {
    /// The slot of `$each`; that of `$from` follows it.
    pub(crate) slot: usize,
    pub(crate) each: Option<X>,
    pub(crate) when: Option<X>,
    pub(crate) from_slot: usize,
    /// `$from`: its values, and the conversion of the current one.
    pub(crate) from: Option<(X, X)>,
    pub(crate) first: Vec<ValueItem>,
    pub(crate) value: Option<Box<ValueItem>>,
    pub(crate) lines: Vec<ValueLine>,
    pub(crate) constant: bool,
}

/// How a value becomes v2, where it does not stay as it is.
pub(crate) enum OutJoin {
    /// The day of a time.
    Date,
    /// A table's row as code, text and system.
    Coded,
    /// By a table, with what becomes of a code without a row.
    Table(Box<OutTable>),
    /// Y or N.
    YesNo,
    /// A URI as the assigning authority (HD) that `systems` makes it of.
    Authority,
    /// By a map.
    Map(usize, Vec<X>),
}

/// `PID-8 via sex`.
pub(crate) struct OutTable {
    pub(crate) table: usize,
    /// The field has code, text and system.
    pub(crate) coded: bool,
    /// The table says nothing about codes without a row, or `??` follows: the line then yields nothing.
    pub(crate) undecided: bool,
    /// `PID-8`, for findings.
    pub(crate) place: &'static str,
    pub(crate) line: Line,
}

/// `map: PID -> PID`, `map: CX -> CX`.
pub(crate) struct V2Map {
    /// As it is written, for lineage.
    pub(crate) head: Arc<str>,
    pub(crate) body: V2MapBody,
}

pub(crate) enum V2MapBody {
    Segment(SegmentBody),
    Value(ValueBody),
}

//! Compiled expressions, and the paths and functions in them.

use crate::fhir::{self, Node};
use crate::hl7v2::Piece;
use crate::route::asking::ElementStep;
use crate::route::code::{Body, Conversion, Let};
use crate::route::decimal::Decimal;
use crate::route::outgoing::{OutJoin, ValueBody};
use crate::route::tree::{Index, Op};
use std::sync::Arc;

/// A condition's words and place, for lineage.
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) line: Line,
    pub(crate) column: u32,
}

/// A place in a route file, ready for findings: `routes/siu.yaml:12`.
pub(crate) type Line = Arc<str>;

/// A compiled expression.
pub(crate) enum X {
    Nothing,
    Null,
    Text(Arc<str>),
    Number(Decimal),
    /// A whole number: most counts and limits are.
    Whole(i64),
    Bool(bool),
    /// A constant that the wanted type already made into FHIR.
    Node(&'static str, Node),
    Path(Path),
    /// A map's parameter.
    Argument(usize),
    /// A `$let` that costs something to evaluate, shared by all its uses in one map or resource: what it comes to is remembered.
    Let(Arc<Let>),
    /// A condition that somebody wrote, with its words.
    Said(Box<X>, Box<Said>),
    If(Box<X>, Box<X>, Box<X>),
    Else(Box<X>, Box<X>),
    /// Candidates become the value of this slot.
    Where(Box<X>, usize, Box<X>),
    Or(Box<X>, Box<X>),
    And(Box<X>, Box<X>),
    Not(Box<X>),
    Compare(Op, Box<X>, Box<X>),
    In(Box<X>, Vec<Arc<str>>, bool),
    InSystems(Box<X>, bool),
    /// In a row of a `systems:` document.
    InListed(Box<X>, bool),
    InCodes(Box<X>, fhir::ValueSet, bool),
    InTable(Box<X>, usize, bool),
    Valued(Box<X>, bool),
    Deleted(Box<X>),
    Arithmetic(Op, Box<X>, Box<X>),
    Call(Function, Vec<X>),
    /// What a question of the route found.
    Asked(usize),
    /// Elements of FHIR values.
    Elements(Box<X>, Vec<ElementStep>),
    /// Steps on the result of anything but a path.
    Steps(Box<X>, Vec<Step>),
    Via(Box<X>, usize, Option<usize>),
    /// A value of the left becomes FHIR under a JSON name.
    Convert(Box<X>, Box<Conversion>),
    /// A value of the left becomes v2.
    Out(Box<X>, Box<OutJoin>),
    /// A constant of a v2 field, with its repetitions.
    OutConstant(Arc<[Piece]>),
    /// A body that a v2 field wants (`$let` with a body).
    OutBody(Box<ValueBody>),
    /// A body as a value (`$let` with a body).
    Body(Box<Body>, &'static str),
    /// A resource of the route, as a reference. `from` is the slot of the current segment.
    Resource {
        index: usize,
        all: bool,
        place: &'static str,
        from: Option<usize>,
        /// The resource that is being made names its own kind: its siblings are meant.
        own: bool,
    },
}

/// A path with resolved positions.
pub(crate) struct Path {
    pub(crate) root: Root,
    pub(crate) field: Option<u16>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// The current value of a slot.
    Slot(usize),
    /// The segment that a slot's value stands in.
    SegmentOf(usize),
    /// Segments found from the segment of a slot (or from the whole message), with an index.
    Lookup { lookup: usize, from: Option<usize>, index: Option<Index> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Down(u16),
    Index(Index),
}

/// The functions of section 7; see `route::functions` for their signatures.
#[derive(Clone, Debug)]
pub(crate) enum Function {
    Count,
    Length,
    First,
    Last,
    Distinct,
    Join,
    /// By the data type of what it reads.
    Text(Option<&'static str>),
    Raw,
    Trim,
    Ucum,
    Upper,
    Lower,
    Digits,
    Replace,
    Pad,
    Substring,
    Before,
    After,
    Starts,
    Contains,
    Matches(Arc<regex::Regex>),
    Number,
    Round,
    Duration,
    Date,
    Time,
    Received,
    Event,
    Sender,
    Bytes,
    Uuid,
    Derived,
    Sn,
    /// How many matches question `n` has in all.
    Total(usize),
    /// A name for what comes behind the last match of question `n`.
    More(usize),
    /// An ERL.
    Place,
}

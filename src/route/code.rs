//! The compiled form: expressions and bodies with every position resolved. Nothing in here is looked up by name per message.

use crate::fhir::{self, ListMerge, Node, SaveMode};
use crate::hl7v2::{self, Piece};
use crate::route::asking::{AskX, ElementStep};
use crate::route::named::Let;
use crate::route::outgoing::{MessageX, OutJoin, V2Map, ValueBody};
use crate::route::program::{AfterDeadLetter, Send};
use crate::route::scope::Lookup;
use crate::route::tree::{Index, Op};
use std::collections::HashMap;
use std::sync::Arc;

/// Everything that a run needs.
#[derive(Default)]
pub(crate) struct Code {
    pub(crate) routes: Vec<Route>,
    pub(crate) by_event: ByEvent,
    pub(crate) maps: Vec<Map>,
    /// Maps whose target is v2.
    pub(crate) v2_maps: Vec<V2Map>,
    pub(crate) tables: Vec<Table>,
    pub(crate) systems: Systems,
    pub(crate) lookups: Vec<Lookup>,
    /// Does a line say `null`, which deletes whatever was sent?
    pub(crate) says_null: bool,
    /// `(ZPI, PID)`.
    pub(crate) segment_places: Vec<(String, String)>,
}

/// Routes by what they are for, each list in their order: finding those of a message takes no longer where there are many others.
#[derive(Default)]
pub(crate) struct ByEvent {
    /// `ADT^A01`; `ADT` for those that take any event.
    named: Names<Vec<usize>>,
    pub(crate) otherwise: Vec<usize>,
}

impl ByEvent {
    pub(crate) fn new(routes: &[Route]) -> Self {
        let mut made = Self::default();
        for (n, route) in routes.iter().enumerate() {
            for on in &route.on {
                let list = match on {
                    On::Event { code, event: Some(event), .. } => made.named.entry(format!("{code}^{event}")).or_default(),
                    On::Event { code, event: None, .. } => made.named.entry(code.clone()).or_default(),
                    On::Resource(_) => continue,
                    On::Otherwise => &mut made.otherwise,
                };
                if list.last() != Some(&n) {
                    list.push(n);
                }
            }
        }
        made
    }

    /// The routes that name this type and event or the type alone, in their order.
    pub(crate) fn naming(&self, code: &str, event: &str) -> Vec<usize> {
        let list = |name: &str| self.named.get(name).map_or(&[][..], Vec::as_slice);
        let mut all = [list(&format!("{code}^{event}")), list(code)].concat();
        all.sort_unstable();
        all.dedup();
        all
    }
}

pub(crate) struct Route {
    pub(crate) on: Vec<On>,
    pub(crate) from: Vec<String>,
    pub(crate) when: Option<X>,
    /// What keeps its deliveries in order; empty leaves that to the message's identifiers.
    pub(crate) order_by: Vec<OrderX>,
    pub(crate) resources: Vec<Resource>,
    pub(crate) message: Option<MessageX>,
    /// Its questions, in order.
    pub(crate) asks: Vec<AskX>,
    /// Why it cannot run: what it needs comes with a later version of Kiln.
    pub(crate) refused: Option<&'static str>,
    /// Where it is written.
    pub(crate) line: Line,
    /// FHIR type -> how resources made by type maps are saved.
    pub(crate) shared: Vec<(&'static str, Shared)>,
    pub(crate) refuse_invalid: bool,
    pub(crate) send: Send,
    pub(crate) after_dead_letter: AfterDeadLetter,
}

/// An entry of `order-by`.
pub(crate) struct OrderX {
    pub(crate) x: X,
    pub(crate) identifier: Option<IdentifierShape>,
    /// The v2 fields that it reads.
    pub(crate) places: Vec<String>,
}

/// The data types of identifiers (HL7 chapter 2A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdentifierShape {
    /// CX: the value, and the assigning authority in the fourth component.
    Cx,
    /// EI: the value, and the authority in components two to four.
    Ei,
}

/// One entry of `on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// `ADT^A01`, with the structure when one was written.
    Event { code: String, event: Option<String>, structure: Option<String> },
    /// A FHIR resource.
    Resource(&'static str),
    /// What no other route takes.
    Otherwise,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    Save(SaveMode),
    Contained,
    Logical,
}

/// A resource of a route.
pub(crate) struct Resource {
    pub(crate) name: Arc<str>,
    pub(crate) resource_type: &'static str,
    /// What to make one per: a path that yields segments (or values), and the key by which they are grouped; or nothing for one from the message.
    pub(crate) each: Option<(X, Option<X>)>,
    pub(crate) when: Option<X>,
    /// The maps after the first `$map`, each with the look-up of its source from the resource's own segment.
    pub(crate) maps: Vec<(Option<X>, usize)>,
    /// The route's own lines; they replace what the maps made.
    pub(crate) body: Body,
    pub(crate) save: SaveX,
}

pub(crate) struct SaveX {
    pub(crate) mode: SaveMode,
    pub(crate) shared: Option<Shared>,
    /// Each yields Identifiers.
    pub(crate) by: Vec<X>,
    /// `by derived()`.
    pub(crate) derived: bool,
    pub(crate) missing: Missing,
    pub(crate) merge: Vec<(&'static str, ListMerge)>,
    pub(crate) initial: Option<Body>,
    /// The v2 fields that the identity hangs on, for the message when it is missing.
    pub(crate) places: Vec<String>,
    pub(crate) line: Line,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Missing {
    #[default]
    Refuse,
    Skip,
    Derive,
}

/// A map: how one thing becomes another.
pub(crate) struct Map {
    /// `PID -> Patient`, for messages and lineage.
    pub(crate) head: Arc<str>,
    /// Resource types make resources of their own when a reference wants them.
    pub(crate) resource: Option<&'static str>,
    /// It makes one branch of a choice: the body's only element is the branch.
    pub(crate) choice: bool,
    pub(crate) body: Body,
    pub(crate) save: Option<SaveX>,
}

/// The lines of a map, resource or element.
#[derive(Default)]
pub(crate) struct Body {
    /// The slot of `$each`; that of `$from` follows it.
    pub(crate) slot: usize,
    pub(crate) each: Option<(X, Option<X>)>,
    /// `$from`: its values before conversion, and the conversion of the current one.
    pub(crate) from_values: Option<X>,
    pub(crate) from: Option<X>,
    /// `$from` makes a resource that the lines then change: its map and type.
    pub(crate) from_resource: Option<usize>,
    pub(crate) when: Option<X>,
    pub(crate) first: Vec<Item>,
    pub(crate) value: Option<Box<Item>>,
    pub(crate) lines: Vec<BodyLine>,
    /// Elements that FHIR requires, with the v2 fields that feed them and the line.
    pub(crate) required: Vec<Required>,
    /// No line holds an expression: a body of constants is always made.
    pub(crate) constant: bool,
    /// The URL of the extension that it makes.
    pub(crate) url: Option<&'static str>,
    /// May it make more than one?
    pub(crate) many: bool,
    /// What it hangs on: if none of it was sent, the body makes nothing.
    pub(crate) needs: Needs,
    /// The v2 fields that it reads.
    pub(crate) places: Vec<String>,
    /// The FHIR type whose elements the lines are, for their order.
    pub(crate) ty: Option<fhir::Type>,
    /// What the body makes, for messages.
    pub(crate) path: Arc<str>,
}

pub(crate) struct Required {
    pub(crate) element: &'static str,
    /// For a choice: any of these.
    pub(crate) names: Vec<&'static str>,
    pub(crate) places: Vec<String>,
    pub(crate) line: Line,
}

impl Required {
    /// Is it among these elements, if only as a primitive's extensions?
    pub(crate) fn met_by(&self, elements: &[(&'static str, Node)]) -> bool {
        elements.iter().any(|(n, _)| self.names.contains(n) || n.strip_prefix('_').is_some_and(|p| self.names.contains(&p)))
    }
}

/// `element: item`.
pub(crate) struct BodyLine {
    /// Order within the type.
    pub(crate) position: u16,
    /// JSON name for items that don't bring their own (choice branches do).
    pub(crate) name: &'static str,
    pub(crate) list: bool,
    pub(crate) append: bool,
    /// All JSON names of a choice: a new branch takes the old one's place.
    pub(crate) branches: Vec<&'static str>,
    pub(crate) item: Item,
    pub(crate) needs: Needs,
    pub(crate) line: Line,
    /// Where in the line the element's name begins, from 1.
    pub(crate) column: u32,
    /// The v2 places that the right side reads, as written, for lineage.
    pub(crate) places: Vec<String>,
}

/// A condition's words and place, for lineage.
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) line: Line,
    pub(crate) column: u32,
}

/// What a line hangs on, of the value in slot 0: if none of it was sent, the line yields nothing and need not be looked at. Most lines of most
/// maps are about what most senders leave out. Bit `n` is field `n` of a segment, or component `n` of a value; bit 0 is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) fields: u64,
    pub(crate) pieces: u64,
}

impl Default for Needs {
    fn default() -> Self {
        Self::ALWAYS
    }
}

impl Needs {
    /// The line is looked at, whatever was sent.
    pub(crate) const ALWAYS: Self = Self { fields: 1, pieces: 1 };
    /// The line never yields anything.
    pub(crate) const NEVER: Self = Self { fields: 0, pieces: 0 };
    /// What is known to be sent where nothing is known.
    pub(crate) const ANYTHING: Self = Self { fields: u64::MAX, pieces: u64::MAX };

    pub(crate) fn field(n: u16) -> Self {
        Self::bit(n).map_or(Self::ALWAYS, |fields| Self { fields, pieces: 0 })
    }

    pub(crate) fn piece(n: u16) -> Self {
        Self::bit(n).map_or(Self::ALWAYS, |pieces| Self { fields: 0, pieces })
    }

    fn bit(n: u16) -> Option<u64> {
        (1..64).contains(&n).then(|| 1 << n)
    }

    /// Either is enough.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { fields: self.fields | other.fields, pieces: self.pieces | other.pieces }
    }

    /// Both are there only if this one is; where it tells nothing, what the other tells.
    pub(crate) fn and(self, other: Self) -> Self {
        if self == Self::ALWAYS { other } else { self }
    }

    pub(crate) fn met_by(self, sent: Self) -> bool {
        self.fields & sent.fields | self.pieces & sent.pieces != 0
    }
}

pub(crate) enum Item {
    /// Yields converted nodes.
    X(X),
    /// A constant under a JSON name.
    Constant(&'static str, Node),
    /// A nested body under a JSON name.
    Body(&'static str, Box<Body>),
    /// Each appends.
    List(Vec<Item>),
    /// Each value becomes an Extension of that URL.
    Extension(&'static str, Box<Item>),
    /// `nothing`: removes what a map made.
    Nothing,
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

/// An exact decimal.
pub(crate) type Decimal = bigdecimal::BigDecimal;

/// Reads a number as HL7's NM allows it (chapter 2A, section 2.A.45): digits, one sign, one point; no exponent, and no more
/// than 100 characters, so that no message can ask for a number that fills the memory.
pub(crate) fn decimal(text: &str) -> Option<Decimal> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let valid =
        !digits.is_empty() && digits.len() <= 100 && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') && digits.bytes().any(|b| b.is_ascii_digit());
    if valid { text.parse().ok() } else { None }
}

/// Would [`decimal`] read it?
pub(crate) fn is_decimal(text: &str) -> bool {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text).as_bytes();
    let points = digits.iter().filter(|b| **b == b'.').count();
    digits.len() <= 100 && points <= 1 && digits.len() > points && digits.iter().all(|b| b.is_ascii_digit() || *b == b'.')
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

/// Keyed by what stands in route files. Messages only ask, so nobody can make it slow by choosing names, and a quick hash will do.
pub(crate) type Names<T> = HashMap<String, T, rustc_hash::FxBuildHasher>;

/// A code table, ready to use.
pub(crate) struct Table {
    pub(crate) name: Arc<str>,
    pub(crate) from: Vec<&'static str>,
    pub(crate) to: Option<fhir::ValueSet>,
    pub(crate) rows: Names<Row>,
    pub(crate) senders: Vec<(X, Names<Row>)>,
    pub(crate) unmapped: UnmappedX,
    pub(crate) columns: Vec<String>,
    /// By column: does it hold numbers?
    pub(crate) numbers: Vec<bool>,
    /// Where it stands.
    pub(crate) line: Line,
}

#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) code: String,
    pub(crate) system: Option<String>,
    pub(crate) display: Option<String>,
    pub(crate) columns: Vec<Option<String>>,
}

#[derive(Clone)]
pub(crate) enum UnmappedX {
    Keep,
    Text,
    Drop,
    Absent,
    Refuse,
    Code(Row),
}

/// All `systems:` documents.
#[derive(Default)]
pub(crate) struct Systems {
    pub(crate) rules: Vec<SystemRule>,
    /// Rules by namespace in capitals, and by universal id, each in the order of `rules`.
    pub(crate) by_namespace: Names<Vec<usize>>,
    pub(crate) by_universal: Names<Vec<usize>>,
    pub(crate) unknown: Option<String>,
    pub(crate) missing: Option<String>,
    pub(crate) ignore: Vec<String>,
}

pub(crate) struct SystemRule {
    pub(crate) namespace: Option<String>,
    pub(crate) universal: Option<String>,
    pub(crate) types: Vec<String>,
    pub(crate) system: String,
}

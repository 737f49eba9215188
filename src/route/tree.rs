//! The tree of section 6 of the language: what a file says, before anything is checked against a dictionary.
//!
//! Every node has its span, so that each later fault can point at the text that caused it.

use crate::diagnostic::Span;

/// A piece of text with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The text, without quotes.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// One YAML document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// What it is.
    pub head: Head,
    /// The head's line.
    pub span: Span,
    /// `$in: us-core`.
    pub overlay: Option<Key>,
    /// True when the document began with `extend:`. Extended documents are merged into their base before checking, by `route::overlay`;
    /// what reaches the checker has `extends == false`.
    pub extends: bool,
    /// In an extended route, table or systems document: the keys that were written with a `+` (`on+: SIU^S17`) and append.
    pub appends: Vec<String>,
}

/// The first key says what a document is.
#[derive(Clone, Debug, PartialEq)]
pub enum Head {
    /// `map: PID -> Patient`, `map: EI -> Identifier-DefaultAssigner`, `map: NK1 -> Patient.contact`.
    Map {
        /// `PID`, `CX`, `Patient`.
        source: Key,
        /// `Patient`, `Identifier-DefaultAssigner` (type, variant), `Patient.contact`.
        target: Target,
        /// The lines.
        body: Body,
    },
    /// `route: adt`.
    Route(RouteDoc),
    /// `table: administrative-sex`.
    Table(TableDoc),
    /// `systems: authorities`.
    Systems(SystemsDoc),
    /// `segment: ZPI`.
    Segment(SegmentDoc),
    /// `datatype: ZCX`.
    Datatype(DatatypeDoc),
}

/// `Identifier`, `Identifier-DefaultAssigner`, `Patient.contact`, `Observation.value[x]`, `PID`.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The type, segment or resource: `Identifier`, `Patient`, `Observation`.
    pub name: String,
    /// The element path below it, empty for a whole type: `["contact"]`, `["value[x]"]`.
    pub element: Vec<String>,
    /// The named variant.
    pub variant: Option<String>,
    /// Where it stands.
    pub span: Span,
}

impl Target {
    /// As it is written: `Patient`, `Patient.contact`, `Organization-NameOnly`.
    pub fn written(&self) -> String {
        let mut text = std::iter::once(self.name.as_str()).chain(self.element.iter().map(String::as_str)).collect::<Vec<_>>().join(".");
        if let Some(variant) = &self.variant {
            text.push('-');
            text.push_str(variant);
        }
        text
    }
}

/// A route document. Keys that are absent are `None` or empty.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteDoc {
    /// Its name.
    pub name: Key,
    /// `ADT^A01`, `ADT^*`, `ORU^R01^ORU_R01`, `otherwise`.
    pub on: Vec<Key>,
    /// Listeners; empty means all.
    pub from: Vec<Key>,
    /// Targets.
    pub to: Vec<Key>,
    /// A condition on the message.
    pub when: Option<Expr>,
    /// `order-by`.
    pub order_by: Vec<Expr>,
    /// Overlays.
    pub overlays: Vec<Key>,
    /// `like`.
    pub like: Option<Key>,
    /// Resource name -> body, in order.
    pub resources: Vec<(Key, Body)>,
    /// `message:` for v2 output.
    pub message: Option<Body>,
    /// `reply: RSP^K22^RSP_K21`.
    pub reply: Option<Key>,
    /// `ask:`: name -> body.
    pub ask: Vec<(Key, Body)>,
    /// `shared:` resource type -> how it is saved, or `contained`/`logical`.
    pub shared: Vec<(Key, Save)>,
    /// `types: {QPD-3: QIP}`.
    pub types: Vec<(Key, Key)>,
    /// `invalid: report | refuse`.
    pub invalid: Option<Key>,
    /// `send: transaction | batch | single`.
    pub send: Option<Key>,
    /// `retry: { for: 7d }`: key -> text.
    pub retry: Vec<(Key, Key)>,
    /// `after-dead-letter: wait | go-on`.
    pub after_dead_letter: Option<Key>,
}

/// The lines of a map, a resource or an element.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Body {
    /// The whole body.
    pub span: Span,
    /// Element lines in the order written.
    pub lines: Vec<Line>,
    /// `$each`.
    pub each: Option<Each>,
    /// `$from`.
    pub from: Option<Each>,
    /// `$when`.
    pub when: Option<Expr>,
    /// `$first`.
    pub first: Option<Vec<Item>>,
    /// `$value`.
    pub value: Option<Box<Item>>,
    /// `$let`.
    pub lets: Vec<(Key, Item)>,
    /// `$takes`: name -> type.
    pub takes: Vec<(Key, Key)>,
    /// `$with`.
    pub with: Vec<(Key, Item)>,
    /// `$map`.
    pub maps: Vec<(Key, Target)>,
    /// `$save`.
    pub save: Option<Save>,
    /// `$save` is there and has a fault of its own.
    pub save_refused: bool,
    /// `$missing`: refuse, skip, derive.
    pub missing: Option<Key>,
    /// `$merge`: element -> `union`, `replace`, `by ELEMENT`.
    pub merge: Vec<(Key, Key)>,
    /// `$initial`.
    pub initial: Option<Box<Body>>,
    /// `$copy`: `all` or segments.
    pub copy: Vec<Key>,
    /// `$search`, `$at`.
    pub search: Option<Key>,
    /// `$at`.
    pub at: Option<Key>,
    /// `$none`: go-on, refuse.
    pub none: Option<Key>,
    /// `$several`: all, first, refuse.
    pub several: Option<Key>,
    /// `$cache: 10m`.
    pub cache: Option<Key>,
    /// `$timeout: 5s`.
    pub timeout: Option<Key>,
    /// `$continue`: where an earlier answer ended.
    pub continues: Option<Expr>,
    /// `$name` of a list entry.
    pub name: Option<Key>,
}

/// `element: item`.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The element's name as written, without a trailing `+`: `birthDate`, `value[x]`, `_birthDate`, `extension`, `PID-3`, `CX.4.1`.
    pub element: Key,
    /// True for `telecom+:`.
    pub append: bool,
    /// What it gets.
    pub item: Item,
}

/// The right side of a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A plain scalar or a `>`/`|` block.
    Expr(Expr),
    /// A quoted scalar.
    Constant(Key),
    /// A mapping.
    Body(Body),
    /// A sequence: every item appends to the element.
    List(Vec<Item>, Span),
}

impl Item {
    /// Where it stands.
    pub fn span(&self) -> Span {
        match self {
            Item::Expr(e) => e.span,
            Item::Constant(k) => k.span,
            Item::Body(b) => b.span,
            Item::List(_, span) => *span,
        }
    }
}

/// `PATH` or `PATH by KEY`.
#[derive(Clone, Debug, PartialEq)]
pub struct Each {
    /// The values.
    pub values: Expr,
    /// The grouping key.
    pub by: Option<Expr>,
}

/// `$save`.
#[derive(Clone, Debug, PartialEq)]
pub struct Save {
    /// The verb.
    pub verb: Verb,
    /// Its identities, in order of preference: one expression, or the items of a YAML list written inside brackets after `by`
    /// (`[SCH-2, SCH-1]` is parsed as two).
    pub by: Vec<Expr>,
    /// Where it stands.
    pub span: Span,
}

/// `update by`, `create by`, `create`, `merge by`, `put by`, `patch by`, `find by`, `delete by`, `contained`, `logical`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Conditional update.
    Update,
    /// Create, or create if none exists when there is a `by`.
    Create,
    /// Read, change, write.
    Merge,
    /// PUT to an id made from the identity.
    Put,
    /// Patch.
    Patch,
    /// Conditional reference.
    Find,
    /// Conditional delete.
    Delete,
    /// Inside the referrer.
    Contained,
    /// `Reference.identifier` and display only.
    Logical,
}

/// An expression with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

/// The grammar of section 6, one variant per production that carries meaning.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// `if A then B else C`.
    If(Box<Expr>, Box<Expr>, Option<Box<Expr>>),
    /// `a ?? b`.
    Else(Box<Expr>, Box<Expr>),
    /// `x as Target-Variant`.
    As(Box<Expr>, Target),
    /// `x via table` or `x via table.column`.
    Via(Box<Expr>, Key, Option<Key>),
    /// `x where COND`.
    Where(Box<Expr>, Box<Expr>),
    /// `or`, `and`, comparisons, arithmetic.
    Binary(Op, Box<Expr>, Box<Expr>),
    /// `not x`.
    Not(Box<Expr>),
    /// `x valued`, `x not valued`, `x deleted`.
    Test(Test, Box<Expr>),
    /// `x in ("a", "b")`; the flag is true for `not in`.
    InList(Box<Expr>, Vec<(Literal, Span)>, bool),
    /// `x in name`; the flag is true for `not in`.
    InName(Box<Expr>, Key, bool),
    /// A literal.
    Literal(Literal),
    /// `count(x)`.
    Call(Key, Vec<Expr>),
    /// `$name`.
    Variable(String),
    /// A bare lower-case name: a resource of the route or a result of `ask`. The flag is true for `all name`.
    Name(String, bool),
    /// `PID-5.1`, `OBX[2]-5`, `OBR.OBX-5`, `PID.PD1.ROL-4`, `message`. `all OBX-5` sets `all`.
    Segment {
        /// `all`.
        all: bool,
        /// `OBR` in `OBR.OBX-5`: anchors from the outside in (segments or groups).
        anchors: Vec<Key>,
        /// `OBX`.
        segment: Key,
        /// `[2]` after the segment.
        index: Option<Index>,
        /// `-5`.
        field: Option<u16>,
        /// What follows.
        tail: Vec<PathStep>,
    },
    /// `CX.4.1`, `Patient.name.family`, `HumanName.use`: begins with a type's name. A two-or-three-letter upper-case name followed by `.digit`
    /// is parsed as this one; whether the name is a segment (K201) is for the checker.
    Type {
        /// `CX`, `Patient`.
        name: Key,
        /// What follows.
        tail: Vec<PathStep>,
    },
    /// A tail on anything else: `$x.1`, `first(PID-3).4`, `(a ?? b)[1]`.
    Tail(Box<Expr>, Vec<PathStep>),
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
pub enum PathStep {
    /// `.4`.
    Component(u16),
    /// `.family`.
    Element(String),
    /// `[2]`, `[last]`.
    Index(Index),
}

/// `[2]` (from 1) or `[last]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// From 1.
    Nth(u32),
    /// The last.
    Last,
}

/// Constants inside expressions.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `"text"`, escapes resolved.
    Text(String),
    /// `1.50`, as written.
    Number(String),
    /// `true`, `false`.
    Bool(bool),
    /// `nothing`.
    Nothing,
    /// `null`, v2's `""`.
    Null,
}

/// Postfix tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Has content.
    Valued,
    /// Has none.
    NotValued,
    /// Is `""`.
    Deleted,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `or`.
    Or,
    /// `and`.
    And,
    /// `=`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `<`.
    Less,
    /// `<=`.
    LessEqual,
    /// `>`.
    Greater,
    /// `>=`.
    GreaterEqual,
    /// `+`.
    Add,
    /// `-`.
    Subtract,
    /// `*`.
    Multiply,
    /// `/`.
    Divide,
}

/// `table:`.
#[derive(Clone, Debug, PartialEq)]
pub struct TableDoc {
    /// Its name.
    pub name: Key,
    /// v2 tables (`0001`) whose codes are on the left.
    pub from: Vec<Key>,
    /// Value set on the right, by short name or URL.
    pub to: Option<Key>,
    /// `system:` of the codes on the right where the value set has several, or none is named.
    pub system: Option<Key>,
    /// `columns:` name -> type.
    pub columns: Vec<(Key, Key)>,
    /// Rows in order.
    pub codes: Vec<TableEntry>,
    /// What a code without a row becomes.
    pub unmapped: Option<Unmapped>,
    /// Other codes for some senders.
    pub senders: Vec<TableSender>,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct TableEntry {
    /// The code on the left.
    pub code: Key,
    /// The code on the right: `male`, or `system|code`; with columns, empty.
    pub to: Option<Key>,
    /// `display:` when the row is `{ code: x, display: y, system: z }`.
    pub display: Option<Key>,
    /// `system:` of this row.
    pub system: Option<Key>,
    /// Column values.
    pub columns: Vec<(Key, Key)>,
}

/// `senders: [{ when: ..., codes: ... }]`.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSender {
    /// On the message.
    pub when: Expr,
    /// Rows that come before the table's own.
    pub codes: Vec<TableEntry>,
}

/// `unmapped:`.
#[derive(Clone, Debug, PartialEq)]
pub enum Unmapped {
    /// The sender's coding with its own system.
    Keep(Span),
    /// Text only.
    Text(Span),
    /// Nothing.
    Drop(Span),
    /// data-absent-reason.
    Absent(Span),
    /// The delivery waits until the code is known.
    Refuse(Span),
    /// A code of the value set.
    Code(Key),
}

/// `systems:`.
#[derive(Clone, Debug, PartialEq)]
pub struct SystemsDoc {
    /// Its name.
    pub name: Key,
    /// Rows in order.
    pub rules: Vec<SystemsRule>,
    /// Template for authorities without a row.
    pub unknown: Option<Key>,
    /// `missing: refuse` or a URI.
    pub missing: Option<Key>,
    /// `ignore:` values that are neither key nor identity.
    pub ignore: Vec<Key>,
}

/// One row of `match`.
#[derive(Clone, Debug, PartialEq)]
pub struct SystemsRule {
    /// HD.1 equals.
    pub namespace: Option<Key>,
    /// HD.2 equals, as an OID.
    pub oid: Option<Key>,
    /// HD.2 equals, any universal id.
    pub universal: Option<Key>,
    /// The identifier's type (CX.5) is one of these; empty means any.
    pub types: Vec<Key>,
    /// The URI.
    pub system: Key,
    /// The row.
    pub span: Span,
}

/// `segment:`.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentDoc {
    /// `ZPI`.
    pub name: Key,
    /// `after: PID`.
    pub after: Option<Key>,
    /// `in: PATIENT`: the group, when `after` does not tell.
    pub group: Option<Key>,
    /// Fields by number.
    pub fields: Vec<(u16, FieldDoc)>,
}

/// One field or component.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldDoc {
    /// Its name.
    pub name: Option<Key>,
    /// Its type.
    pub datatype: Key,
    /// Repeats.
    pub repeats: bool,
    /// Its v2 table.
    pub table: Option<Key>,
    /// The row.
    pub span: Span,
}

/// `datatype:`.
#[derive(Clone, Debug, PartialEq)]
pub struct DatatypeDoc {
    /// `ZCX`.
    pub name: Key,
    /// Components by number.
    pub components: Vec<(u16, FieldDoc)>,
}

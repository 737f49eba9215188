//! The keys of route files, declared once: the reader, the JSON Schema and the editor's help come from these tables.

/// A key that is Kiln's, not an element's.
pub(crate) struct Declared {
    /// As written, with its `$` where it has one.
    pub(crate) name: &'static str,
    /// What stands behind the colon.
    pub(crate) takes: Takes,
    /// A sentence without a full stop.
    pub(crate) meaning: &'static str,
    /// May be written with a `+` in an `extend:`.
    pub(crate) appends: bool,
    /// Where it may stand, for a `$` key; empty means in every body.
    pub(crate) only: &'static [Place],
}

/// Where a body stands: some `$` keys have a meaning only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The top of a map.
    Map,
    /// A resource of a route.
    Resource,
    /// The top of a route's `message`.
    Message,
    /// A question of a route's `ask`.
    Question,
    /// Everywhere else.
    Inside,
}

/// The shapes of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Takes {
    /// An expression.
    Expression,
    /// An expression, or a list of them.
    Expressions,
    /// `PATH` or `PATH by KEY`.
    Each,
    /// `merge by EXPR` and the other verbs.
    Save,
    /// A word or text.
    Word,
    /// A word, or a list of them.
    Words,
    /// One of these.
    Choice(&'static [&'static str]),
    /// `{ name: text }`.
    Texts,
    /// An expression, a constant, a body or a list.
    Item,
    /// A list of bodies.
    Alternatives,
    /// `{ name: item }`.
    NamedItems,
    /// `SOURCE -> TARGET`, or a list of them.
    Arrows,
    /// A body of the same type as the one around.
    Body,
    /// The body of v2 output, or one of these words.
    Message(&'static [&'static str]),
    /// `{ name: resource }`.
    Resources,
    /// `{ name: question }`.
    Questions,
    /// `{ Type: save }`.
    Saves,
    /// `{ code: code }`, with bodies of [`ROW`].
    Rows,
    /// One of the words for codes without a row, or a code.
    Unmapped,
    /// A list of bodies of [`SENDER`].
    Senders,
    /// A list of bodies of [`RULE`].
    Rules,
    /// `{ 3: CX }`, with bodies of [`FIELD`].
    Fields,
}

const fn key(name: &'static str, takes: Takes, meaning: &'static str) -> Declared {
    Declared { name, takes, meaning, appends: false, only: &[] }
}

const fn list(name: &'static str, takes: Takes, meaning: &'static str) -> Declared {
    Declared { name, takes, meaning, appends: true, only: &[] }
}

const fn only(name: &'static str, places: &'static [Place], takes: Takes, meaning: &'static str) -> Declared {
    Declared { name, takes, meaning, appends: false, only: places }
}

/// `message: as-received`: what came is sent on, byte for byte.
pub(crate) const AS_RECEIVED: &str = "as-received";

/// A kind of document, by its first key.
pub(crate) struct Kind {
    /// `map`.
    pub(crate) first: &'static str,
    /// What it is, and how its head is written.
    pub(crate) meaning: &'static str,
    /// Its other keys; a map has elements instead.
    pub(crate) keys: &'static [Declared],
}

/// Every kind of document.
pub(crate) const KINDS: &[Kind] = &[
    Kind { first: "map", meaning: "how one thing becomes another: `PID -> Patient`, `CX -> Identifier`, `NK1 -> Patient.contact`", keys: &[] },
    Kind { first: "route", meaning: "which messages, what is made of them, and for which targets", keys: ROUTE },
    Kind { first: "table", meaning: "codes into codes", keys: TABLE },
    Kind { first: "systems", meaning: "names of authorities and coding systems into URIs", keys: SYSTEMS },
    Kind { first: "segment", meaning: "a site's own v2 segment: `ZPI`", keys: SEGMENT },
    Kind { first: "datatype", meaning: "a site's own v2 data type: `ZCX`", keys: DATATYPE },
    Kind { first: "extend", meaning: "changes lines of an earlier document: the head of a map, or the name of a route, table or systems document", keys: &[] },
];

/// The overlay that a whole document belongs to.
pub(crate) const IN: Declared = key("$in", Takes::Word, "this document counts only where `use:` names this overlay");

/// The `$` keys of bodies.
pub(crate) const OWN: &[Declared] = &[
    key("$each", Takes::Each, "makes the body once for each value; inside, that path means the current one"),
    key("$from", Takes::Each, "like `$each`, and begins with the value converted; the lines then change that"),
    key("$when", Takes::Expression, "a condition; where it does not hold, the body makes nothing"),
    key("$first", Takes::Alternatives, "the first alternative that holds and makes something"),
    key("$value", Takes::Item, "the body's whole value"),
    key("$let", Takes::NamedItems, "names for values, read as `$name`"),
    only("$takes", &[Place::Map], Takes::Texts, "what a map wants to be told: `{ name: TYPE }`"),
    key("$with", Takes::NamedItems, "what the maps that are called here are told: `{ name: EXPR }`"),
    only("$map", &[Place::Resource], Takes::Arrows, "the maps that fill this resource"),
    only("$save", &[Place::Resource, Place::Map], Takes::Save, "how the resource is saved, and what identifies it: `merge by PID-3`"),
    only("$missing", &[Place::Resource, Place::Map], Takes::Choice(&["refuse", "skip", "derive"]), "what happens when a message has no identity"),
    only("$merge", &[Place::Resource], Takes::Texts, "how lists meet when saved by `merge` or `patch`: `union`, `replace` or `by ELEMENT`"),
    only("$initial", &[Place::Resource], Takes::Body, "lines that count only when the resource is created"),
    only("$copy", &[Place::Message], Takes::Words, "begins with the message as sent: `all`, or a list of segments"),
    only("$search", &[Place::Question], Takes::Word, "the resource type that is searched"),
    only("$at", &[Place::Question], Takes::Word, "the target that is asked"),
    only("$none", &[Place::Question], Takes::Choice(&["go-on", "refuse"]), "what happens when nothing is found; left out, the route goes on"),
    only("$several", &[Place::Question], Takes::Choice(&["all", "first", "refuse"]), "what several matches mean; left out, all are meant"),
    only("$cache", &[Place::Question], Takes::Word, "for so long an answer stands for the same question: `10m`"),
    only("$timeout", &[Place::Question], Takes::Word, "so long an answer is waited for: `5s`; left out, as long as the target's `timeout`"),
    only("$continue", &[Place::Question], Takes::Expression, "where an earlier answer ended, as more() gave it: `DSC-1`"),
    key("$name", Takes::Word, "a handle by which a site's `extend:` finds an entry of a list"),
    IN,
];

/// Keys of a `route:`.
pub(crate) const ROUTE: &[Declared] = &[
    list("on", Takes::Words, "the messages, as MSH-9 has them: `ADT^A01`, `ADT^*`, `ORU^R01^ORU_R01`, or `otherwise`"),
    list("from", Takes::Words, "the listeners; left out, all"),
    list("to", Takes::Words, "the targets"),
    key("when", Takes::Expression, "a condition on the message"),
    list("order-by", Takes::Expressions, "what keeps deliveries in order; left out, the identifiers in PID-3 and MRG-1"),
    list("use", Takes::Words, "overlays: documents with `$in: NAME` count for this route"),
    key("like", Takes::Word, "the route that this one repeats with changes"),
    key("resources", Takes::Resources, "what is made: a name for each resource, and its body"),
    key("message", Takes::Message(&[AS_RECEIVED]), "the v2 message that is made; `as-received` sends on what came, byte for byte"),
    key("ask", Takes::Questions, "searches whose results the route reads"),
    key("reply", Takes::Word, "the type of the answer: `RSP^K22^RSP_K21`"),
    key("shared", Takes::Saves, "how resources that maps of data types make are saved: `{ Practitioner: create by identifier }`"),
    key("types", Takes::Texts, "the data types of fields whose type varies: `{ QPD-3: QIP }`"),
    key("invalid", Takes::Choice(&["report", "refuse"]), "what a value that does not fit does"),
    key("send", Takes::Choice(&["transaction", "batch", "single"]), "how a FHIR server is written to"),
    key("retry", Takes::Texts, "how long a delivery is tried again: `{ for: 7d }`"),
    key("after-dead-letter", Takes::Choice(&["wait", "go-on"]), "what the patient's later messages do after a dead letter"),
];

/// Keys of a `table:`.
pub(crate) const TABLE: &[Declared] = &[
    list("from", Takes::Words, "the v2 tables whose codes are on the left: `[\"0001\"]`"),
    key("to", Takes::Word, "the FHIR value set on the right, by short name or URL; `boolean` for true and false"),
    key("system", Takes::Word, "the system of the codes on the right, where the value set does not tell"),
    key("columns", Takes::Texts, "several results: `{ unit: ucum, factor: decimal }`"),
    key("codes", Takes::Rows, "on the left what comes in, on the right what goes out"),
    key("unmapped", Takes::Unmapped, "what a code without a row becomes: keep, text, drop, absent, refuse, or a code"),
    list("senders", Takes::Senders, "other codes for some senders"),
];

/// Words of `unmapped:` beside codes.
pub(crate) const UNMAPPED: &[&str] = &["keep", "text", "drop", "absent", "refuse"];

/// A row of a table that is a body; columns come beside these.
pub(crate) const ROW: &[Declared] =
    &[key("code", Takes::Word, "the code that goes out"), key("display", Takes::Word, "its text for people"), key("system", Takes::Word, "its system")];

/// An entry of `senders:`.
pub(crate) const SENDER: &[Declared] =
    &[key("when", Takes::Expression, "whose codes these are: `MSH-3 = \"LAB7\"`"), key("codes", Takes::Rows, "rows that come before the table's own")];

/// Keys of a `systems:`.
pub(crate) const SYSTEMS: &[Declared] = &[
    list("match", Takes::Rules, "rows: which authority, and its URI"),
    key("unknown", Takes::Word, "the URI of an authority without a row, with `{sender}` and `{namespace}`; or `refuse`"),
    key("missing", Takes::Word, "`refuse`, or the URI of identifiers without any authority"),
    list("ignore", Takes::Words, "values that are no identifiers, such as 9999"),
];

/// A row of `match:`.
pub(crate) const RULE: &[Declared] = &[
    key("namespace", Takes::Word, "CX.4.1 is this"),
    key("oid", Takes::Word, "CX.4.2 is this OID"),
    key("universal", Takes::Word, "CX.4.2 is this, of whatever kind"),
    key("types", Takes::Words, "CX.5 is one of these; left out, any"),
    key("system", Takes::Word, "the URI"),
];

/// Keys of a `segment:`.
pub(crate) const SEGMENT: &[Declared] = &[
    key("after", Takes::Word, "the segment that it follows"),
    key("in", Takes::Word, "the group that it stands in, where `after` does not tell"),
    key("fields", Takes::Fields, "its fields by number"),
];

/// Keys of a `datatype:`.
pub(crate) const DATATYPE: &[Declared] = &[key("components", Takes::Fields, "its components by number")];

/// A field or component.
pub(crate) const FIELD: &[Declared] = &[
    key("name", Takes::Word, "its name"),
    key("type", Takes::Word, "its v2 data type"),
    key("repeats", Takes::Choice(&["true", "false"]), "may it repeat"),
    key("table", Takes::Word, "the v2 table that codes it: `\"0001\"`"),
];

/// The names of keys, in the order declared.
pub(crate) fn names(keys: &'static [Declared]) -> Vec<&'static str> {
    keys.iter().map(|k| k.name).collect()
}

/// The first keys of documents.
pub(crate) fn first_keys() -> Vec<&'static str> {
    KINDS.iter().map(|k| k.first).collect()
}

/// A declared key by its name.
pub(crate) fn find(keys: &'static [Declared], name: &str) -> Option<&'static Declared> {
    keys.iter().find(|k| k.name == name)
}

impl Declared {
    /// May this `$` key stand in such a body?
    pub(crate) fn allowed(&self, place: Place) -> bool {
        self.only.is_empty() || self.only.contains(&place)
    }
}
